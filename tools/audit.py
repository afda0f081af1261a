"""`make audit`: licences of everything that Sluice brings along, then known holes in it.

In: the environment that runs this. Out: a list, and exit code 0; 1 where a licence is not allowed or a hole is known;
3 where the service that knows of holes was not asked. Never silence in place of an answer.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

#: What ships: Sluice with the extras that a user may install.
ROOT, EXTRAS = "sluicegate", ("demo", "s3")
#: Parts of licence expressions that may ship, in lower case: permissive ones, and weak copyleft of libraries that are
#: imported unchanged.
ALLOWED = frozenset({
    "0bsd", "apache-2.0", "bsd-2-clause", "bsd-3-clause", "bsl-1.0", "cc0-1.0", "hpnd", "isc", "mit", "mit-0",
    "mit-cmu",
    "mpl-2.0", "psf-2.0", "python-2.0", "unlicense", "zlib", "libpng-2.0", "blessing", "cnri-python",
})  # fmt: skip
#: The same, as classifiers and older fields say it.
SPELLINGS: dict[str, str] = {
    "apache software license": "apache-2.0", "apache 2.0": "apache-2.0", "apache license 2.0": "apache-2.0",
    "apache 2.0 license": "apache-2.0", "apache license, version 2.0": "apache-2.0", "apache": "apache-2.0",
    "bsd": "bsd-3-clause", "bsd license": "bsd-3-clause", "bsd-3-clause license": "bsd-3-clause",
    "3-clause bsd license": "bsd-3-clause", "new bsd": "bsd-3-clause", "simplified bsd license": "bsd-2-clause",
    "mit license": "mit", "the mit license": "mit", "mozilla public license 2.0 (mpl 2.0)": "mpl-2.0",
    "python software foundation license": "psf-2.0", "isc license (iscl)": "isc",
    "the unlicense (unlicense)": "unlicense", "historical permission notice and disclaimer (hpnd)": "hpnd",
}  # fmt: skip
FOUND, NOT_ASKED = 1, 3
_LONGEST_FIELD = 200


def shipped(root: str = ROOT, extras: tuple[str, ...] = EXTRAS) -> dict[str, Distribution]:
    """Return the distributions that a package needs at run time on this machine, itself left out, by name."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(canonicalize_name(root), extra) for extra in ("", *extras)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            sys.exit(f"audit: {name} is needed and not installed; run make install")
        waiting += _needs(found[name], extra)
    found.pop(canonicalize_name(root))
    return dict(sorted(found.items()))


def _needs(package: Distribution, extra: str) -> Iterator[tuple[str, str]]:
    environment = {name: str(value) for name, value in default_environment().items()} | {"extra": extra}
    for line in package.requires or ():
        need = Requirement(line)
        if need.marker is None or need.marker.evaluate(environment):
            yield from ((canonicalize_name(need.name), one) for one in ("", *need.extras))


def licence_of(package: Distribution) -> str:
    """Return what a package says of its licence: the expression, else the classifiers, else the older field."""
    fields = package.metadata
    if expression := fields.get("License-Expression"):
        return str(expression)
    classifiers = [line.rpartition(" :: ")[2] for line in fields.get_all("Classifier") or () if "License ::" in line]
    if named := [name for name in classifiers if name != "OSI Approved"]:
        return " AND ".join(named)
    text = str(fields.get("License") or "").strip()
    first = text.splitlines()[0].strip() if text else ""
    return first if 0 < len(first) <= _LONGEST_FIELD else "unknown"


def is_allowed(licence: str) -> bool:
    """Whether a licence may ship: of alternatives one, of several that hold together each."""
    return all(_has_a_choice(part) for part in re.split(r"\s+and\s+", licence.lower()))


def _has_a_choice(part: str) -> bool:
    names = [re.sub(r"\s+with\s.*$", "", name.strip()) for name in re.split(r"\s+or\s+", part)]
    return any(SPELLINGS.get(name, name.strip("()")) in ALLOWED for name in names)


def refused(packages: Mapping[str, Distribution]) -> list[str]:
    """Print every package with its licence; return those whose licence may not ship."""
    bad = []
    for name, package in packages.items():
        licence = licence_of(package)
        mark = "ok" if is_allowed(licence) else "NOT ALLOWED"
        print(f"{mark:<12}{name} {package.version}: {licence}")
        if mark != "ok":
            bad.append(f"{name}: {licence}")
    return bad


def ask_of_holes(packages: Mapping[str, Distribution], pip_audit: str) -> int:
    """Ask pip-audit of exactly these versions.

    Args:
        packages: What ships.
        pip_audit: The command.

    Returns:
        The exit code.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        # A local build's suffix, as in torch's 2.9+cpu, is no version that anybody has reported on.
        file.write("".join(f"{name}=={package.version.partition('+')[0]}\n" for name, package in packages.items()))
        file.flush()
        command = [pip_audit, "--no-deps", "--disable-pip", "--progress-spinner", "off",
                   "--requirement", file.name]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(done.stdout, end="")
    said = done.stdout + done.stderr
    if re.search(r"Found \d+ known vulnerabilit", said):
        print(done.stderr, end="", file=sys.stderr)
        return FOUND
    # A mirror without this knowledge answers that it knows none of the packages, and pip-audit calls that good news.
    unknown = said.count("could not be audited")
    if unknown:
        print(f"audit: known holes were NOT looked for in {unknown} of {len(packages)} packages", file=sys.stderr)
        return NOT_ASKED
    if "No known vulnerabilities found" in said and done.returncode == 0:
        print(done.stderr, end="", file=sys.stderr)
        return 0
    why = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    print(f"audit: known holes were NOT looked for: {why[:300]}", file=sys.stderr)
    print("audit: reach the service of pip-audit, with the network on, and try again", file=sys.stderr)
    return NOT_ASKED


def main(pip_audit: str) -> int:
    """Print the list, ask, and return the exit code."""
    packages = shipped()
    bad = refused(packages)
    for line in bad:
        print(f"audit: licence not allowed: {line}; replace the package, or allow it in {Path(__file__).name}",
              file=sys.stderr)  # fmt: skip
    asked = ask_of_holes(packages, pip_audit)
    return FOUND if bad else asked


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
