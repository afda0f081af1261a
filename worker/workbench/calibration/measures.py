"""Scores and labels → how good they are: precision, recall, flag rate, calibration error.

In: scores of pictures, whether each shows the category, how often each counts. Out: numbers. Never a decision.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from worker.policy.compiled import Floats
from worker.workbench.calibration.fit import Mask

#: Equal bins of scores in which the calibration error is measured.
BINS = 15


@dataclass(frozen=True, slots=True)
class Reliability:
    """What stands behind a diagram of reliability: bins that hold pictures, low scores first."""

    #: `(bins,)` mean score.
    scores: Floats
    #: `(bins,)` share of pictures that show the category.
    shares: Floats
    #: `(bins,)` pictures, as often as they count.
    counts: Floats

    @property
    def error(self) -> float:
        """Expected calibration error: mean distance of both, by pictures.

        Source:
            Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 3; 15 bins as there.
        """
        return float(np.abs(self.scores - self.shares) @ self.counts / self.counts.sum())


@dataclass(frozen=True, slots=True)
class Curve:
    """Precision and recall by threshold."""

    #: `(n,)` ascending: every score that a picture has.
    thresholds: Floats
    #: `(n,)` share of pictures at or above the threshold that show the category.
    precision: Floats
    #: `(n,)` share of pictures that show the category which are at or above the threshold.
    recall: Floats


def bins_of(scores: Floats) -> np.ndarray:
    """`(n,)` the bin of each score; a score on an edge belongs to the bin below."""
    return np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], scores)


def reliability(scores: Floats, shows: Mask, weights: Floats) -> Reliability:
    """Compare mean scores with shares, bin by bin."""
    bins = bins_of(scores)
    counts, mean, share = (
        np.bincount(bins, weights * values, minlength=BINS).astype(np.float64)
        for values in (np.ones(len(scores)), scores, shows)
    )
    held = counts > 0
    return Reliability(mean[held] / counts[held], share[held] / counts[held], counts[held])


def curve(scores: Floats, shows: Mask, weights: Floats) -> Curve:
    """Measure precision and recall at every score; at least one picture shows the category."""
    order = np.argsort(scores, kind="stable")[::-1]
    ranked = scores[order]
    hits, flagged = np.cumsum((weights * shows)[order]), np.cumsum(weights[order])
    # Pictures with the same score are flagged together.
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    precision, recall = hits[last] / flagged[last], hits[last] / hits[-1]
    return Curve(ranked[last][::-1], precision[::-1], recall[::-1])


@dataclass(frozen=True, slots=True)
class Counts:
    """Judged pictures at one threshold, each counted once."""

    hits: int
    false_flags: int
    missed: int
    passed: int

    def precision(self, share: float | None) -> float | None:
        """Share of flagged pictures that show the category; None where none is flagged.

        Args:
            share: Of all uploads that show the category; None: as among the judged.
        """
        found = precision_of(
            self.hits, self.false_flags, self.hits + self.missed, self.false_flags + self.passed, share
        )
        return None if np.isnan(found) else float(found)

    @property
    def recall(self) -> float | None:
        """Share of pictures that show the category which are flagged; None where there are none."""
        shown = self.hits + self.missed
        return self.hits / shown if shown else None


def count(scores: Floats, shows: Mask, threshold: float) -> Counts:
    """Count judged pictures at a threshold, which binds at equality."""
    flagged = scores >= threshold
    return Counts(
        int((flagged & shows).sum()),
        int((flagged & ~shows).sum()),
        int((~flagged & shows).sum()),
        int((~flagged & ~shows).sum()),
    )


def precision_of(
    hits: np.ndarray | int, false_flags: np.ndarray | int, shown: np.ndarray | int, safe: np.ndarray | int,
    share: float | None,
) -> Floats:  # fmt: skip
    """Return precision, element by element; nan where nothing is flagged."""
    with np.errstate(invalid="ignore", divide="ignore"):
        if share is None:
            found: Floats = np.divide(hits, np.add(hits, false_flags))
            return found
        right, wrong = share * np.divide(hits, shown), (1 - share) * np.divide(false_flags, safe)
        weighed: Floats = np.divide(right, right + wrong)
        return weighed
