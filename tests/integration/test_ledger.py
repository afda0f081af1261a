"""Workers write the ledger: an entry where there is a verdict of a judged image, and nowhere else."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
import support
from house import PNG
from PIL import Image
from rq import Callback, Queue
from rq.job import Dependency, Job

from worker import app as sluice
from worker.client import Moderation, read_verdicts
from worker.encoder.memo import rounded
from worker.ledger.batch import ACTIONS
from worker.ledger.entry import LEDGER, LedgerEntry, read_entry
from worker.ledger.reader import LedgerReader
from worker.records import Verdict
from worker.runtime.batch_worker import BatchWorker
from worker.runtime.stable import ModelStable
from worker.settings import Settings, load_settings
from worker.sinks.ledger import LedgerStream
from worker.stages import decide_all

Work = Callable[[Settings], None]


class _SharedStable(ModelStable):
    def close(self) -> None:
        """Stay; the module closes it."""


@pytest.fixture(scope="module")
def flags(redis_server: str, tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    policies = support.write_house_policies(tmp_path_factory.mktemp("house") / "policies")
    return {"model": str(tiny_clip), "policies": str(policies), "policy": "house", "redis_url": redis_server}


@pytest.fixture(scope="module")
def stable(flags: dict[str, Any]) -> Iterator[ModelStable]:
    """One horse for most tests of this module."""
    stable = _SharedStable(load_settings(flags))
    yield stable
    ModelStable.close(stable)


def work(connection: redis.Redis, stable: ModelStable, flags: dict[str, Any]) -> None:
    """Work the queues until they are empty."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    BatchWorker(["moderation"], connection=connection, stable=stable, settings=load_settings(flags)).work(burst=True)
    for number, handler in kept.items():
        signal.signal(number, handler)


def entries(connection: redis.Redis) -> list[LedgerEntry]:
    rows: Any = connection.xrange(LEDGER)
    found = [read_entry(fields) for _, fields in rows]
    assert all(found)
    return [entry for entry in found if entry is not None]


def verdicts(connection: redis.Redis) -> list[Verdict]:
    return list(read_verdicts(connection))


def noise(seed: int, width: int = 48, height: int = 32) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return support.encode(Image.fromarray(pixels))


def test_each_verdict_of_a_judged_image_has_an_entry_and_no_other_has(
    connection: redis.Redis, stable: ModelStable, flags: dict[str, Any]
) -> None:
    moderation = Moderation(connection)
    moderation.enqueue_many([
        {"content_id": "plain", "data": PNG}, {"content_id": "again", "data": PNG},
        {"content_id": "wide", "data": noise(1, 400, 40)}, {"content_id": "broken", "data": b"no image"},
        {"content_id": "unknown", "data": PNG, "policy": "nobody"},
        {"content_id": "other", "data": PNG, "policy": "house@3"},
    ])  # fmt: skip
    special(connection, "unkept", result_ttl=0)
    first = special(connection, "first")
    special(connection, "second", depends_on=Dependency([first]))
    special(connection, "called", on_success=Callback("builtins.print"))
    work(connection, stable, flags)
    moderation.enqueue(content_id="later", data=PNG)
    work(connection, stable, flags)
    said = {verdict.content_id: verdict for verdict in verdicts(connection)}
    assert len(said) == 11
    assert {name for name, verdict in said.items() if verdict.reason} == {"broken", "unknown"}
    found = {entry.content_id: entry for entry in entries(connection)}
    assert len(entries(connection)) == len(found)
    assert found.keys() == said.keys() - {"broken", "unknown"}
    for name, entry in found.items():
        verdict = said[name]
        assert verdict.image is not None
        assert (entry.verdict_id, entry.action, entry.policy_ref) == (
            verdict.verdict_id, verdict.action, f"{verdict.policy.id}@{verdict.policy.version}",
        )  # fmt: skip
        assert (entry.model, entry.image_sha256) == (verdict.model, verdict.image.sha256)
        assert (entry.views, entry.dim) == (verdict.image.views, 32)
    assert found["wide"].views > 1
    assert found["other"].policy_version == 3
    # An image that was seen before has the same entry as at first.
    assert found["plain"].embeddings == found["again"].embeddings == found["later"].embeddings


