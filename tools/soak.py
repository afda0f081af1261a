"""`make soak`: one worker at a steady pace for half an hour; is it as small and as fast at the end as it was before?

In: nothing. Out: a line a minute, and what the second and the last third of the time were like. Every tenth upload is
one that cannot be judged. Exit code 1 when an upload has not exactly one verdict, or memory has grown.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from tools.drawings import write_drawings
from tools.running_worker import environment, running_worker
from worker.cli.embedded_redis import embedded_redis
from worker.client import Moderation
from worker.policy.registry import shipped_directory

#: Variations of each of the 25 drawings.
_EACH = 20
_SAMPLE_SECONDS = 5.0
_GROUP = "soak"
_IDLE_SECONDS = 20.0
#: Memory that may come and go between two thirds of the time: of all processes, and of what they had.
_SLACK_MIB, _SLACK_SHARE = 10.0, 0.03
_MIB = 2**20
#: What is bounded by length is soon full; jobs and their results go by themselves after 500 seconds.
_SETTINGS = {
    "model": "builtin", "policy": "demo", "metrics_port": "0", "memo_ttl_seconds": "0",
    "verdict_stream_maxlen": "2000", "ledger_maxlen": "2000",
}  # fmt: skip


@dataclass
class Traffic:
    """What was uploaded, and what was said of it."""

    asked: dict[str, float] = field(default_factory=dict)
    #: When it was read, and how long that took after it was enqueued, in seconds.
    answered: list[tuple[float, float]] = field(default_factory=list)
    verdicts: Counter[str] = field(default_factory=Counter)
    actions: Counter[str] = field(default_factory=Counter)

    def read(self, url: str) -> None:
        """Read verdicts until none comes any more."""
        for verdict in Moderation.from_url(url).verdicts(_GROUP, "reader", idle_seconds=_IDLE_SECONDS):
            now = time.monotonic()
            self.answered.append((now, now - self.asked[verdict.content_id]))
            self.verdicts[verdict.content_id] += 1
            self.actions[verdict.reason or verdict.action] += 1

    def missing(self) -> int:
        """Count the uploads without a verdict."""
        return len(self.asked.keys() - self.verdicts.keys())

    def repeated(self) -> int:
        """Count the uploads with more verdicts than one."""
        return sum(times > 1 for times in self.verdicts.values())


@dataclass(frozen=True)
class Sample:
    """What a worker and Redis were like at one moment."""

    at: float
    #: Of the worker, its horse and its decoders, what is their own: shared libraries change with who else runs.
    worker_mib: float
    redis_mib: float
    processes: int
    files: int
    threads: int


@dataclass(frozen=True)
class Third:
    """What a third of the time was like: medians of its samples, quantiles of its latencies."""

    name: str
    uploads: int
    p50_milliseconds: float
    p99_milliseconds: float
    worker_mib: float
    redis_mib: float
    processes: float
    files: float
    threads: float


def soak(url: str, pid: int, pictures: Sequence[bytes], minutes: float, rate: float) -> tuple[Traffic, list[Third]]:
    """Upload at a steady pace, and watch.

    Args:
        url: Of the Redis.
        pid: Of the worker.
        pictures: To upload, in turn.
        minutes: For how long.
        rate: Uploads a second.
    """
    traffic, samples = Traffic(), list[Sample]()
    moderation = Moderation.from_url(url)
    reader = threading.Thread(target=traffic.read, args=(url,), daemon=True)
    reader.start()
    begun = time.monotonic()
    ended = begun + 60 * minutes
    watcher = threading.Thread(target=_watch, args=(url, pid, samples, ended), daemon=True)
    watcher.start()
    for number in count():
        due = begun + number / rate
        if due >= ended:
            break
        time.sleep(max(0.0, due - time.monotonic()))
        name = f"upload-{number}"
        traffic.asked[name] = time.monotonic()
        moderation.enqueue(content_id=name, data=pictures[number % len(pictures)])
    watcher.join()
    reader.join()
    edges = [begun + (ended - begun) * third / 3 for third in range(4)]
    names = ("first", "second", "last")
    thirds = [_third(names[at], edges[at], edges[at + 1], traffic, samples) for at in range(3)]
    return traffic, thirds


def _watch(url: str, pid: int, samples: list[Sample], until: float) -> None:
    connection = Moderation.from_url(url).connection
    root = psutil.Process(pid)
    while (now := time.monotonic()) < until:
        info: dict[str, float] = connection.info("memory")
        own = [root, *root.children(recursive=True)]
        samples.append(
            Sample(
                at=now,
                worker_mib=sum(process.memory_full_info().uss for process in own) / _MIB,
                redis_mib=info["used_memory"] / _MIB,
                processes=len(own),
                files=sum(process.num_fds() for process in own),
                threads=sum(process.num_threads() for process in own),
            )
        )
        if len(samples) % round(60 / _SAMPLE_SECONDS) == 0:
            last = samples[-1]
            print(f"{last.worker_mib:.0f} MiB worker, {last.redis_mib:.1f} MiB Redis, {last.files} files", flush=True)
        time.sleep(_SAMPLE_SECONDS)


def _third(name: str, start: float, end: float, traffic: Traffic, samples: Sequence[Sample]) -> Third:
    seconds = [took for at, took in traffic.answered if start <= at < end]
    p50, p99 = np.quantile(seconds, (0.5, 0.99)) * 1000
    rows = [sample for sample in samples if start <= sample.at < end]

    def median(what: str) -> float:
        return float(np.median([getattr(row, what) for row in rows]))

    return Third(
        name, len(seconds), float(p50), float(p99), median("worker_mib"), median("redis_mib"), median("processes"),
        median("files"), median("threads"),
    )  # fmt: skip


def _pictures(home: Path) -> list[bytes]:
    """Return drawings, and after every ninth one that cannot be judged: cut off, or no picture at all."""
    names = write_drawings(home / "drawings", _EACH)
    shuffled = np.random.default_rng(0).permutation(names)
    pictures = []
    for place, name in enumerate(shuffled):
        data = (home / "drawings" / f"{name}.png").read_bytes()
        pictures.append(data)
        if place % 9 == 8:
            pictures.append(data[: len(data) // 2] if place % 2 else b"no picture " + data[:100])
    return pictures


def _problems(traffic: Traffic, thirds: Sequence[Third]) -> list[str]:
    problems = []
    if traffic.missing() or traffic.repeated():
        problems.append(f"{traffic.missing()} uploads have no verdict, {traffic.repeated()} have more than one")
    _, second, last = thirds
    for who in ("worker_mib", "redis_mib"):
        before, after = getattr(second, who), getattr(last, who)
        if after - before > max(_SLACK_MIB, _SLACK_SHARE * before):
            problems.append(f"{who} grew from {before:.1f} to {after:.1f} between the second and the last third")
    return problems


def main() -> int:
    """Soak, and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="for how long (30)")
    parser.add_argument("--rate", type=float, default=15.0, help="uploads a second (15)")
    parser.add_argument("--json", action="store_true", help="print one JSON object a third")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sluice-soak-") as directory, embedded_redis() as (url, _):
        home = Path(directory)
        own = environment(redis_url=url, policies=str(shipped_directory()), **_SETTINGS)
        with running_worker(home, own) as worker:
            traffic, thirds = soak(url, worker.pid, _pictures(home), options.minutes, options.rate)
    if options.json:
        for third in thirds:
            print(json.dumps(asdict(third)))
    else:
        columns = ("third", "verdicts", "p50 ms", "p99 ms", "worker MiB", "Redis MiB", "procs", "files", "threads")
        table = Table(*columns, box=None)
        for third in thirds:
            name, uploads, *numbers = asdict(third).values()
            table.add_row(name, f"{uploads:,}", *(f"{number:,.1f}" for number in numbers))
        Console().print(table)
    said = ", ".join(f"{name} {times:,}" for name, times in traffic.actions.most_common())
    print(f"{len(traffic.asked):,} uploads in {options.minutes:g} minutes: {said}")
    problems = _problems(traffic, thirds)
    print("\n".join(problems) or "every upload has one verdict, and memory is flat")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
