"""The pipeline with small fakes where it touches the world: an image says in its bytes what is to be seen in it."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
import pytest

from worker.encoder.memo import Remembered
from worker.errors import (
    REASONS,
    AddressRefused,
    BlobMismatch,
    ImageFormatRefused,
    ImageRejected,
    ImageTooLarge,
    ImageTruncated,
    ImageUndecodable,
    JobError,
    JobInvalid,
    PathRefused,
    SourceRefused,
    SourceUnavailable,
    Uncalibrated,
    UnknownPolicy,
)
from worker.intake.decode import DecodedImage
from worker.intake.square import View
from worker.metrics import Metrics
from worker.pipeline import Pipeline, QueuedJob
from worker.policy.compiled import CompiledPolicy, Matrix, compile_policy
from worker.policy.registry import PolicySet
from worker.policy.rollout import Canary, Rollout
from worker.policy.schema import Calibration, Category, Policy, Thresholds
from worker.records import ImageFacts, ImageRef, ModelStamp, ModerationJob, Subject, Verdict, ViewBox, verdict_id

#: What can be seen, a direction each; the first byte of a view is its place here.
WORLD = ("food", "gun", "pills", "nothing")
MODEL = ModelStamp(id="fake", revision="1", precision="fp32")
MODEL_NAME = "fake@1"
LOGIT_SCALE = 10.0

#: What a source or decoder can say of an image instead of giving it.
FETCH_ERRORS = (SourceUnavailable, SourceRefused, AddressRefused, PathRefused, BlobMismatch, JobInvalid)
DECODE_ERRORS = (ImageTooLarge, ImageUndecodable, ImageTruncated, ImageFormatRefused)
ERRORS = {error.__name__: error("said by a fake") for error in (*FETCH_ERRORS, *DECODE_ERRORS)}


class FakeSources:
    """The bytes of `url` are `url`; unless it names an error of fetching."""

    def __init__(self) -> None:
        self.fetched: list[str] = []

    def fetch(self, refs: Sequence[ImageRef]) -> list[bytes | JobError]:
        urls = [str(ref.url) for ref in refs]
        self.fetched += urls
        return [ERRORS[url] if _is_error(url, FETCH_ERRORS) else url.encode() for url in urls]


def fake_decode(files: Sequence[bytes]) -> list[DecodedImage | JobError]:
    """`gun+food` has two views; unless it names an error of decoding."""
    return [ERRORS[name] if _is_error(name, DECODE_ERRORS) else _decoded(name) for name in map(bytes.decode, files)]


def _is_error(name: str, errors: Sequence[type[JobError]]) -> bool:
    return name in {error.__name__ for error in errors}


def _decoded(name: str) -> DecodedImage:
    seen = name.split("+")
    papers: tuple[Literal["white", "black"], ...] = ("white", "black", "white")
    facts = ImageFacts(
        sha256=f"sha-{name}", format="PNG", width=2, height=2, frames=1, views=len(seen), bytes=len(name),
        view_boxes=[ViewBox(box=(0, 0, 2, 2), on=paper) for _, paper in zip(seen, papers, strict=False)],
        views_wanted=len(seen),
    )  # fmt: skip
    return DecodedImage(facts, tuple(np.full((2, 2, 3), WORLD.index(thing), np.uint8) for thing in seen))


class FakeEncoder:
    """A view's embedding is the direction of what is seen in it."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def embed_images(self, views: Sequence[View]) -> Matrix:
        self.batches.append(len(views))
        return np.stack([_direction(WORLD[view[0, 0, 0]]) for view in views])


def _direction(thing: str) -> Matrix:
    unit: Matrix = np.eye(len(WORLD), dtype=np.float32)[WORLD.index(thing)]
    return unit


def embed_texts(sentences: Sequence[str]) -> Matrix:
    return np.stack([_direction(sentence) for sentence in sentences])


