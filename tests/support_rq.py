"""Kinds of job that differ in what RQ writes for them, and the functions that they call."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from typing import Any

import redis
from rq import Callback, Queue, RateLimit, Repeat, Retry, get_current_job
from rq.group import Group
from rq.job import Dependency, Job
from support_rq_keys import dump

#: Where `look_around` leaves what it sees.
SEEN = "rq:mark:seen"

# -- what is called --------------------------------------------------------------------------------------------------


def greet(name: str = "you") -> str:
    """Return something small."""
    return f"hello, {name}"


def nothing() -> None:
    """Return None."""


def large() -> str:
    """Return 200 kB."""
    return "x" * 200_000


def strange() -> Any:
    """Return what no serializer takes."""
    return lambda: None


def fail(*_: Any) -> None:
    """Raise."""
    raise ValueError("as asked")


def fail_while_retries_remain() -> str:
    """Raise until the last attempt."""
    job = get_current_job()
    if job is not None and job.retries_left:
        raise ValueError("not yet")
    return "at last"


def ask_again() -> Any:
    """Return a wish to be run again, at once."""
    return Retry(max=1)


def ask_again_later() -> Any:
    """Return a wish to be run again in an hour."""
    return Retry(max=1, interval=3600)


def note() -> str:
    """Write into the job's meta."""
    job = get_current_job()
    assert job is not None
    job.meta["seen"] = True
    job.save_meta()
    return "noted"


def look_around() -> None:
    """Leave what Redis holds while this job runs."""
    job = get_current_job()
    assert job is not None
    job.connection.set(SEEN, pickle.dumps(dump(job.connection, job.serializer)))


def linger() -> None:
    """Take longer than any job may here."""
    time.sleep(10)


def say_success(job: Job, connection: redis.Redis, result: Any) -> None:
    """Leave a mark."""
    connection.set(f"rq:mark:success:{job.id}", str(result))


def say_failure(job: Job, connection: redis.Redis, kind: Any, value: Any, traceback: Any) -> None:
    """Leave a mark."""
    connection.set(f"rq:mark:failure:{job.id}", f"{kind.__name__}: {value}")


def say_stopped(job: Job, connection: redis.Redis) -> None:
    """Leave a mark."""
    connection.set(f"rq:mark:stopped:{job.id}", "stopped")


def choke(*_: Any) -> None:
    """Raise in a callback."""
    raise KeyError("callback")


# -- how it is enqueued ----------------------------------------------------------------------------------------------

#: Puts jobs on a queue, under ids that begin with the name that is given.
Enqueue = Callable[[Queue, str], None]


def _one(function: Callable[..., Any] | str, *arguments: Any, **options: Any) -> Enqueue:
    return lambda queue, name: _put(queue, name, function, *arguments, **options) and None


def _put(queue: Queue, job_id: str, function: Callable[..., Any] | str, *arguments: Any, **options: Any) -> Job:
    return queue.enqueue(function, *arguments, job_id=job_id, **options)


def _one_that_lingers(queue: Queue, name: str) -> None:
    # A real time-out takes a whole second: of all copies, the first one does.
    if name.endswith("-0"):
        _put(queue, name, linger, job_timeout=1)


def _with_dependents(queue: Queue, name: str, function: Callable[..., Any], allow_failure: bool) -> None:
    parent = _put(queue, f"{name}-parent", function)
    for child in ("first", "second"):
        dependency = Dependency([parent], allow_failure=allow_failure)
        _put(queue, f"{name}-{child}", greet, child, depends_on=dependency)
    grandchild = Dependency([f"{name}-first", f"{name}-second"], allow_failure=allow_failure)
    _put(queue, f"{name}-grandchild", nothing, depends_on=grandchild)


def _group(queue: Queue, name: str, **options: Any) -> None:
    jobs = [
        Queue.prepare_data(function, job_id=f"{name}-{number}", **options)
        for number, function in enumerate((greet, nothing, fail))
    ]
    Group.create(connection=queue.connection, name=name).enqueue_many(queue, jobs)


