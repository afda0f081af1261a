"""Takes uploads over from a stream that any backend can write to, and makes ordinary RQ jobs of them.

In: entries of `sluice:uploads`, hostile. Out: jobs on RQ's queues. An entry is acknowledged and deleted in the step
that enqueues its job, and a job's id follows from the upload, so nothing is lost and nothing is enqueued twice.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import redis
from redis.client import Pipeline as Transaction
from rq import Queue
from rq.job import Job

from worker.records import MODERATE, QUEUES
from worker.streams import HELD, NEW, Entry, join_group, read_group

log = logging.getLogger(__name__)

UPLOADS = "sluice:uploads"
#: What is no upload at all: nobody could tell whom a verdict is for.
DEAD = "sluice:uploads:dead"
#: Consumer group of the stream, and the one name of all its members: what one of them dies with, any other takes.
GROUP = "sluice:work"
_MEMBER = "work"
#: Entries beyond which the oldest dead ones are forgotten, about.
_MAX_DEAD = 1000
_READ_AT_ONCE = 100
_BLOCK_SECONDS = 1.0
#: Seconds between looks at what a process read that died before it could enqueue it.
_LOOK_SECONDS = 5.0
#: Until Redis is asked again after it did not answer.
_AGAIN_SECONDS = 1.0
_ID_DIGITS = 32
_SHOWN_CHARACTERS = 512

#: Told what came of entries: `taken`, `repeated` or `refused`, and of how many.
Count = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class _Upload:
    """An entry that is a job."""

    entry_id: bytes
    job_id: str
    queue: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Refused:
    """An entry that is none."""

    entry_id: bytes
    fields: dict[bytes, bytes]
    why: str


class Uploads(threading.Thread):
    """Takes uploads over until it is closed.

    Args:
        connection: A Redis that speaks bytes.
        count: Told what came of entries.
        burst: End when there is nothing left to take.
    """

    def __init__(self, connection: redis.Redis, count: Count, burst: bool = False) -> None:
        super().__init__(name="uploads", daemon=True)
        self._connection = connection
        self._count = count
        self._burst = burst
        self._queues = {name: Queue(name, connection=connection, serializer="json") for name in QUEUES.values()}
        self._closed = threading.Event()

    def close(self) -> None:
        """End soon."""
        self._closed.set()

    def run(self) -> None:
        """Take uploads over; where Redis is away, wait for it."""
        while not self._closed.is_set():
            try:
                self.take_all()
                if self._burst:
                    return
                self._wait_for_more()
            except redis.exceptions.NoPermissionError as error:
                log.warning("uploads are not taken over: %s; docs/security.md lists the rights that are needed", error)
                return
            except redis.RedisError as error:
                if not self._closed.is_set():
                    log.warning("uploads are not taken over (%s); trying again", error)
                self._closed.wait(_AGAIN_SECONDS)

    def take_all(self) -> None:
        """Take over what there is: first what was read and not enqueued, then what is new.

        Raises:
            redis.RedisError: Redis does not answer.
        """
        join_group(self._connection, UPLOADS, GROUP)
        for position in (HELD, NEW):
            while not self._closed.is_set() and (entries := self._read(position, None)):
                self._take(entries)

    def _wait_for_more(self) -> None:
        """Take over what arrives, until it is time to look back."""
        for _ in range(int(_LOOK_SECONDS / _BLOCK_SECONDS)):
            if self._closed.is_set():
                return
            self._take(self._read(NEW, _BLOCK_SECONDS))

    def _read(self, position: str, seconds: float | None) -> list[Entry]:
        return read_group(
            self._connection, UPLOADS, GROUP, _MEMBER, position, count=_READ_AT_ONCE, wait_seconds=seconds
        )

    def _take(self, entries: Sequence[Entry]) -> None:
        """Enqueue and acknowledge, in one transaction; what somebody else did meanwhile is not done again."""
        found = [_understand(entry_id, fields) for entry_id, fields in entries]
        if not found:
            return
        keys = [Job.key_for(one.job_id) for one in found if isinstance(one, _Upload)]
        with self._connection.pipeline() as transaction:
            while True:
                try:
                    if keys:
                        transaction.watch(*keys)
                    is_there = {key for key in keys if transaction.exists(key)}
                    counts = self._write(transaction, found, is_there)
                except redis.WatchError:
                    continue
                break
        for outcome, times in counts.items():
            self._count(outcome, times)

    def _write(self, transaction: Transaction, found: Sequence[_Upload | _Refused], is_there: set[str]) -> Counter[str]:
        outcomes: list[str] = []
        rows: dict[str, list[Any]] = {}
        taken = set(is_there)
        transaction.multi()
        for one in found:
            transaction.xack(UPLOADS, GROUP, one.entry_id)
        for one in found:
            transaction.xdel(UPLOADS, one.entry_id)
            if isinstance(one, _Refused):
                outcomes.append("refused")
                dead = one.fields | {b"entry": one.entry_id, b"why": one.why.encode()}
                transaction.xadd(DEAD, dead, maxlen=_MAX_DEAD, approximate=True)  # type: ignore[arg-type]
                log.error("entry %s of %s is no upload: %s; kept in %s", one.entry_id.decode(), UPLOADS, one.why, DEAD)
            elif (key := Job.key_for(one.job_id)) in taken:
                outcomes.append("repeated")
            else:
                taken.add(key)
                outcomes.append("taken")
                rows.setdefault(one.queue, []).append(_row(one))
        for name, jobs in rows.items():
            self._queues[name].enqueue_many(jobs, pipeline=transaction)
        acknowledged = transaction.execute()[: len(found)]
        # What another worker has acknowledged it has counted too.
        return Counter(outcome for outcome, is_ours in zip(outcomes, acknowledged, strict=True) if is_ours)


def job_id_of(content_id: str, policy: str | None) -> str:
    """Return the id of an upload's job: the same for the same upload under the same policy."""
    named = json.dumps([content_id, policy or ""])
    return "upload-" + hashlib.sha256(named.encode()).hexdigest()[:_ID_DIGITS]


def _understand(entry_id: bytes, fields: dict[bytes, bytes]) -> _Upload | _Refused:
    """Read an entry; what is wrong in a job is the worker's to say, in the upload's own verdict."""
    if not fields:
        return _Refused(entry_id, fields, "it was trimmed off the stream before it was taken over")
    try:
        arguments = json.loads(fields.get(b"job", b""))
    except (ValueError, RecursionError):
        return _Refused(entry_id, fields, "its field `job` is no JSON")
    if not isinstance(arguments, dict):
        return _Refused(entry_id, fields, "its field `job` is no JSON object")
    content_id, policy = arguments.get("content_id"), arguments.get("policy")
    if not isinstance(content_id, str) or not content_id:
        return _Refused(entry_id, fields, "it has no `content_id`")
    priority = fields.get(b"priority", b"normal").decode(errors="replace")
    if priority not in tuple(QUEUES):
        log.warning("upload %.100r asks for the priority %.20r; it is enqueued as normal", content_id, priority)
        priority = "normal"
    job_id = job_id_of(content_id, policy if isinstance(policy, str) else None)
    return _Upload(entry_id, job_id, QUEUES[priority], arguments)  # type: ignore[index]


def _row(upload: _Upload) -> Any:
    # RQ would describe a job by its arguments: URLs with signatures, images in base64.
    description = f"moderate {upload.arguments['content_id'][:_SHOWN_CHARACTERS]}"
    return Queue.prepare_data(MODERATE, kwargs=upload.arguments, job_id=upload.job_id, description=description)
