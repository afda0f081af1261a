"""Entries of which two policy versions say different things: which, why, and the strongest of them.

In: what both versions say of a part of the ledger. Out: how often each cause made an action change, and examples, each
judged by `decide`. Never more examples than were asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from worker.encoder.memo import rounded
from worker.ledger.batch import ACTIONS, Halves, Places
from worker.policy.compiled import CompiledPolicy, Floats
from worker.records import Action, CategoryVerdict
from worker.scoring import score
from worker.verdict import Decision, actions_of, decide
from worker.workbench.backtest.judging import Judged, Part

Direction = Literal["stricter", "milder"]
#: What made an action change: the category's score, its thresholds, both (or either), or that there is such a category.
Cause = Literal["score", "threshold", "score and threshold", "category appeared", "category vanished"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
CAUSES: tuple[Cause, ...] = get_args(Cause)


#: By how many steps an action changes, by how much the score, and the score: the greater, the stronger.
Strength = tuple[int, float, float]


class Because(NamedTuple):
    """Why an entry's action changed."""

    direction: Direction
    #: That asks for the stronger of the two actions, the highest score first.
    category: str
    cause: Cause


@dataclass(frozen=True, slots=True)
class Side:
    """One version, and what it says of some entries."""

    compiled: CompiledPolicy
    judged: Judged

    @property
    def names(self) -> list[str]:
        """The categories, in the order of the columns."""
        return [category.name for category in self.compiled.categories]


@dataclass(frozen=True, slots=True)
class Candidate:
    """An entry whose action changes, with what is needed to judge it once more."""

    content_id: str
    image_sha256: str
    #: When the worker's verdict was made, UTC.
    time: np.datetime64
    recorded: Action
    recorded_by: str
    #: `(views, dim)`.
    embeddings: Halves
    because: Because
    strength: Strength


@dataclass(frozen=True, slots=True)
class Flip:
    """An example: an entry under both versions, in full."""

    found: Candidate
    before: Decision
    after: Decision

    @property
    def category_before(self) -> CategoryVerdict | None:
        """What the first version says in the category that decides; None where it has none of this name."""
        return self.before.categories.get(self.found.because.category)

    @property
    def category_after(self) -> CategoryVerdict | None:
        """What the second version says there."""
        return self.after.categories.get(self.found.because.category)


