"""How a source's `Retry-After` gets from the child that fetched to the interval that RQ waits."""

from __future__ import annotations

import json
from typing import Any

import pytest
import redis
from rq.job import Job
from rq.serializers import JSONSerializer

from worker.errors import MAX_RETRY_AFTER_SECONDS, SourceRefused, SourceUnavailable
from worker.runtime.ends import RETRY_SECONDS, decide_retries
from worker.runtime.wire import error_as_json, error_from_json


def across(error: Exception) -> Any:
    """Send an error over the wire."""
    return error_from_json(json.loads(json.dumps(error_as_json(error))))


def job(retries_left: int | None = None, intervals: list[int] | None = None) -> Job:
    """Return a job that asks for retries; nothing is sent to Redis."""
    made = Job.create("worker.jobs.moderate", connection=redis.Redis(), serializer=JSONSerializer)
    made.retries_left, made.retry_intervals = retries_left, intervals
    return made


def waits(given: Job) -> list[int]:
    """Return how long RQ would wait before each retry that is left."""
    found = []
    while given.retries_left:
        found.append(given.get_retry_interval())
        given.retries_left -= 1
    return found


@pytest.mark.parametrize("seconds", [None, 7.5, MAX_RETRY_AFTER_SECONDS])
def test_when_to_ask_again_crosses_the_wire(seconds: float | None) -> None:
    error = across(SourceUnavailable("http://a.example answered 503", seconds))
    assert isinstance(error, SourceUnavailable)
    assert (str(error), error.retry_after_seconds) == ("http://a.example answered 503", seconds)


@pytest.mark.parametrize(
    ("said", "heeded"),
    [(10**9, MAX_RETRY_AFTER_SECONDS), (float("inf"), MAX_RETRY_AFTER_SECONDS), (float("nan"), None), (-1, None),
     (0, None), ("soon", None), ([], None), (None, None)],
)  # fmt: skip
def test_a_child_gone_bad_cannot_put_a_retry_off_for_ever(said: Any, heeded: float | None) -> None:
    error = error_from_json({"class": "SourceUnavailable", "text": "x", "retry_after_seconds": said})
    assert isinstance(error, SourceUnavailable)
    assert error.retry_after_seconds == heeded


def test_other_errors_cross_the_wire_as_before() -> None:
    assert isinstance(across(SourceRefused("no")), SourceRefused)


@pytest.mark.parametrize(
    ("retries", "intervals", "seconds", "expected"),
    [
        pytest.param(None, None, None, list(RETRY_SECONDS), id="nothing said"),
        pytest.param(None, None, 30.2, [31, 5, 15], id="said on the first try"),
        pytest.param(None, None, 0.5, [1, 5, 15], id="sooner than we would"),
        pytest.param(2, [1, 5, 15], 60, [60, 15], id="said on the second try"),
        pytest.param(3, [10], 60, [60, 10, 10], id="one interval for all retries"),
        pytest.param(2, None, 60, [60, 0], id="retries at once"),
        pytest.param(0, [1, 5, 15], 60, [], id="no retry left"),
    ],
)
def test_the_next_retry_waits_for_so_long_and_those_after_it_as_before(
    retries: int | None, intervals: list[int] | None, seconds: float | None, expected: list[int]
) -> None:
    given = job(retries, intervals)
    decide_retries(given, SourceUnavailable("later", seconds))
    assert waits(given) == expected


def test_a_producer_with_a_billion_retries_costs_no_memory() -> None:
    given = job(10**9, [1])
    decide_retries(given, SourceUnavailable("later", 60))
    assert given.get_retry_interval() == 60
    assert len(given.retry_intervals or []) <= 100
