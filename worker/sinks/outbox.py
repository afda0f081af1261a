"""What is to be posted, kept in Redis: deliveries with the times of their next attempts, endpoints that are off.

In: entries of the verdict stream, and what came of each attempt. Out: deliveries that are due, leased to one taker.
Never in memory only: whoever is killed at any instruction loses nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, cast

import redis

from worker.connection import Script

#: Redis stream of what was given up.
DEAD = "sluice:webhooks:dead"
#: Why a delivery was given up: the field `reason` of its dead letter.
DEAD_REASONS: dict[str, str] = {
    "address_refused": "the URL points at an address, port or scheme that may not be posted to",
    "attempts_exhausted": "no attempt of the whole schedule was answered with 2xx",
    "endpoint_off": "the endpoint is switched off, by its own answer 410",
    "outbox_full": "so many verdicts wait for this endpoint, or for endpoints that do not answer, that no other may",
    "too_old": "the endpoint was behind for longer than the whole schedule",
}
_BASE = "sluice:webhooks:"
_OFF = _BASE + "off"
_SCRIPT = Path(__file__).parent / "lua" / "outbox.lua"
#: Endpoints of each standing that are looked at in one round trip. Those that are due and find no place have attempts
#: under way, or a standing whose places are all taken: twice as many as there are places is enough.
_AT_ONCE = 512
#: Endpoints that are shown, and dead letters that are read in one round trip.
_SHOWN = 1000
_READ_AT_ONCE = 100

#: How an endpoint stands: its last attempt arrived, it had none yet, or its last attempt failed.
Standing = Literal["well", "new", "failing"]
STANDINGS: tuple[Standing, ...] = ("well", "new", "failing")


@dataclass(frozen=True, slots=True)
class Incoming:
    """An entry of the verdict stream."""

    entry_id: bytes
    #: Where it is to be posted; empty: nowhere.
    url: str
    verdict_id: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Delivery:
    """One verdict on its way to one endpoint."""

    delivery_id: bytes
    endpoint: str
    url: str
    verdict_id: str
    body: bytes
    #: Attempts that failed.
    attempts: int
    #: Since it was taken over from the stream.
    age_seconds: float
    #: Whether its endpoint is switched off.
    is_off: bool


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint for which something waits, or that is switched off."""

    endpoint: str
    url: str
    #: A standing, or `off`.
    state: str
    waiting: int
    #: When it began to fail, or was switched off; None while it is well.
    since: str | None
    #: What it answered last.
    says: str


def endpoint_of(url: str) -> str:
    """Return the name of an endpoint: 128 bits of its URL's SHA-256, so that nobody can find a URL of the same name."""
    return hashlib.sha256(url.encode(errors="surrogatepass")).hexdigest()[:32]


