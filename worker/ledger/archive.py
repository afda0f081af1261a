"""Moves entries of the stream into files, as a consumer group; several at once share the work.

In: the stream `sluice:ledger`. Out: files on a shelf. An entry is acknowledged only when its file is complete, and what
an archiver read that died is written by another under the same names: nothing is lost, and no file is there twice.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import redis

from worker.ledger.batch import is_unit
from worker.ledger.entry import LEDGER, LedgerEntry
from worker.ledger.forgetting import forgotten
from worker.ledger.reader import parquet
from worker.ledger.shelf import Shelf, StoredFile
from worker.ledger.stream import Raw, readable
from worker.records import ModelStamp

log = logging.getLogger(__name__)

#: Consumer group of the stream.
GROUP = "archive"
#: Entries that are asked for at once, and bytes of embeddings after which a file is full however few its entries are.
_PAGE = 500
_MAX_BATCH_BYTES = 64 * 1024 * 1024
#: How often is looked whether there is something to do, and whether others died.
_TICK_SECONDS = 1.0
_LOOK_SECONDS = 5.0
#: Names of consumers that hold nothing are dropped after so long; one that lives comes back with its next read.
_DROP_SECONDS = 3600
# Between a look and the deletion a consumer may have read something, which would be held by nobody then.
_DROP_IDLE = """
for _, row in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
    local about = {}
    for i = 1, #row, 2 do about[row[i]] = row[i + 1] end
    if about.pending == 0 and about.idle > tonumber(ARGV[2]) then
        redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], about.name)
    end
