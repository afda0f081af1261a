"""Uploads without end: drawings under both policies on all queues, most of them seen before, some with a webhook."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import support
from house import House

from played import props
from played.cast import QUEUES

#: Seconds between two handfuls, and how many uploads are one.
_PAUSE_SECONDS = 0.25
_HANDFUL = 16
_SEED = 6
#: Share of the handfuls that comes by the stream of uploads, as from a backend without RQ.
_STREAMED = 0.2
#: Fewer than so many in all would be too few for the rules that look at shares and means.
_LEAST = 900


class Traffic(threading.Thread):
    """Enqueues until it is stopped.

    Args:
        house: Where.
        webhook: Named by some of the jobs.

    Attributes:
        sent: Content ids of all that was enqueued.
        hooked: Those of them whose verdicts are posted.
    """

    def __init__(self, house: House, webhook: str) -> None:
        super().__init__(name="traffic", daemon=True)
        self._house = house
        self._webhook = webhook
        self._stopping = threading.Event()
        self._turn = threading.Lock()
        self._dice = random.Random(_SEED)
        self.sent: list[str] = []
        self.hooked: list[str] = []

    def run(self) -> None:
        """Enqueue, wait, enqueue."""
        while not self._stopping.wait(_PAUSE_SECONDS):
            with self._turn:
                self._send(self._dice.choice(QUEUES), _HANDFUL)

    def stop(self) -> None:
        """End, when it was enough."""
        support.until(lambda: len(self.sent) >= _LEAST, what="there was enough traffic")
        self._stopping.set()
        self.join()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Send nothing for as long as the context lasts."""
        with self._turn:
            yield

    def send_every_drawing(self) -> None:
        """Put each drawing on each queue once."""
        with self._turn:
            for queue in QUEUES:
                self._put(queue, [(name, props.CALIBRATED, None) for name in props.DRAWINGS])

    def _send(self, queue: str, many: int) -> None:
        uploads = []
        for _ in range(many):
            policy = self._dice.choice([props.CALIBRATED, props.UNCALIBRATED])
            webhook = self._webhook if self._dice.random() < 0.1 else None
            uploads.append((self._dice.choice(list(props.DRAWINGS)), policy, webhook))
        self._put(queue, uploads, by_stream=self._dice.random() < _STREAMED)

    def _put(self, queue: str, uploads: list[tuple[str, str, str | None]], by_stream: bool = False) -> None:
        special = {}
        for name, policy, webhook in uploads:
            content_id = f"upload-{len(self.sent)}"
            self.sent.append(content_id)
            special[content_id] = {"image": {"blob": props.digest(props.DRAWINGS[name])}, "policy": policy}
            if webhook is not None:
                special[content_id]["webhook"] = webhook
                self.hooked.append(content_id)
        put = self._house.add_batch if by_stream else self._house.enqueue_batch
        put(*special, queue=queue, special=special)