def special(connection: redis.Redis, content_id: str, **options: Any) -> Job:
    from house import INLINE, MODERATE

    queue = Queue("moderation", connection=connection, serializer="json")
    return queue.enqueue(MODERATE, image=INLINE, content_id=content_id, **options)


def test_judging_an_entry_again_says_what_the_worker_said(
    connection: redis.Redis, stable: ModelStable, flags: dict[str, Any]
) -> None:
    moderation = Moderation(connection)
    moderation.enqueue_many([
        {"content_id": f"{seed}", "data": noise(seed % 50, 40 + seed % 7 * 40), "policy": f"house@{seed % 3 + 1}"}
        for seed in range(100)
    ])  # fmt: skip
    work(connection, stable, flags | {"memo_ttl_seconds": 0})
    said = {verdict.verdict_id: verdict for verdict in verdicts(connection)}
    judge = sluice.build(load_settings(flags), None)
    seen = 0
    for batch in LedgerReader(connection, None).batches():
        rows = np.split(rounded(batch.embeddings), batch.starts[1:-1])
        for place, ref in enumerate(batch.policy_refs):
            compiled = judge.compiled(judge.policies.deciding(ref, ""))
            at = np.flatnonzero(batch.policies == place)
            for entry, decision in zip(at, decide_all(compiled, [rows[i] for i in at]), strict=True):
                verdict = said[batch.verdict_ids[entry].decode()]
                assert decision.action == verdict.action == ACTIONS[batch.actions[entry]]
                for name, category in decision.categories.items():
                    assert category.score == pytest.approx(verdict.categories[name].score, abs=1e-5)
                    assert category.view == verdict.categories[name].view
                seen += 1
    judge.decoder.close()
    judge.sources.close()
    assert seen == 100


def test_a_ledger_that_is_off_has_no_key(connection: redis.Redis, flags: dict[str, Any]) -> None:
    off = flags | {"ledger_maxlen": 0, "ledger_ttl_seconds": 60}
    stable = ModelStable(load_settings(off))
    Moderation(connection).enqueue(content_id="a", data=PNG)
    special(connection, "unkept", result_ttl=0)
    work(connection, stable, off)
    assert len(verdicts(connection)) == 2
    assert not connection.exists(LEDGER)


def test_the_stream_is_bounded_about(connection: redis.Redis, stable: ModelStable, flags: dict[str, Any]) -> None:
    Moderation(connection).enqueue_many([{"content_id": str(number), "data": PNG} for number in range(400)])
    work(connection, stable, flags | {"ledger_maxlen": 20})
    kept = [entry.content_id for entry in entries(connection)]
    # Redis drops whole nodes of the stream, a hundred entries at most.
    assert 20 <= len(kept) < 20 + 100
    assert kept == [str(number) for number in range(400)][-len(kept) :]


def test_entries_that_are_older_than_their_time_go_with_the_workers_maintenance(
    connection: redis.Redis, stable: ModelStable, flags: dict[str, Any]
) -> None:
    moderation = Moderation(connection)
    moderation.enqueue(content_id="old", data=PNG)
    work(connection, stable, flags)
    time.sleep(1.1)
    work(connection, stable, flags | {"ledger_ttl_seconds": 3600})
    assert [entry.content_id for entry in entries(connection)] == ["old"]
    moderation.enqueue(content_id="new", data=PNG)
    work(connection, stable, flags | {"ledger_ttl_seconds": 1})
    assert [entry.content_id for entry in entries(connection)] == ["new"]


def test_an_entry_is_pushed_in_the_transaction_of_its_verdict_or_not_at_all(connection: redis.Redis) -> None:
    from ledgers import make_verdict, unit_rows

    from worker.ledger.batch import halves
    from worker.sinks.fence import Fence
    from worker.sinks.stream import STREAM, VerdictStream

    stream, ledger = VerdictStream(10), LedgerStream(10)
    for held, pushed in ((False, 0), (True, 1), (False, 1)):
        if held:
            connection.hset("held", "job", "1")
        with connection.pipeline() as together:
            stream.push(together, make_verdict("a"), Fence("held", "job"))
            ledger.push(together, make_verdict("a"), halves(unit_rows("a")), Fence("held", "job"))
            together.hdel("held", "job")
            together.execute()
        assert connection.xlen(STREAM) == connection.xlen(LEDGER) == pushed
