"""What two policy versions say of a ledger, counted: actions, changes, days, scores.

In: what both say of its parts. Out: counts of fixed size, but for a row for each day. Never an entry.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from worker.ledger.batch import ACTIONS
from worker.policy.compiled import CompiledPolicy, Floats
from worker.verdict import Codes
from worker.workbench.backtest.flips import Because, Side
from worker.workbench.backtest.judging import Part
from worker.workbench.report.charts import BINS

Counts = npt.NDArray[np.int64]

_KINDS = len(ACTIONS)
#: Versions that judged are told apart up to so many; whoever may write to the stream may name any.
MAX_VERSIONS = 100
OTHER_VERSIONS = "other versions"


def _no_days() -> dict[str, Counts]:
    return {}


@dataclass(slots=True)
class Tally:
    """Counts of entries."""

    #: `(actions before, actions after)` of the whole policy.
    moves: Counts
    #: By category that both versions have: the same of the category.
    category_moves: dict[str, Counts]
    #: By category: `(actions,)`.
    actions_before: dict[str, Counts]
    actions_after: dict[str, Counts]
    #: By category: `(BINS,)` over [0, 1].
    scores_before: dict[str, Counts]
    scores_after: dict[str, Counts]
    #: By day, UTC: `(2, actions)`, before and after.
    days: dict[str, Counts] = field(default_factory=_no_days)
    #: By version that judged: `(actions recorded, actions before)`.
    recorded: dict[str, Counts] = field(default_factory=_no_days)
    because: Counter[Because] = field(default_factory=Counter)
    views: int = 0
    first: np.datetime64 | None = None
    last: np.datetime64 | None = None

    @classmethod
    def empty(cls, before: CompiledPolicy, after: CompiledPolicy) -> Tally:
        """Return one of nothing."""
        olds, news = ([category.name for category in compiled.categories] for compiled in (before, after))
        return cls(
            moves=_zeros(_KINDS, _KINDS),
            category_moves={name: _zeros(_KINDS, _KINDS) for name in olds if name in news},
            actions_before={name: _zeros(_KINDS) for name in olds},
            actions_after={name: _zeros(_KINDS) for name in news},
            scores_before={name: _zeros(BINS) for name in olds},
            scores_after={name: _zeros(BINS) for name in news},
        )

    @property
    def entries(self) -> int:
        """How many entries were counted."""
        return int(self.moves.sum())

    def count(self, part: Part, before: Side, after: Side) -> None:
        """Count the entries of a part; what changes why is counted by `find_flips`."""
        old, new = before.judged.strongest, after.judged.strongest
        self.moves += _pairs(old, new)
        self.views += len(part.embeddings)
        for side, actions, scores in (
            (before, self.actions_before, self.scores_before),
            (after, self.actions_after, self.scores_after),
        ):
            for column, name in enumerate(side.names):
                actions[name] += np.bincount(side.judged.actions[:, column], minlength=_KINDS)
                scores[name] += _histogram(side.judged.scores[:, column])
        for name in self.category_moves:
            columns = (side.judged.actions[:, side.names.index(name)] for side in (before, after))
            self.category_moves[name] += _pairs(*columns)
        self._count_days(part, old, new)
        self._count_recorded(part, old)

    def add(self, other: Tally) -> None:
        """Take in what another counted of the same versions."""
        self.moves += other.moves
        self.views += other.views
        for mine, theirs in (
            (self.category_moves, other.category_moves),
            (self.actions_before, other.actions_before),
            (self.actions_after, other.actions_after),
            (self.scores_before, other.scores_before),
            (self.scores_after, other.scores_after),
            (self.days, other.days),
        ):
            for name, counts in theirs.items():
                mine[name] = mine[name] + counts if name in mine else counts
        for ref, counts in other.recorded.items():
            self._add_recorded(ref, counts)
        self.because.update(other.because)
        self._span(other.first, other.last)

    def _count_days(self, part: Part, old: Codes, new: Codes) -> None:
        times = part.batch.times[part.entries]
        self._span(times.min(), times.max())
        days, places = np.unique(times.astype("datetime64[D]"), return_inverse=True)
        for place, day in enumerate(days):
            of_day = places == place
            counts = np.stack([np.bincount(codes[of_day], minlength=_KINDS) for codes in (old, new)])
            self.days[str(day)] = self.days.get(str(day), 0) + counts

    def _count_recorded(self, part: Part, old: Codes) -> None:
        batch = part.batch
        said, versions = batch.actions[part.entries], batch.policies[part.entries]
        for version in np.unique(versions):
            of_version = versions == version
            self._add_recorded(batch.policy_refs[version], _pairs(said[of_version], old[of_version]))

    def _add_recorded(self, ref: str, counts: Counts) -> None:
        key = ref if ref in self.recorded or len(self.recorded) < MAX_VERSIONS else OTHER_VERSIONS
        self.recorded[key] = self.recorded.get(key, 0) + counts

    def _span(self, first: np.datetime64 | None, last: np.datetime64 | None) -> None:
        if first is not None and last is not None:
            self.first = first if self.first is None else min(self.first, first)
            self.last = last if self.last is None else max(self.last, last)


def stricter(moves: Counts) -> int:
    """Return how many entries of a table of moves ended with a stronger action."""
    return int(np.triu(moves, 1).sum())


def milder(moves: Counts) -> int:
    """Return how many ended with a weaker action."""
    return int(np.tril(moves, -1).sum())


def _zeros(*shape: int) -> Counts:
    return np.zeros(shape, np.int64)


def _pairs(first: Codes, second: Codes) -> Counts:
    pairs: Counts = np.bincount(first.astype(np.int64) * _KINDS + second, minlength=_KINDS**2)
    return pairs.reshape(_KINDS, _KINDS)


def _histogram(scores: Floats) -> Counts:
    bins = np.minimum((scores * BINS).astype(np.int64), BINS - 1)
    counts: Counts = np.bincount(bins, minlength=BINS)
    return counts
