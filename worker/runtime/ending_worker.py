"""What RQ's own methods are given, so that a job that they end is ended with its verdict.

In: a claim and what came of it. Out: RQ's writes, joined by the verdict. This is the slow way, for what is special:
callbacks, dependents, repeats, rate limits, exception handlers, results that are not kept.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import redis
from redis.client import Pipeline as Transaction
from rq import Queue
from rq.exceptions import NoSuchJobError
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.job_lifecycle import call_exception_handlers
from rq.utils import now
from rq.worker import Worker

from worker.errors import JobError, JobStopped
from worker.runtime.claims import DEATHS, HELD_PREFIX, Claim
from worker.runtime.guarded_job import Callbacks, guarded
from worker.runtime.wire import Outcome
from worker.sinks.fence import Fence
from worker.sinks.ledger import LedgerStream
from worker.sinks.stream import VerdictStream

log = logging.getLogger(__name__)


@dataclass(slots=True)
class End:
    """A claim and what came of it."""

    claim: Claim
    outcome: Outcome
    #: It as RQ sees it, where that was needed.
    job: Job | None = None
    #: Whether RQ tries it again: then there is no verdict yet.
    retried: bool = False


class EndingWorker(Worker):
    """An RQ worker whose ends carry verdicts."""

    #: Whether code that a producer names is imported, and addresses that it names are called, unasked.
    trusts_producers: ClassVar[bool] = False
    #: Where verdicts go.
    stream: VerdictStream
    #: Where embeddings go.
    ledger: LedgerStream
    #: The end that is being written.
    ending: End | None = None

    def job_of(self, claim: Claim) -> Job:
        """Return a claim as RQ sees it; of a hash that RQ cannot read, at least what was asked for."""
        job = self.job_class(claim.job_id, connection=self.connection, serializer=self.serializer)
        try:
            job.restore(claim.fields)
        except NoSuchJobError:
            raise
        except Exception as error:
            log.warning("%s: its hash cannot be read (%r); only its data is heeded", claim.job_id, error)
            job.restore({b"data": claim.fields[b"data"]})
        job.origin, job.worker_name, job._status = claim.queue, self.name, JobStatus.STARTED
        job.started_at = job.last_heartbeat = claim.began_at
        job.redis_server_version = self.get_redis_server_version()
        return job

    def guard_jobs(self, callbacks: Sequence[str], max_data_bytes: int) -> None:
        """See to it that every job that this worker reads is JSON, and calls back nothing but what is allowed.

        Args:
            callbacks: Dotted paths that may be run.
            max_data_bytes: A job's data is not inflated further.
        """
        if not self.trusts_producers:
            self.job_class = guarded(self.job_class, Callbacks(callbacks), max_data_bytes)
        for queue in self.queues:
            queue.serializer, queue.job_class = self.serializer, self.job_class

    def run_maintenance_tasks(self) -> None:
        """Clean up as RQ does; a key that somebody has written over stops the clean-up, not the worker."""
        try:
            super().run_maintenance_tasks()
            self.ledger.trim(self.connection)
        except (redis.ConnectionError, redis.TimeoutError):
            raise
        except Exception as error:
            log.warning("RQ's clean-up ended early: %s: %s", type(error).__name__, error)
            self.last_cleaned_at = now()  # type: ignore[assignment]

    def queue_of(self, claim: Claim) -> Queue:
        """Return the queue that a claim was taken from."""
        return next(queue for queue in self.queues if queue.name == claim.queue)

    def value_of(self, outcome: Outcome) -> Any:
        """Return what the job returns."""
        return json.loads(outcome.payload) if outcome.payload else None

    def is_plain(self, outcome: Outcome) -> bool:
        """Whether what the job returned is nothing but a value."""
        return True

    def must_hear_of(self, error: BaseException | None) -> bool:
        """Whether somebody is to be told of a failure, so that RQ must write it."""
        return bool(self._exc_handlers) or isinstance(error, JobStopped) or self.disable_default_exception_handler

    def holds(self, claim: Claim) -> bool:
        """Whether no other worker has taken a claim over."""
        return bool(self.connection.hexists(HELD_PREFIX + self.name, claim.member))

    # -- what RQ calls while it ends a job ---------------------------------------------------------------------------

    def finish_job(self, job: Job, queue: Queue, execution: Execution, value: Any) -> None:
        """End a job that succeeded; one whose callback raises has failed, as in RQ."""
        try:
            self._finalize_success(job, queue, execution, value)
        except Exception:
            self._finalize_failure(job, queue, execution, sys.exc_info())

    def fail_job(self, job: Job, queue: Queue, execution: Execution, error: BaseException) -> None:
        """End a job that failed or was stopped."""
        if isinstance(error, JobStopped):
            self._stopped_job_id = job.id
            self._handle_stopped_job(job, queue, execution)
        else:
            self._finalize_failure(job, queue, execution, (type(error), error, error.__traceback__))

    def handle_exception(self, job: Job, *exc_info: Any) -> None:
        """Run the exception handlers; what a producer did wrong is one line of ours, not an error of the worker."""
        if not isinstance(exc_info[1], JobError):
            super().handle_exception(job, *exc_info)
            return
        log.info("%s: %s: %s", job.id, exc_info[1].reason, exc_info[1])
        call_exception_handlers(self._exc_handlers, job, *exc_info)

    def cleanup_execution(self, job: Job, pipeline: Transaction, execution: Execution | None = None) -> None:
        """Join the verdict to the transaction that ends the job; a job that will be retried has none yet."""
        end = self.ending
        if end is not None and execution is not None:
            end.retried = job.get_status(refresh=False) == JobStatus.FAILED and job.should_retry
            if end.outcome.verdict is not None and not end.retried:
                # Not RQ's registry: a job that keeps no result, or was cancelled, has left it by now.
                fence = Fence(HELD_PREFIX + self.name, execution.composite_key)
                self.stream.push(pipeline, end.outcome.verdict, fence, end.outcome.webhook)
                self.ledger.push(pipeline, end.outcome.verdict, end.outcome.embeddings, fence)
            pipeline.hdel(HELD_PREFIX + self.name, execution.composite_key)
            pipeline.hdel(job.key, DEATHS, *end.claim.refused)
        super().cleanup_execution(job, pipeline, execution)
