"""Pooled logits and labels → bias, temperature and contrast weight of one category.

In: a `Pool`, and whether each picture shows the category. Out: `Calibration`. Never a threshold.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from worker.errors import Missing
from worker.policy.compiled import Floats
from worker.policy.schema import Calibration
from worker.workbench.calibration.pools import Pool

Mask = npt.NDArray[np.bool_]

#: Strength of the penalty: as one picture more that speaks for a flat sigmoid. What holds the temperature above 0 where
#: labels can be told apart without a mistake.
PENALTY = 1.0
#: Temperatures stay between these, in logits; at the upper end margins say nothing of the category.
TEMPERATURES = (0.01, 100.0)
#: Parts of cross-fitting.
FOLDS = 5
_MOST_ROUNDS = 20


def fit(
    pool: Pool, shows: Mask, weights: Floats, penalty: float = PENALTY, begin: Calibration | None = None
) -> Calibration:
    """Fit a category's numbers.

    With slope `a = 1 / temperature`, the objective is that of a logistic regression on the two pooled logits,

        sum(weights * log_loss(shows, sigmoid(a * (prompts - w * contrast) - a * bias))) + penalty / 2 * a² * (1 + w²)

    under `0 <= w <= 1` and `a > 0`. In `(a, a * w, a * bias)` it is convex and so are the bounds, so there is one
    minimum. A picture of several views counts with its highest, which depends on w: views and numbers are chosen in
    turn, and the best turn is kept.

    Args:
        pool: `n` pictures; at least one that shows the category and one that does not.
        shows: `(n,)` whether each shows it.
        weights: `(n,)` how often each counts.
        penalty: Of slopes.
        begin: Where to look first; one minimum is found from everywhere.

    Raises:
        Missing: The extra `report` is not installed.

    Source:
        Platt 1999, "Probabilistic Outputs for Support Vector Machines", with the contrast's weight beside.
    """
    best: tuple[float, Calibration] | None = None
    found = begin or Calibration()
    rows = pool.highest_views(found.contrast_weight)
    for _ in range(_MOST_ROUNDS):
        found = _fit_rows(pool.prompts[rows], pool.contrast[rows], shows, weights, penalty, found)
        chosen = pool.highest_views(found.contrast_weight)
        worth = _objective_of(found, pool.prompts[chosen], pool.contrast[chosen], shows, weights, penalty)
        if best is None or worth < best[0]:
            best = worth, found
        if np.array_equal(chosen, rows):
            break
        rows = chosen
    assert best is not None  # noqa: S101 - there is at least one round
    # In the digits that a file shows, so that thresholds are chosen under the numbers that will judge.
    bias, temperature, weight = (
        float(f"{value:.6g}") for value in (best[1].bias, best[1].temperature, best[1].contrast_weight)
    )
    return Calibration(bias=bias, temperature=temperature, contrast_weight=weight)


def cross_fitted(pool: Pool, shows: Mask, weights: Floats, begin: Calibration, random: np.random.Generator) -> Floats:
    """`(n,)` scores, each under numbers that were fitted without its picture.

    Args:
        pool: `n` pictures.
        shows: `(n,)` whether each shows the category; at least two do and two do not.
        weights: `(n,)` how often each counts.
        begin: Where to look first.
        random: Deals the pictures out.
    """
    parts = np.empty(len(pool), np.int64)
    for kind in (True, False):
        places = np.flatnonzero(shows == kind)
        parts[random.permutation(places)] = np.arange(len(places)) % FOLDS
    scores = np.empty(len(pool))
    for part in range(FOLDS):
        kept, left = np.flatnonzero(parts != part), np.flatnonzero(parts == part)
        if len(left):
            scores[left] = pool.take(left).scores(fit(pool.take(kept), shows[kept], weights[kept], begin=begin))
    return scores


def says_nothing(calibration: Calibration) -> bool:
    """Whether the fit found no margin that rises with the category: its temperature went to the end."""
    return calibration.temperature >= 0.99 * TEMPERATURES[1]


def weights_for(shows: Mask, share: float | None) -> Floats:
    """`(n,)` weights, 1 on average, that make the pictures which show a category this share of all.

    Args:
        shows: `(n,)` whether each picture shows it; some do and some do not.
        share: In (0, 1); None: as it is, so all weights are 1.
    """
    if share is None:
        return np.ones(len(shows))
    of = np.where(shows, share / shows.sum(), (1 - share) / (~shows).sum())
    scaled: Floats = of * len(shows)
    return scaled


def _fit_rows(
    prompts: Floats, contrast: Floats, shows: Mask, weights: Floats, penalty: float, begin: Calibration
) -> Calibration:
    optimize = _scipy()
    # Both pools lie far from 0, side by side: without their means, slope and bias would pull at one another.
    centres = np.average(prompts, weights=weights), np.average(contrast, weights=weights)
    p, q = prompts - centres[0], contrast - centres[1]
    sign = np.where(shows, 1.0, -1.0)

    def objective(x: Floats) -> tuple[float, Floats]:
        slope, weight, height = x
        margins = p - weight * q
        signed = sign * (slope * margins + height)
        # log(1 + e^-x) and its slope from one power, which is never above 1.
        power = np.exp(-np.abs(signed))
        pull = -weights * sign * np.where(signed > 0, power, 1) / (1 + power)
        value = weights @ (np.log1p(power) - np.minimum(signed, 0)) + penalty / 2 * slope**2 * (1 + weight**2)
        by_slope = pull @ margins + penalty * slope * (1 + weight**2)
        by_weight = -slope * (pull @ q) + penalty * slope**2 * weight
        return float(value), np.array([by_slope, by_weight, pull.sum()])

    middle = centres[0] - begin.contrast_weight * centres[1]
    start = np.array([1 / begin.temperature, begin.contrast_weight, (middle - begin.bias) / begin.temperature])
    bounds = [(1 / TEMPERATURES[1], 1 / TEMPERATURES[0]), (0, 1), (None, None)]
    options = {"maxiter": 1000, "maxfun": 5000, "ftol": 1e-12, "gtol": 1e-7 * len(p)}
    found = optimize.minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    slope, weight, height = found.x
    bias = centres[0] - weight * centres[1] - height / slope
    return Calibration(bias=float(bias), temperature=float(1 / slope), contrast_weight=float(weight))


def _objective_of(
    found: Calibration, prompts: Floats, contrast: Floats, shows: Mask, weights: Floats, penalty: float
) -> float:
    slope, weight = 1 / found.temperature, found.contrast_weight
    signed = np.where(shows, slope, -slope) * (prompts - weight * contrast - found.bias)
    return float(weights @ np.logaddexp(0, -signed) + penalty / 2 * slope**2 * (1 + weight**2))


def _scipy() -> Any:
    try:
        from scipy import optimize  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise Missing("calibrations need the extra report; run pip install 'sluicegate[report]'") from error
    return optimize
