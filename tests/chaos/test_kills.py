"""Hundreds of kills: workers, horses and Redis die at random moments, and every upload has one verdict all the same."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis
import support
from house import PNG, House, durable_redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry as Again
from rq.job import Callback, Job, Retry

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1500)]

KILLS = 210
#: After so many kills, Redis dies too.
REDIS_DIES_AT = (35, 70, 105, 140, 175)
WORKERS = 3
BATCH = 8
#: Jobs that wait or run, at least.
BACKLOG = 6 * BATCH
#: Seconds that all the kills may take.
LIMIT_SECONDS = 900
SEED = 20
#: What the callbacks of some jobs do, in the worker.
CALLBACKS = """\
def told(job, connection, result, *args, **kwargs):
    connection.rpush("told", job.id)
"""


@dataclass
class Storm:
    """Workers that are killed and started again, and the jobs that go through them."""

    house: House
    server: support.DurableRedis
    settings: dict[str, object]
    directory: Path
    dice: random.Random
    workers: list[support.Worker] = field(default_factory=list)
    #: Each job's id, and how it must end.
    jobs: dict[str, str] = field(default_factory=dict)
    kills: Counter[str] = field(default_factory=Counter)
    #: Every process that was seen.
    pids: set[int] = field(default_factory=set)
    #: Name of each worker that was killed with jobs in hand, and when.
    dead: dict[str, float] = field(default_factory=dict)
    recoveries: list[float] = field(default_factory=list)

    # -- jobs ------------------------------------------------------------------------------------------------------

    def enqueue(self) -> None:
        """Put one job of a random kind on a random queue."""
        number = len(self.jobs)
        kinds: dict[str, tuple[float, Callable[[str], tuple[str, Job]]]] = {
            "plain": (60, lambda name: ("finished", self._put(name))),
            "slow": (10, lambda name: ("finished", self._put(name, image=self.house.slow_page("/slow", 0.3)))),
            "missing": (5, lambda name: ("finished", self._put(name, image={"url": self.house.site.url + "/none"}))),
            "invalid": (4, lambda name: ("failed", self._put(name, colour="red"))),
            "no policy": (4, lambda name: ("failed", self._put(name, policy="no-such"))),
            "forgotten": (4, lambda name: ("forgotten", self._put(name, result_ttl=0))),
            "told": (4, lambda name: ("finished", self._put(name, on_success=Callback("callbacks.told")))),
            "recovers": (4, lambda name: ("finished", self._put(name, image=self._page(name, 503, 200)))),
            "retried": (2, lambda name: ("failed", self._put(name, image=self._page(name, 503), retry=Retry(1)))),
            "leads": (3, self._put_with_dependent),
        }
        kind = self.dice.choices(list(kinds), [weight for weight, _ in kinds.values()])[0]
        end, job = kinds[kind][1](f"{kind.replace(' ', '-')}-{number}")
        self.jobs[job.id] = end

    def _put(self, name: str, **arguments: Any) -> Job:
        queue = self.dice.choice(("moderation-high", "moderation", "moderation", "moderation-bulk"))
        return self.house.enqueue(name, queue=queue, result_ttl=arguments.pop("result_ttl", 86_400), **arguments)

    def _page(self, name: str, *statuses: int) -> dict[str, str]:
        return {"url": self.house.site.page("/" + name, *((status, PNG) for status in statuses))}

    def _put_with_dependent(self, name: str) -> tuple[str, Job]:
        first = self._put(name)
        second = self._put("after-" + name, depends_on=first)
        self.jobs[second.id] = "finished"
        return "finished", first

    def waiting(self) -> int:
        """Count the jobs that nobody has taken."""
        return sum(self.house.queue(name).count for name in ("moderation-high", "moderation", "moderation-bulk"))

    def keep_busy(self) -> None:
        """Fill the queues up."""
        for _ in range(BACKLOG - self.waiting()):
            self.enqueue()

    # -- workers ---------------------------------------------------------------------------------------------------

    def hire(self) -> None:
        """Start the workers that are missing."""
        self.workers = [worker for worker in self.workers if worker.process.poll() is None]
        while len(self.workers) < WORKERS:
            worker = support.Worker(self.settings, self.directory, (), {"PYTHONPATH": str(self.directory)})
            self.pids.add(worker.process.pid)
            self.workers.append(worker)

    def held_by(self, worker: support.Worker) -> tuple[str, int]:
        """Return RQ's name of a worker, and how many jobs it has in hand."""
        connection = self.house.connection
        for key in connection.smembers("rq:workers"):
            if connection.hget(key, "pid") == str(worker.process.pid).encode():
                name = key.decode().removeprefix("rq:worker:")
                return name, int(connection.hlen("sluice:held:" + name))
        return "", 0

    def watch(self) -> None:
        """Note which of the dead have been relieved of their jobs."""
        for name, since in list(self.dead.items()):
            if not self.house.connection.exists("sluice:held:" + name):
                self.recoveries.append(time.monotonic() - since)
                del self.dead[name]

    def kill_somebody(self) -> bool:
        """Kill a worker that has work in hand, or its horse, at a random moment; whether there was one."""
        victim = self.dice.choice(self.workers)
        if not self.held_by(victim)[1] or not victim.horse_pid:
            return False
        self.pids.add(victim.horse_pid)
        moment = time.monotonic() + self.dice.uniform(0.1, 1.5)
        while time.monotonic() < moment:
            self.keep_busy()
            self.watch()
            time.sleep(0.02)
        if self.kills["worker"] > self.kills["horse"]:
            self.pids.add(victim.kill_horse())
            self.kills["horse"] += 1
        else:
            victim.process.kill()
            victim.process.wait()
            name, held = self.held_by(victim)
            if held:
                self.dead[name] = time.monotonic()
            self.kills["worker"] += 1
        return True

    def kill_redis(self) -> None:
        """Kill Redis as a power cut does, and start it again."""
        self.server.kill()
        time.sleep(self.dice.uniform(0.3, 1.5))
        self.server.start()
        self.kills["redis"] += 1

    def dismiss(self) -> list[int]:
        """Let all workers go; their exit codes."""
        return [worker.leave() for worker in self.workers if worker.process.poll() is None]

    # -- what came of it -------------------------------------------------------------------------------------------

    def ends(self) -> Counter[str]:
        """Count how jobs have ended, or not, that should have ended otherwise."""
        wrong: Counter[str] = Counter()
        with self.house.connection.pipeline(transaction=False) as pipeline:
            for job_id in self.jobs:
                pipeline.hget("rq:job:" + job_id, "status")
            for expected, status in zip(self.jobs.values(), pipeline.execute(), strict=True):
                found = "forgotten" if status is None else status.decode()
                if found != expected:
                    wrong[f"{found} instead of {expected}"] += 1
        return wrong


