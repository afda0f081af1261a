"""Embeddings of the ledger × a policy version → what it says of each entry, as the worker would.

In: parts of a batch of the ledger. Out: `Judged`. Never an action that `decide` would not take: whatever lies near a
threshold is scored by `score` itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from worker.ledger.batch import Halves, LedgerBatch, Places
from worker.policy.compiled import CompiledPolicy, Floats, Matrix
from worker.scoring import roughness, score, score_roughly
from worker.verdict import Codes, actions_of, is_near_threshold

#: Views of a part: with fewer, threads wait for one another between the calls of numpy; with more, logits leave the
#: cache.
PART_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Part:
    """Some entries of a batch, one after the other: what a thread judges at once."""

    batch: LedgerBatch
    #: Which entries.
    entries: slice

    def __len__(self) -> int:
        return int(self.entries.stop - self.entries.start)

    @property
    def starts(self) -> Places:
        """`(n + 1,)`: where the rows of each entry begin, in `embeddings`."""
        starts = self.batch.starts[self.entries.start : self.entries.stop + 1]
        own: Places = starts - starts[0]
        return own

    @property
    def embeddings(self) -> Halves:
        """`(rows, dim)` of all views of the entries."""
        rows: Halves = self.batch.embeddings[
            self.batch.starts[self.entries.start] : self.batch.starts[self.entries.stop]
        ]
        return rows


@dataclass(frozen=True, slots=True)
class Judged:
    """What one policy version says of n entries."""

    #: `(n, categories)`, of each entry the maximum over its views. Exact where that decides about an action, elsewhere
    #: within `roughness`.
    scores: Floats
    #: `(n, categories)` of `ACTION_ORDER`.
    actions: Codes

    @property
    def strongest(self) -> Codes:
        """`(n,)`: the action of each entry."""
        strongest: Codes = np.maximum.reduce(self.actions, axis=1)
        return strongest


def parts_of(batch: LedgerBatch) -> Iterator[Part]:
    """Cut a batch into parts of about `PART_ROWS` views; the views of an entry stay together."""
    start = 0
    while start < len(batch):
        fitting = np.searchsorted(batch.starts, batch.starts[start] + PART_ROWS, "right") - 1
        end = max(start + 1, int(fitting))
        yield Part(batch, slice(start, end))
        start = end


class Sentences:
    """The sentences of two versions, each once: most of them are in both, and their products are most of the work.

    Args:
        before: One version.
        after: The other.
    """

    def __init__(self, before: CompiledPolicy, after: CompiledPolicy) -> None:
        together = np.concatenate([before.sentences, after.sentences])
        _, first, places = np.unique(together, axis=0, return_index=True, return_inverse=True)
        self._sentences = together[first]
        self._places = np.split(places.reshape(-1), [len(before.sentences)])

    def similarities(self, embeddings: Matrix) -> Iterator[Matrix]:
        """Yield the similarities of both versions, `(sentences, rows)` each.

        Args:
            embeddings: `(rows, dim)` float32, unit rows.
        """
        found = self._sentences @ embeddings.T
        return (found[places] for places in self._places)


def judge(embeddings: Matrix, similarities: Matrix, starts: Places, compiled: CompiledPolicy) -> Judged:
    """Judge entries under one policy version.

    Args:
        embeddings: `(rows, dim)` float32, unit rows, as `rounded` gives them.
        similarities: `(sentences, rows)` of the version's sentences to them.
        starts: `(n + 1,)`: where the rows of each entry begin, and the last ends.
        compiled: The version.

    Returns:
        For each entry the action that `decide(compiled, score(its rows, compiled))` takes.
    """
    scores = _over_views(score_roughly(similarities, compiled), starts)
    near = is_near_threshold(scores, compiled, roughness(compiled))
    if near.any():
        views = np.diff(starts)
        exact = score(embeddings[np.repeat(near, views)], compiled).score
        scores[near] = _over_views(exact, np.concatenate([[0], np.cumsum(views[near])]))
    return Judged(scores, actions_of(scores, compiled))


def _over_views(scores: Floats, starts: Places) -> Floats:
    """Return the maximum over each entry's views: `(n, categories)`."""
    if len(scores) == len(starts) - 1:
        return scores
    highest: Floats = np.maximum.reduceat(scores, starts[:-1], axis=0)
    return highest
