"""Reads Redis Streams as a member of a consumer group.

In: a stream, a group, a member. Out: entries. Never an acknowledgement: that belongs to whatever is done with them.
"""

from __future__ import annotations

from typing import Any

import redis

#: An entry's id and fields; the fields of one that was trimmed off the stream while somebody held it are empty.
Entry = tuple[bytes, dict[bytes, bytes]]
#: Of `read_group`: what nobody has read.
NEW = ">"
#: Of `read_group`: what this member has read and not acknowledged, from the oldest on.
HELD = "0"


def join_group(connection: redis.Redis, stream: str, group: str) -> None:
    """Make a group, where there is none, from the stream's beginning: entries may have come before it."""
    try:
        connection.xgroup_create(stream, group, id="0", mkstream=True)
    except redis.ResponseError as error:
        if "BUSYGROUP" not in str(error):
            raise


def read_group(
    connection: redis.Redis,
    stream: str,
    group: str,
    member: str,
    position: str = NEW,
    *,
    count: int,
    wait_seconds: float | None = None,
) -> list[Entry]:
    """Read entries, oldest first.

    Args:
        connection: A Redis that speaks bytes.
        stream: Its key.
        group: The group's name.
        member: The member's name.
        position: `NEW` or `HELD`.
        count: At most so many.
        wait_seconds: How long to wait for a new one; None does not wait.
    """
    # 0 would wait for ever.
    block = None if wait_seconds is None else max(1, int(wait_seconds * 1000))
    reply: Any = connection.xreadgroup(group, member, {stream: position}, count=count, block=block)
    # As redis-py answers under RESP2, or under RESP3, which puts a batch of entries into one more list.
    streams = reply.values() if isinstance(reply, dict) else [entries for _, entries in reply or []]
    flat = [entry for entries in streams for entry in entries]
    pairs = [entry for batch in flat for entry in (batch if isinstance(batch, list) else [batch])]
    return [(entry_id, fields or {}) for entry_id, fields in pairs]
