"""A tower that moves with a word by a known amount gives exactly that shift."""

from __future__ import annotations

from typing import Any

import pytest
from geometry import POLICY, compiled, texts

from worker.policy.groups import lint_groups
from worker.workbench.stress.groups import Shift, shifts

GROUPS = """\
sentences: ["a {group} person at the beach", "a {group} person working"]
groups:
  ages: [young, adult, old]
  skin: [light, dark]
"""


def measured(moves: dict[str, float], policy: str = POLICY) -> dict[tuple[str, str], Shift]:
    groups, findings = lint_groups(GROUPS, "g")
    assert groups is not None, findings
    tower: Any = texts(moves)
    found = shifts(compiled(policy), groups, tower)
    assert len(found) == (3 + 2) * 2
    return {(one.group, one.category): one for one in found}


def test_a_shift_is_measured_from_the_mean_of_its_own_list() -> None:
    found = measured({"old": 3.0})
    assert found["old", "weapons"].shift == pytest.approx(2.0, abs=1e-5)
    assert found["young", "weapons"].shift == pytest.approx(-1.0, abs=1e-5)
    assert found["light", "weapons"].shift == pytest.approx(0.0, abs=1e-5)
    assert found["old", "drugs"].shift == pytest.approx(0.0, abs=1e-5)


def test_what_moves_with_the_scene_and_not_with_the_word_is_no_shift() -> None:
    found = measured({"beach": 2.0})
    assert all(abs(one.low) < 1e-5 and abs(one.high) < 1e-5 for one in found.values())


def test_lowest_and_highest_are_those_of_single_sentences() -> None:
    one = measured({"old": 1.5})["old", "weapons"]
    assert (one.low, one.high, one.sentences) == (pytest.approx(1.0), pytest.approx(1.0), 2)
    assert one.is_agreed
    assert not measured({})["old", "weapons"].is_agreed


def test_the_weight_is_in_temperatures_of_the_category() -> None:
    calibration = 'calibration: {"m@r": {weapons: {temperature: 0.5}, drugs: {}}}\n'
    one = measured({"old": 3.0}, POLICY + calibration)["old", "weapons"]
    assert (one.shift, one.weight) == (pytest.approx(2.0), pytest.approx(4.0))


def test_sentences_that_would_be_reviewed_are_counted() -> None:
    found = measured({"old": 1.0, "young": -1.0})
    assert found["old", "weapons"].flagged == 2
    assert found["young", "weapons"].flagged == 0
    row = found["old", "weapons"].as_dict()
    assert (row["list"], row["group"], row["category"], row["flagged"]) == ("ages", "old", "weapons", 2)
    assert row["margin_shift"] == {"value": pytest.approx(1.0), "lowest": pytest.approx(1), "highest": pytest.approx(1)}
