"""A cable between a worker and Redis, which can lose an answer: what was asked has happened, and nobody knows."""

from __future__ import annotations

import contextlib
import socket
import threading


class Cable:
    """Passes on what two sides say to each other, until it is told to break.

    Args:
        port: Where Redis listens, on this machine.

    Attributes:
        port: Where the cable does.
        has_broken: Set when an answer was lost.
    """

    def __init__(self, port: int) -> None:
        self._redis_port = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self.has_broken = threading.Event()
        self._lost: tuple[bytes, bytes] | None = None
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def lose(self, asked: bytes, answered: bytes = b"") -> None:
        """Lose the next answer that holds `answered`, to a question that holds `asked`, and its connection."""
        self.has_broken.clear()
        self._lost = (asked, answered)

    def close(self) -> None:
        """Unplug it."""
        self._server.close()
        for end in self._sockets:
            end.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection(("127.0.0.1", self._redis_port))
                self._sockets += [near, far]
                question = bytearray()
                for work in (self._pass_questions, self._pass_answers):
                    threading.Thread(target=work, args=(near, far, question), daemon=True).start()

    def _pass_questions(self, near: socket.socket, far: socket.socket, question: bytearray) -> None:
        with contextlib.suppress(OSError):
            while data := near.recv(65536):
                question += data
                far.sendall(data)
        _hang_up(near, far)

    def _pass_answers(self, near: socket.socket, far: socket.socket, question: bytearray) -> None:
        with contextlib.suppress(OSError):
            while data := far.recv(65536):
                if self._lost and self._lost[0] in question and self._lost[1] in data:
                    self._lost = None
                    self.has_broken.set()
                    break
                question.clear()
                near.sendall(data)
        _hang_up(near, far)


def _hang_up(*ends: socket.socket) -> None:
    for end in ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
