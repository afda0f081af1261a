"""How far a number can be trusted: bootstrap intervals, and a bound on the false-flag rate.

In: counts, or scores and labels. Out: lower and upper ends. The same seed gives the same ends.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from worker.errors import Missing
from worker.policy.compiled import Floats
from worker.workbench.calibration.fit import Mask
from worker.workbench.calibration.measures import BINS, Counts, bins_of, precision_of

#: Samples of a bootstrap.
SAMPLES = 1000
#: Chance that an interval or a bound holds.
LEVEL = 0.95
#: Parts of a bin whose pictures are drawn together.
_CELLS = 20


class Interval(NamedTuple):
    """Both ends, at `LEVEL`."""

    lower: float
    upper: float


def of_counts(counts: Counts, share: float | None, random: np.random.Generator) -> dict[str, Interval | None]:
    """Return intervals of precision and recall at one threshold.

    To draw n pictures again and count them is to draw the four counts from a multinomial, so that is what is done.

    Args:
        counts: Judged pictures.
        share: See `Counts.precision`.
        random: Draws.

    Source:
        Efron and Tibshirani 1993, "An Introduction to the Bootstrap", section 13.3 (percentiles).
    """
    cells = np.array([counts.hits, counts.false_flags, counts.missed, counts.passed])
    hits, false_flags, missed, passed = random.multinomial(cells.sum(), cells / cells.sum(), SAMPLES).T
    shown = hits + missed
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = hits / shown
    return {
        "precision": _percentiles(precision_of(hits, false_flags, shown, false_flags + passed, share)),
        "recall": _percentiles(recall),
    }


def of_rate(flagged: int, pictures: int, random: np.random.Generator) -> Interval:
    """Return the interval of a share of pictures."""
    drawn = random.binomial(pictures, flagged / pictures, SAMPLES) / pictures
    return Interval(*map(float, np.quantile(drawn, _ends())))


def of_error(scores: Floats, shows: Mask, weights: Floats, random: np.random.Generator) -> Interval:
    """Return the interval of the expected calibration error; drawing again makes it larger, so it leans upwards.

    Pictures whose scores differ by less than 1 / 300 and that show the same are drawn as if their scores were the same:
    then, too, a multinomial says what is drawn, however many pictures there are.
    """
    bins = bins_of(scores)
    finer = np.clip(((scores * BINS - bins) * _CELLS).astype(np.int64), 0, _CELLS - 1)
    _, cells, counts = np.unique((bins * _CELLS + finer) * 2 + shows, return_inverse=True, return_counts=True)
    apart, weight, bin_of = (
        np.bincount(cells, values) / counts for values in (weights * (scores - shows), weights, bins)
    )
    in_bin = bin_of[:, None] == np.arange(BINS)
    drawn = random.multinomial(len(scores), counts / len(scores), SAMPLES)
    errors = np.abs((drawn * apart) @ in_bin).sum(axis=1) / (drawn @ weight)
    return Interval(*map(float, np.quantile(errors, _ends())))


def false_flag_bound(held_out: Floats, threshold: float) -> float:
    """Bound the share of safe pictures that reach a threshold.

    Of n safe pictures that had no part in fit and threshold, m reach it. The rate is at most the `LEVEL` quantile of
    Beta(m + 1, n - m), which is 1 where m = n; over draws of the held-out pictures that holds in `LEVEL` of all cases,
    as long as uploads are like them.

    Args:
        held_out: `(n,)` scores of safe pictures.
        threshold: It binds at equality.

    Raises:
        Missing: The extra `report` is not installed.

    Source:
        Vovk 2012, "Conditional Validity of Inductive Conformal Predictors", proposition 2a: the split-conformal p-value
        (m + 1) / (n + 1) made to hold for the set at hand; the same as Clopper and Pearson 1934, one-sided.
    """
    try:
        from scipy.stats import beta  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise Missing("calibrations need the extra report; run pip install 'sluicegate[report]'") from error
    reached = int((held_out >= threshold).sum())
    return 1.0 if reached == len(held_out) else float(beta.ppf(LEVEL, reached + 1, len(held_out) - reached))


def _percentiles(drawn: Floats) -> Interval | None:
    """Return the ends of what can be said; None where less than half of the samples say anything."""
    said = drawn[~np.isnan(drawn)]
    return Interval(*map(float, np.quantile(said, _ends()))) if len(said) >= SAMPLES / 2 else None


def _ends() -> tuple[float, float]:
    return (1 - LEVEL) / 2, (1 + LEVEL) / 2
