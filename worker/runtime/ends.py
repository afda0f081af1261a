"""How jobs end: many in one round trip where nothing is special, and by RQ's own methods where something is.

In: claims with their outcomes. Out: RQ's registries, results and hashes written, each with its verdict in the same
transaction. Whatever RQ would have written is what is written: the tests compare every key.
"""

from __future__ import annotations

import logging
import math
import traceback
from base64 import b64encode
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import redis
from rq.defaults import DEFAULT_FAILURE_TTL
from rq.job import Job, JobStatus
from rq.utils import utcformat

from worker.errors import JobError, SluiceError, SourceUnavailable
from worker.runtime.claims import DEATHS, prefixes_of, read_script
from worker.runtime.ending_worker import End, EndingWorker
from worker.sinks.watched import push_watched

log = logging.getLogger(__name__)

#: Waits before the retries of a job whose cause is transient, in seconds.
RETRY_SECONDS = (1, 5, 15)
#: Of more retries than these, which a producer asked for, the first intervals are not told apart.
_MOST_RETRIES = 100
#: What `lua/end.lua` says of a job.
WRITTEN, REPEATED, LOST, HAS_DEPENDENTS, REFUSED = 1, 2, 0, -1, -2
#: Fields of a job's hash that ask for more than the plain end writes.
_SPECIAL = (b"success_callback_name", b"webhooks", b"repeats_left", b"rate_limit_key")
_SPECIAL_FAILURE = (b"failure_callback_name", b"webhooks", b"rate_limit_key")


