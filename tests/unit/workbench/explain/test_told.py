"""What a verdict tells alone is arithmetic on its own numbers, and no more than they allow."""

from __future__ import annotations

import math

import judged
import pytest
from judged import FOOD, PILLS, REVOLVER, RIFLE

from worker.errors import REASONS
from worker.policy.schema import Policy
from worker.records import ShadowVerdict, Verdict
from worker.verdict import action_of, strongest
from worker.workbench.explain.told import explain

CALIBRATED = {"m@r": {"weapons": {"bias": 2.0, "temperature": 0.5, "contrast_weight": 0.25}, "drugs": {}}}


def calibrated() -> Policy:
    return judged.policy(calibration=CALIBRATED)


def of(logits: dict[str, float], policy: Policy | None = None) -> Verdict:
    return judged.verdict(judged.image(logits), judged.compiled(policy or judged.policy()))


def test_the_strongest_category_comes_first_with_the_sentences_and_the_threshold_that_decided() -> None:
    verdict = of({REVOLVER: 5, FOOD: 4, PILLS: 1})
    told = explain(verdict, judged.policy())
    assert [(found.name, found.action, found.decided_by) for found in told.categories] == [
        ("weapons", "review", "review"),
        ("drugs", "allow", None),
    ]
    first = told.categories[0]
    assert (told.category, first.prompt, first.contrast) == ("weapons", REVOLVER, FOOD)
    assert (first.score, first.margin) == (verdict.categories["weapons"].score, verdict.categories["weapons"].margin)
    assert first.description == "Arms that are\n  carried openly."
    assert (told.basis, told.recomputed, told.sentences, told.removals) == ("verdict", None, [], [])


@pytest.mark.parametrize("policy", [judged.policy(), calibrated()], ids=["uncalibrated", "calibrated"])
def test_a_threshold_lies_as_far_away_as_the_margin_must_move(policy: Policy) -> None:
    told = explain(of({REVOLVER: 5, FOOD: 4}, policy), policy)
    scale = policy.calibration_for("m@r").get("weapons")
    bias, temperature = (scale.bias, scale.temperature) if scale else (0.0, 1.0)
    for gap in told.categories[0].thresholds:
        assert gap.by_logits is not None
        at_threshold = told.categories[0].margin - gap.by_logits
        assert 1 / (1 + math.exp(-(at_threshold - bias) / temperature)) == pytest.approx(gap.threshold)
        assert gap.by_score == told.categories[0].score - gap.threshold
        assert gap.reached == (gap.by_score >= 0)


def test_without_the_policy_a_calibrated_score_has_no_distance_in_logits_and_another_has() -> None:
    (weapons, *_) = explain(of({REVOLVER: 5, FOOD: 4}, calibrated())).categories
    assert [gap.by_logits for gap in weapons.thresholds] == [None, None]
    assert weapons.description is None
    (weapons, *_) = explain(of({REVOLVER: 5, FOOD: 4})).categories
    assert all(gap.by_logits is not None for gap in weapons.thresholds)


@pytest.mark.parametrize(
    ("logits", "expected"),
    [
        ({REVOLVER: 3, FOOD: 9}, {("weapons", "review", "to", "review"), ("drugs", "review", "to", "review")}),
        ({REVOLVER: 5, FOOD: 4}, {("weapons", "review", "above", "allow"), ("weapons", "block", "to", "block")}),
        ({RIFLE: 12}, {("weapons", "block", "above", "review")}),
        # Two categories ask for review: neither threshold alone lets the upload through.
        ({REVOLVER: 5, PILLS: 5.5, FOOD: 4}, {("weapons", "block", "to", "block")}),
    ],
    ids=["allow", "review", "block", "two categories"],
)
def test_thresholds_that_moved_alone_change_the_action_are_named(
    logits: dict[str, float], expected: set[tuple[str, str, str, str]]
) -> None:
    verdict = of(logits)
    told = explain(verdict)
    assert {(moved.category, moved.threshold, moved.move, moved.action) for moved in told.thresholds} == expected
    for moved in told.thresholds:
        value = moved.score if moved.move == "to" else math.nextafter(moved.score, 2)
        actions = [
            action_of(found.score, found.thresholds | ({moved.threshold: value} if name == moved.category else {}))
            for name, found in verdict.categories.items()
        ]
        assert strongest(actions) == moved.action != verdict.action


def test_no_threshold_lies_above_a_score_of_one() -> None:
    verdict = of({RIFLE: 12})
    full = verdict.categories["weapons"].model_copy(update={"score": 1.0})
    assert explain(verdict.model_copy(update={"categories": {"weapons": full}})).thresholds == []


def test_shadows_are_other_versions_that_the_verdict_tells_of() -> None:
    verdict = of({REVOLVER: 5, FOOD: 4})
    other = of({RIFLE: 12}, judged.policy(2))
    shadow = ShadowVerdict(policy=other.policy, action=other.action, categories=other.categories)
    (said,) = explain(verdict.model_copy(update={"shadow": [shadow]})).versions
    assert (said.policy.version, said.action, said.same, said.source) == (2, "block", False, "shadow")


@pytest.mark.parametrize("reason", [*REASONS, "a_reason_of_tomorrow"])
def test_an_image_that_was_not_judged_has_its_reason_explained_and_nothing_else(reason: str) -> None:
    told = explain(judged.unjudged(reason))
    assert told.reason_means == REASONS.get(reason, "not known to this version")
    assert (told.category, told.categories, told.thresholds, told.views) == (None, [], [], [])


def test_views_say_where_they_lie_and_which_decided() -> None:
    verdict = judged.verdict(judged.image({FOOD: 3}, {REVOLVER: 8}))
    told = explain(verdict)
    assert [(view.index, view.decides, view.score is None) for view in told.views] == [
        (0, False, True),
        (1, True, False),
    ]
    assert told.views[1].shows is not None
    assert told.views[1].shows.box == (0, 100, 200, 200)
