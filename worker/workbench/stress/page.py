"""All that was found → the page `stress.html.j2`.

In: findings, and thumbnails of the examples. Out: HTML.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from worker.policy.compiled import CompiledPolicy
from worker.policy.groups import GroupsFile
from worker.workbench.report.page import render
from worker.workbench.stress.charts import group_chart
from worker.workbench.stress.drift import Direction, Drift
from worker.workbench.stress.examples import Example
from worker.workbench.stress.groups import Shift
from worker.workbench.stress.intervals import Interval, share
from worker.workbench.stress.words import Remark

#: Remarks of a kind that stand on the page; the tables hold all.
_REMARKS = 12
#: Logits that a shift of the margin is drawn in full colour at.
_FULL_LOGITS = 3.0


@dataclass(frozen=True, slots=True)
class Cell:
    """One square of a matrix."""

    text: str
    #: Said when the pointer rests on it.
    title: str
    #: How strongly it is coloured, in [-1, 1]; below 0 in the colour of what became less.
    heat: float


@dataclass(frozen=True, slots=True)
class Found:
    """What a run found."""

    compiled: CompiledPolicy
    #: `id@revision`, precision.
    model: str
    #: Pictures that were judged, and content ids with reasons of those that could not be.
    pictures: int
    unseen: Sequence[tuple[str, str]]
    drifts: Sequence[Drift]
    shifts: Sequence[Shift]
    on_changes: Sequence[Remark]
    on_groups: Sequence[Remark]
    too_few: Mapping[str, int]
    #: What each change does: "greyed".
    words: Mapping[str, str]
    groups: GroupsFile


def stress_page(found: Found, examples: Sequence[tuple[Example, str, str]]) -> str:
    """Fill the page.

    Args:
        found: What to show.
        examples: Each with the data URIs of the picture before and after; empty where it is not at hand.

    Raises:
        Missing: The extra `report` is not installed.
    """
    lists = list(dict.fromkeys(shift.listed for shift in found.shifts))
    by_list = {name: [shift for shift in found.shifts if shift.listed == name] for name in lists}
    return render(
        "stress",
        found=found,
        policy=found.compiled.policy,
        most=_REMARKS,
        categories=[category.name for category in found.compiled.categories],
        changes=list(dict.fromkeys(drift.change for drift in found.drifts)),
        slipped=_matrix(found.drifts, "weaker"),
        raised=_matrix(found.drifts, "stronger"),
        caught=_margins(found.drifts, caught=True),
        margins=_margins(found.drifts, caught=False),
        lists=lists,
        charts={name: group_chart(listed) for name, listed in by_list.items()},
        members={name: list(dict.fromkeys(one.group for one in listed)) for name, listed in by_list.items()},
        shifts={(one.listed, one.group, one.category): _shift_cell(one) for one in found.shifts},
        examples=examples,
    )


def _matrix(drifts: Sequence[Drift], direction: Direction) -> dict[tuple[str | None, str], Cell]:
    return {(drift.category, drift.change): _share_cell(drift, direction) for drift in drifts}


def _margins(drifts: Sequence[Drift], *, caught: bool) -> dict[tuple[str, str], Cell]:
    shown = [(one, one.caught_margin_shift if caught else one.margin_shift) for one in drifts]
    return {(one.category, one.change): _margin_cell(one, shift) for one, shift in shown if one.category is not None}


def _share_cell(drift: Drift, direction: Direction) -> Cell:
    moved, could = drift.moved(direction), drift.could(direction)
    sure = share(moved, could)
    if sure is None:
        return Cell("", f"no picture can become {direction}", 0.0)
    title = f"{moved} of {could}; 95 % interval {100 * sure.low:.0f} to {100 * sure.high:.0f} %"
    # What is sure, so that 1 of 1 does not outshine 12 of 13.
    return Cell(f"{moved}/{could}" if moved else "0", title, sure.low if moved else 0.0)


def _margin_cell(drift: Drift, shift: Interval | None) -> Cell:
    if shift is None or drift.score_drift is None:
        return Cell("", "the category catches none of these pictures", 0.0)
    mean, p95 = drift.score_drift
    title = (
        f"margin {shift.value:+.2f}, 95 % interval {shift.low:+.2f} to {shift.high:+.2f} logits; over all pictures "
        f"the score moves by {mean:.3f} on average, by {p95:.3f} at the 95th percentile"
    )
    return Cell(_signed(shift.value), title, _heat(shift.value))


def _shift_cell(shift: Shift) -> Cell:
    title = f"{shift.low:+.2f} to {shift.high:+.2f} logits; flagged {shift.flagged} of {shift.sentences}"
    return Cell(_signed(shift.shift), title, _heat(shift.shift))


def _signed(logits: float) -> str:
    text = f"{logits:+.1f}"
    return "0.0" if text in {"+0.0", "-0.0"} else text


def _heat(logits: float) -> float:
    return max(-1.0, min(1.0, logits / _FULL_LOGITS))
