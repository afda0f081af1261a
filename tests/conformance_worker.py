"""The worker that RQ's own tests and the comparison of keys run: ours, but for what it accepts and where it runs it.

Claims, ends, heartbeats, commands and shutdown are `BatchWorker`'s; only the horse is left out, because it runs
`worker.jobs.moderate` and nothing else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rq.defaults import UNSERIALIZABLE_RETURN_VALUE_PAYLOAD
from rq.job import Job, Retry
from rq.timeouts import JobTimeoutException

from worker.runtime.batch_worker import BatchWorker
from worker.runtime.claims import Claim
from worker.runtime.wire import Outcome


@dataclass(frozen=True, slots=True)
class AnyOutcome(Outcome):
    """An outcome that returns anything."""

    value: Any = None


class InProcessStable:
    """Runs each job of a batch in this process, as SimpleWorker does."""

    places = 2
    pid = 0

    def __init__(self, worker: AnyFunctionWorker) -> None:
        self._worker = worker
        self._batches: deque[Sequence[Claim]] = deque()

    def open(self) -> None:
        """Be ready."""

    def submit(self, claims: Sequence[Claim]) -> None:
        """Take a batch."""
        self._batches.append(claims)

    def collect(self, timeout_seconds: float) -> list[Outcome] | None:
        """Run the batch that was taken first."""
        return [self._run(claim) for claim in self._batches.popleft()]

    def hear(self) -> None:
        """Hear nothing."""

    def take_counts(self) -> dict[tuple[str, ...], int]:
        """Return nothing: nothing is counted."""
        return {}

    def kill(self, cause: str) -> None:
        """Forget what was taken."""
        self._batches.clear()

    def close(self) -> None:
        """End."""

    def _run(self, claim: Claim) -> Outcome:
        if claim.error is not None:
            return Outcome(error=claim.error)
        job = self._worker.job_of(claim)
        try:
            with self._worker.death_penalty_class(job.timeout or 180, JobTimeoutException, job_id=job.id):
                value = job.perform()
        except BaseException as error:
            return Outcome(error=error)
        try:
            payload = b"" if value is None else job.serializer.dumps(value)
        except Exception:
            payload = job.serializer.dumps(UNSERIALIZABLE_RETURN_VALUE_PAYLOAD)
        return AnyOutcome(payload=payload, value=value)


class AnyFunctionWorker(BatchWorker):
    """Runs any function, in this process."""

    forced_serializer = None
    trusts_producers = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._jobs: dict[str, Job] = {}
        super().__init__(*args, **kwargs)

    def open_stable(self) -> InProcessStable:
        """Return where batches run."""
        return InProcessStable(self)

    def job_of(self, claim: Claim) -> Job:
        """Return the same object each time: what a function changed in its job is what RQ writes."""
        if claim.execution_id not in self._jobs:
            self._jobs[claim.execution_id] = super().job_of(claim)
        return self._jobs[claim.execution_id]

    def value_of(self, outcome: Outcome) -> Any:
        """Return what the function returned."""
        return outcome.value if isinstance(outcome, AnyOutcome) else None

    def is_plain(self, outcome: Outcome) -> bool:
        """Whether a return value is nothing but that."""
        return not isinstance(self.value_of(outcome), Retry)
