"""How fast a ledger is judged again: `sluice backtest` beside the bare matrix product of the same embeddings.

In: how many embeddings. Out: rows of figures. The embeddings are made up; what is judged means nothing.
"""

from __future__ import annotations

import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import psutil

from worker.cores import usable_cores
from worker.encoder.memo import rounded
from worker.ledger.batch import LedgerBatch, batches_of, halves
from worker.ledger.entry import LedgerEntry
from worker.ledger.reader import LedgerReader, parquet
from worker.ledger.shelf import DirectoryShelf
from worker.policy.compiled import CompiledPolicy, Matrix, compile_policy
from worker.policy.schema import Category, Policy, Thresholds
from worker.records import ModelStamp
from worker.workbench.backtest.run import Scope, backtest

#: As CLIP's: numbers of an embedding, and logits per unit of similarity.
_DIM, _LOGIT_SCALE = 512, 100.0
_CATEGORIES, _PROMPTS, _CONTRAST = 8, 9, 28
_MODEL = ModelStamp(id="made-up", revision="1", precision="fp32")
_NAME = f"{_MODEL.id}@{_MODEL.revision}"
_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
#: Of each file, and of what is in memory at once where none is read.
_FILE_ENTRIES = 16_384
_DAYS = 7
_EXAMPLES = 12
_LOOK_SECONDS = 0.05
_MEBIBYTE = 1024 * 1024

#: The one that is compared with, and the one that is tried.
Versions = tuple[CompiledPolicy, CompiledPolicy]


@dataclass(frozen=True, slots=True)
class BacktestRow:
    """One way to go through the same embeddings."""

    way: str
    embeddings: int
    #: Of each version.
    sentences: int
    seconds: float
    embeddings_per_second: float
    #: Of the speed of the bare products.
    share_of_product: float
    #: By how much the process grew while it ran, at most; in MiB.
    grew_mebibytes: float


def bench_backtest(embeddings: int, rounds: int, progress: Callable[[str], None]) -> list[BacktestRow]:
    """Measure.

    Args:
        embeddings: How many; rounded up to whole files.
        rounds: Turns of each way; the fastest counts.
        progress: Told what runs.

    Returns:
        The bare products of both versions in fp32, a back-test of batches in memory, and one of Parquet files.

    Raises:
        Missing: The extra `report` is not installed.
    """
    files = -(-embeddings // _FILE_ENTRIES)
    versions = _versions()
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as directory:
        shelf, entries = DirectoryShelf(Path(directory)), _entries()
        progress(f"writing {files} files")
        for number in range(files):
            _write(shelf, number, entries)
        [batch] = batches_of(entries)
        ready = rounded(batch.embeddings)
        ways: dict[str, Callable[[], None]] = {
            "bare products": lambda: _products(ready, files, versions),
            "backtest, in memory": lambda: _backtest((batch for _ in range(files)), versions),
            "backtest, Parquet": lambda: _backtest(LedgerReader(None, shelf).batches(), versions),
        }
        best = {way: (float("inf"), 0.0) for way in ways}
        for turn in range(rounds):
            for way, run in ways.items():
                progress(f"round {turn + 1} of {rounds}: {way}")
                best[way] = min(best[way], _timed(run))
    bare = best["bare products"][0]
    count, sentences = files * _FILE_ENTRIES, len(versions[0].sentences)
    return [
        BacktestRow(way, count, sentences, seconds, count / seconds, bare / seconds, grew)
        for way, (seconds, grew) in best.items()
    ]


def _entries() -> list[LedgerEntry]:
    rows = _unit_rows(0, _FILE_ENTRIES)
    return [
        LedgerEntry(
            verdict_id="", content_id=f"upload-{number}", action="allow", policy="bench", policy_version=1,
            model=_MODEL, image_sha256=f"{number:064x}", created_at=_BEGIN, views=1, dim=_DIM,
            embeddings=halves(rows[number : number + 1]),
        )
        for number in range(_FILE_ENTRIES)
    ]  # fmt: skip


def _write(shelf: DirectoryShelf, number: int, entries: Sequence[LedgerEntry]) -> None:
    """Write one file: the same images as in every other, and verdicts of its own."""
    when = _BEGIN + timedelta(days=number % _DAYS)
    own = [replace(entry, verdict_id=f"{number:016x}{at:016x}", created_at=when) for at, entry in enumerate(entries)]
    shelf.write(f"{when:%Y-%m-%d}", f"{number}.parquet", parquet().write_entries(own))


def _versions() -> Versions:
    """Make two versions of a policy up, a hundred sentences each: the second words one category anew."""
    categories = {
        f"category_{number}": Category(
            prompts=tuple(f"thing {number} of kind {kind}" for kind in range(_PROMPTS)),
            thresholds=Thresholds(review=0.5, block=0.9),
        )
        for number in range(_CATEGORIES)
    }
    contrast = tuple(f"ordinary thing {number}" for number in range(_CONTRAST))
    before = Policy(policy="bench", version=1, contrast=contrast, categories=categories)
    name, category = next(iter(categories.items()))
    anew = category.model_copy(update={"prompts": tuple(f"{prompt}, closely" for prompt in category.prompts)})
    after = before.model_copy(update={"version": 2, "categories": categories | {name: anew}})
    return (_compiled(before), _compiled(after))


def _compiled(policy: Policy) -> CompiledPolicy:
    def embed(texts: Sequence[str]) -> Matrix:
        """Each sentence lies where only its words say."""
        return np.concatenate([_unit_rows(zlib.crc32(text.encode()), 1) for text in texts])

    return compile_policy(policy, embed, _LOGIT_SCALE, _NAME)


def _unit_rows(seed: int, count: int) -> Matrix:
    rows: Matrix = np.random.default_rng(seed).standard_normal((count, _DIM), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def _products(embeddings: Matrix, times: int, versions: Versions) -> None:
    """Multiply ready rows of 32 bits with the sentences, on all cores."""
    for _ in range(times):
        for compiled in versions:
            embeddings @ compiled.sentences.T


def _backtest(batches: Iterable[LedgerBatch], versions: Versions) -> None:
    backtest(batches, *versions, Scope(_NAME, _DIM), examples=_EXAMPLES, threads=usable_cores())


def _timed(run: Callable[[], None]) -> tuple[float, float]:
    """Return how many seconds something takes, and by how many MiB the process grows meanwhile."""
    process, done, most = psutil.Process(), threading.Event(), [0]
    before = most[0] = process.memory_info().rss

    def watch() -> None:
        while not done.wait(_LOOK_SECONDS):
            most[0] = max(most[0], process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    run()
    seconds = time.perf_counter() - started
    done.set()
    watcher.join()
    return seconds, (most[0] - before) / _MEBIBYTE
