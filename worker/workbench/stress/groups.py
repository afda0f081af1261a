"""The same sentence about different people → how far each category's margin moves with the word.

In: a compiled policy, its text tower, words and sentences. Out: one `Shift` for each word and category. A sentence
stands in for an image that shows what it says: what is found here holds of the text tower, and is a hint for images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from worker.policy.compiled import CompiledPolicy, Matrix
from worker.policy.groups import GroupsFile, fill
from worker.scoring import score
from worker.verdict import action_of


class TextTower(Protocol):
    """Of `ClipEncoder`, what is needed here."""

    def embed_texts(self, sentences: Sequence[str]) -> Matrix:
        """Embed n sentences to `(n, dim)`, unit rows."""


@dataclass(frozen=True, slots=True)
class Shift:
    """How far one word moves one category's margin from the mean of its list."""

    #: The list's name.
    listed: str
    group: str
    category: str
    sentences: int
    #: Mean over the sentences, in logits.
    shift: float
    #: Lowest and highest of a single sentence, in logits.
    low: float
    high: float
    #: The shift in units of the category's temperature: how far the logarithm of the score's odds moves.
    weight: float
    #: Sentences that the category reviews or blocks, taken for images.
    flagged: int

    @property
    def is_agreed(self) -> bool:
        """Whether every sentence moves the same way."""
        return self.low > 0 or self.high < 0

    def as_dict(self) -> dict[str, Any]:
        """Return the shift as one JSON object."""
        return {
            "list": self.listed, "group": self.group, "category": self.category, "sentences": self.sentences,
            "margin_shift": {"value": self.shift, "lowest": self.low, "highest": self.high},
            "log_odds_shift": self.weight, "flagged": self.flagged,
        }  # fmt: skip


def shifts(compiled: CompiledPolicy, groups: GroupsFile, tower: TextTower) -> list[Shift]:
    """Measure every word of every list.

    Args:
        compiled: The policy.
        groups: Words, and the sentences that they are put into.
        tower: What embeds sentences.

    Returns:
        In the order of the file; for each word one for each category.
    """
    return [shift for name in groups.groups for shift in _of_list(compiled, name, groups, tower)]


def _of_list(compiled: CompiledPolicy, name: str, groups: GroupsFile, tower: TextTower) -> list[Shift]:
    words, sentences = groups.groups[name], groups.sentences
    found = score(tower.embed_texts([fill(text, word) for word in words for text in sentences]), compiled)
    shape = (len(words), len(sentences), len(compiled.categories))
    margins, scores = found.margin.reshape(shape), found.score.reshape(shape)
    moved = margins - margins.mean(axis=0)
    rows = []
    for at, word in enumerate(words):
        for column, category in enumerate(compiled.categories):
            thresholds = compiled.policy.categories[category.name].thresholds.as_dict()
            shift = float(moved[at, :, column].mean())
            flagged = sum(action_of(float(value), thresholds) != "allow" for value in scores[at, :, column])
            rows.append(
                Shift(
                    listed=name,
                    group=word,
                    category=category.name,
                    sentences=len(sentences),
                    shift=shift,
                    low=float(np.min(moved[at, :, column])),
                    high=float(np.max(moved[at, :, column])),
                    weight=shift / category.calibration.temperature,
                    flagged=flagged,
                )
            )
    return rows
