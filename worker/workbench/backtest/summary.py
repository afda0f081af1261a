"""What a back-test found, as rows of JSON and in words: what the command prints and the report shows.

In: `Found`. Out: plain objects and sentences. Never a number that was not counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from worker.ledger.batch import ACTIONS
from worker.policy.compiled import CompiledPolicy
from worker.records import CategoryVerdict
from worker.workbench.backtest.flips import Flip
from worker.workbench.backtest.run import Found
from worker.workbench.backtest.tally import Counts, milder, stricter

_ALLOW, _REVIEW, _BLOCK = range(len(ACTIONS))


@dataclass(frozen=True, slots=True)
class CategoryRow:
    """One category under both versions."""

    name: str
    #: `(actions,)`; None where a version has no such category.
    before: Counts | None
    after: Counts | None
    stricter: int | None
    milder: int | None
    thresholds_before: dict[str, float] | None
    thresholds_after: dict[str, float] | None
    scores_before: Counts | None
    scores_after: Counts | None

    def as_dict(self) -> dict[str, Any]:
        """Return it as one JSON object."""
        return {
            "row": "category", "category": self.name, "before": actions(self.before), "after": actions(self.after),
            "stricter": self.stricter, "milder": self.milder,
            "thresholds_before": self.thresholds_before, "thresholds_after": self.thresholds_after,
            "scores_before": listed(self.scores_before), "scores_after": listed(self.scores_after),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Load:
    """Entries for a person to look at."""

    entries: int
    days: int
    before: int
    after: int

    def __str__(self) -> str:
        if self.days < 2:  # noqa: PLR2004 - one day is its own mean
            return f"review load: {self.before:,} → {self.after:,} ({_changed(self.before, self.after)})"
        a_day = f"{self.before / self.days:,.1f} → {self.after / self.days:,.1f} a day over {self.days} days"
        return f"review load: {a_day} ({_changed(self.before, self.after)})"


def load(found: Found) -> Load:
    """Return the review load: days without an entry do not count."""
    moves, days = found.tally.moves, len(found.tally.days)
    return Load(found.tally.entries, days, int(moves[_REVIEW].sum()), int(moves[:, _REVIEW].sum()))


def headline(found: Found) -> str:
    """Say in one line what would change."""
    tally, more, less = found.tally, stricter(found.tally.moves), milder(found.tally.moves)
    return (
        f"{found.before.policy.ref} → {found.after.policy.ref}: {more + less:,} of {tally.entries:,} entries change "
        f"({(more + less) / tally.entries:.2%}), {more:,} stricter, {less:,} milder; {load(found)}"
    )


def categories(found: Found) -> list[CategoryRow]:
    """Return every category of either version, those of the second version first."""
    tally = found.tally
    names = list(dict.fromkeys([*tally.actions_after, *tally.actions_before]))
    return [
        CategoryRow(
            name,
            tally.actions_before.get(name),
            tally.actions_after.get(name),
            stricter(tally.category_moves[name]) if name in tally.category_moves else None,
            milder(tally.category_moves[name]) if name in tally.category_moves else None,
            _thresholds(found.before, name),
            _thresholds(found.after, name),
            tally.scores_before.get(name),
            tally.scores_after.get(name),
        )
        for name in names
    ]


def rows(found: Found) -> Iterator[dict[str, Any]]:
    """Yield the back-test as JSON objects: one of each `row`: total, category, day, recorded, because, flip."""
    yield _total(found)
    for category in categories(found):
        yield category.as_dict()
    for day, (before, after) in sorted(found.tally.days.items()):
        yield {"row": "day", "day": day, "before": actions(before), "after": actions(after)}
    for ref, moves in found.tally.recorded.items():
        yield {"row": "recorded", "policy": ref, "recorded": actions(moves.sum(axis=1)), "before":
               actions(moves.sum(axis=0)), "stricter": stricter(moves), "milder": milder(moves)}  # fmt: skip
    for because, entries in found.tally.because.most_common():
        yield {"row": "because"} | because._asdict() | {"entries": entries}
    for flip in found.flips:
        yield _flip(flip)


def _total(found: Found) -> dict[str, Any]:
    tally, before, after = found.tally, found.before, found.after
    return {
        "row": "total", "before": before.policy.ref, "after": after.policy.ref,
        "digest_before": before.policy.digest, "digest_after": after.policy.digest,
        "calibrated_before": before.calibrated, "calibrated_after": after.calibrated,
        "entries": tally.entries, "views": tally.views, "first": moment(tally.first), "last": moment(tally.last),
        "actions_before": actions(tally.moves.sum(axis=1)), "actions_after": actions(tally.moves.sum(axis=0)),
        "stricter": stricter(tally.moves), "milder": milder(tally.moves),
        "moves": [
            {"before": ACTIONS[old], "after": ACTIONS[new], "entries": int(tally.moves[old, new])}
            for old in range(len(ACTIONS)) for new in range(len(ACTIONS)) if old != new and tally.moves[old, new]
        ],
        "other_models": dict(found.left_out.models), "other_policies": dict(found.left_out.policies),
    }  # fmt: skip


def _flip(flip: Flip) -> dict[str, Any]:
    found, before, after = flip.found, flip.category_before, flip.category_after
    return {
        "row": "flip", "direction": found.because.direction, "content_id": found.content_id, "time": moment(found.time),
        "before": flip.before.action, "after": flip.after.action, "category": found.because.category,
        "cause": found.because.cause, "reason": reason(flip),
        "category_before": before and before.model_dump(), "category_after": after and after.model_dump(),
        "recorded": found.recorded, "recorded_by": found.recorded_by, "image_sha256": found.image_sha256,
    }  # fmt: skip


def reason(flip: Flip) -> str:
    """Say in one sentence why an example's action changes."""
    because, before, after = flip.found.because, flip.category_before, flip.category_after
    name = because.category
    if before is None or after is None:
        only = after or before
        assert only is not None  # noqa: S101 - the category that decides is one of either version
        what = "appeared, and" if before is None else "vanished;"
        return f"{name} {what} {_reach(only, after is None)}: {_nearest(only)}"
    asks = after if because.direction == "stricter" else before
    action = asks.action
    limits = [found.thresholds.get(action) for found in (before, after)]
    limit = _number(limits[0]) if limits[0] == limits[1] else " → ".join(map(_number, limits))
    moved = f"{name} {before.score:.3f} → {after.score:.3f}, {action} from {limit}"
    if because.cause == "threshold":
        return f"{moved}: the threshold moved"
    sentences = f"{_nearest(before)} → {_nearest(after)}" if _nearest(before) != _nearest(after) else _nearest(after)
    also = "; the threshold moved too" if because.cause == "score and threshold" else ""
    return f"{moved}: {sentences}{also}"


