"""Embeddings × compiled policy → scores in [0, 1] per category; pure numpy.

In: `(n, dim)` unit image embeddings and a `CompiledPolicy`. Out: `Scores`, of each image the same to the last bit
whatever is scored beside it; scores of thousands of images a little faster than that; and the pooled logits that
scores are made of. Never a threshold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from worker.policy.compiled import (
    GRID,
    CompiledPolicy,
    Floats,
    Indices,
    Matrix,
    Scores,
    to_grid,
)

#: float32 or float64, `(sentences, views)`: whatever is added up lies in rows, side by side.
Logits = npt.NDArray[np.floating[Any]]

#: Views that are scored at once: what is made of so many stays in a core's cache.
BLOCK_ROWS = 1024
#: Half the distance from 1 to the next float32, and how often the square root of the numbers of a product that adds up.
_UNIT_ROUNDOFF = 2.0**-24
_ROUNDINGS = 4.0


@dataclass(frozen=True, slots=True)
class Pooled:
    """What a category's numbers weigh against each other: `(views, categories)` each, in logits."""

    #: `logsumexp` of the category's prompts, and of exemplars that match.
    prompts: Floats
    #: `logsumexp` of the policy's contrast and the category's look-alikes.
    contrast: Floats


def score(embeddings: Matrix, compiled: CompiledPolicy) -> Scores:
    """Score images under one policy.

    For a category with prompt logits p and contrast logits q (the policy's contrast and the category's look-alikes):
    `margin = logsumexp(p) - w * logsumexp(q)` and `score = sigmoid((margin - bias) / temperature)`. Uncalibrated
    (w = 1, bias 0, temperature 1) the score is the softmax mass that falls on the category's prompts. Exemplars that
    match join the prompts, and those that are unlike join the weighed contrast.

    A view's scores do not depend, to the last bit, on what else is scored in the same call: its products with the
    sentences add up without rounding.

    Args:
        embeddings: `(views, dim)` float32, unit rows.
        compiled: The policy under the encoder that made the embeddings.

    Returns:
        Scores of every view and category.
    """
    blocks = [
        _score_block(embeddings[start : start + BLOCK_ROWS], compiled)
        for start in range(0, max(len(embeddings), 1), BLOCK_ROWS)
    ]
    margins, scores, prompts, contrasts = (
        np.concatenate(parts, axis=1).T if len(blocks) > 1 else parts[0].T for parts in zip(*blocks, strict=True)
    )
    return Scores(score=scores, margin=margins, prompt=prompts, contrast=contrasts)


def pool(embeddings: Matrix, compiled: CompiledPolicy) -> Pooled:
    """Pool the logits of images under one policy, before any number of its calibration comes in.

    Args:
        embeddings: `(views, dim)` float32, unit rows.
        compiled: The policy under the encoder that made the embeddings.

    Returns:
        What `score` makes margins of: `prompts - w * contrast`, where the category has no exemplars that are unlike.
    """
    blocks = [
        _pools(_logits(embeddings[start : start + BLOCK_ROWS], compiled), compiled)
        for start in range(0, max(len(embeddings), 1), BLOCK_ROWS)
    ]
    prompts, contrast = (np.concatenate(parts, axis=1).T[: len(embeddings)] for parts in zip(*blocks, strict=True))
    return Pooled(prompts, contrast)


def sigmoid(x: Floats) -> Floats:
    """Return 1 / (1 + e^-x) without overflow."""
    return _sigmoid(x.copy()).astype(np.float64, copy=False)


def score_roughly(similarities: Matrix, compiled: CompiledPolicy) -> Floats:
    """Score images under one policy in single precision, in a fraction of the time that `score` takes.

    Args:
        similarities: `(sentences, views)` float32: `compiled.sentences @ embeddings.T`; of a few thousand views at once
            it is the fastest.
        compiled: The policy under the encoder that made the embeddings.

    Returns:
        `(views, categories)`, each within `roughness` of what `score` finds.
    """
    logits = similarities * np.float32(compiled.logit_scale)
    if compiled.offsets is not None:
        logits -= compiled.offsets[:, None].astype(np.float32)
    return _weigh(logits, compiled)[1].T.astype(np.float64)


def roughness(compiled: CompiledPolicy) -> Floats:
    """Say how far `score_roughly` may be from `score`.

    Returns:
        `(categories,)`, of each a bound on the difference.

    Source:
        Higham & Mary 2019, "A New Approach to Probabilistic Rounding Error Analysis": errors of a product of n numbers
        grow with the square root of n. The sigmoid is nowhere steeper than 1 / 4.
    """
    logits = _ROUNDINGS * _UNIT_ROUNDOFF * np.sqrt(compiled.sentences.shape[1]) * compiled.logit_scale
    slopes = [
        (1.0 + category.calibration.contrast_weight) / (4.0 * category.calibration.temperature)
        for category in compiled.categories
    ]
    bounds: Floats = logits * np.array(slopes) + _ROUNDINGS * _UNIT_ROUNDOFF
    return bounds


