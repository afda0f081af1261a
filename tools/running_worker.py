"""A worker of one's own, started as everybody starts it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from worker.cli.embedded_redis import end

_READY_SECONDS, _POLL_SECONDS, _GOODBYE_SECONDS = 120.0, 0.2, 15.0


def environment(**settings: str) -> dict[str, str]:
    """Return the environment of a command: none of the caller's SLUICE_ variables, but these settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
    return kept | {f"SLUICE_{name.upper()}": value for name, value in settings.items()}


@contextmanager
def running_worker(home: Path, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Let `sluice work` run, in a directory that gets its log; it takes jobs when the context begins."""
    log = home / "worker.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "worker", "work"],
            cwd=home, env=dict(environment), stdout=file, stderr=file, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + _READY_SECONDS
        while "ready:" not in log.read_text():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the worker does not come up:\n{log.read_text()}")
            time.sleep(_POLL_SECONDS)
        yield process
    finally:
        end(process, _GOODBYE_SECONDS)
