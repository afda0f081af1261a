"""RQ's scheduler in a thread: brings back the jobs that wait for a retry, without forking a process with a model in it.

In: the queues' scheduled registries. Out: enqueued jobs. One scheduler a queue in the whole fleet, by RQ's own locks.
Never stopped by a job that cannot be read: it goes to its queue as it is, and the worker ends it.
"""

from __future__ import annotations

import logging
import threading
import time

import redis
from rq import Queue
from rq.exceptions import NoSuchJobError
from rq.job import Job
from rq.registry import ScheduledJobRegistry
from rq.scheduler import RQScheduler

from worker.runtime.guarded_job import Callbacks, guarded

log = logging.getLogger(__name__)

#: A scheduler that is silent for so long gives its place up, in seconds; RQ waits for a minute, and then for ten more.
_LEASE_SECONDS = 5
#: Jobs of one queue that are brought back before the locks are renewed.
_AT_ONCE = 1000


class SchedulerThread(RQScheduler):
    """RQ's scheduler, run by a thread of the worker.

    Args:
        queues: Names.
        connection: Its settings are used for a connection of the scheduler's own.
        max_data_bytes: Of a job whose data is larger, nothing is read.
    """

    def __init__(self, queues: list[str], connection: redis.Redis, max_data_bytes: int) -> None:
        super().__init__(queues, connection=connection, serializer="json", logging_level=logging.WARNING)
        self._max_bytes = 2 * max_data_bytes
        self._job_class = guarded(Job, Callbacks(()), max_data_bytes)
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

    def enqueue_scheduled_jobs(self) -> None:
        """Bring back the jobs whose time has come, each by itself."""
        for name in self.acquired_locks:
            queue = Queue(name, connection=self.connection, serializer=self.serializer, job_class=self._job_class)
            registry = queue.scheduled_job_registry
            for job_id in self.connection.zrangebyscore(registry.key, "-inf", time.time(), start=0, num=_AT_ONCE):
                self._bring_back(queue, registry, job_id)

    def _bring_back(self, queue: Queue, registry: ScheduledJobRegistry, job_id: bytes) -> None:
        with self.connection.pipeline() as transaction:
            transaction.zrem(registry.key, job_id)
            try:
                self._enqueue(queue, job_id.decode(), transaction)
            except (redis.ConnectionError, redis.TimeoutError):
                raise
            except NoSuchJobError:
                log.info("%a was scheduled, and is there no more", job_id)
            except Exception as error:
                log.warning("%a is brought back unread: %s: %s", job_id[:512], type(error).__name__, error)
                transaction.rpush(queue.key, job_id)
            transaction.execute()

    def _enqueue(self, queue: Queue, job_id: str, transaction: redis.client.Pipeline) -> None:
        if (self.connection.memory_usage(Job.key_for(job_id), samples=0) or 0) > self._max_bytes:
            raise ValueError("it is larger than a job may be")
        job = self._job_class.fetch(job_id, connection=self.connection, serializer=self.serializer)
        at_front = job.should_enqueue_at_front()
        if job.has_rate_limit:
            queue._enqueue_rate_limited_job(job, pipeline=transaction, at_front=at_front)
        else:
            queue._enqueue_job(job, pipeline=transaction, at_front=at_front)

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