end
"""


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
        self._consumer = f"{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}"
        self._stopping = threading.Event()
        #: What Redis says is unread though all has been read: before version 7.2 it loses count where the stream's
        #: limit took entries.
        self._miscounted = 0
        self._oldest_unread: bytes | None = None

    def stop(self) -> None:
        """End after the file that is being written; may be called by a signal handler."""
        self._stopping.set()

    def follow(self) -> None:
        """Archive until `stop`.

        Raises:
            Missing: The shelf cannot be written.
            redis.RedisError: Redis stays away.
        """
        next_look = 0.0
        while not self._stopping.is_set():
            if time.monotonic() >= next_look:
                self._look()
                next_look = time.monotonic() + _LOOK_SECONDS
            if not (self._is_due() and self._archive_new()):
                self._stopping.wait(_TICK_SECONDS)
        self._leave()

    def once(self) -> None:
        """Archive what there is now; the same errors."""
        self._look()
        while not self._stopping.is_set() and self._archive_new():
            pass
        self._leave()

    # -- from the stream ---------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Take over what dead archivers held, and delete what is too old."""
        self._create_group()
        for consumer, pending in self._others():
            while pending and not self._stopping.is_set() and (taken := self._take_over(consumer)):
                self._archive(*taken)
        self._connection.eval(_DROP_IDLE, 1, LEDGER, GROUP, _DROP_SECONDS * 1000)
        self._delete_old()

    def _create_group(self) -> None:
        try:
            # From the stream's beginning: entries may have come before their archiver.
            self._connection.xgroup_create(LEDGER, GROUP, id="0", mkstream=True)
        except redis.ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    def _others(self) -> list[tuple[str, int]]:
        rows: Any = self._connection.xinfo_consumers(LEDGER, GROUP)
        found = [(row["name"].decode(), row["pending"]) for row in rows]
        return [(name, pending) for name, pending in found if name != self._consumer]

    def _take_over(self, consumer: str) -> tuple[list[bytes], list[Raw]] | None:
        """Claim what one other held too long: all that one file, or the files of one batch, were to be made of."""
        idle = int(self._rolling.claim_seconds * 1000)
        held: Any = self._connection.xpending_range(LEDGER, GROUP, "-", "+", 10**6, consumer, idle)
        ids = [row["message_id"] for row in held]
        if not ids:
            return None
        claimed: Any = self._connection.xclaim(LEDGER, GROUP, self._consumer, idle, ids)
        rows = [(entry_id, fields) for entry_id, fields in claimed if entry_id is not None]
        log.warning("%d entries are taken over from %s, which held them too long", len(rows), consumer)
        self.done.lost += len(ids) - len(rows)
        return ids, rows

    def _archive_new(self) -> bool:
        """Write what nobody has read yet, a file's worth; whether there was any."""
        rows: list[Raw] = []
        size = 0
        while len(rows) < self._rolling.entries and size < _MAX_BATCH_BYTES:
            page = self._read(min(_PAGE, self._rolling.entries - len(rows)))
            if not page:
                break
            rows += page
            size += sum(len((fields or {}).get(b"embeddings", b"")) for _, fields in page)
        if rows:
            self._archive([entry_id for entry_id, _ in rows], rows)
        else:
            self._miscounted = self._unread()[0]
        return bool(rows)

    def _read(self, count: int) -> list[Raw]:
        try:
            reply: Any = self._connection.xreadgroup(GROUP, self._consumer, {LEDGER: ">"}, count=count)
        except redis.ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            # Somebody emptied Redis.
            self._create_group()
            return []
        streams = reply.values() if isinstance(reply, dict) else [entries for _, entries in reply or []]
        flat = [entry for entries in streams for entry in entries]
        return [entry for part in flat for entry in (part if isinstance(part, list) else [part])]

    def _is_due(self) -> bool:
        """Whether there are entries for a whole file, or one that waits too long."""
        unread, oldest = self._unread()
        if oldest is None:
            return False
        age_seconds = time.time() - int(oldest.partition(b"-")[0]) / 1000
        return unread - self._miscounted >= self._rolling.entries or age_seconds >= self._rolling.seconds

    def _unread(self) -> tuple[int, bytes | None]:
        """Return how many entries nobody has read (0 before Redis 7, which does not tell), and the oldest's id."""
        try:
            groups: Any = self._connection.xinfo_groups(LEDGER)
        except redis.ResponseError:
            # Somebody emptied Redis; the group is made again at the next look.
            groups = []
        about = next((row for row in groups if row["name"] == GROUP.encode()), None)
        if about is None:
            return 0, None
        read: bytes = about["last-delivered-id"]
        first: Any = self._connection.xrange(LEDGER, min="(" + read.decode(), count=1)
        oldest = first[0][0] if first else None
        before, self._oldest_unread = self._oldest_unread, oldest
        if before is not None and _order(read) < _order(before) and (oldest is None or _order(before) < _order(oldest)):
            log.error(
                "entries left %s before they were archived; raise SLUICE_LEDGER_MAXLEN, or run more archivers", LEDGER
            )
        return about.get("lag") or 0, oldest

    # -- to the shelf ------------------------------------------------------------------------------------------------

    def _archive(self, ids: Sequence[bytes], rows: Sequence[Raw]) -> None:
        """Write a batch, and acknowledge it; whoever takes it over writes the same files.

        Args:
            ids: All that are acknowledged: also those that have gone.
            rows: What is there of them.
        """
        sound = [entry for _, entry in readable(rows) if is_unit(entry)]
        for day, name, entries in _files(sound, ids):
            self._write(day, name, entries)
        self._connection.xack(LEDGER, GROUP, *ids)
        self.done.passed_over += len(rows) - len(sound)
        if len(rows) > len(sound):
            log.warning("%d entries of %s are none of a worker's; passed over", len(rows) - len(sound), LEDGER)

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

    def _delete_old(self) -> None:
        if self._retention_days is None:
            return
        oldest = (datetime.now(UTC) - timedelta(days=self._retention_days)).strftime("%Y-%m-%d")
        old = [file for file in self._shelf.files() if file.day < oldest]
        for file in old:
            self._shelf.remove(file)
            self._tell("deleted", file)
        self._shelf.clean(sorted({file.day for file in old}))

    def _leave(self) -> None:
        with suppress(redis.ResponseError):  # somebody emptied Redis
            self._connection.xgroup_delconsumer(LEDGER, GROUP, self._consumer)


def _files(entries: Sequence[LedgerEntry], ids: Sequence[bytes]) -> Iterator[tuple[str, str, list[LedgerEntry]]]:
    """Yield the files of a batch: one for each day and model, named after the first and the last id of the batch."""
    parted: dict[tuple[str, ModelStamp, int], list[LedgerEntry]] = defaultdict(list)
    for entry in entries:
        parted[entry.day, entry.model, entry.dim].append(entry)
    for (day, model, dim), alike in parted.items():
        made_by = hashlib.sha256(f"{model.model_dump_json()} {dim}".encode()).hexdigest()[:8]
        yield day, f"{ids[0].decode()}_{ids[-1].decode()}_{made_by}.parquet", alike


def _order(entry_id: bytes) -> tuple[int, int]:
    milliseconds, _, number = entry_id.partition(b"-")
    return int(milliseconds), int(number)
