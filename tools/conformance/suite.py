"""Runs a directory of tests against one worker class, whatever the tests do to their process.

In: a directory, a dotted path. Out: how each test ended. A test that hangs or takes its process with it is noted, and a
new process goes on behind it. No process is left when this returns, forked, spawned or orphaned.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

from worker.cli.embedded_redis import embedded_redis

_ROOT = Path(__file__).parents[2]
_POLL_SECONDS = 0.2
#: Silence that is not a test: collecting, leaving.
_IDLE_SECONDS = 60.0
#: A machine may be busier than it was.
_SLACK_SECONDS, _SLACK_FACTOR = 20.0, 3.0
_SET_CHILD_SUBREAPER = 36


@dataclass
class Run:
    """How the tests of one run ended.

    Attributes:
        ends: Test id → passed, failed or skipped.
        why: Test id → one line, of those that did not pass.
        seconds: Test id → how long it took.
        unsteady: Ids that failed first and passed when run again.
        complete: Whether every test had its turn.
    """

    ends: dict[str, str] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    unsteady: list[str] = field(default_factory=list)
    complete: bool = False

    def ids(self, end: str) -> set[str]:
        """Return the tests that ended so."""
        return {test for test, how in self.ends.items() if how == end}

    def record(self, test: str, end: str, why: str = "", seconds: float = 0.0) -> None:
        """Note one end."""
        self.ends[test] = end
        self.seconds[test] = seconds
        self.why.pop(test, None)
        if why:
            self.why[test] = why


@dataclass(frozen=True)
class Limits:
    """How long things may take.

    Attributes:
        test_seconds: For a test of which nothing is known.
        total_seconds: For a run.
        known_seconds: Test id → how long it took elsewhere; it gets a multiple of that.
    """

    test_seconds: float
    total_seconds: float
    known_seconds: Mapping[str, float] = field(default_factory=dict)

    def beside(self, run: Run) -> Limits:
        """Return the limits of a run that is compared with `run`."""
        return replace(self, known_seconds=run.seconds)

    def of(self, test: str | None) -> float:
        """Return the seconds for a test, or for what happens between two."""
        if test is None:
            return _IDLE_SECONDS
        known = self.known_seconds.get(test)
        return self.test_seconds if known is None else min(self.test_seconds, _SLACK_SECONDS + _SLACK_FACTOR * known)


def run_suite(directory: Path, worker: str, limits: Limits, select: Sequence[str] = ()) -> Run:
    """Run the tests of `directory` against a worker class; those that fail a second time, on their own.

    Args:
        directory: Has `tests` in it.
        worker: Dotted path of the class; empty for RQ's own.
        limits: For one test and for the whole.
        select: What pytest is to collect; everything without.
    """
    deadline = time.monotonic() + limits.total_seconds
    run = _run(directory, worker, limits, deadline, list(select) or ["tests"])
    failed = sorted(run.ids("failed"))
    collected = [test for test in failed if "::" in test]
    if run.complete and collected:
        again = _run(directory, worker, limits, deadline, collected)
        run.unsteady = sorted(set(collected) & again.ids("passed"))
        for test in run.unsteady:
            run.record(test, "passed", seconds=again.seconds[test])
    return run


def _run(directory: Path, worker: str, limits: Limits, deadline: float, select: list[str]) -> Run:
    run = Run()
    journal, done = directory / "journal", directory / "done"
    while not run.complete and time.monotonic() < deadline:
        before = len(run.ends)
        journal.write_text("")
        done.write_text("\n".join(run.ends))
        with embedded_redis() as (url, _), _no_child_left():
            environment = _environment(directory, worker, url.rpartition(":")[2].partition("/")[0])
            command = [sys.executable, "-m", "pytest", "-q", "-p", "tools.conformance.plugin"]
            command += ["-p", "no:cacheprovider", "-p", "no:timeout", "--continue-on-collection-errors", *select]
            with (directory / "log").open("ab") as log:
                process = subprocess.Popen(
                    command, cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    start_new_session=True,
                )  # fmt: skip
                reason = _watch(process, journal, limits, deadline)
        process.wait()
        _read(journal, run, reason)
        if not run.complete and len(run.ends) == before:
            break
    return run


def _environment(directory: Path, worker: str, port: str) -> dict[str, str]:
    # RQ's package of tests is called `tests`, as our directory is: it must be found first.
    paths = [Path(__file__).with_name("site"), directory, _ROOT, _ROOT / "tests"]
    environment = dict(os.environ) | {
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "CONFORMANCE_REDIS_PORT": port,
        "CONFORMANCE_WORKER": worker,
        "CONFORMANCE_JOURNAL": str(directory / "journal"),
        "CONFORMANCE_DONE": str(directory / "done"),
        "RUN_SLOW_TESTS_TOO": "1",
    }
    if worker:
        # The tests that start the command `rqworker`.
        environment["RQ_WORKER_CLASS"] = worker
    return environment


def _watch(process: subprocess.Popen[bytes], journal: Path, limits: Limits, deadline: float) -> str | None:
    """Wait for the end; return why it had to be brought about, or None."""
    size, since, test = -1, time.monotonic(), None
    while process.poll() is None:
        time.sleep(_POLL_SECONDS)
        text = journal.read_text()
        if len(text) != size:
            size, since = len(text), time.monotonic()
            last = json.loads(text.splitlines()[-1]) if text.endswith("\n") else {"end": ""}
            test = last["test"] if last["end"] is None else None
        limit = limits.of(test)
        if time.monotonic() - since > limit:
            return f"took longer than {limit:.0f} s" if test else "the process hung between tests"
        if time.monotonic() > deadline:
            return "the whole run took too long"
    return None


def _read(journal: Path, run: Run, reason: str | None) -> None:
    begun = None
    for line in journal.read_text().splitlines():
        entry = json.loads(line)
        begun = entry["test"] if entry["end"] is None else None
        if entry["test"] is None:
            run.complete = True
        elif not begun:
            run.record(entry["test"], entry["end"], entry["why"], entry["seconds"])
    if begun:
        run.record(begun, "failed", reason or "the process that ran it ended")


@contextmanager
def _no_child_left() -> Iterator[None]:
    """End every process that was started inside, also those whose parents are gone."""
    if sys.platform == "linux":
        # Orphans become children of this process, so that they can be found.
        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    me = psutil.Process()
    before = set(me.children(recursive=True))
    try:
        yield
    finally:
        while left := set(me.children(recursive=True)) - before:
            for process in left:
                try:
                    process.kill()
                except psutil.NoSuchProcess:
                    continue
            psutil.wait_procs(left, timeout=5)
