"""The Redis Stream `sluice:ledger`: one entry for every verdict that an image was looked at for.

In: a `Verdict` and its embeddings as bytes. Out: an entry that rides in the transaction that pushes the verdict.
Never an entry without a verdict, and none for an image that could not be judged.
"""

from __future__ import annotations

import time
from typing import Any

import redis

from worker.ledger.entry import LEDGER, fields_of
from worker.records import Verdict
from worker.sinks.fence import Fence, append


class LedgerStream:
    """Pushes embeddings.

    Args:
        maxlen: How many entries Redis keeps, about; 0: nothing is ever written.
        ttl_seconds: For how long an entry stays; 0: until newer ones push it out.
    """

    def __init__(self, maxlen: int, ttl_seconds: int = 0) -> None:
        self._maxlen = maxlen
        self._ttl_seconds = ttl_seconds

    @property
    def is_off(self) -> bool:
        """Whether nothing is written."""
        return self._maxlen == 0

    def push(self, connection: Any, verdict: Verdict, embeddings: bytes, fence: Fence | None = None) -> None:
        """Append the entry of a verdict, if it has one.

        Args:
            connection: A pipeline whose transaction the push joins.
            verdict: What was said.
            embeddings: Of all views, little-endian float16; empty where the image was not looked at.
            fence: Push only while this is there.
        """
        for command in self.commands(verdict, embeddings):
            append(connection, command, fence)

    def commands(self, verdict: Verdict, embeddings: bytes) -> list[list[Any]]:
        """Return the Redis commands that append the entry, for a transaction that is not redis-py's: one, or none."""
        fields = [] if self.is_off else fields_of(verdict, embeddings)
        return [["XADD", LEDGER, "MAXLEN", "~", self._maxlen, "*", *fields]] if fields else []

    def trim(self, connection: redis.Redis) -> None:
        """Take off what is older than its time; nothing where the settings give it none."""
        if self._ttl_seconds:
            oldest = int((time.time() - self._ttl_seconds) * 1000)
            connection.xtrim(LEDGER, minid=oldest, approximate=False)
