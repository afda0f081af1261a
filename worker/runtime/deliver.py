"""`sluice deliver`: posts verdicts from the stream, each until it has arrived or is given up.

In: the stream `sluice:verdicts`, as a consumer group. Out: signed posts, dead letters, counts. Never a verdict held up:
an entry is acknowledged as soon as the outbox in Redis has it, whatever its endpoint is like.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass

import redis

from worker.addresses import shown
from worker.runtime.accepting import Accepting, Count
from worker.runtime.lanes import Lanes
from worker.sinks.outbox import Delivery, Outbox, Standing, endpoint_of
from worker.sinks.webhook import Answer, Webhooks

log = logging.getLogger(__name__)

#: Added to the time-out of an attempt: for so long nobody else makes the same attempt.
LEASE_MARGIN_SECONDS = 5.0
#: How long the loop sleeps at most; other processes put things into the outbox too.
_TICK_SECONDS = 1.0
_GOODBYE_SECONDS = 5.0
#: Share of a wait that is added by chance, so that what failed together does not come back together.
_JITTER = 0.2
#: An endpoint that is behind drops what is older than the schedule, but never what is younger than a day.
_LEAST_AGE_SECONDS = 86_400.0

_GONE = 410
#: The receiver is under load: leave it alone for a while.
_SLOW_DOWN = (429, 502, 503, 504)


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a delivery that failed is tried again.

    Source: Standard Webhooks 1.0, "Deliverability and reliability".
    """

    #: Waits between the attempts, in seconds.
    waits: tuple[float, ...]

    def wait_seconds(self, attempts: int, retry_after_seconds: float | None) -> float | None:
        """Return the wait after so many failed attempts; None where there is no other.

        Args:
            attempts: One or more.
            retry_after_seconds: What the receiver asks for, if it does.
        """
        if attempts > len(self.waits):
            return None
        wait = max(self.waits[attempts - 1], retry_after_seconds or 0.0)
        return wait * (1 + random.uniform(0, _JITTER))  # noqa: S311 - spreads load, keeps no secret

    @property
    def longest_seconds(self) -> float:
        """How old a delivery may be before another attempt makes no sense."""
        return max(_LEAST_AGE_SECONDS, sum(self.waits) * (1 + _JITTER))


