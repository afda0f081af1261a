"""Sends connections to Redis's usual port of this machine to the server that the run started.

RQ's tests, the processes that they fork and those that they spawn all name port 6379 or none. Python imports this in
each of them, because its directory is on PYTHONPATH; nothing but the socket knows of it.
"""

from __future__ import annotations

import os
import socket
from typing import Any

#: What RQ's tests connect to.
_USUAL_PORT = 6379
_LOOPBACK = {"127.0.0.1", "::1", "localhost"}


def _redirect(port: int) -> None:
    connect = socket.socket.connect

    def redirected(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and address[0] in _LOOPBACK and address[1] == _USUAL_PORT:
            address = (address[0], port, *address[2:])
        connect(self, address)

    socket.socket.connect = redirected  # type: ignore[method-assign]


if "CONFORMANCE_REDIS_PORT" in os.environ:
    _redirect(int(os.environ["CONFORMANCE_REDIS_PORT"]))
