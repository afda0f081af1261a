"""What is minimised: captions and drawings that fit should be close.

In: unit embeddings and which fits which. Out: a scalar loss.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Weight of the classification against concept proxies.
PROXY_WEIGHT = 0.5
#: Weight of an icon of game-icons in a caption's target, against 1 for an emoji.
ICON_TARGET_WEIGHT = 0.15


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy against a distribution, over the rows that have a target.

    Args:
        logits: Shape (n, classes).
        targets: Weights of the classes, shape (n, classes); rows are normalised, empty rows are left out.
    """
    total = targets.sum(1, keepdim=True)
    losses = -(targets / total.clamp(min=1e-9) * logits.log_softmax(1)).sum(1)
    return losses.sum() / (total > 0).sum().clamp(min=1)


def contrastive_loss(images: Tensor, texts: Tensor, fits: Tensor, scale: Tensor) -> Tensor:
    """Multi-positive contrastive loss in both directions.

    Args:
        images: Unit vectors, shape (n, width).
        texts: Unit vectors, shape (m, width) with m >= n; the first n are the images' own captions.
        fits: bool, shape (m, n): which text is true of which image.
        scale: Factor from cosine to logit.
    """
    logits = scale * texts @ images.T
    targets = fits.float()
    own = torch.arange(len(images))
    targets[own, own] += 1
    return (soft_cross_entropy(logits, targets) + soft_cross_entropy(logits.T, targets.T)) / 2


def total_loss(
    images: Tensor,
    texts: Tensor,
    proxies: Tensor,
    scale: Tensor,
    concepts: Tensor,
    fits: Tensor,
    emoji_count: int,
) -> Tensor:
    """Contrastive loss plus classification of images and texts against concept proxies.

    Args:
        images: Unit vectors, shape (n, width).
        texts: Unit vectors, shape (m, width).
        proxies: Unit vectors of all concepts, emoji first, shape (all, width).
        scale: Factor from cosine to logit.
        concepts: int64, shape (n,): the images' concepts.
        fits: bool, shape (m, all): what each text is true of.
        emoji_count: How many of the concepts are emoji.

    Returns:
        A scalar.
    """
    contrastive = contrastive_loss(images, texts, fits[:, concepts], scale)
    candidates = torch.cat([torch.arange(emoji_count), concepts[concepts >= emoji_count]])
    table = proxies[candidates]
    image_targets = (concepts[:, None] == candidates[None]).float()
    weights = torch.where(candidates < emoji_count, 1.0, ICON_TARGET_WEIGHT)
    classified = soft_cross_entropy(scale * images @ table.T, image_targets)
    classified = classified + soft_cross_entropy(scale * texts @ table.T, fits[:, candidates] * weights)
    return contrastive + PROXY_WEIGHT * classified