def policy(version: int = 1, *, name: str = "house", weapons: float = 0.9, calibrated: bool = False) -> Policy:
    return Policy(
        policy=name,
        version=version,
        contrast=("food",),
        categories={
            "weapons": Category(prompts=("gun",), thresholds=Thresholds(review=weapons / 2, block=weapons)),
            "drugs": Category(prompts=("pills",), thresholds=Thresholds(review=0.9)),
        },
        calibration={MODEL_NAME: {"weapons": Calibration(), "drugs": Calibration()}} if calibrated else {},
    )


def compiled(one: Policy) -> CompiledPolicy:
    return compile_policy(one, embed_texts, LOGIT_SCALE, MODEL_NAME)


def pipeline(
    *policies: Policy,
    rollout: Rollout | None = None,
    encoder: FakeEncoder | None = None,
    refuse_uncalibrated: bool = False,
    fail_unreadable: bool = False,
) -> Pipeline:
    known = policies or (policy(),)
    return Pipeline(
        sources=FakeSources(),
        decode=fake_decode,
        encoder=encoder or FakeEncoder(),
        model=MODEL,
        policies=PolicySet(
            {(one.policy, one.version): one for one in known}, {"house": rollout or Rollout(live=known[0].version)}
        ),
        compile=compiled,
        default_policy="house",
        worker="test.1",
        refuse_uncalibrated=refuse_uncalibrated,
        fail_unreadable=fail_unreadable,
    )


def job(seen: str, content_id: str | None = None, **more: object) -> QueuedJob[ModerationJob]:
    arguments = {"image": {"url": seen}, "content_id": content_id or f"id-{seen}", **more}
    return QueuedJob(ModerationJob.from_arguments(arguments), job_id=f"job-{content_id or seen}", queue_seconds=0.25)


def judged(outcome: Verdict | JobError) -> Verdict:
    assert isinstance(outcome, Verdict)
    return outcome


# -- order -----------------------------------------------------------------------------------------------------------


def test_outcomes_keep_length_and_order_whatever_fails_at_whichever_stage() -> None:
    expected = {
        "gun": "block",
        "food+pills": "review",
        "SourceUnavailable": SourceUnavailable,
        "ImageTruncated": "review",
        "food": UnknownPolicy,
    }
    jobs = [job(seen, policy="nobody" if seen == "food" else None) for seen in expected]
    for order in itertools.permutations(jobs):
        outcomes = pipeline().run(order)
        assert len(outcomes) == len(order)
        for queued, outcome in zip(order, outcomes, strict=True):
            wanted = expected[str(queued.job.image.url)]
            if isinstance(wanted, str):
                assert (judged(outcome).content_id, judged(outcome).action) == (queued.job.content_id, wanted)
            else:
                assert isinstance(outcome, wanted)


def test_a_batch_of_nothing_is_nothing_and_touches_nothing() -> None:
    line = pipeline()
    assert line.run([]) == []
    assert line.sources.fetched == []  # type: ignore[attr-defined]


def test_a_batch_in_which_all_fails_early_is_not_embedded() -> None:
    encoder = FakeEncoder()
    outcomes = pipeline(encoder=encoder).run([job("SourceRefused"), job("ImageTooLarge")])
    assert [judged(outcome).reason for outcome in outcomes] == ["source_refused", "image_too_large"]
    assert encoder.batches == []


@pytest.mark.parametrize("wrong_length", [1, 3])
def test_a_stage_that_breaks_the_order_ends_the_batch_instead_of_mixing_up_images(wrong_length: int) -> None:
    line = pipeline()
    line.decode = lambda files: ([_decoded("food")] * 3)[:wrong_length]
    with pytest.raises(ValueError, match="zip"):
        line.run([job("gun"), job("pills")])


def test_an_encoder_that_returns_too_few_rows_ends_the_batch_instead_of_mixing_up_images() -> None:
    class Forgetful(FakeEncoder):
        def embed_images(self, views: Sequence[View]) -> Matrix:
            return super().embed_images(views)[:-1]

    with pytest.raises(ValueError, match="3 embeddings of 4 views"):
        pipeline(encoder=Forgetful()).run([job("food+food"), job("food+gun")])


