"""RQ's scheduler in a thread: brings back the jobs that wait for a retry, without forking a process with a model in it.

In: the queues' scheduled registries. Out: enqueued jobs. One scheduler a queue in the whole fleet, by RQ's own locks.
"""

from __future__ import annotations

import logging
import threading
import time

import redis
from rq.scheduler import RQScheduler

log = logging.getLogger(__name__)

#: A scheduler that is silent for so long gives its place up, in seconds; RQ waits for a minute, and then for ten more.
_LEASE_SECONDS = 5


class SchedulerThread(RQScheduler):
    """RQ's scheduler, run by a thread of the worker.

    Args:
        queues: Names.
        connection: Its settings are used for a connection of the scheduler's own.
    """

    def __init__(self, queues: list[str], connection: redis.Redis) -> None:
        super().__init__(queues, connection=connection, serializer="json", logging_level=logging.WARNING)
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def join(self, timeout_seconds: float) -> None:
        """Ask the thread to stop, and wait for it to give its locks back."""
        self.request_stop()
        self._thread.join(timeout_seconds)

    @property
    def should_reacquire_locks(self) -> bool:
        """Whether there is a queue that another scheduler sees to, or nobody any more."""
        return bool(self._queue_names != self.acquired_locks)

    def acquire_locks(self, auto_start: bool = False) -> set[str]:
        """Take the queues that nobody sees to."""
        acquired: set[str] = super().acquire_locks(auto_start)
        self._shorten()
        return acquired

    def heartbeat(self) -> None:
        """Say that this scheduler lives."""
        super().heartbeat()
        self._shorten()

    def _shorten(self) -> None:
        for name in self.acquired_locks:
            self.connection.expire(self.get_locking_key(name), _LEASE_SECONDS)

    def _install_signal_handlers(self) -> None:
        """Leave signals to the worker; only a main thread could take them."""

    def _run(self) -> None:
        while not self._stop_requested:
            try:
                self.work()
            except Exception as error:
                # Whatever it is: without this thread no job is ever tried again.
                log.warning("scheduler: %s: %s; trying again", type(error).__name__, error)
                time.sleep(self.interval)
