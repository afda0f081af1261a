"""Shifts → one chart for each list of words.

In: shifts. Out: markup.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from worker.workbench.report.charts import SERIES, drawing
from worker.workbench.stress.groups import Shift
from worker.workbench.stress.words import LEAST_WEIGHT

if TYPE_CHECKING:
    from markupsafe import Markup

_WIDTH_INCHES, _WORD_INCHES, _MARGIN_INCHES = 5.2, 0.3, 0.9


def group_chart(shifts: Sequence[Shift]) -> Markup:
    """Draw how far each word of one list moves each category: a dot for a category, named where it moves most.

    Args:
        shifts: Of one list.
    """
    words = list(dict.fromkeys(shift.group for shift in shifts))
    height = _MARGIN_INCHES + _WORD_INCHES * len(words)
    with drawing("margin beside the mean of the list, in logits", "", (_WIDTH_INCHES, height)) as chart:
        chart.axes.axvline(0, color=SERIES[2], linewidth=0.8)
        for loud, colour in ((False, SERIES[2]), (True, SERIES[1])):
            dots = [one for one in shifts if (one.is_agreed and abs(one.weight) >= LEAST_WEIGHT) == loud]
            places = [words.index(dot.group) for dot in dots]
            chart.axes.scatter([dot.shift for dot in dots], places, s=26, color=colour, alpha=0.75, linewidths=0)
        for place, word in enumerate(words):
            most = max((one for one in shifts if one.group == word), key=lambda one: abs(one.shift))
            side = "left" if most.shift >= 0 else "right"
            gap = 5 if most.shift >= 0 else -5
            chart.axes.annotate(most.category, (most.shift, place), (gap, 0), textcoords="offset points",
                                ha=side, va="center", fontsize=7.5)  # fmt: skip
        chart.axes.set_yticks(range(len(words)), words)
        chart.axes.set_ylim(len(words) - 0.4, -0.6)
        # Room for the names at both ends.
        chart.axes.margins(x=0.25)
    return chart.markup
