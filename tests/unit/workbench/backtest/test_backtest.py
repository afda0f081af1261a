"""A back-test says of each entry what `decide` says, counts it once, and names why it changes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import judged
import numpy as np
import pytest
from judged import BREAD_KNIFE, FOOD, PILLS, REVOLVER, RIFLE, SENTENCES, SYRINGE, WORK

from worker.encoder.memo import rounded
from worker.ledger.batch import LedgerBatch, batches_of, halves
from worker.ledger.entry import LedgerEntry
from worker.policy.compiled import CompiledPolicy, Matrix
from worker.records import Action
from worker.scoring import score
from worker.verdict import Decision, decide
from worker.workbench.backtest import summary
from worker.workbench.backtest.page import report_page
from worker.workbench.backtest.run import Found, Scope, backtest

NEW_YEAR = datetime(2026, 1, 1, 12, tzinfo=UTC)
DIM = len(SENTENCES) + 1
SCOPE = Scope("m@r", DIM)
WEAPONS: dict[str, Any] = {
    "description": "Arms.", "prompts": [REVOLVER, RIFLE], "look_alikes": [BREAD_KNIFE],
    "thresholds": {"review": 0.31, "block": 0.87},
}  # fmt: skip
DRUGS: dict[str, Any] = {"description": "Medicine.", "prompts": [PILLS, SYRINGE], "thresholds": {"review": 0.63}}
OLD = judged.compiled()


def entry(name: str, embeddings: Matrix, when: datetime = NEW_YEAR, **other: Any) -> LedgerEntry:
    digest = hashlib.sha256(name.encode()).hexdigest()
    given = {
        "verdict_id": digest[:32], "content_id": name, "action": "allow", "policy": "armoury", "policy_version": 1,
        "model": judged.MODEL, "image_sha256": digest, "created_at": when, "views": len(embeddings),
        "dim": embeddings.shape[1], "embeddings": halves(embeddings),
    }  # fmt: skip
    return LedgerEntry(**given | other)


def version(number: int = 2, **categories: dict[str, Any]) -> CompiledPolicy:
    """Compile another version: all categories that are named."""
    return judged.compiled(judged.policy(number, categories=categories))


def run(
    entries: Sequence[LedgerEntry], after: CompiledPolicy, scope: Scope = SCOPE, examples: int = 10, at_once: int = 500
) -> Found:
    batches: list[LedgerBatch] = []
    for start in range(0, len(entries), at_once):
        batches += batches_of(entries[start : start + at_once])
    return backtest(batches, OLD, after, scope, examples=examples, threads=2)


def says(compiled: CompiledPolicy, embeddings: Matrix) -> Decision:
    """What the worker would say."""
    unit = rounded(embeddings)
    return decide(compiled, score(unit, compiled))


def one(after: CompiledPolicy, logits: Mapping[str, float]) -> dict[str, Any]:
    """Back-test one upload; the row of its change."""
    found = run([entry("it", judged.image(dict(logits)))], after)
    (flip,) = (row for row in summary.rows(found) if row["row"] == "flip")
    (because,) = (row for row in summary.rows(found) if row["row"] == "because")
    assert {key: because[key] for key in ("direction", "category", "cause")} == {
        key: flip[key] for key in ("direction", "category", "cause")
    }
    return flip


def test_a_thousand_entries_are_counted_as_the_worker_would_judge_each() -> None:
    random = np.random.default_rng(0)
    images = []
    for _ in range(1000):
        rows = random.normal(size=(random.integers(1, 4), DIM)).astype(np.float32)
        images.append(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    after = version(weapons=WEAPONS | {"thresholds": {"review": 0.5, "block": 0.8}, "prompts": [RIFLE]}, drugs=DRUGS)
    found = run([entry(f"u{number}", rows) for number, rows in enumerate(images)], after, examples=1000, at_once=300)

    decisions = [(says(OLD, rows), says(after, rows)) for rows in images]
    for side, counts in enumerate((found.tally.moves.sum(axis=1), found.tally.moves.sum(axis=0))):
        actions = [pair[side].action for pair in decisions]
        assert summary.actions(counts) == {action: actions.count(action) for action in ("allow", "review", "block")}
    for row in summary.categories(found):
        for side, counts in enumerate((row.before, row.after)):
            actions = [pair[side].categories[row.name].action for pair in decisions]
            assert summary.actions(counts) == {action: actions.count(action) for action in ("allow", "review", "block")}
    changed = {f"u{number}" for number, (old, new) in enumerate(decisions) if old.action != new.action}
    assert len(changed) > 100
    assert {flip.found.content_id for flip in found.flips} == changed
    for flip in found.flips:
        assert (flip.before, flip.after) == decisions[int(flip.found.content_id[1:])]


def test_a_score_exactly_at_a_threshold_is_judged_as_the_worker_judges_it() -> None:
    # Thresholds that are some entries' own scores: where single precision would go wrong.
    random = np.random.default_rng(1)
    rows = random.normal(size=(400, DIM)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    scores = score(rounded(rows), OLD).score[:, 0]
    for place in range(20):
        at = {"review": float(scores[place]), "block": 1.0}
        after = version(weapons=WEAPONS | {"thresholds": at}, drugs=DRUGS)
        found = run([entry(f"u{number}", row[None]) for number, row in enumerate(rows)], after)
        (row,) = (row for row in summary.categories(found) if row.name == "weapons")
        assert row.after is not None
        assert int(row.after[1:].sum()) == int((scores >= scores[place]).sum())


@pytest.mark.parametrize(
    ("weapons", "logits", "direction", "cause", "actions"),
    [
        ({"thresholds": {"review": 0.31, "block": 0.6}}, {REVOLVER: 6, FOOD: 5}, "stricter", "threshold", "block"),
        ({"thresholds": {"review": 0.31, "block": 0.99}}, {REVOLVER: 9, FOOD: 5}, "milder", "threshold", "review"),
        ({"prompts": [REVOLVER]}, {RIFLE: 9, FOOD: 5}, "milder", "score", "allow"),
        ({"look_alikes": [WORK]}, {REVOLVER: 8, BREAD_KNIFE: 9}, "stricter", "score", "block"),
    ],
)
def test_what_changes_says_why(
    weapons: dict[str, Any], logits: dict[str, float], direction: str, cause: str, actions: Action
) -> None:
    flip = one(version(weapons=WEAPONS | weapons, drugs=DRUGS), logits)
    assert (flip["direction"], flip["category"], flip["cause"], flip["after"]) == (direction, "weapons", cause, actions)
    assert flip["reason"].startswith("weapons ")


def test_categories_that_come_and_go_are_causes() -> None:
    appeared = version(weapons=WEAPONS, drugs=DRUGS, meals=WEAPONS | {"prompts": [WORK]})
    flip = one(appeared, {WORK: 9})
    assert (flip["category"], flip["cause"], flip["category_before"]) == ("meals", "category appeared", None)
    flip = one(version(weapons=WEAPONS), {PILLS: 9, FOOD: 5})
    assert (flip["category"], flip["cause"], flip["category_after"]) == ("drugs", "category vanished", None)


def test_entries_of_other_models_sizes_and_policies_are_left_out_and_counted() -> None:
    gun = judged.image({REVOLVER: 9})
    other = judged.MODEL.model_copy(update={"id": "other"})
    entries = [
        entry("mine", gun), entry("strange", gun, model=other), entry("longer", np.eye(DIM + 3, dtype=np.float32)[:1]),
        entry("theirs", gun, policy="chat"), entry("older", gun, policy_version=7),
    ]  # fmt: skip
    found = run(entries, OLD, Scope("m@r", DIM, frozenset({"armoury"})))
    assert found.tally.entries == 2
    assert found.left_out.models == {"other@r": 1, "m@r": 1}
    assert found.left_out.policies == {"chat": 1}
    assert set(found.tally.recorded) == {"armoury@1", "armoury@7"}
    assert run(entries, OLD).tally.entries == 3


def test_days_review_load_and_what_was_recorded() -> None:
    clear, unclear = judged.image({FOOD: 9}), judged.image({REVOLVER: 5.5, FOOD: 5})
    days = [NEW_YEAR + timedelta(days=number) for number in range(4)]
    entries = [entry(f"r{number}", unclear, when, action="review") for number, when in enumerate(days)]
    entries += [entry("c", clear, days[0]), entry("wrong", clear, days[3], action="block")]
    found = run(entries, version(weapons=WEAPONS | {"thresholds": {"review": 0.9}}, drugs=DRUGS))
    load = summary.load(found)
    assert (load.days, load.before, load.after) == (4, 4, 0)
    assert summary.headline(found) == (
        "armoury@1 → armoury@2: 4 of 6 entries change (66.67%), 0 stricter, 4 milder; "
        "review load: 1.0 → 0.0 a day over 4 days (-100.0%)"
    )
    rows = [row for row in summary.rows(found) if row["row"] == "day"]
    assert [row["day"] for row in rows] == [f"2026-01-0{number}" for number in (1, 2, 3, 4)]
    assert rows[0]["before"] == {"allow": 1, "review": 1, "block": 0}
    # One entry was recorded as blocked, and the version that is compared with allows it.
    assert summary.drift(found) == 1
    assert any("recorded with another action" in note for note in summary.notes(found))


def test_the_strongest_examples_of_each_category_and_each_image_once() -> None:
    milder = version(weapons=WEAPONS | {"prompts": [REVOLVER]}, drugs=DRUGS | {"prompts": [PILLS]})
    entries = [entry(f"rifle-{logit}", judged.image({RIFLE: logit})) for logit in range(4, 10)]
    entries += [entry(f"syringe-{logit}", judged.image({SYRINGE: logit})) for logit in range(4, 10)]
    again = entry("again", judged.image({RIFLE: 9}), image_sha256=entries[5].image_sha256)
    found = run([*entries, again], milder, examples=4, at_once=3)
    names = [flip.found.content_id for flip in found.flips]
    assert set(names) <= {"rifle-9", "again", "rifle-8", "syringe-9", "syringe-8"}
    assert len(names) == 4
    assert {flip.found.because.category for flip in found.flips[:2]} == {"weapons", "drugs"}
    assert run(entries, milder, examples=0).flips == []


def test_the_same_version_twice_changes_nothing_and_says_so() -> None:
    found = run([entry("it", judged.image({REVOLVER: 9}))], OLD)
    assert (found.flips, len(found.tally.because)) == ([], 0)
    assert any("both versions say the same" in note for note in summary.notes(found))


@pytest.mark.parametrize("days", [1, 3, 40])
def test_the_page_of_any_number_of_days_is_drawn_without_complaint(days: int, caplog: pytest.LogCaptureFixture) -> None:
    entries = [entry(f"u{day}", judged.image({REVOLVER: 9}), NEW_YEAR + timedelta(days=day)) for day in range(days)]
    after = version(weapons=WEAPONS | {"thresholds": {"review": 0.99}}, drugs=DRUGS)
    page = report_page(run(entries, after), "m@r, fp32", "the stream", {}, looked_for_pictures=False)
    assert "2026-01-01" in page
    assert f"{days:,} milder" in page or f">{days:,}<" in page
    assert caplog.records == []
