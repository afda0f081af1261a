"""One member of the consumer group that archives the ledger's stream.

In: Redis. Out: entries that nobody else has in hand, and those of members that died. What is read is this member's
until it acknowledges it. Never a file.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
from collections.abc import Sequence
from typing import Any

import redis

from worker.ledger.entry import ARCHIVE_GROUP, LEDGER
from worker.streams import Entry, join_group, read_group

log = logging.getLogger(__name__)

#: Ids that are asked for of one dead member: more than it can have had in hand.
_MOST_PENDING = 1_000_000
#: Names of members that hold nothing are dropped after so long; one that lives comes back with its next read.
_DROP_SECONDS = 3600
# Never the name of one that has something in hand, which would be held by nobody then.
_DROP = """
for _, row in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
    local about = {}
    for i = 1, #row, 2 do about[row[i]] = row[i + 1] end
    if about.pending == 0 and (about.name == ARGV[2] or about.idle > tonumber(ARGV[3])) then
        redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], about.name)
    end
end
"""


class Member:
    """A member of the group, under a name of its own.

    Args:
        connection: A Redis that speaks bytes.
    """

    def __init__(self, connection: redis.Redis) -> None:
        self._connection = connection
        self._name = f"{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}"
        #: What Redis says is unread though all has been read: before version 7.2 it loses count where the stream's
        #: limit took entries.
        self._miscounted = 0
        self._oldest_unread: bytes | None = None

    def join(self) -> None:
        """Make the group, where there is none, from the stream's beginning: entries may have come before it."""
        join_group(self._connection, LEDGER, ARCHIVE_GROUP)

    def drop_names(self) -> None:
        """Take off this member's name, until it reads again, and names that have held nothing for an hour."""
        try:
            self._connection.eval(_DROP, 1, LEDGER, ARCHIVE_GROUP, self._name, _DROP_SECONDS * 1000)
        except redis.ResponseError as error:
            # Somebody emptied Redis: there is no name to take off.
            if not any(sign in str(error) for sign in ("NOGROUP", "no such key")):
                raise

    def read(self, count: int) -> list[Entry]:
        """Take entries that nobody has read, oldest first, at most so many; none where there is none."""
        try:
            return read_group(self._connection, LEDGER, ARCHIVE_GROUP, self._name, count=count)
        except redis.ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            # Somebody emptied Redis.
            self.join()
            return []

    def acknowledge(self, ids: Sequence[bytes]) -> None:
        """Give entries out of hand: they are where they belong."""
        self._connection.xack(LEDGER, ARCHIVE_GROUP, *ids)

    def holders(self) -> list[str]:
        """Return the members that have something in hand."""
        rows: Any = self._connection.xinfo_consumers(LEDGER, ARCHIVE_GROUP)
        return [row["name"].decode() for row in rows if row["pending"]]

    def take_over(self, holder: str, held_seconds: float) -> tuple[list[bytes], list[Entry]] | None:
        """Take what a member has held too long: all that its files were to be made of, no more and no less.

        To be called with nothing in hand: what Redis says this member itself holds is then what an answer that was
        lost on its way gave it.

        Args:
            holder: Its name.
            held_seconds: How long that is, for others.

        Returns:
            All ids, and the entries that are still there; None where it holds nothing so long.
        """
        idle = 0 if holder == self._name else int(held_seconds * 1000)
        held: Any = self._connection.xpending_range(LEDGER, ARCHIVE_GROUP, "-", "+", _MOST_PENDING, holder, idle)
        ids = [row["message_id"] for row in held]
        if not ids:
            return None
        claimed: Any = self._connection.xclaim(LEDGER, ARCHIVE_GROUP, self._name, idle, ids)
        rows = [(entry_id, fields or {}) for entry_id, fields in claimed if entry_id is not None]
        log.warning("%d entries are taken over from %s, which held them too long", len(rows), holder)
        return ids, rows

    def unread(self) -> tuple[int, bytes | None]:
        """Return how many entries nobody has read (0 before Redis 7, which does not tell), and the oldest's id."""
        count, oldest = self._look()
        return max(0, count - self._miscounted), oldest

    def note_all_read(self) -> None:
        """Note that there is nothing unread, whatever Redis counts."""
        self._miscounted, _ = self._look()

    def _look(self) -> tuple[int, bytes | None]:
        try:
            groups: Any = self._connection.xinfo_groups(LEDGER)
        except redis.ResponseError:
            # Somebody emptied Redis; the group is made again soon.
            groups = []
        about = next((row for row in groups if row["name"] == ARCHIVE_GROUP.encode()), None)
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


def _order(entry_id: bytes) -> tuple[int, int]:
    milliseconds, _, number = entry_id.partition(b"-")
    return int(milliseconds), int(number)
