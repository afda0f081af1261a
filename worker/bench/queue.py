"""What queueing costs: `BatchWorker` with an empty handler, beside RQ's own workers with an empty function.

In: a Redis that may be emptied. Out: one row for each kind of worker, medians over rounds in which all took turns.
"""

from __future__ import annotations

import logging
import resource
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import redis
from rq import Queue, SimpleWorker, Worker
from rq.worker import BaseWorker

from worker.errors import SourceRefused
from worker.records import CategoryVerdict, ImageFacts, ModelStamp, PolicyStamp, Verdict
from worker.runtime.batch_worker import BatchWorker
from worker.runtime.claims import Claim
from worker.runtime.wire import Outcome
from worker.settings import Settings

#: Sizes of batches that are measured.
BATCHES = (1, 8, 32, 128)
_QUEUE = "moderation"
#: As many bytes as 512 numbers of 16 bits.
_EMBEDDING = bytes(1024)
_EMPTY = "worker.bench.queue.empty"


def empty(**arguments: Any) -> None:
    """Do nothing: what RQ's own workers run here."""


class EmptyStable:
    """Ends every batch at once.

    Args:
        every_failing: Every so many jobs one fails for good; 0: none.
        verdict: What is said of each job; None: nothing.
    """

    places = 2
    pid = 0

    def __init__(self, every_failing: int = 0, verdict: Verdict | None = None) -> None:
        self._every_failing = every_failing
        self._verdict = verdict
        self._payload = b"null" if verdict is None else verdict.to_json().encode()
        self._batches: deque[int] = deque()

    def open(self) -> None:
        """Be ready."""

    def submit(self, claims: Sequence[Claim]) -> None:
        """Take a batch."""
        self._batches.append(len(claims))

    def collect(self, timeout_seconds: float) -> list[Outcome] | None:
        """End it."""
        return [self._outcome(place) for place in range(self._batches.popleft())]

    def hear(self) -> None:
        """Hear nothing."""

    def take_counts(self) -> dict[tuple[str, ...], int]:
        """Return nothing: nothing is counted."""
        return {}

    def kill(self, cause: str) -> None:
        """Forget everything."""
        self._batches.clear()

    def close(self) -> None:
        """End."""

    def _outcome(self, place: int) -> Outcome:
        if self._every_failing and place % self._every_failing == 0:
            return Outcome(error=SourceRefused("the source answered 404"))
        return Outcome(self._verdict, self._payload, embeddings=_EMBEDDING)


@dataclass(frozen=True, slots=True)
class QueueRow:
    """What one kind of worker reached."""

    worker: str
    jobs_per_second: float
    #: Of the worker's own processes.
    cpu_microseconds_per_job: float
    #: Reads of Redis from its clients' sockets.
    round_trips_per_job: float
    #: Multiples of SimpleWorker in the same rounds.
    speed_ratio: float = 1.0
    cpu_ratio: float = 1.0


def bench_queue(url: str, jobs: int, rounds: int, progress: Callable[[str], None]) -> list[QueueRow]:
    """Measure.

    Args:
        url: Of a Redis that is emptied again and again.
        jobs: For each run of a `BatchWorker`; RQ's own get a tenth.
        rounds: How often each kind takes its turn.
        progress: Told what runs.

    Returns:
        Medians; `SimpleWorker` first.
    """
    measured: dict[str, list[QueueRow]] = {}
    for turn in range(rounds):
        for name, make, count in _kinds(jobs):
            progress(f"round {turn + 1} of {rounds}: {name}, {count} jobs")
            measured.setdefault(name, []).append(_run(name, make, url, count))
    rows = [_median(found) for found in measured.values()]
    simple = rows[0]
    return [
        QueueRow(
            row.worker,
            row.jobs_per_second,
            row.cpu_microseconds_per_job,
            row.round_trips_per_job,
            row.jobs_per_second / simple.jobs_per_second,
            row.cpu_microseconds_per_job / simple.cpu_microseconds_per_job,
        )
        for row in rows
    ]


