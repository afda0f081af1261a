"""Opens Redis: for a worker that waits out an absence, and for a command that says at once what is missing.

In: a Redis URL. Out: a `redis.Redis` that speaks bytes. Never a connection that is shared with RQ's own time-outs by
accident: each caller gets a pool of its own.
"""

from __future__ import annotations

from typing import Any

import redis
from redis.backoff import AbstractBackoff, NoBackoff
from redis.retry import Retry

from worker.errors import RedisUnreachable, UsageError

_FIRST_WAIT_SECONDS = 0.05
_LONGEST_WAIT_SECONDS = 2.0
#: About four minutes of `_LONGEST_WAIT_SECONDS`.
_PATIENT_RETRIES = 120


class PatientBackoff(AbstractBackoff):
    """Waits a little longer each time, until it is told to hurry: then nothing is tried again."""

    def __init__(self) -> None:
        self._hurry = False

    def hurry(self) -> None:
        """Give up at the next failure, because the process is about to end."""
        self._hurry = True

    def compute(self, failures: int) -> float:
        """Return the seconds to wait after so many failures.

        Raises:
            redis.ConnectionError: In a hurry; redis-py passes it on as the end of its attempts.
        """
        if self._hurry:
            raise redis.ConnectionError("Redis does not answer, and the process is about to end")
        return min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2.0 ** min(failures, 10))

    def __deepcopy__(self, memo: dict[int, Any]) -> PatientBackoff:
        # redis-py copies the retry policy into every connection; all must hear `hurry`.
        return self


def open_redis(url: str, backoff: PatientBackoff | None = None, answer_seconds: float | None = None) -> redis.Redis:
    """Open a pool of connections; nothing is sent yet.

    Args:
        url: redis://, rediss:// or unix://.
        backoff: Wait and try again while Redis is away; None fails at once.
        answer_seconds: Longest wait for an answer; None waits, as blocking reads must.

    Raises:
        UsageError: The URL cannot be read.
    """
    retry = Retry(backoff, _PATIENT_RETRIES) if backoff else Retry(NoBackoff(), 1)
    try:
        return redis.Redis.from_url(
            url,
            retry=retry,
            socket_connect_timeout=min(5.0, answer_seconds or 5.0),
            socket_timeout=answer_seconds,
            health_check_interval=30,
        )
    except (ValueError, TypeError) as error:
        raise UsageError(f"SLUICE_REDIS_URL cannot be read: {error}") from error


def require_redis(connection: redis.Redis, shown_url: str) -> None:
    """Make sure that Redis answers.

    Raises:
        RedisUnreachable: It does not; names the mend.
    """
    try:
        connection.ping()
    except redis.RedisError as error:
        raise RedisUnreachable(
            f"Redis at {shown_url} does not answer ({error}); start one, or set SLUICE_REDIS_URL"
        ) from error
