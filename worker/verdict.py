"""Scores × thresholds → a decision: the only place where `score >= threshold` is written.

In: a `CompiledPolicy` and the `Scores` of one image's views. Out: `Decision`. Never an image, never Redis.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from worker.policy.compiled import CompiledPolicy, Scores
from worker.records import ACTION_ORDER, Action, CategoryVerdict, PolicyStamp, Verdict


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
    reached: list[Action] = ["allow"]
    if "review" in thresholds and score >= thresholds["review"]:
        reached.append("review")
    if "block" in thresholds and score >= thresholds["block"]:
        reached.append("block")
    return strongest(reached)


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
