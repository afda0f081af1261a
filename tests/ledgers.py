"""Verdicts that nobody judged, with embeddings, for tests of the ledger; and an archiver that dies where it is told to.

Run as a program: `python -m ledgers URL DIRECTORY POINT`.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import redis

from worker.ledger.archive import Archiver, Rolling
from worker.ledger.batch import halves
from worker.ledger.entry import LEDGER, LedgerEntry, fields_of, read_entry
from worker.ledger.reader import LedgerReader, Wanted
from worker.ledger.shelf import DirectoryShelf, Shelf, StoredFile
from worker.records import ImageFacts, ModelStamp, PolicyStamp, Verdict

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
MODEL = ModelStamp(id="openai/clip", revision="abc", precision="fp32")
OTHER = ModelStamp(id="other", revision="1", precision="int8")
DIM = 8


def unit_rows(name: str, views: int = 1, dim: int = DIM) -> np.ndarray:
    """Make embeddings up: `(views, dim)` float32, the same for the same name."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    rows = np.random.default_rng(seed).normal(size=(views, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def make_verdict(name: str, when: datetime = NEW_YEAR, views: int = 1, **other: Any) -> Verdict:
    """Make a verdict up, of an image that was looked at."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    facts = ImageFacts(sha256=digest, format="PNG", width=1, height=1, frames=1, views=views, bytes=1)
    given = {
        "verdict_id": digest[:32], "job_id": f"j-{name}", "content_id": name, "action": "review", "reason": None,
        "policy": PolicyStamp(id="house", version=3, digest="d"), "model": MODEL, "calibrated": True, "categories": {},
        "image": facts, "worker": "w",
        "created_at": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }  # fmt: skip
    return Verdict(**given | other)


def fields(name: str, when: datetime = NEW_YEAR, views: int = 1, dim: int = DIM, **other: Any) -> list[Any]:
    """Return the fields of an entry as XADD takes them."""
    return fields_of(make_verdict(name, when, views, **other), halves(unit_rows(name, views, dim)))


def entry(name: str, when: datetime = NEW_YEAR, views: int = 1, dim: int = DIM, **other: Any) -> LedgerEntry:
    """Make an entry up."""
    flat = [part if isinstance(part, bytes) else str(part).encode() for part in fields(name, when, views, dim, **other)]
    found = read_entry(dict(zip(flat[::2], flat[1::2], strict=True)))
    assert found is not None
    return found


def push(connection: redis.Redis, names: Iterable[str], when: datetime = NEW_YEAR, **other: Any) -> None:
    """Put an entry for each name on the stream."""
    with connection.pipeline(transaction=False) as together:
        for name in names:
            together.execute_command("XADD", LEDGER, "*", *fields(name, when, **other))
        together.execute()


def read(connection: redis.Redis | None, shelf: Shelf | None, **wanted: Any) -> list[str]:
    """Return the content ids that a reader sees, sorted; every one of its batches is looked at."""
    found: list[str] = []
    for batch in LedgerReader(connection, shelf, Wanted(**wanted)).batches():
        assert len(batch) == len(batch.content_ids) == len(batch.times) == len(batch.actions) == len(batch.verdict_ids)
        assert batch.starts[-1] == len(batch.embeddings) == len(batch.entry_of_row)
        for place, name in enumerate(batch.content_ids):
            rows = batch.embeddings[batch.starts[place] : batch.starts[place + 1]]
            assert np.array_equal(rows, unit_rows(name, len(rows), rows.shape[1]).astype(np.float16))
            found.append(name)
    return sorted(found)


def archiver(connection: redis.Redis, shelf: Shelf, entries: int = 100, **other: Any) -> Archiver:
    """Make one that takes over at once and tells nobody."""
    retention = other.pop("retention_days", None)
    rolling = Rolling(entries=entries, **{"seconds": 0.0, "claim_seconds": 0.001} | other)
    return Archiver(connection, shelf, rolling, retention, lambda what, file: None)


def names(count: int, prefix: str = "upload") -> list[str]:
    """Return so many different content ids, sorted."""
    return sorted(f"{prefix}-{number}" for number in range(count))


# -- dying -----------------------------------------------------------------------------------------------------------


def die(*_: object) -> Any:
    """End at once, as for want of memory."""
    os.kill(os.getpid(), signal.SIGKILL)


class DyingRedis(redis.Redis):
    """Kills its process at the second use of a command: before it is sent, or after it was answered."""

    point = ""
    uses = 0

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command, or die."""
        moment, _, command = self.point.partition(" ")
        is_it = args[0] == command
        self.uses += is_it
        if is_it and moment == "before" and self.uses == 2:
            die()
        answer = super().execute_command(*args, **options)
        if is_it and moment == "after" and self.uses == 2:
            die()
        return answer


class DyingShelf(DirectoryShelf):
    """Kills its process when its second file is complete."""

    written = 0

    def write(self, day: str, name: str, content: bytes) -> None:
        """Write, and perhaps die."""
        super().write(day, name, content)
        self.written += 1
        if self.written == 2:
            die()


def main(arguments: Sequence[str]) -> None:
    """Archive a hundred entries a file, and die at a point."""
    url, directory, point = arguments
    shelf = DyingShelf(Path(directory)) if point == "a file is complete" else DirectoryShelf(Path(directory))
    if point == "a file is half written":
        os.fsync = die
    connection = DyingRedis.from_url(url)
    connection.point = point
    archiver(connection, shelf, claim_seconds=60.0).once()


def days_of(shelf: Shelf) -> list[str]:
    """Return the days that files are of."""
    return sorted({file.day for file in shelf.files()})


def rows_on(shelf: DirectoryShelf) -> list[str]:
    """Return the content ids of all rows of all files, whoever may see them, sorted."""
    from worker.ledger.files import read_batches

    files: list[StoredFile] = shelf.files()
    batches = [batch for file in files for batch in read_batches(shelf.read(file), file.name)]
    return sorted(name for batch in batches for name in batch.content_ids)


def day(number: int) -> datetime:
    """Return noon of a day after New Year."""
    return NEW_YEAR + timedelta(days=number, hours=12)


if __name__ == "__main__":
    main(sys.argv[1:])
