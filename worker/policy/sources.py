"""Where policies come from, told apart by one setting: a directory, or the fleet's registry in Redis.

In: `SLUICE_POLICIES`. Out: `PolicySource`: loads a set, and says when it is worth loading again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import redis
from watchfiles import watch

from worker.policy.fleet import Fleet
from worker.policy.registry import PolicySet, load_directory

#: What `SLUICE_POLICIES` says for the registry.
REDIS = "redis"
#: Longest time between looks, in seconds.
_LOOK_SECONDS = 0.25


class PolicySource(Protocol):
    """Where policies come from."""

    def load(self) -> PolicySet:
        """Read all of it.

        Raises:
            PolicyMissing: There is none.
            PolicyInvalid: Every error in all of it.
            redis.RedisError: Redis does not answer.
        """

    def mark(self) -> object:
        """Return what differs when there may be something new; cheap.

        Raises:
            redis.RedisError: Redis does not answer.
        """

    def wait(self, stop: threading.Event) -> None:
        """Wait a moment, or less where something happens."""


class DirectorySource:
    """A directory of `<id>/v<N>.yaml` files, which somebody edits, git pulls, or Kubernetes swaps.

    Args:
        directory: Which.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._events: Iterator[object] | None = None

    def load(self) -> PolicySet:
        """Read the directory; see `load_directory`."""
        return load_directory(self._directory)

    def mark(self) -> object:
        """Return every file's place, size and times: what a swapped symbolic link changes too."""
        found: list[object] = [os.path.realpath(self._directory)]
        for file in sorted([*self._directory.glob("*"), *self._directory.glob("*/*")]):
            with suppress(OSError):
                about = file.stat()
                found.append((str(file), about.st_ino, about.st_size, about.st_mtime_ns))
        return tuple(found)

    def wait(self, stop: threading.Event) -> None:
        """Wait for an event of the file system, or a moment: a swapped directory, and some mounts, tell none."""
        try:
            if self._events is None:
                self._events = watch(
                    self._directory, watch_filter=None, debounce=100, step=20, stop_event=stop,
                    rust_timeout=int(_LOOK_SECONDS * 1000), yield_on_timeout=True, raise_interrupt=False,
                )  # fmt: skip
            next(self._events)
        except (OSError, RuntimeError, StopIteration):
            # It is not there, or cannot be watched; looked at it is all the same.
            self._events = None
            stop.wait(_LOOK_SECONDS)


class RedisSource:
    """The fleet's registry.

    Args:
        connection: To its Redis; without patience, for whoever waits must be able to leave.
    """

    def __init__(self, connection: redis.Redis) -> None:
        self._fleet = Fleet(connection)

    def load(self) -> PolicySet:
        """Read the registry; see `Fleet.load`."""
        return self._fleet.load()

    def mark(self) -> object:
        """Return the registry's revision."""
        return self._fleet.revision()

    def wait(self, stop: threading.Event) -> None:
        """Wait a moment."""
        stop.wait(_LOOK_SECONDS)
