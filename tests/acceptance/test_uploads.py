"""The stream of uploads from outside: a backend that only knows XADD, and workers that die while they take over."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import support
from house import INLINE, House
from rq.job import Job

pytestmark = [pytest.mark.timeout(180), pytest.mark.thorough]

Own = tuple[support.DurableRedis, House]


@pytest.fixture
def working(own: Own, settings: dict[str, object], tmp_path: Path) -> Iterator[House]:
    server, house = own
    with support.running_worker(settings | {"redis_url": server.url}, tmp_path) as house.worker:
        yield house


def reasons(house: House, *jobs: Job) -> list[str | None]:
    house.ended(*jobs)
    return [house.verdict(job).reason for job in jobs]


def test_what_redis_cli_adds_is_judged_once(working: House) -> None:
    if shutil.which("redis-cli") is None:
        pytest.skip("needs redis-cli on PATH")
    upload = json.dumps({"image": INLINE, "content_id": "by-hand", "metadata": {"user": "7"}})
    for _ in range(2):
        subprocess.run(
            ["redis-cli", "-u", working.url, "-x", "XADD", "sluice:uploads", "*", "job"],
            input=upload.encode(), check=True, capture_output=True, timeout=30,
        )  # fmt: skip
    assert working.worker is not None
    support.until(lambda: working.worker.metric("sluice_uploads_total", outcome="repeated"), what="both are taken over")
    support.until(working.entries, what="a verdict")
    (entry,) = working.entries()
    verdict = json.loads(entry["verdict"])
    assert (verdict["content_id"], verdict["reason"], verdict["metadata"]) == ("by-hand", None, {"user": "7"})
    assert working.worker.metric("sluice_uploads_total", outcome="taken") == 1
    assert working.worker.metric("sluice_stream_entries", stream="uploads") == 0


def test_an_upload_that_is_wrong_gets_its_verdict_all_the_same(working: House) -> None:
    wrong = {"colour": {"colour": "red"}, "no-image": {"image": {}}, "no-policy": {"policy": "nobody"}}
    jobs = working.add_batch(*wrong, special=wrong)
    assert reasons(working, *jobs) == ["invalid_job", "invalid_job", "unknown_policy"]


def test_a_burst_takes_over_what_was_added_and_ends(own: Own, settings: dict[str, object], tmp_path: Path) -> None:
    server, house = own
    jobs = house.add_batch(*(f"upload-{number}" for number in range(300)))
    with support.running_worker(settings | {"redis_url": server.url}, tmp_path, "--burst", wait=False) as worker:
        assert worker.process.wait(support.PATIENCE_SECONDS) == 0
    assert set(reasons(house, *jobs)) == {None}


def test_a_worker_that_is_told_so_leaves_the_stream_alone(
    own: Own, settings: dict[str, object], tmp_path: Path
) -> None:
    server, house = own
    house.add_batch("left")
    ordinary = house.enqueue("ordinary")
    with support.running_worker(settings | {"redis_url": server.url, "uploads": False}, tmp_path):
        house.ended(ordinary)
    assert house.connection.xlen("sluice:uploads") == 1


@pytest.mark.nightly
def test_workers_that_are_killed_lose_no_upload_and_judge_none_twice(
    own: Own, settings: dict[str, object], tmp_path: Path
) -> None:
    server, house = own
    all_of_it = settings | {"redis_url": server.url, "recovery_seconds": 1}
    jobs: list[Job] = []
    with support.running_worker(all_of_it, tmp_path):
        for turn in range(3):
            with support.running_worker(all_of_it, tmp_path) as dying:
                jobs += house.add_batch(*(f"upload-{turn}-{number}" for number in range(400)))
                support.until(lambda: house.connection.xlen("sluice:uploads") < 350, what="some are taken over")
                dying.process.kill()
                dying.process.wait()
        assert set(house.ended(*jobs)) == {"finished"}
    said = Counter(entry["content_id"] for entry in house.entries())
    assert len(said) == 1200
    assert set(said.values()) == {1}


def test_uploads_wait_while_redis_is_away(own: Own, settings: dict[str, object], tmp_path: Path) -> None:
    server, house = own
    with support.running_worker(settings | {"redis_url": server.url}, tmp_path) as worker:
        house.ended(*house.add_batch("before"))
        server.kill()
        support.until(lambda: "uploads are not taken over" in worker.log, what="it is noticed")
        server.start()
        house.connection.connection_pool.disconnect()
        support.until(lambda: _answers(house.connection), what="Redis is back")
        assert reasons(house, *house.add_batch("after")) == [None]


def _answers(connection: redis.Redis) -> bool:
    try:
        return bool(connection.ping())
    except redis.RedisError:
        return False
