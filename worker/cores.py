"""How many cores this process may use.

In: the scheduler's affinity and the quotas of the control groups that the process is in. Out: a number, at least 1.
Never a core that belongs to somebody else: a container that is given two of 64 cores has two.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def usable_cores(root: Path = Path("/")) -> int:
    """Count the cores that this process may use; of a fraction of a core nothing.

    Args:
        root: Where `proc` and `sys` are.

    Source:
        Linux documentation: `sched_getaffinity(2)`, `cpu.max` of control groups 2, `cpu.cfs_quota_us` of version 1.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([float(cores), *_quotas(root)])))


def _quotas(root: Path) -> Iterator[float]:
    """Yield the quota, in cores, of each group that the process is in, the groups above it too."""
    with contextlib.suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                top, read = root / "sys/fs/cgroup", _read_max
            elif "cpu" in controllers.split(","):
                top, read = root / "sys/fs/cgroup/cpu", _read_cfs
            else:
                continue
            group = top / path.lstrip("/")
            for folder in (group, *group.parents):
                if folder.is_relative_to(top):
                    # In a container the path may be the host's, and only the top be there.
                    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
                        yield from read(folder)


def _read_max(folder: Path) -> Iterator[float]:
    quota, period = (folder / "cpu.max").read_text().split()
    if quota != "max":
        yield int(quota) / int(period)


def _read_cfs(folder: Path) -> Iterator[float]:
    quota = int((folder / "cpu.cfs_quota_us").read_text())
    if quota > 0:
        yield quota / int((folder / "cpu.cfs_period_us").read_text())