def test_all_views_of_a_batch_are_embedded_at_once() -> None:
    encoder = FakeEncoder()
    pipeline(encoder=encoder).run([job("gun+food"), job("food"), job("pills+food+nothing")])
    assert encoder.batches == [6]


def test_an_image_is_as_harmful_as_its_worst_view() -> None:
    (outcome,) = pipeline().run([job("food+food+gun+food")])
    assert judged(outcome).action == "block"
    assert judged(outcome).categories["weapons"].view == 2


# -- what cannot be looked at ----------------------------------------------------------------------------------------

REJECTIONS = [name for name, error in ERRORS.items() if isinstance(error, ImageRejected)]


@pytest.mark.parametrize("name", REJECTIONS)
def test_an_image_that_cannot_be_judged_asks_for_review_and_says_why(name: str) -> None:
    (outcome,) = pipeline().run([job(name)])
    verdict = judged(outcome)
    assert (verdict.action, verdict.reason) == ("review", ERRORS[name].reason)
    assert (verdict.categories, verdict.image, verdict.shadow) == ({}, None, [])
    assert verdict.policy.version == 1


@pytest.mark.parametrize("name", REJECTIONS)
def test_an_image_that_cannot_be_judged_is_an_error_where_the_settings_say_so(name: str) -> None:
    assert pipeline(fail_unreadable=True).run([job(name)]) == [ERRORS[name]]


@pytest.mark.parametrize("name", ["SourceUnavailable", "JobInvalid"])
@pytest.mark.parametrize("fail_unreadable", [False, True])
def test_a_cause_that_is_not_the_image_is_an_error_in_any_case(name: str, fail_unreadable: bool) -> None:
    assert pipeline(fail_unreadable=fail_unreadable).run([job(name)]) == [ERRORS[name]]


@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize("ref", [None, "house@1", "house@9", "nobody"])
def test_a_job_that_ends_without_being_judged_asks_for_review(reason: str, ref: str | None) -> None:
    verdict = pipeline().unjudged(QueuedJob(Subject(content_id="a", policy=ref)), reason)
    assert (verdict.action, verdict.reason, verdict.content_id) == ("review", reason, "a")
    known = ref in {None, "house@1"}
    assert (verdict.policy.version, verdict.policy.digest) == ((1, policy().digest) if known else (None, None))
    assert verdict.policy.id == ("nobody" if ref == "nobody" else "house")


