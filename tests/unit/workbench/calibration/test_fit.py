"""A fit finds the numbers that made the labels, and the same ones that scikit-learn finds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from worker.policy.schema import Calibration
from worker.scoring import sigmoid
from worker.workbench.calibration.fit import TEMPERATURES, cross_fitted, fit, says_nothing, weights_for
from worker.workbench.calibration.pools import Pool

unhurried = settings(deadline=None, max_examples=8)


def pictures(count: int, random: np.random.Generator, views: int = 1) -> Pool:
    """Make pools up, as far from 0 and as near to one another as CLIP's are."""
    prompts = random.normal(25, 3, count * views)
    return Pool(prompts, 0.6 * prompts + random.normal(10, 2, count * views), np.arange(count) * views)


def labelled(pool: Pool, truth: Calibration, random: np.random.Generator) -> np.ndarray:
    return random.random(len(pool)) < pool.scores(truth)


@unhurried
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 0.9), st.floats(0.3, 3), st.floats(-2, 2))
def test_known_numbers_are_found_again(seed: int, weight: float, temperature: float, aside: float) -> None:
    random = np.random.default_rng(seed)
    pool = pictures(12_000, random)
    truth = Calibration(
        bias=float(np.median(pool.margins(weight))) + aside, temperature=temperature, contrast_weight=weight
    )
    found = fit(pool, labelled(pool, truth, random), np.ones(len(pool)))

    assert found.temperature == pytest.approx(temperature, rel=0.2)
    assert found.contrast_weight == pytest.approx(weight, abs=0.12)
    assert np.abs(pool.scores(found) - pool.scores(truth)).mean() < 0.015


@unhurried
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.5), st.sampled_from([0.1, 1.0, 10.0]))
def test_inside_the_bounds_it_is_the_logistic_regression_of_scikit_learn(
    seed: int, share: float, penalty: float
) -> None:
    random = np.random.default_rng(seed)
    pool = pictures(2000, random)
    truth = Calibration(bias=float(np.median(pool.margins(0.5))), temperature=1.5, contrast_weight=0.5)
    shows = labelled(pool, truth, random)
    weights = weights_for(shows, share)

    found = fit(pool, shows, weights, penalty)
    columns = np.stack([pool.prompts - pool.prompts.mean(), pool.contrast.mean() - pool.contrast], axis=1)
    theirs = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=10_000).fit(columns, shows, weights)

    slope, weighed = theirs.coef_[0]
    assert 0 < weighed < slope
    assert found.temperature == pytest.approx(1 / slope, rel=1e-3)
    assert found.contrast_weight == pytest.approx(weighed / slope, rel=1e-3)
    np.testing.assert_allclose(pool.scores(found), theirs.predict_proba(columns)[:, 1], atol=1e-4)


@pytest.mark.parametrize(("wanted", "end"), [(-0.5, 0.0), (2.0, 1.0)])
def test_a_weight_that_would_leave_its_bounds_stays_at_the_end(wanted: float, end: float) -> None:
    random = np.random.default_rng(5)
    pool = pictures(5000, random)
    margins = pool.prompts - wanted * pool.contrast
    shows = random.random(5000) < sigmoid(margins - np.median(margins))

    found = fit(pool, shows, np.ones(5000))

    assert found.contrast_weight == end
    # At the end of one bound, the rest is a regression on the one margin that is left; its penalty weighs both pools.
    theirs = LogisticRegression(C=1 / (1 + end**2), tol=1e-10, max_iter=10_000)
    theirs.fit((pool.margins(end) - pool.margins(end).mean())[:, None], shows)
    assert found.temperature == pytest.approx(1 / theirs.coef_.item(), rel=1e-3)


def test_where_it_begins_makes_no_difference() -> None:
    random = np.random.default_rng(1)
    pool = pictures(800, random)
    shows = labelled(pool, Calibration(bias=12.0, temperature=2.0, contrast_weight=0.5), random)
    found = [
        fit(pool, shows, np.ones(800), begin=begin)
        for begin in (Calibration(), Calibration(bias=30.0, temperature=0.1), Calibration(contrast_weight=0.0))
    ]
    for other in found[1:]:
        np.testing.assert_allclose(pool.scores(other), pool.scores(found[0]), atol=1e-4)


def test_labels_without_a_mistake_leave_a_temperature_above_0() -> None:
    pool = Pool(np.array([20.0, 21, 25, 26]), np.full(4, 30.0), np.arange(4))
    found = fit(pool, np.array([False, False, True, True]), np.ones(4))

    assert 0 < found.temperature < 10
    assert (np.diff(pool.scores(found)) > 0).all()


def test_margins_that_fall_with_the_category_say_nothing() -> None:
    random = np.random.default_rng(2)
    pool = pictures(2000, random)
    # Neither pool helps: what shows the category is less like its prompts, and more like the contrast.
    shows = random.random(2000) < sigmoid(-(pool.prompts - 25) + 0.5 * (pool.contrast - 25))
    assert says_nothing(fit(pool, shows, np.ones(2000)))
    assert not says_nothing(Calibration(temperature=TEMPERATURES[1] / 2))


def test_a_picture_counts_with_its_highest_view() -> None:
    random = np.random.default_rng(3)
    pool = pictures(6000, random, views=3)
    truth = Calibration(bias=13.0, temperature=1.2, contrast_weight=0.5)
    shows = labelled(pool, truth, random)

    found = fit(pool, shows, np.ones(6000))

    assert found.contrast_weight == pytest.approx(0.5, abs=0.1)
    assert np.abs(pool.scores(found) - pool.scores(truth)).mean() < 0.02
    margins = (pool.prompts - 0.5 * pool.contrast).reshape(-1, 3)
    np.testing.assert_array_equal(pool.margins(0.5), margins.max(axis=1))
    np.testing.assert_array_equal(pool.highest_views(0.5), np.arange(6000) * 3 + margins.argmax(axis=1))


def test_pictures_are_taken_with_all_their_views() -> None:
    pool = Pool(np.arange(6.0), np.zeros(6), np.array([0, 1, 4]))
    taken = pool.take(np.array([2, 1]))
    assert taken.prompts.tolist() == [4, 5, 1, 2, 3]
    assert taken.starts.tolist() == [0, 2]
    assert taken.margins(0).tolist() == [5, 3]


def test_cross_fitting_costs_log_loss_where_a_fit_flatters_itself() -> None:
    random = np.random.default_rng(4)
    pool = pictures(40, random)
    shows = labelled(pool, Calibration(bias=12.0, temperature=4.0, contrast_weight=0.5), random)
    weights = np.ones(40)
    found = fit(pool, shows, weights)
    crossed = cross_fitted(pool, shows, weights, found, np.random.default_rng(0))

    assert log_loss(shows, crossed) > log_loss(shows, pool.scores(found))
    np.testing.assert_array_equal(crossed, cross_fitted(pool, shows, weights, found, np.random.default_rng(0)))


def test_weights_make_the_share_that_is_asked_for() -> None:
    shows = np.array([True] * 30 + [False] * 70)
    assert weights_for(shows, None).tolist() == [1.0] * 100
    weights = weights_for(shows, 0.01)
    assert weights.sum() == pytest.approx(100)
    assert weights[shows].sum() == pytest.approx(1)
