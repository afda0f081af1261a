"""A job's hash in Redis, which whoever reaches Redis may have written: what of it can be heeded.

In: fields as they lie there. Out: those that RQ can read and that lie within bounds, and the names of the others. Never
more inflated than asked for, never a name imported.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Mapping
from datetime import datetime

from rq.job import JobStatus

from worker.errors import JobInvalid

#: Longest time that RQ is told to wait for, or to keep something: what Redis and dates can hold ends far behind it.
_TEN_YEARS_SECONDS = 315_360_000
#: Retries or repeats that one job may ask for, and entries of a list.
_MOST = 10_000
#: Bytes of a job beside its image: content id, metadata, policy.
_MAX_ENVELOPE_BYTES = 1024 * 1024
#: Inflated bytes of a traceback that RQ kept.
_MAX_TRACEBACK_BYTES = 1024 * 1024

_NUMBER = re.compile(rb"-?[0-9]{1,9}")
_MOMENT = re.compile(rb"[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?Z")
_STATUSES = frozenset(status.value.encode() for status in JobStatus)

#: Says whether a value can be heeded.
_Check = Callable[[bytes], bool]


def max_data_bytes(image_max_bytes: int) -> int:
    """Return how large a job's data may be: an image in base64, and what lies around it."""
    return image_max_bytes * 4 // 3 + _MAX_ENVELOPE_BYTES


def heeded(raw: Mapping[bytes, bytes]) -> tuple[dict[bytes, bytes], list[bytes]]:
    """Return the fields that can be heeded, and the names of those that are as good as absent.

    RQ reads a hash as a whole or not at all: one date that is none, and its scheduler, its registries and every
    dashboard stop at this job.

    Args:
        raw: The hash. `data` is not looked at.
    """
    fields, refused = {}, []
    for name, value in raw.items():
        check = _CHECKS.get(name)
        # Of most fields RQ takes the empty string for absent.
        is_right = _is_text(name) if check is None else check(value) or (not value and name not in _NEVER_EMPTY)
        if is_right:
            fields[name] = value
        else:
            refused.append(name)
    return fields, refused


def inflate(data: bytes, max_bytes: int) -> bytes:
    """Return what RQ compressed, or wrote as it is.

    Args:
        data: RQ's `data`, hostile: a few kilobytes may hold gigabytes.
        max_bytes: More are not inflated.

    Raises:
        JobInvalid: It holds more, or ends too early, or goes on behind its end.
    """
    if data[:1] != b"\x78":
        plain = data
    else:
        unpacker = zlib.decompressobj()
        try:
            plain = unpacker.decompress(data, max_bytes + 1)
        except zlib.error as error:
            raise JobInvalid("invalid job: its data is not what RQ compresses") from error
        if len(plain) <= max_bytes and (not unpacker.eof or unpacker.unused_data):
            raise JobInvalid("invalid job: its data is cut short, or more follows it")
    if len(plain) > max_bytes:
        raise JobInvalid(f"invalid job: more than {max_bytes} bytes")
    return plain


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_moment(value: bytes) -> bool:
    if not _MOMENT.fullmatch(value):
        return False
    try:
        datetime.fromisoformat(value.decode())
    except ValueError:
        return False
    return True


def _between(least: int, most: int) -> _Check:
    def check(value: bytes) -> bool:
        return _NUMBER.fullmatch(value) is not None and least <= int(value) <= most

    return check


def _list_of(is_right: Callable[[object], bool]) -> _Check:
    def check(value: bytes) -> bool:
        try:
            found = json.loads(value.decode())
        except (ValueError, RecursionError):
            return False
        return isinstance(found, list) and 0 < len(found) <= _MOST and all(is_right(one) for one in found)

    return check


def _is_wait(value: object) -> bool:
    return type(value) is int and 0 <= value <= _TEN_YEARS_SECONDS


def _is_id(value: object) -> bool:
    return isinstance(value, str) and value.isascii()


def _is_traceback(value: bytes) -> bool:
    try:
        return _is_text(inflate(value, _MAX_TRACEBACK_BYTES))
    except JobInvalid:
        return False


def _is_meta(value: bytes) -> bool:
    try:
        return isinstance(json.loads(value.decode()), dict)
    except (ValueError, RecursionError):
        # RQ lets what it cannot read lie there; other serializers are none of ours.
        return True


def _checks() -> dict[bytes, _Check]:
    kinds: dict[_Check, str] = {
        _is_moment: "created_at enqueued_at started_at ended_at last_heartbeat",
        _is_text: "origin worker_name description group_id rate_limit_key dependency_id"
        " success_callback_name failure_callback_name stopped_callback_name",
        # -1: for ever.
        _between(-1, _TEN_YEARS_SECONDS): "timeout result_ttl failure_ttl ttl"
        " success_callback_timeout failure_callback_timeout stopped_callback_timeout",
        _between(0, 1): "allow_dependency_failures enqueue_at_front enqueue_at_front_on_retry",
        _between(0, _MOST): "number_of_retries retries_left repeats_left sluice_deaths",
        _between(1, _TEN_YEARS_SECONDS): "rate_limit_concurrency",
        _list_of(_is_wait): "retry_intervals repeat_intervals",
        _list_of(_is_id): "dependency_ids",
        _STATUSES.__contains__: "status",
        _is_traceback: "exc_info",
        _is_meta: "meta",
    }
    return {name.encode(): check for check, names in kinds.items() for name in names.split()}


_CHECKS = _checks()
_NEVER_EMPTY = frozenset(
    {b"success_callback_timeout", b"failure_callback_timeout", b"stopped_callback_timeout", b"enqueue_at_front"}
)
