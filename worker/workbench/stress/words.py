"""Counts and shifts → what is fragile, in plain words: what hurts most first, and nothing that too few pictures say.

In: drifts and shifts. Out: `Remark`s. Never a number that was not counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from worker.records import Action
from worker.workbench.stress.drift import ACTIONS, COPY, Direction, Drift, steps
from worker.workbench.stress.groups import Shift
from worker.workbench.stress.intervals import Interval, share

#: Pictures with an action before anything is said of what becomes of it, and how many of them must move.
LEAST_PICTURES, LEAST_MOVED = 5, 2
#: Lower end of the interval of a share, from which it is said. Most uploads are harmless, so a false alarm among a
#: hundred of them counts; what slips through is counted among the few that are caught.
LEAST_SHARE: Mapping[Direction, float] = {"weaker": 0.05, "stronger": 0.01}
#: Shift of the logarithm of a score's odds from which a word is said to matter: it makes 0.5 into 0.73, or into 0.27.
LEAST_WEIGHT = 1.0
_BECOMES = {"allow": "allowed", "review": "sent to review", "block": "blocked"}


@dataclass(frozen=True, slots=True)
class Remark:
    """One thing that is fragile."""

    says: str
    category: str | None
    #: The change, or the word.
    about: str
    #: What it is sorted by; only comparable among remarks of one kind.
    hurts: float


def remarks_on_changes(drifts: Sequence[Drift], words: Mapping[str, str]) -> list[Remark]:
    """Say which actions do not stand which changes; what hurts most first.

    What hurts is how far the action moves, in steps, times the share of pictures that it is at least.

    Args:
        drifts: What was measured.
        words: What each change does to pictures: "greyed".
    """
    found = [remark for drift in drifts for remark in _on_drift(drift, words)]
    return sorted(found, key=lambda remark: -remark.hurts)


def _on_drift(drift: Drift, words: Mapping[str, str]) -> Iterator[Remark]:
    for old in ACTIONS:
        started = sum(drift.moves[old, new] for new in ACTIONS)
        directions: tuple[Direction, ...] = ("weaker", "stronger")
        for direction in directions:
            sign = 1 if direction == "stronger" else -1
            ends = {new: drift.moves[old, new] for new in ACTIONS if sign * steps(old, new) > 0}
            moved = sum(ends.values())
            sure = share(moved, started)
            if sure is None or started < LEAST_PICTURES or moved < LEAST_MOVED or sure.low < LEAST_SHARE[direction]:
                continue
            far = sum(abs(steps(old, new)) * count for new, count in ends.items()) / moved
            yield Remark(_say_moves(drift, old, ends, sure, words), drift.category, drift.change, far * sure.low)


def _say_moves(drift: Drift, old: Action, ends: Mapping[Action, int], sure: Interval, words: Mapping[str, str]) -> str:
    started = sum(drift.moves[old, new] for new in ACTIONS)
    kinds = {"allow": "allowed pictures", "review": "pictures for review", "block": "blocked pictures"}
    # The farthest first.
    ordered = sorted(((new, count) for new, count in ends.items() if count), key=lambda end: -abs(steps(old, end[0])))
    (first, count), *rest = ordered
    became = f"{count} of {started} {kinds[old]} {'are' if count > 1 else 'is'} {_BECOMES[first]}"
    became += "".join(f", and {more} {'are' if more > 1 else 'is'} {_BECOMES[new]}," for new, more in rest)
    who = "the whole policy" if drift.category is None else drift.category
    return f"{who}: {became} once they are {words[drift.change]} ({_percent(sure)})"


def _percent(sure: Interval) -> str:
    # Spaces that do not break.
    return f"{100 * sure.value:.0f}\u00a0%; 95\u00a0% interval {100 * sure.low:.0f} to {100 * sure.high:.0f}\u00a0%"


def remarks_on_groups(shifts: Sequence[Shift]) -> list[Remark]:
    """Say which words move which category, where all sentences agree; what moves most first."""
    found = [shift for shift in shifts if shift.is_agreed and abs(shift.weight) >= LEAST_WEIGHT]
    return [_on_shift(shift) for shift in sorted(found, key=lambda shift: -abs(shift.weight))]


def _on_shift(shift: Shift) -> Remark:
    where = "above" if shift.shift > 0 else "below"
    ends = sorted((abs(shift.low), abs(shift.high)))
    over = f"{ends[0]:.1f} to {ends[1]:.1f} over {shift.sentences} sentences"
    if shift.sentences == 1:
        over = "one sentence"
    says = (
        f"{shift.category}: the margin of {shift.group!r} is {abs(shift.shift):.1f} logits {where} "
        f"the mean of its list, {shift.listed} ({over})"
    )
    return Remark(says, shift.category, shift.group, abs(shift.weight))


def too_few(drifts: Sequence[Drift]) -> dict[str, int]:
    """Return the categories that catch too few of the copies to say what slips through, and how many each catches."""
    caught = {
        drift.category: sum(count for (_, new), count in drift.moves.items() if new != "allow")
        for drift in drifts
        if drift.change == COPY and drift.category is not None
    }
    return {name: count for name, count in caught.items() if count < LEAST_PICTURES}
