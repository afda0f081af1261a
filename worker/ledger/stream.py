"""The ledger's stream, read: what Redis still has, in bounded pages.

In: Redis. Out: entries. What is none is passed over and counted: whoever may write to the stream may write anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import redis

from worker.ledger.entry import LEDGER, LedgerEntry, read_entry
from worker.streams import Entry

#: Entries that are asked for at once: a megabyte or two.
_PAGE = 1000


def pages(connection: redis.Redis, since: datetime | None = None) -> Iterator[list[Entry]]:
    """Yield the stream's entries, oldest first.

    Args:
        connection: A Redis that speaks bytes.
        since: Entries that were added before are left out.
    """
    start = "-" if since is None else str(int(since.timestamp() * 1000))
    while True:
        rows: Any = connection.xrange(LEDGER, min=start, count=_PAGE)
        if rows:
            yield rows
        if len(rows) < _PAGE:
            return
        start = "(" + rows[-1][0].decode()


def readable(rows: Sequence[Entry]) -> Iterator[tuple[bytes, LedgerEntry]]:
    """Yield the entries among what was read, with their ids."""
    for entry_id, fields in rows:
        if fields and (entry := read_entry(fields)) is not None:
            yield entry_id, entry