class Outbox:
    """Keeps deliveries.

    Args:
        connection: A Redis that speaks bytes.
        maxlen: How many deliveries may wait for one endpoint, and how many dead letters Redis keeps, about.
    """

    def __init__(self, connection: redis.Redis, maxlen: int) -> None:
        self._connection = connection
        self._maxlen = maxlen
        self._script = Script(connection, _SCRIPT.read_text(encoding="utf-8"))

    def accept(self, stream: str, group: str, entries: list[Incoming]) -> tuple[int, int]:
        """Take entries over from a consumer group, which is told so in the same step.

        Returns:
            How many are to be posted, and how many became dead letters because too many wait; of an entry that was
            taken over before, nothing happens.
        """
        flat: list[Any] = []
        for entry in entries:
            flat += (entry.entry_id, endpoint_of(entry.url), entry.url, entry.verdict_id, entry.body)
        accepted, buried = self._call("accept", stream, group, self._maxlen, *flat)
        return int(accepted), int(buried)

    def due(self) -> tuple[dict[Standing, list[str]], float | None]:
        """Return the endpoints for which something is to do, and the seconds until there is more; None: never."""
        *found, seconds = self._call("due", _AT_ONCE)
        names = ([name.decode() for name in row] for row in found)
        wait = float(seconds)
        return dict(zip(STANDINGS, names, strict=True)), None if wait < 0 else wait

    def take(self, wanted: Mapping[str, int], lease_seconds: float) -> list[Delivery]:
        """Lease deliveries that are due.

        Args:
            wanted: Endpoint to how many at most.
            lease_seconds: For how long nobody else gets them.
        """
        flat = [part for pair in wanted.items() for part in pair]
        rows = self._call("take", lease_seconds, *flat) if flat else []
        return [
            Delivery(row[0], row[1].decode(), row[2].decode(), row[3].decode(), row[4], row[5], row[6], bool(row[7]))
            for row in rows
        ]

    def delivered(self, delivery: Delivery) -> None:
        """Forget a delivery that arrived."""
        self._call("delivered", delivery.delivery_id, delivery.endpoint)

    def retry(
        self, delivery: Delivery, wait_seconds: float, pause_seconds: float, first_pause_seconds: float, says: str
    ) -> None:
        """Keep a delivery for another attempt.

        Args:
            delivery: It.
            wait_seconds: Until then.
            pause_seconds: For how long its endpoint is left alone altogether.
            first_pause_seconds: The same for one that failed again and again; doubled with each further failure.
            says: Why.
        """
        waits = (delivery.attempts + 1, wait_seconds, pause_seconds, first_pause_seconds)
        self._call("retry", delivery.delivery_id, delivery.endpoint, *waits, says)

    def dead(self, delivery: Delivery, attempts: int, reason: str, says: str, switch_off: bool = False) -> None:
        """Give a delivery up: it becomes a dead letter.

        Args:
            delivery: It.
            attempts: How many there were.
            reason: A key of `DEAD_REASONS`.
            says: The same in words.
            switch_off: Also post nothing more to its endpoint.
        """
        since = datetime.now(UTC).isoformat(timespec="seconds")
        off = json.dumps({"url": delivery.url, "since": since, "says": says}) if switch_off else ""
        self._call("dead", delivery.delivery_id, delivery.endpoint, attempts, reason, says, self._maxlen, off)

    def replay(self) -> tuple[int, int]:
        """Put dead letters back, all but those of endpoints that are switched off.

        Returns:
            How many were put back, and how many stay.
        """
        back = stay = 0
        for entry_id in self._dead_entries():
            if self._call("replay", entry_id):
                back += 1
            else:
                stay += 1
        return back, stay

    def switch_on(self, name: str) -> bool:
        """Post to an endpoint again; False where it is not switched off.

        Args:
            name: Its URL, or its name.
        """
        return any(bool(self._call("switch_on", endpoint)) for endpoint in (name, endpoint_of(name)))

    def endpoints(self) -> Iterator[Endpoint]:
        """Yield the endpoints that are switched off, then those for which something waits, first due first."""
        off: Any = self._connection.hgetall(_OFF)
        for name, text in off.items():
            about = json.loads(text)
            waiting = int(self._connection.zcard(_BASE + "due:" + name.decode()))
            yield Endpoint(name.decode(), about["url"], "off", waiting, about["since"], about["says"])
        for standing in STANDINGS:
            names: Any = self._connection.zrange(f"{_BASE}endpoints:{standing}", 0, _SHOWN - 1)
            for name in names:
                if name not in off and (found := self._endpoint(name.decode(), standing)):
                    yield found

    def _endpoint(self, name: str, standing: Standing) -> Endpoint | None:
        first: Any = self._connection.zrange(_BASE + "due:" + name, 0, 0)
        url: Any = self._connection.hget(_BASE + "delivery:" + first[0].decode(), "url") if first else None
        if not url:
            return None
        waiting = int(self._connection.zcard(_BASE + "due:" + name))
        failing: Any = self._connection.hgetall(_BASE + "endpoint:" + name)
        since = failing.get(b"failing_since")
        shown = datetime.fromtimestamp(float(since), UTC).isoformat(timespec="seconds") if since else None
        return Endpoint(name, url.decode(), standing, waiting, shown, failing.get(b"says", b"").decode())

    def _dead_entries(self) -> Iterator[bytes]:
        """Yield the entries that there are now; what dies again meanwhile is not among them."""
        newest: Any = self._connection.xrevrange(DEAD, count=1)
        last = newest[0][0].decode() if newest else "0-0"
        position = "-"
        while entries := cast("list[Any]", self._connection.xrange(DEAD, position, last, count=_READ_AT_ONCE)):
            for entry_id, _ in entries:
                yield entry_id
                position = "(" + entry_id.decode()

    def _call(self, operation: str, *arguments: Any) -> Any:
        return self._script((), (operation, *arguments))
