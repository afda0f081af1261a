"""The story of a calibration: fit, choose thresholds, measure; category by category.

In: a policy, its pictures as `Pools`, labels, and what is asked. Out: `Calibrated`. Never a file; the same seed gives
the same numbers.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from worker.errors import UsageError
from worker.policy.compiled import Floats, Indices
from worker.policy.schema import Calibration, Policy
from worker.workbench.calibration import intervals, thresholds
from worker.workbench.calibration.findings import AtThreshold, Calibrated, Caution, Found, Judged, Side
from worker.workbench.calibration.fit import Mask, cross_fitted, fit, says_nothing, weights_for
from worker.workbench.calibration.labels import Labels
from worker.workbench.calibration.measures import count, reliability
from worker.workbench.calibration.pools import Pool, Pools

#: Part of the safe pictures that are held out for a bound, and the fewest that are worth it.
HELD_OUT = 1 / 3
FEWEST_HELD_OUT = 60
#: Fewer pictures behind a threshold are said.
FEW_BEHIND = 10
_DAY_SECONDS = 86_400.0
_WEEK_DAYS = 7
_SHORTEST_DAYS = 1 / 24


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of a calibration."""

    #: Of block, in (0, 1]; None: block stays.
    precision: float | None = None
    #: Of each category's review, in [0, 1]; None: see the next.
    max_flag_rate: float | None = None
    #: Of the whole policy; None, too: review stays.
    reviews_per_day: float | None = None
    #: Of all uploads that show a category, in (0, 1); None: as among the judged.
    share: float | None = None
    #: A category with fewer pictures that show it, or that do not, keeps what it had.
    min_positives: int = 20
    seed: int = 0


def calibrate(policy: Policy, model: str, pools: Pools, labels: Labels, asked: Asked) -> Calibrated:
    """Calibrate a policy.

    Args:
        policy: Whose numbers are looked for.
        model: `id@revision` that made the pictures' embeddings.
        pools: All pictures: the traffic, and among it those that were judged.
        labels: What was said of them.
        asked: Targets.

    Raises:
        UsageError: Reviews a day are asked for, and the pictures have no times.
        Missing: The extra `report` is not installed.
    """
    days = _days(pools)
    places = pools.places()
    work = [_Work.of(name, policy, model, pools, places, labels, asked) for name in policy.categories]
    cautions = [caution for category in work for caution in category.fit(asked)]
    reviews = _reviews(work, days, asked)
    if asked.reviews_per_day is not None and days is not None and days < _WEEK_DAYS:
        cautions.append(Caution("short-traffic", None, f"the traffic is of {days:.2g} days; days of a week differ"))
    found = {}
    for category in work:
        cautions += category.choose(reviews, asked)
        cautions += category.bind(policy, model)
        found[category.name] = category.found(asked)
    digests = policy.sentence_digests
    return Calibrated(policy.ref, model, len(pools), days, asked.share, found, digests, cautions)


