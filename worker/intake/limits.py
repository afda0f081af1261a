"""How far a fetch goes.

In: settings. Out: numbers and lists. Never a limit that is not a setting.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from worker.addresses import CONNECT_TIMEOUT_SECONDS, MAX_REDIRECTS, PORTS, READ_TIMEOUT_SECONDS


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
