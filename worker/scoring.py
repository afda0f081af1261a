"""Embeddings × compiled policy → scores in [0, 1] per category; pure numpy.

In: `(n, dim)` unit image embeddings and a `CompiledPolicy`. Out: `Scores`. Never a threshold, never an action.
"""

from __future__ import annotations

import numpy as np

from worker.policy.compiled import CompiledCategory, CompiledPolicy, Floats, Matrix, Scores


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
    logits = (compiled.logit_scale * (embeddings @ compiled.sentences.T)).astype(np.float64)
    contrast = logits[:, compiled.contrast]
    pooled_contrast = _logsumexp(contrast)
    columns = [_score_category(logits, contrast, pooled_contrast, category) for category in compiled.categories]
    margins, scores, prompts, contrasts = (np.stack(column, axis=1) for column in zip(*columns, strict=True))
    return Scores(score=scores, margin=margins, prompt=prompts, contrast=contrasts)


def _score_category(
    logits: Floats, contrast: Floats, pooled_contrast: Floats, category: CompiledCategory
) -> tuple[np.ndarray, ...]:
    prompts = logits[:, category.prompts]
    look_alikes = logits[:, category.look_alikes]
    pooled = pooled_contrast
    best_contrast = contrast.argmax(axis=1)
    if look_alikes.shape[1]:
        pooled = np.logaddexp(pooled_contrast, _logsumexp(look_alikes))
        is_look_alike = look_alikes.max(axis=1) > contrast.max(axis=1)
        best_contrast = np.where(is_look_alike, category.look_alikes.start + look_alikes.argmax(axis=1), best_contrast)
    calibration = category.calibration
    margin = _logsumexp(prompts) - calibration.contrast_weight * pooled
    scores = _sigmoid((margin - calibration.bias) / calibration.temperature)
    return margin, scores, category.prompts.start + prompts.argmax(axis=1), best_contrast


def _logsumexp(logits: Floats) -> Floats:
    highest = logits.max(axis=1)
    pooled: Floats = highest + np.log(np.exp(logits - highest[:, None]).sum(axis=1))
    return pooled


def _sigmoid(x: Floats) -> Floats:
    """Return 1 / (1 + e^-x) without overflow, by way of tanh."""
    value: Floats = 0.5 * (1.0 + np.tanh(0.5 * x))
    return value
