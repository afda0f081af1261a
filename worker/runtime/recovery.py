"""Keeps a worker's own jobs alive, and takes over those of workers that died.

In: nothing but time. Out: renewed leases, and jobs put back to the front of their queues. A thread of the worker, which
computes nothing, so that no batch can hold a heartbeat up.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable

import redis

from worker.runtime.claims import Claim, Hands

log = logging.getLogger(__name__)

#: Leases are renewed so many times before they would run out.
_BEATS_A_LEASE = 5
#: Seconds between RQ's heartbeats.
_HEARTBEAT_SECONDS = 10.0
#: How long a beat may take that is under way when the worker leaves.
_LAST_BEAT_SECONDS = 2.0


class Keeper(threading.Thread):
    """Beats and recovers until it is told to end.

    Args:
        hands: Of the worker.
        held: What the worker holds now.
        heartbeat: RQ's heartbeat of the worker itself.
        lease_seconds: How long a worker may be silent.
        recovered: Told how many jobs were taken over.
    """

    def __init__(
        self,
        hands: Hands,
        held: Callable[[], Iterable[Claim]],
        heartbeat: Callable[[], None],
        lease_seconds: float,
        recovered: Callable[[int], None],
    ) -> None:
        super().__init__(name="keeper", daemon=True)
        self._hands = hands
        self._held = held
        self._heartbeat = heartbeat
        self._lease_seconds = lease_seconds
        self._recovered = recovered
        self._done = threading.Event()
        #: Since when Redis has answered without a gap; the others need as long to say that they live.
        self._heard_since = self._heard = time.monotonic()
        self._next_heartbeat = 0.0
        self._next_look = 0.0
        #: Of what Redis said at the last look that this worker holds, what the worker itself knew nothing of.
        self._unknown: set[str] = set()

    def run(self) -> None:
        """Beat, recover, wait."""
        while not self._done.wait(self._lease_seconds / _BEATS_A_LEASE):
            try:
                self._beat()
                self._recover()
            except redis.RedisError as error:
                log.warning("no heartbeat: Redis does not answer (%s)", error)
            except Exception:
                # Without this thread, other workers would take this one for dead.
                log.exception("no heartbeat")

    def close(self) -> None:
        """End, and wait for a beat that is under way: after the worker's death it would bring its key back to life.

        Where Redis does not answer, it is not waited for; the lease runs out by itself.
        """
        self._done.set()
        self.join(_LAST_BEAT_SECONDS)

    def _beat(self) -> None:
        is_due = time.monotonic() >= self._next_heartbeat
        has_held = self._hands.renew(list(self._held()) if is_due else ())
        now = time.monotonic()
        if now - self._heard > self._lease_seconds:
            self._heard_since = now
        if not has_held:
            log.warning("this worker was silent for longer than %g s; others may have its jobs", self._lease_seconds)
        self._heard = now
        if is_due:
            self._heartbeat()
            self._next_heartbeat = now + _HEARTBEAT_SECONDS

    def _recover(self) -> None:
        # After an absence of Redis all leases have run out, and the living need a moment to renew theirs.
        if time.monotonic() - self._heard_since < self._lease_seconds:
            return
        recover(self._hands, self._recovered)
        if time.monotonic() >= self._next_look:
            self._give_back_unknown()
            self._next_look = time.monotonic() + self._lease_seconds

    def _give_back_unknown(self) -> None:
        """Put back what was unknown at the last look too; until the next, a claim has become known, and an end is said.

        A master that fails takes with it what its replica had not heard: the end of a job, with its verdict. To the new
        master the worker holds it for ever.
        """
        unknown = self._hands.members() - {claim.member for claim in list(self._held())}
        forgotten, self._unknown = unknown & self._unknown, unknown
        if forgotten and (back := self._hands.give_back(forgotten)):
            log.warning(
                "%d jobs go back to their queues, whose end Redis has forgotten: %s", len(back), ", ".join(back)
            )


def recover(hands: Hands, recovered: Callable[[int], None]) -> None:
    """Take over what dead workers held, and tell how many jobs they are."""
    for worker, jobs in hands.recover_dead().items():
        recovered(len(jobs))
        log.warning("worker %s is dead; %d jobs go back to their queues: %s", worker, len(jobs), ", ".join(jobs))