class Deliverer:
    """Delivers until it is told to stop; more of them share the work.

    Args:
        connection: A Redis that speaks bytes.
        outbox: What is to be posted.
        webhooks: What posts; closed at the end.
        schedule: Of the retries.
        url: Where verdicts go whose job names no URL of its own; None: nowhere.
        lease_seconds: For how long an attempt belongs to this process; longer than an attempt.
        count: Told what came of each attempt: a word of `worker.metrics.WEBHOOK_OUTCOMES`, and how often.
    """

    def __init__(
        self,
        connection: redis.Redis,
        outbox: Outbox,
        webhooks: Webhooks,
        schedule: Schedule,
        url: str | None,
        lease_seconds: float,
        count: Count,
    ) -> None:
        self._outbox = outbox
        self._webhooks = webhooks
        self._schedule = schedule
        self._lease_seconds = lease_seconds
        self._count = count
        self._lanes = Lanes(None if url is None else endpoint_of(url))
        self._in_flight: dict[Future[Answer], Delivery] = {}
        #: Attempts that have ended, what ended the other thread, and None: look what there is to do.
        self._events: queue.SimpleQueue[Future[Answer] | BaseException | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._accepting = Accepting(connection, outbox, url, count, self._events.put)
        #: When the loop turned last, on the monotonic clock.
        self.turned = time.monotonic()

    def run(self) -> None:
        """Deliver until `stop`, or, after `finish`, until nothing is left to do now.

        Raises:
            redis.RedisError: Redis stays away.
        """
        accepting = self._accepting
        accepting.start()
        try:
            while not self._stopping.is_set():
                is_all_accepted = not accepting.is_alive()
                wait_seconds = self._begin_due()
                is_done = is_all_accepted and not self._in_flight and wait_seconds > 0
                # What ended the other thread is heard before this one ends.
                self._hear(0 if is_done else wait_seconds)
                if is_done:
                    break
            self._say_goodbye()
        finally:
            accepting.stop()
            self._webhooks.close()
            accepting.join()

    def stop(self) -> None:
        """End soon; attempts that are under way get a moment. May be called by a signal handler."""
        self._stopping.set()
        self._accepting.stop()
        self._events.put(None)

    def finish(self) -> None:
        """End when the stream has been read and nothing is due; what waits for a retry stays in the outbox."""
        self._accepting.finish()
        self._events.put(None)

    # -- from the outbox to the endpoints ----------------------------------------------------------------------------

    def _begin_due(self) -> float:
        """Begin what is due and has a place; the seconds until there may be more."""
        self.turned = time.monotonic()
        due, wait_seconds = self._outbox.due()
        taken = self._outbox.take(self._lanes.places(due), self._lease_seconds)
        standing_of: dict[str, Standing] = {name: standing for standing, names in due.items() for name in names}
        for delivery in taken:
            standing = standing_of.get(delivery.endpoint, "well")
            if delivery.is_off:
                self._give_up(delivery, delivery.attempts, "endpoint_off", "the endpoint is switched off")
            elif standing == "failing" and delivery.age_seconds > self._schedule.longest_seconds:
                self._give_up(delivery, delivery.attempts, "too_old", f"{delivery.age_seconds:.0f} s old")
            else:
                self._begin(delivery, standing)
        if taken and not self._in_flight:
            return 0.0
        return _TICK_SECONDS if wait_seconds is None else min(_TICK_SECONDS, wait_seconds)

    def _begin(self, delivery: Delivery, standing: Standing) -> None:
        self._lanes.enter(delivery.endpoint, standing)
        attempt = self._webhooks.post(delivery.url, delivery.verdict_id, delivery.body)
        self._in_flight[attempt] = delivery
        attempt.add_done_callback(self._events.put)

    def _hear(self, wait_seconds: float) -> None:
        """Wait for news, and take all there are."""
        try:
            event = self._events.get(timeout=wait_seconds) if wait_seconds > 0 else self._events.get_nowait()
            while True:
                self._take_in(event)
                event = self._events.get_nowait()
        except queue.Empty:
            return

    def _take_in(self, event: Future[Answer] | BaseException | None) -> None:
        if isinstance(event, BaseException):
            raise event
        if event is not None:
            delivery = self._in_flight.pop(event)
            try:
                answer = event.result()
            except CancelledError:
                answer = Answer(None, "broken off")
            self._settle(delivery, answer)

    def _settle(self, delivery: Delivery, answer: Answer) -> None:
        """Write down what came of an attempt."""
        self._lanes.leave(delivery.endpoint, answer.is_success, answer.status in _SLOW_DOWN)
        attempts = delivery.attempts + 1
        if answer.is_success:
            self._outbox.delivered(delivery)
            self._tell("delivered", delivery, answer.says)
            return
        wait_seconds = self._schedule.wait_seconds(attempts, answer.retry_after_seconds)
        if answer.is_refused:
            self._give_up(delivery, attempts, "address_refused", answer.says)
        elif answer.status == _GONE:
            self._give_up(delivery, attempts, "endpoint_off", answer.says)
        elif wait_seconds is None:
            self._give_up(delivery, attempts, "attempts_exhausted", f"{answer.says}, after {attempts} attempts")
        else:
            asked, first = answer.retry_after_seconds or 0.0, self._schedule.waits[0]
            pause_seconds = max(asked, first) if answer.status in _SLOW_DOWN else asked
            self._outbox.retry(delivery, wait_seconds, pause_seconds, first, answer.says)
            self._tell("retried", delivery, f"{answer.says}, again in {wait_seconds:.1f} s")

    def _give_up(self, delivery: Delivery, attempts: int, reason: str, says: str) -> None:
        is_off = reason == "endpoint_off"
        self._outbox.dead(delivery, attempts, reason, says, switch_off=is_off and not delivery.is_off)
        self._tell("endpoint_off" if is_off else "dead", delivery, says)

    def _tell(self, outcome: str, delivery: Delivery, says: str) -> None:
        self._count(outcome, 1)
        level = logging.DEBUG if outcome == "delivered" else logging.WARNING
        log.log(level, "%s %s to %s: %s", outcome, delivery.verdict_id, shown(delivery.url), says)

    def _say_goodbye(self) -> None:
        deadline = time.monotonic() + _GOODBYE_SECONDS
        while self._in_flight and (left := deadline - time.monotonic()) > 0:
            self._hear(left)
