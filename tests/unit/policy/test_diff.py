"""Two policies, and every difference in an author's words."""

from __future__ import annotations

import pytest

from worker.policy.diff import Change, diff
from worker.policy.lint import lint_policy
from worker.policy.schema import Policy

POLICY = """\
policy: house
version: 1
description: Rules.
templates: ["{}"]
contrast: [a plate of food, people at work]
categories:
  weapons:
    prompts: [a gun, a rifle on a table, a sword]
    look_alikes: [a kitchen knife]
    thresholds: {review: 0.5, block: 0.9}
  drugs: {prompts: [pills, a syringe], thresholds: {review: 0.6}}
calibration:
  "m@r": {weapons: {bias: 1.9, temperature: 1.3}}
"""


def read(text: str) -> Policy:
    policy, findings = lint_policy(text, "v")
    assert policy is not None, findings
    return policy


def changes(*edits: tuple[str, str]) -> list[Change]:
    text = POLICY
    for old, new in edits:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return diff(read(POLICY), read(text))


def test_a_policy_says_the_same_as_itself_under_another_name_version_and_layout() -> None:
    assert changes(("version: 1", "version: 2 # next"), ("policy: house", "policy: home")) == []


def test_a_sentence_is_added_removed_or_reworded() -> None:
    found = changes(("[a gun, a rifle on a table, a sword]", "[a gun, a hunting rifle on a table, brass knuckles]"))

    assert [str(change) for change in found] == [
        "~ a rifle on a table → a hunting rifle on a table", "- a sword", "+ brass knuckles",
    ]  # fmt: skip
    assert {change.path for change in found} == {"categories.weapons.prompts"}
    assert [change.change for change in found] == ["reworded", "removed", "added"]


def test_a_moved_threshold_says_by_how_much() -> None:
    (found,) = changes(("block: 0.9", "block: 0.85"))
    assert (found.path, str(found)) == ("categories.weapons.thresholds.block", "~ 0.9 → 0.85  (-0.05)")


def test_a_threshold_that_comes_or_goes_is_added_or_removed() -> None:
    (found,) = changes((", block: 0.9", ""))
    assert found == Change("categories.weapons.thresholds.block", "removed", 0.9, None)
    (found,) = changes(("{review: 0.6}", "{review: 0.6, block: 1}"))
    assert found == Change("categories.drugs.thresholds.block", "added", None, 1.0)


@pytest.mark.parametrize(
    ("edit", "path"),
    [
        (("Rules.", "Other rules."), "description"),
        (('["{}"]', '["{}", "a photo of {}"]'), "templates"),
        (("people at work", "people at play"), "contrast"),
        (("a kitchen knife", "a kitchen blade"), "categories.weapons.look_alikes"),
        (("bias: 1.9", "bias: 2.0"), "calibration.m@r.weapons.bias"),
        (("temperature: 1.3", "temperature: 1.3, contrast_weight: 0.5"), "calibration.m@r.weapons.contrast_weight"),
    ],
)
def test_every_part_of_a_policy_is_compared(edit: tuple[str, str], path: str) -> None:
    assert [change.path for change in changes(edit)] == [path]


def test_a_category_with_most_of_its_prompts_under_another_name_is_renamed() -> None:
    (found,) = changes(("  drugs:", "  narcotics:"))
    assert (found.path, found.change, str(found)) == ("categories.narcotics", "renamed", "~ drugs → narcotics")


def test_a_whole_category_is_added_or_removed_in_one_line() -> None:
    (found,) = changes(("  drugs: {prompts: [pills, a syringe], thresholds: {review: 0.6}}\n", ""))
    assert str(found) == "- prompts pills; a syringe, review 0.6"


def test_another_order_is_a_difference_too_because_the_digest_differs() -> None:
    (found,) = changes(("[a gun, a rifle on a table, a sword]", "[a sword, a gun, a rifle on a table]"))
    assert found.change == "reordered"


def test_nothing_is_equal_that_has_another_digest() -> None:
    for edit in (
        ("Rules.", "Rules!"),
        ("[pills, a syringe]", "[a syringe, pills]"),
        ("1.3}", "1.31}"),
        ("0.5,", "0.4,"),
    ):
        assert changes(edit)


def test_lists_that_are_too_long_to_match_are_still_compared() -> None:
    long = read(POLICY.replace("[a gun,", "[" + ", ".join(f"old weapon {n}" for n in range(300)) + ", a gun,"))
    other = read(POLICY.replace("[a gun,", "[" + ", ".join(f"new weapon {n}" for n in range(300)) + ", a gun,"))
    found = diff(long, other)
    assert [change.change for change in found].count("removed") == 300
    assert [change.change for change in found].count("added") == 300
