"""What a calibration found, category by category: numbers before and after, and what stands behind each.

In: what `calibrate` measured. Out: plain values for a table, a line of JSON, a page and a policy file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from worker.policy.compiled import Floats, Indices
from worker.policy.schema import Calibration
from worker.workbench.calibration.fit import Mask
from worker.workbench.calibration.intervals import Interval

#: Every kind of caution: what it says.
CAUTIONS: dict[str, str] = {
    "few-positives": "Too few pictures show the category: it keeps the calibration and the block that it had.",
    "few-safe": "Too few pictures do not show the category: it keeps the calibration and the block that it had.",
    "says-nothing": "Margins do not rise with the category: it keeps the calibration and the block that it had.",
    "uncalibrated": "The category has no calibration for the model, so verdicts say calibrated: false.",
    "precision-unreached": "No threshold reaches the precision: block stays.",
    "rate-unreached": "Too many pictures have score 1: no threshold flags as few as wanted, and review stays.",
    "review-at-block": "Review would lie above block, and becomes block.",
    "few-behind": "Few pictures stand behind the threshold.",
    "no-bound": "Too few safe pictures for a bound on the false-flag rate.",
    "not-exact": "Pictures with equal margins cannot be told apart: flag rates differ.",
    "short-traffic": "The traffic is of less than a week: days of a week differ.",
}


@dataclass(frozen=True, slots=True)
class Caution:
    """One thing to know before the numbers are used."""

    #: A key of `CAUTIONS`.
    code: str
    #: None: of all of them.
    category: str | None
    message: str

    def as_dict(self) -> dict[str, str | None]:
        """Return the caution as one JSON object."""
        return {"code": self.code, "category": self.category, "message": self.message}

    def __str__(self) -> str:
        return f"{self.category}: {self.message} [{self.code}]" if self.category else f"{self.message} [{self.code}]"


@dataclass(frozen=True, slots=True)
class AtThreshold:
    """What happens at one threshold of one category."""

    threshold: float
    #: Of the traffic.
    flagged: int
    flag_rate: float
    flag_rate_interval: Interval
    #: Of the judged pictures; None where there are too few to say.
    precision: float | None
    precision_interval: Interval | None
    recall: float | None
    recall_interval: Interval | None
    #: Of the false-flag rate; None without enough safe pictures.
    false_flag_bound: float | None


@dataclass(frozen=True, slots=True)
class Side:
    """A category's numbers, before or after."""

    calibration: Calibration
    #: By action.
    thresholds: dict[str, AtThreshold]
    #: Expected calibration error; None without labels.
    error: float | None = None
    error_interval: Interval | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """Scores of the pictures that a person judged: `(n,)` each."""

    before: Floats
    #: Where the category was fitted: each under numbers that were fitted without its picture.
    after: Floats
    shows: Mask
    weights: Floats
    #: Where they stand in the traffic.
    places: Indices


@dataclass(frozen=True, slots=True)
class Found:
    """What was found of one category."""

    name: str
    shown: int
    safe: int
    #: Of the safe: had no part in fit and block.
    held_out: int
    fitted: bool
    before: Side
    after: Side
    #: None without labels.
    judged: Judged | None
    #: `(n,)` scores of the traffic, before and after.
    traffic: tuple[Floats, Floats]

    def moved(self) -> dict[str, float]:
        """Return the thresholds that are new."""
        return {
            action: found.threshold
            for action, found in self.after.thresholds.items()
            if found.threshold != self.before.thresholds[action].threshold
        }

    def as_dict(self) -> dict[str, Any]:
        """Return the category as one JSON object."""
        return {
            "category": self.name, "shown": self.shown, "safe": self.safe, "held_out": self.held_out,
            "fitted": self.fitted, "before": _plain(self.before), "after": _plain(self.after),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What was found of a policy under a model."""

    policy: str
    #: `id@revision`.
    model: str
    #: Pictures of the traffic.
    pictures: int
    #: That the traffic covers; None where nobody knows.
    days: float | None
    #: Of all uploads that show a category; None: as among the judged.
    share: float | None
    categories: dict[str, Found]
    #: By category, of the sentences.
    sentences: dict[str, str]
    cautions: list[Caution] = field(default_factory=list)

    def calibrations(self) -> dict[str, Calibration]:
        """Return the new calibrations, bound to their sentences."""
        return {
            name: found.after.calibration.model_copy(update={"sentences": self.sentences[name]})
            for name, found in self.categories.items()
            if found.fitted
        }

    def thresholds(self) -> dict[str, dict[str, float]]:
        """Return the new thresholds."""
        return {name: moved for name, found in self.categories.items() if (moved := found.moved())}

    def nearest(self, category: str, action: str, most: int) -> list[int]:
        """Return the places of the pictures nearest to a new threshold, highest score first.

        Args:
            category: Which.
            action: Whose threshold.
            most: How many.
        """
        found = self.categories[category]
        scores = found.traffic[1]
        order = np.argsort(np.abs(scores - found.after.thresholds[action].threshold), kind="stable")[:most]
        places: list[int] = order[np.argsort(-scores[order], kind="stable")].tolist()
        return places


def _plain(side: Side) -> dict[str, Any]:
    return {
        "calibration": side.calibration.model_dump(mode="json"),
        "calibration_error": side.error,
        "calibration_error_interval": side.error_interval,
        "thresholds": {
            action: {name: getattr(found, name) for name in AtThreshold.__dataclass_fields__}
            for action, found in side.thresholds.items()
        },
    }
