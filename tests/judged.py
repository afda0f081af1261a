"""A policy whose sentences are axes, so that an image is whatever logits a test wants, and verdicts of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from worker.policy.compiled import CompiledPolicy, Matrix, compile_policy
from worker.policy.schema import Policy
from worker.records import ImageFacts, ModelStamp, Verdict, ViewBox
from worker.scoring import score
from worker.verdict import decide, stamp

MODEL = ModelStamp(id="m", revision="r", precision="fp32")
SCALE = 20.0
SENTENCES = (
    "a plate of food", "people at work", "a big revolver", "a long rifle", "a sharp bread knife", "a lot of pills",
    "a used syringe",
)  # fmt: skip
FOOD, WORK, REVOLVER, RIFLE, BREAD_KNIFE, PILLS, SYRINGE = SENTENCES


def policy(version: int = 1, **other: Any) -> Policy:
    """Return the policy `armoury`, or another version of it."""
    given = {
        "policy": "armoury",
        "version": version,
        "contrast": [FOOD, WORK],
        "categories": {
            "weapons": {
                "description": "Arms that are\n  carried openly.", "prompts": [REVOLVER, RIFLE],
                "look_alikes": [BREAD_KNIFE], "thresholds": {"review": 0.31, "block": 0.87},
            },
            "drugs": {"description": "Medicine in odd places.", "prompts": [PILLS, SYRINGE],
                      "thresholds": {"review": 0.63}},
        },
    }  # fmt: skip
    return Policy.model_validate(given | other)


def compiled(of: Policy | None = None) -> CompiledPolicy:
    """Compile a version under the model of axes."""

    def embed(texts: Any) -> Matrix:
        return np.eye(len(SENTENCES) + 1, dtype=np.float32)[[SENTENCES.index(text) for text in texts]]

    return compile_policy(of or policy(), embed, SCALE, f"{MODEL.id}@{MODEL.revision}")


def image(*views: dict[str, float]) -> Matrix:
    """Return embeddings with these logits, by sentence; all others are 0."""
    rows = []
    for logits in views:
        parts = np.array([logits.get(sentence, 0.0) / SCALE for sentence in SENTENCES])
        rows.append([*parts, np.sqrt(1 - (parts**2).sum())])
    return np.array(rows, np.float32)


def verdict(embeddings: Matrix, of: CompiledPolicy | None = None, **other: Any) -> Verdict:
    """Judge embeddings as the worker does."""
    judge = of or compiled()
    decision = decide(judge, score(embeddings, judge))
    views = len(embeddings)
    facts = ImageFacts(
        sha256="0" * 64, format="PNG", width=200, height=100 * views, frames=1, views=views, bytes=9,
        view_boxes=[ViewBox(box=(0, 100 * place, 200, 100 * place + 100)) for place in range(views)],
    )  # fmt: skip
    given = {
        "verdict_id": "ab" * 16, "job_id": "job-x", "content_id": "upload-x", "action": decision.action,
        "reason": None, "policy": stamp(judge), "model": MODEL, "calibrated": judge.calibrated,
        "categories": decision.categories, "image": facts, "worker": "w", "created_at": "2027-08-09T10:11:12.131Z",
    }  # fmt: skip
    return Verdict.model_validate(given | other)


def unjudged(reason: str, **other: Any) -> Verdict:
    """Return the verdict of an image that could not be looked at."""
    return verdict(image({}), action="review", reason=reason, categories={}, image=None, **other)
