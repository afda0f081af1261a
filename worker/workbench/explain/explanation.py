"""What an explanation consists of: the shape of `sluice explain --json`, for the reviewer.

In and out: plain data; the JSON Schema is printed by `sluice schema explanation`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from worker.records import Action, ImageFacts, ModelStamp, PolicyStamp, ViewBox

#: What a sentence is for a category.
Kind = Literal["prompt", "look_alike", "contrast"]
#: Where the embeddings came from; `verdict`: there were none, and all is read off the verdict.
Basis = Literal["verdict", "ledger", "image"]


class Said(BaseModel):
    """A part of what is explained."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ThresholdGap(Said):
    """How far a category is from one of its thresholds."""

    action: Action
    threshold: float
    reached: bool
    by_score: Annotated[float, Field(description="Score less threshold: 0 or more where it is reached.")]
    by_logits: Annotated[
        float | None,
        Field(description="Margin less the margin at the threshold; null where the calibration is not known."),
    ]


class CategorySaid(Said):
    """What one category found."""

    name: str
    description: Annotated[str | None, Field(description="Of the policy; null where the policy is not at hand.")]
    action: Action
    score: float
    margin: Annotated[float, Field(description="Logits.")]
    prompt: Annotated[str, Field(description="The prompt with the highest logit on the deciding view.")]
    contrast: Annotated[str, Field(description="The contrast sentence or look-alike with the highest logit there.")]
    view: int
    decided_by: Annotated[
        Literal["review", "block"] | None, Field(description="The strongest threshold that is reached; null: none is.")
    ]
    thresholds: list[ThresholdGap]


class Sentence(Said):
    """One sentence beside the deciding view."""

    kind: Kind
    text: str
    logit: float
    share: Annotated[float, Field(description="Its part of the sum that its pool is: of all prompts, or all contrast.")]


class SentencesOf(Said):
    """The strongest sentences of a category, for and against it, on its deciding view."""

    category: str
    view: int
    prompts: list[Sentence]
    against: list[Sentence]


class Removal(Said):
    """What one sentence less would have made of the verdict."""

    kind: Kind
    text: str
    category: Annotated[str, Field(description="Whose score and margin follow; contrast counts in every category.")]
    score: Annotated[float | None, Field(description="Null: without its only prompt there is no category.")]
    margin: float | None
    action: Annotated[Action, Field(description="Of the whole verdict.")]
    flips: Annotated[bool, Field(description="Whether that is another action than the verdict's.")]


class MovedThreshold(Said):
    """A threshold that, moved alone, makes another action of the verdict."""

    category: str
    threshold: Literal["review", "block"]
    value: Annotated[float, Field(description="Where it is.")]
    move: Annotated[Literal["above", "to"], Field(description="above: anywhere above `score`; to: there or lower.")]
    score: float
    action: Annotated[Action, Field(description="Of the whole verdict then.")]


class VersionSaid(Said):
    """What another version of the policy says of the same image."""

    policy: PolicyStamp
    action: Action
    category: Annotated[str | None, Field(description="Its strongest.")]
    score: float | None
    same: Annotated[bool, Field(description="Whether it is the verdict's action.")]
    source: Annotated[Literal["shadow", "judged"], Field(description="Read off the verdict, or judged again.")]


class ViewSaid(Said):
    """What the deciding category found in one view."""

    index: int
    shows: Annotated[ViewBox | None, Field(description="Where it lies in the upright image; null: not known.")]
    score: float | None
    margin: float | None
    decides: bool


class Heat(Said):
    """What hiding parts of the deciding view takes from the deciding category's margin."""

    category: str
    view: int
    view_pixels: Annotated[int, Field(description="Of a side of the view.")]
    patch_pixels: Annotated[int, Field(description="Of a side of the patch.")]
    margin: Annotated[float, Field(description="With nothing hidden.")]
    losses: Annotated[
        list[list[float]], Field(description="Logits of margin lost under each patch: rows from top, from left.")
    ]
    greatest: Annotated[float, Field(description="The greatest loss or gain: what the strongest colour stands for.")]
    strongest: Annotated[
        tuple[int, int, int, int],
        Field(description="Left, top, right, bottom of the patch that costs most, in pixels of the view."),
    ]


class Explanation(Said):
    """Why a verdict says what it says, for the reviewer."""

    schema_version: Literal[1] = 1
    audience: Literal["reviewer"] = "reviewer"
    verdict_id: str
    job_id: str | None
    content_id: str
    created_at: str
    action: Action
    reason: str | None
    reason_means: str | None
    policy: PolicyStamp
    role: Literal["live", "canary"]
    model: ModelStamp
    calibrated: bool
    image: ImageFacts | None
    basis: Basis = "verdict"
    recomputed: Annotated[
        Literal["equal", "differs"] | None, Field(description="Whether judging again gave the verdict; null: not done.")
    ] = None
    notes: Annotated[list[str], Field(description="What could not be done, and why.")] = []
    category: Annotated[str | None, Field(description="The strongest, which decides.")]
    categories: Annotated[list[CategorySaid], Field(description="Strongest first.")]
    thresholds: Annotated[list[MovedThreshold], Field(description="Nearest first.")]
    versions: list[VersionSaid]
    sentences: list[SentencesOf] = []
    removals: list[Removal] = []
    views: list[ViewSaid] = []
    heat: Heat | None = None
