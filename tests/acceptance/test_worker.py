"""`sluice work` from outside: a producer that has only rq, a real Redis, the installed command, signals."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
import support
from house import MODERATE, PNG, House, durable_redis
from rq.job import Job
from rq.registry import StartedJobRegistry
from rq.serializers import JSONSerializer
from rq.worker import Worker

from worker.ledger.entry import read_entry
from worker.records import Verdict

pytestmark = [pytest.mark.timeout(180), pytest.mark.thorough]

#: An import of this module leaves a file behind.
SIDE_EFFECT = "import pathlib\npathlib.Path({file!r}).write_text('imported')\ndef run(*args, **kwargs): return 1\n"


@dataclass
class Early:
    """Jobs that were enqueued before there was a worker."""

    plain: Job
    by_url: Job
    recovers: Job
    never_recovers: Job


@pytest.fixture(scope="module")
def opened(
    settings: dict[str, object], site: support.Website, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[House, Early]]:
    directory = tmp_path_factory.mktemp("house")
    (directory / "side_effect.py").write_text(SIDE_EFFECT.format(file=str(directory / "imported")))
    with durable_redis(directory) as server, redis.Redis(port=server.port) as connection:
        house = House(connection, site, directory)
        early = Early(
            plain=house.enqueue("upload-1", metadata={"user": "7"}),
            by_url=house.enqueue("upload-2", image={"url": site.page("/fine.png", (200, PNG))}),
            recovers=house.enqueue(
                "recovers", image={"url": site.page("/recovers", (503, b""), (503, b""), (200, PNG))}
            ),
            never_recovers=house.enqueue("never-recovers", image={"url": site.page("/never", (503, b""))}),
        )
        with support.running_worker(
            settings | {"redis_url": server.url}, directory, PYTHONPATH=str(directory)
        ) as house.worker:
            yield house, early


@pytest.fixture
def house(opened: tuple[House, Early]) -> Iterator[House]:
    """The house with its worker, which must outlive each test."""
    house = opened[0]
    yield house
    assert house.worker is not None
    assert house.worker.process.poll() is None, house.worker.log[-2000:]


@pytest.fixture
def early(opened: tuple[House, Early]) -> Early:
    return opened[1]


# -- verdicts --------------------------------------------------------------------------------------------------------


def test_a_producer_with_only_rq_gets_its_verdict_as_return_value_and_as_stream_entry(
    house: House, early: Early
) -> None:
    assert house.ended(early.plain, early.by_url) == ["finished", "finished"]
    for job, content_id in ((early.plain, "upload-1"), (early.by_url, "upload-2")):
        (entry,) = house.entries(job.id)
        returned = job.return_value(refresh=True)
        assert json.loads(entry.pop("verdict")) == returned
        assert entry == {
            "job_id": job.id, "content_id": content_id, "policy": "house", "action": returned["action"],
        }  # fmt: skip
        verdict = Verdict.model_validate(returned)
        assert (verdict.job_id, verdict.content_id, verdict.reason) == (job.id, content_id, None)
        assert verdict.categories.keys() == {"weapons", "drugs"}
        assert [shadow.policy.version for shadow in verdict.shadow] == [2]
        assert verdict.timings_seconds.keys() >= {"queue", "fetch", "decode", "embed", "score"}
    assert house.verdict(early.plain).metadata == {"user": "7"}


def test_an_image_that_cannot_be_read_is_a_finished_job_that_asks_for_review(house: House) -> None:
    rejected = house.outcome("rejected")
    broken = house.enqueue("broken", image={"base64": base64.b64encode(b"no image").decode()})
    missing = house.enqueue("missing", image={"url": house.site.url + "/nowhere"})
    assert house.ended(broken, missing) == ["finished", "finished"]
    assert (house.verdict(broken).action, house.verdict(broken).reason) == ("review", "image_undecodable")
    assert (house.verdict(missing).action, house.verdict(missing).reason) == ("review", "source_refused")
    support.until(lambda: house.outcome("rejected") == rejected + 2)


def test_a_job_run_by_a_stock_rq_worker_has_the_same_verdict_and_pushes_it(
    house: House, settings: dict[str, object], tmp_path: Path
) -> None:
    ours = house.enqueue("same")
    stock = house.enqueue("same", queue="stock")
    done = subprocess.run(
        [support.SLUICE.with_name("rq"), "worker", "--serializer", "json", "--burst", "--url", house.url, "stock"],
        env=support.environment(settings | {"redis_url": house.url}), cwd=tmp_path, capture_output=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert house.ended(ours, stock) == ["finished", "finished"]
    assert stock.return_value(refresh=True) == house.verdict(stock).model_dump(mode="json")
    differ = {"verdict_id", "job_id", "timings_seconds", "worker", "created_at"}
    assert house.verdict(stock).model_dump(exclude=differ) == house.verdict(ours).model_dump(exclude=differ)
    rows: Any = house.connection.xrange("sluice:ledger")
    kept = {entry.verdict_id: entry for _, fields in rows if (entry := read_entry(fields))}
    first, second = (kept[house.verdict(job).verdict_id] for job in (ours, stock))
    assert (first.embeddings, first.image_sha256) == (second.embeddings, second.image_sha256)


# -- failures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "reason", "says"),
    [
        ({"policy": "no-such"}, "unknown_policy", "UnknownPolicy: unknown policy no-such; known are house, "),
        ({"policy": "house@9"}, "unknown_policy", "UnknownPolicy: unknown policy house@9; known are house, "),
        ({"colour": "red"}, "invalid_job", "JobInvalid: invalid job: colour is not an argument of a job"),
        ({"image": {}}, "invalid_job", "JobInvalid: invalid job: image: give exactly one of url, s3, "),
        ({"image": {"url": 7}}, "invalid_job", "JobInvalid: invalid job: image.url"),
        ({"metadata": {"a": {}}}, "invalid_job", "JobInvalid: invalid job: metadata.a: input should be a valid str"),
    ],
)
def test_a_job_that_fails_says_why_in_one_line_and_has_one_verdict(
    house: House, arguments: dict[str, Any], reason: str, says: str
) -> None:
    job = house.enqueue("fails", **arguments)
    assert house.ended(job) == ["failed"]
    line = house.reason(job)
    assert "\n" not in line
    assert line.startswith(f"worker.errors.{says}")
    verdict = house.verdict(job)
    assert (verdict.action, verdict.reason, verdict.content_id) == ("review", reason, "fails")
    assert job in house.queue().failed_job_registry


def test_a_function_that_is_not_moderate_is_refused_and_nothing_is_imported(house: House) -> None:
    queue = house.queue()
    jobs = [
        queue.enqueue("side_effect.run", content_id="evil"),
        queue.enqueue("side_effect.run", "a", "b"),
        queue.enqueue("worker.jobs.as_return_value", content_id="evil"),
        queue.enqueue("worker.jobs.moderate.__globals__", content_id="evil"),
    ]
    assert house.ended(*jobs) == ["failed"] * 4
    for job in jobs:
        assert house.reason(job) == (
            "worker.errors.JobInvalid: this worker runs worker.jobs.moderate with keyword arguments and nothing else"
        )
    assert not (house.directory / "imported").exists()


@pytest.mark.parametrize(
    "data",
    [
        b"not json",
        b"\x80\x04N.",
        b"{}",
        b"null",
        b"[]",
        b'["worker.jobs.moderate"]',
        b'["worker.jobs.moderate", null, [], [["content_id", "x"]]]',
        b'["worker.jobs.moderate", null, [], null]',
        b'[7, null, [], {}]',
        b'["worker.jobs.moderate", null, [], {"image": {"url": "http://127.0.0.1/"}}]',
        b'["worker.jobs.moderate", null, [{"url": "http://127.0.0.1/"}, "by-position"], {}]',
        b'["worker.jobs.moderate", null, [], {"image": {"url": "http://127.0.0.1/"}, "content_id": 7}]',
        b'["worker.jobs.moderate", null, [], {"image": {"url": "http://127.0.0.1/"}, "content_id": "a\\nb"}]',
    ],
)  # fmt: skip
def test_data_without_a_content_id_fails_without_a_verdict(house: House, data: bytes) -> None:
    job = house.push_raw(f"malformed-{abs(hash(data))}", data=data)
    assert house.ended(job) == ["failed"]
    assert house.entries(job.id) == []
    assert house.reason(job)


@pytest.mark.parametrize(
    "data",
    [
        b'["worker.jobs.moderate", null, [{"url": "http://127.0.0.1/"}], {"content_id": "salvaged"}]',
        b'["worker.jobs.moderate", "instance", [], {"content_id": "salvaged"}]',
        b'["os.system", null, ["true"], {"content_id": "salvaged"}]',
        b'["worker.jobs.moderate", null, [], {"image": "x", "content_id": "salvaged", "policy": {}, "metadata": 1}]',
        b'[null, null, [], {"content_id": "salvaged"}]',
        b'[["worker.jobs.moderate"], null, [], {"content_id": "salvaged"}]',
    ],
)  # fmt: skip
def test_malformed_data_with_a_content_id_fails_with_one_verdict(house: House, data: bytes) -> None:
    job = house.push_raw(f"salvaged-{abs(hash(data))}", data=data)
    assert house.ended(job) == ["failed"]
    verdict = house.verdict(job)
    assert (verdict.action, verdict.reason, verdict.content_id) == ("review", "invalid_job", "salvaged")


@pytest.mark.parametrize(
    "fields",
    [
        {"created_at": "yesterday"},
        {"enqueued_at": b"\xff\xfe"},
        {"timeout": "soon"},
        {"status": "lost"},
        {"retries_left": "some"},
        {"meta": "{"},
        {"dependency_ids": "no json"},
        {"origin": b"\xff"},
    ],
)
def test_garbage_in_a_job_hash_does_not_cost_the_upload_its_verdict(house: House, fields: dict[str, Any]) -> None:
    arguments = {"image": {"base64": base64.b64encode(PNG).decode()}, "content_id": "odd"}
    data = json.dumps([MODERATE, None, [], arguments]).encode()
    job = house.push_raw(f"odd-{next(iter(fields))}", data=data, **fields)
    assert house.ended(job)
    assert house.verdict(job).content_id == "odd"


def test_what_is_no_job_at_all_does_not_stop_the_worker(house: House) -> None:
    house.connection.hset("rq:job:no-data", mapping={"status": "queued"})
    house.connection.set("rq:job:a-string", "x")
    garbage = [b"no-such-hash", b"no-data", b"a-string", b"\xff\xfe", b"", b"a:b"]
    house.connection.rpush("rq:queue:moderation", *garbage)
    after = house.enqueue("after-garbage")
    assert house.ended(after) == ["finished"]
    assert set(garbage).isdisjoint(house.connection.lrange("rq:queue:moderation", 0, -1))


def test_a_job_that_runs_longer_than_its_time_out_ends_with_a_verdict(house: House) -> None:
    job = house.enqueue("too-slow", image=house.slow_page("/too-slow", 3), timeout=1)
    assert house.ended(job) == ["failed"]
    assert (house.verdict(job).action, house.verdict(job).reason) == ("review", "job_timeout")
    assert "JobTimeoutException" in house.reason(job).splitlines()[-1]
    after = house.enqueue("after-time-out")
    assert house.ended(after) == ["finished"]


def test_a_source_that_fails_twice_is_tried_again_until_it_answers(house: House, early: Early) -> None:
    assert house.ended(early.recovers) == ["finished"]
    assert house.site.asked["/recovers"] == 3
    assert house.verdict(early.recovers).reason is None
    early.recovers.refresh()
    assert early.recovers.retries_left == 1


def test_a_source_that_fails_for_ever_ends_dead_with_one_verdict(house: House, early: Early) -> None:
    assert house.ended(early.never_recovers) == ["failed"]
    assert house.site.asked["/never"] == 4
    verdict = house.verdict(early.never_recovers)
    assert (verdict.action, verdict.reason) == ("review", "source_unavailable")
    assert early.never_recovers in house.queue().failed_job_registry
    line = house.reason(early.never_recovers)
    assert line == f"worker.errors.SourceUnavailable: {house.site.url}/never answered 503"
    # Two of the source that recovered, three of this one.
    support.until(lambda: house.outcome("retried") == 5, what="retries counted")


def test_a_source_that_says_when_to_ask_again_is_not_asked_before(house: House) -> None:
    url = house.site.page("/busy", (503, b""), headers={"Retry-After": "300"})
    began = time.time()
    job = house.enqueue("busy", image={"url": url + "?token=SECRET"})
    registry = house.queue().scheduled_job_registry
    due = support.until(lambda: house.connection.zscore(registry.key, job.id), what="the retry is scheduled")
    assert began + 299 <= due <= time.time() + 301
    assert house.site.asked["/busy"] == 1
    assert house.entries(job.id) == []
    job.cancel()
    job.delete()
    assert house.worker is not None
    assert "SECRET" not in house.worker.log


# -- an ordinary worker to every RQ tool -----------------------------------------------------------------------------


def test_a_suspended_worker_takes_nothing_shows_that_it_lives_and_goes_on_when_resumed(house: House) -> None:
    (rq_worker,) = Worker.all(house.connection)
    house.rq("suspend")
    support.until(lambda: house.connection.hget(rq_worker.key, "state") == b"suspended", what="suspended")
    job = house.enqueue("suspended")
    beat = house.connection.hget(rq_worker.key, "last_heartbeat")
    support.until(lambda: house.connection.hget(rq_worker.key, "last_heartbeat") != beat, 10, "heartbeats")
    time.sleep(1.5)
    assert job.get_status(refresh=True) == "queued"
    house.rq("resume")
    assert house.ended(job) == ["finished"]


def test_heartbeats_advance_while_a_long_job_runs(house: House) -> None:
    (rq_worker,) = Worker.all(house.connection)
    job = house.enqueue("long", image=house.slow_page("/long", 13))
    support.until(lambda: house.site.asked["/long"], what="the job runs")
    registry = StartedJobRegistry("moderation", house.connection, serializer=JSONSerializer)
    ((member, score),) = house.connection.zrange(registry.key, 0, -1, withscores=True)
    assert member.decode().startswith(job.id)
    job_beat, worker_beat = (house.connection.hget(key, "last_heartbeat") for key in (job.key, rq_worker.key))
    assert house.connection.hget(rq_worker.key, "state") == b"busy"
    support.until(lambda: (house.connection.zscore(registry.key, member) or 0) > score, 12, "the registry's score")
    assert house.connection.hget(job.key, "last_heartbeat") > job_beat
    assert house.connection.hget(rq_worker.key, "last_heartbeat") > worker_beat
    assert house.ended(job) == ["finished"]
    assert len(house.entries(job.id)) == 1


def test_rq_info_shows_the_worker_and_its_queues(house: House) -> None:
    says = house.rq("info", "--raw")
    (line,) = [line for line in says.splitlines() if line.startswith("worker ")]
    assert line.partition(") ")[2].split(": ")[0].startswith("idle moderation-high, moderation, moderation-bulk")


# -- coming and going ------------------------------------------------------------------------------------------------


def test_a_burst_serves_the_urgent_first_and_ends(
    own: tuple[support.DurableRedis, House], settings: dict[str, object], tmp_path: Path
) -> None:
    server, house = own
    jobs = [house.enqueue(name, queue=name) for name in ("moderation-bulk", "moderation", "moderation-high")]
    with support.running_worker(settings | {"redis_url": server.url}, tmp_path, "--burst", wait=False) as worker:
        assert worker.process.wait(support.PATIENCE_SECONDS) == 0
    assert house.ended(*jobs) == ["finished"] * 3
    assert [entry["content_id"] for entry in house.entries()] == ["moderation-high", "moderation", "moderation-bulk"]
    assert Worker.all(house.connection) == []


def test_a_job_that_ended_stays_as_long_as_its_producer_or_else_the_setting_says(
    own: tuple[support.DurableRedis, House], settings: dict[str, object], tmp_path: Path
) -> None:
    server, house = own
    asked, silent = house.enqueue("asked", result_ttl=300), house.enqueue("silent")
    more = {"redis_url": server.url, "result_ttl_seconds": 60}
    with support.running_worker(settings | more, tmp_path, "--burst", wait=False) as worker:
        assert worker.process.wait(support.PATIENCE_SECONDS) == 0
    kept = [house.connection.ttl(f"rq:job:{job.id}") for job in (asked, silent)]
    assert 240 < kept[0] <= 300
    assert 0 < kept[1] <= 60


def test_sigterm_finishes_the_batches_in_hand_and_takes_no_more(
    own: tuple[support.DurableRedis, House], settings: dict[str, object], tmp_path: Path
) -> None:
    server, house = own
    with support.running_worker(settings | {"redis_url": server.url, "batch_size": 1}, tmp_path) as worker:
        running = house.enqueue("running", image=house.slow_page("/sigterm", 3))
        ahead = house.enqueue("ahead")
        waiting = house.enqueue("waiting")
        support.until(lambda: house.site.asked["/sigterm"], what="the job runs")
        support.until(lambda: ahead.get_status(refresh=True) == "started", what="the next is prepared")
        worker.process.send_signal(signal.SIGTERM)
        support.until(lambda: "leaving" in support.get(worker.metrics_url + "/readyz")[1], 2, "/readyz")
        assert support.get(worker.metrics_url + "/livez")[0] == 200
        assert worker.process.wait(support.PATIENCE_SECONDS) == 0
    assert house.ended(running, ahead) == ["finished", "finished"]
    assert house.verdict(running).reason is None
    assert waiting.get_status(refresh=True) == "queued"
    assert house.queue().get_job_ids() == [waiting.id]
    assert house.nothing_is_stranded()
    assert Worker.all(house.connection) == []


def test_sigterm_leaves_an_idle_worker_within_three_seconds(
    own: tuple[support.DurableRedis, House], settings: dict[str, object], tmp_path: Path
) -> None:
    server, house = own
    with support.running_worker(settings | {"redis_url": server.url}, tmp_path) as worker:
        support.until(lambda: Worker.all(house.connection), what="registered")
        time.sleep(0.5)
        assert worker.leave(seconds=3) == 0
    assert Worker.all(house.connection) == []


def test_a_worker_survives_redis_and_leaves_even_when_redis_is_gone(
    own: tuple[support.DurableRedis, House], settings: dict[str, object], tmp_path: Path
) -> None:
    server, house = own
    with support.running_worker(settings | {"redis_url": server.url}, tmp_path) as worker:
        _redis_restarts(server, house, lambda: None)
        idle = house.enqueue("while-idle")
        assert house.ended(idle) == ["finished"]

        busy = house.enqueue("in-mid-job", image=house.slow_page("/storm", 2))
        behind = [house.enqueue(f"behind-{place}") for place in range(3)]
        support.until(lambda: house.site.asked["/storm"], what="the job runs")
        # Back only after the job wanted to end.
        _redis_restarts(server, house, lambda: time.sleep(2.5))
        assert house.ended(busy, *behind) == ["finished"] * 4
        assert house.verdict(busy).reason is None
        for job in (idle, busy, *behind):
            assert len(house.entries(job.id)) == 1
        assert house.nothing_is_stranded()
        support.until(lambda: "moderation" in house.rq("info", "--only-workers", "--raw"), what="rq info")
        (rq_worker,) = Worker.all(house.connection)
        assert rq_worker.pid == worker.process.pid

        server.kill()
        time.sleep(1)
        assert worker.leave(seconds=10) == 0


def _redis_restarts(server: support.DurableRedis, house: House, meanwhile: Callable[[], None]) -> None:
    server.kill()
    time.sleep(1)
    meanwhile()
    server.start()
    house.connection.connection_pool.disconnect()


def test_a_worker_that_cannot_go_on_says_so_and_exits_with_an_error(
    own: tuple[support.DurableRedis, House], settings: dict[str, object], tmp_path: Path
) -> None:
    server, house = own
    with support.running_worker(settings | {"redis_url": server.url}, tmp_path) as worker:
        house.connection.set("rq:queue:moderation", "somebody wrote over the queue")
        assert worker.process.wait(support.PATIENCE_SECONDS) == 1
        assert worker.log.splitlines()[-1].startswith("sluice: the worker's loop ended without being told to")


def test_ctrl_c_leaves_as_sigterm_does(
    own: tuple[support.DurableRedis, House], settings: dict[str, object], tmp_path: Path
) -> None:
    server, house = own
    with support.running_worker(settings | {"redis_url": server.url}, tmp_path) as worker:
        running = house.enqueue("running", image=house.slow_page("/ctrl-c", 2))
        support.until(lambda: house.site.asked["/ctrl-c"], what="the job runs")
        assert worker.leave(signum=signal.SIGINT) == 0
    assert house.ended(running) == ["finished"]
    assert "Traceback" not in worker.log