class Strongest:
    """The strongest candidates of each direction and category, each image once.

    Args:
        limit: Of each direction.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._kept: dict[tuple[Direction, str], list[Candidate]] = {}

    def add(self, candidates: Iterable[Candidate]) -> None:
        """Take some in; what is weaker than enough others goes."""
        new: dict[tuple[Direction, str], list[Candidate]] = {}
        for candidate in candidates:
            new.setdefault(candidate.because[:2], []).append(candidate)
        for group, some in new.items():
            once: dict[str, Candidate] = {}
            for candidate in sorted([*self._kept.get(group, []), *some], key=_weakness):
                once.setdefault(candidate.image_sha256, candidate)
            # Put there whole: other threads ask meanwhile.
            self._kept[group] = list(once.values())[: self.limit]

    def may_keep(self, because: Because, strength: Strength) -> bool:
        """Whether a candidate may be among the strongest; may be asked in any thread."""
        kept = self._kept.get(because[:2], [])
        return self.limit > 0 and (len(kept) < self.limit or strength >= kept[-1].strength)

    def flips(self, before: CompiledPolicy, after: CompiledPolicy) -> list[Flip]:
        """Judge examples once more, in full: as many of each direction as the limit says.

        Returns:
            Stricter ones before milder ones; the strongest of each category, then the next of each, and so on.
        """
        found = []
        for candidate in (candidate for direction in DIRECTIONS for candidate in self._in_turn(direction)):
            rows = rounded(candidate.embeddings)
            decisions = (decide(compiled, score(rows, compiled)) for compiled in (before, after))
            found.append(Flip(candidate, *decisions))
        return found

    def _in_turn(self, direction: Direction) -> list[Candidate]:
        groups = [kept for (towards, _), kept in self._kept.items() if towards == direction]
        turns = [sorted(filter(None, turn), key=_weakness) for turn in zip_longest(*groups)]
        return list(chain.from_iterable(turns))[: self.limit]


def find_flips(part: Part, before: Side, after: Side, strongest: Strongest) -> tuple[Counter[Because], list[Candidate]]:
    """Find the entries whose action changes.

    Args:
        part: The entries.
        before: The version that is compared with.
        after: The version that is tried.
        strongest: What was found so far; it is asked, and not added to.

    Returns:
        How many entries change for each reason, and those that may be among the strongest.
    """
    steps = after.judged.strongest - before.judged.strongest
    counts: Counter[Because] = Counter()
    candidates: list[Candidate] = []
    for direction in DIRECTIONS:
        places = np.flatnonzero(steps > 0 if direction == "stricter" else steps < 0)
        if not len(places):
            continue
        asks, other = (after, before) if direction == "stricter" else (before, after)
        names, reasons = asks.names, _explain(direction, places, asks, other)
        codes = reasons.columns * len(CAUSES) + reasons.causes
        for code, entries in zip(*np.unique(codes, return_counts=True), strict=True):
            counts[_because(direction, names, code)] += int(entries)
        by = np.abs(steps[places])
        once = _each_image_once(part, places, np.lexsort((-reasons.scores, -reasons.moved, -by)))
        for column in np.unique(reasons.columns):
            for at in once[reasons.columns[once] == column][: strongest.limit]:
                because = _because(direction, names, codes[at])
                strength = (int(by[at]), float(reasons.moved[at]), float(reasons.scores[at]))
                if strongest.may_keep(because, strength):
                    candidates.append(_candidate(part, int(places[at]), because, strength))
    return counts, candidates


@dataclass(frozen=True, slots=True)
class _Reasons:
    """Why n entries change: arrays of n."""

    #: The column of the category that decides, on the side that asks for more.
    columns: Places
    #: Places in `CAUSES`.
    causes: Places
    #: By how much the score of that category changes; one that only one side has changes by its whole score.
    moved: Floats
    #: Its score on the side that asks for more.
    scores: Floats


def _because(direction: Direction, names: Sequence[str], code: int) -> Because:
    column, cause = divmod(int(code), len(CAUSES))
    return Because(direction, names[column], CAUSES[cause])


def _explain(direction: Direction, places: Places, asks: Side, other: Side) -> _Reasons:
    """Say of entries why one side asks for more than the other."""
    actions, scores = asks.judged.actions[places], asks.judged.scores[places]
    level = np.maximum.reduce(actions, axis=1)
    columns = np.where(actions == level[:, None], scores, -1.0).argmax(axis=1)
    rows = np.arange(len(places))
    theirs = _aligned(other, asks, places)
    found = scores[rows, columns]
    moved = np.abs(found - np.where(np.isneginf(theirs[rows, columns]), 0.0, theirs[rows, columns]))
    # What each side's thresholds make of the other's scores.
    by_threshold = actions_of(theirs, asks.compiled)[rows, columns] >= level
    counterpart = np.array([other.names.index(name) if name in other.names else -1 for name in asks.names])[columns]
    by_score = actions_of(_aligned(asks, other, places), other.compiled)[rows, counterpart] >= level
    alone = "category appeared" if direction == "stricter" else "category vanished"
    causes = np.where(by_threshold == by_score, 2, np.where(by_threshold, 1, 0))
    causes[counterpart < 0] = CAUSES.index(alone)
    return _Reasons(columns, causes, moved, found)


def _aligned(scored: Side, like: Side, places: Places) -> Floats:
    """Return one side's scores in the columns of the other; -inf where it has no such category."""
    aligned = np.full((len(places), len(like.names)), -np.inf)
    names = scored.names
    for column, name in enumerate(like.names):
        if name in names:
            aligned[:, column] = scored.judged.scores[places, names.index(name)]
    return aligned


def _each_image_once(part: Part, places: Places, order: Places) -> Places:
    """Return what `order` names, without those of an image that it has named before."""
    digests = part.batch.image_sha256s[part.entries][places][order]
    _, first = np.unique(digests, return_index=True)
    once: Places = order[np.sort(first)]
    return once


def _candidate(part: Part, place: int, because: Because, strength: Strength) -> Candidate:
    batch, entry = part.batch, part.entries.start + place
    return Candidate(
        content_id=batch.content_ids[entry],
        image_sha256=batch.image_sha256s[entry].decode(),
        time=batch.times[entry],
        recorded=ACTIONS[batch.actions[entry]],
        recorded_by=batch.policy_refs[batch.policies[entry]],
        # A copy: the batch is not kept for it.
        embeddings=batch.embeddings[batch.starts[entry] : batch.starts[entry + 1]].copy(),
        because=because,
        strength=strength,
    )


def _weakness(candidate: Candidate) -> tuple[Any, ...]:
    """Order the strongest first, and alike ones by what does not depend on who came first."""
    return (*(-part for part in candidate.strength), candidate.time, candidate.content_id)
