"""How many workers one Redis carries: real worker processes whose model is replaced by a sleep of its length.

In: a Redis that may be emptied. Out: one row for each size of the fleet: its speed, and what Redis and workers paid.
Run as a program (`python -m worker.bench.fleet URL BATCH RATE LEDGER`) it is one of the workers.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psutil
import redis
from rq import Queue
from rq.suspension import resume, suspend
from rq.worker import Worker

from worker.bench.queue import EmptyStable, bench_verdict
from worker.errors import SluiceError
from worker.records import MODERATE
from worker.runtime.batch_worker import BatchWorker
from worker.runtime.claims import Claim
from worker.runtime.wire import Outcome
from worker.settings import Settings

_QUEUE = "moderation"
_ENQUEUED_AT_ONCE = 1000
#: Of the time in which rates are measured: what comes before it, until all workers have work in hand.
_WARM_UP_SECONDS = 1.0
#: Python starts on few cores, and many of it.
_START_SECONDS = 180.0
_POLL_SECONDS = 0.1
_GOODBYE_SECONDS = 30.0
#: Jobs beyond what the fleet can end in the time, so that it never waits for some.
_SPARE = 1.3


class SleepingStable(EmptyStable):
    """Ends each batch when a GPU would have, one after the other.

    Args:
        images_per_second: Of the GPU.
    """

    def __init__(self, images_per_second: float) -> None:
        super().__init__(verdict=bench_verdict())
        self._rate = images_per_second
        #: On the monotonic clock.
        self._ends: deque[float] = deque()

    def submit(self, claims: Sequence[Claim]) -> None:
        """Take a batch."""
        super().submit(claims)
        begins = max([time.monotonic(), *list(self._ends)[-1:]])
        self._ends.append(begins + len(claims) / self._rate)

    def collect(self, timeout_seconds: float) -> list[Outcome] | None:
        """End the first batch, when its time has come."""
        left = self._ends[0] - time.monotonic()
        time.sleep(max(0.0, min(left, timeout_seconds)))
        if left > timeout_seconds:
            return None
        self._ends.popleft()
        return super().collect(timeout_seconds)

    def kill(self, cause: str) -> None:
        """Forget everything."""
        super().kill(cause)
        self._ends.clear()


@dataclass(frozen=True, slots=True)
class FleetRow:
    """What a fleet of one size reached."""

    workers: int
    jobs_per_second: float
    #: Of what the workers' models alone could do.
    of_models: float
    #: Share of one core that Redis was busy.
    redis_cores: float
    redis_microseconds_per_job: float
    #: Cores that all workers were busy.
    worker_cores: float
    worker_microseconds_per_job: float
    #: Jobs a second at which Redis would fill a core.
    redis_ceiling: float
    #: The commands that took most of Redis' time, and their share of all commands' time.
    commands: str


def bench_fleet(
    url: str,
    fleets: Sequence[int],
    images_per_second: float,
    batch: int,
    seconds: float,
    ledger: bool,
    progress: Callable[[str], None],
) -> Iterator[FleetRow]:
    """Measure.

    Args:
        url: Of a Redis that is emptied again and again.
        fleets: How many workers.
        images_per_second: That each worker's model does.
        batch: Jobs of a batch.
        seconds: For which each fleet is measured.
        ledger: Whether embeddings are kept.
        progress: Told what runs.

    Raises:
        SluiceError: Workers do not start.
    """
    connection = redis.Redis.from_url(url)
    for workers in fleets:
        connection.flushall()
        needed = int(_SPARE * workers * (images_per_second * (seconds + _WARM_UP_SECONDS) + 2 * batch))
        progress(f"{workers} workers: enqueueing {needed} jobs")
        _enqueue(connection, needed)
        suspend(connection)
        with _fleet(url, workers, images_per_second, batch, ledger) as processes:
            progress(f"{workers} workers: starting")
            _await_workers(connection, processes)
            progress(f"{workers} workers: measuring for {seconds:g} s")
            yield _measure(connection, processes, images_per_second, seconds)


def _enqueue(connection: redis.Redis, jobs: int) -> None:
    queue = Queue(_QUEUE, connection=connection, serializer="json")
    for start in range(0, jobs, _ENQUEUED_AT_ONCE):
        numbers = range(start, min(jobs, start + _ENQUEUED_AT_ONCE))
        queue.enqueue_many(
            Queue.prepare_data(
                MODERATE, kwargs={"image": {"url": "https://example.org/image.jpg"}, "content_id": f"upload-{number}"}
            )
            for number in numbers
        )


@contextlib.contextmanager
def _fleet(url: str, workers: int, rate: float, batch: int, ledger: bool) -> Iterator[list[subprocess.Popen[bytes]]]:
    command = [sys.executable, "-m", "worker.bench.fleet", url, str(batch), str(rate), str(int(ledger))]
    processes = [subprocess.Popen(command) for _ in range(workers)]
    try:
        yield processes
    finally:
        # What they hold is the bench's own, and nobody waits for it.
        for process in processes:
            process.kill()
        for process in processes:
            process.wait(_GOODBYE_SECONDS)


def _await_workers(connection: redis.Redis, processes: Sequence[subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while Worker.count(connection=connection) < len(processes):
        if time.monotonic() > deadline or any(process.poll() is not None for process in processes):
            raise SluiceError("the workers of the bench did not start; the lines above say why")
        time.sleep(_POLL_SECONDS)


def _measure(
    connection: redis.Redis, processes: Sequence[subprocess.Popen[bytes]], rate: float, seconds: float
) -> FleetRow:
    resume(connection)
    while not connection.exists("sluice:verdicts"):
        time.sleep(_POLL_SECONDS)
    time.sleep(_WARM_UP_SECONDS)
    connection.config_resetstat()
    before, cpu, started = _judged(connection), _cpu_seconds(connection, processes), time.perf_counter()
    time.sleep(seconds)
    jobs, elapsed = _judged(connection) - before, time.perf_counter() - started
    redis_cpu, worker_cpu = (now - then for now, then in zip(_cpu_seconds(connection, processes), cpu, strict=True))
    if not connection.llen(f"rq:queue:{_QUEUE}"):
        raise SluiceError("the queue ran empty while it was measured; give fewer --seconds")
    return FleetRow(
        workers=len(processes),
        jobs_per_second=jobs / elapsed,
        of_models=jobs / elapsed / (rate * len(processes)),
        redis_cores=redis_cpu / elapsed,
        redis_microseconds_per_job=1e6 * redis_cpu / jobs,
        worker_cores=worker_cpu / elapsed,
        worker_microseconds_per_job=1e6 * worker_cpu / jobs,
        redis_ceiling=jobs / redis_cpu,
        commands=_commands(connection),
    )


def _judged(connection: redis.Redis) -> int:
    about: Any = connection.xinfo_stream("sluice:verdicts")
    return int(about["entries-added"])


def _cpu_seconds(connection: redis.Redis, processes: Sequence[subprocess.Popen[bytes]]) -> tuple[float, float]:
    """Return what Redis and the workers have used, in seconds of one core."""
    about: Any = connection.info("cpu")
    used = [psutil.Process(process.pid).cpu_times() for process in processes]
    return about["used_cpu_user"] + about["used_cpu_sys"], sum(times.user + times.system for times in used)


def _commands(connection: redis.Redis) -> str:
    about: Any = connection.info("commandstats")
    # What runs inside a script or a transaction is counted by itself and in these again.
    spent = {
        name.removeprefix("cmdstat_"): row["usec"]
        for name, row in about.items()
        if name not in ("cmdstat_evalsha", "cmdstat_exec")
    }
    whole = sum(spent.values()) or 1
    most = sorted(spent.items(), key=lambda item: -item[1])[:4]
    return ", ".join(f"{name} {usec / whole:.0%}" for name, usec in most)


def _work(url: str, batch: str, rate: str, ledger: str) -> None:
    more: dict[str, Any] = {} if int(ledger) else {"ledger_maxlen": 0}
    settings = Settings(batch_size=int(batch), batch_wait_seconds=0.0, redis_url=url, **more)
    connection = redis.Redis.from_url(url)
    worker = BatchWorker(
        [_QUEUE], connection=connection, settings=settings, stable=SleepingStable(float(rate)),
        log_job_description=False,
    )  # fmt: skip
    worker.work(logging_level="ERROR")


if __name__ == "__main__":
    _work(*sys.argv[1:])
