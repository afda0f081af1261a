"""Looks → the pictures that show best what changes do.

In: what was said of each look. Out: which picture, which change, what was said before and after. Never the picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from worker.records import Action
from worker.workbench.stress.drift import ACTIONS, Looks

#: Examples of one picture, and of one change, at most: ten crops of one picture show one thing.
_OF_A_PICTURE, _OF_A_CHANGE = 2, 2


@dataclass(frozen=True, slots=True)
class Example:
    """One picture, changed."""

    content_id: str
    change: str
    #: Whose score moved most towards the new action.
    category: str
    actions: tuple[Action, Action]
    scores: tuple[float, float]


def strongest_examples(looks: Looks, most: int) -> list[Example]:
    """Return pictures whose action differs most once they are changed: first by steps, then by the score's way.

    Args:
        looks: What was said.
        most: How many at most.
    """
    taken: list[Example] = []
    of_picture: Counter[str] = Counter()
    of_change: Counter[str] = Counter()
    for example in _by_strength(looks):
        if len(taken) == most:
            break
        if of_picture[example.content_id] < _OF_A_PICTURE and of_change[example.change] < _OF_A_CHANGE:
            taken.append(example)
            of_picture[example.content_id] += 1
            of_change[example.change] += 1
    return taken


def _by_strength(looks: Looks) -> Iterator[Example]:
    """Yield every picture and change that flips the policy's action, strongest first."""
    found = []
    for change in looks.changes:
        before, after = looks.pair(change)
        way = looks.actions[:, after, -1].astype(int) - looks.actions[:, before, -1]
        # Towards the new action, by category.
        moved = (looks.scores[:, after] - looks.scores[:, before]) * np.sign(way)[:, None]
        steps = (looks.actions[:, after, :-1].astype(int) - looks.actions[:, before, :-1]) * np.sign(way)[:, None]
        for row in map(int, np.flatnonzero(way)):
            # Where several categories moved, the one that moved most of those whose action did.
            column = int(np.lexsort((moved[row], steps[row]))[-1])
            found.append((abs(int(way[row])), float(moved[row, column]), row, change, column))
    for *_, row, change, column in sorted(found, key=lambda item: (-item[0], -item[1], item[2], item[3])):
        before, after = looks.pair(change)
        old, new = (ACTIONS[looks.actions[row, at, -1]] for at in (before, after))
        scores = (float(looks.scores[row, before, column]), float(looks.scores[row, after, column]))
        yield Example(looks.content_ids[row], change, looks.categories[column], (old, new), scores)
