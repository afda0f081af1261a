"""What somebody wrote over in Redis costs the job whose key it is, and none of its neighbours."""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
import raw_payloads
import redis
import support
from raw_payloads import call
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from worker.runtime.claims import HELD_PREFIX, LEASES, Hands
from worker.runtime.hashes import max_data_bytes
from worker.runtime.recovery import Keeper
from worker.runtime.scheduling import SchedulerThread

QUEUE = "moderation"
MAX_BYTES = max_data_bytes(raw_payloads.IMAGE_MAX_BYTES)


def hands(connection: redis.Redis, worker: str) -> Hands:
    return Hands(connection, worker, 5.0, 30, ("rq", "rq:job:", "rq:queue:"), MAX_BYTES)


def put(connection: redis.Redis, job_id: str, **fields: Any) -> None:
    raw_payloads.push(connection, job_id, raw_payloads.Raw("judged", call(), fields))


def queued(connection: redis.Redis) -> list[bytes]:
    rows: Any = connection.lrange(f"rq:queue:{QUEUE}", 0, -1)
    return list(rows)


@pytest.fixture
def dead(connection: redis.Redis) -> redis.Redis:
    """A Redis with two jobs in the hands of a worker that died."""
    put(connection, "poison")
    put(connection, "neighbour")
    claims, dropped = hands(connection, "dead").claim([QUEUE], 2)
    assert (len(claims), dropped) == (2, [])
    connection.zadd(LEASES, {"dead": 1})
    return connection


def test_jobs_of_a_dead_worker_come_back_though_one_of_them_is_a_string_now(dead: redis.Redis) -> None:
    dead.set("rq:job:poison", "x")
    assert hands(dead, "heir").recover_dead() == {"dead": ["neighbour"]}
    assert queued(dead) == [b"neighbour"]
    assert not dead.exists(HELD_PREFIX + "dead")


@pytest.mark.parametrize("count", ["a few", "9" * 5000, str(2**63 - 1)], ids=["words", "digits", "the last number"])
def test_jobs_of_a_dead_worker_come_back_though_a_count_of_deaths_cannot_be_counted(
    dead: redis.Redis, count: str
) -> None:
    dead.hset("rq:job:poison", "sluice_deaths", count)
    heir = hands(dead, "heir")
    assert sorted(heir.recover_dead()["dead"]) == ["neighbour", "poison"]
    claims = [heir.claim([QUEUE], 1)[0][0] for _ in range(2)]
    assert [claim.deaths for claim in claims] == [1, 1]


def test_a_lease_is_renewed_though_a_job_is_a_string_now(connection: redis.Redis) -> None:
    put(connection, "poison")
    ours = hands(connection, "worker")
    claims, _ = ours.claim([QUEUE], 1)
    connection.set("rq:job:poison", "x")
    assert ours.renew(claims)


def test_of_a_heavy_job_only_what_is_light_is_read(connection: redis.Redis) -> None:
    put(connection, "heavy", meta=b"x" * 3_000_000, description="y", timeout=7)
    put(connection, "heavier", data=b"x" * (MAX_BYTES + 1))
    put(connection, "light")
    claims, dropped = hands(connection, "worker").claim([QUEUE], 3)
    assert dropped == []
    assert [len(claim.fields[b"data"]) for claim in claims] == [len(call()), 0, len(call())]
    assert [str(claim.error) for claim in claims[:2]] == [
        "invalid job: larger than a job may be in Redis; see SLUICE_IMAGE_MAX_BYTES"
    ] * 2
    assert claims[2].error is None
    assert b"meta" not in claims[0].fields


def test_a_job_as_large_as_its_image_may_be_is_read_whole(connection: redis.Redis) -> None:
    data = b"x" * MAX_BYTES
    put(connection, "large", data=data, description="d" * 100_000)
    (claim,), _ = hands(connection, "worker").claim([QUEUE], 1)
    assert (claim.error, claim.fields[b"data"]) == (None, data)


@pytest.mark.parametrize("job_id", [b"a\x1b[2J", b"a\nb", b"x" * 100_000, b"\xff", b"../x", b""])
def test_what_cannot_be_an_id_is_named_in_one_short_line(connection: redis.Redis, job_id: bytes) -> None:
    connection.rpush(f"rq:queue:{QUEUE}", job_id)
    claims, (dropped,) = hands(connection, "worker").claim([QUEUE], 1)
    assert claims == []
    assert dropped.isprintable()
    assert len(dropped) <= 520


# -- what waits for its time ------------------------------------------------------------------------------------------


