"""Policies change while workers judge at full speed: no upload is lost, judged twice, or judged by half a policy."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pytest
import redis
import support
from house import House

from worker.disagreements import disagreements
from worker.policy.changes import State
from worker.policy.fleet import Fleet, versions_key
from worker.records import Verdict

pytestmark = pytest.mark.thorough

#: How old the policies of a verdict may be, in seconds: a worker looks four times a second, and two batches are on
#: their way; the rest is for a busy machine.
OLDEST_SECONDS = 3.0


@dataclass
class Fleeting:
    """A fleet whose policies change, and what was at work when."""

    own: House
    settings: dict[str, object]
    #: From when, up to when at the latest, and what.
    timeline: list[tuple[float, State]] = field(default_factory=list)

    def command(self, *arguments: object, exit_code: int = 0) -> str:
        """Run `sluice policy …`; what it says on stderr."""
        done = support.sluice("policy", *arguments, settings=self.settings)
        assert done.returncode == exit_code, done.stderr
        return done.stderr

    def event(self, *arguments: object) -> None:
        """Change what is at work, and note it."""
        began = time.time()
        self.command(*arguments)
        self.timeline.append((began, Fleet(self.own.connection).states()["house"]))

    def may_have_judged(self, verdict: Verdict) -> bool:
        """Whether a state that was at work when the verdict's batch began decides and watches as the verdict says."""
        at = datetime.fromisoformat(verdict.created_at).timestamp()
        ends = [began for began, _ in self.timeline[1:]] + [float("inf")]
        for (began, state), end in zip(self.timeline, ends, strict=True):
            rollout = state.rollout
            if rollout is None or began > at or end + OLDEST_SECONDS < at:
                continue
            shadows = {shadow.policy.version for shadow in verdict.shadow}
            version = rollout.deciding_version("house", verdict.content_id)
            role = "canary" if rollout.canary and rollout.canary.version == version else "live"
            if (version, role, set(rollout.shadow)) == (verdict.policy.version, verdict.role, shadows):
                return True
        return False


class Producer(threading.Thread):
    """Enqueues uploads without end, until it is stopped; waits out a Redis that is away."""

    def __init__(self, house: House) -> None:
        super().__init__()
        self._house = house
        self.stopping = threading.Event()
        self.sent: list[str] = []

    def run(self) -> None:
        while not self.stopping.wait(0.05):
            names = [f"upload-{len(self.sent) + at}" for at in range(4)]
            try:
                self._house.enqueue_batch(*names)
            except redis.ConnectionError:
                # It may have arrived all the same: these names are not used again.
                names = []
                self.sent += ["lost"] * 4
            self.sent += names


@pytest.fixture
def fleet(own: tuple[support.DurableRedis, House], tmp_path: Path, tiny_clip: Path) -> Fleeting:
    """A registry with three versions, of which the first is live and the second watches."""
    server, house = own
    directory = support.write_house_policies(tmp_path / "policies")
    settings = {"model": tiny_clip, "policies": "redis", "policy": "house", "redis_url": server.url, "threads": 1,
                "memo_ttl_seconds": 0, "batch_size": 8, "log_level": "warning"}  # fmt: skip
    fleet = Fleeting(house, settings)
    fleet.event("publish", "--all", directory)
    return fleet


@pytest.mark.nightly
def test_twenty_changes_under_load_leave_every_upload_with_one_verdict_of_a_version_at_work(
    fleet: Fleeting, own: tuple[support.DurableRedis, House], tmp_path: Path
) -> None:
    server, house = own
    broken = tmp_path / "v9.yaml"
    broken.write_text("policy: house\nversion: 9\ncategories: {}\n")
    fresh = tmp_path / "house" / "v4.yaml"
    fresh.parent.mkdir()
    fresh.write_text(support.HOUSE_POLICY.format(version=4, review=0.3))
    producer = Producer(house)
    ready = {"log_level": "info"}
    with (
        support.running_worker(fleet.settings | ready, tmp_path) as one,
        support.running_worker(fleet.settings | ready, tmp_path) as two,
    ):
        producer.start()
        for arguments in (
            ("activate", "house@3"), ("rollback", "house"), ("shadow", "house@3"),
            ("canary", "house@3", "--percent", 50), ("publish", fresh), ("activate", "house@4"),
            ("shadow", "house@2", "--off"), ("canary", "house@3", "--percent", 0),
        ):  # fmt: skip
            fleet.event(*arguments)
        assert "v9.yaml" in fleet.command("publish", broken, exit_code=1)
        assert "never changes" in _publish_other_words(fleet, fresh)
        # Somebody writes past the commands; the workers keep what they have.
        house.connection.hset(versions_key("house"), "8", "{")
        for worker in (one, two):
            support.until(lambda worker=worker: worker.metric("sluice_policy_reloads_total", result="ok") >= 1)
        house.connection.set("sluice:policy:revision", "by hand")
        for worker in (one, two):
            support.until(
                lambda worker=worker: worker.metric("sluice_policy_reloads_total", result="invalid") >= 1,
                what="a broken registry is told",
            )
            status, said = support.get(worker.metrics_url + "/readyz")
            assert (status, said.splitlines()[0]) == (200, "ok")
            assert "earlier policies are kept: sluice:policy:house:versions[8]" in said
        house.connection.hdel(versions_key("house"), "8")
        server.kill()
        time.sleep(0.5)
        server.start()
        for arguments in (
            ("rollback", "house"), ("activate", "house@3"), ("canary", "house@1", "--percent", 10),
            ("shadow", "house@2"), ("canary", "house@1", "--percent", 90), ("promote", "house@2", "--force"),
            ("rollback", "house"), ("activate", "house@4"), ("rollback", "house"),
        ):  # fmt: skip
            fleet.event(*arguments)
        producer.stopping.set()
        producer.join()
        wanted = {name for name in producer.sent if name != "lost"}
        support.until(lambda: wanted <= {entry["content_id"] for entry in house.entries()}, 60, "all have a verdict")
        support.until(house.nothing_is_stranded, what="nothing is in anybody's hands")
        for worker in (one, two):
            assert worker.leave() == 0
    verdicts = [Verdict.model_validate_json(entry["verdict"]) for entry in house.entries()]
    ids = Counter(verdict.content_id for verdict in verdicts)
    assert ids.most_common(1)[0][1] == 1, "an upload has two verdicts"
    assert [verdict.reason for verdict in verdicts if verdict.reason] == []
    strange = [verdict for verdict in verdicts if not fleet.may_have_judged(verdict)]
    assert strange == [], strange[:3]
    roles = Counter((verdict.policy.version, verdict.role) for verdict in verdicts)
    print(f"{len(verdicts)} verdicts by {dict(roles)}; {_late(fleet, verdicts)}")
    assert {1, 3, 4} <= {version for version, _ in roles}
    assert any(role == "canary" for _, role in roles)


