"""The shape of a policy file: pydantic models, strict, immutable, with a digest of what they say.

In: plain data. Out: `Policy`. Copies of sentences and places in the file are `lint`'s business.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from functools import cached_property
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
    model_validator,
)

from worker.policy.exemplars import Exemplar, Exemplars, Kind

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
DIGEST_PATTERN = r"^sha256:[0-9a-f]{64}$"
#: Of a category's prompts and look-alikes, and of the policy's contrast and templates.
SentencesDigest = Annotated[str, StringConstraints(pattern=DIGEST_PATTERN)]
Templates = Annotated[tuple[Template, ...], Field(min_length=1, max_length=1000, strict=False)]


class Thresholds(_Strict):
    """Scores, in [0, 1], from which a category asks for review or blocks; they bind at `>=`."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [{"required": [key], "properties": {key: {"type": "number"}}} for key in ("review", "block")]
        }
    )

    review: Annotated[Fraction | None, Field(description="Score from which a person should look.")] = None
    block: Annotated[Fraction | None, Field(description="Score from which the upload is refused.")] = None

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

    description: Annotated[Text, Field(description="What belongs here and what does not, for people.")] = ""
    prompts: Annotated[
        Sentences, Field(description="Short captions of what the category looks like; they raise its score.")
    ]
    look_alikes: Annotated[
        Sentences | None,
        Field(description="Captions of innocent things that resemble it; they lower its score, only here."),
    ] = None
    thresholds: Annotated[Thresholds, Field(description="Scores from which something happens: review, block or both.")]
    exemplars: Annotated[
        Exemplars | None,
        Field(description="Images that were judged wrongly; `sluice policy exemplar add` writes them."),
    ] = None

    @model_serializer(mode="wrap")
    def _without_what_is_not_there(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave `exemplars` out where there is none: such a policy has the digest that it had before there were any."""
        fields: dict[str, Any] = serialize(self)
        return fields if self.exemplars else {name: value for name, value in fields.items() if name != "exemplars"}


class Calibration(_Strict):
    """How a category's margin becomes a score under one model: `sigmoid((margin - bias) / temperature)`."""

    bias: Annotated[float, Field(description="Margin at which the score is 0.5, in logits.")] = 0.0
    temperature: Annotated[
        float, Field(gt=0, description="How slowly the score rises: logits per unit of the sigmoid's argument.")
    ] = 1.0
    contrast_weight: Annotated[
        Fraction, Field(description="w in margin = logsumexp(prompts) - w * logsumexp(contrast and look-alikes).")
    ] = 1.0
    # Left out of what is written, and so of a policy's digest, where it is not set: digests of old files stay.
    sentences: Annotated[
        SentencesDigest | None,
        Field(
            exclude_if=lambda digest: digest is None,
            description="Digest of the sentences that it was made for; with others it does not count.",
        ),
    ] = None

    def logits(self, score: float) -> float:
        """Return how far above the bias a margin is whose score is `score`, in logits."""
        return self.temperature * math.log(score / (1 - score))


class Policy(_Strict):
    """A policy: an id, a version that is never changed once released, and what it looks for."""

    policy: Annotated[Name, Field(description="The policy's id; the same as the directory that holds its versions.")]
    version: Annotated[
        int, Field(ge=1, lt=10**9, description="N of the file v<N>.yaml; a version that is out is never edited.")
    ]
    description: Annotated[Text, Field(description="What the policy is for, for people.")] = ""
    templates: Annotated[
        Templates, Field(description="Sentences with a hole {}; each sentence below is averaged over all of them.")
    ] = ("{}",)
    contrast: Annotated[
        Sentences, Field(description="Captions of ordinary content; every category's score is weighed against them.")
    ]
    categories: Annotated[
        dict[Name, Category],
        Field(
            min_length=1,
            max_length=200,
            json_schema_extra={"additionalProperties": False},
            description="What is looked for, by name; the name is a label of metrics.",
        ),
    ]
    calibration: Annotated[
        dict[Text, dict[Text, Calibration]],
        Field(description="By model (id@revision), then by category; `sluice calibrate` writes it."),
    ] = {}

    @cached_property
    def digest(self) -> str:
        """`sha256:…` of what the policy says; comments, order of keys and layout do not count."""
        return _digest(self.model_dump(mode="json"))

    @cached_property
    def sentence_digests(self) -> dict[str, str]:
        """`sha256:…` of the sentences that each category is scored by; their order does not count, as in a score."""
        shared = {"contrast": sorted(self.contrast), "templates": sorted(self.templates)}
        return {
            name: _digest(
                shared | {"prompts": sorted(category.prompts), "look_alikes": sorted(category.look_alikes or ())}
            )
            for name, category in self.categories.items()
        }

    @property
    def ref(self) -> str:
        """`id@version`."""
        return f"{self.policy}@{self.version}"

    def calibration_for(self, model: str) -> dict[str, Calibration]:
        """Return the calibration of `model` (`id@revision`) by category, less what was made for other sentences."""
        stale = self.stale_for(model)
        return {name: found for name, found in self.calibration.get(model, {}).items() if name not in stale}

    def stale_for(self, model: str) -> list[str]:
        """Return the categories whose calibration for `model` (`id@revision`) was made for other sentences."""
        found = self.calibration.get(model, {}).items()
        return [name for name, made in found if made.sentences not in (None, self.sentence_digests.get(name))]

    def is_calibrated_for(self, model: str) -> bool:
        """Whether every category has a calibration for `model` (`id@revision`) and these sentences.

        And whether no exemplar is another model's.
        """
        known = self.categories.keys() <= self.calibration_for(model).keys()
        return known and all(exemplar.model == model for _, exemplar in self.exemplars())

    def exemplars(self) -> Iterator[tuple[tuple[str, Kind, int], Exemplar]]:
        """Yield every exemplar with its category, its pool, and its place there."""
        for name, category in self.categories.items():
            for kind, index, exemplar in category.exemplars.pools() if category.exemplars else ():
                yield (name, kind, index), exemplar

    def without_exemplars(self) -> Policy:
        """Return what the sentences alone say."""
        bare = {name: category.model_copy(update={"exemplars": None}) for name, category in self.categories.items()}
        return self.model_copy(update={"categories": bare})


def _digest(data: object) -> str:
    canonical = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()
