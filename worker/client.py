"""What a backend imports: enqueue uploads, wait for verdicts, follow them.

In: URLs, bytes or paths with the platform's own ids. Out: RQ jobs and `Verdict`s. Light: no torch, no PIL, no model.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

import redis
from pydantic import ValidationError
from rq import Queue
from rq.job import Job
from rq.results import Result

from worker.connection import open_redis
from worker.errors import JobInvalid, SluiceError
from worker.records import MODERATE, QUEUES, ModerationJob, Priority, Verdict
from worker.streams import HELD, NEW, join_group, read_group

#: How long uploaded bytes stay in Redis.
BLOB_TTL_SECONDS = 86_400

_BLOB = "sluice:blob:"
_STREAM = "sluice:verdicts"
_READ_AT_ONCE = 100
_BLOCK_SECONDS = 2.0
_POLL_SECONDS = 0.02


class VerdictTimeout(SluiceError, TimeoutError):
    """No verdict came in time; the job goes on."""


class Moderation:
    """Enqueues uploads and reads verdicts.

    Args:
        connection: A Redis that speaks bytes (`decode_responses` off).
    """

    def __init__(self, connection: redis.Redis) -> None:
        self.connection = connection
        self._queues = {
            priority: Queue(name, connection=connection, serializer="json") for priority, name in QUEUES.items()
        }

    @classmethod
    def from_url(cls, url: str = "redis://127.0.0.1:6379/0") -> Moderation:
        """Connect to a Redis by its URL; nothing is sent yet."""
        return cls(open_redis(url))

    def enqueue(
        self,
        *,
        content_id: str,
        url: str | None = None,
        data: bytes | None = None,
        path: str | None = None,
        policy: str | None = None,
        priority: Priority = "normal",
        metadata: Mapping[str, str] | None = None,
        webhook: str | None = None,
    ) -> Job:
        """Ask for a verdict on one image.

        Args:
            content_id: The platform's own id of the upload.
            url: Where the worker fetches the image; give exactly one of url, data and path.
            data: The image's bytes; kept in Redis for `BLOB_TTL_SECONDS`.
            path: A file under the workers' SLUICE_PATH_ROOT.
            policy: `id` or `id@version`; the workers' default without one.
            priority: high, normal or bulk.
            metadata: A flat object of strings, echoed in the verdict.
            webhook: A URL that overrides the workers' setting.

        Returns:
            The RQ job; its return value will be the verdict as plain JSON.

        Raises:
            JobInvalid: An argument is wrong.
        """
        upload = {
            "content_id": content_id, "url": url, "data": data, "path": path, "policy": policy,
            "priority": priority, "metadata": metadata, "webhook": webhook,
        }  # fmt: skip
        return self.enqueue_many([upload])[0]

    def enqueue_many(self, uploads: Iterable[Mapping[str, Any]]) -> list[Job]:
        """Ask for verdicts on many images, in one round trip for each priority and one for all bytes.

        Args:
            uploads: The keyword arguments of `enqueue`, one mapping an upload.

        Returns:
            The RQ jobs, in order.

        Raises:
            JobInvalid: An argument is wrong; nothing was enqueued.
        """
        prepared = [_prepare(dict(upload)) for upload in uploads]
        blobs = {digest: data for _, _, digest, data in prepared if digest and data is not None}
        if blobs:
            with self.connection.pipeline(transaction=False) as pipe:
                for digest, data in blobs.items():
                    pipe.set(_BLOB + digest, data, ex=BLOB_TTL_SECONDS)
                pipe.execute()
        jobs: list[Job | None] = [None] * len(prepared)
        for priority, queue in self._queues.items():
            places = [place for place, (its, *_) in enumerate(prepared) if its == priority]
            rows = [
                Queue.prepare_data(
                    MODERATE,
                    kwargs=prepared[place][1],
                    # RQ would describe a job by its arguments: URLs with signatures, images in base64.
                    description=f"moderate {prepared[place][1]['content_id']}",
                )
                for place in places
            ]
            for place, job in zip(places, queue.enqueue_many(rows) if rows else [], strict=True):
                jobs[place] = job
        return cast("list[Job]", jobs)

    def wait(self, job: Job, timeout_seconds: float = 60.0) -> Verdict:
        """Wait for the verdict of a job, whichever way the job ends.

        Args:
            job: What `enqueue` returned.
            timeout_seconds: How long to wait.

        Raises:
            VerdictTimeout: No verdict came in time; the job goes on.
            SluiceError: The job ended without one: not even its `content_id` could be read.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            left = max(0.0, deadline - time.monotonic())
            # RQ blocks for whole seconds, or not at all.
            result = job.latest_result(timeout=int(min(left, _BLOCK_SECONDS)))
            if result is not None and result.type is not Result.Type.RETRIED:
                return self._verdict_in(result, job)
            if not left:
                break
            time.sleep(min(left, _POLL_SECONDS))
        # RQ keeps a return value for some minutes only; the stream keeps verdicts for longer.
        verdict = self._find(job)
        if verdict is None:
            raise VerdictTimeout(
                f"no verdict on job {job.id} within {timeout_seconds:g} s; is a worker running (rq info)?"
            )
        return verdict

    def verdicts(
        self, group: str, consumer: str, *, idle_seconds: float | None = None, claim_seconds: float = 60.0
    ) -> Iterator[Verdict]:
        """Follow the verdicts as a member of a consumer group; each is acknowledged when the next is asked for.

        Args:
            group: Each group sees every verdict once, from the oldest that Redis keeps.
            consumer: This member's name; after a crash it gets first what it had not acknowledged.
            idle_seconds: End when nothing came for so long; None follows for ever.
            claim_seconds: Take over what another member has left unacknowledged for so long.

        Yields:
            Verdicts, at least once: drop repeats by `verdict_id`.
        """
        join_group(self.connection, _STREAM, group)
        last_seen = time.monotonic()
        start = HELD
        block_seconds = _BLOCK_SECONDS if idle_seconds is None else min(_BLOCK_SECONDS, idle_seconds)
        while idle_seconds is None or time.monotonic() - last_seen < idle_seconds:
            entries = read_group(
                self.connection, _STREAM, group, consumer, start, count=_READ_AT_ONCE,
                wait_seconds=block_seconds if start == NEW else None,
            )  # fmt: skip
            if start != NEW and not entries:
                start = NEW
                continue
            for entry_id, fields in entries or self._claim(group, consumer, claim_seconds):
                verdict = _parse(fields)
                if verdict is not None:
                    yield verdict
                self.connection.xack(_STREAM, group, entry_id)
                last_seen = time.monotonic()

    def _claim(self, group: str, consumer: str, idle_seconds: float) -> list[tuple[bytes, dict[bytes, bytes]]]:
        reply: Any = self.connection.xautoclaim(
            _STREAM, group, consumer, min_idle_time=int(idle_seconds * 1000), count=_READ_AT_ONCE
        )
        return [(entry_id, fields) for entry_id, fields in reply[1] if fields]

    def _verdict_in(self, result: Result, job: Job) -> Verdict:
        if result.type is Result.Type.SUCCESSFUL:
            return Verdict.model_validate(result.return_value)
        verdict = self._find(job)
        if verdict is None:
            says = str(result.exc_string).strip().splitlines()[-1]
            raise SluiceError(f"job {job.id} failed without a verdict: {says}")
        return verdict

    def _find(self, job: Job) -> Verdict | None:
        """Look up the verdict of a job that failed: newest entries first, back to when the job was enqueued."""
        oldest = int(job.created_at.timestamp() * 1000)
        last = "+"
        while entries := cast("list[Any]", self.connection.xrevrange(_STREAM, last, oldest, count=_READ_AT_ONCE)):
            for _, fields in entries:
                if fields.get(b"job_id") == job.id.encode():
                    return _parse(fields)
            last = "(" + entries[-1][0].decode()
        return None