def _rate_limited(queue: Queue, name: str) -> None:
    for number in range(3):
        _put(queue, f"{name}-{number}", greet, rate_limit=RateLimit(key=name, concurrency=1))


#: Every kind by its name.
KINDS: dict[str, Enqueue] = {
    "plain": _one(greet, "world"),
    "result for ever": _one(greet, result_ttl=-1),
    "result for 90 seconds": _one(greet, result_ttl=90),
    "no result kept": _one(greet, result_ttl=0),
    "no result kept, nothing returned": _one(nothing, result_ttl=0),
    "nothing returned": _one(nothing),
    "large result": _one(large),
    "result that cannot be written": _one(strange),
    "time to live": _one(greet, ttl=3600),
    "time to live, fails": _one(fail, ttl=3600),
    "time to live, retried in an hour": _one(fail, ttl=3600, retry=Retry(max=1, interval=3600)),
    "time to live, for ever after": _one(greet, ttl=3600, result_ttl=-1),
    "no time-out": _one(greet, job_timeout=-1),
    "short time-out": _one(greet, job_timeout=5),
    "exceeds its time": _one_that_lingers,
    "description and meta": _one(greet, description="as told", meta={"trace": "abc"}),
    "writes its meta": _one(note, meta={"trace": "abc"}),
    "fails": _one(fail),
    "fails with arguments": _one(fail, 1, "two", [3]),
    "failure not kept": _one(fail, failure_ttl=0),
    "failure for 90 seconds": _one(fail, failure_ttl=90),
    "failure for ever": _one(fail, failure_ttl=-1),
    "unknown function": _one("support_rq.absent"),
    "unknown module": _one("absent_module.absent"),
    "retry until it works": _one(fail_while_retries_remain, retry=Retry(max=2)),
    "retry in vain": _one(fail, retry=Retry(max=2)),
    "retry in vain, at the front": _one(fail, retry=Retry(max=2, enqueue_at_front=True)),
    "retry in an hour": _one(fail, retry=Retry(max=3, interval=[3600, 60])),
    "asks to be run again": _one(ask_again),
    "asks to be run again later": _one(ask_again_later),
    "callbacks, succeeds": _one(
        greet, on_success=Callback(say_success), on_failure=Callback(say_failure), on_stopped=Callback(say_stopped)
    ),
    "callbacks, fails": _one(
        fail, on_success=Callback(say_success), on_failure=Callback(say_failure), on_stopped=Callback(say_stopped)
    ),
    "callbacks, retried": _one(
        fail_while_retries_remain,
        retry=Retry(max=1),
        on_success=Callback(say_success),
        on_failure=Callback(say_failure),
    ),
    "callback with a time-out": _one(greet, on_success=Callback(say_success, timeout=20)),
    "success callback that raises": _one(greet, on_success=Callback(choke)),
    "failure callback that raises": _one(fail, on_failure=Callback(choke)),
    "success callback, no result kept": _one(greet, result_ttl=0, on_success=Callback(say_success)),
    "dependents": lambda queue, name: _with_dependents(queue, name, greet, allow_failure=False),
    "dependents of one that fails": lambda queue, name: _with_dependents(queue, name, fail, allow_failure=False),
    "dependents that allow failure": lambda queue, name: _with_dependents(queue, name, fail, allow_failure=True),
    "repeats at once": _one(greet, repeat=Repeat(times=2)),
    "repeats in an hour": _one(greet, repeat=Repeat(times=2, interval=3600)),
    "repeats, but fails": _one(fail, repeat=Repeat(times=2)),
    "group": _group,
    "group, no result kept": lambda queue, name: _group(queue, name, result_ttl=0),
    "unique": _one(greet, unique=True),
    "unique, no result kept": _one(greet, unique=True, result_ttl=0),
    "rate limit": _rate_limited,
}
