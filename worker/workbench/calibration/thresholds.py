"""Scores → thresholds that reach a stated target.

In: scores of judged pictures, or of traffic. Out: thresholds, as few digits as tell the pictures apart.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from worker.policy.compiled import Floats
from worker.workbench.calibration.fit import Mask
from worker.workbench.calibration.measures import curve

_MOST_DIGITS = 17


def lowest_with_precision(scores: Floats, shows: Mask, weights: Floats, precision: float) -> float | None:
    """Return the lowest threshold whose precision reaches a target; None where none does.

    Args:
        scores: `(n,)` of judged pictures.
        shows: `(n,)` whether each shows the category; at least one does.
        weights: `(n,)` how often each counts.
        precision: In (0, 1].
    """
    found = curve(scores, shows, weights)
    # Rounding of the sums must not cost a threshold that reaches it exactly.
    reached = np.flatnonzero(found.precision >= precision - 1e-12)
    if not len(reached):
        return None
    place = int(reached[0])
    below = found.thresholds[place - 1] if place else 0.0
    return between(below, found.thresholds[place])


def lowest_with_rate(scores: Floats, rate: float) -> float | None:
    """Return the lowest threshold that flags at most a share of pictures; None where even score 1 flags more.

    Args:
        scores: `(n,)` of traffic.
        rate: In [0, 1].
    """
    # Half a picture in a million million: 0.3 of ten is three, whatever the product of the two rounds to.
    return lowest_with_count(np.sort(scores), int(np.floor(rate * len(scores) + 1e-9)))


def lowest_with_count(ascending: Floats, most: int) -> float | None:
    """Return the lowest threshold that at most so many scores reach; None where more of them are 1.

    Args:
        ascending: `(n,)` scores, sorted.
        most: Pictures.
    """
    if most >= len(ascending):
        return 0.0
    below = float(ascending[len(ascending) - 1 - most])
    higher = ascending[np.searchsorted(ascending, below, side="right") :]
    if len(higher):
        return between(below, float(higher[0]))
    return between(below, 1.0) if below < 1.0 else None


def for_reviews(scores: Mapping[str, Floats], most: int) -> dict[str, float | None]:
    """Return a threshold for each category, so that all of them together flag at most so many pictures.

    Each category may flag equally many; of pictures that several flag, one counts. The thresholds are the lowest.

    Args:
        scores: `(n,)` by category, of the same pictures.
        most: Pictures that a person can look at.
    """
    ascending = {name: np.sort(found) for name, found in scores.items()}
    low, high = 0, len(next(iter(scores.values())))
    while low < high:
        each = (low + high + 1) // 2
        if _flagged(scores, _each(ascending, each)) <= most:
            low = each
        else:
            high = each - 1
    return _each(ascending, low)


def _each(ascending: Mapping[str, Floats], most: int) -> dict[str, float | None]:
    return {name: lowest_with_count(found, most) for name, found in ascending.items()}


def _flagged(scores: Mapping[str, Floats], thresholds: Mapping[str, float | None]) -> int:
    flagged = [scores[name] >= threshold for name, threshold in thresholds.items() if threshold is not None]
    return int(np.logical_or.reduce(flagged).sum()) if flagged else 0


def between(below: float, at: float) -> float:
    """Return a threshold above one score and not above another, in as few digits as it takes, near their middle.

    Args:
        below: Is not to reach it.
        at: Is to reach it; greater.
    """
    middle = below + (at - below) / 2
    for digits in range(2, _MOST_DIGITS):
        threshold = round(float(middle), digits)
        if below < threshold < at:
            return threshold
    return float(at)
