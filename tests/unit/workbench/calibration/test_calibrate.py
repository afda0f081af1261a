"""The whole of a calibration, on pictures whose truth is known: what is fitted, what is kept, what is said of it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss

from worker.errors import UsageError
from worker.policy.schema import Calibration, Policy
from worker.workbench.calibration.calibrate import Asked, calibrate
from worker.workbench.calibration.findings import CAUTIONS, Calibrated
from worker.workbench.calibration.labels import Labels
from worker.workbench.calibration.pools import Pool, Pools

MODEL = "m@r"
KEPT = {"bias": 3.0, "temperature": 2.0, "contrast_weight": 0.5}
POLICY = Policy.model_validate(
    {
        "policy": "house", "version": 3, "contrast": ["food"],
        "categories": {
            "weapons": {"prompts": ["gun"], "thresholds": {"review": 0.5, "block": 0.9}},
            "drugs": {"prompts": ["pills"], "thresholds": {"review": 0.5}},
        },
        "calibration": {MODEL: {"drugs": KEPT}},
    }
)  # fmt: skip
#: What makes the labels; margins of the pictures below lie about 10.
TRUTH = Calibration(bias=12.0, temperature=1.0, contrast_weight=0.5)


def pictures(count: int, seed: int = 0, views: int = 1, days: float | None = None) -> tuple[Pools, dict[str, Any]]:
    """Make pictures up, and whether each shows each category."""
    random = np.random.default_rng(seed)
    made = {}
    for name in POLICY.categories:
        prompts = random.normal(25, 3, count * views)
        made[name] = Pool(prompts, random.normal(30, 2, count * views), np.arange(count) * views)
    times = None
    if days is not None:
        span = np.linspace(0, days * 86_400_000, count).astype("timedelta64[ms]")
        times = np.datetime64("2026-01-01", "ms") + span
    names = [f"u{number}" for number in range(count)]
    shows = {name: random.random(count) < pool.scores(TRUTH) for name, pool in made.items()}
    said = {name: dict(zip(names, mask.tolist(), strict=True)) for name, mask in shows.items()}
    return Pools(names, made, times), said


def codes(found: Calibrated) -> set[tuple[str, str | None]]:
    return {(one.code, one.category) for one in found.cautions}


def test_a_calibration_makes_scores_the_share_of_pictures_that_show_the_category() -> None:
    pools, said = pictures(4000)
    found = calibrate(POLICY, MODEL, pools, Labels({"weapons": said["weapons"]}, {}), Asked(precision=0.8))

    weapons = found.categories["weapons"]
    assert weapons.fitted
    assert weapons.before.calibration == Calibration()
    assert weapons.judged is not None
    before, after = (brier_score_loss(weapons.judged.shows, side) for side in weapons.traffic)
    assert after < before
    assert weapons.before.error is not None
    assert weapons.after.error is not None
    assert weapons.after.error < 0.02 < weapons.before.error
    ends = weapons.after.error_interval
    assert ends is not None
    assert ends.lower < ends.upper < 0.05
    assert found.calibrations()["weapons"].sentences == POLICY.sentence_digests["weapons"]


def test_block_reaches_the_precision_and_false_flags_stay_under_their_bound() -> None:
    pools, said = pictures(4000)
    found = calibrate(POLICY, MODEL, pools, Labels({"weapons": said["weapons"]}, {}), Asked(precision=0.8))
    block = found.categories["weapons"].after.thresholds["block"]
    assert block.precision == pytest.approx(0.8, abs=0.05)
    # Uploads of the same kind that nobody has seen.
    others, truth = pictures(50_000, seed=9)
    shows = np.array(list(truth["weapons"].values()))
    scores = others.categories["weapons"].scores(found.categories["weapons"].after.calibration)
    flagged = scores >= block.threshold
    assert shows[flagged].mean() == pytest.approx(0.8, abs=0.05)
    assert block.false_flag_bound is not None
    assert flagged[~shows].mean() < block.false_flag_bound < 0.1
    assert block.recall_interval is not None
    assert block.recall_interval.lower < shows[flagged].sum() / shows.sum() < block.recall_interval.upper


def test_a_category_that_nobody_judged_keeps_its_numbers_and_gets_a_review_from_traffic() -> None:
    pools, said = pictures(2000)
    labels = Labels({"weapons": said["weapons"]}, {})
    found = calibrate(POLICY, MODEL, pools, labels, Asked(max_flag_rate=0.01))

    drugs = found.categories["drugs"]
    assert (drugs.fitted, drugs.judged, drugs.after.error) == (False, None, None)
    assert drugs.after.calibration == Calibration(**KEPT)
    assert drugs.after.thresholds["review"].flagged == 20
    assert drugs.after.thresholds["review"].precision is None
    assert set(found.calibrations()) == {"weapons"}
    assert set(found.thresholds()) == {"weapons", "drugs"}


def test_few_pictures_of_a_category_keep_what_it_had_and_say_so() -> None:
    pools, said = pictures(2000)
    few = [name for name, shows in said["weapons"].items() if shows][:7]
    few += [name for name, shows in said["weapons"].items() if not shows][:100]
    labels = Labels({"weapons": {name: said["weapons"][name] for name in few}}, {})

    found = calibrate(POLICY, MODEL, pools, labels, Asked(precision=0.5))

    assert not found.categories["weapons"].fitted
    assert found.thresholds() == {}
    assert codes(found) == {("few-positives", "weapons"), ("uncalibrated", "weapons")}
    assert "7 pictures show it, and 20 are wanted" in str(found.cautions[0])
    assert calibrate(POLICY, MODEL, pools, labels, Asked(min_positives=7)).categories["weapons"].fitted


def test_pictures_of_a_category_alone_are_no_contrast() -> None:
    pools, said = pictures(2000)
    labels = Labels({"weapons": {name: True for name, shows in said["weapons"].items() if shows}}, {})
    found = calibrate(POLICY, MODEL, pools, labels, Asked(precision=0.9))
    assert ("few-safe", "weapons") in codes(found)
    assert found.categories["weapons"].judged is None


def test_a_category_whose_margins_fall_keeps_what_it_had() -> None:
    pools, said = pictures(2000)
    turned = {name: not shows for name, shows in said["weapons"].items()}
    found = calibrate(POLICY, MODEL, pools, Labels({"weapons": turned}, {}), Asked(precision=0.9))
    assert ("says-nothing", "weapons") in codes(found)
    assert found.calibrations() == {}


@settings(deadline=None, max_examples=15)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([None, 0.05, 0.3, 0.9, 0.999]),
    st.sampled_from([None, 0.0, 0.001, 0.1, 0.6, 1.0]),
    st.sampled_from([None, 0.01]),
)
def test_review_is_never_above_block(
    seed: int, precision: float | None, rate: float | None, share: float | None
) -> None:
    pools, said = pictures(400, seed)
    asked = Asked(precision=precision, max_flag_rate=rate, share=share)
    found = calibrate(POLICY, MODEL, pools, Labels(said, {}), asked)
    for category in found.categories.values():
        at = category.after.thresholds
        assert at["review"].threshold <= (at["block"].threshold if "block" in at else 1)
        assert {0 <= one.threshold <= 1 for one in at.values()} == {True}
    assert {one.code for one in found.cautions} <= set(CAUTIONS)


def test_a_review_above_block_becomes_block_and_says_so() -> None:
    pools, said = pictures(2000)
    found = calibrate(POLICY, MODEL, pools, Labels(said, {}), Asked(precision=0.5, max_flag_rate=0.001))
    at = found.categories["weapons"].after.thresholds
    assert at["review"].threshold == at["block"].threshold
    assert ("review-at-block", "weapons") in codes(found)


def test_a_precision_that_no_threshold_reaches_leaves_block() -> None:
    pools, said = pictures(2000)
    for place in np.argsort(pools.categories["weapons"].margins(0.5))[-40:]:
        said["weapons"][pools.names[place]] = False
    found = calibrate(POLICY, MODEL, pools, Labels(said, {}), Asked(precision=0.9999, share=0.0001))
    assert ("precision-unreached", "weapons") in codes(found)
    assert "block" not in found.thresholds().get("weapons", {})


def test_a_smaller_share_of_uploads_lowers_scores_and_raises_block() -> None:
    pools, said = pictures(3000)
    labels = Labels(said, {})
    plain, rare = (calibrate(POLICY, MODEL, pools, labels, Asked(precision=0.8, share=share)) for share in (None, 0.01))
    as_judged, as_uploads = (one.categories["weapons"] for one in (plain, rare))
    assert as_uploads.traffic[1].mean() < as_judged.traffic[1].mean() / 3
    assert as_uploads.judged is not None
    assert as_uploads.judged.weights[as_uploads.judged.shows].sum() == pytest.approx(0.01 * 3000)
    blocked = [one.after.thresholds["block"] for one in (as_judged, as_uploads)]
    assert blocked[1].flagged < blocked[0].flagged


def test_reviews_a_day_are_those_of_all_categories_together() -> None:
    pools, _ = pictures(3000, days=10.0)
    found = calibrate(POLICY, MODEL, pools, Labels({}, {}), Asked(reviews_per_day=30))
    flagged = [one.traffic[1] >= one.after.thresholds["review"].threshold for one in found.categories.values()]
    assert 290 <= np.logical_or(*flagged).sum() <= 300
    assert found.calibrations() == {}
    assert found.days == pytest.approx(10)
    # What nobody calibrated stays so.
    assert codes(found) == {("uncalibrated", "weapons")}


@pytest.mark.parametrize(("days", "said"), [(None, "needs times"), (0.02, "an hour or more")])
def test_reviews_a_day_need_days(days: float | None, said: str) -> None:
    pools, _ = pictures(100, days=days)
    with pytest.raises(UsageError, match=said):
        calibrate(POLICY, MODEL, pools, Labels({}, {}), Asked(reviews_per_day=30))


def test_a_few_days_of_traffic_are_said() -> None:
    pools, _ = pictures(1000, days=2.0)
    found = calibrate(POLICY, MODEL, pools, Labels({}, {}), Asked(reviews_per_day=1))
    assert ("short-traffic", None) in codes(found)
    assert ("few-behind", "drugs") in codes(found)


def test_few_safe_pictures_have_no_bound() -> None:
    pools, said = pictures(150)
    found = calibrate(POLICY, MODEL, pools, Labels(said, {}), Asked(precision=0.7))
    weapons = found.categories["weapons"]
    assert weapons.fitted
    assert ("no-bound", "weapons") in codes(found)
    assert (weapons.held_out, weapons.after.thresholds["review"].false_flag_bound) == (0, None)


def test_the_same_seed_gives_the_same_numbers_to_the_last_digit() -> None:
    pools, said = pictures(600, views=2)
    first, second, third = (
        json.dumps(
            [one.as_dict() for one in calibrate(POLICY, MODEL, pools, Labels(said, {}), asked).categories.values()]
        )
        for asked in (Asked(precision=0.8), Asked(precision=0.8), Asked(precision=0.8, seed=1))
    )
    assert first == second != third


def test_of_several_entries_of_one_upload_the_latest_is_judged_and_all_are_traffic() -> None:
    pools, said = pictures(300, days=9.0)
    names = list(pools.names)
    names[10] = names[200] = "u10"
    pools = Pools(names, pools.categories, pools.times)
    assert pools.places()["u10"] == 200
    labels = Labels(said, {}).only(pools.places())
    found = calibrate(POLICY, MODEL, pools, labels, Asked())
    judged = found.categories["weapons"].judged
    assert judged is not None
    assert 10 not in judged.places
    assert len(judged.places) == 299
    assert found.pictures == 300
