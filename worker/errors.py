"""Every error that Sluice raises on purpose; rooms map their library's errors onto these at their edge.

SluiceError
├── UsageError          wrong flag, setting or argument (exit code 2)
├── Missing             something is not there (exit code 3): RedisUnreachable, ModelUnavailable, PolicyMissing
├── PolicyInvalid       findings in a policy file, all of them (exit code 1)
├── PolicyConflict      a change that does not fit what is published or at work (exit code 1)
└── JobError            no `done`: JobInvalid, UnknownPolicy, Uncalibrated, JobStopped, WorkerKilled,
    │                   SourceUnavailable (retried), and
    └── ImageRejected   the image cannot be judged: `review` with a reason, or a failed job, by setting
"""

from __future__ import annotations

from typing import ClassVar

#: Why a verdict says `review` without a score: the closed list of `Verdict.reason`, with what each means.
REASONS: dict[str, str] = {
    "image_too_large": "more bytes, pixels or side length than the limits allow",
    "image_undecodable": "not an image, or one that the decoder refuses",
    "image_truncated": "the file ends before the image does",
    "image_format_refused": "a format that is not in SLUICE_IMAGE_FORMATS",
    "decode_timeout": "decoding took longer than SLUICE_DECODE_TIMEOUT_SECONDS",
    "decode_memory": "decoding took more memory than SLUICE_DECODE_MEMORY_BYTES",
    "decode_crashed": "the image killed the process that decoded it",
    "address_refused": "the URL or bucket is none that may be fetched from, by address, host, port, scheme or name",
    "path_refused": "the path lies outside SLUICE_PATH_ROOT, or is not a regular file",
    "source_refused": "the source has no image to give (HTTP 4xx, a packed answer, no such object, blob or file)",
    "source_unavailable": "the source did not answer within its retries",
    "blob_mismatch": "the bytes under a blob's key do not have its digest",
    "unknown_policy": "the job names a policy or version that the worker does not have",
    "uncalibrated": "the policy has no calibration for this model and SLUICE_UNCALIBRATED=refuse",
    "invalid_job": "the job's arguments do not fit the job schema",
    "job_timeout": "the job ran longer than its time-out",
    "job_stopped": "an operator stopped the job",
    "worker_killed": "the job kills the process that looks at its image",
    "internal_error": "a defect: the job's traceback is in RQ's FailedJobRegistry",
}

#: Longest wait that a source may ask for before it is asked again.
MAX_RETRY_AFTER_SECONDS = 900.0


class SluiceError(Exception):
    """Root of the tree: one line that names the cause and the mend.

    Attributes:
        exit_code: What the command returns when this error ends it.
    """

    exit_code: ClassVar[int] = 1


class UsageError(SluiceError):
    """A flag, setting or argument is wrong."""

    exit_code = 2


class Missing(SluiceError):
    """Something that is needed is not there."""

    exit_code = 3


class RedisUnreachable(Missing):
    """Redis does not answer."""


class ModelUnavailable(Missing):
    """The checkpoint cannot be loaded."""


class PolicyMissing(Missing):
    """There is no policy directory, or the policy asked for is not in it."""


class PolicyInvalid(SluiceError):
    """A policy or rollout file has errors.

    Args:
        findings: One line for each, `file:line:column: key: what is wrong; mend`.
    """

    def __init__(self, findings: list[str]) -> None:
        super().__init__("\n".join(findings))
        self.findings = findings


class PolicyConflict(SluiceError):
    """A change of policies does not fit what is published or at work, or somebody else was quicker."""


class JobError(SluiceError):
    """A job cannot end `done`.

    Attributes:
        reason: A key of `REASONS`.
        outcome: How the job ends: `rejected`, `retried` (while retries last) or `dead`.
        retry: Whether the cause is transient.
    """

    reason: ClassVar[str] = "internal_error"
    outcome: ClassVar[str] = "dead"
    retry: ClassVar[bool] = False


class JobInvalid(JobError):
    """The job's function or arguments are not what the contract says."""

    reason = "invalid_job"


class UnknownPolicy(JobError):
    """The job names a policy or version that is not loaded."""

    reason = "unknown_policy"


class Uncalibrated(JobError):
    """The policy has no calibration for the model, and the settings refuse such verdicts."""

    reason = "uncalibrated"


class SourceUnavailable(JobError):
    """The source may answer later: 5xx, 429, a time-out, a lost connection.

    Args:
        text: What happened.
        retry_after_seconds: When it asks to be asked again, in seconds from now; None when it does not. What a source
            says, or a child that a hostile image has taken over, is held to `MAX_RETRY_AFTER_SECONDS`.
    """

    reason = "source_unavailable"
    outcome = "retried"
    retry = True

    def __init__(self, text: str = "", retry_after_seconds: float | None = None) -> None:
        super().__init__(text)
        self.retry_after_seconds: float | None = None
        if retry_after_seconds is not None and retry_after_seconds > 0:
            self.retry_after_seconds = min(float(retry_after_seconds), MAX_RETRY_AFTER_SECONDS)


class JobStopped(JobError):
    """An operator stopped the job."""

    reason = "job_stopped"


class WorkerKilled(JobError):
    """The job killed the process that looked at its image, more than once and alone."""

    reason = "worker_killed"


class ImageRejected(JobError):
    """The image cannot be judged, now or later."""

    reason = "image_undecodable"
    outcome = "rejected"


class ImageTooLarge(ImageRejected):
    """More bytes, pixels or side length than the limits allow."""

    reason = "image_too_large"


class ImageUndecodable(ImageRejected):
    """Not an image, or one that the decoder refuses."""


class ImageTruncated(ImageRejected):
    """The file ends before the image does."""

    reason = "image_truncated"


class ImageFormatRefused(ImageRejected):
    """A format outside the allow-list."""

    reason = "image_format_refused"


class DecodeTimeout(ImageRejected):
    """Decoding took too long."""

    reason = "decode_timeout"


class DecodeMemory(ImageRejected):
    """Decoding took too much memory."""

    reason = "decode_memory"


class DecodeCrashed(ImageRejected):
    """The image killed the process that decoded it."""

    reason = "decode_crashed"


class AddressRefused(ImageRejected):
    """The URL points where the worker must not go."""

    reason = "address_refused"


class PathRefused(ImageRejected):
    """The path lies outside the root, or is not a regular file."""

    reason = "path_refused"


class SourceRefused(ImageRejected):
    """The source has nothing under this name."""

    reason = "source_refused"


class BlobMismatch(ImageRejected):
    """The bytes under a blob's key do not have its digest."""

    reason = "blob_mismatch"
