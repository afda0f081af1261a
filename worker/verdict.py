"""Scores × thresholds → a decision: the only place where `score >= threshold` is written.

In: a `CompiledPolicy` and the `Scores` of one image's views. Out: `Decision`. Never an image, never Redis.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from worker.policy.compiled import CompiledPolicy, Floats, Scores
from worker.records import ACTION_ORDER, Action, CategoryVerdict, PolicyStamp, Verdict

#: Places in `ACTION_ORDER`.
Codes = npt.NDArray[np.int8]
#: What a threshold may ask for, the weaker first.
STRICTER: tuple[Action, ...] = ("review", "block")


@dataclass(frozen=True, slots=True)
class Decision:
    """What one policy version says of one image."""

    action: Action
    categories: dict[str, CategoryVerdict]


def decide(compiled: CompiledPolicy, scores: Scores) -> Decision:
    """Apply a policy's thresholds to one image.

    Args:
        compiled: The policy.
        scores: Of the image's views, `(views, categories)`; a category's score is the maximum over the views.

    Returns:
        The strongest of the categories' actions, and each category with what is needed to replay it.
    """
    categories = {}
    for column, category in enumerate(compiled.categories):
        view = int(scores.score[:, column].argmax())
        thresholds = compiled.policy.categories[category.name].thresholds.as_dict()
        value = float(scores.score[view, column])
        categories[category.name] = CategoryVerdict(
            score=value,
            action=action_of(value, thresholds),
            margin=float(scores.margin[view, column]),
            prompt=compiled.texts[scores.prompt[view, column]],
            contrast=compiled.texts[scores.contrast[view, column]],
            view=view,
            thresholds=thresholds,
        )
    return Decision(strongest(found.action for found in categories.values()), categories)


def action_of(score: float, thresholds: Mapping[str, float]) -> Action:
    """Return the strongest action whose threshold `score` reaches; a threshold binds at equality."""
    return strongest(action for action in STRICTER if action in thresholds and _reaches(score, thresholds[action]))


def actions_of(scores: Floats, compiled: CompiledPolicy) -> Codes:
    """Apply a policy's thresholds to thousands of images at once.

    Args:
        scores: `(images, categories)`, of each image the maximum over its views.
        compiled: The policy.

    Returns:
        `(images, categories)` of `ACTION_ORDER`, each what `decide` says; the strongest of a row is the image's action.
    """
    codes = np.zeros(scores.shape, np.int8)
    for column, thresholds in enumerate(_thresholds(compiled)):
        for action in STRICTER:
            if action in thresholds:
                codes[_reaches(scores[:, column], thresholds[action]), column] = ACTION_ORDER[action]
    return codes


def is_near_threshold(scores: Floats, compiled: CompiledPolicy, distances: Floats) -> npt.NDArray[np.bool_]:
    """Say which images have a score so near to a threshold that one a little different might be on its other side.

    Args:
        scores: `(images, categories)`.
        compiled: The policy.
        distances: `(categories,)`, how near.

    Returns:
        `(images,)`.
    """
    near = np.zeros(len(scores), np.bool_)
    for column, thresholds in enumerate(_thresholds(compiled)):
        for threshold in thresholds.values():
            near |= np.abs(scores[:, column] - threshold) <= distances[column]
    return near


def _reaches(score: Any, threshold: float) -> Any:
    """Whether a score, or each of many, makes a threshold's action bind."""
    return score >= threshold


def _thresholds(compiled: CompiledPolicy) -> list[dict[str, float]]:
    policy = compiled.policy
    return [policy.categories[category.name].thresholds.as_dict() for category in compiled.categories]


def strongest(actions: Iterable[Action]) -> Action:
    """Return the strongest of some actions; `allow` of none."""
    return max(actions, key=ACTION_ORDER.__getitem__, default="allow")


def replay(verdict: Verdict) -> Action:
    """Decide again from a stored verdict's own fields.

    Returns:
        The same action as `verdict.action`: `review` when it carries a reason.
    """
    if verdict.reason is not None:
        return "review"
    return strongest(action_of(found.score, found.thresholds) for found in verdict.categories.values())


def stamp(compiled: CompiledPolicy) -> PolicyStamp:
    """Name the policy version that judged."""
    policy = compiled.policy
    return PolicyStamp(id=policy.policy, version=policy.version, digest=policy.digest)
