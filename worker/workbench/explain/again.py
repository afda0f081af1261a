"""A verdict judged again: which sentences counted, and what would have been said without one, or by another version.

In: an `Explanation`, the policy compiled, embeddings of all views. Out: the explanation, completed. Never by a way of
its own: all numbers come from `scoring` and `verdict`; a judgement that differs from the verdict explains nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from worker.policy.compiled import CompiledCategory, CompiledPolicy, Floats, Matrix, Scores
from worker.records import CategoryVerdict, Verdict
from worker.scoring import score
from worker.verdict import Decision, decide, stamp
from worker.workbench.explain.explanation import (
    Basis,
    Explanation,
    Kind,
    Removal,
    Sentence,
    SentencesOf,
    VersionSaid,
    ViewSaid,
)
from worker.workbench.explain.told import strongest_first

#: Sentences of each kind that are listed, and taken away one by one.
TOP = 5
#: How far a margin may be from the verdict's, in logits: another machine adds up in another order.
TOLERANCE_LOGITS = 0.01


def judge_again(
    told: Explanation,
    verdict: Verdict,
    compiled: CompiledPolicy,
    embeddings: Matrix,
    others: Iterable[CompiledPolicy] = (),
    *,
    basis: Basis,
    top: int = TOP,
) -> Explanation:
    """Complete an explanation by what embeddings tell.

    Args:
        told: What the verdict tells alone.
        verdict: One without a reason.
        compiled: The version that judged, under the encoder that made the embeddings.
        embeddings: `(views, dim)`, as they were scored.
        others: Other versions, to say what they make of the same image.
        basis: Where the embeddings came from.
        top: Sentences of each kind that are listed.

    Returns:
        The explanation; with a note in place of all this where the judgement differs from the verdict.
    """
    scores = score(embeddings, compiled)
    difference = differs(verdict, decide(compiled, scores))
    if len(embeddings) != len(told.views) or any(found.view >= len(embeddings) for found in told.categories):
        difference = f"{len(embeddings)} of {len(told.views)} views"
    if difference is not None:
        note = f"judging again did not give this verdict ({difference}), so what follows is the verdict's own"
        return told.model_copy(update={"recomputed": "differs", "notes": [*told.notes, note]})
    logits = compiled.logit_scale * (embeddings @ compiled.sentences.T).astype(np.float64)
    order = [category.name for category in told.categories]
    sentences = [_sentences(compiled, logits, name, verdict.categories[name].view, top) for name in order]
    judged = {found.policy.version: found for found in (_version(other, embeddings, verdict) for other in others)}
    shadows = [said for said in told.versions if said.policy.version not in judged]
    return told.model_copy(
        update={
            "basis": basis,
            "recomputed": "equal",
            "sentences": sentences,
            "removals": list(_removals(compiled, embeddings, verdict, sentences)),
            "versions": sorted([*judged.values(), *shadows], key=lambda said: said.policy.version or 0),
            "views": list(_views(told, compiled, scores)),
        }
    )


def differs(verdict: Verdict, decision: Decision) -> str | None:
    """Say how a judgement differs from a verdict; None where it does not."""
    if decision.categories.keys() != verdict.categories.keys():
        return "other categories"
    by_margin = {
        name: abs(found.margin - verdict.categories[name].margin) for name, found in decision.categories.items()
    }
    name = max(by_margin, key=by_margin.__getitem__)
    if not by_margin[name] <= TOLERANCE_LOGITS:
        return f"the margin of {name} is {by_margin[name]:.2f} logits off"
    turned = [name for name, found in decision.categories.items() if found.action != verdict.categories[name].action]
    return f"{turned[0]} is {decision.categories[turned[0]].action}" if turned else None


def without(compiled: CompiledPolicy, row: int) -> CompiledPolicy | None:
    """Return a policy as if a sentence had never been in it.

    Args:
        compiled: The policy.
        row: The sentence.

    Returns:
        None for the only sentence of the contrast, without which there is no policy. A category goes with its only
        prompt.
    """
    contrast = _less(compiled.contrast, row)
    if contrast.start == contrast.stop:
        return None
    categories = [
        CompiledCategory(found.name, _less(found.prompts, row), _less(found.look_alikes, row), found.calibration)
        for found in compiled.categories
        if found.prompts != slice(row, row + 1)
    ]
    return replace(
        compiled,
        sentences=np.delete(compiled.sentences, row, axis=0),
        texts=compiled.texts[:row] + compiled.texts[row + 1 :],
        contrast=contrast,
        categories=tuple(categories),
    )


def _less(rows: slice, gone: int) -> slice:
    return slice(rows.start - (rows.start > gone), rows.stop - (rows.stop > gone))


def _sentences(compiled: CompiledPolicy, logits: Floats, name: str, view: int, top: int) -> SentencesOf:
    category = _find(compiled, name)
    prompts = _pool(compiled, logits[view], [("prompt", category.prompts)], top)
    against: list[tuple[Kind, slice]] = [("look_alike", category.look_alikes), ("contrast", compiled.contrast)]
    return SentencesOf(
        category=name, view=view, prompts=prompts, against=_pool(compiled, logits[view], against, top)
    )  # fmt: skip


def _pool(compiled: CompiledPolicy, logits: Floats, parts: list[tuple[Kind, slice]], top: int) -> list[Sentence]:
    """Return the strongest sentences of a pool, each with its part of the sum that `scoring` makes of the pool."""
    rows = [(kind, row) for kind, rows in parts for row in range(rows.start, rows.stop)]
    values = logits[[row for _, row in rows]]
    shares = np.exp(values - values.max())
    shares /= shares.sum()
    return [
        Sentence(
            kind=rows[place][0],
            text=compiled.texts[rows[place][1]],
            logit=float(values[place]),
            share=float(shares[place]),
        )
        for place in np.argsort(-values, kind="stable")[:top]
    ]


def _removals(
    compiled: CompiledPolicy, embeddings: Matrix, verdict: Verdict, listed: list[SentencesOf]
) -> Iterator[Removal]:
    """Take each listed sentence away: all of the deciding category's, and what else would turn the verdict."""
    seen: set[int] = set()
    for place, sentences in enumerate(listed):
        for sentence in [*sentences.prompts, *sentences.against]:
            row = _row(compiled, sentences.category, sentence)
            fewer = without(compiled, row)
            if row in seen or fewer is None:
                continue
            seen.add(row)
            removal = _removal(fewer, embeddings, verdict, sentence, sentences.category)
            if place == 0 or removal.flips:
                yield removal


