"""The backend's side: what the client enqueues, and how verdicts come back, over a real Redis and a real worker."""

from __future__ import annotations

import hashlib
import itertools
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import redis
import support
from PIL import Image
from rq import Queue
from rq.job import Job

from worker.client import BLOB_TTL_SECONDS, Moderation, VerdictTimeout, read_verdicts
from worker.errors import JobInvalid, SluiceError, UsageError
from worker.records import QUEUES, ModelStamp, PolicyStamp, Verdict
from worker.runtime.batch_worker import BatchWorker
from worker.runtime.stable import ModelStable
from worker.settings import load_settings
from worker.sinks.stream import STREAM, VerdictStream

pytestmark = pytest.mark.timeout(60)

PNG = support.encode(Image.new("RGB", (40, 40), "olive"))
DIGEST = hashlib.sha256(PNG).hexdigest()


@pytest.fixture
def moderation(connection: redis.Redis) -> Moderation:
    return Moderation(connection)


@pytest.fixture(scope="module")
def stable(redis_server: str, tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelStable]:
    """One horse for all the tests of this module."""
    policies = support.write_house_policies(tmp_path_factory.mktemp("house") / "policies")
    flags = {"model": str(tiny_clip), "policies": str(policies), "policy": "house", "redis_url": redis_server}
    stable = _SharedStable(load_settings(flags))
    yield stable
    ModelStable.close(stable)


class _SharedStable(ModelStable):
    def close(self) -> None:
        """Stay; the module closes it."""


@pytest.fixture
def work(connection: redis.Redis, stable: ModelStable) -> Callable[[], None]:
    """Work the queues until they are empty."""

    def run() -> None:
        kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        BatchWorker(list(QUEUES.values()), connection=connection, stable=stable).work(burst=True)
        for number, handler in kept.items():
            signal.signal(number, handler)

    return run


def waiting(connection: redis.Redis, name: str = "moderation") -> list[str]:
    return Queue(name, connection=connection, serializer="json").get_job_ids()


def keys(connection: redis.Redis, pattern: str = "*") -> list[bytes]:
    return sorted(connection.scan_iter(pattern))


# -- enqueueing ------------------------------------------------------------------------------------------------------


def test_a_url_is_enqueued_with_everything_that_the_contract_names(
    moderation: Moderation, connection: redis.Redis
) -> None:
    job = moderation.enqueue(
        content_id="upload-1", url="https://example.org/a.png?signature=s3cret", policy="default@2",
        metadata=MappingProxyType({"user": "7"}), webhook="https://example.org/hook",
    )  # fmt: skip
    assert waiting(connection) == [job.id]
    stored = Job.fetch(job.id, connection, serializer="json")
    assert (stored.func_name, stored.args) == ("worker.jobs.moderate", [])
    assert stored.kwargs == {
        "image": {"url": "https://example.org/a.png?signature=s3cret"}, "content_id": "upload-1",
        "policy": "default@2", "metadata": {"user": "7"}, "webhook": "https://example.org/hook",
    }  # fmt: skip
    assert keys(connection, "sluice:*") == []


def test_bytes_go_to_a_blob_under_their_digest_that_expires_and_not_into_the_job(
    moderation: Moderation, connection: redis.Redis
) -> None:
    job = moderation.enqueue(content_id="upload-1", data=PNG)
    assert job.kwargs == {"image": {"blob": DIGEST}, "content_id": "upload-1"}
    key = f"sluice:blob:{DIGEST}"
    assert connection.get(key) == PNG
    assert BLOB_TTL_SECONDS - 60 < connection.ttl(key) <= BLOB_TTL_SECONDS


def test_the_same_bytes_are_stored_once_and_live_on_with_each_upload(
    moderation: Moderation, connection: redis.Redis
) -> None:
    moderation.enqueue(content_id="upload-1", data=PNG)
    connection.expire(f"sluice:blob:{DIGEST}", 5)
    moderation.enqueue_many([{"content_id": f"upload-{place}", "data": PNG} for place in range(3)])
    assert keys(connection, "sluice:*") == [f"sluice:blob:{DIGEST}".encode()]
    assert connection.ttl(f"sluice:blob:{DIGEST}") > BLOB_TTL_SECONDS - 60


def test_a_path_is_enqueued_as_it_is(moderation: Moderation) -> None:
    job = moderation.enqueue(content_id="upload-1", path="2026/01/a.png")
    assert job.kwargs["image"] == {"path": "2026/01/a.png"}


