"""The whole story on one page, on a batch: fetch → decode → embed → score → decide.

In: jobs. Out: for each, in order, its `Verdict` or the `JobError` that ends it. The ends that touch the world are
Protocols; `push` is the caller's, because it belongs to the transaction that ends the job.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from worker.errors import ImageRejected, JobError, Uncalibrated
from worker.policy.compiled import CompiledPolicy, Matrix
from worker.policy.registry import PolicySet
from worker.policy.schema import Policy
from worker.records import (
    ModelStamp,
    ModerationJob,
    PolicyStamp,
    ShadowVerdict,
    Subject,
    Verdict,
    utc_now,
    verdict_id,
)
from worker.stages import (
    Decodes,
    Embeds,
    Fetches,
    Remembers,
    SeenImage,
    decide_all,
    decode_once,
    embed_once,
    follow,
    remember,
    timed,
)
from worker.verdict import Decision, stamp

log = logging.getLogger(__name__)

#: `(kind, result)` as in the labels of `sluice_memo_total` → how often.
MemoCounts = Counter[tuple[str, str]]

S_co = TypeVar("S_co", bound=Subject, covariant=True)


@dataclass(frozen=True, slots=True)
class QueuedJob(Generic[S_co]):
    """A job, or what is left of one that is not valid, on its way through the pipeline."""

    job: S_co
    #: RQ's id; None for an image that came by no queue.
    job_id: str | None = None
    #: How long it waited.
    queue_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch half way: fetched and decoded, and all that its judgement needs."""

    jobs: tuple[QueuedJob[ModerationJob], ...]
    #: As they were when the batch began; a change of policies does not reach a batch on its way.
    policies: PolicySet
    #: One for each job; jobs with the same bytes share one.
    images: tuple[SeenImage | JobError, ...]
    #: Stage → how long it took.
    seconds: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Judged:
    """A batch at its end."""

    #: One for each job.
    outcomes: list[Verdict | JobError]
    #: `(views, dim)` for each job whose image was looked at; None for the others.
    embeddings: list[Matrix | None]
    #: What did not have to be embedded, and what had: the batch's images, and the sentences since the last batch.
    memo: MemoCounts


