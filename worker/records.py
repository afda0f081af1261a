"""What crosses Redis, frozen: the job that a producer sends, the verdict that a consumer reads.

In and out: JSON of `schema_version` 1. Everything that a producer sends is hostile until it is one of these.
Never import anything heavy here: every backend that uses the client imports this room.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from worker.errors import JobInvalid

#: Version of the shapes below; a consumer that meets a higher one should stop and say so.
SCHEMA_VERSION: Literal[1] = 1

Action = Literal["allow", "review", "block"]
#: How a policy version takes part in a verdict: it decides, it only watches, or it decides for its share.
Role = Literal["live", "shadow", "canary"]
#: The function that producers enqueue; never renamed.
MODERATE = "worker.jobs.moderate"
Priority = Literal["high", "normal", "bulk"]
#: RQ queue of each priority.
QUEUES: dict[Priority, str] = {"high": "moderation-high", "normal": "moderation", "bulk": "moderation-bulk"}
#: `allow < review < block`.
ACTION_ORDER: dict[Action, int] = {"allow": 0, "review": 1, "block": 2}

#: What of an image no view shows.
Unseen = Literal["edges", "frames"]

_POLICY_REF = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}(@[1-9][0-9]{0,8})?$"
_CONTROL = r"[\u0000-\u001f\u007f-\u009f]"
#: PostgreSQL, for one, can keep it in no text.
_NUL = "\u0000"
#: Wrong fields that one error describes; a hostile job has as many as fit into Redis.
_MAX_DESCRIBED = 80


def _without_nul(value: str) -> str:
    if _NUL in value:
        raise ValueError("a NUL is not allowed")
    return value


def _without_controls(value: str) -> str:
    if re.search(_CONTROL, value):
        raise ValueError("control characters are not allowed")
    return value


# Bounded, because every verdict echoes it. The bound also keeps out halves of characters, which UTF-8 cannot hold.
_NoNul = AfterValidator(_without_nul)
_NO_NUL_SAID = Field(json_schema_extra={"not": {"pattern": _NUL}})
MetadataKey = Annotated[str, StringConstraints(max_length=128), _NoNul, _NO_NUL_SAID]
MetadataValue = Annotated[str, StringConstraints(max_length=4096), _NoNul, _NO_NUL_SAID]
#: Of what stands in logs and messages: every terminal and server reads control characters its own way.
_Printable = AfterValidator(_without_controls)
_SAID = Field(json_schema_extra={"not": {"pattern": _CONTROL}})
WebhookUrl = Annotated[str, StringConstraints(pattern=r"^https?://\S+$", max_length=2048), _Printable, _SAID]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ImageRef(_Record):
    """Where an image is: exactly one of the five."""

    # Exactly one, and none of them null.
    model_config = ConfigDict(
        json_schema_extra={"minProperties": 1, "maxProperties": 1, "patternProperties": {"": {"type": "string"}}}
    )

    url: Annotated[str, StringConstraints(min_length=1, max_length=8192), _Printable, _SAID] | None = None
    s3: Annotated[str, StringConstraints(pattern=r"^s3://[^/]+/.+$", max_length=2048), _Printable, _SAID] | None = None
    blob: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None
    base64: Annotated[str, StringConstraints(min_length=1)] | None = None
    path: Annotated[str, StringConstraints(min_length=1, max_length=4096), _Printable, _SAID] | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> ImageRef:
        given = sorted(self.model_fields_set)
        if len(given) != 1 or getattr(self, given[0]) is None:
            raise ValueError(f"give exactly one of url, s3, blob, base64, path; got {', '.join(given) or 'none'}")
        return self

    @property
    def kind(self) -> str:
        """Which of the five this is."""
        return next(iter(self.model_fields_set))


class Subject(_Record):
    """What a verdict is about, even when its image cannot be: id, policy asked for, echo, and where it is posted."""

    content_id: Annotated[str, StringConstraints(min_length=1, max_length=512), _Printable, _SAID]
    policy: str | None = Field(None, json_schema_extra={"pattern": _POLICY_REF})
    metadata: Annotated[dict[MetadataKey, MetadataValue], Field(max_length=64)] = {}
    webhook: WebhookUrl | None = None

    @field_validator("policy")
    @classmethod
    def _policy_ref(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(_POLICY_REF, value):
            raise ValueError("write it as ID or ID@VERSION, for example default or default@2")
        return value

    @classmethod
    def salvage(cls, arguments: object) -> Subject | None:
        """Return what can be said of a job that is not valid; None when it has no valid `content_id`."""
        given = arguments if isinstance(arguments, dict) else {}
        kept: dict[str, Any] = {}
        for name in ("content_id", "policy", "metadata", "webhook"):
            if name not in given:
                continue
            try:
                Subject.model_validate({"content_id": "-", name: given[name]})
            except ValidationError:
                continue
            kept[name] = given[name]
        return Subject.model_validate(kept) if "content_id" in kept else None


class ModerationJob(Subject):
    """A request to look at one image under one policy: the keyword arguments of `worker.jobs.moderate`."""

    image: ImageRef

    @classmethod
    def from_arguments(cls, arguments: object) -> ModerationJob:
        """Check what a producer sent.

        Raises:
            JobInvalid: Every wrong field, by name, in one line.
        """
        try:
            return cls.model_validate(arguments)
        except ValidationError as error:
            wrong = [_describe(item) for item in error.errors(include_url=False)[:_MAX_DESCRIBED]]
            if error.error_count() > _MAX_DESCRIBED:
                wrong.append(f"and {error.error_count() - _MAX_DESCRIBED} more")
            raise JobInvalid("invalid job: " + "; ".join(wrong)) from error


def _describe(item: Any) -> str:
    where = ".".join(printable(part) for part in item["loc"] if part != "[key]") or "job"
    if item["type"] == "missing":
        return f"{where} is required"
    if item["type"] == "extra_forbidden":
        return f"{where} is not an argument of a job"
    message = str(item["msg"]).removeprefix("Value error, ")
    return f"{where}: {message[:1].lower()}{message[1:]}"


def printable(name: object) -> str:
    """Return what a producer named something, fit for one line of a log."""
    text = str(name)
    return text if text.isprintable() and len(text) <= 64 else ascii(text[:64])  # noqa: PLR2004 - a readable name


class _Reported(_Record):
    """Written by workers: a consumer that is older than the worker passes over what it does not know."""

    model_config = ConfigDict(extra="ignore")


class PolicyStamp(_Reported):
    """Which policy judged; version and digest are null when the job named one that does not exist."""

    id: str
    version: int | None
    digest: str | None


class ModelStamp(_Reported):
    """Which checkpoint embedded."""

    id: str
    revision: str
    precision: str


class CategoryVerdict(_Reported):
    """What one category found, and what is needed to replay it."""

    score: float = Field(ge=0, le=1)
    action: Action
    #: Logits.
    margin: float
    #: The prompt with the highest logit on the winning view.
    prompt: str
    #: The contrast sentence or look-alike with the highest logit there.
    contrast: str
    #: Index of the view with the highest score.
    view: int = Field(ge=0)
    #: Of `review` and `block`, those that the category has.
    thresholds: dict[str, float]


class ViewBox(_Reported):
    """What one view shows."""

    #: Left, top, right, bottom in pixels of the upright image.
    box: Annotated[tuple[int, int, int, int], Field(strict=False)]
    #: Number of the frame, from 0.
    frame: int = 0
    #: The colour on which what is transparent was laid.
    on: Literal["white", "black"] = "white"


class ImageFacts(_Reported):
    """What was looked at."""

    sha256: str
    format: str
    width: int
    height: int
    frames: int
    views: int
    bytes: int
    #: What each view shows, in the order of `CategoryVerdict.view`.
    view_boxes: list[ViewBox] = []
    #: Views that there would be if SLUICE_IMAGE_MAX_VIEWS did not limit them; more than `views`: less detail was seen.
    views_wanted: int = 0
    #: What no view shows: the edges (`SLUICE_VIEWS=single`), or frames that differ from all that were looked at.
    unseen: list[Unseen] = []


class ShadowVerdict(_Reported):
    """What a version that only watches would have said."""

    policy: PolicyStamp
    action: Action
    categories: dict[str, CategoryVerdict]


class Verdict(_Reported):
    """One image under one policy version: the job's RQ return value and the stream's `verdict` field."""

    schema_version: Literal[1] = SCHEMA_VERSION
    verdict_id: str
    job_id: str | None
    content_id: str
    action: Action
    reason: str | None
    policy: PolicyStamp
    role: Literal["live", "canary"] = "live"
    model: ModelStamp
    calibrated: bool
    categories: dict[str, CategoryVerdict]
    image: ImageFacts | None
    shadow: list[ShadowVerdict] = []
    metadata: dict[str, str] = {}
    timings_seconds: dict[str, float] = {}
    worker: str
    created_at: str

    def to_json(self) -> str:
        """Return the verdict as one line of JSON."""
        return self.model_dump_json()


def verdict_id(source: str, policy: PolicyStamp, model: ModelStamp) -> str:
    """Name a verdict so that a repeat has the same name.

    Args:
        source: The job id, or the image's digest when there is no job.
        policy: The version that judged.
        model: The checkpoint that embedded.

    Returns:
        32 hexadecimal digits of SHA-256.
    """
    parts = (source, policy.id, policy.digest or "", model.id, model.revision, model.precision)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def utc_now() -> str:
    """Return the time as `2026-01-01T00:00:00.000Z`."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds_since(moment: datetime) -> float:
    """Return how long ago a moment was, in seconds; 0 where the clocks disagree."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (datetime.now(UTC) - aware).total_seconds())
