"""Jobs in a worker's hands: taken from queues, kept alive, given back; each step is one Lua script in one round trip.

In: queues. Out: `Claim`s, which RQ's own tools see as started jobs. Never a moment at which a crash could lose a job.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import redis
from rq import Queue
from rq.defaults import RQ_KEY_PREFIX
from rq.job import Job
from rq.utils import utcformat

from worker.connection import Script
from worker.errors import JobInvalid
from worker.runtime.hashes import heeded

_SCRIPTS = Path(__file__).parent / "lua"
#: Redis sorted set: worker names by the Unix time at which their leases end.
LEASES = "sluice:leases"
#: Redis hashes, before a worker's name: what it holds.
HELD_PREFIX = "sluice:held:"
#: Field of a job's hash: how many workers died while they held it.
DEATHS = b"sluice_deaths"
#: Field that the claim puts in the place of what it left in Redis.
_HEAVY = b"sluice_is_heavy"
_WRITTEN_BY_WORKERS = frozenset({b"status", b"worker_name", b"started_at", b"ended_at", b"last_heartbeat"})
#: Bytes of a job's hash beside its data: times, names, `meta`.
_MAX_OTHER_BYTES = 1024 * 1024
#: One claim in so many begins with a lower queue, in turn: the lower ones are never starved.
TURN = 16


#: What RQ's keys, its jobs' keys and its queues' keys start with.
Prefixes = tuple[str, str, str]


def prefixes_of(job_class: type[Job], queue_class: type[Queue]) -> Prefixes:
    """Return what the scripts put before ids and names; classes of jobs and queues may have prefixes of their own."""
    return RQ_KEY_PREFIX, job_class.redis_job_namespace_prefix, queue_class.redis_queue_namespace_prefix


def read_script(connection: redis.Redis, name: str) -> Script:
    """Return a script of `lua/`."""
    return Script(connection, (_SCRIPTS / f"{name}.lua").read_text(encoding="utf-8"))


@dataclass(slots=True)
class Claim:
    """One job that this worker has started."""

    job_id: str
    #: Name of the queue that it was taken from.
    queue: str
    execution_id: str
    #: The job's hash in Redis, as it was before it was started, less what cannot be heeded.
    fields: dict[bytes, bytes]
    #: Unix time of the claim, in seconds.
    began: float
    #: What ended it before its image was looked at: a time-out, an operator, a crash; None while it shall be judged.
    error: BaseException | None = None
    #: How often the horse died while it ran this job alone.
    lone_deaths: int = field(default=0)
    #: Fields of the hash that cannot be heeded: they leave Redis when the job ends, or is tried again.
    refused: list[bytes] = field(default_factory=list)

    @classmethod
    def from_hash(cls, job_id: str, queue: str, execution_id: str, raw: Mapping[bytes, bytes], began: float) -> Claim:
        """Claim a job by its hash as it lies in Redis; one that is too large has ended already."""
        fields, refused = heeded(raw)
        stale = [name for name in refused if name not in _WRITTEN_BY_WORKERS]
        claim = cls(job_id, queue, execution_id, fields, began, refused=stale)
        if fields.pop(_HEAVY, None):
            claim.error = JobInvalid("invalid job: larger than a job may be in Redis; see SLUICE_IMAGE_MAX_BYTES")
        return claim

    @property
    def member(self) -> str:
        """Its entry in RQ's StartedJobRegistry."""
        return f"{self.job_id}:{self.execution_id}"

    @property
    def began_at(self) -> datetime:
        """When it was started."""
        return datetime.fromtimestamp(self.began, UTC)

    @property
    def deaths(self) -> int:
        """How many workers died while they held this job; after the first, it runs alone."""
        return int(self.fields.get(DEATHS) or 0)

    @property
    def timeout_seconds(self) -> float:
        """How long it may run; infinite where it says -1, or nothing that can be read."""
        seconds = int(self.fields.get(b"timeout") or -1)
        return seconds if seconds > 0 else float("inf")

    @property
    def queue_seconds(self) -> float:
        """How long it waited; 0 where the clocks disagree, or its hash does not say."""
        try:
            enqueued = datetime.fromisoformat(self.fields.get(b"enqueued_at", b"").decode())
        except ValueError:
            return 0.0
        return max(0.0, self.began - enqueued.timestamp())


