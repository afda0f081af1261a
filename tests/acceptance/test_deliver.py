"""`sluice work --deliver` from outside: verdicts of jobs that end in all ways reach the receivers that jobs name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import support
from house import House
from receiver import SECRET, Receiver, answer

pytestmark = [pytest.mark.timeout(180), pytest.mark.thorough]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()
    assert receiver.wrong == []


def test_a_worker_that_delivers_posts_every_verdict_to_the_url_of_its_job_or_to_its_own(
    settings: dict[str, object], connection: redis.Redis, redis_url: str, site: support.Website, receiver: Receiver,
    tmp_path: Path,
) -> None:  # fmt: skip
    house = House(connection, site, tmp_path)
    own, other = (
        receiver.endpoint("/own", answer(204)),
        receiver.endpoint("/other?token=hush", answer(500), answer(204)),
    )
    jobs = {
        house.enqueue("plain"): "/own",
        house.enqueue("named", webhook=other): "/other?token=hush",
        house.enqueue("no-policy", policy="nobody", webhook=other): "/other?token=hush",
        house.enqueue("no-image", image={"url": 5}, webhook=other): "/other?token=hush",
    }
    more = {
        "redis_url": redis_url,
        "webhook_url": own,
        "webhook_secret": SECRET,
        "webhook_retry_seconds": "0.1,0.1,0.1",
    }
    with support.running_worker(settings | more, tmp_path, "--deliver") as worker:
        house.ended(*jobs)
        support.until(lambda: worker.metric("sluice_webhooks_total", outcome="delivered") == len(jobs), what="arrive")
        assert worker.metric("sluice_webhooks_total", outcome="retried") == 1
        assert worker.metric("sluice_webhooks_total", outcome="lost") == 0
        assert worker.leave() == 0
    assert "hush" not in worker.log
    for job, path in jobs.items():
        entry = house.entries(job.id)[0]
        verdict = json.loads(entry["verdict"])
        (got, *repeats) = [got for got in receiver.got(path) if got.webhook_id == verdict["verdict_id"]]
        assert got.verdict == verdict
        assert all(again.verdict == verdict for again in repeats)


def test_a_burst_that_delivers_ends_when_its_verdicts_have_arrived(
    settings: dict[str, object], connection: redis.Redis, redis_url: str, site: support.Website, receiver: Receiver,
    tmp_path: Path,
) -> None:  # fmt: skip
    house = House(connection, site, tmp_path)
    job = house.enqueue("upload-1")
    more = {"redis_url": redis_url, "webhook_url": receiver.url + "/own", "webhook_secret": SECRET, "metrics_port": 0}
    said = support.sluice("work", "--burst", "--deliver", settings=settings | more)
    assert said.returncode == 0, said.stderr
    assert receiver.ids("/own") == {house.verdict(job).verdict_id: 1}


@pytest.mark.parametrize("missing", ["webhook_url", "webhook_secret"])
def test_a_worker_that_cannot_deliver_says_so_before_it_loads_a_model(
    missing: str, settings: dict[str, object], redis_url: str
) -> None:
    more = {"redis_url": redis_url, "webhook_url": "https://example.org/", "webhook_secret": SECRET, missing: ""}
    said = support.sluice("work", "--deliver", settings=settings | more)
    assert said.returncode == 2
    (line,) = said.stderr.splitlines()
    assert f"set SLUICE_{missing.upper()}" in line
