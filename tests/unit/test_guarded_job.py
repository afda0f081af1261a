"""Which callbacks run: those that the operator allowed, and none that only looks like one of them."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import redis
from rq.job import Job
from rq.serializers import JSONSerializer

from worker.runtime.guarded_job import Callbacks, guarded

MODULE = """\
import os
from pathlib import Path

Path(__file__).with_name("imported").touch()

def told(job, connection, value): return None
class Box:
    @staticmethod
    def told(job, connection, value): return None
"""
#: Never connected to.
NOWHERE = redis.Redis(port=1)
NAMES = ("success_callback", "failure_callback", "stopped_callback")


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory on the path with a module `backend_calls`, which leaves a mark when it is imported."""
    (tmp_path / "backend_calls.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "backend_calls", raising=False)
    return tmp_path


def job_that_names(name: str, *allowed: str, **fields: bytes) -> Job:
    """Read a job from its hash, as a worker does."""
    job = guarded(Job, Callbacks(allowed), 1000)("job-1", connection=NOWHERE, serializer=JSONSerializer)
    names = {kind.encode() + b"_name": name.encode() for kind in NAMES}
    job.restore({b"data": b"[]", **names, **{key.encode(): value for key, value in fields.items()}})
    return job


def callbacks_of(job: Job) -> list[Any]:
    return [getattr(job, kind) for kind in NAMES]


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("backend_calls.told", ()),
        ("backend_calls.told", ("backend",)),
        ("backend_calls.told", ("backend_calls.tol",)),
        ("backend_calls.told", ("backend_calls.told.more",)),
        ("backend_calls.told", ("Backend_calls",)),
        ("os.system", ("backend_calls",)),
        ("eval", ("backend_calls",)),
        (".backend_calls.told", ("backend_calls",)),
        ("\n", ("backend_calls",)),
        ("backend_calls", ("backend_calls.told",)),
    ],
)
def test_a_callback_that_is_not_allowed_is_not_run_and_its_module_is_not_imported(
    directory: Path, name: str, allowed: tuple[str, ...]
) -> None:
    assert callbacks_of(job_that_names(name, *allowed)) == [None, None, None]
    assert not (directory / "imported").exists()


@pytest.mark.parametrize("allowed", [("backend_calls",), ("backend_calls.told", "other"), ("backend_calls.Box",)])
def test_a_callback_under_an_allowed_path_is_found_as_in_rq(directory: Path, allowed: tuple[str, ...]) -> None:
    name = "backend_calls.Box.told" if "backend_calls.Box" in allowed else "backend_calls.told"
    found = callbacks_of(job_that_names(name, *allowed))
    assert [callback.__name__ for callback in found] == ["told"] * 3


@pytest.mark.parametrize("name", ["backend_calls.os.system", "backend_calls.Path.unlink", "backend_calls.os.remove"])
def test_what_an_allowed_module_has_only_imported_is_not_run(directory: Path, name: str) -> None:
    assert callbacks_of(job_that_names(name, "backend_calls")) == [None, None, None]


def test_a_refused_callback_keeps_its_name_for_whoever_reads_the_job_later(directory: Path) -> None:
    job = job_that_names("backend_calls.told")
    assert callbacks_of(job) == [None, None, None]
    assert job._success_callback_name == "backend_calls.told"


def test_each_refused_name_is_logged_once_and_a_flood_of_them_is_not(caplog: pytest.LogCaptureFixture) -> None:
    callbacks = Callbacks(())
    with caplog.at_level(logging.WARNING):
        for number in [0, 0, *range(1000)]:
            callbacks.choose(f"evil\n{number}", lambda: pytest.fail("imported"))
    assert len(caplog.messages) == 100
    assert caplog.messages[0] == "callback 'evil\\n0' is not run: it is not in SLUICE_CALLBACKS"


def test_webhooks_that_a_producer_asks_rq_for_are_not_heeded() -> None:
    hook = b'[{"url": "http://169.254.169.254/", "http_method": "GET", "job_status": "failed"}]'
    plain = Job("job-1", connection=NOWHERE, serializer=JSONSerializer)
    plain.restore({b"data": b"[]", b"webhooks": hook})
    assert plain.webhooks
    assert job_that_names("x", webhooks=hook).webhooks == []
