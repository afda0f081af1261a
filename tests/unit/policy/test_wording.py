"""What a policy's wording gives away without a model, and how an author takes a warning back."""

from __future__ import annotations

import pytest

from worker.policy.findings import Finding
from worker.policy.lint import lint_policy
from worker.policy.wording import NEGATION, Page, Seen, warn_of_thresholds, warn_of_wording

POLICY = """\
policy: house
version: 1
contrast: [a plate of food, people at work]
categories:
  weapons:
    prompts:
      - a gun
      - a rifle
    look_alikes:
      - a drink without alcohol
    thresholds: {review: 0.5, block: 0.9}
  drugs: {prompts: [pills], thresholds: {review: 0.6}}
"""


def warnings(text: str) -> list[Finding]:
    policy, findings = lint_policy(text, "house/v1.yaml")
    assert policy is not None, findings
    page = Page.of("house/v1.yaml", text)
    return page.less_allowed(warn_of_wording(policy, page))


@pytest.mark.parametrize(
    "sentence",
    ["no guns", "A man, NOT armed", "a drink without alcohol", "a gun that isn't loaded", "it isn’t", "nobody home",
     "never seen", "cannot be", "non-alcoholic beer", "no", "neither this nor that"],
)  # fmt: skip
def test_a_negation_is_found_as_a_word_in_every_writing(sentence: str) -> None:
    assert NEGATION.search(sentence)


@pytest.mark.parametrize(
    "sentence",
    ["a knot in a rope", "a nose", "a notebook", "November", "a nonagon", "a piano", "a north sign", "a note",
     "ants", "a pint of beer", "nothingness"],
)  # fmt: skip
def test_a_word_that_only_begins_like_a_negation_is_none(sentence: str) -> None:
    assert not NEGATION.search(sentence)


def test_warnings_carry_place_key_and_code_and_are_no_errors() -> None:
    negation, single = warnings(POLICY)

    assert str(negation).startswith(
        "house/v1.yaml:10:9: warning: categories.weapons.look_alikes.0: CLIP cannot read 'wi"
    )
    assert str(negation).endswith("say what is to be seen instead [negation]")
    assert (single.line, single.column, single.code, single.severity) == (12, 21, "one-prompt", "warning")


def test_a_comment_on_the_line_takes_back_what_it_names_and_nothing_else() -> None:
    kept = warnings(POLICY.replace("without alcohol", "without alcohol  # lint: allow near-copy, negation"))
    assert [finding.code for finding in kept] == ["one-prompt"]

    kept = warnings(POLICY.replace("without alcohol", "without alcohol  # lint: allow one-prompt"))
    assert [finding.code for finding in kept] == ["negation", "one-prompt"]


def test_a_comment_that_allows_what_there_is_not_is_a_warning_of_its_own() -> None:
    kept = warnings(POLICY.replace("- a gun", "- a gun  # lint: allow negatoin"))

    assert (kept[0].line, kept[0].column, kept[0].code) == (7, 16, "unknown-code")
    assert "there is no warning negatoin; there are cut, negation" in kept[0].message


def test_a_threshold_above_the_greatest_score_seen_is_named_and_one_at_it_is_not() -> None:
    policy, _ = lint_policy(POLICY, "v")
    assert policy is not None

    found = list(warn_of_thresholds(policy, Page.of("v", POLICY), Seen({"weapons": 0.5}, "the 3 verdicts of s.jsonl")))

    assert [(finding.line, finding.key) for finding in found] == [(11, "categories.weapons.thresholds.block")]
    assert found[0].message == "the 3 verdicts of s.jsonl: score 0.5000 at most, so 0.9 is never reached; lower it"


def test_two_sources_of_scores_count_together() -> None:
    both = Seen({"a": 0.2, "b": 0.9}, "images").beside(Seen({"a": 0.4, "c": 0.1}, "verdicts"))
    assert both == Seen({"a": 0.4, "b": 0.9, "c": 0.1}, "images and verdicts")
    assert both.beside(Seen({}, "")) is both


CALIBRATED = (
    POLICY
    + """\
calibration:
  "m@r":
    weapons: {bias: 1.0, sentences: "DIGEST"}
    drugs: {bias: 1.0}
  "m@s": {weapons: {bias: 1.0, sentences: "DIGEST"}}
"""
)


def calibrated(prompt: str) -> str:
    """Give the policy, calibrated for its own sentences, with another prompt."""
    digest = lint_policy(POLICY, "f")[0].sentence_digests["weapons"]  # type: ignore[union-attr]
    return CALIBRATED.replace("DIGEST", digest).replace("a rifle", prompt)


def test_a_calibration_for_other_sentences_is_named_for_every_model() -> None:
    assert [one.code for one in warnings(calibrated("a rifle"))] == ["negation", "one-prompt"]

    stale = [one for one in warnings(calibrated("a shotgun")) if one.code == "stale-calibration"]

    assert [(one.line, one.key) for one in stale] == [
        (15, "calibration.m@r.weapons"),
        (17, "calibration.m@s.weapons"),
    ]
    assert "made for other sentences than weapons has now" in stale[0].message
    assert "`sluice calibrate house@1`" in stale[0].message
    assert {one.severity for one in stale} == {"warning"}


def test_a_stale_calibration_is_allowed_on_its_line() -> None:
    lines = calibrated("a shotgun").splitlines()
    lines[14] += "  # lint: allow stale-calibration"
    stale = [one.line for one in warnings("\n".join(lines)) if one.code == "stale-calibration"]
    assert stale == [17]