def _publish_other_words(fleet: Fleeting, file: Path) -> str:
    file.write_text(support.HOUSE_POLICY.format(version=4, review=0.1))
    return fleet.command("publish", file, exit_code=1)


def _late(fleet: Fleeting, verdicts: list[Verdict]) -> str:
    """Say how long after a change of the live version the last verdict of the one before it came, by its time stamp."""
    late = []
    for (_, before), (began, after) in zip(fleet.timeline, fleet.timeline[1:], strict=False):
        if before.rollout and after.rollout and before.rollout.live != after.rollout.live:
            times = [datetime.fromisoformat(verdict.created_at).timestamp() for verdict in verdicts
                     if verdict.policy.version == before.rollout.live and verdict.role == "live"]  # fmt: skip
            following = [moment - began for moment in times if 0 < moment - began < OLDEST_SECONDS]
            late.append(max(following, default=0.0))
    shown = ", ".join(f"{seconds:.2f}" for seconds in late)
    return f"last verdicts of the version before, in seconds after the command began: {shown}"


# -- a directory -------------------------------------------------------------------------------------------------------


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Policies that a worker reads from a directory."""
    return support.write_house_policies(tmp_path / "policies")


@pytest.fixture
def worker(own: tuple[support.DurableRedis, House], directory: Path, tiny_clip: Path) -> Iterator[support.Worker]:
    """A worker that reads them."""
    server, house = own
    settings = {"model": tiny_clip, "policies": directory, "policy": "house", "redis_url": server.url, "threads": 1}
    with support.running_worker(settings, house.directory) as worker:
        yield worker


def _versions(worker: support.Worker) -> Callable[[], set[tuple[str, str]]]:
    def read() -> set[tuple[str, str]]:
        page = support.get(worker.metrics_url + "/metrics")[1]
        rows = [line for line in page.splitlines() if line.startswith("sluice_policy_info{")]
        return {(row.partition('version="')[2][0], row.partition('role="')[2].partition('"')[0]) for row in rows}

    return read


def test_a_worker_shows_the_versions_at_work_and_keeps_them_over_a_broken_file_and_a_dead_horse(
    own: tuple[support.DurableRedis, House], directory: Path, worker: support.Worker
) -> None:
    _, house = own
    at_work = _versions(worker)
    assert at_work() == {("1", "live"), ("2", "shadow")}

    (directory / "rollout.yaml").write_text("house: {live: 3}\n")
    support.until(lambda: at_work() == {("3", "live")}, what="version 3 is at work")
    (directory / "house" / "v1.yaml").write_text("policy: house\n")
    support.until(lambda: worker.metric("sluice_policy_reloads_total", result="invalid") == 1, what="it is told")
    worker.kill_horse()
    job = house.enqueue("after a death")

    assert house.ended(job) == ["finished"]
    verdict = house.verdict(job)
    assert (verdict.policy.version, verdict.shadow) == (3, [])
    assert at_work() == {("3", "live")}
    assert "v1.yaml" in support.get(worker.metrics_url + "/readyz")[1]
    support.write_house_policies_over(directory)
    support.until(lambda: at_work() == {("1", "live"), ("2", "shadow")}, what="the mended policies are at work")
    assert support.get(worker.metrics_url + "/readyz") == (200, "ok\n")


def test_what_a_shadow_says_otherwise_is_counted_and_sampled(
    own: tuple[support.DurableRedis, House], worker: support.Worker
) -> None:
    server, house = own
    jobs = house.enqueue_batch(*(f"upload-{number}" for number in range(12)))
    house.ended(*jobs)
    verdicts = [house.verdict(job) for job in jobs]
    differing = [verdict for verdict in verdicts if disagreements(verdict, verdict.shadow[0])]

    done = support.sluice("policy", "disagreements", "house@2", "--json", settings={"redis_url": server.url})
    assert done.returncode == 0, done.stderr
    counts, *sample = [json.loads(line) for line in done.stdout.splitlines()]
    assert (counts["verdicts"], counts["disagreed"]) == (12, len(differing))
    assert {row["content_id"] for row in sample} == {verdict.content_id for verdict in differing}
    total = sum(row["images"] for row in counts["categories"])
    assert total == sum(len(disagreements(verdict, verdict.shadow[0])) for verdict in verdicts)
    assert total == sum(
        worker.metric("sluice_policy_disagreements_total", policy="house", category=row["category"],
                      direction=row["direction"])
        for row in counts["categories"]
    )  # fmt: skip
    # Version 2 asks for review from 0 on.
    assert len(differing) >= 1
