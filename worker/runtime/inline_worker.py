"""An RQ worker that keeps the model loaded: one process, no fork, `worker.jobs.moderate` and nothing else.

In: RQ queues. Out: each job ended by RQ's own transaction, in which its verdict rides. To every RQ tool it is an
ordinary worker: registries, results, retries, heartbeats, suspension, shutdown.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import redis
from redis.client import Pipeline as Transaction
from rq import Queue, SimpleWorker
from rq.exceptions import DeserializationError, NoSuchJobError, StopRequested
from rq.executions import Execution
from rq.job import Job
from rq.job_lifecycle import call_exception_handlers
from rq.suspension import is_suspended
from rq.timeouts import JobTimeoutException
from rq.worker import BaseWorker
from rq.worker.base import WorkerStatus

from worker import app as sluice
from worker.errors import JobError, JobInvalid
from worker.jobs import MODERATE, seconds_queued
from worker.metrics import Metrics
from worker.pipeline import QueuedJob
from worker.records import Subject, Verdict
from worker.sinks.stream import Fence

log = logging.getLogger(__name__)

#: Waits before the retries of a job whose cause is transient, in seconds.
RETRY_SECONDS = (1, 5, 15)
#: Seconds between heartbeats while a job runs.
_HEARTBEAT_SECONDS = 10
#: Seconds after which a silent worker counts as dead.
_WORKER_TTL_SECONDS = 60
#: Seconds that an idle worker listens before it looks up: how long a stop can take.
_LISTEN_SECONDS = 1


class ModerationRQJob(Job):
    """A job that can only be a moderation: anything else that it names is refused before it is imported."""

    #: Read by `worker.jobs.moderate`: the worker pushes the verdict when it ends the job.
    ends_with_verdict = True

    def restore(self, raw_data: dict[bytes, bytes]) -> None:
        """Read the job's hash, and of one that RQ cannot read at least what was asked for: it needs a verdict."""
        try:
            super().restore(raw_data)
        except NoSuchJobError:
            raise
        except Exception as error:
            log.warning("%s: its hash cannot be read (%s); only its data is heeded", self.id, error)
            super().restore({b"data": raw_data[b"data"]})

    def perform(self) -> Any:
        """Run `worker.jobs.moderate`.

        Raises:
            JobInvalid: The job is not a call of it with keyword arguments.
        """
        if self.func_name != MODERATE or self.instance is not None or self.args or not isinstance(self.kwargs, dict):
            raise JobInvalid(f"this worker runs {MODERATE} with keyword arguments and nothing else")
        return super().perform()


