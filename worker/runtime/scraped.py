"""What Prometheus is told at the moment it asks: queues, streams, Redis' memory, the memory of the worker's processes.

In: Redis, and the system. Out: values of `worker.metrics.SCRAPED`. Never an error: what cannot be read is left out.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import redis
from rq import Queue
from rq.job import Job
from rq.registry import FailedJobRegistry, StartedJobRegistry
from rq.utils import utcparse

from worker.ledger.entry import LEDGER
from worker.metrics import Scraped
from worker.records import seconds_since
from worker.runtime.uploads import UPLOADS
from worker.settings import Settings
from worker.sinks.stream import STREAM

log = logging.getLogger(__name__)

#: Groups of which the lag is shown; whoever reads the stream names them.
_MAX_GROUPS = 16
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")

_Found = defaultdict[str, dict[tuple[str, ...], float]]


def read_all(settings: Settings, connection: redis.Redis, horse_pid: int) -> Scraped:
    """Read everything.

    Args:
        settings: Names of queues, caps of streams.
        connection: Without patience.
        horse_pid: 0 where there is none.
    """
    found: _Found = defaultdict(dict)
    _read_memory(found, horse_pid)
    try:
        _read_queues(found, settings.queues, connection)
        _read_streams(found, settings, connection)
        found["sluice_redis_up"][()] = 1
    except redis.RedisError as error:
        found["sluice_redis_up"][()] = 0
        log.warning("queues and streams not read: %s", error)
    return found


def _ask(connection: redis.Redis, *commands: Sequence[Any]) -> list[Any]:
    """Return the answers to commands, in one round trip; None where Redis refuses one."""
    with connection.pipeline(transaction=False) as pipeline:
        for command in commands:
            pipeline.execute_command(*command)
        answers = pipeline.execute(raise_on_error=False)
    for answer in answers:
        if isinstance(answer, redis.RedisError) and not isinstance(answer, redis.ResponseError):
            raise answer
    return [None if isinstance(answer, redis.ResponseError) else answer for answer in answers]


def _read_queues(found: _Found, names: Sequence[str], connection: redis.Redis) -> None:
    queues = [Queue(name, connection=connection, serializer="json") for name in names]
    answers = _ask(
        connection,
        *(["LINDEX", queue.key, 0] for queue in queues),
        *(["LLEN", queue.key] for queue in queues),
        *(["ZCARD", StartedJobRegistry(queue=queue).key] for queue in queues),
        *(["ZCARD", FailedJobRegistry(queue=queue).key] for queue in queues),
    )
    firsts, *counts = (answers[start : start + len(queues)] for start in range(0, len(answers), len(queues)))
    for metric, found_there in zip(("jobs", "running_jobs", "dead_jobs"), counts, strict=True):
        for name, count in zip(names, found_there, strict=True):
            if count is not None:
                found[f"sluice_queue_{metric}"][(name,)] = count
    # One field of a job, for its arguments may be an image.
    enqueued = _ask(
        connection, *(["HGET", Job.key_for((first or b"").decode(errors="replace")), "enqueued_at"] for first in firsts)
    )
    for name, moment in zip(names, enqueued, strict=True):
        found["sluice_queue_oldest_seconds"][(name,)] = _seconds_since(moment)


def _seconds_since(moment: bytes | None) -> float:
    try:
        return seconds_since(utcparse(moment.decode())) if moment else 0.0
    except ValueError:
        # Not of RQ's making: the worker will say so when it takes the job.
        return 0.0


def _read_streams(found: _Found, settings: Settings, connection: redis.Redis) -> None:
    streams = {"verdicts": (STREAM, settings.verdict_stream_maxlen), "ledger": (LEDGER, settings.ledger_maxlen)}
    *lengths, uploads, groups, memory = _ask(
        connection,
        *(["XLEN", key] for key, _ in streams.values()),
        ["XLEN", UPLOADS], ["XINFO GROUPS", STREAM], ["INFO", "memory"],
    )  # fmt: skip
    for (name, (_, most)), entries in zip(streams.items(), lengths, strict=True):
        if entries is not None and most:
            found["sluice_stream_max_entries"][(name,)] = most
            found["sluice_stream_entries"][(name,)] = entries
    if uploads is not None:
        found["sluice_stream_entries"][("uploads",)] = uploads
    for group in (groups or [])[:_MAX_GROUPS]:
        if group.get("lag") is not None:
            found["sluice_stream_lag"][(group["name"].decode(),)] = group["lag"]
    if memory is not None:
        found["sluice_redis_memory_bytes"][()] = memory["used_memory"]
        found["sluice_redis_memory_limit_bytes"][()] = memory["maxmemory"]


def _read_memory(found: _Found, horse_pid: int) -> None:
    memory = found["sluice_memory_bytes"]
    try:
        memory[("worker",)] = psutil.Process().memory_info().rss
        if horse_pid:
            horse = psutil.Process(horse_pid)
            memory[("horse",)] = horse.memory_info().rss
            memory[("decoders",)] = sum(decoder.memory_info().rss for decoder in horse.children())
    except psutil.Error as error:  # it has just ended
        log.debug("memory not read: %s", error)
    found["sluice_memory_limit_bytes"][()] = _memory_limit_bytes()


def _memory_limit_bytes() -> int:
    whole = int(psutil.virtual_memory().total)
    try:
        return min(whole, int(_CGROUP_LIMIT.read_text()))
    except (OSError, ValueError):  # no such limit, or "max"
        return whole
