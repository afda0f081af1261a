"""The stream that any backend can write to: what is added becomes one job each, whoever dies and whatever is added."""

from __future__ import annotations

import json
import threading
from collections import Counter
from typing import Any

import pytest
import redis
from rq import Queue
from rq.job import Job

from worker.records import QUEUES
from worker.runtime.uploads import DEAD, GROUP, UPLOADS, Uploads, job_id_of
from worker.streams import join_group, read_group

IMAGE = {"url": "https://example.org/a.png"}


def add(connection: redis.Redis, content_id: object = "upload-1", **fields: Any) -> bytes:
    arguments = {"image": IMAGE, "content_id": content_id} | fields.pop("arguments", {})
    entry: Any = connection.xadd(UPLOADS, {"job": json.dumps(arguments)} | fields)
    return entry


def take(connection: redis.Redis) -> Counter[str]:
    counts: Counter[str] = Counter()
    Uploads(connection, lambda outcome, times: counts.update({outcome: times})).take_all()
    return counts


def jobs(connection: redis.Redis, queue: str = "moderation") -> list[Job]:
    return Queue(queue, connection=connection, serializer="json").jobs


def test_an_upload_becomes_an_ordinary_job(connection: redis.Redis) -> None:
    add(connection, arguments={"policy": "house@2", "metadata": {"album": "1"}})
    assert take(connection) == {"taken": 1}
    (job,) = jobs(connection)
    assert (job.func_name, list(job.args)) == ("worker.jobs.moderate", [])
    assert job.kwargs == {"image": IMAGE, "content_id": "upload-1", "policy": "house@2", "metadata": {"album": "1"}}
    assert (job.id, job.get_status(), job.description) == (
        job_id_of("upload-1", "house@2"), "queued", "moderate upload-1",
    )  # fmt: skip
    assert connection.xlen(UPLOADS) == 0
    assert connection.xpending(UPLOADS, GROUP)["pending"] == 0


@pytest.mark.parametrize(("priority", "queue"), QUEUES.items())
def test_a_priority_chooses_the_queue(connection: redis.Redis, priority: str, queue: str) -> None:
    add(connection, priority=priority)
    take(connection)
    assert [job.kwargs["content_id"] for job in jobs(connection, queue)] == ["upload-1"]


def test_a_priority_that_there_is_not_loses_nothing(connection: redis.Redis) -> None:
    add(connection, priority="urgent")
    assert take(connection) == {"taken": 1}
    assert len(jobs(connection)) == 1


def test_the_same_upload_under_the_same_policy_is_enqueued_once(connection: redis.Redis) -> None:
    for policy in (None, "house", None, "house@2", "house"):
        add(connection, arguments={"policy": policy})
    assert take(connection) == {"taken": 3, "repeated": 2}
    add(connection)
    assert take(connection) == {"repeated": 1}
    assert len(jobs(connection)) == 3


def test_what_a_dead_worker_had_read_is_taken_by_another(connection: redis.Redis) -> None:
    join_group(connection, UPLOADS, GROUP)
    add(connection)
    assert len(read_group(connection, UPLOADS, GROUP, "work", count=10)) == 1
    assert take(connection) == {"taken": 1}
    assert len(jobs(connection)) == 1


def test_workers_that_take_at_once_take_each_upload_once(connection: redis.Redis) -> None:
    names = [f"upload-{number}" for number in range(2000)]
    with connection.pipeline(transaction=False) as together:
        for name in names:
            together.xadd(UPLOADS, {"job": json.dumps({"image": IMAGE, "content_id": name})})
        together.execute()
    counts: list[Counter[str]] = []
    threads = [threading.Thread(target=lambda: counts.append(take(connection))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts, Counter()) == {"taken": 2000}
    ids = connection.lrange("rq:queue:moderation", 0, -1)
    assert sorted(ids) == sorted(job_id_of(name, None).encode() for name in names)
    assert connection.xpending(UPLOADS, GROUP)["pending"] == connection.xlen(UPLOADS) == 0


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"job": "{"}, "no JSON"),
        ({"job": "[" * 100_000}, "no JSON"),
        ({"job": "[1]"}, "no JSON object"),
        ({"jobs": "{}"}, "no JSON"),
        ({"job": '{"image": {}}'}, "no `content_id`"),
        ({"job": '{"content_id": 7}'}, "no `content_id`"),
        ({"job": '{"content_id": ""}'}, "no `content_id`"),
    ],
)
def test_what_is_no_upload_is_kept_apart_with_the_reason(
    connection: redis.Redis, fields: dict[str, str], why: str
) -> None:
    entry = connection.xadd(UPLOADS, fields)
    add(connection)
    assert take(connection) == {"refused": 1, "taken": 1}
    ((_, dead),) = connection.xrange(DEAD)
    assert dead[b"entry"] == entry
    assert why in dead[b"why"].decode()
    assert {key: dead[key.encode()].decode() for key in fields} == fields


def test_what_was_trimmed_before_it_was_taken_is_told(
    connection: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    join_group(connection, UPLOADS, GROUP)
    add(connection)
    read_group(connection, UPLOADS, GROUP, "work", count=10)
    connection.xtrim(UPLOADS, maxlen=0, approximate=False)
    assert take(connection) == {"refused": 1}
    assert "trimmed off the stream" in caplog.text


def test_a_redis_that_was_emptied_is_read_again(connection: redis.Redis) -> None:
    counts: Counter[str] = Counter()
    taken = threading.Event()

    def count(outcome: str, times: int) -> None:
        counts[outcome] += times
        taken.set()

    uploads = Uploads(connection, count)
    uploads.start()
    try:
        for _ in range(2):
            add(connection)
            assert taken.wait(10)
            taken.clear()
            connection.flushdb()
        assert counts == {"taken": 2}
    finally:
        uploads.close()
        uploads.join(10)
    assert not uploads.is_alive()
