"""How figures look: rows of dataclasses as a table, or as JSON, and what runs meanwhile."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from worker.cli.console import print_json


def print_rows(rows: Sequence[Mapping[str, Any]], as_json: bool, caption: str) -> None:
    """Print rows with the same columns, figures to four digits."""
    if as_json:
        for row in rows:
            print_json(rounded(row))
        return
    table = Table(*(name.replace("_", " ") for name in rows[0]), caption=caption)
    for row in rows:
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()))
    Console().print(table)


def rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with its figures to four digits."""
    return {name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in row.items()}


def say(line: str) -> None:
    """Say on stderr what runs."""
    print(line, file=sys.stderr, flush=True)
