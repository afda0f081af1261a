"""Thresholds are the lowest that reach what was asked, and bind at equality."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_curve

from worker.workbench.calibration.thresholds import (
    between,
    for_reviews,
    lowest_with_count,
    lowest_with_precision,
    lowest_with_rate,
)

unhurried = settings(deadline=None, max_examples=60)
seeds = st.integers(0, 2**32 - 1)


def scores_of(seed: int, size: int = 120) -> np.ndarray:
    """Make scores up; some are equal, some are 0 and 1."""
    random = np.random.default_rng(seed)
    return np.clip(np.round(random.normal(0.3, 0.4, size), int(random.integers(1, 9))), 0, 1)


@unhurried
@given(seeds, st.floats(0.05, 1))
def test_block_is_the_lowest_threshold_of_scikit_learns_curve_that_reaches_the_precision(
    seed: int, target: float
) -> None:
    scores = scores_of(seed)
    shows = np.random.default_rng(seed).random(len(scores)) < scores
    shows[0] = True
    weights = np.where(shows, 0.5, 1.2)
    precision, _, thresholds = precision_recall_curve(shows, scores, sample_weight=weights)
    reached = thresholds[precision[:-1] >= target - 1e-12]

    found = lowest_with_precision(scores, shows, weights, target)

    if not len(reached):
        assert found is None
    else:
        assert found is not None
        np.testing.assert_array_equal(scores >= found, scores >= reached[0])


@unhurried
@given(seeds, st.floats(0, 1))
def test_review_flags_as_many_as_it_may_and_not_one_more(seed: int, rate: float) -> None:
    scores = scores_of(seed)
    found = lowest_with_rate(scores, rate)
    possible = [float((scores >= at).mean()) for at in np.unique(scores)] + [0.0]
    allowed = max(share for share in possible if share <= rate + 1e-9) if min(possible) <= rate else 0.0
    if found is None:
        assert (scores == 1).mean() > rate
    elif allowed == 0.0:
        assert (scores >= found).sum() == 0
    else:
        assert (scores >= found).mean() == allowed


def test_a_rate_that_is_a_whole_number_of_pictures_is_used_up() -> None:
    assert (np.arange(10) / 10 >= lowest_with_rate(np.arange(10) / 10, 0.3)).sum() == 3
    scores = np.linspace(0, 0.9, 1000)
    assert all((scores >= lowest_with_rate(scores, k / 1000)).sum() == k for k in range(1, 1000))


def test_every_picture_and_none_can_be_flagged() -> None:
    scores = np.array([0.2, 0.5])
    assert lowest_with_count(scores, 2) == lowest_with_count(scores, 9) == 0.0
    none = lowest_with_count(scores, 0)
    assert none is not None
    assert 0.5 < none <= 1
    assert lowest_with_count(np.array([0.2, 1.0]), 0) is None


@unhurried
@given(seeds, st.integers(0, 130))
def test_reviews_of_all_categories_together_stay_within_what_people_can_do(seed: int, most: int) -> None:
    scores = {"a": scores_of(seed), "b": scores_of(seed + 1), "c": np.sqrt(scores_of(seed))}

    def flagged(thresholds: dict[str, float | None]) -> int:
        masks = [scores[name] >= at for name, at in thresholds.items() if at is not None]
        return int(np.logical_or.reduce(masks).sum()) if masks else 0

    found = for_reviews(scores, most)
    assert set(found) == set(scores)
    if None not in found.values():
        assert flagged(found) <= most
    # A category's count more, and it is too much for the people, or there is nothing more to flag.
    counts = [int((scores[name] >= at).sum()) for name, at in found.items() if at is not None]
    for more in range(max(counts, default=0) + 1, 121):
        wider = {name: lowest_with_count(np.sort(values), more) for name, values in scores.items()}
        if flagged(wider) > flagged(found):
            assert flagged(wider) > most
            break


@unhurried
@given(st.floats(0, 1), st.floats(0, 1))
def test_a_threshold_lies_above_one_score_and_not_above_the_other(one: float, other: float) -> None:
    below, at = sorted((one, other))
    if below == at:
        return
    found = between(below, at)
    assert below < found <= at
    assert type(found) is float


@pytest.mark.parametrize(("below", "at", "short"), [(0.3, 0.4, 0.35), (0.31, 0.32, 0.315), (0.0, 1.0, 0.5)])
def test_a_threshold_has_as_few_digits_as_it_takes(below: float, at: float, short: float) -> None:
    assert between(below, at) == short
