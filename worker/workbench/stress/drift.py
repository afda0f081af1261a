"""Embeddings of pictures, unchanged and changed → how often the policy says something else, and how far scores move.

In: a compiled policy and one look after the other. Out: one `Drift` for each category and change. Never a picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from worker.policy.compiled import CompiledPolicy, Floats, Matrix
from worker.records import ACTION_ORDER, Action
from worker.scoring import score
from worker.verdict import Decision, decide
from worker.workbench.stress.intervals import Interval, means, share

#: What every other change is measured against: the picture copied, and nothing else.
COPY = "copy"
ACTIONS: tuple[Action, ...] = tuple(sorted(ACTION_ORDER, key=ACTION_ORDER.__getitem__))
Direction = Literal["weaker", "stronger"]
_P95 = 95


@dataclass(frozen=True, slots=True)
class Drift:
    """What one change does to one category, or to the whole policy's action."""

    #: None: the whole policy, which has no score of its own.
    category: str | None
    change: str
    pictures: int
    #: (action unchanged, action changed) → pictures; all nine, zeros too.
    moves: Mapping[tuple[Action, Action], int]
    #: Mean and 95th percentile of |score changed - score unchanged|.
    score_drift: tuple[float, float] | None
    #: Mean of margin changed - margin unchanged, in logits: of all pictures, and of those that the category catches
    #: unchanged. The first says what becomes of harmless pictures, for most are; the second what slips through.
    margin_shift: Interval | None
    caught_margin_shift: Interval | None

    def moved(self, direction: Direction) -> int:
        """Count the pictures whose action is weaker, or stronger, once they are changed."""
        sign = 1 if direction == "stronger" else -1
        return sum(count for (old, new), count in self.moves.items() if sign * steps(old, new) > 0)

    def could(self, direction: Direction) -> int:
        """Count the pictures whose action can become weaker (all but `allow`), or stronger (all but `block`)."""
        end = "block" if direction == "stronger" else "allow"
        return sum(count for (old, _), count in self.moves.items() if old != end)

    @property
    def flips(self) -> int:
        """Pictures whose action differs."""
        return self.moved("weaker") + self.moved("stronger")

    def as_dict(self) -> dict[str, Any]:
        """Return the drift as one JSON object."""
        row: dict[str, Any] = {"category": self.category, "change": self.change, "pictures": self.pictures}
        row |= {"flips": self.flips, "flip_rate": _listed(share(self.flips, self.pictures))}
        for direction in ("weaker", "stronger"):
            moved, could = self.moved(direction), self.could(direction)
            row |= {direction: moved, f"{direction}_of": could, f"{direction}_rate": _listed(share(moved, could))}
        row["moves"] = {f"{old} to {new}": n for (old, new), n in self.moves.items() if n and old != new}
        mean, p95 = self.score_drift or (None, None)
        row |= {"score_drift_mean": mean, "score_drift_p95": p95, "margin_shift": _listed(self.margin_shift)}
        return row | {"caught_margin_shift": _listed(self.caught_margin_shift)}


def steps(old: Action, new: Action) -> int:
    """Return by how many steps `new` is stronger; negative where it is weaker."""
    return ACTION_ORDER[new] - ACTION_ORDER[old]


def _listed(interval: Interval | None) -> dict[str, float] | None:
    return None if interval is None else dict(interval._asdict())


@dataclass(frozen=True, slots=True)
class Looks:
    """All that was seen, in arrays: pictures x looks x categories."""

    content_ids: tuple[str, ...]
    #: What was done before each look but the first two: the file itself, and its copy.
    changes: tuple[str, ...]
    categories: tuple[str, ...]
    #: Steps from `allow`; the last column is the whole policy's.
    actions: np.ndarray
    scores: Floats
    #: In logits.
    margins: Floats

    def pair(self, change: str) -> tuple[int, int]:
        """Return which look a change is measured against, and its own: the copy against the file, all else against it.

        So what copying itself does (it flattens, makes smaller, takes an animation's first frame) is told apart from
        what each change does.
        """
        return (0, 1) if change == COPY else (1, 2 + self.changes.index(change))


class Tally:
    """Judges one look after the other, and keeps what was said.

    Args:
        compiled: The policy under the encoder that made the embeddings.
        changes: Names, in the order in which they come.
    """

    def __init__(self, compiled: CompiledPolicy, changes: Sequence[str]) -> None:
        self._compiled, self._changes = compiled, tuple(changes)
        self._content_ids: list[str] = []
        self._said: list[Decision] = []

    def add(self, content_id: str, change: str | None, embeddings: Matrix) -> None:
        """Judge one look.

        Args:
            content_id: The picture.
            change: None: its file; `copy`: its copy; else a change. They come in this order, and all of them.
            embeddings: `(views, dim)`.

        Raises:
            ValueError: It is another one's turn.
        """
        order = (None, COPY, *self._changes)
        if change != order[len(self._said) % len(order)]:
            raise ValueError(f"{change!r} of {content_id!r} comes out of turn")
        if change is None:
            self._content_ids.append(content_id)
        self._said.append(decide(self._compiled, score(embeddings, self._compiled)))

    def looks(self) -> Looks:
        """Return all that was said."""
        names = tuple(category.name for category in self._compiled.categories)
        shape = (len(self._content_ids), 2 + len(self._changes))
        found = [[said.categories[name] for name in names] for said in self._said]
        actions = [
            [ACTION_ORDER[one.action] for one in row] + [ACTION_ORDER[said.action]]
            for row, said in zip(found, self._said, strict=True)
        ]
        return Looks(
            content_ids=tuple(self._content_ids),
            changes=self._changes,
            categories=names,
            actions=np.array(actions, np.int8).reshape(*shape, len(names) + 1),
            scores=np.array([[one.score for one in row] for row in found]).reshape(*shape, len(names)),
            margins=np.array([[one.margin for one in row] for row in found]).reshape(*shape, len(names)),
        )


def drifts(looks: Looks) -> list[Drift]:
    """Return a drift for each change: of the whole policy, then of each category; none where there are no pictures."""
    if not looks.content_ids:
        return []
    return [drift for change in (COPY, *looks.changes) for drift in _of_change(looks, change)]


def _of_change(looks: Looks, change: str) -> Iterator[Drift]:
    before, after = looks.pair(change)
    count = len(looks.content_ids)
    moves = [_moves(looks.actions[:, before, column], looks.actions[:, after, column])
             for column in range(len(looks.categories) + 1)]  # fmt: skip
    yield Drift(None, change, count, moves[-1], None, None, None)
    far = np.abs(looks.scores[:, after] - looks.scores[:, before])
    mean, p95 = far.mean(axis=0), np.percentile(far, _P95, axis=0)
    moved = looks.margins[:, after] - looks.margins[:, before]
    shifts = means(moved)
    for column, name in enumerate(looks.categories):
        caught = moved[looks.actions[:, before, column] > 0, column]
        own = means(caught[:, None])[0] if len(caught) else None
        far_own = (float(mean[column]), float(p95[column]))
        yield Drift(name, change, count, moves[column], far_own, shifts[column], own)


def _moves(before: np.ndarray, after: np.ndarray) -> dict[tuple[Action, Action], int]:
    counts = np.zeros((len(ACTIONS), len(ACTIONS)), int)
    np.add.at(counts, (before, after), 1)
    return {
        (old, new): int(counts[row, column]) for row, old in enumerate(ACTIONS) for column, new in enumerate(ACTIONS)
    }
