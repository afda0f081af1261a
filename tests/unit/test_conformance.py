"""Two runs of RQ's tests side by side."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.conformance.comparison import BadList, Comparison, read_list
from tools.conformance.suite import Limits, Run


def run(**ends: str) -> Run:
    return Run({f"tests/test_a.py::{name}": end for name, end in ends.items()}, complete=True)


def compare(stock: Run, ours: Run, *listed: str) -> Comparison:
    return Comparison(stock, ours, {f"tests/test_a.py::{name}": "a reason" for name in listed})


def groups(comparison: Comparison) -> dict[str, list[str]]:
    return {name: [test.rpartition("::")[2] for test in tests] for name, tests in comparison.groups.items() if tests}


def test_a_test_that_passes_with_both_is_good() -> None:
    comparison = compare(run(one="passed"), run(one="passed"))
    assert comparison.is_good
    assert groups(comparison) == {"passed": ["one"]}


@pytest.mark.parametrize("end", ["failed", "skipped"])
def test_a_test_that_passes_with_stock_alone_is_lost(end: str) -> None:
    comparison = compare(run(one="passed"), run(one=end))
    assert not comparison.is_good
    assert groups(comparison) == {"lost": ["one"]}


def test_a_test_that_had_no_turn_is_lost() -> None:
    comparison = compare(run(one="passed"), run())
    assert not comparison.is_good
    assert "tests/test_a.py::one: it had no turn" in "\n".join(comparison.lines())


def test_a_listed_test_may_fail_and_its_reason_is_told() -> None:
    comparison = compare(run(one="passed", two="passed"), run(one="failed", two="passed"), "one")
    assert comparison.is_good
    assert groups(comparison) == {"passed": ["two"], "excused": ["one"]}
    assert "tests/test_a.py::one: a reason" in "\n".join(comparison.lines())


def test_a_listed_test_must_not_pass() -> None:
    comparison = compare(run(one="passed"), run(one="passed"), "one")
    assert not comparison.is_good
    assert groups(comparison) == {"stale": ["one"]}


def test_a_listed_test_must_exist() -> None:
    comparison = compare(run(one="passed"), run(one="passed"), "two")
    assert not comparison.is_good
    assert comparison.unknown == ["tests/test_a.py::two"]


def test_what_fails_with_stock_or_is_left_out_by_rq_is_not_held_against_ours() -> None:
    stock, ours = run(one="failed", two="skipped", three="failed"), run(one="failed", two="skipped", three="passed")
    comparison = compare(stock, ours)
    assert comparison.is_good
    assert groups(comparison) == {"broken": ["one"], "skipped": ["two"], "passed": ["three"]}


def test_a_baseline_that_was_cut_short_proves_nothing() -> None:
    stock = run(one="passed")
    stock.complete = False
    assert not compare(stock, run(one="passed")).is_good


def test_a_run_of_nothing_proves_nothing() -> None:
    assert not compare(run(), run()).is_good


def test_the_table_counts_every_test_once() -> None:
    comparison = compare(run(one="passed", two="passed", three="failed"), run(one="passed", two="failed"), "two")
    assert sum(comparison.as_json()["counts"].values()) == 3
    assert any(line.split() == ["all", "1", "0", "1", "0", "1", "0"] for line in comparison.lines())


def test_the_shipped_list_is_well_formed() -> None:
    reasons = read_list(Path(__file__).parents[2] / "tools" / "conformance" / "cannot_apply.yaml")
    assert all("::" in test for test in reasons)


@pytest.mark.parametrize(
    "text",
    [
        "- tests: [a]",
        "- {reason: '', tests: [a]}",
        "- {reason: r, tests: [a, a]}",
        "- a",
        "- {reason: r, tests: a}",
        "{}x",
    ],
)
def test_a_list_that_names_no_reason_or_a_test_twice_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "list.yaml"
    path.write_text(text)
    with pytest.raises(BadList):
        read_list(path)


def test_a_test_gets_a_multiple_of_the_time_that_it_took_with_stock() -> None:
    limits = Limits(100, 1000).beside(Run(seconds={"quick": 0.1, "slow": 90}))
    assert limits.of("quick") < 30
    assert limits.of("slow") == limits.of("new") == 100
