"""Moves entries of the stream into files, as a consumer group; several at once share the work.

In: the stream `sluice:ledger`. Out: files on a shelf. An entry is acknowledged only when its file is complete, and what
an archiver read that died is written by another under the same names: nothing is lost, and no file is there twice.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import compress

import redis

from worker.ledger.batch import batches_of, sound
from worker.ledger.entry import LEDGER, LedgerEntry
from worker.ledger.forgetting import forgotten
from worker.ledger.group import Member
from worker.ledger.reader import parquet
from worker.ledger.shelf import Shelf, StoredFile
from worker.ledger.stream import readable
from worker.records import ModelStamp
from worker.streams import Entry

log = logging.getLogger(__name__)

#: Entries that are asked for at once, and bytes of embeddings after which a file is full however few its entries are.
_PAGE = 500
_MAX_BATCH_BYTES = 64 * 1024 * 1024
#: How often is looked whether there is something to do, and whether others died.
_TICK_SECONDS = 1.0
_LOOK_SECONDS = 5.0
#: How often old days are deleted.
_SWEEP_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Rolling:
    """When a file is written, and when another archiver is taken for dead."""

    #: Entries of a file, at most.
    entries: int = 10_000
    #: The oldest entry waits no longer before a file is written, in seconds.
    seconds: float = 60.0
    #: What another has held for so long is taken over, in seconds: longer than a file takes to be written.
    claim_seconds: float = 60.0


@dataclass(slots=True)
class Archived:
    """What came of it so far."""

    entries: int = 0
    files: int = 0
    bytes: int = 0
    #: Entries that are none, and acknowledged all the same.
    passed_over: int = 0
    #: Entries that were read, and gone before they were written by whoever took them over.
    lost: int = 0


class Archiver:
    """Archives until it is told to stop.

    Args:
        connection: A Redis that speaks bytes.
        shelf: Where files go.
        rolling: When they are written.
        retention_days: Days that are kept beside today; older ones are deleted. None: all.
        tell: Told of each file that was written, and of each day that was deleted.
    """

    def __init__(
        self,
        connection: redis.Redis,
        shelf: Shelf,
        rolling: Rolling,
        retention_days: int | None,
        tell: Callable[[str, StoredFile], None],
    ) -> None:
        self.done = Archived()
        self._connection = connection
        self._shelf = shelf
        self._rolling = rolling
        self._retention_days = retention_days
        self._tell = tell
        self._files = parquet()
        self._member = Member(connection)
        self._stopping = threading.Event()

    def stop(self) -> None:
        """End after the file that is being written; may be called by a signal handler."""
        self._stopping.set()

    def follow(self) -> None:
        """Archive until `stop`.

        Raises:
            Missing: The shelf cannot be written.
            redis.RedisError: Redis stays away.
        """
        next_look = next_sweep = 0.0
        while not self._stopping.is_set():
            if time.monotonic() >= next_look:
                self._look()
                next_look = time.monotonic() + _LOOK_SECONDS
            if time.monotonic() >= next_sweep:
                self._sweep()
                next_sweep = time.monotonic() + _SWEEP_SECONDS
            if not (self._is_due() and self._archive_new()):
                self._stopping.wait(_TICK_SECONDS)
        self._member.drop_names()

    def once(self) -> None:
        """Archive what there is now; the same errors."""
        self._look()
        self._sweep()
        while not self._stopping.is_set() and self._archive_new():
            pass
        self._look()
        self._member.drop_names()

    # -- from the stream ---------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Take over what dead archivers held, and what an answer that was lost gave this one."""
        self._member.join()
        for holder in self._member.holders():
            if not self._stopping.is_set() and (taken := self._member.take_over(holder, self._rolling.claim_seconds)):
                ids, rows = taken
                self.done.lost += len(ids) - len(rows)
                self._archive(ids, rows)

    def _archive_new(self) -> bool:
        """Write what nobody has read yet, a file's worth; whether there was any."""
        rows: list[Entry] = []
        size = 0
        while len(rows) < self._rolling.entries and size < _MAX_BATCH_BYTES:
            page = self._member.read(min(_PAGE, self._rolling.entries - len(rows)))
            if not page:
                break
            rows += page
            size += sum(len((fields or {}).get(b"embeddings", b"")) for _, fields in page)
        if rows:
            self._archive([entry_id for entry_id, _ in rows], rows)
        else:
            self._member.note_all_read()
        return bool(rows)

    def _is_due(self) -> bool:
        """Whether there are entries for a whole file, or one that waits too long."""
        unread, oldest = self._member.unread()
        if oldest is None:
            return False
        age_seconds = time.time() - int(oldest.partition(b"-")[0]) / 1000
        return unread >= self._rolling.entries or age_seconds >= self._rolling.seconds

    # -- to the shelf ------------------------------------------------------------------------------------------------

    def _archive(self, ids: Sequence[bytes], rows: Sequence[Entry]) -> None:
        """Write a batch, and acknowledge it; whoever takes it over writes the same files.

        Args:
            ids: All that are acknowledged: also those that have gone.
            rows: What is there of them.
        """
        written = 0
        for day, name, entries in _files([entry for _, entry in readable(rows)], ids):
            (batch,) = batches_of(entries)
            kept = list(compress(entries, sound(batch)))
            written += len(kept)
            if kept:
                self._write(day, name, kept)
        self._member.acknowledge(ids)
        self.done.passed_over += len(rows) - written
        if len(rows) > written:
            log.warning("%d entries of %s are none of a worker's; passed over", len(rows) - written, LEDGER)

    def _write(self, day: str, name: str, entries: Sequence[LedgerEntry]) -> None:
        content = self._files.write_entries(entries)
        self._shelf.write(day, name, content)
        # Whoever forgets notes it before it looks at files: so it sees this one, or is seen here.
        gone = forgotten(self._connection).intersection(entry.content_id for entry in entries)
        if gone:
            left = [entry for entry in entries if entry.content_id not in gone]
            content = self._files.write_entries(left) if left else b""
            if left:
                self._shelf.write(day, name, content)
            else:
                self._shelf.remove(StoredFile(day, name))
            entries = left
        self.done.entries += len(entries)
        self.done.files += bool(entries)
        self.done.bytes += len(content)
        self._tell("written", StoredFile(day, name, len(content)))

    def _sweep(self) -> None:
        """Delete what is too old, and what dead processes left."""
        self._member.drop_names()
        if self._retention_days is not None:
            oldest = (datetime.now(UTC) - timedelta(days=self._retention_days)).strftime("%Y-%m-%d")
            for file in [file for file in self._shelf.files() if file.day < oldest]:
                self._shelf.remove(file)
                self._tell("deleted", file)
        self._shelf.clean()


def _files(entries: Sequence[LedgerEntry], ids: Sequence[bytes]) -> Iterator[tuple[str, str, list[LedgerEntry]]]:
    """Yield the files of a batch: one for each day and model, named after the first and the last id of the batch."""
    parted: dict[tuple[str, ModelStamp, int], list[LedgerEntry]] = defaultdict(list)
    for entry in entries:
        parted[entry.day, entry.model, entry.dim].append(entry)
    for (day, model, dim), alike in parted.items():
        made_by = hashlib.sha256(f"{model.model_dump_json()} {dim}".encode()).hexdigest()[:8]
        yield day, f"{ids[0].decode()}_{ids[-1].decode()}_{made_by}.parquet", alike
