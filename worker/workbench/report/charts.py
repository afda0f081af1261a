"""Numbers → charts as SVG that stands in a page: drawn by matplotlib, without a screen.

In: arrays. Out: markup. Never a file, never a number that was not handed in.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from worker.errors import Missing

if TYPE_CHECKING:
    from markupsafe import Markup

Numbers = npt.NDArray[np.floating[Any]]

#: Colours of series, told apart by the colour-blind too; and of what an action is drawn in.
SERIES = ("#2f5bd0", "#d1762b", "#6a7a8c", "#7a3fa0")
ACTION_COLOURS = {"allow": "#2e7d4f", "review": "#d08a1b", "block": "#b3261e"}
#: Bars of a histogram of scores.
BINS = 40
_SIZE_INCHES = (5.2, 3.0)


class Drawing:
    """One chart, while it is drawn.

    Attributes:
        axes: matplotlib's.
        markup: The SVG; once the block of `drawing` has ended.
    """

    def __init__(self, axes: Any) -> None:
        self.axes = axes
        self.markup: Markup


@contextmanager
def drawing(x: str, y: str, size_inches: tuple[float, float] = _SIZE_INCHES) -> Iterator[Drawing]:
    """Draw a chart in the block.

    Args:
        x: What runs to the right, with its unit.
        y: What runs upwards.
        size_inches: Width and height.

    Raises:
        Missing: The extra `report` is not installed.
    """
    try:
        from markupsafe import Markup  # noqa: PLC0415 - an extra
        from matplotlib import rc_context  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        raise Missing("reports need the extra report; run pip install 'sluicegate[report]'") from error
    # The same numbers make the same bytes; text stays text, to be found and to scale.
    style: Any = {"svg.hashsalt": "sluice", "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False,
             "axes.spines.right": False, "font.family": "sans-serif", "text.parse_math": False}  # fmt: skip
    with rc_context(style):
        figure = Figure(figsize=size_inches, layout="constrained")
        drawn = Drawing(figure.add_subplot())
        drawn.axes.set_xlabel(x)
        drawn.axes.set_ylabel(y)
        yield drawn
        target = io.StringIO()
        figure.savefig(target, format="svg", metadata={"Date": None})
    # Without the XML prologue, which has no place inside a page.
    svg = target.getvalue()
    drawn.markup = Markup(svg[svg.index("<svg") :])  # noqa: S704 - matplotlib's own, which escapes text


def score_histogram(counts: Mapping[str, Sequence[int]], thresholds: Mapping[str, float], y: str = "images") -> Markup:
    """Draw how often scores were reached, over [0, 1].

    Args:
        counts: By series, how many fell into each of equal bins over [0, 1].
        thresholds: By action, drawn upright.
        y: What is counted.
    """
    with drawing("score", y) as chart:
        for (name, found), colour in zip(counts.items(), SERIES, strict=False):
            edges = np.linspace(0, 1, len(found) + 1)
            chart.axes.stairs(found, edges, label=name, color=colour, fill=True, alpha=0.35)
            chart.axes.stairs(found, edges, color=colour)
        # Most traffic is harmless: on a linear scale all else would be invisible.
        chart.axes.set_yscale("symlog", linthresh=1)
        chart.axes.set_ylim(bottom=0)
        chart.axes.yaxis.set_major_formatter(lambda count, _: f"{count:,.0f}")
        draw_thresholds(chart, thresholds)
        chart.axes.legend(frameon=False)
    return chart.markup


def draw_thresholds(chart: Drawing, thresholds: Mapping[str, float]) -> None:
    """Draw upright lines at thresholds, by action."""
    for action, value in thresholds.items():
        colour = ACTION_COLOURS.get(action, SERIES[2])
        chart.axes.axvline(value, color=colour, linestyle="--", linewidth=1.2, label=f"{action} from {value:.3g}")
