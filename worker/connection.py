"""Opens Redis: for a worker that waits out an absence, and for a command that says at once what is missing.

In: a Redis URL. Out: a `redis.Redis` that speaks bytes. Never a connection that is shared with RQ's own time-outs by
accident: each caller gets a pool of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import redis
from redis.backoff import AbstractBackoff, NoBackoff
from redis.connection import parse_url
from redis.exceptions import NoScriptError
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelManagedConnection, SentinelManagedSSLConnection

from worker.errors import RedisUnreachable, UsageError

_FIRST_WAIT_SECONDS = 0.05
_LONGEST_WAIT_SECONDS = 2.0
#: About four minutes of `_LONGEST_WAIT_SECONDS`.
_PATIENT_RETRIES = 120
#: How the URL of a service begins whose master sentinels name.
SENTINEL = "sentinel://"
_SENTINEL_PORT = 26_379
_SENTINEL_SECONDS = 1.0
#: Options of a rediss:// URL that name files.
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")


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


class PatientRetry(Retry):
    """Waits out a change of masters too: one that is none any more, or has no replica yet, refuses to write."""

    def call_with_retry(self, do: Callable[[], Any], *arguments: Any, **more: Any) -> Any:
        """Call until it succeeds, or patience ends."""

        def do_or_lose_the_connection() -> Any:
            try:
                return do()
            except redis.ResponseError as error:
                if isinstance(error, redis.ReadOnlyError) or "NOREPLICAS" in str(error):
                    raise redis.ConnectionError(str(error)) from error
                raise

        return super().call_with_retry(do_or_lose_the_connection, *arguments, **more)


class _MasterConnection(SentinelManagedConnection):
    """Asks the sentinels each time that it connects.

    redis-py's own asks them once, and goes back to the same address for as long as it tries one command again
    (redis-py 8.1, issue 3874).
    """

    def connect_check_health(self, check_health: bool = True, retry_socket_connect: bool = True) -> None:
        if not self._sock:
            self.host, self.port = self.connection_pool.get_master_address()
        super().connect_check_health(check_health, retry_socket_connect)


class _MasterSSLConnection(_MasterConnection, SentinelManagedSSLConnection):
    """The same over TLS."""


class Script:
    """A script that Redis keeps, whoever is Redis when it is called.

    redis-py's own loads a script that is missing and calls it again: one Redis may learn it and go away, and another,
    or the same one started anew, be asked for it. Here the second call carries the script.

    Args:
        connection: A Redis that speaks bytes.
        source: Lua.
    """

    def __init__(self, connection: redis.Redis, source: str) -> None:
        self._connection = connection
        self._source = source
        self._digest = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Run it.

        Raises:
            redis.RedisError: Redis is away, or the script failed.
        """
        operands = (len(keys), *keys, *arguments)
        try:
            return self._connection.evalsha(self._digest, *operands)
        except NoScriptError:
            return self._connection.eval(self._source, *operands)


def open_redis(url: str, backoff: PatientBackoff | None = None, answer_seconds: float | None = None) -> redis.Redis:
    """Open a pool of connections; nothing is sent yet.

    Args:
        url: redis://, rediss:// or unix://; options of redis-py follow a `?`, `ssl_ca_certs` for one. Or
            sentinel://HOST:PORT,HOST:PORT/SERVICE/DATABASE: the master of a service, whoever that is at the moment.
        backoff: Wait and try again while Redis is away; None fails at once.
        answer_seconds: Longest wait for an answer; None waits, as blocking reads must.

    Raises:
        UsageError: The URL cannot be read, or names a file of certificates that is not there.
    """
    options: dict[str, Any] = {
        "retry": PatientRetry(backoff, _PATIENT_RETRIES) if backoff else Retry(NoBackoff(), 1),
        "socket_connect_timeout": min(5.0, answer_seconds or 5.0),
        "socket_timeout": answer_seconds,
        "health_check_interval": 30,
    }
    try:
        connection = _open_master(url, options) if url.startswith(SENTINEL) else redis.Redis.from_url(url, **options)
        # Else an option that redis-py does not know is found at the first command.
        connection.connection_pool.connection_class(**connection.connection_pool.connection_kwargs)
    except (ValueError, TypeError, redis.RedisError) as error:
        raise UsageError(f"SLUICE_REDIS_URL cannot be read: {error}") from error
    for option in _FILES:
        file = connection.connection_pool.connection_kwargs.get(option)
        if file and not Path(file).is_file():
            raise UsageError(f"SLUICE_REDIS_URL: {option}={file} is no file")
    return connection


def _open_master(url: str, options: Mapping[str, Any]) -> redis.Redis:
    """Open a pool of connections to the master of a service, which sentinels name.

    Raises:
        ValueError: The URL cannot be read.
    """
    parts = urlsplit(url)
    login, _, hosts = parts.netloc.rpartition("@")
    service, _, database = parts.path.strip("/").partition("/")
    addresses = [_address(host) for host in hosts.split(",")]
    if not service:
        raise ValueError("no service; write sentinel://HOST:26379,HOST:26379/SERVICE")
    query = dict(parse_qsl(parts.query))
    asking = {name: query.pop(f"sentinel_{name}") for name in ("username", "password") if f"sentinel_{name}" in query}
    # What redis-py makes of an ordinary URL with the same login, database and options.
    is_tls = query.pop("ssl", "").lower() in ("true", "1", "yes")
    alike = f"{'rediss' if is_tls else 'redis'}://{login}{'@' if login else ''}host/{database}?{urlencode(query)}"
    given = parse_url(alike)
    for name in ("host", "connection_class"):
        given.pop(name, None)
    encrypted = {"ssl": True} | {name: value for name, value in query.items() if name.startswith("ssl_")}
    sentinels = Sentinel(
        addresses,
        # Whoever must know soon who is master asks the next sentinel soon.
        sentinel_kwargs={"socket_timeout": _SENTINEL_SECONDS, "socket_connect_timeout": _SENTINEL_SECONDS}
        | (encrypted if is_tls else {})
        | asking,
    )
    own = _MasterSSLConnection if is_tls else _MasterConnection
    master: redis.Redis = sentinels.master_for(service, connection_class=own, **(dict(options) | given))
    return master


def _address(host: str) -> tuple[str, int]:
    parts = urlsplit(f"//{host}")
    if not parts.hostname:
        raise ValueError("a sentinel without a host; write sentinel://HOST:26379,HOST:26379/SERVICE")
    return parts.hostname, parts.port or _SENTINEL_PORT


def require_redis(connection: redis.Redis, shown_url: str) -> None:
    """Make sure that Redis answers.

    Raises:
        RedisUnreachable: It does not; names the mend.
    """
    try:
        connection.ping()
    except (redis.AuthenticationError, redis.exceptions.NoPermissionError) as error:
        raise RedisUnreachable(
            f"Redis at {shown_url} refuses this user ({error}); docs/security.md lists the rights that are needed"
        ) from error
    except redis.RedisError as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            why = str(error).partition("CERTIFICATE_VERIFY_FAILED] ")[2].partition(" (_ssl")[0]
            raise RedisUnreachable(
                f"Redis at {shown_url} is not trusted ({why}); name the file of its authority in SLUICE_REDIS_URL, "
                "?ssl_ca_certs=FILE, and the host that its certificate is for"
            ) from error
        raise RedisUnreachable(
            f"Redis at {shown_url} does not answer ({error}); start one, or set SLUICE_REDIS_URL"
        ) from error
