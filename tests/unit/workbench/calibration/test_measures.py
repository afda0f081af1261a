"""Measures are those of scikit-learn, and intervals and bounds hold as often as they say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta
from sklearn.calibration import calibration_curve
from sklearn.metrics import precision_recall_curve, precision_score, recall_score

from worker.workbench.calibration.intervals import (
    LEVEL,
    SAMPLES,
    false_flag_bound,
    of_counts,
    of_error,
    of_rate,
)
from worker.workbench.calibration.measures import BINS, Counts, count, curve, precision_of, reliability

seeds = st.integers(0, 2**32 - 1)
unhurried = settings(deadline=None, max_examples=40)


def judged(seed: int, size: int = 300) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make scores up, some of them equal, with labels that follow them, and weights."""
    random = np.random.default_rng(seed)
    scores = np.round(random.beta(0.5, 1.5, size), 2)
    shows = random.random(size) < scores
    shows[:2] = True, False
    return scores, shows, np.where(shows, 0.4, 1.3)


@unhurried
@given(seeds)
def test_precision_and_recall_are_scikit_learns_at_every_threshold(seed: int) -> None:
    scores, shows, weights = judged(seed)
    found = curve(scores, shows, weights)
    precision, recall, thresholds = precision_recall_curve(shows, scores, sample_weight=weights)
    np.testing.assert_array_equal(found.thresholds, thresholds)
    np.testing.assert_allclose(found.precision, precision[:-1], atol=1e-12)
    np.testing.assert_allclose(found.recall, recall[:-1], atol=1e-12)


@unhurried
@given(seeds, st.floats(0, 1))
def test_counts_at_a_threshold_are_scikit_learns(seed: int, threshold: float) -> None:
    scores, shows, _ = judged(seed)
    counts = count(scores, shows, threshold)
    flagged = scores >= threshold
    assert counts.recall == pytest.approx(recall_score(shows, flagged))
    if flagged.any():
        assert counts.precision(None) == pytest.approx(precision_score(shows, flagged))
    else:
        assert counts.precision(None) is None
        assert counts.precision(0.1) is None


@unhurried
@given(seeds, st.floats(0.001, 0.9))
def test_precision_at_a_share_is_that_of_weighed_pictures(seed: int, share: float) -> None:
    scores, shows, _ = judged(seed)
    weights = np.where(shows, share / shows.sum(), (1 - share) / (~shows).sum())
    expected = precision_score(shows, scores >= 0.2, sample_weight=weights)
    assert count(scores, shows, 0.2).precision(share) == pytest.approx(expected)


@unhurried
@given(seeds)
def test_a_reliability_diagram_is_scikit_learns(seed: int) -> None:
    scores, shows, _ = judged(seed)
    found = reliability(scores, shows, np.ones(len(scores)))
    shares, means = calibration_curve(shows, scores, n_bins=BINS)
    np.testing.assert_allclose(found.shares, shares)
    np.testing.assert_allclose(found.scores, means)
    assert found.error == pytest.approx(np.abs(shares - means) @ found.counts / len(scores))


def test_the_calibration_error_weighs_each_picture_as_often_as_it_counts() -> None:
    scores, shows = np.array([0.1, 0.1, 0.9]), np.array([True, False, True])
    twice = reliability(np.repeat(scores, [1, 2, 3]), np.repeat(shows, [1, 2, 3]), np.ones(6))
    assert reliability(scores, shows, np.array([1.0, 2, 3])).error == pytest.approx(twice.error)


# -- intervals -------------------------------------------------------------------------------------------------------


def test_counts_drawn_from_a_multinomial_are_pictures_drawn_again() -> None:
    scores, shows, _ = judged(7)
    counts = count(scores, shows, 0.3)
    found = of_counts(counts, None, np.random.default_rng(0))
    random = np.random.default_rng(1)
    drawn = [random.integers(0, len(scores), len(scores)) for _ in range(4000)]
    for name in ("precision", "recall"):
        again = [count(scores[places], shows[places], 0.3) for places in drawn]
        values = [one.precision(None) if name == "precision" else one.recall for one in again]
        assert found[name] == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=0.015)


def test_the_interval_of_the_error_is_that_of_pictures_drawn_again() -> None:
    scores, shows, weights = judged(8)
    found = of_error(scores, shows, weights, np.random.default_rng(0))
    random = np.random.default_rng(1)
    drawn = [random.integers(0, len(scores), len(scores)) for _ in range(3000)]
    values = [reliability(scores[again], shows[again], weights[again]).error for again in drawn]
    assert found == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=0.006)


def test_intervals_hold_about_as_often_as_they_say() -> None:
    random = np.random.default_rng(3)
    held = {"precision": 0, "recall": 0, "rate": 0}
    for _ in range(400):
        hits, false_flags, missed, passed = random.multinomial(500, [0.15, 0.05, 0.1, 0.7])
        found = of_counts(Counts(hits, false_flags, missed, passed), None, random)
        for name, truth in (("precision", 0.75), ("recall", 0.6)):
            ends = found[name]
            assert ends is not None
            held[name] += ends.lower <= truth <= ends.upper
        rate = of_rate(hits + false_flags, 500, random)
        held["rate"] += rate.lower <= 0.2 <= rate.upper
    assert all(0.9 <= times / 400 <= 0.99 for times in held.values()), held


def test_of_nothing_flagged_there_is_no_precision() -> None:
    found = of_counts(Counts(0, 0, 10, 90), None, np.random.default_rng(0))
    assert found["precision"] is None
    assert found["recall"] == (0, 0)
    assert np.isnan(precision_of(0, 0, 10, 90, 0.1))


def test_the_same_seed_gives_the_same_ends() -> None:
    scores, shows, weights = judged(9)
    first, second = (of_error(scores, shows, weights, np.random.default_rng(5)) for _ in range(2))
    assert first == second


# -- the bound on false flags ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "rate"), [(60, 0.02), (200, 0.05), (1000, 0.003)])
def test_the_bound_holds_in_nineteen_of_twenty_cases_for_a_threshold_that_was_there_before(
    size: int, rate: float
) -> None:
    random = np.random.default_rng(size)
    # Scores of safe pictures are uniform here, so a threshold is 1 - its false-flag rate.
    held = [false_flag_bound(random.random(size), 1 - rate) >= rate for _ in range(2000)]
    assert np.mean(held) >= LEVEL - 0.015


@pytest.mark.parametrize("most", [0, 1, 5])
def test_the_bound_holds_for_a_threshold_chosen_among_the_held_out_themselves(most: int) -> None:
    random = np.random.default_rng(most)
    held = []
    for _ in range(2000):
        scores = random.random(150)
        # The lowest threshold that so many of them reach.
        threshold = np.nextafter(np.sort(scores)[-1 - most], 1)
        held.append(false_flag_bound(scores, threshold) >= 1 - threshold)
    assert LEVEL - 0.015 <= np.mean(held) <= LEVEL + 0.015


def test_the_bound_is_the_quantile_of_a_beta() -> None:
    assert false_flag_bound(np.zeros(99), 0.5) == pytest.approx(1 - 0.05 ** (1 / 99))
    assert false_flag_bound(np.ones(20), 0.5) == 1.0
    assert false_flag_bound(np.array([0.5, 0.4, 0.6]), 0.5) == pytest.approx(beta.ppf(0.95, 3, 1))
    assert SAMPLES >= 1000
