"""RQ's `data` → the job that it asks for: one function, by keyword, of types that are known.

In: bytes of strangers. Out: a `ModerationJob`, or what can be said of one that is none. Whatever is named there is
compared, never imported, and nothing is unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NoReturn

from worker.errors import JobError, JobInvalid
from worker.pipeline import QueuedJob
from worker.records import MODERATE, ModerationJob, Subject, printable
from worker.runtime.hashes import inflate
from worker.runtime.wire import Task

#: Commas and brackets of one job: its metadata may hold so many, and an image in base64 has none. Each costs an object,
#: a hundred bytes for two of JSON.
_MAX_SIGNS = 300_000


def read_job(task: Task, max_bytes: int) -> QueuedJob[ModerationJob] | JobError:
    """Read a job as RQ's JSON serializer wrote it.

    Args:
        task: What the worker took from Redis.
        max_bytes: Of its data; more are not inflated.
    """
    try:
        (function, instance, arguments, keywords), repeated = _read_call(task.data, max_bytes)
        if function != MODERATE or instance is not None or arguments or not isinstance(keywords, dict):
            raise JobInvalid(f"this worker runs {MODERATE} with keyword arguments and nothing else")
        if repeated:
            raise JobInvalid("invalid job: " + "; ".join(f"{printable(name)} is given twice" for name in repeated))
        return QueuedJob(ModerationJob.from_arguments(keywords), task.job_id, task.queue_seconds)
    except JobError as error:
        return error


def read_subject(task: Task, max_bytes: int) -> Subject | None:
    """Return what can be said of a job that is not valid.

    Args:
        task: What the worker took from Redis.
        max_bytes: Of its data; more are not inflated.
    """
    try:
        (_, _, _, keywords), _ = _read_call(task.data, max_bytes)
        return Subject.salvage(keywords)
    except JobInvalid:
        return None


def _read_call(data: bytes, max_bytes: int) -> tuple[list[Any], list[str]]:
    """Return function, instance, arguments and keywords, and the names that are given twice, which are left out."""
    plain = inflate(data, max_bytes)
    if sum(plain.count(sign) for sign in (b",", b"[", b"{")) > _MAX_SIGNS:
        raise JobInvalid(f"invalid job: more than {_MAX_SIGNS} commas and brackets")
    repeated: list[str] = []

    def as_dict(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) == len(pairs):
            return found
        # Which of the two counts is a matter of taste, so another reader may have seen the other one.
        names = [name for name, _ in pairs]
        twice = sorted({name for name in found if names.count(name) > 1}) if len(names) <= _MOST_NAMES else ["a name"]
        repeated.extend(twice)
        return {name: value for name, value in found.items() if name not in twice}

    try:
        # As text: of bytes, `json` would guess the encoding, and let halves of characters pass.
        call = json.loads(plain.decode(), object_pairs_hook=as_dict, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise JobInvalid(f"invalid job: its data is not JSON ({type(error).__name__})") from error
    if not isinstance(call, list) or len(call) != 4:  # noqa: PLR2004 - function, instance, args, kwargs
        raise JobInvalid("invalid job: its data is not a call as RQ's JSON serializer writes it")
    return call, repeated[:_MOST_NAMES]


#: Of larger objects it is not looked up which name is given twice: that takes the square of their size.
_MOST_NAMES = 200


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
