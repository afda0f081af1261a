"""The ledger as arrays: what Redis has, then what the archive has, each verdict once.

In: Redis, a shelf, or both; from when, until when, and of which model. Out: `LedgerBatch`es, one at a time in memory.
Never the same verdict twice, wherever it lies.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import redis

from worker.errors import Missing
from worker.ledger.batch import LedgerBatch, batches_of, sound
from worker.ledger.shelf import Shelf
from worker.ledger.stream import pages, readable

Keys = npt.NDArray[np.uint64]

#: Odd, one for each eight characters of a verdict id: their sum of products, modulo 2 ** 64, is its key.
_MULTIPLIERS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93], np.uint64)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries are read."""

    #: With time zones; None: no bound.
    since: datetime | None = None
    #: Exclusive.
    until: datetime | None = None
    #: `id@revision`; None: any. Precisions of one checkpoint are not told apart.
    model: str | None = None

    def of(self, batch: LedgerBatch) -> LedgerBatch | None:
        """Return those of a batch; None where there is none."""
        if self.model not in (None, f"{batch.model.id}@{batch.model.revision}"):
            return None
        mask = np.ones(len(batch), np.bool_)
        if self.since is not None:
            mask &= batch.times >= _moment(self.since)
        if self.until is not None:
            mask &= batch.times < _moment(self.until)
        return batch.where(mask) if mask.any() else None

    def has_day(self, day: str) -> bool:
        """Whether verdicts of a day may be among them."""
        return (self.since is None or day >= _day(self.since)) and (self.until is None or day <= _day(self.until))


class LedgerReader:
    """Reads the ledger.

    The stream comes first: entries move from there to the shelf and never back, so none is missed on its way.

    Args:
        connection: A Redis that speaks bytes; None: only the shelf is read.
        shelf: The archive; None: only the stream is read.
        wanted: Which entries.

    Attributes:
        passed_over: Entries of the stream that could not be read, so far.
    """

    def __init__(self, connection: redis.Redis | None, shelf: Shelf | None, wanted: Wanted | None = None) -> None:
        self.passed_over = 0
        self._connection = connection
        self._shelf = shelf
        self._wanted = wanted or Wanted()

    def batches(self) -> Iterator[LedgerBatch]:
        """Yield entries, in no order that means anything.

        An archive's verdicts are compared within their day, so that memory is bounded by the busiest one: 8 bytes a
        verdict.

        Raises:
            Missing: The extra `report` is not installed, or a place cannot be read.
            LedgerUnusable: A file is none of the ledger's.
            redis.RedisError: Redis does not answer.
        """
        seen = _Seen()
        if self._connection is not None:
            for rows in pages(self._connection, self._wanted.since):
                batches = [batch.where(sound(batch)) for batch in batches_of([entry for _, entry in readable(rows)])]
                self.passed_over += len(rows) - sum(map(len, batches))
                yield from self._new(batches, seen)
        if self._shelf is not None:
            yield from self._archived(self._shelf, seen)

    def _archived(self, shelf: Shelf, in_stream: _Seen) -> Iterator[LedgerBatch]:
        files = parquet()
        for day, stored in groupby(shelf.files(), key=lambda file: file.day):
            if not self._wanted.has_day(day):
                continue
            seen = in_stream.branch()
            for file in stored:
                with suppress(FileNotFoundError):  # retention was faster
                    name = f"{shelf}/day={day}/{file.name}"
                    found = files.read_batches(shelf.read(file), name, self._wanted.since, self._wanted.until)
                    yield from self._new(found, seen)

    def _new(self, batches: Iterable[LedgerBatch], seen: _Seen) -> Iterator[LedgerBatch]:
        for batch in batches:
            wanted = self._wanted.of(batch)
            if wanted is not None and (mask := seen.add(wanted.verdict_ids)).any():
                yield wanted.where(mask)


class _Seen:
    """Verdict ids that were yielded, by 64 bits of each: of ten million, two agree in these once in 400,000 times.

    Args:
        runs: Those that were yielded before.
    """

    def __init__(self, runs: Sequence[Keys] = ()) -> None:
        #: Sorted, each at least twice as long as the next.
        self._runs = list(runs)

    def branch(self) -> _Seen:
        """Return one that knows all that this one does, and keeps what it learns to itself."""
        return _Seen(self._runs)

    def add(self, verdict_ids: npt.NDArray[np.bytes_]) -> npt.NDArray[np.bool_]:
        """Note some; a mask of those that are new, each at its first place."""
        words = np.frombuffer(verdict_ids.tobytes(), np.uint64).reshape(len(verdict_ids), -1)
        keys, first = np.unique((words * _MULTIPLIERS).sum(axis=1, dtype=np.uint64), return_index=True)
        is_new = np.ones(len(keys), np.bool_)
        for run in self._runs:
            is_new &= run[np.minimum(np.searchsorted(run, keys), len(run) - 1)] != keys
        mask = np.zeros(len(verdict_ids), np.bool_)
        mask[first[is_new]] = True
        if is_new.any():
            self._runs.append(keys[is_new])
        while len(self._runs) > 1 and len(self._runs[-2]) < 2 * len(self._runs[-1]):
            self._runs[-2:] = [np.sort(np.concatenate(self._runs[-2:]), kind="stable")]
        return mask


def parquet() -> Any:
    """Return the module that reads and writes Parquet.

    Raises:
        Missing: The extra is not installed.
    """
    try:
        from worker.ledger import files  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise Missing("files of the ledger need the extra report; run pip install 'sluicegate[report]'") from error
    return files


def _moment(moment: datetime) -> np.datetime64:
    return np.datetime64(moment.astimezone(UTC).replace(tzinfo=None), "ms")


def _day(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d")