@dataclass(slots=True)
class _Work:
    """One category, while it is worked on."""

    name: str
    pool: Pool
    #: Places of the judged pictures in the pool, and whether each shows the category.
    judged: Indices
    shows: Mask
    random: np.random.Generator
    before: Calibration
    old: dict[str, float]
    after: Calibration = field(init=False)
    new: dict[str, float] = field(init=False)
    fitted: bool = False
    #: Of the judged: held out of fit and block.
    held_out: Mask = field(init=False)

    @classmethod
    def of(
        cls,
        name: str,
        policy: Policy,
        model: str,
        pools: Pools,
        places: Mapping[str, int],
        labels: Labels,
        asked: Asked,
    ) -> _Work:
        """Begin: nothing is changed yet."""
        said = labels.categories.get(name, {})
        judged = np.array([places[picture] for picture in said], np.intp)
        shows = np.array(list(said.values()), np.bool_)
        random = np.random.default_rng([asked.seed, zlib.crc32(name.encode())])
        before = policy.calibration_for(model).get(name, Calibration())
        return cls(name, pools.categories[name], judged, shows, random, before,
                   policy.categories[name].thresholds.as_dict())  # fmt: skip

    def __post_init__(self) -> None:
        self.after, self.new = self.before, dict(self.old)
        self.held_out = np.zeros(len(self.judged), np.bool_)

    def fit(self, asked: Asked) -> list[Caution]:
        """Fit, where there is enough to fit to."""
        shown, safe = int(self.shows.sum()), int((~self.shows).sum())
        if not shown + safe:
            return []
        for count_, code, what in ((shown, "few-positives", "show it"), (safe, "few-safe", "do not show it")):
            if count_ < asked.min_positives:
                message = f"{count_} pictures {what}, and {asked.min_positives} are wanted; it keeps what it had"
                return [Caution(code, self.name, message)]
        self._hold_out()
        kept = self._kept()
        after = fit(self.pool.take(self.judged[kept]), self.shows[kept], self._weights(asked.share)[kept])
        if says_nothing(after):
            message = "margins do not rise with what the pictures show; reword its sentences; it keeps what it had"
            return [Caution("says-nothing", self.name, message)]
        self.after, self.fitted = after, True
        if not self.held_out.any():
            message = f"{safe} safe pictures, too few for a bound on the false-flag rate"
            return [Caution("no-bound", self.name, message)]
        return []

    def choose(self, reviews: Mapping[str, float | None], asked: Asked) -> list[Caution]:
        """Choose thresholds; review is never above block.

        Args:
            reviews: By category, what was found for review; None where there is none.
            asked: Targets.
        """
        cautions = []
        if asked.precision is not None and "block" in self.old and self.fitted:
            kept = self._kept()
            scores = self.pool.take(self.judged[kept]).scores(self.after)
            weights = self._weights(asked.share)[kept]
            block = thresholds.lowest_with_precision(scores, self.shows[kept], weights, asked.precision)
            if block is None:
                message = f"no threshold has precision {asked.precision:g}; block stays {self.old['block']:g}"
                cautions.append(Caution("precision-unreached", self.name, message))
            else:
                self.new["block"] = block
        review = reviews.get(self.name)
        if review is not None:
            self.new["review"] = review
        elif self.name in reviews:
            message = f"too many pictures have score 1, so review stays {self.old['review']:g}"
            cautions.append(Caution("rate-unreached", self.name, message))
        if self.new.get("review", 0.0) > self.new.get("block", 1.0):
            message = f"review would be {self.new['review']:g}, above block, and becomes {self.new['block']:g}"
            cautions.append(Caution("review-at-block", self.name, message))
            self.new["review"] = self.new["block"]
        return cautions + self._few_behind()

    def bind(self, policy: Policy, model: str) -> list[Caution]:
        """Say where the category stays uncalibrated."""
        if self.fitted or self.name in policy.calibration_for(model):
            return []
        message = f"it has no calibration for {model}, so verdicts say calibrated: false; label pictures of it"
        return [Caution("uncalibrated", self.name, message)]

    def found(self, asked: Asked) -> Found:
        """Measure both sides."""
        traffic = self.pool.scores(self.before), self.pool.scores(self.after)
        judged = self._judged(traffic[0], asked)
        return Found(
            name=self.name,
            shown=int(self.shows.sum()),
            safe=int((~self.shows).sum()),
            held_out=int(self.held_out.sum()),
            fitted=self.fitted,
            before=self._side(self.before, self.old, traffic[0], judged.before if judged else None, judged, asked),
            after=self._side(self.after, self.new, traffic[1], judged.after if judged else None, judged, asked),
            judged=judged,
            traffic=traffic,
        )

    def _hold_out(self) -> None:
        safe = np.flatnonzero(~self.shows)
        wanted = int(len(safe) * HELD_OUT)
        if wanted >= FEWEST_HELD_OUT:
            self.held_out[self.random.permutation(safe)[:wanted]] = True

    def _kept(self) -> Indices:
        return np.flatnonzero(~self.held_out)

    def _weights(self, share: float | None) -> Floats:
        """`(n,)` of the judged; those that are kept stand in for those that are held out."""
        kept = ~self.held_out
        if share is None and self.held_out.any():
            share = float(self.shows.mean())
        weights = np.zeros(len(self.judged))
        weights[kept] = weights_for(self.shows[kept], share)
        return weights

    def _judged(self, before: Floats, asked: Asked) -> Judged | None:
        if not (self.shows.any() and (~self.shows).any()):
            return None
        after = self.pool.scores(self.after)[self.judged]
        if self.fitted:
            kept = self._kept()
            weights = self._weights(asked.share)[kept]
            after[kept] = cross_fitted(
                self.pool.take(self.judged[kept]), self.shows[kept], weights, self.after, self.random
            )
        return Judged(before[self.judged], after, self.shows, weights_for(self.shows, asked.share), self.judged)

    def _side(
        self, made: Calibration, at: dict[str, float], traffic: Floats, scores: Floats | None, judged: Judged | None,
        asked: Asked,
    ) -> Side:  # fmt: skip
        found = {action: self._at(threshold, traffic, judged is not None, asked) for action, threshold in at.items()}
        if judged is None or scores is None:
            return Side(made, found)
        error = reliability(scores, judged.shows, judged.weights).error
        return Side(made, found, error, intervals.of_error(scores, judged.shows, judged.weights, self.random))

    def _at(self, threshold: float, traffic: Floats, is_judged: bool, asked: Asked) -> AtThreshold:
        flagged = int((traffic >= threshold).sum())
        rate = flagged / len(traffic)
        rate_interval = intervals.of_rate(flagged, len(traffic), self.random)
        if not is_judged:
            return AtThreshold(threshold, flagged, rate, rate_interval, None, None, None, None, None)
        scores = traffic[self.judged]
        counts = count(scores, self.shows, threshold)
        ends = intervals.of_counts(counts, asked.share, self.random)
        bound = intervals.false_flag_bound(scores[self.held_out], threshold) if self.held_out.any() else None
        return AtThreshold(
            threshold, flagged, rate, rate_interval, counts.precision(asked.share), ends["precision"], counts.recall,
            ends["recall"], bound,
        )  # fmt: skip

    def _few_behind(self) -> list[Caution]:
        cautions = []
        scores = self.pool.scores(self.after)
        behind = {"review": scores, "block": scores[self.judged]}
        for action, threshold in self.new.items():
            flagged = int((behind[action] >= threshold).sum())
            if threshold != self.old[action] and flagged < FEW_BEHIND:
                message = f"pictures behind {action} {threshold:g}: {flagged}; it may move far with more of them"
                cautions.append(Caution("few-behind", self.name, message))
        return cautions


def _days(pools: Pools) -> float | None:
    """Return the days that the pictures were judged in; None where nobody knows."""
    if pools.times is None:
        return None
    span = (pools.times.max() - pools.times.min()) / np.timedelta64(1, "ms") / 1000
    return float(span) / _DAY_SECONDS


def _reviews(work: list[_Work], days: float | None, asked: Asked) -> dict[str, float | None]:
    """Choose review from the traffic, where that is asked; None where no threshold flags as few."""
    scores = {category.name: category.pool.scores(category.after) for category in work if "review" in category.old}
    if asked.max_flag_rate is not None:
        return {name: thresholds.lowest_with_rate(found, asked.max_flag_rate) for name, found in scores.items()}
    if asked.reviews_per_day is None or not scores:
        return {}
    if days is None:
        raise UsageError("--review-per-day needs times, which pictures in a directory lack; give --ledger or --stream")
    if days < _SHORTEST_DAYS:
        raise UsageError(
            "--review-per-day needs traffic of an hour or more; archive more of it, or give --max-flag-rate"
        )
    return thresholds.for_reviews(scores, int(asked.reviews_per_day * days))
