"""What worker and horse say to each other: JSON and raw bytes over one socket, never pickle.

In and out: messages of a header and blobs. The horse eats hostile images, so all that the worker takes from it is data.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from rq.timeouts import JobTimeoutException

from worker import errors
from worker.errors import JobError, SluiceError
from worker.metrics import Counts
from worker.records import Verdict

_SIZE_BYTES = 4


class HorseError(SluiceError):
    """A defect: an exception in the horse that is none of ours; its text is the traceback."""


@dataclass(frozen=True, slots=True)
class Task:
    """One job on its way to the horse."""

    job_id: str
    #: RQ's `data` as it lies in Redis, hostile.
    data: bytes
    #: How long it waited.
    queue_seconds: float
    #: Say `review` for this reason, and do not look; None: judge.
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one job."""

    #: The verdict, if there is one; None for a job of which not even the content id can be read.
    verdict: Verdict | None = None
    #: It as JSON, which is also the job's return value.
    payload: bytes = b""
    #: Why the job does not end `done`.
    error: BaseException | None = None
    #: Where the job wants its verdict posted.
    webhook: str | None = None
    #: Of all views of its image, little-endian float16; empty where it was not looked at, or is not to be remembered.
    embeddings: bytes = b""


def send(connection: Connection, header: dict[str, Any], blobs: Sequence[bytes] = ()) -> None:
    """Send one message.

    Raises:
        OSError: The other side is gone.
    """
    head = json.dumps(header | {"sizes": [len(blob) for blob in blobs]}).encode()
    connection.send_bytes(b"".join((len(head).to_bytes(_SIZE_BYTES, "big"), head, *blobs)))


def receive(connection: Connection) -> tuple[dict[str, Any], list[bytes]]:
    """Receive one message.

    Raises:
        EOFError: The other side is gone.
        OSError: The same, in the middle of a message.
    """
    data = memoryview(connection.recv_bytes())
    start = _SIZE_BYTES + int.from_bytes(data[:_SIZE_BYTES], "big")
    header = json.loads(bytes(data[_SIZE_BYTES:start]))
    blobs = []
    for size in header["sizes"]:
        blobs.append(bytes(data[start : start + size]))
        start += size
    return header, blobs


def send_tasks(connection: Connection, tasks: Sequence[Task]) -> None:
    """Send a batch to the horse."""
    rows = [[task.job_id, task.queue_seconds, task.reason] for task in tasks]
    send(connection, {"tasks": rows}, [task.data for task in tasks])


def read_tasks(header: dict[str, Any], blobs: Sequence[bytes]) -> list[Task]:
    """Read a batch."""
    return [Task(row[0], data, row[1], row[2]) for row, data in zip(header["tasks"], blobs, strict=True)]


def send_outcomes(connection: Connection, outcomes: Sequence[Outcome], counts: Counts) -> None:
    """Send what came of a batch, and what was counted meanwhile."""
    rows = [None if outcome.error is None else error_as_json(outcome.error) for outcome in outcomes]
    webhooks = [outcome.webhook for outcome in outcomes]
    header = {"outcomes": rows, "webhooks": webhooks, "counts": [[*what, times] for what, times in counts.items()]}
    send(connection, header, [part for outcome in outcomes for part in (outcome.payload, outcome.embeddings)])


def read_outcomes(header: dict[str, Any], blobs: Sequence[bytes]) -> list[Outcome]:
    """Read what came of a batch."""
    return [
        Outcome(
            Verdict.model_validate_json(payload) if payload else None,
            payload,
            None if row is None else error_from_json(row),
            webhook,
            embeddings,
        )
        for row, webhook, payload, embeddings in zip(
            header["outcomes"], header["webhooks"], blobs[::2], blobs[1::2], strict=True
        )
    ]


def error_as_json(error: BaseException) -> dict[str, Any]:
    """Return an error of ours by its name; of any other nothing but its text."""
    if isinstance(error, errors.PolicyInvalid):
        return {"class": "PolicyInvalid", "findings": error.findings}
    if isinstance(error, SluiceError) and type(error).__module__ == errors.__name__:
        row: dict[str, Any] = {"class": type(error).__name__, "text": str(error)}
        if isinstance(error, errors.SourceUnavailable):
            row["retry_after_seconds"] = error.retry_after_seconds
        return row
    return {"class": None, "text": str(error)}


def error_from_json(row: dict[str, Any]) -> SluiceError:
    """Return the error that `error_as_json` wrote."""
    if row["class"] == "PolicyInvalid":
        return errors.PolicyInvalid(row["findings"])
    kind = getattr(errors, row["class"] or "", None)
    if kind is errors.SourceUnavailable:
        after = row.get("retry_after_seconds")
        return errors.SourceUnavailable(row["text"], after if isinstance(after, int | float) else None)
    if isinstance(kind, type) and issubclass(kind, SluiceError):
        return kind(row["text"])
    return HorseError(row["text"])


def reason_of(error: BaseException) -> str:
    """Return the reason that a verdict on a job with this error carries: a key of `worker.errors.REASONS`."""
    if isinstance(error, JobTimeoutException):
        return "job_timeout"
    return error.reason if isinstance(error, JobError) else "internal_error"
