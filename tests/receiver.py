"""A receiver of webhooks on loopback that does as each path is told, checked with the `standardwebhooks` package."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook

SECRET = "whsec_" + "c2x1aWNlLXRlc3Qtc2VjcmV0LW9mLTMyLWJ5dGVzISE="
OLD_SECRET = "whsec_" + "YW4tb2xkZXItc2VjcmV0LW9mLTMyLWJ5dGVzLWhlcmU="

Behave = Callable[[BaseHTTPRequestHandler], None]


@dataclass(frozen=True)
class Got:
    """One request that arrived whole."""

    path: str
    webhook_id: str
    timestamp: int
    headers: dict[str, str]
    verdict: dict[str, Any]
    at: float


def answer(status: int, **headers: str) -> Behave:
    """Answer with a status and nothing else."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return behave


def hang(handler: BaseHTTPRequestHandler) -> None:
    """Read the request and never answer."""
    with suppress(OSError):
        handler.connection.recv(1)


def reset(handler: BaseHTTPRequestHandler) -> None:
    """Break the connection off."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True
    handler.connection.close()


def say(text: bytes) -> Behave:
    """Write raw bytes, and hold the connection open."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(text)
        handler.wfile.flush()
        hang(handler)

    return behave


class Receiver:
    """Takes posts; every request must verify.

    Attributes:
        url: Where it is.
        connections: How many were opened.
        wrong: Requests that did not verify.
    """

    def __init__(self, secret: str = SECRET) -> None:
        self.connections = 0
        self.wrong: list[str] = []
        self.at_once: Counter[str] = Counter()
        self.most_at_once: Counter[str] = Counter()
        self._got: list[Got] = []
        self._behave: dict[str, list[Behave]] = defaultdict(lambda: [answer(204)])
        self._asked: Counter[str] = Counter()
        self._lock = threading.Lock()
        receiver, webhook = self, Webhook(secret)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                body = self.rfile.read(length)
                if len(body) < length:
                    # Whoever sent it was killed in the middle.
                    return
                receiver._take(self, body, webhook)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

            def handle_error(self, *_: object) -> None:
                """Connections that break are what is tested."""

            def get_request(self) -> Any:
                receiver.connections += 1
                return super().get_request()

            def shutdown_request(self, request: Any) -> None:
                with suppress(OSError):
                    super().shutdown_request(request)

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.01], daemon=True)
        self._thread.start()

    def endpoint(self, path: str, *behaviours: Behave) -> str:
        """Say how a path answers, one after the other, the last one for ever; its URL."""
        self._behave[path] = list(behaviours)
        return self.url + path

    def got(self, path: str | None = None) -> list[Got]:
        """Return what arrived, in order."""
        with self._lock:
            return [got for got in self._got if path in (None, got.path)]

    def ids(self, path: str) -> Counter[str]:
        """Return how often each webhook id arrived."""
        return Counter(got.webhook_id for got in self.got(path))

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _take(self, handler: BaseHTTPRequestHandler, body: bytes, webhook: Webhook) -> None:
        headers = {name.lower(): value for name, value in handler.headers.items()}
        path = handler.path
        with self._lock:
            try:
                webhook.verify(body, headers)
            except Exception as error:
                self.wrong.append(f"{path}: {error!r}")
            self._got.append(
                Got(path, headers["webhook-id"], int(headers["webhook-timestamp"]), headers, json.loads(body),
                    time.monotonic())
            )  # fmt: skip
            place = min(self._asked[path], len(self._behave[path]) - 1)
            self._asked[path] += 1
            behave = self._behave[path][place]
            self.at_once[path] += 1
            self.most_at_once[path] = max(self.most_at_once[path], self.at_once[path])
        try:
            with suppress(OSError):
                behave(handler)
        finally:
            with self._lock:
                self.at_once[path] -= 1
