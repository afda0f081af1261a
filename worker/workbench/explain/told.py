"""A verdict → what can be read off it alone: what won, how far each threshold is, which of them would change it.

In: a verdict, and its policy where that is at hand. Out: an `Explanation` that `again` may complete. Never a number
that is not the verdict's own and does not follow from its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from worker.errors import REASONS
from worker.policy.schema import Calibration, Policy
from worker.records import ACTION_ORDER, Action, CategoryVerdict, ShadowVerdict, Verdict
from worker.verdict import action_of, strongest
from worker.workbench.explain.explanation import (
    CategorySaid,
    Explanation,
    MovedThreshold,
    ThresholdGap,
    VersionSaid,
    ViewSaid,
)

#: Thresholds, weakest first.
_ACTIONS: tuple[Action, ...] = ("review", "block")
#: How far a score may be from what a calibration makes of its margin: what a float loses.
_TOLERANCE = 1e-6


def explain(verdict: Verdict, policy: Policy | None = None, notes: tuple[str, ...] = ()) -> Explanation:
    """Explain a verdict from what it says itself.

    Args:
        verdict: Any, also one with a reason.
        policy: The version that judged, to the digest; it adds descriptions and calibrations.
        notes: What could not be done, and why.
    """
    names = strongest_first(verdict.categories)
    calibrations = {} if policy is None else policy.calibration_for(f"{verdict.model.id}@{verdict.model.revision}")
    return Explanation(
        verdict_id=verdict.verdict_id,
        job_id=verdict.job_id,
        content_id=verdict.content_id,
        created_at=verdict.created_at,
        action=verdict.action,
        reason=verdict.reason,
        reason_means=None if verdict.reason is None else REASONS.get(verdict.reason, "not known to this version"),
        policy=verdict.policy,
        role=verdict.role,
        model=verdict.model,
        calibrated=verdict.calibrated,
        image=verdict.image,
        notes=list(notes),
        category=names[0] if names else None,
        categories=[_category(name, verdict.categories[name], policy, calibrations) for name in names],
        thresholds=sorted(moved_thresholds(verdict), key=lambda moved: abs(moved.value - moved.score)),
        versions=[_shadow(shadow, verdict.action) for shadow in verdict.shadow],
        views=list(_views(verdict, names[0])) if names else [],
    )


def strongest_first(categories: Mapping[str, CategoryVerdict]) -> list[str]:
    """Return the names of categories by action, then by score; the first decides."""
    return sorted(categories, key=lambda name: (-ACTION_ORDER[categories[name].action], -categories[name].score))


def moved_thresholds(verdict: Verdict) -> Iterator[MovedThreshold]:
    """Yield each threshold that, moved alone, makes another action of a verdict.

    Per category there are two candidates: the strongest that is reached, moved above the score, and the weakest that
    is not, moved down to it. All others would have to pass a second one, which no policy permits.
    """
    actions = {name: found.action for name, found in verdict.categories.items()}
    for name, found in verdict.categories.items():
        reached = [action for action in _ACTIONS if _reaches(found, action)]
        missed = [action for action in _ACTIONS if action in found.thresholds and action not in reached]
        # No threshold lies above 1.
        moves = [(reached[-1], "above", math.nextafter(found.score, 2.0))] if reached and found.score < 1 else []
        moves += [(missed[0], "to", found.score)] if missed else []
        for action, move, value in moves:
            others = [said for other, said in actions.items() if other != name]
            becomes = strongest([*others, action_of(found.score, found.thresholds | {action: value})])
            if becomes != verdict.action:
                yield MovedThreshold.model_validate({
                    "category": name, "threshold": action, "value": found.thresholds[action], "move": move,
                    "score": found.score, "action": becomes,
                })  # fmt: skip


def _category(
    name: str, found: CategoryVerdict, policy: Policy | None, calibrations: Mapping[str, Calibration]
) -> CategorySaid:
    calibration = _calibration(found, None if policy is None else calibrations.get(name, Calibration()))
    gaps = [_gap(found, action, calibration) for action in _ACTIONS if action in found.thresholds]
    reached = [gap.action for gap in gaps if gap.reached]
    return CategorySaid.model_validate({
        "name": name, "description": _description(policy, name), "action": found.action, "score": found.score,
        "margin": found.margin, "prompt": found.prompt, "contrast": found.contrast, "view": found.view,
        "decided_by": reached[-1] if reached else None, "thresholds": gaps,
    })  # fmt: skip


def _description(policy: Policy | None, name: str) -> str | None:
    return policy.categories[name].description.strip() if policy is not None and name in policy.categories else None


def _calibration(found: CategoryVerdict, calibration: Calibration | None) -> Calibration | None:
    """Return what made the score of the margin; without a policy only a score that no calibration made can be told."""
    known = calibration or Calibration()
    score = 0.5 + 0.5 * math.tanh((found.margin - known.bias) / known.temperature / 2)
    return known if abs(score - found.score) < _TOLERANCE else None


def _reaches(found: CategoryVerdict, action: Action) -> bool:
    return action in found.thresholds and action_of(found.score, {action: found.thresholds[action]}) == action


def _gap(found: CategoryVerdict, action: Action, calibration: Calibration | None) -> ThresholdGap:
    threshold = found.thresholds[action]
    logits = None
    if calibration is not None and 0 < threshold < 1:
        logits = found.margin - (calibration.bias + calibration.temperature * math.log(threshold / (1 - threshold)))
    return ThresholdGap(
        action=action,
        threshold=threshold,
        reached=_reaches(found, action),
        by_score=found.score - threshold,
        by_logits=logits,
    )


def _shadow(shadow: ShadowVerdict, action: Action) -> VersionSaid:
    name = next(iter(strongest_first(shadow.categories)), None)
    return VersionSaid(
        policy=shadow.policy,
        action=shadow.action,
        category=name,
        score=None if name is None else shadow.categories[name].score,
        same=shadow.action == action,
        source="shadow",
    )


def _views(verdict: Verdict, category: str) -> Iterator[ViewSaid]:
    """Yield the views; of the deciding category a verdict keeps the numbers of the deciding one only."""
    found, image = verdict.categories[category], verdict.image
    for index in range(image.views if image else 0):
        decides = index == found.view
        yield ViewSaid(
            index=index,
            shows=image.view_boxes[index] if image and index < len(image.view_boxes) else None,
            score=found.score if decides else None,
            margin=found.margin if decides else None,
            decides=decides,
        )
