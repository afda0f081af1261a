"""A whole ledger under two policy versions, judged in threads.

In: batches of the ledger as they are read. Out: `Found`. Never more than a few parts of batches on their way at once.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from worker.encoder.memo import rounded
from worker.errors import Missing
from worker.ledger.batch import LedgerBatch
from worker.policy.compiled import CompiledPolicy
from worker.workbench.backtest.flips import Candidate, Flip, Side, Strongest, find_flips
from worker.workbench.backtest.judging import Part, Sentences, judge, parts_of
from worker.workbench.backtest.tally import Tally

#: Parts that wait for a thread, for each thread.
_AHEAD = 2
#: Names that are counted each by itself; whoever may write to the stream may name anything.
_MAX_NAMES = 100
_MORE = "others"


@dataclass(frozen=True, slots=True)
class Scope:
    """Which entries count."""

    #: `id@revision`, and how many numbers its embeddings have.
    model: str
    dim: int
    #: Ids of policies whose entries count; None: of all.
    policies: frozenset[str] | None = None


@dataclass(slots=True)
class LeftOut:
    """Entries that do not count, and why."""

    #: By `id@revision` of the model.
    models: Counter[str] = field(default_factory=Counter)
    #: By the id of the policy that judged.
    policies: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Found:
    """What came of a back-test."""

    before: CompiledPolicy
    after: CompiledPolicy
    tally: Tally
    #: The strongest examples, stricter ones first.
    flips: list[Flip]
    left_out: LeftOut


def backtest(
    batches: Iterable[LedgerBatch],
    before: CompiledPolicy,
    after: CompiledPolicy,
    scope: Scope,
    *,
    examples: int,
    threads: int,
    tell: Callable[[int], None] = lambda entries: None,
) -> Found:
    """Judge a ledger under two policy versions.

    Args:
        batches: The ledger.
        before: The version that is compared with.
        after: The version that is tried.
        scope: Which entries count.
        examples: How many of each direction are kept.
        threads: That judge; each takes a core.
        tell: Told how many entries were judged, again and again.

    Returns:
        Counts of all entries, and examples.

    Raises:
        Missing: The extra `report` is not installed.
    """
    left_out = LeftOut()
    tally, strongest, sentences = Tally.empty(before, after), Strongest(examples), Sentences(before, after)

    look = partial(_look, before=before, after=after, sentences=sentences, strongest=strongest)
    with one_thread_a_product():
        for counted, candidates in _in_threads(look, _parts(batches, scope, left_out), threads):
            tally.add(counted)
            strongest.add(candidates)
            tell(counted.entries)
        flips = strongest.flips(before, after)
    return Found(before, after, tally, flips, left_out)


def _look(
    part: Part, before: CompiledPolicy, after: CompiledPolicy, sentences: Sentences, strongest: Strongest
) -> tuple[Tally, list[Candidate]]:
    rows, starts = rounded(part.embeddings), part.starts
    old, new = (
        Side(compiled, judge(rows, similarities, starts, compiled))
        for compiled, similarities in zip((before, after), sentences.similarities(rows), strict=True)
    )
    counted = Tally.empty(before, after)
    counted.count(part, old, new)
    because, candidates = find_flips(part, old, new, strongest)
    counted.because.update(because)
    return counted, candidates


@contextmanager
def one_thread_a_product() -> Iterator[None]:
    """Keep matrix products of this process to the thread that asks for them: here the parts share the cores.

    Raises:
        Missing: The extra `report` is not installed.
    """
    try:
        from threadpoolctl import threadpool_limits  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise Missing("back-tests need the extra report; run pip install 'sluicegate[report]'") from error
    with threadpool_limits(limits=1, user_api="blas"):
        yield


def _parts(batches: Iterable[LedgerBatch], scope: Scope, left_out: LeftOut) -> Iterator[Part]:
    for batch in batches:
        model = f"{batch.model.id}@{batch.model.revision}"
        if model != scope.model or batch.embeddings.shape[1] != scope.dim:
            _count(left_out.models, model, len(batch))
            continue
        counting = batch if scope.policies is None else _of_policies(batch, scope.policies, left_out)
        yield from parts_of(counting)


def _of_policies(batch: LedgerBatch, policies: frozenset[str], left_out: LeftOut) -> LedgerBatch:
    ids = [ref.partition("@")[0] for ref in batch.policy_refs]
    wanted = np.array([name in policies for name in ids])
    mask = wanted[batch.policies]
    for place, entries in enumerate(np.bincount(batch.policies[~mask], minlength=len(ids))):
        if entries:
            _count(left_out.policies, ids[place], int(entries))
    return batch.where(mask)


def _count(counter: Counter[str], name: str, entries: int) -> None:
    counter[name if name in counter or len(counter) < _MAX_NAMES else _MORE] += entries


def _in_threads(
    look: Callable[[Part], tuple[Tally, list[Candidate]]], parts: Iterable[Part], threads: int
) -> Iterator[tuple[Tally, list[Candidate]]]:
    """Yield what `look` makes of each part, in order; few are on their way at once."""
    waiting: deque[Future[tuple[Tally, list[Candidate]]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="backtest")
    try:
        for part in parts:
            waiting.append(pool.submit(look, part))
            if len(waiting) > threads * _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        # Where somebody interrupts, nobody waits for what has not begun.
        pool.shutdown(wait=True, cancel_futures=True)
