"""The shape of a policy file: pydantic models, strict, immutable, with a digest of what they say.

In: plain data. Out: `Policy`. Copies of sentences and places in the file are `lint`'s business.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

#: What a policy or category may be called; it becomes a metric label and part of a file name.
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
Sentence = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=r"\S")]
#: Free text; the bound also keeps out halves of characters, which no digest can be made of.
Text = Annotated[str, StringConstraints(max_length=10_000)]
Sentences = Annotated[tuple[Sentence, ...], Field(min_length=1, max_length=1000, strict=False)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def _with_one_hole(template: str) -> str:
    if template.count("{}") != 1:
        raise ValueError(f"a template holds {{}} once, where the prompt goes; got {template!r}")
    return template


#: A sentence with a hole; the pattern is the same check for the JSON Schema.
Template = Annotated[
    Sentence,
    AfterValidator(_with_one_hole),
    Field(json_schema_extra={"pattern": r"^((?!\{\})[\s\S])*\{\}((?!\{\})[\s\S])*$"}),
]
Templates = Annotated[tuple[Template, ...], Field(min_length=1, max_length=1000, strict=False)]


class Thresholds(_Strict):
    """Scores, in [0, 1], from which a category asks for review or blocks; they bind at `>=`."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [{"required": [key], "properties": {key: {"type": "number"}}} for key in ("review", "block")]
        }
    )

    review: Fraction | None = None
    block: Fraction | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Thresholds:
        if self.review is None and self.block is None:
            raise ValueError("give review, block or both")
        if self.review is not None and self.block is not None and self.review > self.block:
            raise ValueError(f"review ({self.review:g}) must not be above block ({self.block:g})")
        return self

    def as_dict(self) -> dict[str, float]:
        """Return the thresholds that are set."""
        return self.model_dump(exclude_none=True)


class Category(_Strict):
    """One kind of content: what it looks like, what looks like it, and from which score it matters."""

    description: Text = ""
    prompts: Sentences
    look_alikes: Sentences | None = None
    thresholds: Thresholds


class Calibration(_Strict):
    """How a category's margin becomes a score under one model: `sigmoid((margin - bias) / temperature)`."""

    #: Logits.
    bias: float = 0.0
    #: Logits per unit of the sigmoid's argument.
    temperature: Annotated[float, Field(gt=0)] = 1.0
    #: `w` in `logsumexp(prompts) - w * logsumexp(contrast)`.
    contrast_weight: Fraction = 1.0


class Policy(_Strict):
    """A policy: an id, a version that is never changed once released, and what it looks for."""

    policy: Name
    version: Annotated[int, Field(ge=1, lt=10**9)]
    description: Text = ""
    templates: Templates = ("{}",)
    contrast: Sentences
    categories: Annotated[
        dict[Name, Category],
        Field(min_length=1, max_length=200, json_schema_extra={"additionalProperties": False}),
    ]
    #: By model (`id@revision`), then by category.
    calibration: dict[Text, dict[Text, Calibration]] = {}

    @cached_property
    def digest(self) -> str:
        """`sha256:…` of what the policy says; comments, order of keys and layout do not count."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()

    @property
    def ref(self) -> str:
        """`id@version`."""
        return f"{self.policy}@{self.version}"

    def calibration_for(self, model: str) -> dict[str, Calibration]:
        """Return the calibration of `model` (`id@revision`) by category; what is not there is uncalibrated."""
        return self.calibration.get(model, {})

    def is_calibrated_for(self, model: str) -> bool:
        """Whether every category has a calibration for `model` (`id@revision`)."""
        return self.categories.keys() <= self.calibration_for(model).keys()