def _prepare(upload: dict[str, Any]) -> tuple[Priority, dict[str, Any], str | None, bytes | None]:
    """Check one upload: its priority, the job's keyword arguments, and the blob that must be stored first."""
    priority = upload.pop("priority", None) or "normal"
    if priority not in tuple(QUEUES):
        raise JobInvalid(f"priority {priority!r} is not one of {', '.join(QUEUES)}")
    if isinstance(upload.get("metadata"), Mapping):
        upload["metadata"] = dict(upload["metadata"])
    data = upload.pop("data", None)
    image = {kind: upload.pop(kind) for kind in ("url", "path") if upload.get(kind) is not None}
    digest = None
    if data is not None:
        if not isinstance(data, bytes) or not data:
            raise JobInvalid("invalid job: data: give the image's bytes, at least one")
        digest = hashlib.sha256(data).hexdigest()
        image["blob"] = digest
    arguments = {"image": image} | {key: value for key, value in upload.items() if value is not None}
    ModerationJob.from_arguments(arguments)
    return priority, arguments, digest, data


def _parse(fields: Mapping[bytes, bytes]) -> Verdict | None:
    """Read an entry; one that is not a verdict of a version we know is passed over, so that it blocks nobody."""
    try:
        return Verdict.model_validate_json(fields.get(b"verdict", b""))
    except ValidationError:
        return None


def read_verdicts(connection: redis.Redis, *, last: int | None = None, follow: bool = False) -> Iterator[Verdict]:
    """Read the verdicts that Redis keeps, without a consumer group and without acknowledging anything.

    Args:
        connection: A Redis that speaks bytes.
        last: Begin with so many of the newest; None begins with the oldest.
        follow: Go on for ever with what arrives.

    Yields:
        Verdicts, oldest first.
    """
    position = "-"
    if last is not None:
        newest: Any = connection.xrevrange(_STREAM, count=last + 1)
        position = "-" if len(newest) <= last else "(" + newest[-1][0].decode()
    while True:
        entries: Any = connection.xrange(_STREAM, position, "+", count=_READ_AT_ONCE)
        for entry_id, fields in entries:
            position = "(" + entry_id.decode()
            verdict = _parse(fields)
            if verdict is not None:
                yield verdict
        if not entries:
            if not follow:
                return
            connection.xread({_STREAM: position.lstrip("(-") or "0"}, count=1, block=int(_BLOCK_SECONDS * 1000))