@pytest.mark.parametrize(("priority", "queue"), QUEUES.items())
def test_a_priority_is_a_queue(moderation: Moderation, connection: redis.Redis, priority: Any, queue: str) -> None:
    job = moderation.enqueue(content_id="upload-1", path="a", priority=priority)
    assert job.origin == queue
    assert {name: waiting(connection, name) for name in QUEUES.values()} == {
        name: [job.id] if name == queue else [] for name in QUEUES.values()
    }


def test_many_uploads_keep_their_order_in_the_answer_and_in_each_queue(
    moderation: Moderation, connection: redis.Redis
) -> None:
    priorities = ["bulk", "high", "normal", None, "high", "bulk", "normal"] * 30
    uploads = [
        {"content_id": f"upload-{place}", "data": f"image {place}".encode(), "priority": priority}
        for place, priority in enumerate(priorities)
    ]
    jobs = moderation.enqueue_many(iter(uploads))
    assert [job.kwargs["content_id"] for job in jobs] == [upload["content_id"] for upload in uploads]
    for priority, queue in QUEUES.items():
        wanted = [job.id for job, its in zip(jobs, priorities, strict=True) if (its or "normal") == priority]
        assert waiting(connection, queue) == wanted
    assert len(keys(connection, "sluice:blob:*")) == len(uploads)
    assert [upload["priority"] for upload in uploads] == priorities


def test_enqueueing_nothing_does_nothing(moderation: Moderation, connection: redis.Redis) -> None:
    assert moderation.enqueue_many([]) == []
    assert keys(connection) == []


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({"content_id": "a"}, "image"),
        ({"content_id": "a", "url": "https://example.org/", "path": "b"}, "image"),
        ({"content_id": "a", "url": "https://example.org/", "data": PNG}, "image"),
        ({"content_id": "a", "url": ""}, "image.url"),
        ({"content_id": "a", "url": 7}, "image.url"),
        ({"content_id": "a", "data": b""}, "data"),
        ({"content_id": "a", "data": "text"}, "data"),
        ({"url": "https://example.org/"}, "content_id"),
        ({"content_id": "", "url": "https://example.org/"}, "content_id"),
        ({"content_id": 7, "url": "https://example.org/"}, "content_id"),
        ({"content_id": "a\nb", "url": "https://example.org/"}, "content_id"),
        ({"content_id": "a", "path": "b", "policy": "no such id"}, "policy"),
        ({"content_id": "a", "path": "b", "policy": "default@0"}, "policy"),
        ({"content_id": "a", "path": "b", "metadata": {"a": 1}}, "metadata.a"),
        ({"content_id": "a", "path": "b", "metadata": "x"}, "metadata"),
        ({"content_id": "a", "path": "b", "webhook": "ftp://example.org/"}, "webhook"),
        ({"content_id": "a", "path": "b", "priority": "urgent"}, "priority"),
        ({"content_id": "a", "path": "b", "priority": ["high"]}, "priority"),
        ({"content_id": "a", "path": "b", "colour": "red"}, "colour"),
    ],
)
def test_a_wrong_argument_is_named_and_nothing_is_enqueued_or_stored(
    moderation: Moderation, connection: redis.Redis, arguments: dict[str, Any], names: str
) -> None:
    right = {"content_id": "right", "data": PNG}
    with pytest.raises(JobInvalid) as raised:
        moderation.enqueue_many([right, arguments, right])
    assert names in str(raised.value)
    assert "\n" not in str(raised.value)
    assert keys(connection) == []


def test_no_description_holds_a_url_or_an_image(moderation: Moderation, connection: redis.Redis) -> None:
    moderation.enqueue(content_id="a", url="https://example.org/?signature=s3cret")
    moderation.enqueue(content_id="b", data=PNG)
    moderation.enqueue(content_id="c", path="/secret/place.png")
    found = {connection.hget(key, "description") for key in keys(connection, "rq:job:*")}
    assert found == {b"moderate a", b"moderate b", b"moderate c"}


def test_a_url_that_is_not_one_of_redis_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="SLUICE_REDIS_URL"):
        Moderation.from_url("http://example.org")


# -- waiting ---------------------------------------------------------------------------------------------------------


def test_the_verdict_of_uploaded_bytes_comes_back(moderation: Moderation, work: Callable[[], None]) -> None:
    job = moderation.enqueue(content_id="upload-1", data=PNG, metadata={"user": "7"})
    work()
    verdict = moderation.wait(job, 5)
    assert (verdict.job_id, verdict.content_id, verdict.reason) == (job.id, "upload-1", None)
    assert (verdict.metadata, verdict.policy.id) == ({"user": "7"}, "house")
    assert verdict.image is not None
    assert verdict.image.sha256 == DIGEST


