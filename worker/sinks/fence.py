"""Appends to streams that ride in RQ's own transaction, each at most once for an end of a job.

In: an XADD, and what must still be in the worker's hands. Out: the same as a script. Which stream is the sinks' matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# Written only while the worker still holds the execution: the same transaction takes it out of its hands, so the same
# end of a job, sent twice over a broken connection, pushes once.
_PUSH_ONCE = """
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then return false end
return redis.call('XADD', KEYS[1], unpack(ARGV, 2))
"""


@dataclass(frozen=True, slots=True)
class Fence:
    """What must still be there for a push: a field of a hash in Redis."""

    key: str
    field: str


def append(connection: Any, command: Sequence[Any], fence: Fence | None) -> None:
    """Send an XADD.

    Args:
        connection: A `redis.Redis`, or a pipeline whose transaction the push joins.
        command: `XADD`, the stream, and the rest.
        fence: Push only while this is there.
    """
    name, stream, *rest = command
    if fence is None:
        connection.execute_command(name, stream, *rest)
    else:
        connection.eval(_PUSH_ONCE, 2, stream, fence.key, fence.field, *rest)
