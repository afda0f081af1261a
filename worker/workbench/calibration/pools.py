"""Pictures as two numbers a view and category: all that a calibration is fitted to.

In: embeddings, a batch at a time. Out: `Pools`, 16 bytes a view and category. Never an embedding that is kept.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from worker.policy.compiled import CompiledPolicy, Floats, Indices, Matrix
from worker.policy.schema import Calibration
from worker.scoring import pool, sigmoid

Times = npt.NDArray[np.datetime64]


@dataclass(frozen=True, slots=True)
class Pool:
    """The pooled logits of one category: n pictures, one row for each of their views."""

    #: `(rows,)` of the prompts, in logits.
    prompts: Floats
    #: `(rows,)` of contrast and look-alikes, in logits.
    contrast: Floats
    #: `(n,)`: where the rows of each picture begin.
    starts: Indices

    def __len__(self) -> int:
        return len(self.starts)

    def margins(self, weight: float) -> Floats:
        """`(n,)`: each picture's margin, which is that of its highest view, under a weight of the contrast."""
        highest: Floats = np.maximum.reduceat(self.prompts - weight * self.contrast, self.starts)
        return highest

    def scores(self, calibration: Calibration) -> Floats:
        """`(n,)`: each picture's score, as the worker's."""
        return sigmoid((self.margins(calibration.contrast_weight) - calibration.bias) / calibration.temperature)

    def highest_views(self, weight: float) -> Indices:
        """`(n,)`: the row of each picture's highest view."""
        if len(self.starts) == len(self.prompts):
            return self.starts
        margins = self.prompts - weight * self.contrast
        of = np.repeat(np.arange(len(self)), np.diff([*self.starts, len(margins)]))
        # The rows of a picture stay together; the last of them is the highest.
        order = np.lexsort((margins, of))
        highest: Indices = order[np.append(self.starts[1:], len(margins)) - 1]
        return highest

    def take(self, pictures: Indices) -> Pool:
        """Return some pictures, in the order given."""
        views = np.diff([*self.starts, len(self.prompts)])[pictures]
        starts = np.cumsum([0, *views[:-1]])
        rows = np.repeat(self.starts[pictures] - starts, views) + np.arange(views.sum())
        return Pool(self.prompts[rows], self.contrast[rows], starts)


@dataclass(frozen=True, slots=True)
class Pools:
    """Pictures under one policy and model."""

    #: Content ids; several may be the same.
    names: Sequence[str]
    categories: dict[str, Pool]
    #: When they were judged, UTC; None where nobody knows.
    times: Times | None = None

    def __len__(self) -> int:
        return len(self.names)

    def only(self, names: Collection[str]) -> Pools:
        """Return the pictures of these names."""
        kept = np.array([place for place, name in enumerate(self.names) if name in names], np.intp)
        categories = {category: pool.take(kept) for category, pool in self.categories.items()}
        times = None if self.times is None else self.times[kept]
        return Pools([self.names[place] for place in kept], categories, times)

    def places(self) -> dict[str, int]:
        """Return where each content id stands; the latest one where several pictures have it."""
        order = range(len(self.names)) if self.times is None else np.argsort(self.times, kind="stable").tolist()
        return {self.names[place]: place for place in order}


@dataclass(slots=True)
class Gathering:
    """Pools while they are gathered.

    Args:
        compiled: The policy under the encoder that makes the embeddings.
    """

    compiled: CompiledPolicy
    _names: list[str] = field(default_factory=list)
    _views: list[npt.NDArray[np.int64]] = field(default_factory=list)
    _prompts: list[Floats] = field(default_factory=list)
    _contrast: list[Floats] = field(default_factory=list)
    _times: list[Times] = field(default_factory=list)

    def add(
        self, names: Sequence[str], embeddings: Matrix, views: npt.NDArray[np.int64], times: Times | None = None
    ) -> None:
        """Add n pictures.

        Args:
            names: Their content ids.
            embeddings: `(rows, dim)` of all their views, in order.
            views: `(n,)` how many views each has.
            times: `(n,)` when they were judged; for all pictures, or for none.
        """
        pooled = pool(embeddings, self.compiled)
        self._names += names
        self._views.append(views)
        self._prompts.append(pooled.prompts)
        self._contrast.append(pooled.contrast)
        if times is not None:
            self._times.append(times)

    def __len__(self) -> int:
        return len(self._names)

    def pools(self) -> Pools:
        """Return all that was added; at least one picture."""
        starts = np.cumsum([0, *np.concatenate(self._views)[:-1]])
        prompts, contrast = np.concatenate(self._prompts), np.concatenate(self._contrast)
        categories = {
            category.name: Pool(
                np.ascontiguousarray(prompts[:, column]), np.ascontiguousarray(contrast[:, column]), starts
            )
            for column, category in enumerate(self.compiled.categories)
        }
        return Pools(tuple(self._names), categories, np.concatenate(self._times) if self._times else None)
