"""Fetches RQ's tests: they are in its source distribution, of the version that is installed.

In: a cache directory. Out: an unpacked copy that leaves nothing outside its directory. Nothing is fetched twice.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

#: Seconds for one download, which builds the package's metadata too.
_DOWNLOAD_SECONDS = 300
_SENTINELS = "/tmp/.rq_sentinel"


class NoSource(Exception):
    """The source distribution cannot be had, or has no tests in it."""


def unpack_tests(cache: Path, target: Path) -> None:
    """Put RQ's `tests` and its pytest settings into `target`.

    Args:
        cache: Where the source distribution is kept.
        target: An empty directory.

    Raises:
        NoSource: pip finds none, or it brings no tests.
    """
    archive = _archive(cache)
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            _, _, inner = member.name.partition("/")
            if inner == "pyproject.toml" or inner.startswith("tests/"):
                tar.extract(member.replace(name=inner), target, filter="data")
    if not (target / "tests" / "__init__.py").exists():
        raise NoSource(f"{archive.name} brings no tests")
    for module in (target / "tests").rglob("*.py"):
        # Files that tests leave for each other to find; those of an earlier run would make them fail.
        module.write_text(module.read_text().replace(_SENTINELS, str(target / _SENTINELS.rpartition("/")[2])))


def _archive(cache: Path) -> Path:
    wanted = version("rq")
    archive = cache / f"rq-{wanted}.tar.gz"
    if not archive.exists():
        cache.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        command += ["--no-binary", ":all:", "--no-deps", "--dest", str(cache), f"rq=={wanted}"]
        try:
            subprocess.run(command, check=True, timeout=_DOWNLOAD_SECONDS)
        except (subprocess.SubprocessError, OSError) as error:
            raise NoSource(f"pip cannot download the source of rq {wanted}; is a package index in reach?") from error
    if not archive.exists():
        raise NoSource(f"pip brought no {archive.name}")
    return archive