def test_nothing_unreadable_is_ever_allowed_under_the_most_lenient_policy() -> None:
    lenient = policy(weapons=1.0)
    jobs = [job(seen) for seen in ("food", *ERRORS)]
    for fail_unreadable in (False, True):
        outcomes = pipeline(lenient, fail_unreadable=fail_unreadable).run(jobs)
        allowed = [judged(outcome).content_id for outcome in outcomes if getattr(outcome, "action", "") == "allow"]
        assert allowed == ["id-food"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_embedding_that_is_not_a_number_is_never_allowed(value: float) -> None:
    class Broken(FakeEncoder):
        def embed_images(self, views: Sequence[View]) -> Matrix:
            return np.full((len(views), len(WORLD)), value, np.float32)

    with np.errstate(invalid="ignore"), pytest.raises(ValueError):
        pipeline(encoder=Broken()).run([job("food")])


def test_a_defect_in_a_stage_is_not_taken_for_a_property_of_the_image() -> None:
    class Defective(FakeEncoder):
        def embed_images(self, views: Sequence[View]) -> Matrix:
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        pipeline(encoder=Defective()).run([job("food")])


# -- policies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ref", ["nobody", "house@9", "nobody@1"])
def test_an_image_under_an_unknown_policy_is_never_fetched(ref: str) -> None:
    line = pipeline()
    refused, accepted = line.run([job("gun", "refused", policy=ref), job("food")])
    assert isinstance(refused, UnknownPolicy)
    assert ref in str(refused)
    assert judged(accepted).action == "allow"
    assert line.sources.fetched == ["food"]  # type: ignore[attr-defined]


def test_an_uncalibrated_policy_judges_and_the_verdict_says_so() -> None:
    (outcome,) = pipeline().run([job("gun")])
    assert (judged(outcome).action, judged(outcome).calibrated) == ("block", False)


SENTENCES = policy().sentence_digests


@pytest.mark.parametrize(
    ("model", "sentences", "calibrated"),
    [
        (MODEL_NAME, SENTENCES, True),
        (MODEL_NAME.replace(MODEL.id, "another"), SENTENCES, False),
        (f"{MODEL.id}@another", SENTENCES, False),
        (MODEL_NAME, SENTENCES | {"drugs": SENTENCES["weapons"]}, False),
    ],
    ids=["made for it", "another model", "another revision", "another sentence"],
)
def test_a_calibration_made_for_something_else_makes_an_uncalibrated_verdict_that_is_counted(
    model: str, sentences: dict[str, str], calibrated: bool
) -> None:
    made = {name: Calibration(bias=1.0, sentences=digest) for name, digest in sentences.items()}
    (outcome,) = pipeline(policy().model_copy(update={"calibration": {model: made}})).run([job("gun")])
    metrics = Metrics()
    metrics.observe_verdict(judged(outcome))

    assert judged(outcome).calibrated is calibrated
    counted = metrics.registry.get_sample_value("sluice_uncalibrated_verdicts_total", {"policy": "house"})
    assert (counted or 0) == (0 if calibrated else 1)


def test_an_uncalibrated_policy_is_refused_before_the_fetch_where_the_settings_say_so() -> None:
    line = pipeline(refuse_uncalibrated=True)
    (outcome,) = line.run([job("gun")])
    assert isinstance(outcome, Uncalibrated)
    assert MODEL_NAME in str(outcome)
    assert line.sources.fetched == []  # type: ignore[attr-defined]


def test_a_calibrated_policy_passes_where_uncalibrated_ones_are_refused() -> None:
    (outcome,) = pipeline(policy(calibrated=True), refuse_uncalibrated=True).run([job("gun")])
    assert (judged(outcome).action, judged(outcome).calibrated) == ("block", True)


def test_shadow_versions_are_judged_by_their_own_thresholds_and_carried_but_do_not_decide() -> None:
    encoder = FakeEncoder()
    live, strict, blind = policy(1), policy(2, weapons=0.2), policy(3, weapons=1.0)
    line = pipeline(live, strict, blind, rollout=Rollout(live=1, shadow=(2, 3)), encoder=encoder)
    verdict = judged(line.run([job("nothing")])[0])
    # Neither gun nor food: half the mass each, which is 0.5.
    assert verdict.categories["weapons"].score == pytest.approx(0.5)
    assert (verdict.policy.version, verdict.action, verdict.role) == (1, "review", "live")
    assert [(shadow.policy.version, shadow.action) for shadow in verdict.shadow] == [(2, "block"), (3, "review")]
    assert [shadow.policy.digest for shadow in verdict.shadow] == [strict.digest, blind.digest]
    assert [shadow.categories["weapons"].thresholds["block"] for shadow in verdict.shadow] == [0.2, 1.0]
    assert encoder.batches == [1]


def test_a_job_that_is_pinned_to_a_version_has_no_shadows() -> None:
    line = pipeline(policy(1), policy(2), rollout=Rollout(live=1, shadow=(2,)))
    pinned, named, other = (
        judged(outcome)
        for outcome in line.run(
            [job("gun", "a", policy="house@2"), job("gun", "b", policy="house"), job("gun", "c", policy="house@1")]
        )
    )
    assert (pinned.policy.version, pinned.shadow) == (2, [])
    assert [shadow.policy.version for shadow in named.shadow] == [2]
    assert (other.policy.version, other.shadow) == (1, [])


def test_a_canary_decides_for_its_share_always_for_the_same_uploads_and_says_so() -> None:
    rollout = Rollout(live=1, canary=Canary(version=2, percent=25))
    line = pipeline(policy(1), policy(2, weapons=0.2), rollout=rollout)
    ids = [f"upload-{place}" for place in range(400)]
    first, again = (
        {verdict.content_id: verdict for verdict in map(judged, line.run([job("nothing", name) for name in order]))}
        for order in (ids, ids[::-1])
    )
    share = {name for name, verdict in first.items() if verdict.role == "canary"}
    assert 60 < len(share) < 140
    for name, verdict in first.items():
        wanted = (2, "canary", "block") if name in share else (1, "live", "review")
        assert (verdict.policy.version, verdict.role, verdict.action) == wanted
        assert again[name].role == verdict.role


@pytest.mark.parametrize(("percent", "version"), [(0, 1), (100, 2)])
def test_a_canary_of_nothing_or_of_all_decides_for_nothing_or_for_all(percent: float, version: int) -> None:
    line = pipeline(policy(1), policy(2), rollout=Rollout(live=1, canary=Canary(version=2, percent=percent)))
    verdicts = [judged(outcome) for outcome in line.run([job("gun", f"upload-{place}") for place in range(50)])]
    assert {verdict.policy.version for verdict in verdicts} == {version}


def test_an_image_that_cannot_be_judged_counts_for_the_canary_in_whose_share_it_falls() -> None:
    line = pipeline(policy(1), policy(2), rollout=Rollout(live=1, canary=Canary(version=2, percent=100)))
    verdict = judged(line.run([job("ImageTruncated")])[0])
    assert (verdict.policy.version, verdict.role) == (2, "canary")


def test_policies_of_different_jobs_in_one_batch_do_not_mix() -> None:
    line = pipeline(policy(1), policy(2, weapons=0.2))
    refs = ["house@1", "house@2"] * 5
    verdicts = [
        judged(outcome)
        for outcome in line.run([job("nothing", f"upload-{place}", policy=ref) for place, ref in enumerate(refs)])
    ]
    assert [verdict.action for verdict in verdicts] == ["review", "block"] * 5
    assert [f"house@{verdict.policy.version}" for verdict in verdicts] == refs


# -- the verdict -----------------------------------------------------------------------------------------------------


def test_a_verdict_has_every_field_of_the_contract() -> None:
    line = pipeline(policy(1, calibrated=True), policy(2), rollout=Rollout(live=1, shadow=(2,)))
    (outcome,) = line.run([job("gun+food", "upload-1", metadata={"user": "7"})])
    plain = judged(outcome).model_dump(mode="json")
    assert plain.keys() == {
        "schema_version", "verdict_id", "job_id", "content_id", "action", "reason", "policy", "role", "model",
        "calibrated", "categories", "image", "shadow", "metadata", "timings_seconds", "worker", "created_at",
    }  # fmt: skip
    weapons = plain["categories"]["weapons"]
    margin = weapons["margin"]
    assert weapons == {
        "score": pytest.approx(1 / (1 + np.exp(-margin))), "action": "block", "margin": pytest.approx(LOGIT_SCALE),
        "prompt": "gun", "contrast": "food", "view": 0, "thresholds": {"review": 0.45, "block": 0.9},
    }  # fmt: skip
    assert plain["policy"] == {"id": "house", "version": 1, "digest": policy(1, calibrated=True).digest}
    assert plain["model"] == {"id": "fake", "revision": "1", "precision": "fp32"}
    assert plain["image"] == {
        "sha256": "sha-gun+food", "format": "PNG", "width": 2, "height": 2, "frames": 1, "views": 2, "bytes": 8,
        "view_boxes": [{"box": [0, 0, 2, 2], "frame": 0, "on": paper} for paper in ("white", "black")],
        "views_wanted": 2, "unseen": [],
    }  # fmt: skip
    assert plain["shadow"][0]["policy"] == {"id": "house", "version": 2, "digest": policy(2).digest}
    assert (plain["schema_version"], plain["job_id"], plain["content_id"]) == (1, "job-upload-1", "upload-1")
    assert (plain["action"], plain["reason"], plain["role"], plain["calibrated"]) == ("block", None, "live", True)
    assert (plain["metadata"], plain["worker"]) == ({"user": "7"}, "test.1")
    assert list(plain["timings_seconds"]) == ["queue", "fetch", "decode", "embed", "score"]
    assert plain["timings_seconds"]["queue"] == 0.25
    assert plain["created_at"].endswith("Z")


def test_a_repeat_of_a_job_has_the_same_verdict_id_and_another_job_another_one() -> None:
    line = pipeline()
    first, repeat, other = (
        judged(line.run([job("gun", name)])[0]).verdict_id for name in ("upload-1", "upload-1", "upload-2")
    )
    assert first == repeat
    assert first != other


def test_a_verdict_without_a_job_is_named_after_the_image() -> None:
    no_queue = QueuedJob(ModerationJob.from_arguments({"image": {"url": "gun"}, "content_id": "a"}))
    verdict = judged(pipeline().run([no_queue])[0])
    assert verdict.job_id is None
    assert verdict.verdict_id == verdict_id("sha-gun", verdict.policy, MODEL)
    assert "queue" not in verdict.timings_seconds


# -- two halves ------------------------------------------------------------------------------------------------------


def test_a_batch_is_judged_under_the_policies_that_were_there_when_it_was_prepared() -> None:
    line = pipeline(policy(1), policy(2), rollout=Rollout(live=1, shadow=(2,)))
    prepared = line.prepare([job("gun"), job("ImageTruncated")])
    line.policies = PolicySet({("house", 3): policy(3, weapons=0.2)}, {"house": Rollout(live=3)})
    verdicts = [judged(outcome) for outcome in line.judge(prepared).outcomes]
    assert [verdict.policy.version for verdict in verdicts] == [1, 1]
    assert [shadow.policy.version for shadow in verdicts[0].shadow] == [2]
    assert [judged(outcome).policy.version for outcome in line.run([job("gun")])] == [3]


def test_a_prepared_batch_can_be_judged_while_others_are_prepared_and_judged() -> None:
    line = pipeline()
    seen = ["gun", "food", "pills", "nothing", "ImageTruncated", "SourceUnavailable"]
    batches = [[job(thing, f"{thing}-{n}") for thing in (seen * 2)[n % 6 :]] for n in range(30)]
    alone = [_said(line.run(batch)) for batch in batches]
    with ThreadPoolExecutor(2) as preparing, ThreadPoolExecutor(2) as judging:
        prepared = preparing.map(line.prepare, batches)
        together = [_said(done.outcomes) for done in judging.map(line.judge, prepared)]
    assert together == alone


def _said(outcomes: Sequence[Verdict | JobError]) -> list[object]:
    return [
        (outcome.content_id, outcome.action, outcome.reason) if isinstance(outcome, Verdict) else outcome.reason
        for outcome in outcomes
    ]


def test_judging_a_prepared_batch_again_says_the_same_and_carries_the_times_of_both_halves() -> None:
    line = pipeline()
    prepared = line.prepare([job("gun")])
    first, again = (judged(line.judge(prepared).outcomes[0]) for _ in range(2))
    assert (first.verdict_id, first.categories) == (again.verdict_id, again.categories)
    assert list(prepared.seconds) == ["fetch", "decode"]
    assert first.timings_seconds["decode"] == prepared.seconds["decode"]


# -- what was seen before --------------------------------------------------------------------------------------------


class FakeMemo:
    """Remembers in a dict."""

    def __init__(self) -> None:
        self.images: dict[str, Remembered] = {}
        self.asked = 0

    def recall(self, digests: Sequence[str]) -> list[Remembered | None]:
        self.asked += 1
        return [self.images.get(digest) for digest in digests]

    def remember(self, images: Sequence[Remembered]) -> None:
        self.images |= {image.facts.sha256: image for image in images}


class CountingDecoder:
    """Decodes as `fake_decode`, under the digest of the bytes, and notes what it saw."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, files: Sequence[bytes]) -> list[DecodedImage | JobError]:
        self.seen += [data.decode() for data in files]
        return [
            image
            if isinstance(image, JobError)
            else DecodedImage(image.facts.model_copy(update={"sha256": hashlib.sha256(data).hexdigest()}), image.views)
            for data, image in zip(files, fake_decode(files), strict=True)
        ]


def test_an_image_that_was_seen_is_neither_decoded_nor_embedded_again_and_scores_the_same() -> None:
    encoder, decoder = FakeEncoder(), CountingDecoder()
    line = pipeline(encoder=encoder)
    line.decode, line.memo = decoder, FakeMemo()
    first = line.judge(line.prepare([job("gun+food"), job("ImageTruncated")]))
    again = line.judge(line.prepare([job("gun+food", "again"), job("ImageTruncated"), job("pills")]))
    assert decoder.seen == ["gun+food", "ImageTruncated", "ImageTruncated", "pills"]
    assert encoder.batches == [2, 1]
    before, after = judged(first.outcomes[0]), judged(again.outcomes[0])
    assert (before.categories, before.image, before.action) == (after.categories, after.image, after.action)
    assert after.content_id == "again"
    assert dict(first.memo) == {("image", "miss"): 1}
    assert dict(again.memo) == {("image", "hit"): 1, ("image", "miss"): 1}


def test_a_batch_of_known_images_does_not_touch_the_encoder() -> None:
    encoder = FakeEncoder()
    line = pipeline(encoder=encoder)
    line.decode, line.memo = CountingDecoder(), FakeMemo()
    line.run([job("gun")])
    assert [judged(outcome).action for outcome in line.run([job("gun"), job("gun", "other")])] == ["block", "block"]
    assert encoder.batches == [1]


@pytest.mark.parametrize("remembering", [False, True])
def test_an_image_that_is_twice_in_a_batch_is_looked_at_once(remembering: bool) -> None:
    encoder, decoder = FakeEncoder(), CountingDecoder()
    line = pipeline(encoder=encoder)
    line.decode, line.memo = decoder, FakeMemo() if remembering else None
    seen = ["gun", "food+pills", "gun", "ImageTruncated", "food+pills", "gun", "ImageTruncated"]
    done = line.judge(line.prepare([job(thing, f"upload-{place}") for place, thing in enumerate(seen)]))
    assert decoder.seen == ["gun", "food+pills", "ImageTruncated"]
    assert encoder.batches == [3]
    verdicts = [judged(outcome) for outcome in done.outcomes]
    assert [verdict.content_id for verdict in verdicts] == [f"upload-{place}" for place in range(7)]
    assert [verdict.reason or verdict.action for verdict in verdicts] == [
        "block", "review", "block", "image_truncated", "review", "block", "image_truncated",
    ]  # fmt: skip
    assert dict(done.memo) == {("image", "hit"): 3, ("image", "miss"): 2}


def test_what_could_not_be_judged_is_not_remembered() -> None:
    line = pipeline()
    memo = FakeMemo()
    line.decode, line.memo = CountingDecoder(), memo
    line.run([job("ImageTruncated"), job("SourceRefused"), job("food", policy="nobody")])
    assert memo.images == {}


def test_the_memo_is_asked_once_for_a_batch() -> None:
    line = pipeline()
    memo = FakeMemo()
    line.decode, line.memo = CountingDecoder(), memo
    line.run([job(thing) for thing in ("gun", "food", "pills")])
    assert memo.asked == 1


def test_sentences_that_were_embedded_since_the_last_batch_are_counted_with_it() -> None:
    line = pipeline()
    line.text_counts = iter([Counter({("text", "miss"): 4}), Counter[tuple[str, str]]()]).__next__
    assert dict(line.judge(line.prepare([job("gun")])).memo) == {("text", "miss"): 4, ("image", "miss"): 1}
    assert dict(line.judge(line.prepare([job("gun")])).memo) == {("image", "miss"): 1}
