"""A process counts the cores that it may use, not those that the machine has."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from worker.cores import usable_cores

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs sched_getaffinity")


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give this process eight cores of its own."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


V2 = {"proc/self/cgroup": "0::/a/b\n"}
V1 = {"proc/self/cgroup": "9:name=systemd:/\n4:memory:/x\n3:cpu,cpuacct:/a\n0::/\n"}


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        pytest.param({}, 8, id="no control groups"),
        pytest.param(V2, 8, id="a group without files"),
        pytest.param(V2 | {"sys/fs/cgroup/a/b/cpu.max": "max 100000\n"}, 8, id="no quota"),
        pytest.param(V2 | {"sys/fs/cgroup/a/b/cpu.max": "300000 100000\n"}, 3, id="its own quota"),
        pytest.param(V2 | {"sys/fs/cgroup/a/b/cpu.max": "370000 100000\n"}, 3, id="three cores and a part of one"),
        pytest.param(V2 | {"sys/fs/cgroup/a/b/cpu.max": "50000 100000\n"}, 1, id="half a core"),
        pytest.param(V2 | {"sys/fs/cgroup/a/b/cpu.max": "9900000 100000\n"}, 8, id="more than there are"),
        pytest.param(
            V2 | {"sys/fs/cgroup/a/b/cpu.max": "max 100000\n", "sys/fs/cgroup/a/cpu.max": "200000 100000\n"},
            2,
            id="the quota of the group above",
        ),
        pytest.param(V2 | {"sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2, id="a container that sees only the top"),
        pytest.param(V2 | {"sys/fs/cgroup/a/b/cpu.max": "nonsense\n"}, 8, id="a file that cannot be read"),
        pytest.param({"proc/self/cgroup": "nonsense\n"}, 8, id="groups that cannot be read"),
        pytest.param(
            V1
            | {"sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "250000\n", "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000\n"},
            2,
            id="version 1",
        ),
        pytest.param(
            V1 | {"sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000\n"},
            8,
            id="version 1 without a quota",
        ),
    ],
)
def test_cores_are_those_of_the_strictest_quota(files: dict[str, str], cores: int, tmp_path: Path) -> None:
    assert usable_cores(write(tmp_path, files)) == cores


def test_affinity_binds_where_it_is_stricter_than_the_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert usable_cores(write(tmp_path, V2 | {"sys/fs/cgroup/cpu.max": "400000 100000\n"})) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_this_machine_has_cores() -> None:
    assert 1 <= usable_cores() <= 8
