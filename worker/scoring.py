"""Embeddings × compiled policy → scores in [0, 1] per category; pure numpy.

In: `(n, dim)` unit image embeddings and a `CompiledPolicy`. Out: `Scores`. Never a threshold, never an action.
"""

from __future__ import annotations

import numpy as np

from worker.policy.compiled import CompiledCategory, CompiledPolicy, Floats, Indices, Matrix, Scores


def score(embeddings: Matrix, compiled: CompiledPolicy) -> Scores:
    """Score images under one policy.

    For a category with prompt logits p and contrast logits q (the policy's contrast and the category's look-alikes):
    `margin = logsumexp(p) - w * logsumexp(q)` and `score = sigmoid((margin - bias) / temperature)`. Uncalibrated
    (w = 1, bias 0, temperature 1) the score is the softmax mass that falls on the category's prompts. Exemplars that
    match join the prompts, and those that are unlike join the weighed contrast.

    Args:
        embeddings: `(views, dim)` float32, unit rows.
        compiled: The policy under the encoder that made the embeddings.

    Returns:
        Scores of every view and category.
    """
    logits = (compiled.logit_scale * (embeddings @ compiled.sentences.T)).astype(np.float64)
    if compiled.offsets is not None:
        logits -= compiled.offsets
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
    weighed = calibration.contrast_weight * pooled
    pooled_prompts, best_prompt = _logsumexp(prompts), category.prompts.start + prompts.argmax(axis=1)
    if category.match.stop > category.match.start:
        pooled_prompts, best_prompt = _join(pooled_prompts, best_prompt, prompts.max(axis=1), logits, category.match)
    if category.unlike.stop > category.unlike.start:
        highest = np.take_along_axis(logits, best_contrast[:, None], axis=1)[:, 0]
        heaviest = calibration.contrast_weight * highest
        weighed, best_contrast = _join(weighed, best_contrast, heaviest, logits, category.unlike)
    margin = pooled_prompts - weighed
    scores = _sigmoid((margin - calibration.bias) / calibration.temperature)
    return margin, scores, best_prompt, best_contrast


def _join(pooled: Floats, best: Indices, highest: Floats, logits: Floats, exemplars: slice) -> tuple[Floats, Indices]:
    """Pool exemplars with sentences; the strongest exemplar stands for the pool where it outdoes every sentence."""
    found = logits[:, exemplars]
    strongest = exemplars.start + found.argmax(axis=1)
    return np.logaddexp(pooled, _logsumexp(found)), np.where(found.max(axis=1) > highest, strongest, best)


def _logsumexp(logits: Floats) -> Floats:
    highest = logits.max(axis=1)
    pooled: Floats = highest + np.log(np.exp(logits - highest[:, None]).sum(axis=1))
    return pooled


def _sigmoid(x: Floats) -> Floats:
    """Return 1 / (1 + e^-x) without overflow, by way of tanh."""
    value: Floats = 0.5 * (1.0 + np.tanh(0.5 * x))
    return value
