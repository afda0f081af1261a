"""Draw batches: distinct concepts, a style for each, and captions.

In: the stores that `data.py` wrote. Out: batches of drawings, token ids and which caption fits which concept.
Never draws from a validation or test style.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPTokenizer

from tools.packaged_clip.captions import Captions
from tools.packaged_clip.sources import MONOCHROME, TRAIN, styles

#: Distinct concepts in a batch, and captions without an image.
BATCH_CONCEPTS, BATCH_TEXT_ONLY = 128, 32
#: Share of a batch that shows concepts of game-icons, which have one monochrome drawing each.
ICON_SHARE = 0.12
#: How much more often a concept of moderation is drawn, and how much less a flag or lettered button (the code points
#: from 1F100 on) or a variant of a person.
THEME_WEIGHT, LETTERED_WEIGHT, SEQUENCE_WEIGHT = 2.0, 0.4, 0.5


@dataclass(frozen=True)
class Batch:
    """What one step looks at; images first, then the texts, text-only captions last."""

    #: uint8, (images, side, side, 4), premultiplied RGBA.
    drawings: Tensor
    #: bool, (images,): the drawing gets a random colour; the drawing may be mirrored.
    monochrome: Tensor
    may_flip: Tensor
    #: int64, (images,): indices of the concepts.
    concepts: Tensor
    #: int64, (texts, tokens), padded with the end token.
    token_ids: Tensor
    #: bool, (texts, all concepts): what each caption is true of.
    fits: Tensor


def read_store(data: Path, style: str) -> tuple[list[str], np.ndarray]:
    """Read a style's concept keys and drawings (uint8, (n, side, side, 4)), in the same order."""
    keys = json.loads((data / f"{style}.json").read_text(encoding="utf-8"))
    return keys, np.load(data / f"{style}.npy", mmap_mode="r")


def trained_concepts(data: Path) -> list[str]:
    """List the concepts that have a drawing in a trained style: emoji first, icons of game-icons last."""
    keys = {key for style in styles(TRAIN) for key in read_store(data, style.name)[0]}
    return sorted(keys, key=lambda key: (key.startswith("game:"), key))


class BatchSource:
    """Draws batches from the trained styles."""

    def __init__(self, data: Path, captions: Captions, tokenizer: CLIPTokenizer, seed: int) -> None:
        """Load the drawings of the trained styles into memory.

        Args:
            data: The directory that `data.py` wrote.
            captions: Captions over the concepts of `trained_concepts`.
            tokenizer: Tokenizer of the model.
            seed: Seed of concepts, styles and captions.
        """
        self.random = np.random.default_rng(seed)
        self._captions, self._tokenizer = captions, tokenizer
        concepts = captions.concepts
        index = {key: i for i, key in enumerate(concepts)}
        self.emoji_count = sum(not key.startswith("game:") for key in concepts)
        self._where: list[list[int]] = [[] for _ in concepts]
        drawings, monochrome = [], []
        for style in styles(TRAIN):
            keys, store = read_store(data, style.name)
            for offset, key in enumerate(keys):
                self._where[index[key]].append(len(monochrome) + offset)
            drawings.append(np.array(store))
            monochrome += [style.name in MONOCHROME] * len(keys)
        self.drawings = torch.from_numpy(np.concatenate(drawings))
        self.monochrome = torch.tensor(monochrome)
        self._may_flip = torch.tensor([captions.reads_both_ways(i) for i in range(len(concepts))])
        weights = np.array([self._weight(i, key) for i, key in enumerate(concepts[: self.emoji_count])])
        self._weights = weights / weights.sum()

    def _weight(self, concept: int, key: str) -> float:
        if self._captions.has_theme(concept):
            return THEME_WEIGHT
        if key.startswith("1F1"):
            return LETTERED_WEIGHT
        return SEQUENCE_WEIGHT if "-" in key else 1.0

    def draw(self) -> Batch:
        """Draw the next batch."""
        icons = round(BATCH_CONCEPTS * ICON_SHARE)
        emoji = self.random.choice(self.emoji_count, BATCH_CONCEPTS - icons, replace=False, p=self._weights)
        total = len(self._captions.concepts)
        others = self.emoji_count + self.random.choice(total - self.emoji_count, icons, replace=False)
        concepts = self.random.permutation(np.concatenate([emoji, others]))
        rows = [self._where[c][self.random.integers(len(self._where[c]))] for c in concepts]
        said = [self._captions.caption(int(c), self.random) for c in concepts]
        said += [self._captions.text_only(self.random) for _ in range(BATCH_TEXT_ONLY)]
        fits = torch.zeros(len(said), total, dtype=torch.bool)
        for row, caption in enumerate(said):
            fits[row, torch.from_numpy(caption.concepts)] = True
        tokens = self._tokenizer([c.text for c in said], padding=True, truncation=True, return_tensors="pt")
        chosen = torch.tensor(rows)
        picked = torch.from_numpy(concepts)
        return Batch(
            self.drawings[chosen],
            self.monochrome[chosen],
            self._may_flip[picked],
            picked,
            tokens.input_ids,
            fits,
        )