@contextmanager
def storm(settings: dict[str, object], directory: Path) -> Iterator[Storm]:
    """Have a house without workers, on a Redis that may be killed."""
    (directory / "callbacks.py").write_text(CALLBACKS)
    site = support.Website()
    patient = Again(ConstantBackoff(0.1), 100)
    with durable_redis(directory) as server, redis.Redis(port=server.port, retry=patient) as connection:
        house = House(connection, site, directory)
        storm = Storm(house, server, settings | {"redis_url": server.url}, directory, random.Random(SEED))
        try:
            yield storm
        finally:
            for worker in storm.workers:
                worker.process.kill()
                worker.process.wait()
            site.close()


def test_every_upload_has_one_verdict_after_hundreds_of_kills(tiny_clip: Path, tmp_path: Path) -> None:
    settings: dict[str, object] = {
        "model": tiny_clip, "policies": support.write_house_policies(tmp_path / "policies"), "policy": "house",
        "fetch_allow_private": True, "batch_size": BATCH, "recovery_seconds": 1, "log_level": "warning",
        "callbacks": "callbacks",
    }  # fmt: skip
    with storm(settings, tmp_path) as it:
        began = time.monotonic()
        while (killed := it.kills["worker"] + it.kills["horse"]) < KILLS:
            assert time.monotonic() - began < LIMIT_SECONDS, f"only {killed} kills"
            it.hire()
            it.keep_busy()
            it.watch()
            if it.kill_somebody():
                if killed + 1 in REDIS_DIES_AT:
                    it.kill_redis()
            else:
                time.sleep(0.02)
        it.hire()
        kills_seconds = time.monotonic() - began
        calm = time.monotonic()
        quarantined = _settle(it)
        codes = it.dismiss()
        entries = it.house.entries()
        print(f"\n{dict(it.kills)} kills in {kills_seconds:.0f} s, of {WORKERS} workers with batches of {BATCH}")
        print(f"{len(it.jobs)} jobs, {len(entries)} verdicts, {quarantined} of them worker_killed")
        slowest, times, calm_seconds = max(it.recoveries), len(it.recoveries), time.monotonic() - calm
        print(f"{times} times jobs of a dead worker went back to their queues, after at most {slowest:.1f} s")
        print(f"all was done {calm_seconds:.0f} s after the last kill")
        counts = Counter(entry["job_id"] for entry in entries)
        assert {job: count for job, count in counts.items() if count > 1} == {}
        assert counts.keys() == it.jobs.keys()
        assert set(codes) == {0}
        assert it.dead == {}
        assert it.house.nothing_is_stranded(), it.house.connection.keys("*")
        assert [pid for pid in it.pids if support.is_alive(pid)] == []


def _settle(it: Storm) -> int:
    """Wait until every job has ended as it must, but for those that were taken for killers; how many."""

    def settled() -> bool:
        it.watch()
        wrong = it.ends()
        return not it.waiting() and sum(wrong.values()) <= _quarantined(it)

    support.until(settled, 120, "every job has ended")
    assert set(it.ends()) <= {"failed instead of finished", "failed instead of forgotten"}
    return _quarantined(it)


def _quarantined(it: Storm) -> int:
    return sum('"reason":"worker_killed"' in entry["verdict"] for entry in it.house.entries())
