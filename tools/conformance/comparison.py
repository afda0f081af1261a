"""Sets two runs of the same tests side by side: RQ's own classes and ours.

In: two runs, the list of tests that cannot apply. Out: what is found, as text and as plain JSON. Nothing is run here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from tools.conformance.suite import Run


class BadList(Exception):
    """The list of tests that cannot apply is not as it should be."""


def read_list(path: Path) -> dict[str, str]:
    """Return test id → reason.

    Raises:
        BadList: A reason or a test is missing, or a test is named twice.
    """
    try:
        entries = yaml.safe_load(path.read_text()) or []
    except (OSError, yaml.YAMLError) as error:
        raise BadList(f"{path}: {error}") from error
    reasons: dict[str, str] = {}
    for entry in entries:
        if not isinstance(entry, dict) or set(entry) != {"reason", "tests"} or not entry["reason"]:
            raise BadList(f"{path.name}: each entry has a reason and tests, not {entry!r}")
        if not isinstance(entry["tests"], list):
            raise BadList(f"{path.name}: tests is a list, not {entry['tests']!r}")
        for test in entry["tests"]:
            if test in reasons:
                raise BadList(f"{path.name}: {test} is there twice")
            reasons[test] = " ".join(entry["reason"].split())
    return reasons


@dataclass(frozen=True)
class Comparison:
    """Two runs side by side; every test of either is in exactly one of the groups.

    Attributes:
        stock: The run of RQ's own classes.
        ours: The run of the worker class in question.
        cannot_apply: Test id → reason, of the tests that ours need not pass.
    """

    stock: Run
    ours: Run
    cannot_apply: dict[str, str]

    @cached_property
    def groups(self) -> dict[str, list[str]]:
        """Name of the group → its tests."""
        tests = sorted({*self.stock.ends, *self.ours.ends})
        return {name: [test for test in tests if self._group(test) == name] for name in GROUPS}

    def _group(self, test: str) -> str:
        if self.stock.ends.get(test) == "skipped":
            return "skipped"
        if self.ours.ends.get(test) == "passed":
            return "stale" if test in self.cannot_apply else "passed"
        if self.stock.ends.get(test) != "passed":
            return "broken"
        return "excused" if test in self.cannot_apply else "lost"

    @property
    def unknown(self) -> list[str]:
        """Return listed tests that RQ does not have."""
        return sorted(set(self.cannot_apply) - {*self.stock.ends, *self.ours.ends})

    @property
    def is_good(self) -> bool:
        """Whether nothing was lost and the list is exact."""
        amiss = self.groups["lost"] or self.groups["stale"] or self.unknown
        return bool(self.groups["passed"]) and self.stock.complete and not amiss

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain JSON."""
        return {
            "good": self.is_good,
            "counts": {name: len(tests) for name, tests in self.groups.items()},
            "lost": {test: self._why(test) for test in self.groups["lost"]},
            "excused": {test: self.cannot_apply[test] for test in self.groups["excused"]},
            "stale": self.groups["stale"],
            "unknown": self.unknown,
            "broken": {test: self.stock.why.get(test, "") for test in self.groups["broken"]},
            "unsteady": {"stock": self.stock.unsteady, "ours": self.ours.unsteady},
            "complete": {"stock": self.stock.complete, "ours": self.ours.complete},
        }

    def _why(self, test: str) -> str:
        return self.ours.why.get(test) or self.ours.ends.get(test, "it had no turn")

    def lines(self) -> Iterator[str]:
        """Yield the findings, and the closing table."""
        for name, heading in GROUPS.items():
            if name in {"lost", "stale", "broken", "excused"} and self.groups[name]:
                yield f"{heading}:"
                yield from (f"  {test}: {self._note(name, test)}" for test in self.groups[name])
                yield ""
        yield from (f"listed, but RQ has no such test: {test}" for test in self.unknown)
        for who, run in (("RQ's classes", self.stock), ("ours", self.ours)):
            yield from (f"failed first and passed when run again with {who}: {test}" for test in run.unsteady)
            if not run.complete:
                yield f"the run with {who} was cut short: some tests had no turn"
        yield from self._table()

    def _note(self, group: str, test: str) -> str:
        notes = {"stale": "take it off the list", "broken": self.stock.why.get(test, "")}
        return notes.get(group) or (self.cannot_apply[test] if group == "excused" else self._why(test))

    def _table(self) -> Iterator[str]:
        counts = {name: Counter(test.partition("::")[0] for test in tests) for name, tests in self.groups.items()}
        modules = sorted({test.partition("::")[0] for tests in self.groups.values() for test in tests})
        width = max(map(len, [*modules, "all"]))
        yield f"{'':{width}}" + "".join(f"{name:>9}" for name in GROUPS)
        for module in modules:
            yield f"{module:{width}}" + "".join(f"{counts[name][module] or '.':>9}" for name in GROUPS)
        yield f"{'all':{width}}" + "".join(f"{len(self.groups[name]):>9}" for name in GROUPS)
        yield ""
        yield from (f"{name:>9}  {heading}" for name, heading in GROUPS.items())


#: Column of the table → what it holds.
GROUPS = {
    "passed": "passes with ours",
    "lost": "passes with RQ's classes and not with ours: mend it, or list it with a reason",
    "excused": "passes with RQ's classes and cannot with ours, for the listed reason",
    "stale": "is listed as one that cannot apply, and passes with ours",
    "broken": "passes with neither",
    "skipped": "is left out by RQ itself",
}