def test_waiting_begins_before_the_job_is_worked(moderation: Moderation, work: Callable[[], None]) -> None:
    job = moderation.enqueue(content_id="upload-1", data=PNG)
    found: list[Verdict] = []
    thread = threading.Thread(target=lambda: found.append(moderation.wait(job, 30)))
    thread.start()
    work()
    thread.join(30)
    assert [verdict.job_id for verdict in found] == [job.id]


def test_a_job_that_ends_dead_gives_its_verdict_too(moderation: Moderation, work: Callable[[], None]) -> None:
    jobs = moderation.enqueue_many(
        [{"content_id": f"upload-{place}", "data": PNG, "policy": f"nobody@{place}"} for place in range(1, 150)]
    )
    work()
    # The first of them is more than one page of the stream away from its end.
    for job in (jobs[0], jobs[-1]):
        verdict = moderation.wait(job, 5)
        assert (verdict.job_id, verdict.action, verdict.reason) == (job.id, "review", "unknown_policy")


def test_a_job_that_ends_without_a_verdict_says_so(
    moderation: Moderation, connection: redis.Redis, work: Callable[[], None]
) -> None:
    job = Queue("moderation", connection=connection, serializer="json").enqueue("worker.jobs.moderate")
    work()
    with pytest.raises(SluiceError, match=f"job {job.id} failed without a verdict: .*content_id is required"):
        moderation.wait(job, 5)


@pytest.mark.parametrize("timeout_seconds", [0, 0.3, 1.2])
def test_waiting_ends_when_its_time_is_up_and_the_job_goes_on(
    moderation: Moderation, connection: redis.Redis, timeout_seconds: float
) -> None:
    job = moderation.enqueue(content_id="upload-1", data=PNG)
    start = time.monotonic()
    with pytest.raises(VerdictTimeout, match=job.id) as raised:
        moderation.wait(job, timeout_seconds)
    assert timeout_seconds <= time.monotonic() - start < timeout_seconds + 1
    assert isinstance(raised.value, TimeoutError)
    assert waiting(connection) == [job.id]


def test_a_verdict_that_is_there_needs_no_waiting(moderation: Moderation, work: Callable[[], None]) -> None:
    job = moderation.enqueue(content_id="upload-1", data=PNG)
    work()
    assert moderation.wait(job, 0).job_id == job.id


def test_a_verdict_outlives_the_return_value_that_rq_keeps(
    moderation: Moderation, connection: redis.Redis, work: Callable[[], None]
) -> None:
    job = moderation.enqueue(content_id="upload-1", data=PNG)
    work()
    connection.delete(f"rq:results:{job.id}", job.key)
    assert moderation.wait(job, 0).job_id == job.id


# -- following -------------------------------------------------------------------------------------------------------


def make_verdict(name: str) -> Verdict:
    return Verdict(
        verdict_id=f"v-{name}", job_id=f"j-{name}", content_id=name, action="allow", reason=None,
        policy=PolicyStamp(id="p", version=1, digest="d"), model=ModelStamp(id="m", revision="r", precision="fp32"),
        calibrated=True, categories={}, image=None, worker="w", created_at="2026-01-01T00:00:00.000Z",
    )  # fmt: skip


def push(connection: redis.Redis, *names: str) -> None:
    for name in names:
        VerdictStream(1000).push(connection, make_verdict(name))


def follow(moderation: Moderation, consumer: str = "a", **how: Any) -> Iterator[str]:
    verdicts = moderation.verdicts("backend", consumer, **({"idle_seconds": 0.2} | how))
    return (verdict.content_id for verdict in verdicts)


def pending(connection: redis.Redis) -> int:
    summary: Any = connection.xpending(STREAM, "backend")
    return int(summary["pending"])


def test_a_group_sees_every_verdict_once_from_the_oldest(moderation: Moderation, connection: redis.Redis) -> None:
    push(connection, "1", "2")
    assert list(follow(moderation)) == ["1", "2"]
    push(connection, "3")
    assert list(follow(moderation)) == ["3"]
    assert list(follow(moderation)) == []
    assert [verdict.content_id for verdict in moderation.verdicts("other", "a", idle_seconds=0.2)] == ["1", "2", "3"]


def test_members_of_a_group_share_the_verdicts(moderation: Moderation, connection: redis.Redis) -> None:
    names = [str(place) for place in range(250)]
    push(connection, *names)
    first = follow(moderation, "a")
    taken = [next(first)]
    rest = list(follow(moderation, "b"))
    taken += first
    assert sorted(taken + rest, key=int) == names
    assert rest


