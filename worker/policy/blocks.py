"""A category's block on its author's page, with an exemplar more or less; comments stay where they were.

In: the block as ruamel reads it. Out: the same block, changed. Needs the extra `report`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import CommentMark
from ruamel.yaml.tokens import CommentToken

from worker.policy.exemplars import KINDS, Kind


def add_to(category: Any, kind: Kind, ref: str, strength: float | None) -> None:
    """Name an exemplar.

    Args:
        category: The category's block.
        kind: Its pool.
        ref: `FILE.npz#NAME`.
        strength: The category's from now on; None leaves it.
    """
    with _keeping_what_follows(category):
        exemplars = category.setdefault("exemplars", CommentedMap())
        exemplars.setdefault(kind, CommentedSeq()).append(ref)
        if strength is not None:
            exemplars["strength"] = strength


def take_from(category: Any, kind: Kind, index: int) -> None:
    """Take an exemplar out, and what is empty without it.

    Args:
        category: The category's block.
        kind: Its pool.
        index: Its place there.
    """
    with _keeping_what_follows(category):
        exemplars = category["exemplars"]
        del exemplars[kind][index]
        if not exemplars[kind]:
            del exemplars[kind]
        if not any(exemplars.get(other) for other in KINDS):
            del category["exemplars"]


@contextmanager
def _keeping_what_follows(category: Any) -> Iterator[None]:
    """Keep what follows the block, which ruamel ties to its last line, behind its last line."""
    following = ""
    entry, slot = _comments_of_last_line(category)
    if entry[slot] is not None:
        own, newline, following = entry[slot].value.partition("\n")
        entry[slot].value = own + newline
    yield
    if following:
        entry, slot = _comments_of_last_line(category)
        if entry[slot] is None:
            entry[slot] = CommentToken("\n", CommentMark(0), None)
        entry[slot].value = entry[slot].value.rstrip("\n") + "\n" + following


def _comments_of_last_line(block: Any) -> tuple[list[Any], int]:
    """Return where ruamel keeps what is said after the last line of a block: a list, and the place in it."""
    is_map = isinstance(block, CommentedMap)
    key = list(block)[-1] if is_map else len(block) - 1
    last = block[key]
    if isinstance(last, CommentedMap | CommentedSeq) and last and not last.fa.flow_style():
        return _comments_of_last_line(last)
    empty: list[Any] = [None, None, None, None] if is_map else [None, None]
    return block.ca.items.setdefault(key, empty), 2 if is_map else 0
