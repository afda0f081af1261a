"""Takes verdicts over from the stream into the outbox, as a consumer group.

In: the stream `sluice:verdicts`. Out: deliveries in the outbox. An entry is acknowledged in the step that puts it
there, so nothing is lost, and no endpoint, however slow, holds the stream up.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import redis

from worker.sinks.outbox import Incoming, Outbox
from worker.sinks.stream import STREAM

log = logging.getLogger(__name__)

#: Consumer group of the stream, and the one name of all its consumers: what one of them dies with, any other takes.
GROUP = "sluice:deliver"
_CONSUMER = "deliver"
_READ_AT_ONCE = 100
_BLOCK_SECONDS = 1.0
#: An entry that is read and not acknowledged for so long was read by a process that died.
_CLAIM_SECONDS = 5.0
_VERDICT_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


class Accepting(threading.Thread):
    """Accepts until it is told to end.

    Args:
        connection: A Redis that speaks bytes.
        outbox: Where verdicts go.
        url: Where verdicts are posted whose job names no URL of its own; None: nowhere.
        tell: Called with None when there is something new, or at the end, or with what ended the thread.
    """

    def __init__(
        self,
        connection: redis.Redis,
        outbox: Outbox,
        url: str | None,
        tell: Callable[[BaseException | None], None],
    ) -> None:
        super().__init__(name="accepting", daemon=True)
        self._connection = connection
        self._outbox = outbox
        self._url = url or ""
        self._tell = tell
        self._stopping = threading.Event()
        self._finishing = threading.Event()
        #: On the monotonic clock.
        self._next_claim = 0.0

    def stop(self) -> None:
        """End soon."""
        self._stopping.set()

    def finish(self) -> None:
        """End when the stream has been read."""
        self._finishing.set()

    def run(self) -> None:
        """Claim, read, accept."""
        try:
            self._create_group()
            while not self._stopping.is_set() and self._turn():
                pass
        except BaseException as error:
            self._tell(error)
        else:
            self._tell(None)

    def _turn(self) -> bool:
        """Accept what there is; False when that was the last."""
        try:
            if time.monotonic() >= self._next_claim:
                self._accept(self._claim())
                self._next_claim = time.monotonic() + _CLAIM_SECONDS
            is_finishing = self._finishing.is_set()
            entries = self._read(0.001 if is_finishing else _BLOCK_SECONDS)
        except redis.ResponseError as error:
            if not str(error).startswith(("NOGROUP", "UNBLOCKED")):
                raise
            # Somebody emptied Redis.
            self._create_group()
            return True
        self._accept(entries)
        return bool(entries) or not is_finishing

    def _create_group(self) -> None:
        try:
            self._connection.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
        except redis.ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    def _read(self, seconds: float) -> list[Any]:
        block = int(seconds * 1000)
        reply: Any = self._connection.xreadgroup(GROUP, _CONSUMER, {STREAM: ">"}, count=_READ_AT_ONCE, block=block)
        return _entries_in(reply)

    def _claim(self) -> list[Any]:
        reply: Any = self._connection.xautoclaim(
            STREAM, GROUP, _CONSUMER, min_idle_time=int(_CLAIM_SECONDS * 1000), count=_READ_AT_ONCE
        )
        # Redis 6.2 also gives those that were trimmed from the stream meanwhile, without fields.
        return [(entry_id, fields or {}) for entry_id, fields in reply[1]]

    def _accept(self, entries: Sequence[Any]) -> None:
        if entries:
            self._outbox.accept(STREAM, GROUP, [self._incoming(entry_id, fields) for entry_id, fields in entries])
            self._tell(None)

    def _incoming(self, entry_id: bytes, fields: dict[bytes, bytes]) -> Incoming:
        """Read an entry; one that is no verdict, or goes nowhere, is acknowledged and passed over."""
        body = fields.get(b"verdict", b"")
        url = fields.get(b"webhook", b"").decode(errors="replace") or self._url
        try:
            verdict_id = str(json.loads(body)["verdict_id"])
        except (ValueError, KeyError, TypeError, RecursionError):
            verdict_id = ""
        if not _VERDICT_ID.fullmatch(verdict_id):
            log.warning("entry %s of %s is no verdict; passed over", entry_id.decode(), STREAM)
            url = ""
        return Incoming(entry_id, url, verdict_id, body)


def _entries_in(reply: Any) -> list[Any]:
    """Return the entries in what redis-py makes of XREADGROUP's answer, under RESP2 or RESP3."""
    streams = reply.values() if isinstance(reply, dict) else [entries for _, entries in reply or []]
    flat = [entry for entries in streams for entry in entries]
    return [entry for batch in flat for entry in (batch if isinstance(batch, list) else [batch])]
