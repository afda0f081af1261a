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

import redis

from worker.sinks.outbox import Incoming, Outbox
from worker.sinks.stream import STREAM
from worker.streams import HELD, NEW, Entry, join_group, read_group

log = logging.getLogger(__name__)

#: Consumer group of the stream, and the one name of all its consumers: what one of them dies with, any other takes.
GROUP = "sluice:deliver"
_CONSUMER = "deliver"
_READ_AT_ONCE = 100
_BLOCK_SECONDS = 1.0
#: How often is looked for what others read and did not acknowledge, and for what the stream's limit took.
_LOOK_SECONDS = 5.0
_VERDICT_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
#: Characters; as in `worker.records.Subject`, for whoever adds to the stream besides workers.
_LONGEST_URL = 2048

#: Told an outcome and how often it came to that.
Count = Callable[[str, int], None]


class Accepting(threading.Thread):
    """Accepts until it is told to end.

    Args:
        connection: A Redis that speaks bytes.
        outbox: Where verdicts go.
        url: Where verdicts are posted whose job names no URL of its own; None: nowhere.
        count: Told of verdicts that are never tried.
        tell: Called with None when there is something new, or at the end, or with what ended the thread.
    """

    def __init__(
        self,
        connection: redis.Redis,
        outbox: Outbox,
        url: str | None,
        count: Count,
        tell: Callable[[BaseException | None], None],
    ) -> None:
        super().__init__(name="accepting", daemon=True)
        self._connection = connection
        self._outbox = outbox
        self._url = url or ""
        self._count = count
        self._tell = tell
        self._stopping = threading.Event()
        self._finishing = threading.Event()
        #: On the monotonic clock.
        self._next_look = 0.0

    def stop(self) -> None:
        """End soon."""
        self._stopping.set()

    def finish(self) -> None:
        """End when the stream has been read."""
        self._finishing.set()

    def run(self) -> None:
        """Read and accept."""
        try:
            join_group(self._connection, STREAM, GROUP)
            while not self._stopping.is_set() and self._turn():
                pass
        except BaseException as error:
            self._tell(error)
        else:
            self._tell(None)

    def _turn(self) -> bool:
        """Accept what there is; False when that was the last."""
        try:
            if time.monotonic() >= self._next_look:
                self._look_back()
                self._next_look = time.monotonic() + _LOOK_SECONDS
            is_finishing = self._finishing.is_set()
            entries = self._read(NEW, 0.001 if is_finishing else _BLOCK_SECONDS)
        except redis.ResponseError as error:
            if not str(error).startswith(("NOGROUP", "UNBLOCKED")):
                raise
            # Somebody emptied Redis.
            join_group(self._connection, STREAM, GROUP)
            return True
        self._accept(entries)
        return bool(entries) or not is_finishing

    def _look_back(self) -> None:
        """Accept what a process read that died before it could, and say what nobody will ever read."""
        self._say_lost(self._trimmed_unread())
        while entries := self._read(HELD, None):
            self._say_lost(sum(not fields for _, fields in entries))
            self._accept(entries)

    def _read(self, position: str, seconds: float | None) -> list[Entry]:
        return read_group(
            self._connection, STREAM, GROUP, _CONSUMER, position, count=_READ_AT_ONCE, wait_seconds=seconds
        )

    def _trimmed_unread(self) -> int:
        """Return how many entries the stream's limit has taken since the group read last.

        Redis before version 7 does not tell, and neither does a group that never read.
        """
        with self._connection.pipeline(transaction=True) as pipeline:
            pipeline.xinfo_stream(STREAM)
            pipeline.xinfo_groups(STREAM)
            stream, groups = pipeline.execute()
        read = next((group.get("entries-read") for group in groups if group["name"] == GROUP.encode()), None)
        added = stream.get("entries-added")
        return 0 if read is None or added is None else max(0, added - stream["length"] - read)

    def _say_lost(self, lost: int) -> None:
        if lost:
            self._count("lost", lost)
            log.error(
                "%d verdicts were trimmed off %s before they could be posted; raise SLUICE_VERDICT_STREAM_MAXLEN",
                lost, STREAM,
            )  # fmt: skip

    def _accept(self, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        _, buried = self._outbox.accept(
            STREAM, GROUP, [self._incoming(entry_id, fields) for entry_id, fields in entries]
        )
        if buried:
            self._count("dead", buried)
            log.warning("dead %d verdicts: too many wait for their endpoints; see sluice deliver --endpoints", buried)
        self._tell(None)

    def _incoming(self, entry_id: bytes, fields: dict[bytes, bytes]) -> Incoming:
        """Read an entry; one that is no verdict, or goes nowhere, is acknowledged and passed over."""
        body = fields.get(b"verdict", b"")
        url = fields.get(b"webhook", b"").decode(errors="replace") or self._url
        try:
            verdict_id = str(json.loads(body)["verdict_id"])
        except (ValueError, KeyError, TypeError, RecursionError):
            verdict_id = ""
        if not _VERDICT_ID.fullmatch(verdict_id) or len(url) > _LONGEST_URL:
            if fields:
                log.warning("entry %s of %s is no verdict; passed over", entry_id.decode(), STREAM)
            url = ""
        return Incoming(entry_id, url, verdict_id, body)
