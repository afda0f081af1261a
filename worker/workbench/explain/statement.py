"""A verdict → what the uploader may read: what was done, under which words of the policy, and where to object.

In: a verdict, its policy, the platform's hint. Out: a `Statement`. Never a score, a threshold, a sentence or another
category: whoever could ask for them could feel their way around the policy.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from worker.policy.schema import Policy
from worker.records import Action, Verdict
from worker.workbench.explain.explanation import Said
from worker.workbench.explain.told import strongest_first

#: What each action means for who uploaded.
ACTIONS: dict[Action, str] = {
    "allow": "Your upload was accepted.",
    "review": "Your upload is held back until a person has looked at it.",
    "block": "Your upload was not accepted.",
}
_UNCHECKED = "It has not been checked, because something went wrong on our side. You do not have to do anything."
#: Why an upload was not judged, for who uploaded; of what happened inside, no more than that it did.
REASONS: dict[str, str] = {
    "image_too_large": "It could not be checked, because the file or the picture in it is too large.",
    "image_undecodable": "It could not be checked, because the file is no picture that can be opened.",
    "image_truncated": "It could not be checked, because the file is not complete.",
    "image_format_refused": "It could not be checked, because pictures of this format are not accepted.",
    "decode_timeout": "It could not be checked, because the picture takes too long to open.",
    "decode_memory": "It could not be checked, because the picture takes too much memory to open.",
    "decode_crashed": "It could not be checked, because the picture cannot be opened safely.",
    "address_refused": "It could not be checked, because pictures are not fetched from where this one is.",
    "path_refused": "It could not be checked, because pictures are not fetched from where this one is.",
    "source_refused": "It could not be checked, because no picture was found where it should be.",
    "source_unavailable": "It could not be checked, because the place where it is did not answer.",
    "blob_mismatch": "It could not be checked, because the file was damaged on its way.",
    "unknown_policy": _UNCHECKED,
    "uncalibrated": _UNCHECKED,
    "invalid_job": _UNCHECKED,
    "job_timeout": _UNCHECKED,
    "job_stopped": _UNCHECKED,
    "worker_killed": _UNCHECKED,
    "internal_error": _UNCHECKED,
}
_AUTOMATIC = "This was decided automatically, from the picture alone."


class Ground(Said):
    """What of the policy an upload was held to show."""

    name: str
    description: Annotated[str, Field(description="The policy's own words; empty where it has none, or is gone.")]


class StatedPolicy(Said):
    """Which policy was applied."""

    id: str
    version: int | None


class Statement(Said):
    """What the uploader may read."""

    schema_version: Literal[1] = 1
    audience: Literal["user"] = "user"
    reference: Annotated[str, Field(description="The verdict's id: quoted in an appeal, it finds the verdict.")]
    date: Annotated[str, Field(description="Of the verdict, UTC.")]
    policy: StatedPolicy
    action: Action
    category: Annotated[Ground | None, Field(description="What decided; null where nothing was found, or looked at.")]
    lines: Annotated[list[str], Field(description="All of it in plain words, one sentence or two a line.")]
    appeal: Annotated[str | None, Field(description="SLUICE_APPEAL; null for an upload that was allowed.")]


def state(verdict: Verdict, policy: Policy | None, appeal: str | None) -> Statement:
    """State what was done to an upload.

    Args:
        verdict: On it.
        policy: The version that judged, to the digest; None where it is not at hand.
        appeal: How to object: free text or a URL.
    """
    ground = _ground(verdict, policy)
    lines = [ACTIONS[verdict.action]]
    if verdict.reason is not None:
        lines.append(REASONS.get(verdict.reason, _UNCHECKED))
    elif ground is not None:
        lines += [f"It was taken to show what this policy calls “{ground.name}”.", _AUTOMATIC]
    else:
        lines.append("Nothing that the policy asks about was found in it. " + _AUTOMATIC)
    return Statement(
        reference=verdict.verdict_id,
        date=verdict.created_at[:10],
        policy=StatedPolicy(id=verdict.policy.id, version=verdict.policy.version),
        action=verdict.action,
        category=ground,
        lines=lines,
        appeal=appeal if appeal and verdict.action != "allow" else None,
    )


def _ground(verdict: Verdict, policy: Policy | None) -> Ground | None:
    if verdict.action == "allow" or not verdict.categories:
        return None
    name = strongest_first(verdict.categories)[0]
    described = policy.categories[name].description if policy is not None and name in policy.categories else ""
    return Ground(name=name, description=" ".join(described.split()))
