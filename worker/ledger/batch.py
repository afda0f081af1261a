"""Entries of the ledger as arrays: what is judged again, thousands at once.

In: entries, or columns that a file was read into. Out: `LedgerBatch`. Never a copy where a view of the bytes will do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from worker.ledger.entry import LedgerEntry
from worker.records import ACTION_ORDER, Action, ModelStamp

Halves = npt.NDArray[np.float16]
#: Places in arrays of entries or of views.
Places = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

#: Codes of actions in `LedgerBatch.actions`: `ACTION_ORDER`'s.
ACTIONS: tuple[Action, ...] = tuple(sorted(ACTION_ORDER, key=ACTION_ORDER.__getitem__))
#: What rounding to 16 bits does to the length of a unit row stays far below this.
_UNIT_TOLERANCE = 0.01


class Texts(Sequence[str]):
    """Strings in one buffer, each decoded when it is asked for: of a million, few ever are.

    Args:
        data: UTF-8, one after the other.
        offsets: `(n + 1,)` where each begins, and the last ends.
    """

    def __init__(self, data: bytes | memoryview, offsets: npt.NDArray[Any]) -> None:
        self._data = memoryview(data)
        self._starts, self._ends = offsets[:-1], offsets[1:]

    @classmethod
    def of(cls, texts: Sequence[str]) -> Texts:
        """Pack some strings."""
        parts = [text.encode() for text in texts]
        return cls(b"".join(parts), np.cumsum([0, *map(len, parts)]))

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return [self[at] for at in range(*place.indices(len(self)))]
        return str(self._data[self._starts[place] : self._ends[place]], "utf-8")

    def take(self, places: Places | Mask) -> Texts:
        """Return some of them; the buffer is shared."""
        taken = object.__new__(Texts)
        taken._data, taken._starts, taken._ends = self._data, self._starts[places], self._ends[places]
        return taken


@dataclass(frozen=True, slots=True)
class LedgerBatch:
    """Verdicts that one model embedded: n entries, and one row of embeddings for each of their views."""

    model: ModelStamp
    #: `(rows, dim)`, in the order of the entries. To judge as the worker did, give `worker.encoder.memo.rounded` of
    #: them, which makes unit rows of 32 bits, to `worker.scoring.score`; a part at a time, for they grow to twice that.
    embeddings: Halves
    #: `(n + 1,)`: the rows of entry i are `starts[i]` to `starts[i + 1]`, so `np.maximum.reduceat(x, starts[:-1])`
    #: takes each entry's maximum.
    starts: Places
    #: `(n,)` of 32 bytes each, ASCII.
    verdict_ids: npt.NDArray[np.bytes_]
    content_ids: Texts
    #: `(n,)` of 64 bytes each, ASCII: SHA-256 of the files.
    image_sha256s: npt.NDArray[np.bytes_]
    #: `(n,)` places in `ACTIONS`: what the worker said.
    actions: npt.NDArray[np.int8]
    #: `(n,)` places in `policy_refs`.
    policies: Places
    #: `id@version` of the versions that judged.
    policy_refs: tuple[str, ...]
    #: `(n,)` when the verdicts were made, UTC, milliseconds.
    times: npt.NDArray[np.datetime64]

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def entry_of_row(self) -> Places:
        """`(rows,)`: the entry that each row of the embeddings belongs to."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    def where(self, mask: Mask) -> LedgerBatch:
        """Return the entries that a mask of `(n,)` names; the batch itself where it names all."""
        if mask.all():
            return self
        views = np.diff(self.starts)
        return LedgerBatch(
            self.model,
            self.embeddings[np.repeat(mask, views)],
            np.concatenate([[0], np.cumsum(views[mask])]),
            self.verdict_ids[mask],
            self.content_ids.take(mask),
            self.image_sha256s[mask],
            self.actions[mask],
            self.policies[mask],
            self.policy_refs,
            self.times[mask],
        )


def halves(embeddings: npt.NDArray[np.float32]) -> bytes:
    """Return `(views, dim)` embeddings as the ledger keeps them: little-endian float16, row by row."""
    return embeddings.astype("<f2").tobytes()


def sound(batch: LedgerBatch) -> Mask:
    """Say of which entries every row has length 1: what is not so, something else than a worker wrote."""
    rows = batch.embeddings.astype(np.float32)
    lengths = np.sqrt(np.einsum("rd,rd->r", rows, rows))
    mask: Mask = np.logical_and.reduceat(np.abs(lengths - 1) < _UNIT_TOLERANCE, batch.starts[:-1])
    return mask


def batches_of(entries: Sequence[LedgerEntry]) -> Iterator[LedgerBatch]:
    """Yield entries as arrays, those of one model and one size together."""
    for _, run in groupby(sorted(entries, key=_made_by), key=_made_by):
        alike = list(run)
        yield _batch_of(alike[0].model, alike[0].dim, alike)


def _made_by(entry: LedgerEntry) -> tuple[str, str, str, int]:
    return entry.model.id, entry.model.revision, entry.model.precision, entry.dim


def _batch_of(model: ModelStamp, dim: int, entries: Sequence[LedgerEntry]) -> LedgerBatch:
    refs = {ref: place for place, ref in enumerate(dict.fromkeys(entry.policy_ref for entry in entries))}
    return LedgerBatch(
        model,
        np.frombuffer(b"".join(entry.embeddings for entry in entries), "<f2").reshape(-1, dim),
        np.cumsum([0, *(entry.views for entry in entries)], dtype=np.int64),
        np.array([entry.verdict_id for entry in entries], "S32"),
        Texts.of([entry.content_id for entry in entries]),
        np.array([entry.image_sha256 for entry in entries], "S64"),
        np.array([ACTION_ORDER[entry.action] for entry in entries], np.int8),
        np.array([refs[entry.policy_ref] for entry in entries], np.int64),
        tuple(refs),
        np.array([entry.created_at.replace(tzinfo=None) for entry in entries], "datetime64[ms]"),
    )
