"""Batches on their way through the horse: two at once while all is well, and ever smaller ones when it dies.

In: claims. Out: their outcomes. Never Redis: claiming and ending are the worker's.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from rq.timeouts import JobTimeoutException

from worker.errors import JobStopped, SluiceError, WorkerKilled
from worker.runtime.claims import Claim
from worker.runtime.stable import HorseDied, Stable
from worker.runtime.wire import Outcome

log = logging.getLogger(__name__)

#: A job that kills the horse so often while it runs alone is to blame; once may be bad luck.
LONE_DEATHS = 2
#: The same for what was only to be said, and not looked at: then the horse itself is broken.
_BROKEN_DEATHS = 2 * LONE_DEATHS
#: Seconds between looks at what an operator wants, while the horse works.
_TICK_SECONDS = 0.02

#: How long it may take to say of a job, without a look at its image, that it ended.
_SAYING_SECONDS = 60.0

#: Takes what came of some claims.
Ended = Callable[[Sequence[Claim], Sequence[Outcome], float], None]


@dataclass(slots=True)
class _Batch:
    claims: list[Claim]
    #: On the monotonic clock: when it was handed over, and when the shortest time-out in it is over, which begins when
    #: the horse has no batch before it.
    began: float
    deadline: float


class Batches:
    """Runs claims in a stable.

    Args:
        stable: Where they run.
        ended: Told of what came of a batch, and of the seconds that it took.
    """

    def __init__(self, stable: Stable, ended: Ended) -> None:
        self._stable = stable
        self._ended = ended
        self._in_hand: deque[_Batch] = deque()
        self._last_end = 0.0
        #: Ids of jobs that an operator wants stopped; written by another thread.
        self.to_stop: set[str] = set()
        #: When the loop turned last, on the monotonic clock.
        self.turned = time.monotonic()

    @property
    def has_place(self) -> bool:
        """Whether another batch can be handed over."""
        return len(self._in_hand) < self._stable.places

    def __len__(self) -> int:
        return len(self._in_hand)

    def submit(self, claims: Sequence[Claim]) -> None:
        """Hand over a batch."""
        self._open()
        self._in_hand.append(_new_batch(claims))
        try:
            self._stable.submit(claims)
        except HorseDied as error:
            self._after_death(error)

    def advance(self) -> None:
        """Wait a moment for the batch that was handed over first, and see to what went wrong."""
        self.turned = time.monotonic()
        first = self._in_hand[0]
        try:
            outcomes = self._stable.collect(min(_TICK_SECONDS, first.deadline - time.monotonic()))
        except HorseDied as error:
            self._after_death(error)
            return
        if outcomes is not None:
            self._in_hand.popleft()
            if self._in_hand:
                # What it waited for the one before it is not its own lateness.
                self._in_hand[0].deadline = _deadline_of(self._in_hand[0].claims)
            self._end(first, outcomes)
        elif self._wanted_stopped():
            self._stable.kill("stopped")
            self._run_apart(self._without_stopped([batch.claims for batch in self._take_all()]))
        elif time.monotonic() >= first.deadline:
            self._stable.kill("late")
            late, *others = self._take_all()
            log.warning("a batch of %d jobs took too long; its jobs are run apart", len(late.claims))
            self._run_apart([*_blame_late(late.claims), *(batch.claims for batch in others)])

    def _open(self) -> None:
        """Have a horse; one that dies while it loads its model is no job's fault.

        Raises:
            HorseDied: Again and again.
        """
        for _ in range(_BROKEN_DEATHS):
            try:
                self._stable.open()
            except HorseDied as error:
                log.warning("%s; trying again", error)
                self.turned = time.monotonic()
            else:
                return
        self._stable.open()

    def _after_death(self, error: HorseDied) -> None:
        batches = self._take_all()
        log.error("%s; its jobs are run apart", error)
        if len(batches) == 1:
            self._run_apart(_blame_dead(batches[0].claims))
        else:
            # Neither was alone.
            self._run_apart([part for batch in batches for part in _halves(batch.claims) if part])

    def _take_all(self) -> list[_Batch]:
        batches = list(self._in_hand)
        self._in_hand.clear()
        return batches

    def _run_apart(self, groups: Sequence[list[Claim]]) -> None:
        """Run groups one at a time; one that kills the horse, or is late, is halved until the job to blame is alone."""
        waiting = deque(groups)
        while waiting:
            group = waiting.popleft()
            self._open()
            batch = _new_batch(group)
            try:
                self._stable.submit(group)
                outcomes = self._collect(batch)
            except HorseDied as error:
                log.warning("%s", error)
                waiting.extendleft(reversed(_blame_dead(group)))
                continue
            if outcomes is not None:
                self._end(batch, outcomes)
                continue
            is_stopped = self._wanted_stopped(group)
            self._stable.kill("stopped" if is_stopped else "late")
            stopped = self._without_stopped([group]) if is_stopped else _blame_late(group)
            waiting.extendleft(reversed(stopped))

    def _collect(self, batch: _Batch) -> list[Outcome] | None:
        """Wait for one batch; None where it is late, or one of its jobs shall be stopped."""
        while True:
            self.turned = time.monotonic()
            outcomes = self._stable.collect(min(_TICK_SECONDS, batch.deadline - self.turned))
            if outcomes is not None or self.turned >= batch.deadline or self._wanted_stopped(batch.claims):
                return outcomes

    def _end(self, batch: _Batch, outcomes: Sequence[Outcome]) -> None:
        now = time.monotonic()
        seconds = now - max(batch.began, self._last_end)
        self._last_end = now
        # What a claim ended of is the worker's to say; the horse has only made its verdict.
        said = [
            outcome if claim.error is None else replace(outcome, error=claim.error)
            for claim, outcome in zip(batch.claims, outcomes, strict=True)
        ]
        self._ended(batch.claims, said, seconds)
        # Not before: a wish that comes while the ends are written would be kept for the job's own retry.
        self.to_stop.difference_update(claim.job_id for claim in batch.claims)

    def _wanted_stopped(self, claims: Sequence[Claim] | None = None) -> bool:
        if not self.to_stop:
            return False
        some = claims if claims is not None else [claim for batch in self._in_hand for claim in batch.claims]
        return any(claim.job_id in self.to_stop and claim.error is None for claim in some)

    def _without_stopped(self, groups: Sequence[list[Claim]]) -> list[list[Claim]]:
        """Take the jobs that shall be stopped out of their batches."""
        stopped = [claim for group in groups for claim in group if claim.job_id in self.to_stop]
        for claim in stopped:
            claim.error = claim.error or JobStopped("job stopped by an operator")
        others = [[claim for claim in group if claim.job_id not in self.to_stop] for group in groups]
        return [group for group in (stopped, *others) if group]


def _new_batch(claims: Sequence[Claim]) -> _Batch:
    return _Batch(list(claims), time.monotonic(), _deadline_of(claims))


def _deadline_of(claims: Sequence[Claim]) -> float:
    timeouts = [claim.timeout_seconds if claim.error is None else _SAYING_SECONDS for claim in claims]
    return time.monotonic() + min(timeouts)


def _halves(claims: list[Claim]) -> list[list[Claim]]:
    return [claims[: len(claims) // 2], claims[len(claims) // 2 :]]


def _blame_dead(claims: list[Claim]) -> list[list[Claim]]:
    """Return what to run after a batch killed the horse."""
    if len(claims) > 1:
        return _halves(claims)
    claim = claims[0]
    claim.lone_deaths += 1
    if claim.lone_deaths >= _BROKEN_DEATHS:
        raise SluiceError("the horse dies without looking at an image; the lines above say how")
    if claim.lone_deaths >= LONE_DEATHS and claim.error is None:
        claim.error = WorkerKilled(f"the horse died {claim.lone_deaths} times while it ran this job alone")
    return [claims]


def _blame_late(claims: list[Claim]) -> list[list[Claim]]:
    """Return what to run after a batch took longer than the shortest time-out in it."""
    if len(claims) > 1:
        return _halves(claims)
    claim = claims[0]
    if claim.error is not None:
        raise SluiceError("the horse hangs without looking at an image")
    claim.error = JobTimeoutException(f"Task exceeded maximum timeout value ({claim.timeout_seconds:g} seconds)")
    return [claims]
