"""Intervals hold what they should, and known ones come out as published."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from worker.workbench.stress.intervals import means, share


@pytest.mark.parametrize(("count", "of"), [(0, 1), (1, 1), (3, 10), (0, 20), (20, 20), (7, 1000)])
def test_a_share_has_wilsons_interval(count: int, of: int) -> None:
    found = share(count, of)
    assert found is not None
    theirs = binomtest(count, of).proportion_ci(method="wilson")
    assert found.value == count / of
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=1e-6)


def test_nothing_has_no_share() -> None:
    assert share(0, 0) is None


def test_a_mean_of_equal_numbers_is_certain_and_more_numbers_make_it_surer() -> None:
    assert means(np.full((5, 2), 3.0)) == [(3.0, 3.0, 3.0)] * 2
    drawn = np.random.default_rng(1).normal(2, 1, (400, 1))
    few, many = means(drawn[:20])[0], means(drawn)[0]
    assert few.high - few.low > 2 * (many.high - many.low)
    assert many.low < 2 < many.high
    # Of a normal sample: about 1.96 standard errors on both sides.
    assert many.high - many.low == pytest.approx(2 * 1.96 * drawn.std() / 20, rel=0.1)


def test_the_same_numbers_have_the_same_interval() -> None:
    drawn = np.random.default_rng(1).normal(0, 1, (9, 3))
    assert means(drawn) == means(drawn.copy())