class Ends:
    """Ends the jobs of one worker.

    Args:
        worker: Whose jobs they are.
    """

    def __init__(self, worker: EndingWorker) -> None:
        self._worker = worker
        self._script = read_script(worker.connection, "end")
        self._prefixes = prefixes_of(worker.job_class, worker.queue_class)

    def write(self, ends: Sequence[End], seconds_worked: float) -> list[End]:
        """End a batch.

        Args:
            ends: Each job with what came of it.
            seconds_worked: What the batch adds to the worker's total working time.

        Returns:
            Those that were ended here; the others had been taken over by another worker.
        """
        now = datetime.now(UTC)
        quick: list[tuple[End, list[Any]]] = []
        slow: list[End] = []
        for end in ends:
            row = self._plain(end, now)
            if row is None:
                slow.append(end)
            else:
                quick.append((end, row))
        states = self._send([row for _, row in quick], seconds_worked)
        written = []
        for (end, _), state in zip(quick, states, strict=True):
            if state in (HAS_DEPENDENTS, REFUSED):
                slow.append(end)
            elif state == LOST:
                log.warning("%s was taken over by another worker, which will end it", end.claim.job_id)
            else:
                written.append(end)
        for end in slow:
            if self._by_rq(end):
                written.append(end)
        said = [end.outcome.verdict for end in written if end.outcome.verdict is not None and not end.retried]
        push_watched(self._worker.connection, said)
        return written

    def _send(self, rows: Sequence[list[Any]], seconds_worked: float) -> list[int]:
        if not rows:
            return []
        flat: list[Any] = [*self._prefixes, self._worker.name, seconds_worked, len(rows)]
        for row in rows:
            flat.append(len(row))
            flat += row
        states: list[int] = self._script((), flat)
        return states

    # -- the quick ways ----------------------------------------------------------------------------------------------

    def _plain(self, end: End, now: datetime) -> list[Any] | None:
        error = end.outcome.error
        return self._success(end, now) if error is None else self._failure(end, error, now)

    def _success(self, end: End, now: datetime) -> list[Any] | None:
        """Return the arguments of a plain success; None where it is not one."""
        claim, fields = end.claim, end.claim.fields
        ttl = fields.get(b"result_ttl") or self._worker.default_result_ttl
        if any(fields.get(name) for name in _SPECIAL) or not _is_int(ttl) or int(ttl) == 0:
            return None
        if not self._worker.is_plain(end.outcome):
            return None
        value = b64encode(end.outcome.payload)
        head = ["S", claim.job_id, claim.execution_id, claim.queue, int(ttl), value]
        return [*head, claim.began, now.timestamp(), utcformat(now), *self._forgets(end), *self._pushes(end)]

    def _failure(self, end: End, error: BaseException, now: datetime) -> list[Any] | None:
        """Return what RQ itself would write for a plain failure or retry; None where more than that is to do."""
        fields = end.claim.fields
        if any(fields.get(name) for name in _SPECIAL_FAILURE) or self._worker.must_hear_of(error):
            return None
        job = self._job_of(end)
        if job.failure_ttl == 0:
            return None
        job.ended_at = job.last_heartbeat = now
        _log_failure(job, error)
        pipeline = self._worker.connection.pipeline()
        if end.claim.refused:
            pipeline.hdel(job.key, *end.claim.refused)
        if job.should_retry:
            end.retried = True
            job.retry(self._worker.queue_of(end.claim), pipeline)
        else:
            job.set_status(JobStatus.FAILED, pipeline=pipeline)
            job._handle_failure(
                _text_of(error),
                pipeline=pipeline,
                worker_name=self._worker.name,
                execution_id=end.claim.execution_id,
                execution_started_at=datetime.fromtimestamp(end.claim.began, UTC),
                execution_ended_at=now,
            )
            pipeline.hdel(job.key, DEATHS)
        commands = [command for command, _ in pipeline.command_stack]
        pipeline.reset()
        flat = [part for command in commands for part in (len(command), *command)]
        return ["C", end.claim.job_id, end.claim.execution_id, end.claim.queue, *flat, *self._pushes(end)]

    def _forgets(self, end: End) -> list[Any]:
        """Return the command that takes out of a job's hash what nobody can read."""
        refused = end.claim.refused
        return [2 + len(refused), "HDEL", self._prefixes[1] + end.claim.job_id, *refused] if refused else []

    def _pushes(self, end: End) -> list[Any]:
        """Return the commands that push a verdict and its embeddings: a job that will be tried again has none yet."""
        outcome = end.outcome
        if outcome.verdict is None or end.retried:
            return []
        command = self._worker.stream.command(outcome.verdict, outcome.payload, outcome.webhook)
        commands = [command, *self._worker.ledger.commands(outcome.verdict, outcome.embeddings)]
        return [part for each in commands for part in (len(each), *each)]

    # -- RQ's way ----------------------------------------------------------------------------------------------------

    def _by_rq(self, end: End) -> bool:
        """End one job by RQ's own methods, and where what is in Redis defeats them, with its verdict and no more."""
        try:
            return self._specially(end)
        except (redis.ConnectionError, redis.TimeoutError):
            raise
        except Exception as error:
            log.warning("%s cannot be ended as RQ does: %s: %s", end.claim.job_id, type(error).__name__, error)
        head = ["B", end.claim.job_id, end.claim.execution_id, end.claim.queue, DEFAULT_FAILURE_TTL]
        end.retried = False
        (state,) = self._send([[*head, *self._pushes(end)]], 0)
        if state == REFUSED:
            raise SluiceError(f"Redis does not take the end of job {end.claim.job_id}; the lines above say why")
        return state in (WRITTEN, REPEATED)

    def _specially(self, end: End) -> bool:
        """End one job by RQ's own methods: callbacks, dependents, repeats, rate limits, webhooks, no result kept."""
        worker, claim, error = self._worker, end.claim, end.outcome.error
        if not worker.holds(claim):
            log.warning("%s was taken over by another worker, which will end it", claim.job_id)
            return False
        job, queue, execution = self._job_of(end), worker.queue_of(claim), worker.executions[claim.execution_id]
        worker.ending = end
        try:
            if error is None:
                worker.finish_job(job, queue, execution, worker.value_of(end.outcome))
            else:
                worker.fail_job(job, queue, execution, error)
        finally:
            worker.ending = None
        return True

    def _job_of(self, end: End) -> Job:
        if end.job is None:
            end.job = self._worker.job_of(end.claim)
            decide_retries(end.job, end.outcome.error)
        return end.job


def decide_retries(job: Job, error: BaseException | None) -> None:
    """Try again what may go better next time, by default three times, and nothing that cannot."""
    if not isinstance(error, JobError):
        return
    if not error.retry:
        job.retries_left = 0
    elif job.retries_left is None:
        job.retries_left, job.retry_intervals = len(RETRY_SECONDS), list(RETRY_SECONDS)
    if isinstance(error, SourceUnavailable) and error.retry_after_seconds and job.retries_left:
        _wait_longer(job, math.ceil(error.retry_after_seconds))


def _wait_longer(job: Job, seconds: int) -> None:
    """Make the next retry wait for at least so long, and leave those after it as they were."""
    intervals = list(job.retry_intervals or [0])
    left = min(job.retries_left or 0, _MOST_RETRIES)
    # RQ counts from the end, and takes the first where there are fewer intervals than retries: so write all of them.
    planned = [intervals[max(len(intervals) - retries, 0)] for retries in range(left, 0, -1)]
    job.retry_intervals = [max(planned[0], seconds), *planned[1:]]


def _text_of(error: BaseException) -> str:
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))


def _log_failure(job: Job, error: BaseException) -> None:
    if isinstance(error, JobError):
        log.info("%s: %s: %s", job.id, error.reason, error)
    else:
        log.error("%s failed:\n%s", job.id, _text_of(error))


def _is_int(value: Any) -> bool:
    try:
        int(value)
    except ValueError:
        return False
    return True
