"""Random and half-right jobs: each is a job or one line that says why not; of its hash is heeded what RQ can read."""

from __future__ import annotations

import json
import sys
import zlib
from contextlib import suppress
from typing import Any

import redis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from rq.job import Job
from rq.serializers import JSONSerializer

from worker.errors import JobInvalid
from worker.pipeline import QueuedJob
from worker.runtime.calls import read_job, read_subject
from worker.runtime.claims import Claim
from worker.runtime.ends import RETRY_SECONDS, decide_retries
from worker.runtime.guarded_job import Callbacks, guarded
from worker.runtime.hashes import heeded, inflate
from worker.runtime.wire import Task

#: The same examples in every run, so that a change alone can break it.
fixed = settings(
    derandomize=True, max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)
MAX_BYTES = 100_000
#: Never connected to.
NOWHERE = redis.Redis(port=1)

text = st.text(st.characters(exclude_categories=()), max_size=20)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)
images = st.dictionaries(st.sampled_from(["url", "s3", "blob", "base64", "path", "size"]), anything, max_size=2) | (
    st.builds(lambda kind, value: {kind: value}, st.sampled_from(["url", "path", "base64", "blob"]), text)
)
keywords = st.fixed_dictionaries(
    {},
    optional={
        "content_id": text | anything,
        "image": images | anything,
        "policy": st.sampled_from(["default", "default@2", None]) | anything,
        "metadata": st.dictionaries(text, text, max_size=3) | anything,
        "webhook": st.just("https://example.org/hook") | anything,
        "priority": anything,
    },
)
functions = st.sampled_from(["worker.jobs.moderate", "os.system", "antigravity.x", "this", None]) | anything
calls = st.builds(
    lambda function, instance, arguments, keywords: [function, instance, arguments, keywords],
    functions,
    st.none() | anything,
    st.just([]) | anything,
    keywords | anything,
)


@st.composite
def mangled(draw: st.DrawFn) -> bytes:
    """A call as RQ writes it, some of its bytes changed, before or after it was compressed."""
    data = json.dumps(draw(calls), ensure_ascii=draw(st.booleans())).encode(errors="surrogatepass")
    for is_packed in (False, True):
        if is_packed and draw(st.booleans()):
            data = zlib.compress(data)
        for _ in range(draw(st.integers(0, 2))):
            place = draw(st.integers(0, max(0, len(data) - 1)))
            data = data[:place] + draw(st.binary(max_size=3)) + data[place + draw(st.integers(0, 3)) :]
    return data


def check(data: bytes) -> None:
    """Read a job, and hold what comes out to what must be true of every one."""
    modules = set(sys.modules)
    task = Task("job-1", data, 0.0)
    job, subject = read_job(task, MAX_BYTES), read_subject(task, MAX_BYTES)
    if isinstance(job, QueuedJob):
        assert subject is not None
        assert (job.job.content_id, job.job.policy) == (subject.content_id, subject.policy)
        job.job.model_dump_json().encode()
    else:
        assert isinstance(job, JobInvalid)
        assert str(job).isprintable()
        assert len(str(job)) < 20_000
    if subject is not None:
        subject.model_dump_json().encode()
        assert subject.content_id.isprintable() or not any(ord(sign) < 32 for sign in subject.content_id)
    assert {"antigravity", "this"}.isdisjoint(set(sys.modules) - modules)


@fixed
@given(calls)
def test_a_call_of_anything_is_a_job_or_one_line(call: list[Any]) -> None:
    check(zlib.compress(json.dumps(call).encode()))


@fixed
@given(mangled())
@example(b"x")
@example(b"x\x9c")
@example(zlib.compress(b""))
@example(b"[" * 50_000)
def test_bytes_of_any_kind_are_a_job_or_one_line(data: bytes) -> None:
    check(data)


@fixed
@given(st.binary(max_size=200), st.integers(1, 5_000), st.integers(0, 2))
def test_nothing_is_inflated_past_its_limit(block: bytes, times: int, packings: int) -> None:
    data = block * times
    for _ in range(packings):
        data = zlib.compress(data)
    with suppress(JobInvalid):
        assert len(inflate(data, MAX_BYTES)) <= MAX_BYTES


NAMES = [
    "created_at", "enqueued_at", "started_at", "ended_at", "last_heartbeat", "origin", "worker_name", "description",
    "group_id", "timeout", "result_ttl", "failure_ttl", "ttl", "status", "success_callback_name", "webhooks",
    "success_callback_timeout", "failure_callback_timeout", "stopped_callback_timeout", "dependency_ids", "exc_info",
    "dependency_id", "allow_dependency_failures", "enqueue_at_front", "enqueue_at_front_on_retry", "meta", "result",
    "number_of_retries", "retries_left", "retry_intervals", "repeats_left", "repeat_intervals", "rate_limit_key",
    "rate_limit_concurrency", "sluice_deaths", "sluice_is_heavy",
]  # fmt: skip
NUMBERS = [b"0", b"1", b"-1", b"3600", b"1e30", b"nan", b"inf", b"0x10", b"1_000", b" 7", b"+7", b"9" * 30, b"9" * 5000]
LISTS = [b"[]", b"[1, 5]", b"[true]", b"[1e999]", b"{}", b'["a"]', b'["\\ud800"]', b"[[", b"null", b"[" * 50_000]
MOMENTS = [b"2026-01-01T00:00:00.000000Z", b"2026-01-01T00:00:00Z", b"0001-01-01T00:00:00.0Z", b"2026-02-30T00:00:00Z",
           b"2026-01-01T00:00:00", "２026-01-01T00:00:00Z".encode()]  # fmt: skip
PACKED = [zlib.compress(b"text"), zlib.compress(b"\xff"), zlib.compress(b" " * 10_000_000), b"x\x9c", b"x"]
values = st.sampled_from([*NUMBERS, *LISTS, *MOMENTS, *PACKED, b"", b"queued", b"finished"]) | st.binary(max_size=30)
hashes = st.dictionaries(st.sampled_from(NAMES).map(str.encode) | st.binary(max_size=5), values, max_size=12)


@fixed
@given(hashes, st.sampled_from([b"[]", b"", zlib.compress(b"[]"), zlib.compress(zlib.compress(b"[]"))]))
def test_rq_can_read_what_is_heeded_of_a_hash_and_redis_can_hold_it(raw: dict[bytes, bytes], data: bytes) -> None:
    fields, refused = heeded(raw | {b"data": data})
    assert fields.keys() | refused == raw.keys() | {b"data"}
    # As RQ itself reads it, in its scheduler and in every dashboard.
    job = Job("job-1", connection=NOWHERE, serializer=JSONSerializer)
    job.restore(fields)
    for seconds in (job.timeout, job.result_ttl, job.failure_ttl, job.ttl):
        assert seconds is None or -1 <= seconds <= 2**31
    job.to_dict()
    decide_retries(job, None)
    if job.should_retry:
        job.retry_intervals = job.retry_intervals or list(RETRY_SECONDS)
        assert 0 <= job.get_retry_interval() <= 2**31
    # As the worker reads it, from the hash as it is.
    guarded(Job, Callbacks(()), MAX_BYTES)("job-1", connection=NOWHERE, serializer=JSONSerializer).restore(
        raw | {b"data": data}
    )


@fixed
@given(hashes)
def test_every_hash_makes_a_claim(raw: dict[bytes, bytes]) -> None:
    claim = Claim.from_hash("job-1", "moderation", "execution-1", raw | {b"data": b"[]"}, 1_700_000_000.0)
    assert claim.timeout_seconds >= 1
    assert claim.queue_seconds >= 0
    assert claim.deaths >= 0
