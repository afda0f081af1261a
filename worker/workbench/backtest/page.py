"""What a back-test found, as a page that stands alone.

In: `Found`, and pictures by content id. Out: HTML. Never a picture that was not handed in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from worker.ledger.batch import ACTIONS
from worker.policy.diff import diff
from worker.workbench.backtest import summary
from worker.workbench.backtest.flips import DIRECTIONS
from worker.workbench.backtest.run import Found
from worker.workbench.backtest.tally import milder, stricter
from worker.workbench.report.charts import SERIES, drawing, score_histogram
from worker.workbench.report.page import render

if TYPE_CHECKING:
    from markupsafe import Markup

#: Days that are marked by a dot each; of more, a line is enough.
_DOTTED_DAYS = 60
#: Days that are named each.
_NAMED_DAYS = 7
#: Rows of the table of days; older ones stand in the chart and in --json.
_LISTED_DAYS = 31


def report_page(found: Found, model: str, where: str, pictures: Mapping[str, str], looked_for_pictures: bool) -> str:
    """Fill the page.

    Args:
        found: The back-test.
        model: `id@revision` and precision, as they are shown.
        where: Which places were read, and from when to when, as is shown.
        pictures: Data URIs of examples, by content id.
        looked_for_pictures: Whether there could be any.

    Raises:
        Missing: The extra `report` is not installed.
    """
    tally = found.tally
    return render(
        "backtest",
        before=found.before.policy.ref,
        after=found.after.policy.ref,
        model=model,
        where=where,
        found=found,
        tally=tally,
        first=summary.moment(tally.first),
        last=summary.moment(tally.last),
        totals_before=tally.moves.sum(axis=1),
        totals_after=tally.moves.sum(axis=0),
        stricter=stricter(tally.moves),
        milder=milder(tally.moves),
        load=summary.load(found),
        notes=list(summary.notes(found)),
        changes=diff(found.before.policy, found.after.policy),
        actions=ACTIONS,
        categories=[(row, _histogram(row)) for row in summary.categories(found)],
        days=sorted(tally.days.items(), reverse=True)[:_LISTED_DAYS],
        days_chart=days_chart(found),
        because=tally.because.most_common(),
        directions=[
            (name, [flip for flip in found.flips if flip.found.because.direction == name]) for name in DIRECTIONS
        ],
        recorded=[(ref, moves, stricter(moves), milder(moves)) for ref, moves in tally.recorded.items()],
        reason=summary.reason,
        moment=summary.moment,
        pictures=pictures,
        looked_for_pictures=looked_for_pictures,
    )


def days_chart(found: Found) -> Markup:
    """Draw what people have to look at each day, and what is blocked, under both versions."""
    days = sorted(found.tally.days)
    dates = np.array(days, "datetime64[D]")
    counts = np.stack([found.tally.days[day] for day in days])
    marker = "o" if len(days) <= _DOTTED_DAYS else None
    with drawing("day (UTC)", "entries", (10.6, 3.2)) as chart:
        for action, style in (("review", "-"), ("block", ":")):
            code = ACTIONS.index(action)
            for side, (when, colour) in enumerate(zip(("before", "after"), SERIES, strict=False)):
                chart.axes.plot(
                    dates, counts[:, side, code], linestyle=style, color=colour, marker=marker, markersize=4,
                    label=f"{action}, {when}",
                )  # fmt: skip
        chart.axes.set_ylim(bottom=0)
        chart.axes.yaxis.get_major_locator().set_params(integer=True)
        # Half a day on each side: matplotlib would lay one day alone out as twenty years.
        margin = np.timedelta64(12, "h")
        chart.axes.set_xlim(dates[0] - margin, dates[-1] + margin)
        _name_days(chart.axes, len(days))
        chart.axes.legend(frameon=False, ncols=4, loc="upper center", bbox_to_anchor=(0.5, 1.18))
    return chart.markup


def _name_days(axes: Any, days: int) -> None:
    from matplotlib import dates  # noqa: PLC0415 - an extra

    marks: Any = dates
    axes.xaxis.set_major_locator(marks.DayLocator() if days <= _NAMED_DAYS else marks.AutoDateLocator(maxticks=9))
    axes.xaxis.set_major_formatter(marks.DateFormatter("%Y-%m-%d"))


def _histogram(row: summary.CategoryRow) -> Markup:
    counts = {
        name: found.tolist()
        for name, found in (("before", row.scores_before), ("after", row.scores_after))
        if found is not None
    }
    return score_histogram(counts, row.thresholds_after or row.thresholds_before or {}, "entries")
