"""A verdict that was given before, and the embeddings that it was judged by.

In: Redis, and the id of a job or of a verdict. Out: the `Verdict`; its embeddings, where the ledger has them. What is
gone is an error that says where was looked. Whoever may write to the streams may write anything: what is no verdict is
passed over.
"""

from __future__ import annotations

import re
import zlib
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import redis
from pydantic import ValidationError
from rq.job import Job
from rq.results import Result

from worker.errors import Missing, UsageError
from worker.ledger.batch import Halves
from worker.ledger.reader import LedgerReader, Wanted
from worker.ledger.shelf import Shelf
from worker.records import Verdict, printable
from worker.sinks.stream import STREAM

#: Verdicts of the stream that are looked through at most, newest first: twice what the settings keep unless told.
MAX_VERDICTS = 200_000
_PAGE = 500
#: What RQ takes for the id of a job; a verdict's is one of them.
_ID = re.compile(r"[A-Za-z0-9_-]{1,512}")
#: How far the clocks of workers and of Redis may differ.
_CLOCKS = timedelta(minutes=10)


class VerdictMissing(Missing):
    """No verdict has this id, or it is gone."""


def find_verdict(connection: redis.Redis, ref: str) -> Verdict:
    """Find a verdict by the id of its job, or by its own; else the newest of an upload with this content id.

    A content id is the platform's, or its user's, to choose: it never hides the verdict of a job.

    Args:
        connection: A Redis that speaks bytes.
        ref: The id.

    Raises:
        UsageError: No job and no verdict can be called so.
        VerdictMissing: There is none, or none any more; says where was looked.
        redis.RedisError: Redis does not answer.
    """
    if not _ID.fullmatch(ref):
        raise UsageError(f"{printable(ref)} is no file, no URL and no id; name an image, a job, a verdict or an upload")
    returned = _returned(connection, ref)
    if returned is not None:
        return returned
    found, looked = _in_stream(connection, ref)
    if found is not None:
        return found
    raise VerdictMissing(_say_missing(connection, ref, looked))


def find_embeddings(connection: redis.Redis | None, shelf: Shelf | None, verdict: Verdict) -> Halves | None:
    """Return the embeddings that a verdict was judged by, `(views, dim)` float16; None where the ledger has none.

    Args:
        connection: Where the ledger's stream is; None: it is not read.
        shelf: The ledger's archive; None: it is not read.
        verdict: Whose. Entries of another model, precision or number of views are none of it.

    Raises:
        Missing: The archive cannot be read, or the extra `report` is not installed.
        redis.RedisError: Redis does not answer.
    """
    made_at = _moment(verdict.created_at)
    if verdict.image is None or made_at is None:
        return None
    model = f"{verdict.model.id}@{verdict.model.revision}"
    wanted = Wanted(since=made_at - _CLOCKS, until=made_at + _CLOCKS, model=model)
    for batch in LedgerReader(connection, shelf, wanted).batches():
        for place in (batch.verdict_ids == verdict.verdict_id.encode()).nonzero()[0]:
            rows = batch.embeddings[batch.starts[place] : batch.starts[place + 1]]
            if batch.model == verdict.model and len(rows) == verdict.image.views:
                return rows
    return None


def _returned(connection: redis.Redis, ref: str) -> Verdict | None:
    """Return the verdict that is a job's return value; RQ keeps it for some minutes."""
    job = Job(ref, connection=connection, serializer="json")
    try:
        result = job.latest_result()
        if result is None or result.type is not Result.Type.SUCCESSFUL:
            return None
        return Verdict.model_validate(result.return_value)
    except (ValidationError, ValueError, KeyError, TypeError, AttributeError, zlib.error):
        # Another program's job, or one that somebody wrote by hand.
        return None


def _in_stream(connection: redis.Redis, ref: str) -> tuple[Verdict | None, int]:
    """Look through the stream, newest first; also how many entries were looked at."""
    wanted, looked, last = ref.encode(), 0, "+"
    of_upload: Verdict | None = None
    while looked < MAX_VERDICTS:
        rows: Any = connection.xrevrange(STREAM, last, "-", count=min(_PAGE, MAX_VERDICTS - looked))
        for _, fields in rows:
            text = fields.get(b"verdict", b"")
            # Reading each would take ten times as long as looking for the id in it.
            if wanted not in text or (verdict := _parse(text)) is None:
                continue
            if ref in (verdict.job_id, verdict.verdict_id):
                return verdict, looked
            if ref == verdict.content_id:
                of_upload = of_upload or verdict
        looked += len(rows)
        if not rows:
            break
        last = "(" + rows[-1][0].decode()
    return of_upload, looked


def _parse(text: bytes) -> Verdict | None:
    try:
        return Verdict.model_validate_json(text)
    except ValidationError:
        return None


def _say_missing(connection: redis.Redis, ref: str, looked: int) -> str:
    status: Any = None
    with suppress(redis.exceptions.NoPermissionError):
        # Whoever explains need not be allowed to read jobs.
        status = connection.hget(f"rq:job:{ref}", "status")
    if status in (b"queued", b"started", b"deferred", b"scheduled"):
        return f"job {ref} has no verdict yet, it is {status.decode()}; ask again when it has ended"
    more = "" if looked < MAX_VERDICTS else ", and older ones were not looked at"
    return (
        f"no verdict of a job, an upload or its own id {ref} among the {looked} newest of {STREAM}{more}; Redis keeps "
        "SLUICE_VERDICT_STREAM_MAXLEN of them; explain the image itself, or take an id from `sluice verdicts --json`"
    )


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else None
