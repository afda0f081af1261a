"""What a job leaves in Redis is what RQ's own worker leaves: every key, type, time to live and value."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from typing import Any

import pytest
import redis
import support_rq
from conformance_worker import AnyFunctionWorker
from rq import Queue, SimpleWorker, Worker
from rq.serializers import JSONSerializer, PickleSerializer
from rq.worker import BaseWorker
from support_rq_keys import dump

pytestmark = pytest.mark.thorough

#: Of each kind, so that a batch is one.
COPIES = 3


def make_worker(kind: type[BaseWorker], queues: list[str], connection: redis.Redis, serializer: Any) -> BaseWorker:
    return kind(queues, name="the-worker", connection=connection, serializer=serializer)


def run_burst(worker: type[BaseWorker], connection: redis.Redis, serializer: Any) -> None:
    make_worker(worker, ["jobs"], connection, serializer).work(burst=True, logging_level="CRITICAL")


def keys_after(worker: type[BaseWorker], kinds: Iterable[str], connection: redis.Redis, serializer: Any) -> Any:
    """Run jobs on an empty Redis and return what is left in it."""
    connection.flushall()
    queue = Queue("jobs", connection=connection, serializer=serializer)
    for copy in range(COPIES):
        for kind in kinds:
            support_rq.KINDS[kind](queue, f"{kind.replace(' ', '-').replace(',', '')}-{copy}")
    run_burst(worker, connection, serializer)
    return dump(connection, serializer)


serializers = pytest.mark.parametrize("serializer", [PickleSerializer, JSONSerializer], ids=["pickle", "json"])


@serializers
@pytest.mark.parametrize("kind", support_rq.KINDS)
def test_a_job_leaves_the_keys_that_it_leaves_with_a_stock_worker(
    kind: str, serializer: Any, connection: redis.Redis
) -> None:
    expected = keys_after(SimpleWorker, [kind], connection, serializer)
    assert keys_after(AnyFunctionWorker, [kind], connection, serializer) == expected


@serializers
def test_jobs_of_all_kinds_in_one_queue_leave_the_keys_that_they_leave_with_a_stock_worker(
    serializer: Any, connection: redis.Redis
) -> None:
    expected = keys_after(SimpleWorker, support_rq.KINDS, connection, serializer)
    assert keys_after(AnyFunctionWorker, support_rq.KINDS, connection, serializer) == expected


@serializers
def test_while_a_job_runs_the_keys_are_those_of_a_stock_worker_that_sends_heartbeats(
    serializer: Any, connection: redis.Redis
) -> None:
    def seen(worker: type[BaseWorker]) -> Any:
        connection.flushall()
        queue = Queue("jobs", connection=connection, serializer=serializer)
        queue.enqueue(support_rq.look_around, job_id="looks", ttl=3600)
        run_burst(worker, connection, serializer)
        return pickle.loads(connection.get(support_rq.SEEN))

    # SimpleWorker sends none, and promises longer for that.
    assert seen(AnyFunctionWorker) == seen(Worker)