class InlineWorker(SimpleWorker):
    """Runs moderation jobs in this process.

    Args:
        queues: Names, first served first.
        app: What judges.
        metrics: Where ends of jobs are counted.
        hurry: Called, more than once, when the worker is about to leave and nothing shall wait any more.
    """

    job_class = ModerationRQJob
    #: Seconds between attempts to reach Redis, at most; the connection itself waits too.
    max_connection_wait_time = 1

    def __init__(self, queues: list[str], app: sluice.App, metrics: Metrics, hurry: Callable[[], None]) -> None:
        super().__init__(
            queues,
            connection=app.connection,
            serializer="json",
            log_job_description=False,
            job_monitoring_interval=_HEARTBEAT_SECONDS,
            worker_ttl=_WORKER_TTL_SECONDS,
        )
        self._app = app
        self._metrics = metrics
        self._hurry = hurry
        self._job_in_hand = False
        self._failure: BaseException | None = None
        self._last_verdict: Verdict | None = None
        self._beat_lock = threading.Lock()
        self._alive_until = time.monotonic() + 2 * _WORKER_TTL_SECONDS

    @property
    def is_alive(self) -> bool:
        """Whether the loop turned lately, or is within the time-out of its job."""
        return time.monotonic() < self._alive_until

    # -- listening ---------------------------------------------------------------------------------------------------

    @property
    def dequeue_timeout(self) -> int:
        """Seconds of one blocking read."""
        return _LISTEN_SECONDS

    def _shutdown(self) -> None:
        """Note the wish to stop; acted upon where no job can be lost: between jobs."""
        self._stop_requested = True
        if not self._job_in_hand:
            self._hurry()

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[Job, Queue] | None:
        """Wait for a job, as RQ does; but hear of a suspension meanwhile, and outlive what is no job."""
        self._job_in_hand = False
        idle_until = time.monotonic() + (max_idle_time or float("inf"))
        while True:
            try:
                found = super().dequeue_job_and_maintain_ttl(timeout, _LISTEN_SECONDS)
            except Exception as error:
                # Only what was taken from the queue already; `job_id` is RQ's own mark of that.
                if not isinstance(error, UnicodeError) and not hasattr(error, "job_id"):
                    raise
                log.warning("dropped from the queue, because it is no job: %s", error)
                continue
            if found is not None or timeout is None or time.monotonic() > idle_until:
                return found
            self.check_for_suspension(burst=False)

    def check_for_suspension(self, burst: bool) -> None:
        """Wait while the workers are suspended; unlike RQ, with heartbeats."""
        while not self._stop_requested and is_suspended(self.connection, self):
            if burst:
                raise StopRequested
            self.set_state(WorkerStatus.SUSPENDED)
            self.heartbeat()
            time.sleep(_LISTEN_SECONDS)

    def reorder_queues(self, reference_queue: Queue) -> None:
        """Take note that a job was taken: from here on a stop waits for it."""
        self._job_in_hand = True
        super().reorder_queues(reference_queue)

    def heartbeat(self, timeout: int | None = None, pipeline: Transaction | None = None) -> None:
        """Tell Redis, and whoever asks for liveness, that the loop turns."""
        if threading.current_thread() is threading.main_thread():
            if self._stop_requested and not self._job_in_hand:
                raise StopRequested
            self._alive_until = max(self._alive_until, time.monotonic() + 2 * _WORKER_TTL_SECONDS)
        if pipeline is None and not self.connection.exists(self.key):
            # Redis came back without its data: appear in `rq info` again.
            self.register_birth()
        super().heartbeat(timeout, pipeline)

    def teardown(self) -> None:
        """Leave; without waiting when Redis is not there to say goodbye to."""
        self._hurry()
        if self.pubsub_thread:
            # Else RQ waits a second for a thread that waits a minute.
            self.pubsub_thread.stop()
        try:
            super().teardown()
        except redis.RedisError as error:
            log.warning("left without signing off: Redis does not answer (%s)", error)

    # -- one job -----------------------------------------------------------------------------------------------------

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Run one job, heartbeating meanwhile."""
        self._failure = self._last_verdict = None
        # Whatever its hash says: its registries and its metrics are those of the queue that it was taken from.
        job.origin = queue.name
        self._alive_until = time.monotonic() + float(job.timeout or 0) + 2 * _WORKER_TTL_SECONDS
        self._metrics.batch_images.observe(1)
        self._metrics.queue_wait_seconds.labels(queue.name).observe(seconds_queued(job))
        execution = self.prepare_execution(job)
        with self._heartbeating(job, execution):
            self.perform_job(job, queue, execution)
        self.set_state("idle")
        self._observe_end(job, queue)
        self._job_in_hand = False

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:
        """Return the time to live of a worker that heartbeats while it computes, unlike RQ's SimpleWorker."""
        return int(BaseWorker.get_heartbeat_ttl(self, job, working_time))

    @contextmanager
    def _heartbeating(self, job: Job, execution: Execution) -> Iterator[None]:
        done = threading.Event()

        def beat() -> None:
            while not done.wait(_HEARTBEAT_SECONDS):
                with self._beat_lock:
                    if execution.id in self.executions:
                        self.maintain_heartbeats(job, execution)

        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def handle_job_success(self, *args: Any, **kwargs: Any) -> None:
        """End a job; timed as the stage `push`, because the verdict rides in this transaction."""
        with self._metrics.stage_seconds.labels("push").time():
            super().handle_job_success(*args, **kwargs)

    def _finalize_failure(self, job: Job, queue: Queue, execution: Execution, exc_info: Any) -> None:
        """Say in one line why the job failed, and decide whether trying again can help."""
        error = exc_info[1]
        self._failure = error
        if isinstance(error, JobError):
            if not error.retry:
                job.retries_left = 0
            elif job.retries_left is None:
                job.retries_left, job.retry_intervals = len(RETRY_SECONDS), list(RETRY_SECONDS)
            # RQ keeps the traceback as the reason; for what a producer did, the line is the reason.
            error.__cause__, error.__suppress_context__ = None, True
            exc_info = (type(error), error, None)
        super()._finalize_failure(job, queue, execution, exc_info)

    def handle_exception(self, job: Job, *exc_info: Any) -> None:
        """Run the exception handlers; what a producer did wrong is one line of ours, not an error of the worker."""
        if not isinstance(exc_info[1], JobError):
            super().handle_exception(job, *exc_info)
            return
        log.info("%s failed: %s: %s", job.id, exc_info[1].reason, exc_info[1])
        call_exception_handlers(self._exc_handlers, job, *exc_info)

    def cleanup_execution(self, job: Job, pipeline: Transaction, execution: Execution | None = None) -> None:
        """Join the verdict to the transaction that ends the job; a job that will be retried has none yet."""
        with self._beat_lock:
            self._last_verdict = self._verdict_of(job)
            if self._last_verdict is not None and execution is not None:
                fence = Fence(job.started_job_registry.key, execution.composite_key)
                self._app.stream.push(pipeline, self._last_verdict, fence)
            super().cleanup_execution(job, pipeline, execution)

    def _verdict_of(self, job: Job) -> Verdict | None:
        if self._failure is None:
            return Verdict.model_validate(job._result)
        if job.should_retry and self._stopped_job_id != job.id:
            return None
        try:
            subject = Subject.salvage(job.kwargs)
        except DeserializationError:
            subject = None
        if subject is None:
            return None
        return self._app.pipeline.unjudged(QueuedJob(subject, job.id, seconds_queued(job)), self._reason(job))

    def _reason(self, job: Job) -> str:
        if self._stopped_job_id == job.id:
            return "job_stopped"
        if isinstance(self._failure, JobTimeoutException):
            return "job_timeout"
        return self._failure.reason if isinstance(self._failure, JobError) else "internal_error"

    def _observe_end(self, job: Job, queue: Queue) -> None:
        verdict, failure = self._last_verdict, self._failure
        if verdict is None:
            outcome = "dead" if not job.should_retry and job.is_failed else "retried"
        elif failure is None:
            outcome = "done" if verdict.reason is None else "rejected"
        else:
            outcome = failure.outcome if isinstance(failure, JobError) and not failure.retry else "dead"
        self._metrics.jobs.labels(queue.name, outcome).inc()
        if verdict is not None:
            self._metrics.observe_verdict(verdict)
            log.info("%s %s: %s %s", job.id, verdict.content_id, verdict.action, verdict.reason or "")