def _removal(fewer: CompiledPolicy, embeddings: Matrix, verdict: Verdict, sentence: Sentence, category: str) -> Removal:
    decision = decide(fewer, score(embeddings, fewer)) if fewer.categories else Decision("allow", {})
    found: CategoryVerdict | None = decision.categories.get(category)
    return Removal(
        kind=sentence.kind,
        text=sentence.text,
        category=category,
        score=None if found is None else found.score,
        margin=None if found is None else found.margin,
        action=decision.action,
        flips=decision.action != verdict.action,
    )


def _row(compiled: CompiledPolicy, category: str, sentence: Sentence) -> int:
    found = _find(compiled, category)
    rows = {"prompt": found.prompts, "look_alike": found.look_alikes, "contrast": compiled.contrast}[sentence.kind]
    return int(rows.start) + compiled.texts[rows].index(sentence.text)


def _find(compiled: CompiledPolicy, name: str) -> CompiledCategory:
    return next(category for category in compiled.categories if category.name == name)


def _version(other: CompiledPolicy, embeddings: Matrix, verdict: Verdict) -> VersionSaid:
    decision = decide(other, score(embeddings, other))
    name = strongest_first(decision.categories)[0]
    return VersionSaid(
        policy=stamp(other),
        action=decision.action,
        category=name,
        score=decision.categories[name].score,
        same=decision.action == verdict.action,
        source="judged",
    )


def _views(told: Explanation, compiled: CompiledPolicy, scores: Scores) -> Iterator[ViewSaid]:
    column = [category.name for category in compiled.categories].index(str(told.category))
    for said, value, margin in zip(told.views, scores.score[:, column], scores.margin[:, column], strict=True):
        yield said.model_copy(update={"score": float(value), "margin": float(margin)})