class Hands:
    """Claims jobs for one worker, renews its lease on them, and gives them back.

    Args:
        connection: Of the worker.
        worker: Its name in RQ.
        lease_seconds: Another worker takes over what this one holds when it has been silent for so long.
        interval_seconds: RQ's heartbeat interval.
        prefixes: See `prefixes_of`.
        max_data_bytes: Of a job whose data is larger, nothing is read.
    """

    def __init__(
        self,
        connection: redis.Redis,
        worker: str,
        lease_seconds: float,
        interval_seconds: int,
        prefixes: Prefixes,
        max_data_bytes: int,
    ) -> None:
        self._connection = connection
        self._worker = worker
        self._lease_seconds = lease_seconds
        self._interval_seconds = interval_seconds
        self._prefixes = prefixes
        self._limits = (max_data_bytes, _MAX_OTHER_BYTES)
        self._claim, self._renew, self._recover = (read_script(connection, n) for n in ("claim", "renew", "recover"))
        self._claims = 0
        #: Ids of the executions of a claim whose answer has not come.
        self._asked: list[str] = []

    def claim(self, queues: Sequence[str], wanted: int, held: int = 0) -> tuple[list[Claim], list[str]]:
        """Start up to `wanted` jobs, without waiting for any.

        Args:
            queues: Names, first served first; one claim in sixteen begins with a lower one.
            wanted: How many.
            held: How many the worker has already; a job that is to run alone waits until there are none.

        Returns:
            The jobs that were started, and what was on a queue without being a job: it is dropped.
        """
        self._claims += 1
        names = self._in_turn(queues)
        now = datetime.now(UTC)
        # A claim whose answer was lost is made again, and answered again: else nobody would know of its jobs.
        executions = self._asked = self._asked or [uuid4().hex for _ in range(wanted)]
        keys = [self._prefixes[2] + name for name in names]
        arguments = [*self._prefixes, self._worker, len(executions), *self._stamps(now), self._interval_seconds]
        started, dropped = self._claim(keys, [*arguments, self._lease_seconds, held, *self._limits, *executions])
        self._asked = []
        claims = [
            Claim.from_hash(
                job_id.decode(),
                names[number - 1],
                execution.decode(),
                dict(zip(flat[::2], flat[1::2], strict=True)),
                now.timestamp(),
            )
            for number, job_id, execution, flat in started
        ]
        return claims, [ascii(name.decode(errors="backslashreplace")) for name in dropped]

    def renew(self, claims: Iterable[Claim]) -> bool:
        """Renew the lease, and RQ's heartbeats of some claims.

        Returns:
            Whether the lease had held until now; if not, another worker may have taken over.
        """
        flat = [part for claim in claims for part in (claim.job_id, claim.execution_id, claim.queue)]
        head = [*self._prefixes, self._worker, self._lease_seconds, *self._stamps(datetime.now(UTC))]
        return bool(self._renew((), [*head, self._interval_seconds, *flat]))

    def members(self) -> set[str]:
        """Return the entries of all that Redis says this worker holds; see `Claim.member`."""
        held: Any = self._connection.hkeys(HELD_PREFIX + self._worker)
        return {member.decode() for member in held}

    def give_back(self, members: Iterable[str] = ()) -> list[str]:
        """Put what is held back to the front of its queue: everything, or some; the ids of the jobs."""
        return self._call_recover(self._worker, 0, members)

    def recover_dead(self) -> dict[str, list[str]]:
        """Put back what workers hold whose lease has run out.

        Returns:
            Names of the dead, and the ids of the jobs that each had.
        """
        seconds, microseconds = self._connection.time()
        ended: Any = self._connection.zrangebyscore(LEASES, "-inf", seconds + microseconds / 1e6)
        names = [name.decode() for name in ended if name.decode() != self._worker]
        return {name: self._call_recover(name, 1) for name in names}

    def sign_off(self) -> None:
        """Say that this worker holds nothing any more, and will not."""
        self._connection.zrem(LEASES, self._worker)

    def _call_recover(self, worker: str, deaths: int, members: Iterable[str] = ()) -> list[str]:
        back = self._recover((), [*self._prefixes, worker, deaths, *members])
        return [job_id.decode() for job_id in back or ()]

    def _in_turn(self, queues: Sequence[str]) -> list[str]:
        turn, place = divmod(self._claims, TURN)
        if place or len(queues) < 2:  # noqa: PLR2004 - a lower one
            return list(queues)
        first = queues[1 + turn % (len(queues) - 1)]
        return [first, *(name for name in queues if name != first)]

    @staticmethod
    def _stamps(now: datetime) -> tuple[float, str]:
        return now.timestamp(), utcformat(now)