@dataclass(slots=True)
class Pipeline:
    """Judges batches of jobs; a batch is judged under the policies that were there when it began.

    `prepare` of one batch and `judge` of another may run at once, in two threads: a batch carries its own state.
    """

    sources: Fetches
    decode: Decodes
    encoder: Embeds
    model: ModelStamp
    policies: PolicySet
    compile: Callable[[Policy], CompiledPolicy]
    #: The policy of jobs that name none.
    default_policy: str
    #: Who signs the verdicts.
    worker: str
    refuse_uncalibrated: bool = False
    fail_unreadable: bool = False
    #: Images that were embedded before; None remembers nothing.
    memo: Remembers | None = None
    #: Takes the counts of the memo of sentences.
    text_counts: Callable[[], MemoCounts] = Counter

    def run(self, jobs: Sequence[QueuedJob[ModerationJob]]) -> list[Verdict | JobError]:
        """Judge a batch.

        Args:
            jobs: What to judge.

        Returns:
            Verdicts, and errors for the jobs that end without one; same length, same order. An image that cannot be
            judged is a `review` verdict with a reason, or its error, by setting.
        """
        return self.judge(self.prepare(jobs)).outcomes

    def prepare(self, jobs: Sequence[QueuedJob[ModerationJob]]) -> Prepared:
        """Choose policies, fetch and decode: the half of `run` that waits for others.

        Args:
            jobs: What to judge.

        Returns:
            What `judge` takes.
        """
        seconds: dict[str, float] = {}
        policies = self.policies
        chosen = [self._choose_policy(queued, policies) for queued in jobs]
        with timed("fetch", seconds):
            files = follow(chosen, lambda at, _: self.sources.fetch([jobs[i].job.image for i in at]))
        with timed("decode", seconds):
            images = follow(files, lambda _, some: decode_once(some, self.decode, self.memo))
        return Prepared(tuple(jobs), policies, tuple(images), seconds)

    def judge(self, prepared: Prepared) -> Judged:
        """Embed, score and decide: the half of `run` that computes.

        Args:
            prepared: What `prepare` returned.

        Returns:
            What `run` returns, and what the memo knew.
        """
        seconds = dict(prepared.seconds)
        with timed("embed", seconds):
            embeddings = follow(prepared.images, lambda _, some: embed_once(some, self.encoder))
        with timed("score", seconds):
            decisions = follow(embeddings, lambda at, some: self._decide(prepared, at, some))
        outcomes = [
            self._end(queued, image, decision, prepared.policies, seconds)
            for queued, image, decision in zip(prepared.jobs, prepared.images, decisions, strict=True)
        ]
        new = remember(prepared.images, embeddings, self.memo)
        seen = sum(not isinstance(image, JobError) for image in prepared.images)
        memo = self.text_counts() + Counter({("image", "hit"): seen - new, ("image", "miss"): new})
        return Judged(outcomes, [None if isinstance(one, JobError) else one for one in embeddings], memo)

    def unjudged(self, queued: QueuedJob[Subject], reason: str) -> Verdict:
        """Return the `review` verdict of a job whose image was not judged.

        Args:
            queued: The job.
            reason: A key of `worker.errors.REASONS`.
        """
        return self._unjudged(queued, reason, self.policies)

    def _unjudged(self, queued: QueuedJob[Subject], reason: str, policies: PolicySet) -> Verdict:
        ref = self._ref(queued)
        try:
            compiled = self.compile(policies.deciding(ref, queued.job.content_id))
        except JobError:
            policy, calibrated = PolicyStamp(id=ref.partition("@")[0], version=None, digest=None), False
        else:
            policy, calibrated = stamp(compiled), compiled.calibrated
        role = self._role(queued, policy, policies)
        return self._verdict(queued, policy, role, calibrated, Decision("review", {}), reason=reason)

    def _ref(self, queued: QueuedJob[Subject]) -> str:
        return queued.job.policy or self.default_policy

    def _choose_policy(self, queued: QueuedJob[Subject], policies: PolicySet) -> Policy | JobError:
        """Find the version that will decide, before anything is fetched."""
        try:
            policy = policies.deciding(self._ref(queued), queued.job.content_id)
        except JobError as error:
            return error
        model = f"{self.model.id}@{self.model.revision}"
        if self.refuse_uncalibrated and not policy.is_calibrated_for(model):
            return Uncalibrated(f"{policy.ref} has no calibration for {model}; add one or set SLUICE_UNCALIBRATED=warn")
        return policy

    def _decide(
        self, prepared: Prepared, at: Sequence[int], embeddings: Sequence[Matrix]
    ) -> list[tuple[CompiledPolicy, Decision, list[ShadowVerdict]]]:
        """Decide each image under its policy and the shadows beside it: one matrix product for each version."""
        jobs, policies = prepared.jobs, prepared.policies
        deciding = [policies.deciding(self._ref(jobs[i]), jobs[i].job.content_id) for i in at]
        watching = [policies.shadows(policy.policy, self._ref(jobs[i])) for i, policy in zip(at, deciding, strict=True)]
        wanted: dict[str, list[int]] = defaultdict(list)
        compiled: dict[str, CompiledPolicy] = {}
        for place, (policy, shadows) in enumerate(zip(deciding, watching, strict=True)):
            for version in {version.ref: version for version in (policy, *shadows)}.values():
                compiled[version.ref] = self.compile(version)
                wanted[version.ref].append(place)
        decided = {
            (ref, place): decision
            for ref, places in wanted.items()
            for place, decision in zip(places, decide_all(compiled[ref], [embeddings[p] for p in places]), strict=True)
        }
        return [
            (
                compiled[policy.ref],
                decided[policy.ref, place],
                [_shadow(compiled[shadow.ref], decided[shadow.ref, place]) for shadow in shadows],
            )
            for place, (policy, shadows) in enumerate(zip(deciding, watching, strict=True))
        ]

    def _end(
        self,
        queued: QueuedJob[Subject],
        image: SeenImage | JobError,
        decided: tuple[CompiledPolicy, Decision, list[ShadowVerdict]] | JobError,
        policies: PolicySet,
        seconds: dict[str, float],
    ) -> Verdict | JobError:
        if isinstance(decided, JobError):
            log.info("%s not judged: %s: %s", queued.job.content_id, decided.reason, decided)
        if isinstance(decided, ImageRejected) and not self.fail_unreadable:
            return self._unjudged(queued, decided.reason, policies)
        if isinstance(decided, JobError):
            return decided
        compiled, decision, shadow = decided
        return self._verdict(
            queued,
            stamp(compiled),
            self._role(queued, stamp(compiled), policies),
            compiled.calibrated,
            decision,
            image=None if isinstance(image, JobError) else image,
            shadow=shadow,
            seconds=seconds,
        )

    def _verdict(
        self,
        queued: QueuedJob[Subject],
        policy: PolicyStamp,
        role: Literal["live", "canary"],
        calibrated: bool,
        decision: Decision,
        *,
        reason: str | None = None,
        image: SeenImage | None = None,
        shadow: Sequence[ShadowVerdict] = (),
        seconds: dict[str, float] | None = None,
    ) -> Verdict:
        source = queued.job_id or (image.facts.sha256 if image else queued.job.content_id)
        waited = {} if queued.queue_seconds is None else {"queue": round(queued.queue_seconds, 6)}
        return Verdict(
            verdict_id=verdict_id(source, policy, self.model),
            job_id=queued.job_id,
            content_id=queued.job.content_id,
            action=decision.action,
            reason=reason,
            policy=policy,
            role=role,
            model=self.model,
            calibrated=calibrated,
            categories=decision.categories,
            image=image.facts if image else None,
            shadow=list(shadow),
            metadata=queued.job.metadata,
            timings_seconds=waited | (seconds or {}),
            worker=self.worker,
            created_at=utc_now(),
        )

    def _role(self, queued: QueuedJob[Subject], policy: PolicyStamp, policies: PolicySet) -> Literal["live", "canary"]:
        rollout = policies.rollouts.get(self._ref(queued))
        is_canary = rollout is not None and rollout.canary is not None and rollout.canary.version == policy.version
        return "canary" if is_canary else "live"


def _shadow(compiled: CompiledPolicy, decision: Decision) -> ShadowVerdict:
    return ShadowVerdict(policy=stamp(compiled), action=decision.action, categories=decision.categories)
