"""Under another model each threshold flags as many of the same pictures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.policy.schema import Calibration, Policy
from worker.workbench.calibration.pools import Pool, Pools
from worker.workbench.calibration.port import match, port

unhurried = settings(deadline=None, max_examples=100)
seeds = st.integers(0, 2**32 - 1)


def reached(margins: np.ndarray, made: Calibration, threshold: float) -> int:
    pool = Pool(margins, np.zeros(len(margins)), np.arange(len(margins)))
    return int((pool.scores(made.model_copy(update={"contrast_weight": 0.0})) >= threshold).sum())


@unhurried
@given(
    seeds,
    st.integers(1, 400),
    st.sampled_from([(0.5, 0.9), (0.01, 0.02), (0.3, 0.99999), (0.5, 0.5), (0.4, None), (None, 0.8), (0.0, 0.7)]),
)
def test_each_threshold_is_reached_by_as_many_pictures_as_before(
    seed: int, count: int, pair: tuple[float | None, float | None]
) -> None:
    random = np.random.default_rng(seed)
    old = Calibration(bias=float(random.normal(5, 3)), temperature=float(random.uniform(0.1, 3)))
    before = np.sort(random.normal(4, 2, count))
    after = np.sort(random.gamma(2, 5, count) - 30)
    thresholds = {name: at for name, at in zip(("review", "block"), pair, strict=True) if at is not None}
    wanted = {name: reached(before, old, at) for name, at in thresholds.items()}

    made = match(after, thresholds, wanted, old, before)

    assert {name: reached(after, made, at) for name, at in thresholds.items()} == wanted
    assert made.temperature > 0


def test_a_model_whose_margins_are_stretched_and_shifted_gets_the_same_scores() -> None:
    random = np.random.default_rng(0)
    before = np.sort(random.normal(4, 2, 20_000))
    old = Calibration(bias=6.0, temperature=0.8)
    wanted = {name: reached(before, old, at) for name, at in (("review", 0.5), ("block", 0.9))}
    made = match(3 * before - 50, {"review": 0.5, "block": 0.9}, wanted, old, before)
    assert made.bias == pytest.approx(3 * 6 - 50, abs=0.05)
    assert made.temperature == pytest.approx(2.4, rel=0.05)


def test_where_nothing_is_flagged_the_highest_picture_keeps_its_score() -> None:
    before, after = np.array([0.0, 1.0, 2.0]), np.array([10.0, 12.0, 16.0])
    old = Calibration(bias=5.0, temperature=1.0)
    made = match(after, {"review": 0.9}, {"review": 0}, old, before)
    assert (16.0 - made.bias) / made.temperature == pytest.approx(2.0 - 5.0)
    assert made.temperature > old.temperature


def test_pictures_with_equal_margins_stay_together() -> None:
    before, after = np.arange(6.0), np.array([1.0, 2, 2, 2, 2, 3])
    old = Calibration(bias=3.5)
    assert reached(before, old, 0.5) == 2
    made = match(after, {"review": 0.5}, {"review": 2}, old, before)
    assert reached(after, made, 0.5) == 1


POLICY = Policy.model_validate(
    {
        "policy": "house", "version": 4, "contrast": ["food"],
        "categories": {
            name: {"prompts": [name], "thresholds": {"review": 0.5, "block": 0.95}} for name in ("weapons", "drugs")
        },
        "calibration": {"old@1": {"weapons": {"bias": 2.0, "temperature": 0.5, "contrast_weight": 0.25}}},
    }
)  # fmt: skip


def pools(seed: int, scale: float) -> Pools:
    random = np.random.default_rng(seed)
    made = {}
    for name in ("weapons", "drugs"):
        prompts = scale * random.gamma(1, 1, 3000)
        made[name] = Pool(prompts, np.zeros(3000), np.arange(0, 3000, 2))
    return Pools([f"u{number}" for number in range(1500)], made)


def test_a_policy_is_carried_over_with_what_stands_behind_each_number() -> None:
    found = port(POLICY, "old@1", "new@2", pools(0, 1.0), pools(1, 20.0))

    assert found.categories.keys() == {"weapons", "drugs"}
    for category in found.categories.values():
        for at in category.thresholds.values():
            assert at.before == at.after
    assert found.categories["weapons"].after.contrast_weight == 0.25
    assert found.categories["drugs"].before == Calibration()
    made = found.calibrations()
    assert made["weapons"].sentences == POLICY.sentence_digests["weapons"]
    cautions = {(one.code, one.category) for one in found.cautions}
    assert ("uncalibrated", "drugs") in cautions
    assert ("uncalibrated", "weapons") not in cautions
    few = [one.message for one in found.cautions if one.code == "few-behind"]
    assert all("of 1500 pictures reach" in message for message in few)
    assert {
        (name, action)
        for name, category in found.categories.items()
        for action, at in category.thresholds.items()
        if at.before < 20
    } == {(one.category, one.message.split()[5]) for one in found.cautions if one.code == "few-behind"}


def test_pools_are_narrowed_to_pictures_that_both_models_saw() -> None:
    narrowed = pools(0, 1.0).only({"u3", "u1"})
    assert list(narrowed.names) == ["u1", "u3"]
    assert len(narrowed.categories["weapons"]) == 2
    assert len(narrowed.categories["weapons"].prompts) == 4
