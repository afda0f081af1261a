"""Where a version that watches says something else than the one that decided.

In: a verdict and one of its shadows. Out: a `Disagreement` for each category that differs. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from worker.records import ACTION_ORDER, CategoryVerdict, ShadowVerdict, Verdict


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A category of which a version that watches said something else than the one that decided."""

    category: str
    #: What the watching version is.
    direction: Literal["stricter", "milder"]


def disagreements(verdict: Verdict, shadow: ShadowVerdict) -> list[Disagreement]:
    """Say where a shadow differs, by category; a category that one of them lacks is an `allow` there."""
    found = []
    for name in dict.fromkeys((*verdict.categories, *shadow.categories)):
        ours, theirs = (_order(each.get(name)) for each in (verdict.categories, shadow.categories))
        if ours != theirs:
            found.append(Disagreement(name, "stricter" if theirs > ours else "milder"))
    return found


def _order(category: CategoryVerdict | None) -> int:
    return ACTION_ORDER[category.action if category else "allow"]
