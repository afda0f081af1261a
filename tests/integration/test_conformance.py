"""A run of tests against a worker class outlives what the tests do to their process."""

from __future__ import annotations

from pathlib import Path

import psutil

from tools.conformance.suite import Limits, Run, run_suite

SUITE = """\
import os
import subprocess
import time

import pytest
from redis import Redis
from rq import Queue, SimpleWorker
from rq.worker import Worker

pytestmark = pytest.mark.nightly


def greet():
    return "hello"


def run(kind):
    connection = Redis()
    connection.flushdb()
    job = Queue(connection=connection).enqueue("tests.test_jobs.greet")
    kind(["default"], connection=connection).work(burst=True)
    return job.latest_result()


@pytest.mark.parametrize("kind", [SimpleWorker, Worker])
def test_result(kind):
    assert run(kind).return_value == "hello"


def test_command():
    subprocess.run(["rqworker", "--burst"], check=True)


def test_steady():
    pass


def test_skipped():
    pytest.skip("not here")
"""
HOSTILE = """\
import os
import subprocess
import time


def test_before():
    pass


def test_exits():
    os._exit(0)


def test_hangs():
    time.sleep(1000)


def test_orphan():
    subprocess.Popen(["sh", "-c", "sleep 4711 & exec sleep 4711"], start_new_session=True)


def test_behind():
    pass
"""
FORGETFUL = '''\
from unittest import mock

import rq
from rq.results import Result


class Forgetful(rq.SimpleWorker):
    """Writes no results."""

    def handle_job_success(self, *args, **kwargs):
        with mock.patch.object(Result, "create"):
            super().handle_job_success(*args, **kwargs)
'''


def run_files(directory: Path, worker: str, **files: str) -> Run:
    (directory / "tests").mkdir()
    (directory / "tests" / "__init__.py").touch()
    for name, text in files.items():
        (directory / "tests" / f"{name}.py").write_text(text)
    (directory / "forgetful.py").write_text(FORGETFUL)
    run = run_suite(directory, worker, Limits(test_seconds=3, total_seconds=60))
    return Run({test.rpartition("::")[2]: end for test, end in run.ends.items()}, run.why, complete=run.complete)


def test_rq_s_own_classes_pass_what_they_should(tmp_path: Path) -> None:
    run = run_files(tmp_path, "", test_jobs=SUITE)
    assert run.complete
    assert run.ids("passed") == {"test_result[SimpleWorker]", "test_result[Worker]", "test_command", "test_steady"}
    assert run.ids("skipped") == {"test_skipped"}


def test_a_worker_that_forgets_results_takes_the_place_of_both_classes_and_is_found_out(tmp_path: Path) -> None:
    run = run_files(tmp_path, "forgetful.Forgetful", test_jobs=SUITE)
    assert run.complete
    assert run.ids("failed") == {"test_result[Forgetful0]", "test_result[Forgetful1]"}
    assert run.ids("passed") == {"test_command", "test_steady"}


def test_what_hangs_or_ends_its_process_fails_alone_and_leaves_no_process(tmp_path: Path) -> None:
    run = run_files(tmp_path, "", test_hostile=HOSTILE)
    assert run.complete
    assert run.ids("failed") == {"test_exits", "test_hangs"}
    assert run.ids("passed") == {"test_before", "test_orphan", "test_behind"}
    assert "took longer than 3 s" in run.why.values()
    assert not [process for process in psutil.process_iter(["cmdline"]) if "4711" in (process.info["cmdline"] or [])]


def test_a_class_that_is_not_there_gives_no_run(tmp_path: Path) -> None:
    run = run_files(tmp_path, "forgetful.Absent", test_jobs=SUITE)
    assert not run.complete
    assert not run.ends
