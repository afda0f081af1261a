"""How verdicts and scores look in a terminal.

In: verdicts. Out: rich tables. Never an exit code, never a decision.
"""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from worker.records import ACTION_ORDER, Verdict

#: Colours of actions.
ACTION_STYLES = {"allow": "green", "review": "yellow", "block": "red"}


def verdict_table() -> Table:
    """Return an empty table of verdicts."""
    table = Table()
    # An id that is cut short cannot be looked up.
    table.add_column("content", overflow="fold")
    table.add_column("action", no_wrap=True)
    table.add_column("strongest category", overflow="fold")
    table.add_column("score", justify="right")
    table.add_column("looks more like")
    table.add_column("than like")
    return table


def add_verdict(table: Table, verdict: Verdict) -> None:
    """Add one row: what, why, how strongly."""
    action = f"[{ACTION_STYLES[verdict.action]}]{verdict.action}[/]"
    if not verdict.categories:
        table.add_row(escape(verdict.content_id), action, f"({verdict.reason})", "", "", "")
        return
    name, found = max(verdict.categories.items(), key=lambda item: (ACTION_ORDER[item[1].action], item[1].score))
    looks = (found.prompt, found.contrast) if verdict.action != "allow" else ("", "")
    table.add_row(escape(verdict.content_id), action, escape(name), f"{found.score:.2f}", *map(escape, looks))


def print_scores(scores: Mapping[str, float], model: str) -> None:
    """Print sentences with their shares, highest first."""
    table = Table("sentence", "share", caption=model)
    for sentence, share in sorted(scores.items(), key=lambda item: -item[1]):
        table.add_row(escape(sentence), f"{share:.4f}")
    Console().print(table)
