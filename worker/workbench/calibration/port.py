"""A policy's numbers for another checkpoint, without labels: each threshold flags as many of the same pictures.

In: the pictures' pooled logits under both models. Out: `Ported`. Never another threshold: scores keep their scale.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from worker.policy.compiled import Floats
from worker.policy.schema import Calibration, Policy
from worker.scoring import sigmoid
from worker.workbench.calibration.findings import Caution
from worker.workbench.calibration.pools import Pools

#: Fewer pictures behind a quantile are said.
FEW_BEHIND = 20
#: What temperatures are scaled by: the distance of the median from this quantile.
_UPPER_QUANTILE = 0.99
#: Room above the least temperature, as a part of it, where there is no greatest.
_ROOM = 0.01


@dataclass(frozen=True, slots=True)
class Matched:
    """One threshold of one category, under both models."""

    threshold: float
    #: Pictures at or above it.
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class PortedCategory:
    """One category under both models."""

    name: str
    before: Calibration
    after: Calibration
    #: By action.
    thresholds: dict[str, Matched]

    def as_dict(self) -> dict[str, Any]:
        """Return the category as one JSON object."""
        return {
            "category": self.name,
            "before": self.before.model_dump(mode="json"),
            "after": self.after.model_dump(mode="json"),
            "thresholds": {
                action: {"threshold": found.threshold, "before": found.before, "after": found.after}
                for action, found in self.thresholds.items()
            },
        }


@dataclass(frozen=True, slots=True)
class Ported:
    """A policy under both models."""

    policy: str
    source: str
    target: str
    pictures: int
    categories: dict[str, PortedCategory]
    sentences: dict[str, str]
    cautions: list[Caution] = field(default_factory=list)

    def calibrations(self) -> dict[str, Calibration]:
        """Return the calibrations for the other model, bound to their sentences."""
        return {
            name: found.after.model_copy(update={"sentences": self.sentences[name]})
            for name, found in self.categories.items()
        }


def port(policy: Policy, source: str, target: str, before: Pools, after: Pools) -> Ported:
    """Match a policy's flag rates under another model.

    Args:
        policy: Whose thresholds and calibration for `source` are to be matched.
        source: `id@revision` that `before` is of.
        target: `id@revision` that `after` is of.
        before: Pictures under the one model.
        after: The same pictures in the same order under the other.
    """
    categories, cautions = {}, []
    made = policy.calibration_for(source)
    for name, category in policy.categories.items():
        old = made.get(name, Calibration())
        if name not in made:
            message = f"it has no calibration for {source}; what is matched are its plain scores"
            cautions.append(Caution("uncalibrated", name, message))
        thresholds = category.thresholds.as_dict()
        scores = before.categories[name].scores(old)
        wanted = {action: int((scores >= value).sum()) for action, value in thresholds.items()}
        margins = np.sort(before.categories[name].margins(old.contrast_weight))
        ported = np.sort(after.categories[name].margins(old.contrast_weight))
        new = match(ported, thresholds, wanted, old, margins)
        scores = after.categories[name].scores(new)
        matched = {
            action: Matched(value, wanted[action], int((scores >= value).sum())) for action, value in thresholds.items()
        }
        categories[name] = PortedCategory(name, old, new, matched)
        cautions += _cautions(name, matched, len(before))
    return Ported(policy.ref, source, target, len(before), categories, policy.sentence_digests, cautions)


def match(
    margins: Floats, thresholds: Mapping[str, float], wanted: Mapping[str, int], old: Calibration, old_margins: Floats
) -> Calibration:
    """Choose bias and temperature so that each threshold is reached by as many pictures as wanted.

    The margin whose score is a threshold t is `bias + temperature * logit(t)`; k pictures reach t when it lies between
    the k-th highest margin and the next. Two thresholds are two such gaps and two unknowns. Within what the gaps leave
    open, the temperature is the old one, stretched as margins are, and where no gap has two ends, the picture at the
    end keeps its score. The contrast's weight is the old one.

    Args:
        margins: `(n,)` under the new model, ascending.
        thresholds: By action, in [0, 1].
        wanted: By action, pictures that reach it.
        old: Under the old model.
        old_margins: `(n,)`, ascending.
    """
    # Scores 0 and 1 lie at no margin.
    logits = {action: float(np.log(at / (1 - at))) for action, at in thresholds.items() if 0 < at < 1}
    gaps = {action: _gap(margins, wanted[action]) for action in logits}
    temperature = old.temperature * _spread(margins) / _spread(old_margins)
    if len(gaps) > 1 and logits["block"] > logits["review"]:
        apart = logits["block"] - logits["review"]
        least = max(0.0, (gaps["block"].low - gaps["review"].high) / apart)
        temperature = _well_inside(temperature, _Gap(least, (gaps["block"].high - gaps["review"].low) / apart))
    # What each gap says of the bias; one that satisfies all of them is looked for.
    low = max((gap.low - temperature * logits[action] for action, gap in gaps.items()), default=-np.inf)
    high = min((gap.high - temperature * logits[action] for action, gap in gaps.items()), default=np.inf)
    if np.isfinite(low) and np.isfinite(high):
        bias = low + (high - low) / 2
    else:
        end = 0 if np.isfinite(high) else -1
        bias = margins[end] - temperature * (old_margins[end] - old.bias) / old.temperature
    exact = Calibration(bias=float(bias), temperature=float(temperature), contrast_weight=old.contrast_weight)
    return _in_few_digits(exact, margins, thresholds)


def _in_few_digits(exact: Calibration, margins: Floats, thresholds: Mapping[str, float]) -> Calibration:
    """Return the numbers in as few digits as leave each picture on its side of each threshold."""

    def reached(made: Calibration) -> list[int]:
        scores = sigmoid((margins - made.bias) / made.temperature)
        return [int((scores >= threshold).sum()) for threshold in thresholds.values()]

    for digits in (6, 9, 12):
        bias, temperature = (float(f"{value:.{digits}g}") for value in (exact.bias, exact.temperature))
        shorter = exact.model_copy(update={"bias": bias, "temperature": temperature})
        if reached(shorter) == reached(exact):
            return shorter
    return exact


class _Gap(NamedTuple):
    """Between two neighbours among sorted margins; one end is infinite where all or no pictures are above."""

    low: float
    high: float


def _gap(margins: Floats, most: int) -> _Gap:
    """Return the gap that has so many margins above it; equal margins stay together, the nearest number counts then."""
    values, counts = np.unique(margins, return_counts=True)
    above = np.append(np.cumsum(counts[::-1])[::-1], 0)
    # Of two that are equally near, the one that flags more.
    place = int(np.argmin(np.abs(above - most)))
    ends = np.concatenate([[-np.inf], values, [np.inf]])
    return _Gap(float(ends[place]), float(ends[place + 1]))


def _well_inside(value: float, gap: _Gap) -> float:
    """Return the number nearest to a value that has room on both sides in a gap of positive numbers."""
    room = (gap.high - gap.low) / 4 if np.isfinite(gap.high) else gap.low * _ROOM
    return float(np.clip(value, gap.low + room, gap.high - room))


def _spread(margins: Floats) -> float:
    spread = float(np.quantile(margins, _UPPER_QUANTILE) - np.median(margins))
    return spread if spread > 0 else 1.0


def _cautions(name: str, matched: Mapping[str, Matched], pictures: int) -> Iterator[Caution]:
    for action, found in matched.items():
        if found.before < FEW_BEHIND:
            message = f"{found.before} of {pictures} pictures reach {action} {found.threshold:g}; give more pictures"
            yield Caution("few-behind", name, message)
        if found.before != found.after:
            message = f"{found.after} pictures reach {action} {found.threshold:g}, and {found.before} did"
            yield Caution("not-exact", name, message)
