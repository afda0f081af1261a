"""Takes content ids out of the ledger: an upload was deleted, or its owner asked for it.

In: content ids. Out: how many entries went. What an archiver has in its hands meanwhile goes too: it looks here when
its file is complete. To forget what is not there is no error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from typing import Any

import redis

from worker.ledger.entry import LEDGER
from worker.ledger.reader import parquet
from worker.ledger.shelf import Shelf
from worker.ledger.stream import pages

#: Redis key: content ids that are being forgotten; it goes by itself.
FORGOTTEN = "sluice:ledger:forgotten"
#: Longer than any archiver has entries in its hands.
_FORGOTTEN_SECONDS = 3600


def forgotten(connection: redis.Redis) -> set[str]:
    """Return the content ids that are being forgotten."""
    found: Any = connection.smembers(FORGOTTEN)
    return {content_id.decode(errors="replace") for content_id in found}


def forget_in_stream(connection: redis.Redis, content_ids: Collection[str]) -> Counter[str]:
    """Take content ids out of the stream; how many entries of each went."""
    with connection.pipeline() as together:
        together.sadd(FORGOTTEN, *content_ids)
        together.expire(FORGOTTEN, _FORGOTTEN_SECONDS)
        together.execute()
    wanted = {content_id.encode(): content_id for content_id in content_ids}
    gone: Counter[str] = Counter()
    for rows in pages(connection):
        found = {row: (fields or {}).get(b"content_id", b"") for row, fields in rows}
        if ids := [row for row, content_id in found.items() if content_id in wanted]:
            connection.xdel(LEDGER, *ids)
            gone.update(wanted[found[row]] for row in ids)
    return gone


def forget_on_shelf(shelf: Shelf, content_ids: Collection[str]) -> Counter[str]:
    """Take content ids out of every file; how many rows of each went.

    Raises:
        Missing: The extra `report` is not installed, or the shelf cannot be written.
        LedgerUnusable: A file is none of the ledger's; those before it are done.
    """
    files = parquet()
    gone: Counter[str] = Counter()
    for file in shelf.files():
        with suppress(FileNotFoundError):  # retention was faster
            content, taken = files.without(shelf.read(file), f"{shelf}/day={file.day}/{file.name}", content_ids)
            if content is not None:
                shelf.write(file.day, file.name, content)
            elif taken:
                shelf.remove(file)
            gone.update(taken)
    return gone
