"""What there is to explain a verdict with: the verdict, its policy, embeddings, views, and who can embed.

In: an image, or the id of a job or a verdict. Out: `Evidence`. What is not at hand is a note, unless it was asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import redis

from worker.cli.look import job_for, own_files
from worker.cli.queue import reachable_redis
from worker.errors import JobError, PolicyMissing, SluiceError, Uncalibrated, UsageError
from worker.records import Verdict
from worker.settings import Settings

if TYPE_CHECKING:
    from worker.encoder.clip import ClipEncoder
    from worker.intake.square import View
    from worker.ledger.batch import Halves
    from worker.policy.compiled import CompiledPolicy, Matrix
    from worker.policy.registry import PolicySet
    from worker.policy.schema import Policy
    from worker.workbench.explain.explanation import Basis

#: Settings that say what of an image is looked at.
VIEWS = ("views", "image_max_views", "image_max_frames")


@dataclass(slots=True)
class Evidence:
    """What there is to explain a verdict with."""

    verdict: Verdict
    #: All versions that are known; None where they cannot be read.
    policies: PolicySet | None
    #: The version that judged, to the digest; None where it is not at hand.
    policy: Policy | None
    #: What is not at hand, and why.
    notes: list[str] = field(default_factory=list)
    basis: Basis = "verdict"
    #: `(views, dim)` as they were scored; with them there are an encoder and a compiler.
    embeddings: Matrix | None = None
    #: Of the upload itself.
    views: Sequence[View] = ()
    encoder: ClipEncoder | None = None
    compile: Callable[[Policy], CompiledPolicy] | None = None

    def use(self, encoder: ClipEncoder) -> None:
        """Embed with an encoder from now on."""
        from worker.at_work import CompiledPolicies

        self.encoder, self.compile = encoder, CompiledPolicies(encoder)

    def others(self, wanted: Sequence[int] | None) -> list[Policy]:
        """Return the other versions of the policy.

        Args:
            wanted: Their numbers; None: all that are known.

        Raises:
            PolicyMissing: A version is not known.
        """
        own = self.verdict.policy
        known = {
            version: policy
            for (name, version), policy in (self.policies.policies if self.policies else {}).items()
            if name == own.id
        }
        unknown = [number for number in wanted or () if number not in known]
        if unknown:
            shown = ", ".join(map(str, sorted(known))) or "none"
            raise PolicyMissing(f"there is no {own.id}@{unknown[0]}; known versions of {own.id}: {shown}")
        numbers = sorted(known) if wanted is None else wanted
        return [known[number] for number in numbers if number != own.version]


@contextmanager
def judge_here(image: str, settings: Settings) -> Iterator[Evidence]:
    """Judge an image as `sluice score` does.

    Args:
        image: A file or a URL.
        settings: What judges.

    Raises:
        Uncalibrated: The policy may not judge under this model.
    """
    from worker import app as sluice

    app = sluice.build(own_files(settings), connection=None)
    try:
        queued = job_for(image)
        prepared = app.pipeline.prepare([queued])
        judged = app.pipeline.judge(prepared)
        (outcome,), (embeddings,), (seen,) = judged.outcomes, judged.embeddings, prepared.images
        if isinstance(outcome, Uncalibrated):
            raise outcome
        verdict = outcome if isinstance(outcome, Verdict) else app.pipeline.unjudged(queued, outcome.reason)
        policies = app.pipeline.policies
        policy = policies.policies.get((verdict.policy.id, verdict.policy.version or 0))
        evidence = Evidence(verdict, policies, policy, encoder=app.encoder, compile=app.compiled)
        if embeddings is not None and not isinstance(seen, JobError):
            evidence.basis, evidence.embeddings, evidence.views = "image", embeddings, seen.views
        yield evidence
    finally:
        app.close()


def look_up(
    ref: str, settings: Settings, image: Path | None, archive: str | None, *, needs_embeddings: bool
) -> Evidence:
    """Find a verdict that was given before, and what it was judged by.

    Args:
        ref: The id of a job or a verdict.
        settings: Where Redis and the policies are, and the model.
        image: The upload itself; None: embeddings are looked for in the ledger.
        archive: Of the ledger, to look there too.
        needs_embeddings: Whether anything is to be judged again.

    Raises:
        RedisUnreachable: Redis does not answer.
        VerdictMissing: There is no such verdict.
        UsageError: The image is not the verdict's.
    """
    from worker.lookup import find_embeddings, find_verdict

    remembered: Halves | None = None
    with reachable_redis(settings) as connection:
        verdict = find_verdict(connection, ref)
        evidence = _with_policy(verdict, settings)
        wants_ledger = needs_embeddings and image is None and evidence.policy is not None and verdict.reason is None
        if wants_ledger:
            shelf = None
            if archive is not None:
                from worker.ledger.shelf import open_shelf

                shelf = open_shelf(archive, settings.s3_buckets, settings.s3_endpoint_url)
            remembered = find_embeddings(connection, shelf, verdict)
    if image is not None:
        _look_at(image, evidence, settings)
    elif remembered is not None:
        _remember(remembered, evidence, settings)
    elif wants_ledger:
        evidence.notes.append(
            "the ledger has no embeddings of this verdict; name the upload's file with --image to see what else counted"
        )
    return evidence


def _with_policy(verdict: Verdict, settings: Settings) -> Evidence:
    """Find the version that judged among those that are known."""
    from worker.at_work import policy_source

    own = verdict.policy
    try:
        policies = policy_source(settings).load()
    except (SluiceError, redis.RedisError) as error:
        why = " ".join(str(error).split())
        return Evidence(verdict, None, None, [f"the policies cannot be read, so all numbers are the verdict's: {why}"])
    found = policies.policies.get((own.id, own.version or 0))
    if found is not None and found.digest == own.digest:
        return Evidence(verdict, policies, found)
    if own.version is None:
        return Evidence(verdict, policies, None)
    what = "is not among the policies any more" if found is None else f"has changed since ({found.digest[:19]}…)"
    where = settings.policies if settings.policies != "redis" else "the registry"
    note = f"{own.id}@{own.version} {what} in {where}, so all numbers are the verdict's own"
    return Evidence(verdict, policies, None, [note])


def _look_at(image: Path, evidence: Evidence, settings: Settings) -> None:
    """Look at the upload itself.

    Raises:
        UsageError: It is not the image of the verdict, or the model is not the verdict's.
        ModelUnavailable: The model cannot be loaded.
    """
    from worker.app import open_decoder
    from worker.encoder.memo import rounded

    facts = evidence.verdict.image
    if facts is None:
        raise UsageError(f"--image: the verdict judged no image ({evidence.verdict.reason}); leave it out")
    try:
        data = image.read_bytes()
    except OSError as error:
        raise UsageError(f"{image}: {error.strerror}; name the upload's file with --image") from error
    if hashlib.sha256(data).hexdigest() != facts.sha256:
        raise UsageError(f"{image} is not the image of this verdict, whose SHA-256 is {facts.sha256}; name that file")
    encoder = _same_encoder(evidence.verdict, settings, download=True)
    decoder = open_decoder(settings, encoder, 1)
    try:
        (seen,) = decoder([data])
    finally:
        decoder.close()
    if isinstance(seen, JobError):
        raise UsageError(f"{image} cannot be judged here ({seen}); set the limits of the worker that judged it")
    evidence.use(encoder)
    evidence.basis, evidence.views = "image", seen.views
    evidence.embeddings = rounded(encoder.embed_images(seen.views))


def _remember(remembered: Halves, evidence: Evidence, settings: Settings) -> None:
    """Judge by what the ledger remembers, where the model is here."""
    from worker.encoder.memo import rounded

    try:
        evidence.use(_same_encoder(evidence.verdict, settings, download=False))
    except SluiceError as error:
        evidence.notes.append(f"nothing was judged again: {' '.join(str(error).split())}")
        return
    evidence.basis, evidence.embeddings = "ledger", rounded(remembered)


def _same_encoder(verdict: Verdict, settings: Settings, *, download: bool) -> ClipEncoder:
    """Load the model that judged.

    Raises:
        UsageError: The settings name another one.
        ModelUnavailable: It cannot be loaded.
    """
    from worker.encoder.clip import load_encoder

    wanted = verdict.model
    said = f"{wanted.id}@{wanted.revision} in {wanted.precision} judged"
    if settings.model != wanted.id:
        raise UsageError(f"{said}, and the model here is {settings.model}; name that one with --model")
    encoder = load_encoder(
        settings.model, settings.model_revision, settings.device, settings.precision, settings.batch_size,
        download=download,
    )  # fmt: skip
    if (encoder.revision, encoder.precision) != (wanted.revision, wanted.precision):
        mend = "name that one with --model-revision and --precision"
        raise UsageError(f"{said}, and the model here is {encoder.name} in {encoder.precision}; {mend}")
    return encoder