def test_a_verdict_is_acknowledged_when_the_next_is_asked_for(moderation: Moderation, connection: redis.Redis) -> None:
    push(connection, "1", "2")
    verdicts = follow(moderation)
    assert next(verdicts) == "1"
    assert pending(connection) == 2
    assert next(verdicts) == "2"
    assert pending(connection) == 1
    assert list(verdicts) == []
    assert pending(connection) == 0


def test_after_a_crash_a_consumer_gets_first_what_it_had_not_acknowledged(
    moderation: Moderation, connection: redis.Redis
) -> None:
    push(connection, *(str(place) for place in range(150)))
    crashed = follow(moderation)
    assert list(itertools.islice(crashed, 3)) == ["0", "1", "2"]
    del crashed
    push(connection, "new")
    assert list(follow(moderation)) == [*(str(place) for place in range(2, 150)), "new"]
    assert pending(connection) == 0


def test_a_consumer_takes_over_what_a_dead_one_left(moderation: Moderation, connection: redis.Redis) -> None:
    push(connection, "1", "2", "3")
    dead = moderation.verdicts("backend", "dead")
    assert next(dead).content_id == "1"
    assert list(follow(moderation, "heir")) == []
    assert list(follow(moderation, "heir", claim_seconds=0.1)) == ["1", "2", "3"]
    assert pending(connection) == 0
    dead.close()


def test_garbage_in_the_stream_is_passed_over_and_acknowledged(moderation: Moderation, connection: redis.Redis) -> None:
    newer = json.loads(make_verdict("x").to_json()) | {"schema_version": 2}
    for garbage in ({"verdict": "no json"}, {"other": "field"}, {"verdict": b"\xff"}, {"verdict": json.dumps(newer)}):
        connection.xadd(STREAM, garbage)  # type: ignore[arg-type]
        push(connection, "fine")
    assert list(follow(moderation)) == ["fine"] * 4
    assert pending(connection) == 0
    assert [verdict.content_id for verdict in read_verdicts(connection)] == ["fine"] * 4


def test_an_entry_that_the_stream_dropped_before_it_was_acknowledged_blocks_nobody(
    moderation: Moderation, connection: redis.Redis
) -> None:
    push(connection, "1", "2", "3")
    crashed = follow(moderation)
    assert next(crashed) == "1"
    del crashed
    connection.xtrim(STREAM, maxlen=1, approximate=False)
    assert list(follow(moderation)) == ["3"]
    assert pending(connection) == 0


def test_following_hears_of_what_arrives_meanwhile(moderation: Moderation, connection: redis.Redis) -> None:
    timer = threading.Timer(0.3, push, (connection, "late"))
    timer.start()
    verdicts = moderation.verdicts("backend", "a")
    assert next(verdicts).content_id == "late"
    verdicts.close()
    timer.join()


# -- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("last", "first"), [(None, 0), (0, 250), (1, 249), (120, 130), (250, 0), (999, 0)])
def test_reading_begins_with_the_last_ones_that_were_asked_for(
    connection: redis.Redis, last: int | None, first: int
) -> None:
    push(connection, *(str(place) for place in range(250)))
    found = [verdict.content_id for verdict in read_verdicts(connection, last=last)]
    assert found == [str(place) for place in range(first, 250)]


def test_reading_where_there_is_no_stream_finds_nothing(connection: redis.Redis) -> None:
    assert list(read_verdicts(connection)) == []
    assert list(read_verdicts(connection, last=3)) == []


@pytest.mark.parametrize(("before", "last", "found"), [([], None, ["late"]), (["1", "2"], 1, ["2", "late"])])
def test_following_without_a_group_goes_on_with_what_arrives(
    connection: redis.Redis, before: list[str], last: int | None, found: list[str]
) -> None:
    push(connection, *before)
    timer = threading.Timer(0.3, push, (connection, "late"))
    timer.start()
    verdicts = read_verdicts(connection, last=last, follow=True)
    assert [verdict.content_id for verdict in itertools.islice(verdicts, len(found))] == found
    timer.join()


# -- weight ----------------------------------------------------------------------------------------------------------


def test_the_client_brings_no_model_and_no_imaging_into_a_backend() -> None:
    heavy = ("torch", "transformers", "PIL", "numpy", "yaml", "httpx", "prometheus_client", "worker.app")
    code = f"import sys, worker.client; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
