"""How a calibration looks in a terminal.

In: what was found. Out: rich tables. Never an exit code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from worker.cli.tables import COLOURS

if TYPE_CHECKING:
    from worker.workbench.calibration.findings import AtThreshold, Calibrated, Found
    from worker.workbench.calibration.intervals import Interval


#: Of tables where no terminal says how wide it is, in characters.
_WIDTH = 120


def wide_console() -> Console:
    """Return a console that leaves tables room in files and pipes, too."""
    console = Console()
    return console if console.is_terminal else Console(width=_WIDTH)


def print_calibrated(found: Calibrated) -> None:
    """Print what was found: each category, each of its thresholds, and what to be careful with."""
    console = wide_console()
    console.print(
        f"[bold]{found.policy}[/] under {escape(found.model)}: {found.pictures:,} pictures"
        + (f" of {found.days:.3g} days" if found.days is not None else ""),
        soft_wrap=True,
    )
    console.print(_categories(found))
    console.print(_thresholds(found))
    for caution in found.cautions:
        console.print(f"[yellow]careful[/] {escape(str(caution))}", soft_wrap=True, highlight=False)


def _categories(found: Calibrated) -> Table:
    table = Table("category", "show it", "do not", "calibration error", "bias", "temperature", "weight")
    table.columns[0].overflow = "fold"
    for category in found.categories.values():
        before, after = category.before, category.after
        error = "" if before.error is None else f"{before.error:.3f}"
        numbers: list[tuple[float, float]] = [
            (getattr(before.calibration, name), getattr(after.calibration, name))
            for name in ("bias", "temperature", "contrast_weight")
        ]
        if category.fitted and after.error is not None:
            error += f" → {after.error:.3f}\n{_interval(after.error_interval)}"
        shown = (str(category.shown), str(category.safe)) if category.shown + category.safe else ("", "")
        table.add_row(escape(category.name), *shown, error, *(moved(*pair) for pair in numbers))
    return table


def _thresholds(found: Calibrated) -> Table:
    table = Table("category", "threshold", "of traffic", "precision", "recall", "false flags")
    table.columns[0].overflow = "fold"
    for category in found.categories.values():
        for action in category.after.thresholds:
            table.add_row(escape(category.name), *_row(category, action))
    return table


def _row(category: Found, action: str) -> tuple[str, ...]:
    before, after = category.before.thresholds[action], category.after.thresholds[action]
    style = COLOURS[action]
    return (
        f"[{style}]{action}[/] {moved(before.threshold, after.threshold)}",
        f"{share(before.flag_rate)} → {share(after.flag_rate)}\n{_interval(after.flag_rate_interval, percent=True)}",
        _pair(before, after, "precision"),
        _pair(before, after, "recall"),
        "" if after.false_flag_bound is None else f"≤ {after.false_flag_bound:.2%}",
    )


def _pair(before: AtThreshold, after: AtThreshold, name: str) -> str:
    values = [getattr(side, name) for side in (before, after)]
    if values == [None, None]:
        return ""
    shown = " → ".join("none" if value is None else f"{value:.2f}" for value in values)
    return f"{shown}\n{_interval(getattr(after, f'{name}_interval'))}"


def moved(before: float, after: float) -> str:
    """Say a number, and from where it moved."""
    return f"{after:.4g}" if before == after else f"{before:.4g} → {after:.4g}"


def share(value: float) -> str:
    """Say a share in percent."""
    return f"{100 * value:.3g} %"


def _interval(interval: Interval | None, *, percent: bool = False) -> str:
    if interval is None:
        return ""
    if percent:
        return f"[dim]{100 * interval.lower:.3g} to {100 * interval.upper:.3g} %[/]"
    return f"[dim]{interval.lower:.2f} to {interval.upper:.2f}[/]"