def _kinds(jobs: int) -> Iterator[tuple[str, Callable[[redis.Redis], BaseWorker], int]]:
    few = max(1, jobs // 10)
    yield "SimpleWorker", lambda c: SimpleWorker([_QUEUE], connection=c, serializer="json"), few
    yield "Worker (forks)", lambda c: Worker([_QUEUE], connection=c, serializer="json"), max(1, few // 4)
    for batch in BATCHES:
        yield f"BatchWorker, {batch}", _batch_worker(batch, 0), few if batch == 1 else jobs
    yield "BatchWorker, 32, half fails", _batch_worker(32, 2), jobs
    yield "BatchWorker, 32, verdicts", _batch_worker(32, 0, bench_verdict(), ledger_maxlen=0), jobs
    yield "BatchWorker, 32, verdicts, ledger", _batch_worker(32, 0, bench_verdict()), jobs


def _batch_worker(
    batch: int, every_failing: int, verdict: Verdict | None = None, **more: Any
) -> Callable[[redis.Redis], BaseWorker]:
    settings = Settings(batch_size=batch, batch_wait_seconds=0.0, **more)
    return lambda connection: BatchWorker(
        [_QUEUE], connection=connection, settings=settings, stable=EmptyStable(every_failing, verdict)
    )


def bench_verdict() -> Verdict:
    """Return a verdict of eight categories, the size of a real one."""
    found = CategoryVerdict(
        score=0.1234, action="allow", margin=-1.2345, prompt="a photo of a thing", contrast="a photo of another",
        view=0, thresholds={"review": 0.5, "block": 0.9},
    )  # fmt: skip
    return Verdict(
        verdict_id="0" * 32, job_id="a-job", content_id="upload-1", action="allow", reason=None,
        policy=PolicyStamp(id="bench", version=1, digest="sha256:" + "0" * 64),
        model=ModelStamp(id="openai/clip-vit-base-patch32", revision="0" * 40, precision="fp32"), calibrated=False,
        categories={f"category_{number}": found for number in range(8)},
        image=ImageFacts(sha256="0" * 64, format="JPEG", width=500, height=375, frames=1, views=1, bytes=90_211),
        worker="bench", created_at="2026-01-01T00:00:00.000Z",
    )  # fmt: skip


def _run(name: str, make: Callable[[redis.Redis], BaseWorker], url: str, jobs: int) -> QueueRow:
    connection = redis.Redis.from_url(url)
    connection.flushall()
    rows = [Queue.prepare_data(_EMPTY, kwargs={"content_id": str(number)}, timeout=180) for number in range(jobs)]
    Queue(_QUEUE, connection=connection, serializer="json").enqueue_many(rows)
    worker = make(redis.Redis.from_url(url))
    worker.log_job_description = False
    logging.getLogger("worker").setLevel(logging.ERROR)
    reads, cpu, started = _reads(connection), _cpu_seconds(), time.perf_counter()
    worker.work(burst=True, logging_level="ERROR")
    seconds, cpu, reads = time.perf_counter() - started, _cpu_seconds() - cpu, _reads(connection) - reads
    ended = connection.zcard(f"rq:finished:{_QUEUE}") + connection.zcard(f"rq:failed:{_QUEUE}")
    if ended != jobs:
        raise RuntimeError(f"{name} ended {ended} of {jobs} jobs")
    return QueueRow(name, jobs / seconds, 1e6 * cpu / jobs, reads / jobs)


def _reads(connection: redis.Redis) -> int:
    return int(connection.info("stats")["total_reads_processed"])


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _median(rows: Sequence[QueueRow]) -> QueueRow:
    return QueueRow(
        rows[0].worker,
        statistics.median(row.jobs_per_second for row in rows),
        statistics.median(row.cpu_microseconds_per_job for row in rows),
        statistics.median(row.round_trips_per_job for row in rows),
    )
