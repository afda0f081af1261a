"""A policy's tests.yaml is checked as strictly as a policy."""

from __future__ import annotations

import pytest
from jsonschema import Draft202012Validator

from worker.policy.cases import CasesFile, Expectation, is_expected, lint_cases
from worker.policy.places import read_yaml

CASES = """\
description: What we know.
cases:
  - name: a revolver
    image: revolver.png
    action: block
    expect:
      weapons: block
      drugs: {score: [0, 0.3]}
  - name: a coffin
    embedding: tests.npz
    expect: {death: not block}
"""


def test_right_cases_have_no_findings() -> None:
    cases, findings = lint_cases(CASES, "tests.yaml", ["weapons", "drugs", "death"])

    assert findings == []
    assert cases is not None
    assert [str(item) for item in cases.cases[0].expect.values()] == ["block", "score 0 to 0.3"]
    Draft202012Validator(CasesFile.model_json_schema()).validate(read_yaml(CASES)[0])


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        ("weapons: block", "weapons: blok", "7:16: cases.0.expect.weapons: should be one of allow, review, block"),
        ("weapons: block", "weapons: on", "7:16: cases.0.expect.weapons: should be one of"),
        ("weapons: block", "weapons: [block]", "7:16: cases.0.expect.weapons: should be one of"),
        ("weapons: block", "weapon: block", "7:7: cases.0.expect.weapon: the policy has no such category"),
        ("score: [0, 0.3]", "skore: [0, 0.3]", "8:15: cases.0.expect.drugs.skore: unknown key; did you mean score?"),
        ("[0, 0.3]", "[0.4, 0.3]", "8:14: cases.0.expect.drugs: the lower score (0.4)"),
        ("[0, 0.3]", "[0, 7]", "8:26: cases.0.expect.drugs.score.1: should be 1 or less, not 7"),
        ("image:", "imgae:", "4:5: cases.0.imgae: unknown key; did you mean image?"),
        ("    image: revolver.png\n", "", "3:5: cases.0: give image, embedding or both"),
        ("    expect: {death: not block}\n", "", "9:5: cases.1: give action, expect or both"),
        ("name: a coffin", "name: a revolver", "9:11: cases.1.name: case 1 has this name already"),
        ("name: a coffin", "name: 2026", "9:11: cases.1.name: should be text, not 2026"),
        ("tests.npz", "tests.yaml", "10:16: cases.1.embedding"),
        ("cases:", "case:", "2:1: case: unknown key; did you mean cases?"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(old: str, new: str, finding: str) -> None:
    text = CASES.replace(old, new, 1)
    assert text != CASES
    cases, findings = lint_cases(text, "tests.yaml", ["weapons", "drugs", "death"])

    assert cases is None
    assert any(str(found).startswith(f"tests.yaml:{finding}") for found in findings), [str(f) for f in findings]


def test_an_empty_file_says_where_to_look() -> None:
    ((finding,)) = lint_cases("", "tests.yaml")[1]
    assert "`sluice schema tests`" in finding.message


@pytest.mark.parametrize(
    ("expected", "holds"),
    [
        ("allow", {"allow"}), ("review", {"review"}), ("block", {"block"}),
        ("not allow", {"review", "block"}), ("not review", {"allow", "block"}), ("not block", {"allow", "review"}),
    ],
)  # fmt: skip
def test_an_expected_action_holds_for_exactly_what_it_says(expected: str, holds: set[str]) -> None:
    assert {action for action in ("allow", "review", "block") if is_expected(expected, action)} == holds


def test_a_score_between_holds_at_both_ends_and_beside_an_action() -> None:
    item = Expectation(action="review", score=(0.25, 0.5))
    assert [item.holds("review", score) for score in (0.2499, 0.25, 0.5, 0.5001)] == [False, True, True, False]
    assert not item.holds("block", 0.3)
    assert str(item) == "review, score 0.25 to 0.5"
