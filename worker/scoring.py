"""Embeddings × compiled policy → scores in [0, 1] per category; pure numpy.

In: `(n, dim)` unit image embeddings and a `CompiledPolicy`. Out: `Scores`, and the pooled logits that they are made of.
Never a threshold, never an action.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from worker.policy.compiled import CompiledCategory, CompiledPolicy, Floats, Matrix, Scores


@dataclass(frozen=True, slots=True)
class Pooled:
    """What a category's numbers weigh against each other: `(views, categories)` each, in logits."""

    #: `logsumexp` of the category's prompts.
    prompts: Floats
    #: `logsumexp` of the policy's contrast and the category's look-alikes.
    contrast: Floats


def score(embeddings: Matrix, compiled: CompiledPolicy) -> Scores:
    """Score images under one policy.

    For a category with prompt logits p and contrast logits q (the policy's contrast and the category's look-alikes):
    `margin = logsumexp(p) - w * logsumexp(q)` and `score = sigmoid((margin - bias) / temperature)`. Uncalibrated
    (w = 1, bias 0, temperature 1) the score is the softmax mass that falls on the category's prompts.

    Args:
        embeddings: `(views, dim)` float32, unit rows.
        compiled: The policy under the encoder that made the embeddings.

    Returns:
        Scores of every view and category.
    """
    logits = _logits(embeddings, compiled)
    pooled = _pool(logits, compiled)
    weight, bias, temperature = np.array(
        [
            (made.contrast_weight, made.bias, made.temperature)
            for made in (category.calibration for category in compiled.categories)
        ]
    ).T
    margins = pooled.prompts - weight * pooled.contrast
    best = [_best_sentences(logits, compiled.contrast, category) for category in compiled.categories]
    prompts, contrasts = (np.stack(column, axis=1) for column in zip(*best, strict=True))
    return Scores(score=sigmoid((margins - bias) / temperature), margin=margins, prompt=prompts, contrast=contrasts)


def pool(embeddings: Matrix, compiled: CompiledPolicy) -> Pooled:
    """Pool the logits of images under one policy, before any number of its calibration comes in.

    Args:
        embeddings: `(views, dim)` float32, unit rows.
        compiled: The policy under the encoder that made the embeddings.

    Returns:
        What `score` makes margins of: `prompts - w * contrast`.
    """
    return _pool(_logits(embeddings, compiled), compiled)


def sigmoid(x: Floats) -> Floats:
    """Return 1 / (1 + e^-x) without overflow, by way of tanh."""
    value: Floats = 0.5 * (1.0 + np.tanh(0.5 * x))
    return value


def _logits(embeddings: Matrix, compiled: CompiledPolicy) -> Floats:
    return (compiled.logit_scale * (embeddings @ compiled.sentences.T)).astype(np.float64)


def _pool(logits: Floats, compiled: CompiledPolicy) -> Pooled:
    contrast = _logsumexp(logits[:, compiled.contrast])
    prompts, contrasts = [], []
    for category in compiled.categories:
        look_alikes = logits[:, category.look_alikes]
        prompts.append(_logsumexp(logits[:, category.prompts]))
        contrasts.append(np.logaddexp(contrast, _logsumexp(look_alikes)) if look_alikes.shape[1] else contrast)
    return Pooled(np.stack(prompts, axis=1), np.stack(contrasts, axis=1))


def _best_sentences(logits: Floats, contrast: slice, category: CompiledCategory) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of the highest logits: among the prompts, and among all that counts against."""
    prompts, against, look_alikes = logits[:, category.prompts], logits[:, contrast], logits[:, category.look_alikes]
    best = against.argmax(axis=1)
    if look_alikes.shape[1]:
        is_look_alike = look_alikes.max(axis=1) > against.max(axis=1)
        best = np.where(is_look_alike, category.look_alikes.start + look_alikes.argmax(axis=1), best)
    return category.prompts.start + prompts.argmax(axis=1), best


def _logsumexp(logits: Floats) -> Floats:
    highest = logits.max(axis=1)
    pooled: Floats = highest + np.log(np.exp(logits - highest[:, None]).sum(axis=1))
    return pooled