def _score_block(embeddings: Matrix, compiled: CompiledPolicy) -> tuple[np.ndarray, ...]:
    """Return margins, scores, and the places of the winning prompts and contrasts: `(categories, views)` each."""
    views = len(embeddings)
    logits = _logits(embeddings, compiled)
    margins, scores = _weigh(logits, compiled)
    return tuple(found[:, :views] for found in (margins, scores, *_winners(logits, compiled)))


def _logits(embeddings: Matrix, compiled: CompiledPolicy) -> Logits:
    """Return `(sentences, views)`; of one view twice the same."""
    logits = compiled.on_grid @ to_grid(embeddings).T
    logits *= compiled.logit_scale / GRID**2
    if compiled.offsets is not None:
        logits -= compiled.offsets[:, None]
    # numpy adds up the only column of an array in another order than columns that have neighbours.
    return logits.repeat(2, axis=1) if len(embeddings) == 1 else logits


def _pools(logits: Logits, compiled: CompiledPolicy) -> tuple[Logits, Logits]:
    """Return what speaks for each category, and what against it: `(categories, views)`, in the logits' precision."""
    contrast = _logsumexp(logits[compiled.contrast])
    prompts = np.empty((len(compiled.categories), logits.shape[1]), logits.dtype)
    against = np.empty_like(prompts)
    for place, category in enumerate(compiled.categories):
        look_alikes = logits[category.look_alikes]
        against[place] = np.logaddexp(contrast, _logsumexp(look_alikes)) if len(look_alikes) else contrast
        prompts[place] = _logsumexp(logits[category.prompts])
        if len(match := logits[category.match]):
            prompts[place] = np.logaddexp(prompts[place], _logsumexp(match))
    return prompts, against


def _weigh(logits: Logits, compiled: CompiledPolicy) -> tuple[Logits, Logits]:
    """Return margins and scores, `(categories, views)`, in the logits' own precision."""
    margins, against = _pools(logits, compiled)
    scores = np.empty_like(margins)
    for place, category in enumerate(compiled.categories):
        calibration = category.calibration
        against[place] *= calibration.contrast_weight
        if len(unlike := logits[category.unlike]):
            against[place] = np.logaddexp(against[place], _logsumexp(unlike))
        margins[place] -= against[place]
        scores[place] = (margins[place] - calibration.bias) / calibration.temperature
    return margins, _sigmoid(scores)


def _winners(logits: Logits, compiled: CompiledPolicy) -> tuple[Indices, Indices]:
    """Return the places of the sentences with the highest logits, for and against: `(categories, views)` each."""
    prompts = np.empty((len(compiled.categories), logits.shape[1]), np.intp)
    contrasts = np.empty_like(prompts)
    pool = logits[compiled.contrast]
    best, best_logits = pool.argmax(axis=0), np.maximum.reduce(pool)
    for place, category in enumerate(compiled.categories):
        prompts[place] = category.prompts.start + logits[category.prompts].argmax(axis=0)
        contrasts[place] = best
        look_alikes = logits[category.look_alikes]
        if len(look_alikes):
            wins = np.maximum.reduce(look_alikes) > best_logits
            np.copyto(contrasts[place], category.look_alikes.start + look_alikes.argmax(axis=0), where=wins)
        for pool_of, winners, weight in (
            (category.match, prompts[place], 1.0),
            (category.unlike, contrasts[place], category.calibration.contrast_weight),
        ):
            if len(exemplars := logits[pool_of]):
                highest = weight * np.take_along_axis(logits, winners[None], axis=0)[0]
                wins = np.maximum.reduce(exemplars) > highest
                np.copyto(winners, pool_of.start + exemplars.argmax(axis=0), where=wins)
    return prompts, contrasts


def _logsumexp(logits: Logits) -> Logits:
    highest = np.maximum.reduce(logits)
    shares = logits - highest
    np.exp(shares, out=shares)
    pooled: Logits = np.log(np.add.reduce(shares))
    pooled += highest
    return pooled


def _sigmoid(x: Logits) -> Logits:
    """Return 1 / (1 + e^-x) without overflow, by way of tanh; overwrites x."""
    x *= 0.5
    np.tanh(x, out=x)
    x += 1.0
    x *= 0.5
    return x
