"""Reliability and precision against recall → charts that stand in a page.

In: scores and labels. Out: markup. Never a number that was not handed in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from worker.policy.compiled import Floats
from worker.workbench.calibration.findings import Judged
from worker.workbench.calibration.measures import Reliability, curve, reliability
from worker.workbench.report.charts import ACTION_COLOURS, SERIES, drawing

if TYPE_CHECKING:
    from markupsafe import Markup

_SQUARE_INCHES = (4.0, 3.4)
#: Area of the mark of a bin that holds every picture, in points squared.
_WHOLE_AREA = 400
_LEAST_AREA = 12


def reliability_diagram(judged: Judged, *, fitted: bool) -> Markup:
    """Draw the share of pictures that show the category against their score; good ones lie on the diagonal."""
    sides = {"before": judged.before} | ({"after": judged.after} if fitted else {})
    with drawing("mean score of a bin", "share that shows the category", _SQUARE_INCHES) as chart:
        chart.axes.plot([0, 1], [0, 1], color=SERIES[2], linestyle=":", linewidth=1)
        for (name, scores), colour in zip(sides.items(), SERIES, strict=False):
            found = reliability(scores, judged.shows, judged.weights)
            label = f"{name}, error {found.error:.3f}"
            chart.axes.plot(found.scores, found.shares, color=colour, linewidth=1, label=label)
            chart.axes.scatter(found.scores, found.shares, s=_areas(found), color=colour, alpha=0.6, linewidths=0)
        chart.axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
        chart.axes.legend(frameon=False, loc="upper left")
    return chart.markup


def precision_recall(judged: Judged, at: Mapping[str, tuple[float, float]], *, fitted: bool) -> Markup:
    """Draw precision against recall.

    Args:
        judged: Scores before and after.
        at: By action, recall and precision at the new threshold.
        fitted: Whether there is another curve after.
    """
    sides = {"before": judged.before} | ({"after": judged.after} if fitted else {})
    with drawing("recall", "precision", _SQUARE_INCHES) as chart:
        for (name, scores), colour in zip(sides.items(), SERIES, strict=False):
            found = curve(scores, judged.shows, judged.weights)
            recall, precision = _with_ends(found.recall, found.precision)
            chart.axes.step(recall, precision, where="pre", color=colour, linewidth=1.2, label=name)
        for action, (recall_at, precision_at) in at.items():
            chart.axes.plot(
                recall_at, precision_at, "o", markersize=7, color=ACTION_COLOURS[action], label=f"at {action}"
            )
        chart.axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
        chart.axes.legend(frameon=False, loc="lower left")
    return chart.markup


def _with_ends(recall: Floats, precision: Floats) -> tuple[list[float], list[float]]:
    """Begin at recall 0 with the highest score's precision, so that the curve reaches the axis."""
    return [0.0, *recall[::-1].tolist()], [float(precision[-1]), *precision[::-1].tolist()]


def _areas(found: Reliability) -> Floats:
    areas: Floats = _LEAST_AREA + _WHOLE_AREA * found.counts / found.counts.sum()
    return areas
