"""Spawns the horse, feeds it batches, and replaces it when it dies.

In: claims. Out: their outcomes, batch by batch in the order of submission. Nothing here brings torch in.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, Protocol

from worker.errors import SluiceError
from worker.metrics import Counts
from worker.runtime.claims import Claim
from worker.runtime.wire import Outcome, Task, error_from_json, read_outcomes, reason_of, receive, send, send_tasks
from worker.settings import Settings

log = logging.getLogger(__name__)

_GOODBYE_SECONDS = 5.0
#: A horse that takes nothing in for so long hangs: no time-out could end a batch that cannot even be handed over.
_SEND_SECONDS = 20


class HorseDied(SluiceError):
    """The horse ended while it had batches in hand."""


class Stable(Protocol):
    """What a `BatchWorker` runs batches with."""

    #: Batches that can be in hand at once.
    places: int

    @property
    def pid(self) -> int:
        """Process id of the horse; 0 where there is none."""

    def open(self) -> object:
        """Make ready; returns at once where it is."""

    def submit(self, claims: Sequence[Claim]) -> None:
        """Hand over a batch."""

    def collect(self, timeout_seconds: float) -> list[Outcome] | None:
        """Return the outcomes of the batch that was handed over first; None where they are not there in time."""

    def hear(self) -> None:
        """Take in what the horse says by itself while it has nothing in hand."""

    def take_counts(self) -> Counts:
        """Return what was counted since the last call."""

    def kill(self, cause: str) -> None:
        """End at once whatever runs, for one of `worker.metrics.HORSE_ENDS`; what was in hand is forgotten."""

    def close(self) -> None:
        """Let the horse go."""


@dataclass(frozen=True, slots=True)
class Ready:
    """What a horse says of itself when it has loaded its model."""

    model: str
    revision: str
    precision: str
    device: str
    #: (id, version, role, digest, whether it is calibrated for the model) of each version at work.
    policies: tuple[tuple[str, int, str, str, bool], ...]
    #: Why these are not the policies that there are now, in words; None where they are.
    problem: str | None = None


@dataclass(slots=True)
class _Horse:
    process: subprocess.Popen[bytes]
    connection: Connection
    ready: Ready = Ready("", "", "", "", ())
    #: How many jobs each batch has that it was given and has not answered.
    in_hand: deque[int] = field(default_factory=deque)


class ModelStable:
    """Keeps one horse with the model in it.

    Args:
        settings: What the horse builds its app from.
        tell: Told when a horse is ready, and when its policies have changed: what it says of itself, and what came of
            the change (one of `worker.metrics.RELOADS`; None when it is ready).

    Attributes:
        deaths: How many horses died.
    """

    #: One batch in the encoder, one being fetched and decoded.
    places = 2

    def __init__(
        self, settings: Settings, tell: Callable[[Ready, str | None], None] = lambda _ready, _reload: None
    ) -> None:
        self.deaths = 0
        self._tell = tell
        #: Policies at work, for a horse that finds them broken.
        self._kept = b""
        self._counts: Counter[tuple[str, ...]] = Counter()
        self._settings = settings
        self._horse: _Horse | None = None

    @property
    def pid(self) -> int:
        """Process id of the horse; 0 where there is none."""
        return self._horse.process.pid if self._horse else 0

    def open(self) -> Ready:
        """Spawn a horse and wait until it has loaded its model; at once where there is one.

        Raises:
            SluiceError: What the horse says is missing; `HorseDied` where it says nothing.
        """
        if self._horse is None:
            started = time.monotonic()
            self._horse = _spawn()
            self._horse.ready = self._load(self._horse)
            log.info("horse %d is ready after %.1f s", self.pid, time.monotonic() - started)
        return self._horse.ready

    def _load(self, horse: _Horse) -> Ready:
        try:
            send(horse.connection, {"settings": self._settings.model_dump(mode="json")}, [self._kept])
            header, blobs = receive(horse.connection)
        except (EOFError, OSError) as error:
            raise self._died(horse, "while it loaded its model") from error
        if "failed" in header:
            self._reap()
            raise error_from_json(header["failed"])
        self._kept = blobs[0]
        ready = _read_ready(header["ready"])
        self._tell(ready, None)
        return ready

    def submit(self, claims: Sequence[Claim]) -> None:
        """Hand a batch to the horse; without waiting for what it has in hand.

        Raises:
            HorseDied: It ended; all batches in hand are forgotten here.
        """
        self.open()
        horse = self._alive()
        tasks = [
            Task(
                claim.job_id,
                claim.fields[b"data"],
                claim.queue_seconds,
                None if claim.error is None else reason_of(claim.error),
            )
            for claim in claims
        ]
        horse.in_hand.append(len(claims))
        try:
            send_tasks(horse.connection, tasks)
        except OSError as error:
            raise self._died(horse, f"with {sum(horse.in_hand)} jobs in hand") from error

    def collect(self, timeout_seconds: float) -> list[Outcome] | None:
        """Return the outcomes of the batch that was submitted first.

        Args:
            timeout_seconds: How long to wait.

        Returns:
            One for each claim, in order; None where they are not there in time.

        Raises:
            HorseDied: It ended; all batches in hand are forgotten here.
        """
        horse = self._alive()
        try:
            if not horse.connection.poll(max(0.0, timeout_seconds)):
                return None
            header, blobs = receive(horse.connection)
        except (EOFError, OSError) as error:
            raise self._died(horse, f"with {sum(horse.in_hand)} jobs in hand") from error
        if "policies" in header:
            self._take_policies(horse, header["policies"], blobs[0])
            return None
        horse.in_hand.popleft()
        for *what, times in header["counts"]:
            self._counts[tuple(what)] += times
        return read_outcomes(header, blobs)

    def hear(self) -> None:
        """Take in what the horse says by itself; its death is noted when it is given something to do."""
        horse = self._horse
        try:
            while horse is not None and not horse.in_hand and horse.connection.poll():
                header, blobs = receive(horse.connection)
                self._take_policies(horse, header["policies"], blobs[0])
        except (EOFError, OSError) as error:
            log.debug("nothing heard: %r", error)

    def _take_policies(self, horse: _Horse, said: dict[str, Any], kept: bytes) -> None:
        reload = said.pop("reload")
        horse.ready, self._kept = _read_ready(said), kept
        self._tell(horse.ready, reload)

    def take_counts(self) -> Counts:
        """Return what the horses counted since the last call, and how they ended."""
        counts, self._counts = self._counts, Counter()
        return counts

    def kill(self, cause: str) -> None:
        """Kill the horse; what it had in hand is forgotten here."""
        if self._horse is not None:
            self._horse.process.kill()
            self._counts["horse", cause] += 1
            self._reap()

    def close(self) -> None:
        """Let the horse go: it ends when its socket closes."""
        if self._horse is None:
            return
        self._horse.connection.close()
        try:
            self._horse.process.wait(_GOODBYE_SECONDS)
        except subprocess.TimeoutExpired:
            self._horse.process.kill()
        self._reap()

    def _alive(self) -> _Horse:
        if self._horse is None:
            raise HorseDied("there is no horse")
        return self._horse

    def _died(self, horse: _Horse, when: str) -> HorseDied:
        # The socket closes a moment before the process has ended; one that has not ended is of no use either.
        try:
            code = horse.process.wait(_GOODBYE_SECONDS)
        except subprocess.TimeoutExpired:
            horse.process.kill()
            code = horse.process.wait()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        self.deaths += 1
        self._counts["horse", "killed" if code == -signal.SIGKILL else "crashed"] += 1
        self._reap()
        return HorseDied(f"horse {horse.process.pid} died ({how}) {when}")

    def _reap(self) -> None:
        if self._horse is not None:
            self._horse.process.wait()
            self._horse.connection.close()
        self._horse = None


def _read_ready(said: dict[str, Any]) -> Ready:
    return Ready(**said | {"policies": tuple(tuple(row) for row in said["policies"])})


def _spawn() -> _Horse:
    """Start a horse; from the main thread, for the kernel kills it when the thread that spawned it ends."""
    ours, theirs = Pipe()
    with socket.socket(fileno=os.dup(ours.fileno())) as end:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _SEND_SECONDS, 0))
    command = [sys.executable, "-m", "worker.runtime.horse", str(theirs.fileno()), str(os.getpid())]
    process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
    theirs.close()
    return _Horse(process, ours)
