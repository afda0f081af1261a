"""The pytest plugin of a run: puts a worker class in the place of RQ's, and writes down how each test ended.

In: CONFORMANCE_WORKER (a dotted path; empty for RQ's own classes), CONFORMANCE_DONE (a file of test ids to leave out),
CONFORMANCE_JOURNAL. Out: one JSON line as a test begins and one as it ends, so that a reader knows where a run died.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import pytest
import rq
import rq.worker
import rq.worker.worker_classes
import rq.worker_pool

#: The classes whose place is taken.
NAMES = ("Worker", "SimpleWorker")
_HOLDERS = (rq, rq.worker, rq.worker.worker_classes, rq.worker_pool)


class BadWorker(Exception):
    """The dotted path leads to no worker class."""


def load(dotted: str) -> type[rq.worker.BaseWorker]:
    """Return the class of a dotted path.

    Raises:
        BadWorker: There is none.
    """
    module, _, name = dotted.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise BadWorker(f"{dotted}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, rq.worker.BaseWorker)):
        raise BadWorker(f"{dotted} is no worker class of RQ")
    return found


def swap(ours: type[rq.worker.BaseWorker]) -> None:
    """Put `ours` wherever RQ says Worker or SimpleWorker: in its modules and in the defaults of its functions."""
    stock = {getattr(rq, name) for name in NAMES}
    for holder in _HOLDERS:
        for name in NAMES:
            if hasattr(holder, name):
                setattr(holder, name, ours)
    for function in (rq.worker_pool.WorkerPool.__init__, rq.worker_pool.run_worker):
        function.__defaults__ = tuple(ours if value in stock else value for value in function.__defaults__ or ())
        function.__kwdefaults__ = {
            key: ours if value in stock else value for key, value in (function.__kwdefaults__ or {}).items()
        } or None


class Journal:
    """Writes what happens, by the process that collected the tests alone: those that tests fork are not heard."""

    def __init__(self, path: Path, done: set[str]) -> None:
        self._path = path
        self._done = done
        self._pid = os.getpid()
        self._ends: dict[str, tuple[str, str]] = {}
        self._since = 0.0

    def _write(self, **line: Any) -> None:
        if os.getpid() == self._pid:
            with self._path.open("a") as file:
                file.write(json.dumps(line) + "\n")

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Leave out what an earlier process of this run did."""
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid in self._done])
        items[:] = [item for item in items if item.nodeid not in self._done]

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a module that cannot be imported: all its tests fail."""
        if report.failed:
            self._write(test=report.nodeid, end="failed", why=_last_line(report), seconds=0)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Note which test begins."""
        self._ends[nodeid] = ("passed", "")
        self._since = time.monotonic()
        self._write(test=nodeid, end=None)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the worst of set-up, call, subtests and tear-down."""
        if report.failed:
            self._ends[report.nodeid] = ("failed", _last_line(report))
        elif report.skipped and self._ends[report.nodeid][0] == "passed":
            self._ends[report.nodeid] = ("skipped", _last_line(report))

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Write how the test ended."""
        end, why = self._ends.pop(nodeid)
        self._write(test=nodeid, end=end, why=why, seconds=time.monotonic() - self._since)

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Write that every test had its turn: a process may end with 0 before that."""
        if exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED}:
            self._write(test=None, end="complete")


def _last_line(report: pytest.TestReport | pytest.CollectReport) -> str:
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2])
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(crash.message if crash else report.longrepr).strip().partition("\n")[0][:300]


def pytest_configure(config: pytest.Config) -> None:
    """Swap the classes before the tests import them."""
    # Where Python's default is another, a child would import RQ anew, with its own classes.
    multiprocessing.set_start_method("fork", force=True)
    dotted = os.environ["CONFORMANCE_WORKER"]
    if dotted:
        swap(load(dotted))
    done = set(Path(os.environ["CONFORMANCE_DONE"]).read_text().splitlines())
    config.pluginmanager.register(Journal(Path(os.environ["CONFORMANCE_JOURNAL"]), done))
