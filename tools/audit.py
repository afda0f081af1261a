"""Known holes and licences of what Sluice brings along: `python -m tools.audit`, `make audit`.

In: the installed packages. Out: two tables, and an exit code: 0 all is well, 1 a hole or a licence outside the list,
3 the advisories could not be asked: what is not looked up is not well. Needs the network, so `make check` goes without.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

#: This distribution is on no index, and has no advisories there.
OWN = "sluicegate"
#: Extras that are deployed.
EXTRAS = ("", "demo", "s3")
#: Licences that may be shipped beside Apache-2.0, as the packages write them: a new spelling is looked at by a person.
ALLOWED = (
    "Apache 2.0 License", "Apache Software License", "Apache-2.0", "Apache-2.0 AND BSD-2-Clause",
    "Apache-2.0 AND Apache-2.0 WITH LLVM-exception AND BSD-2-Clause AND BSD-3-Clause AND BSL-1.0 AND MIT",
    "Apache-2.0 AND CNRI-Python", "Apache-2.0 OR BSD-2-Clause", "Apache-2.0 OR BSD-3-Clause", "BSD License",
    "BSD-2-Clause", "BSD-3-Clause", "BSD-3-Clause AND 0BSD AND MIT AND Zlib AND CC0-1.0", "ISC License (ISCL)", "MIT",
    "MIT License", "MIT-0", "MIT-CMU", "MPL-2.0", "MPL-2.0 AND MIT", "Mozilla Public License 2.0 (MPL 2.0)", "PSF-2.0",
)  # fmt: skip


def runtime_packages() -> list[str]:
    """Return what is installed because Sluice, without its extra `dev`, needs it."""
    found: set[str] = set()
    waiting = [(OWN, extra) for extra in EXTRAS]
    while waiting:
        name, extra = waiting.pop()
        try:
            lines = requires(name) or []
        except PackageNotFoundError:
            # Of another platform.
            found.discard(name)
            continue
        for line in lines:
            needed = Requirement(line)
            its_name = canonicalize_name(needed.name)
            if its_name in found or (needed.marker and not needed.marker.evaluate({"extra": extra})):
                continue
            found.add(its_name)
            waiting += [(its_name, more) for more in ("", *needed.extras)]
    return sorted(found)


def without_answer(report: dict[str, Any]) -> list[str]:
    """Return the packages of pip-audit's report about which nobody was able to say anything."""
    return [row["name"] for row in report["dependencies"] if "skip_reason" in row and row["name"] != OWN]


def with_holes(report: dict[str, Any]) -> list[str]:
    """Return one line for each known hole in pip-audit's report."""
    return [
        f"{row['name']} {row['version']}: {hole['id']}, mended in {', '.join(hole['fix_versions']) or 'nothing yet'}"
        for row in report["dependencies"]
        for hole in row.get("vulns", ())
    ]


def check_holes() -> int:
    """Ask for the known holes of all that is installed here."""
    command = [Path(sys.executable).with_name("pip-audit"), "--local", "--format", "json", "--progress-spinner", "off"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        report = json.loads(done.stdout)
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["pip-audit said nothing"])[-1]
        print(f"audit: the advisories could not be asked: {last}", file=sys.stderr)
        return 3
    holes, silent = with_holes(report), without_answer(report)
    asked = sum("skip_reason" not in row for row in report["dependencies"])
    print("\n".join(holes) or f"no known holes in {asked} packages")
    if silent:
        print(
            f"audit: of {len(silent)} packages the advisories are not known here: {', '.join(silent)}", file=sys.stderr
        )
    return 1 if holes else 3 if silent else 0


def check_licences() -> int:
    """Print the licences of all that is deployed, and refuse those that are not allowed."""
    command = [Path(sys.executable).with_name("pip-licenses"), "--from=mixed", "--order=license", "--with-urls"]
    packages = runtime_packages()
    allowed = f"--allow-only={';'.join(ALLOWED)}"
    done = subprocess.run([*command, allowed, "--packages", *packages], check=False)
    return 1 if done.returncode else 0


def main() -> int:
    """Check both; the exit code of the worse."""
    codes = [check_licences(), check_holes()]
    return 1 if 1 in codes else max(codes)


if __name__ == "__main__":
    sys.exit(main())
