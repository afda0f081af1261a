"""Embed drawings and prompts with an exported checkpoint and pool prompts into margins.

In: an export directory. Out: unit embeddings and margins, by the formula of `worker/scoring.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.special import logsumexp
from transformers import CLIPModel, CLIPTokenizer

from tools.packaged_clip.augment import normalise, on_white

_CHUNK = 128


class Checkpoint:
    """An exported checkpoint, loaded as float32."""

    def __init__(self, directory: Path) -> None:
        self._model = CLIPModel.from_pretrained(directory, dtype=torch.float32).eval()
        self._tokenizer = CLIPTokenizer.from_pretrained(directory)
        #: Factor from cosine to logit.
        self.logit_scale = self._model.logit_scale.exp().item()

    @torch.inference_mode()
    def images(self, premultiplied: np.ndarray) -> np.ndarray:
        """Embed drawings on white.

        Args:
            premultiplied: uint8, shape (n, side, side, 4), RGBA multiplied by alpha.

        Returns:
            Unit vectors, float32, shape (n, width).
        """
        found = []
        for start in range(0, len(premultiplied), _CHUNK):
            chunk = torch.from_numpy(np.array(premultiplied[start : start + _CHUNK]))
            found.append(self._model.get_image_features(pixel_values=normalise(on_white(chunk))).pooler_output)
        return _unit(torch.cat(found).numpy())

    @torch.inference_mode()
    def texts(self, prompts: Sequence[str], templates: Sequence[str] = ("{}",)) -> np.ndarray:
        """Embed prompts; each is averaged over the templates and normalised again.

        Returns:
            Unit vectors, float32, shape (len(prompts), width).
        """
        mean = 0.0
        for template in templates:
            found = []
            for start in range(0, len(prompts), _CHUNK):
                chunk = [template.format(p) for p in prompts[start : start + _CHUNK]]
                tokens = self._tokenizer(chunk, padding=True, truncation=True, return_tensors="pt")
                found.append(self._model.get_text_features(**tokens).pooler_output)
            mean = mean + _unit(torch.cat(found).numpy())
        return _unit(mean)

    def margins(
        self, images: np.ndarray, prompts: np.ndarray, contrast: np.ndarray, contrast_weight: float
    ) -> np.ndarray:
        """Pool prompts against contrast: `logsumexp(p) - w * logsumexp(q)` in logits.

        Args:
            images: Unit vectors, shape (n, width).
            prompts: Unit vectors of a category's prompts.
            contrast: Unit vectors of the contrast and the look-alikes.
            contrast_weight: The weight w.

        Returns:
            Margins, shape (n,).
        """
        found = logsumexp(self.logit_scale * images @ prompts.T, axis=1)
        if contrast_weight:
            found = found - contrast_weight * logsumexp(self.logit_scale * images @ contrast.T, axis=1)
        return found


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
