"""All that RQ keeps in Redis, decoded, and free of what differs between two runs of the same jobs."""

from __future__ import annotations

import base64
import json
import re
import time
import zlib
from collections.abc import Callable
from typing import Any

import redis

#: Seconds by which two runs may differ in what counts down or is a moment to come.
TOLERANCE_SECONDS = 8.0

#: What a value becomes that is never the same twice.
MOMENT, IDENTITY, DURATION = "<moment>", "<identity>", "<duration>"
_MOMENTS = {
    "created_at", "enqueued_at", "started_at", "ended_at", "last_heartbeat", "birth", "death",
    "execution_started_at", "execution_ended_at",
}  # fmt: skip
_UNSERIALIZABLE = b"Unserializable return value"
_IDENTITIES = {"execution_id", "pid", "current_job", "hostname", "ip_address"}


class Near:
    """A number of seconds that equals any other that is near."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Near) and abs(self.seconds - other.seconds) <= TOLERANCE_SECONDS

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"~{self.seconds:.0f}s"


def dump(connection: redis.Redis, serializer: Any) -> dict[str, dict[str, Any]]:
    """Return key → type, time to live and value, of every key of RQ.

    Args:
        connection: A Redis with nothing else in it; one that holds a key of somebody else fails.
        serializer: What the jobs were written with.
    """
    loads = serializer.loads
    # What a worker of ours holds is noted beside RQ's keys, for as long as it holds it.
    ours = (b"sluice:held:", b"sluice:leases")
    keys = sorted(key.decode() for key in connection.scan_iter() if not key.startswith(ours))
    assert all(key.startswith("rq:") for key in keys), f"not RQ's: {keys}"
    found: dict[str, dict[str, Any]] = {}
    for key in keys:
        name = _named(key)
        while name in found:
            name += " and another"
        found[name] = _entry(connection, key, loads)
    return found


def _named(text: str) -> str:
    """Return a key or a member without what is random in it: the id of an execution."""
    return re.sub(r"\b[0-9a-f]{16,}\b", IDENTITY, text)


def _entry(connection: redis.Redis, key: str, loads: Callable[[bytes], Any]) -> dict[str, Any]:
    kind = connection.type(key).decode()
    left = connection.pttl(key)
    return {"type": kind, "ttl": left if left < 0 else Near(left / 1000), "value": _READ[kind](connection, key, loads)}


def _hash(connection: redis.Redis, key: str, loads: Callable[[bytes], Any]) -> dict[str, Any]:
    fields = connection.hgetall(key)
    return {name.decode(): _field(name.decode(), value, loads) for name, value in sorted(fields.items())}


def _field(name: str, value: bytes, loads: Callable[[bytes], Any]) -> Any:
    if name in _MOMENTS:
        return MOMENT if value else ""
    decode: dict[str, Callable[[bytes], Any]] = {
        "data": lambda value: loads(zlib.decompress(value)),
        "meta": loads,
        # Of a result that the serializer refuses, RQ writes a sentence.
        "result": lambda value: value if value == _UNSERIALIZABLE else loads(value),
        "exc_info": lambda value: last_line(zlib.decompress(value)),
        "exc_string": lambda value: last_line(zlib.decompress(base64.b64decode(value))),
        "return_value": lambda value: loads(base64.b64decode(value)),
        "total_working_time": lambda value: DURATION if float(value) > 0 else value.decode(),
        "webhooks": json.loads,
    }
    if name in decode:
        return _plain(decode[name](value))
    return IDENTITY if name in _IDENTITIES else _named(_plain(value))


def last_line(traceback: bytes) -> str:
    """Return what a traceback ends with: where it went through is nobody's contract."""
    return traceback.decode().strip().rpartition("\n")[2]


def _plain(value: Any) -> Any:
    """Return a value whose likes compare: an object that a job returned is told by its class."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return value if value is None or isinstance(value, str | int | float | bool) else repr(type(value))


def _sorted_set(connection: redis.Redis, key: str, _: Callable[[bytes], Any]) -> list[tuple[str, Any]]:
    members = connection.zrange(key, 0, -1, withscores=True)
    # -1 and infinity are for ever; all else is a moment.
    found = [
        (_named(member.decode()), score if score < 0 or score == float("inf") else Near(score - time.time()))
        for member, score in members
    ]
    return sorted(found, key=lambda pair: pair[0])


def _stream(connection: redis.Redis, key: str, loads: Callable[[bytes], Any]) -> list[dict[str, Any]]:
    entries = connection.xrange(key)
    return [
        {name.decode(): _field(name.decode(), fields[name], loads) for name in sorted(fields)} for _, fields in entries
    ]


_READ: dict[str, Callable[[redis.Redis, str, Callable[[bytes], Any]], Any]] = {
    "string": lambda connection, key, _: connection.get(key).decode(),
    "list": lambda connection, key, _: [member.decode() for member in connection.lrange(key, 0, -1)],
    "set": lambda connection, key, _: sorted(_named(member.decode()) for member in connection.smembers(key)),
    "zset": _sorted_set,
    "hash": _hash,
    "stream": _stream,
}