def notes(found: Found) -> Iterator[str]:
    """Yield what a reader must know before the numbers are taken for more than they are."""
    for counts, what in ((found.left_out.models, "model"), (found.left_out.policies, "policy")):
        if counts:
            named = ", ".join(f"{name} {entries:,}" for name, entries in counts.most_common())
            yield f"{counts.total():,} entries of another {what} do not count: {named}"
    for compiled in {found.before.policy.digest: found.before, found.after.policy.digest: found.after}.values():
        if not compiled.calibrated:
            yield f"{compiled.policy.ref} has no calibration for this model: its scores are bare softmax shares"
    if found.before.policy.digest == found.after.policy.digest:
        yield f"both versions say the same ({found.after.policy.ref}): nothing but what was recorded can differ"
    drifted = drift(found)
    if drifted:
        yield (
            f"of {found.tally.entries:,} entries {drifted:,} were recorded with another action than "
            f"{found.before.policy.ref} takes now; another version may have judged them"
        )


def drift(found: Found) -> int:
    """Return how many entries were recorded with another action than the first version takes."""
    return sum(stricter(moves) + milder(moves) for moves in found.tally.recorded.values())


def actions(counts: Counts | None) -> dict[str, int] | None:
    """Return counts by action."""
    return None if counts is None else dict(zip(ACTIONS, map(int, counts), strict=True))


def listed(counts: Counts | None) -> list[int] | None:
    """Return counts as JSON takes them."""
    return None if counts is None else [int(count) for count in counts]


def moment(time: np.datetime64 | None) -> str | None:
    """Return a time as `2026-01-01T00:00:00.000Z`."""
    return None if time is None else f"{np.datetime_as_string(time, unit='ms')}Z"


def _thresholds(compiled: CompiledPolicy, name: str) -> dict[str, float] | None:
    category = compiled.policy.categories.get(name)
    return None if category is None else category.thresholds.as_dict()


def _reach(found: CategoryVerdict, was: bool) -> str:
    threshold = found.thresholds[found.action]
    return f"{found.score:.3f} {'reached' if was else 'reaches'} {found.action} from {threshold:g}"


def _nearest(found: CategoryVerdict) -> str:
    return f"{found.prompt!r} against {found.contrast!r}"


def _number(threshold: float | None) -> str:
    return "none" if threshold is None else f"{threshold:g}"


def _changed(before: int, after: int) -> str:
    return "none before" if before == 0 and after else f"{(after - before) / before:+.1%}" if before else "none"
