"""A policy made ready for one encoder: every sentence a row of a matrix, every category a slice of it.

In: `Policy` and the encoder's text tower. Out: `CompiledPolicy`, and the `Scores` that `scoring` fills in for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from worker.policy.schema import Calibration, Policy

Matrix = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
#: Sentences to unit embeddings, `(n, dim)`.
EmbedTexts = Callable[[Sequence[str]], Matrix]

#: Numbers of unit rows are rounded to whole multiples of 1 / GRID. Products of two are then whole multiples of
#: 1 / GRID ** 2, and their sum over unit rows has at most 53 bits in these, as many as a float64 holds.
GRID = 2.0**26


@dataclass(frozen=True, slots=True)
class CompiledCategory:
    """Where a category's sentences stand in the policy's matrix, and how its margin becomes a score."""

    name: str
    prompts: slice
    look_alikes: slice
    calibration: Calibration


@dataclass(frozen=True, slots=True)
class CompiledPolicy:
    """A policy under one encoder."""

    policy: Policy
    #: `(sentences, dim)`, unit rows: the contrast pool, then each category's prompts and look-alikes.
    sentences: Matrix
    #: The sentence of each row.
    texts: tuple[str, ...]
    #: Rows of the policy's contrast pool.
    contrast: slice
    categories: tuple[CompiledCategory, ...]
    #: `exp` of the checkpoint's logit scale: logits per unit of similarity.
    logit_scale: float
    #: Whether every category has a calibration for this encoder.
    calibrated: bool
    #: The sentences times `GRID`, whole numbers.
    on_grid: Floats = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "on_grid", to_grid(self.sentences))


@dataclass(frozen=True, slots=True)
class Scores:
    """What scoring found: `(views, categories)` each, columns in the order of the policy's categories."""

    #: Calibrated, in [0, 1].
    score: Floats
    #: Logits.
    margin: Floats
    #: Row of the sentence with the highest logit among the category's prompts.
    prompt: Indices
    #: Row of the sentence with the highest logit among contrast and look-alikes.
    contrast: Indices

    def rows(self, views: slice) -> Scores:
        """Return the scores of some views."""
        return Scores(self.score[views], self.margin[views], self.prompt[views], self.contrast[views])


def compile_policy(policy: Policy, embed_texts: EmbedTexts, logit_scale: float, model: str) -> CompiledPolicy:
    """Embed a policy's sentences.

    Args:
        policy: What to compile.
        embed_texts: The text tower: n sentences to `(n, dim)` float32, unit rows.
        logit_scale: Logits per unit of similarity.
        model: `id@revision`, under which the policy's calibration is looked up.

    Returns:
        The compiled policy. Templates are averaged in embedding space and renormalised.

    Source:
        Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision", section 3.1.4.
    """
    texts: list[str] = [*policy.contrast]
    categories = []
    calibrations = policy.calibration_for(model)
    for name, category in policy.categories.items():
        start = len(texts)
        texts += category.prompts
        middle = len(texts)
        texts += category.look_alikes or ()
        calibration = calibrations.get(name, Calibration())
        categories.append(CompiledCategory(name, slice(start, middle), slice(middle, len(texts)), calibration))
    return CompiledPolicy(
        policy=policy,
        sentences=embed_averaged(texts, policy.templates, embed_texts),
        texts=tuple(texts),
        contrast=slice(0, len(policy.contrast)),
        categories=tuple(categories),
        logit_scale=logit_scale,
        calibrated=policy.is_calibrated_for(model),
    )


def embed_averaged(texts: Sequence[str], templates: Sequence[str], embed_texts: EmbedTexts) -> Matrix:
    """Embed sentences in every template, average, and renormalise: `(texts, dim)` float32, unit rows."""
    filled = [template.replace("{}", text) for text in texts for template in templates]
    embeddings = embed_texts(filled).reshape(len(texts), len(templates), -1)
    mean = embeddings.mean(axis=1)
    unit: Matrix = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    return unit


def to_grid(rows: Matrix) -> Floats:
    """Return unit rows times `GRID`, in whole numbers: their products add up without rounding, in whatever order."""
    whole: Floats = rows.astype(np.float64)
    whole *= GRID
    return np.rint(whole, out=whole)
