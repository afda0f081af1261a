"""How far a fetch goes, and the one deadline that holds for all of it.

In: settings, work. Out: what the work returns in time. Never wait longer than the deadline, whatever hangs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from worker.addresses import CONNECT_TIMEOUT_SECONDS, MAX_REDIRECTS, PORTS, READ_TIMEOUT_SECONDS

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """How far a fetch goes."""

    max_bytes: int
    #: For one whole download, in seconds.
    timeout_seconds: float
    connect_seconds: float = CONNECT_TIMEOUT_SECONDS
    #: Longest silence in the middle of an answer, in seconds.
    read_seconds: float = READ_TIMEOUT_SECONDS
    max_redirects: int = MAX_REDIRECTS
    ports: tuple[int, ...] = PORTS
    allow_hosts: tuple[str, ...] = ()
    #: CIDRs, refused before anything is allowed.
    deny_networks: tuple[str, ...] = ()
    allow_private: bool = False
    #: Downloads at the same time; one that has to wait for its turn waits within its own deadline.
    at_once: int = 32
    #: What `path` refs must lie under; None refuses them.
    path_root: Path | None = None
    #: Buckets that `s3` refs may name; empty refuses them.
    s3_buckets: tuple[str, ...] = ()
    #: Where they are; None for AWS.
    s3_endpoint_url: str | None = None


async def within(seconds: float, work: Coroutine[object, object, _T]) -> _T:
    """Return what `work` returns.

    `asyncio.timeout` would wait for the end of what it cancels, and a name lookup ends when its server wants.

    Raises:
        TimeoutError: At once when it is late.
    """
    task = asyncio.ensure_future(work)
    done, _ = await asyncio.wait({task}, timeout=seconds)
    if not done:
        task.cancel()
        raise TimeoutError
    return task.result()