@pytest.fixture
def scheduler(connection: redis.Redis) -> Iterator[SchedulerThread]:
    scheduler = SchedulerThread([QUEUE], connection, MAX_BYTES)
    scheduler.acquire_locks()
    yield scheduler
    scheduler.stop()
    scheduler.connection.close()


def schedule(connection: redis.Redis, *job_ids: str | bytes) -> None:
    connection.delete(f"rq:queue:{QUEUE}")
    connection.zadd(f"rq:scheduled:{QUEUE}", {job_id: time.time() - 1 for job_id in job_ids})


@pytest.mark.parametrize(
    "fields",
    [
        {"timeout": "nan"},
        {"retries_left": "some"},
        {"created_at": "yesterday"},
        {"status": "lost"},
        {"retry_intervals": "{"},
        {"exc_info": raw_payloads.bomb(50)},
        {"meta": b"x" * 5_000_000},
        {"data": zlib.compress(raw_payloads.bomb(50))},
        {b"\xff": "x"},
    ],
    ids=lambda fields: ascii(next(iter(fields))),
)
def test_a_job_that_rq_cannot_read_holds_up_no_other_that_waits_for_its_time(
    connection: redis.Redis, scheduler: SchedulerThread, fields: dict[Any, Any]
) -> None:
    raw_payloads.push(connection, "poison", raw_payloads.Raw("judged", call(), fields))
    put(connection, "neighbour")
    schedule(connection, "poison", "neighbour")
    scheduler.enqueue_scheduled_jobs()
    assert sorted(queued(connection)) == [b"neighbour", b"poison"]
    assert connection.zcard(f"rq:scheduled:{QUEUE}") == 0


def test_what_is_no_job_holds_up_none_that_waits_for_its_time(
    connection: redis.Redis, scheduler: SchedulerThread
) -> None:
    put(connection, "neighbour")
    connection.set("rq:job:a-string", "x")
    schedule(connection, "a-string", b"\xff", "deleted", "neighbour")
    scheduler.enqueue_scheduled_jobs()
    assert sorted(queued(connection)) == [b"a-string", b"neighbour", b"\xff"]
    assert connection.zcard(f"rq:scheduled:{QUEUE}") == 0


def test_a_job_whose_time_has_come_is_queued_as_rq_queues_it(
    connection: redis.Redis, scheduler: SchedulerThread
) -> None:
    queue = Queue(QUEUE, connection=connection, serializer=JSONSerializer)
    job = queue.enqueue("worker.jobs.moderate", content_id="x", result_ttl=77, meta={"a": 1})
    schedule(connection, job.id)
    scheduler.enqueue_scheduled_jobs()
    found = Job.fetch(job.id, connection=connection, serializer=JSONSerializer)
    assert queued(connection) == [job.id.encode()]
    assert (found.get_status(), found.kwargs, found.result_ttl, found.meta) == (
        "queued", {"content_id": "x"}, 77, {"a": 1},
    )  # fmt: skip


def test_a_worker_that_leaves_has_no_heartbeat_left_to_come(connection: redis.Redis) -> None:
    begun, beats = threading.Event(), []

    def beat() -> None:
        begun.set()
        time.sleep(0.3)
        beats.append(time.monotonic())

    keeper = Keeper(hands(connection, "leaver"), list, beat, 0.1, lambda _: None)
    keeper.start()
    assert begun.wait(10)
    keeper.close()
    left = time.monotonic()
    time.sleep(0.4)
    assert max(beats) < left


def test_a_job_whose_end_a_new_master_has_never_heard_of_is_put_back_and_no_other(connection: redis.Redis) -> None:
    put(connection, "ended")
    put(connection, "running")
    ours = Hands(connection, "worker", 0.2, 30, ("rq", "rq:job:", "rq:queue:"), MAX_BYTES)
    claims, _ = ours.claim([QUEUE], 2)
    running = [claim for claim in claims if claim.job_id == "running"]
    keeper = Keeper(ours, lambda: running, lambda: None, 0.2, lambda _: None)
    keeper.start()
    try:
        support.until(lambda: queued(connection), 10, "it is put back")
        time.sleep(0.6)
    finally:
        keeper.close()
    assert queued(connection) == [b"ended"]
    assert connection.hget("rq:job:ended", "status") == b"queued"
    assert not connection.hexists("rq:job:ended", "sluice_deaths")
    assert ours.members() == {running[0].member}
    assert connection.zrange(f"rq:wip:{QUEUE}", 0, -1) == [running[0].member.encode()]
