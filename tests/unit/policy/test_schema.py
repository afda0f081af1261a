"""A policy is immutable, and its digest is of what it says."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from worker.policy.lint import lint_policy
from worker.policy.schema import Calibration, Policy, Thresholds

POLICY = """\
policy: tiny
version: 1
description: For tests.
templates: ["{}", "a photo of {}"]
contrast: [a plate of food, people at work]
categories:
  weapons:
    description: Guns.
    prompts: [a gun, a rifle]
    look_alikes: [a kitchen knife]
    thresholds: {review: 0.5, block: 0.9}
  drugs:
    prompts: [pills]
    thresholds: {review: 0.6}
calibration:
  "m@r": {weapons: {bias: 1.9, temperature: 1.3, contrast_weight: 0.8}, drugs: {}}
  "other@r": {weapons: {bias: 1.0}}
"""


def parse(text: str) -> Policy:
    policy, findings = lint_policy(text, "f")
    assert policy is not None, findings
    return policy


def test_the_digest_is_a_sha256_and_the_same_in_every_process() -> None:
    # Verdicts from years ago quote it: a change of this value is a change of every digest that was ever written.
    assert parse(POLICY).digest == "sha256:3ba39d447cdde6e67ba0ca209de8364c0c5dd922d49f541f78ee228e4ad744b6"


@pytest.mark.parametrize(
    "text",
    [
        "# House rules\n" + POLICY.replace("version: 1", "version: 1   # the first"),
        POLICY.replace("\n", "\r\n"),
        POLICY.replace("[a gun, a rifle]", "\n    - a gun\n    - 'a rifle'"),
        POLICY.replace("{review: 0.5, block: 0.9}", "\n      block: 0.90\n      review: 5.0e-1"),
        POLICY.replace("policy: tiny\nversion: 1\n", "version: 1\npolicy: tiny\n"),
        POLICY.replace("drugs: {}", "drugs: {bias: 0, temperature: 1, contrast_weight: 1.0}"),
        POLICY.replace("{review: 0.6}", "{review: 0.6, block: null}"),
    ],
    ids=["comments", "line ends", "list style", "numbers", "order of keys", "defaults", "null"],
)
def test_comments_layout_and_order_of_keys_do_not_change_the_digest(text: str) -> None:
    assert text != POLICY
    assert parse(text).digest == parse(POLICY).digest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("policy: tiny", "policy: small"),
        ("version: 1", "version: 2"),
        ("For tests.", "For test."),
        ("a photo of {}", "the photo of {}"),
        ("people at work", "People at work"),
        ("Guns.", "Gun."),
        ("a rifle", "a rifle."),
        ("[a gun, a rifle]", "[a rifle, a gun]"),
        ("a kitchen knife", "a butter knife"),
        ("pills", "pill"),
        ("  drugs:", "  drug:"),
        ("review: 0.5", "review: 0.50001"),
        ("block: 0.9", "block: 0.91"),
        ("{review: 0.6}", "{block: 0.6}"),
        ("bias: 1.9", "bias: 1.8"),
        ("temperature: 1.3", "temperature: 1.4"),
        ("contrast_weight: 0.8", "contrast_weight: 0.7"),
        ('"other@r"', '"other@s"'),
    ],
)
def test_any_word_and_any_number_changes_the_digest(old: str, new: str) -> None:
    assert POLICY.count(old) == 1
    text = POLICY.replace(old, new)
    if old == "  drugs:":
        text = text.replace("drugs: {}", "drug: {}")

    assert parse(text).digest != parse(POLICY).digest


def test_a_policy_is_frozen() -> None:
    policy = parse(POLICY)

    drugs = policy.categories["drugs"]
    for record, name in ((policy, "version"), (drugs, "prompts"), (drugs.thresholds, "review")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(record, name, 2)
    assert isinstance(drugs.prompts, tuple)


def test_thresholds_that_are_not_set_are_not_said() -> None:
    assert Thresholds(review=0.5).as_dict() == {"review": 0.5}
    assert Thresholds(block=0.0).as_dict() == {"block": 0.0}
    assert Thresholds(review=0.5, block=0.5).as_dict() == {"review": 0.5, "block": 0.5}


@pytest.mark.parametrize(
    "fields", [{}, {"review": 0.6, "block": 0.5}, {"review": 1.1}, {"block": "0.5"}, {"block": True}]
)
def test_wrong_thresholds_are_refused_in_python_too(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Thresholds(**fields)


def test_an_uncalibrated_category_has_the_plain_softmax() -> None:
    assert Calibration() == Calibration(bias=0.0, temperature=1.0, contrast_weight=1.0)


def test_a_policy_is_calibrated_for_a_model_when_every_category_is() -> None:
    policy = parse(POLICY)

    assert policy.is_calibrated_for("m@r")
    assert not policy.is_calibrated_for("other@r")
    assert not policy.is_calibrated_for("m@another")
    assert policy.calibration_for("m@r")["weapons"] == Calibration(bias=1.9, temperature=1.3, contrast_weight=0.8)
    assert policy.calibration_for("m@another") == {}


BOUND = POLICY.replace("contrast_weight: 0.8}", 'contrast_weight: 0.8, sentences: "{digest}"}')


def bound(text: str = POLICY) -> str:
    """Give the policy with a calibration of weapons that was made for the sentences of `text`."""
    return BOUND.replace("{digest}", parse(text).sentence_digests["weapons"])


def test_a_calibration_counts_for_the_sentences_that_it_was_made_for() -> None:
    policy = parse(bound())

    assert policy.is_calibrated_for("m@r")
    assert policy.calibration_for("m@r")["weapons"].bias == 1.9
    assert policy.digest != parse(POLICY).digest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("a rifle", "a shotgun"),
        ("[a gun, a rifle]", "[a gun]"),
        ("a kitchen knife", "a butter knife"),
        ("people at work", "people at play"),
        ("a photo of {}", "a picture of {}"),
    ],
    ids=["prompt", "fewer prompts", "look-alike", "contrast", "template"],
)
def test_other_sentences_make_a_category_uncalibrated(old: str, new: str) -> None:
    assert POLICY.count(old) == 1
    policy = parse(bound().replace(old, new))

    assert policy.stale_for("m@r") == ["weapons"]
    assert not policy.is_calibrated_for("m@r")
    assert list(policy.calibration_for("m@r")) == ["drugs"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[a gun, a rifle]", "[a rifle, a gun]"),
        ("pills", "powder"),
        ("review: 0.5", "review: 0.4"),
        ("Guns.", "All guns."),
        ("version: 1", "version: 2"),
    ],
    ids=["order", "another category", "threshold", "description", "version"],
)
def test_what_moves_no_score_leaves_a_calibration_alone(old: str, new: str) -> None:
    assert POLICY.count(old) == 1
    assert parse(bound().replace(old, new)).is_calibrated_for("m@r")


def test_a_calibration_of_unknown_sentences_is_taken_at_its_word() -> None:
    assert parse(POLICY.replace("a rifle", "a shotgun")).is_calibrated_for("m@r")


def test_what_is_no_digest_is_refused() -> None:
    policy, (finding,) = lint_policy(BOUND.replace("{digest}", "sha256:abc"), "f")

    assert policy is None
    assert str(finding).endswith(
        "'sha256:abc' is no digest; leave it as `sluice calibrate` wrote it, or remove the key"
    )
