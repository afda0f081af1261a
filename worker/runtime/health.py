"""The metrics port: `/metrics`, `/livez` (the loop turns), `/readyz` (model, policies and Redis are there).

In: callables that answer. Out: HTTP. Never more than it was asked for: no other path, no other method.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from worker.errors import UsageError

#: Returns what is not ready, in words; empty when all is well.
Check = Callable[[], list[str]]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _QuietHandler(WSGIRequestHandler):
    #: Seconds; a client that says nothing does not hold a thread for ever.
    timeout = 10

    def log_message(self, *args: Any) -> None:
        """Probes every few seconds are not news."""


class HealthServer:
    """Answers on the metrics port, from a thread.

    Args:
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        exporter: `/metrics` as a WSGI application.
        live: What is wrong with the loop.
        ready: What is missing.
        notes: What an operator should know beside; shown by `/readyz`, and no reason for another status.

    Raises:
        UsageError: The port is taken or not allowed.
    """

    def __init__(
        self,
        host: str,
        port: int,
        exporter: Callable[..., Iterable[bytes]],
        live: Check,
        ready: Check,
        notes: Check = list,
    ) -> None:
        self._exporter = exporter
        self._notes = notes
        self._checks = {"/livez": live, "/readyz": ready}
        try:
            self._server = make_server(host, port, self._answer, _Server, _QuietHandler)
        except (OSError, OverflowError) as error:
            raise UsageError(f"cannot listen on {host}:{port} ({error}); set SLUICE_METRICS_PORT") from error
        self.port = int(self._server.server_port)
        threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if environ.get("REQUEST_METHOD") not in {"GET", "HEAD"}:
            start_response("405 Method Not Allowed", [("Allow", "GET, HEAD"), ("Content-Type", "text/plain")])
            return [b"read only\n"]
        if path == "/metrics":
            return self._exporter(environ, start_response)
        check = self._checks.get(path)
        problems = check() if check else [f"no {path}; there are /metrics, /livez and /readyz"]
        status = "200 OK" if not problems else "404 Not Found" if check is None else "503 Service Unavailable"
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        notes = self._notes() if path == "/readyz" else []
        return ["".join(f"{line}\n" for line in (*(problems or ["ok"]), *notes)).encode()]
