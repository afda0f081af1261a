"""How far long work is: a bar on stderr while a person looks on, nothing where none does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")


def track(
    items: Iterable[T], total: int | None, description: str, counts: Callable[[T], int] = lambda _: 1
) -> Iterator[T]:
    """Yield items, and show how many have passed.

    Args:
        items: What is worked on.
        total: How many there will be; None where nobody knows.
        description: What is done to them.
        counts: For how many an item counts.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(description, total=total)
        for item in items:
            yield item
            progress.advance(task, counts(item))
