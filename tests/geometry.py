"""A policy on axes: what an embedding scores can be worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from worker.policy.compiled import CompiledPolicy, Matrix, compile_policy
from worker.policy.lint import lint_policy

POLICY = """\
policy: house
version: 1
contrast: [food]
categories:
  weapons: {prompts: [gun], thresholds: {review: 0.5, block: 0.9}}
  drugs: {prompts: [pills], thresholds: {review: 0.5}}
"""
SCALE = 10.0
AXES = np.eye(4, dtype=np.float32)
FOOD, GUN, PILLS, NOTHING = AXES


def compiled(text: str = POLICY) -> CompiledPolicy:
    policy, findings = lint_policy(text, "v")
    assert policy is not None, findings
    order = {"food": FOOD, "gun": GUN, "pills": PILLS}
    return compile_policy(policy, lambda texts: np.stack([order[text] for text in texts]), SCALE, "m@r")


def image(*, weapons: float = -1.0, drugs: float = -1.0) -> Matrix:
    """Return one view whose margins, in logits, are these: margin = SCALE * (gun - food)."""
    row = np.array([0.0, weapons / SCALE, drugs / SCALE, 0.0])
    row[3] = np.sqrt(1 - (row**2).sum())
    return row[None].astype(np.float32)


#: Margins in logits: allowed, reviewed and blocked by weapons.
ALLOW, REVIEW, BLOCK = -1.0, 1.0, 4.0


def texts(shifts: dict[str, float]) -> object:
    """Return a tower that moves weapons by what the words in a sentence say; all sentences weigh 0 else."""

    class Tower:
        def embed_texts(self, sentences: Sequence[str]) -> Matrix:
            weapons = [sum(by for word, by in shifts.items() if word in text.split()) for text in sentences]
            return np.concatenate([image(weapons=by, drugs=0.0) for by in weapons])

    return Tower()
