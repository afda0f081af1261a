"""A receiver of webhooks to start from: verifies Standard Webhooks, drops repeats, and prints each verdict on a line.

In: POSTs of `sluice deliver`. Out: 204 once a verdict is kept, 401 for what is forged or old. Nothing but the standard
library; with packages, `standardwebhooks` verifies in one call.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import json
import time
from collections import OrderedDict
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock

#: A message that was signed longer ago, or later, is refused, in seconds.
TOLERANCE_SECONDS = 300
#: Longer bodies are refused unread; verdicts are kilobytes.
MAX_BYTES = 4 * 1024 * 1024
#: Verdicts that are remembered. Of your own, use a unique key in your database instead.
REMEMBERED = 100_000


def is_genuine(secret: str, headers: Mapping[str, str], body: bytes, now: float) -> bool:
    """Return whether a message was signed with `secret`, and lately.

    Args:
        secret: `whsec_` and base64.
        headers: By their names in small letters.
        body: As it came; parsed and written again it would not verify.
        now: Seconds since the epoch.

    Source: Standard Webhooks, "Verifying signatures".
    """
    message_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not timestamp.isdecimal() or abs(now - int(timestamp)) > TOLERANCE_SECONDS:
        return False
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    expected = b"v1," + base64.b64encode(signed)
    # While a secret is changed there are two signatures.
    given = headers.get("webhook-signature", "").encode().split()
    return any(hmac.compare_digest(expected, signature) for signature in given)


class Seen:
    """Remembers which verdicts were kept, the latest of them."""

    def __init__(self, limit: int = REMEMBERED) -> None:
        self._limit = limit
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._lock = Lock()

    def is_new(self, verdict_id: str) -> bool:
        """Return whether it was not seen before, and remember it."""
        with self._lock:
            if verdict_id in self._ids:
                return False
            self._ids[verdict_id] = None
            if len(self._ids) > self._limit:
                self._ids.popitem(last=False)
            return True


def serve(host: str, port: int, secret: str) -> ThreadingHTTPServer:
    """Return a server of the receiver; `serve_forever` runs it."""
    seen = Seen()

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            if not length.isdecimal() or int(length) > MAX_BYTES:
                self._answer(413)
                return
            body = self.rfile.read(int(length))
            headers = {name.lower(): value for name, value in self.headers.items()}
            if not is_genuine(secret, headers, body, time.time()):
                self._answer(401)
                return
            verdict = json.loads(body)
            if seen.is_new(verdict["verdict_id"]):
                # Yours goes here: keep it, then answer. What is answered with 2xx is not sent again.
                print(json.dumps({key: verdict[key] for key in ("content_id", "action", "reason")}), flush=True)
            self._answer(204)

        def do_GET(self) -> None:
            self._answer(204 if self.path == "/livez" else 404)

        def _answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.send_header("Connection", "close")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Verdicts are lines enough."""

    return ThreadingHTTPServer((host, port), Handler)


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--host", default="127.0.0.1")
    options.add_argument("--port", type=int, default=8080)
    options.add_argument("--secret-file", type=Path, required=True)
    given = options.parse_args()
    serve(given.host, given.port, given.secret_file.read_text().strip()).serve_forever()
