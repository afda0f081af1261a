"""How strongly an exemplar speaks for its own image: the logit that decides there, and falls off around it.

In: what the sentences say of the exemplars' images, and how far these lie apart. Out: one logit for each. Pure numpy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Standing:
    """What a category's sentences say of the images of its exemplars, `(n,)` each, in logits."""

    #: Prompts, pooled.
    prompts: Floats
    #: Contrast and look-alikes, pooled and weighed.
    contrast: Floats
    #: Whether the image belongs to the category; else it is one that does not.
    is_match: npt.NDArray[np.bool_]


def heights_of(standing: Standing, apart: Floats, bias: float, needed: float) -> Floats:
    """Return the logit of each exemplar at its own image.

    A match outdoes the weighed contrast there so far that the score is the strength or more; an image that is unlike
    outdoes the prompts so far that the score is one less the strength, or less. The same holds against exemplars of
    the other pool, as far as the model can tell the two images apart: of two that lie nearer than `needed`, both
    stand equally high, so that the nearer one wins, and half-way between them the score is about 0.5.

    Args:
        standing: What the sentences say, n images.
        apart: `(n, n)` logits by which an exemplar has fallen at each other's image: scale * (1 - cosine).
        bias: Margin at which the category's score is 0.5.
        needed: Logits above the bias at which its score is the strength: temperature * logit(strength).

    Returns:
        `(n,)` logits.
    """
    # Those that are unlike are raised by the bias, so that both pools decide at the same difference: `needed`.
    shift = np.where(standing.is_match, 0.0, bias)
    heights = np.where(standing.is_match, standing.contrast + bias, standing.prompts) + needed
    opposed = standing.is_match[:, None] != standing.is_match[None, :]
    # What another may stand higher: less than it has fallen here, by what is needed; nothing where they are too near.
    allowed = np.where(opposed, np.maximum(apart - needed, 0.0), np.inf)
    for _ in range(len(heights)):
        raised = np.maximum(heights, (heights[None, :] - allowed).max(axis=1))
        if np.array_equal(raised, heights):
            break
        heights = raised
    return heights - shift
