"""What the ledger holds: how many entries, since when, of which models.

In: Redis or a shelf. Out: `Holding`. Embeddings on a shelf are not read for that.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import redis

from worker.ledger.entry import LEDGER
from worker.ledger.reader import parquet
from worker.ledger.shelf import Shelf
from worker.ledger.stream import pages, readable


@dataclass(slots=True)
class Holding:
    """What one place holds."""

    place: str
    entries: int = 0
    #: In Redis's memory, or of files.
    bytes: int = 0
    oldest: datetime | None = None
    newest: datetime | None = None
    #: `id@revision` → entries.
    models: Counter[str] = field(default_factory=Counter)
    files: int = 0
    #: Entries of the stream that are none of a worker's.
    passed_over: int = 0

    def count(self, model: str, entries: int, oldest: datetime, newest: datetime) -> None:
        """Take in some entries of one model."""
        self.entries += entries
        self.models[model] += entries
        self.oldest = oldest if self.oldest is None else min(self.oldest, oldest)
        self.newest = newest if self.newest is None else max(self.newest, newest)

    def as_dict(self) -> dict[str, Any]:
        """Return it as one JSON object."""
        times = {
            name: moment and moment.isoformat() for name, moment in (("oldest", self.oldest), ("newest", self.newest))
        }
        return {"place": self.place, "entries": self.entries, "bytes": self.bytes, **times, "models": dict(self.models),
                "files": self.files, "passed_over": self.passed_over}  # fmt: skip


def in_stream(connection: redis.Redis) -> Holding:
    """Look at the stream."""
    holding = Holding(LEDGER)
    size: Any = connection.memory_usage(LEDGER)
    holding.bytes = size or 0
    for rows in pages(connection):
        entries = [entry for _, entry in readable(rows)]
        holding.passed_over += len(rows) - len(entries)
        for entry in entries:
            holding.count(f"{entry.model.id}@{entry.model.revision}", 1, entry.created_at, entry.created_at)
    return holding


def on_shelf(shelf: Shelf) -> Holding:
    """Look at files; a verdict that is in two of them counts twice.

    Raises:
        Missing: The extra `report` is not installed, or the shelf cannot be read.
        LedgerUnusable: A file is none of the ledger's.
    """
    files = parquet()
    holding = Holding(str(shelf))
    for file in shelf.files():
        with suppress(FileNotFoundError):  # retention was faster
            for model, entries, oldest, newest in files.summary(
                shelf.read(file), f"{shelf}/day={file.day}/{file.name}"
            ):
                holding.count(model, entries, oldest.astimezone(UTC), newest.astimezone(UTC))
            holding.files += 1
            holding.bytes += file.bytes
    return holding
