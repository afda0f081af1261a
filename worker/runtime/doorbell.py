"""Waits until a queue has a job, without taking it: what is not taken cannot be lost.

In: keys of queues. Out: a return. Redis moves the first job of a list onto its own place, which changes nothing, and
blocks while there is none; BLPOP would take it out of Redis and leave it to luck.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import redis

#: Seconds of one blocking read, after which a thread looks whether it is still wanted.
_BLOCK_SECONDS = 1.0
#: Seconds between looks at whether it is enough.
_LOOK_SECONDS = 0.1


class Doorbell:
    """Listens to several queues at once, with a thread and a connection for each.

    Args:
        connection: Its pool gives the connections.
        queues: Their keys.
    """

    def __init__(self, connection: redis.Redis, queues: Sequence[str]) -> None:
        self._connection = connection
        self._rung = threading.Event()
        self._wanted = threading.Event()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._listen, args=(key,), name=f"doorbell {key}", daemon=True) for key in queues
        ]
        for thread in self._threads:
            thread.start()

    def wait(self, timeout_seconds: float, is_enough: Callable[[], bool]) -> None:
        """Return when a queue has a job, the time is up, or it is enough.

        Args:
            timeout_seconds: How long to wait.
            is_enough: Asked now and then; what a signal handler may set, for it must not ring itself.
        """
        deadline = time.monotonic() + timeout_seconds
        self._wanted.set()
        while not is_enough() and (left := deadline - time.monotonic()) > 0:
            if self._rung.wait(min(left, _LOOK_SECONDS)):
                break
        self._wanted.clear()
        self._rung.clear()

    def close(self) -> None:
        """End the threads, soon."""
        self._closed = True
        self._wanted.set()

    def _listen(self, key: str) -> None:
        while not self._closed:
            self._wanted.wait()
            try:
                found = self._connection.blmove(key, key, _BLOCK_SECONDS, "LEFT", "LEFT")  # type: ignore[arg-type]
            except redis.RedisError:
                # Redis is away, or the key is no list: whoever claims will say so.
                time.sleep(_BLOCK_SECONDS)
                continue
            if found is not None and self._wanted.is_set():
                self._rung.set()
                # Until it is taken, the same job would ring again at once.
                time.sleep(0.005)
