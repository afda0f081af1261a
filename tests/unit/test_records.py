"""Everything that a producer sends is hostile until it is a record; what a record says survives JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from worker.errors import JobInvalid
from worker.policy.schema import Policy
from worker.records import (
    CategoryVerdict,
    ImageFacts,
    ModelStamp,
    ModerationJob,
    PolicyStamp,
    ShadowVerdict,
    Subject,
    Verdict,
    utc_now,
    verdict_id,
)

POLICIES = Path(__file__).parents[2] / "policies"
JOB: dict[str, Any] = {"image": {"url": "https://example.org/a.png"}, "content_id": "upload-1"}
ABSENT = object()

#: A busy machine is no failure.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def job(**changes: Any) -> dict[str, Any]:
    """Give the arguments of a right job, some of them changed or left out."""
    return {name: value for name, value in (JOB | changes).items() if value is not ABSENT}


def refusal(arguments: object) -> str:
    with pytest.raises(JobInvalid) as caught:
        ModerationJob.from_arguments(arguments)
    return str(caught.value)


RIGHT_JOBS = [
    {},
    {"image": {"url": "x"}},
    {"image": {"s3": "s3://bucket/some/key.png"}},
    {"image": {"blob": "0123456789abcdef" * 4}},
    {"image": {"base64": "AAAA"}},
    {"image": {"path": "/srv/uploads/a.png"}},
    {"content_id": "x" * 512},
    {"content_id": "загрузка 1 \U0001f600"},
    {"policy": "default"},
    {"policy": "default@2"},
    {"policy": "A-1_b.c@999999999"},
    {"policy": None},
    {"metadata": {}},
    {"metadata": {"user": "7", "": ""}},
    {"metadata": {f"key{number}": "x" * 4096 for number in range(64)}},
    {"metadata": {"k" * 128: "line\nline\t"}},
    {"webhook": "https://example.org/hook"},
    {"webhook": "http://example.org"},
    {"webhook": None},
]

#: (what is wrong, the line that says so).
WRONG_JOBS: list[tuple[dict[str, Any], str]] = [
    ({"content_id": ABSENT}, "content_id is required"),
    ({"image": ABSENT}, "image is required"),
    ({"content_id": ""}, "content_id: string should have at least 1 character"),
    ({"content_id": "x" * 513}, "content_id: string should have at most 512 characters"),
    ({"content_id": 7}, "content_id: input should be a valid string"),
    ({"content_id": None}, "content_id: input should be a valid string"),
    ({"content_id": "a\nb"}, "content_id: control characters are not allowed"),
    ({"content_id": "a\x00"}, "content_id: control characters are not allowed"),
    ({"content_id": "\x1b[2J"}, "content_id: control characters are not allowed"),
    ({"image": {"url": "https://example.org/\x00"}}, "image.url: control characters are not allowed"),
    ({"image": {"path": "a\r\nb"}}, "image.path: control characters are not allowed"),
    ({"image": {"s3": "s3://bucket/\x1b"}}, "image.s3: control characters are not allowed"),
    ({"webhook": "https://example.org/\x00"}, "webhook: control characters are not allowed"),
    ({"metadata": {"a": "b\x00"}}, "metadata.a: a NUL is not allowed"),
    ({"metadata": {"\x00": "b"}}, r"metadata.'\x00': a NUL is not allowed"),
    ({"content_id": "a\x7f"}, "content_id: control characters are not allowed"),
    ({"content_id": "a\x9b2J"}, "content_id: control characters are not allowed"),
    ({"image": None}, "image: input should be a valid dictionary"),
    ({"image": "https://example.org/a.png"}, "image: input should be a valid dictionary"),
    ({"image": {}}, "image: give exactly one of url, s3, blob, base64, path; got none"),
    ({"image": {"url": "x", "path": "y"}}, "image: give exactly one of url, s3, blob, base64, path; got path, url"),
    ({"image": {"url": "x", "path": None}}, "image: give exactly one of url, s3, blob, base64, path; got path, url"),
    ({"image": {"url": None}}, "image: give exactly one of url, s3, blob, base64, path; got url"),
    ({"image": {"uri": "x"}}, "image.uri is not an argument of a job"),
    ({"image": {"url": "x", "size": 3}}, "image.size is not an argument of a job"),
    ({"image": {"url": 5}}, "image.url: input should be a valid string"),
    ({"image": {"url": ""}}, "image.url: string should have at least 1 character"),
    ({"image": {"url": "x" * 8193}}, "image.url: string should have at most 8192 characters"),
    ({"image": {"s3": "bucket/key"}}, "image.s3: string should match pattern '^s3://[^/]+/.+$'"),
    ({"image": {"s3": "s3://bucket/"}}, "image.s3: string should match pattern '^s3://[^/]+/.+$'"),
    ({"image": {"blob": "A" * 64}}, "image.blob: string should match pattern '^[0-9a-f]{64}$'"),
    ({"image": {"blob": "a" * 63}}, "image.blob: string should match pattern '^[0-9a-f]{64}$'"),
    ({"image": {"blob": "../" + "a" * 61}}, "image.blob: string should match pattern '^[0-9a-f]{64}$'"),
    ({"image": {"base64": ""}}, "image.base64: string should have at least 1 character"),
    ({"image": {"path": ""}}, "image.path: string should have at least 1 character"),
    ({"policy": ""}, "policy: write it as ID or ID@VERSION, for example default or default@2"),
    ({"policy": "a b"}, "policy: write it as ID or ID@VERSION, for example default or default@2"),
    ({"policy": "default@"}, "policy: write it as ID or ID@VERSION, for example default or default@2"),
    ({"policy": "default@0"}, "policy: write it as ID or ID@VERSION, for example default or default@2"),
    ({"policy": "default@01"}, "policy: write it as ID or ID@VERSION, for example default or default@2"),
    ({"policy": "default@1@2"}, "policy: write it as ID or ID@VERSION, for example default or default@2"),
    ({"policy": "../default"}, "policy: write it as ID or ID@VERSION, for example default or default@2"),
    ({"policy": "default@1000000000"}, "policy: write it as ID or ID@VERSION, for example default or default@2"),
    ({"policy": 2}, "policy: input should be a valid string"),
    ({"metadata": None}, "metadata: input should be a valid dictionary"),
    ({"metadata": ["a"]}, "metadata: input should be a valid dictionary"),
    ({"metadata": {"a": 1}}, "metadata.a: input should be a valid string"),
    ({"metadata": {"a": None}}, "metadata.a: input should be a valid string"),
    ({"metadata": {"a": {"b": "c"}}}, "metadata.a: input should be a valid string"),
    ({"metadata": {f"key{n}": "" for n in range(65)}}, "metadata: dictionary should have at most 64 items"),
    ({"metadata": {"a": "x" * 4097}}, "metadata.a: string should have at most 4096 characters"),
    ({"metadata": {"k" * 129: ""}}, f"metadata.'{'k' * 64}': string should have at most 128 characters"),
    ({"webhook": "ftp://example.org"}, "webhook: string should match pattern '^https?://"),
    ({"webhook": "javascript:alert(1)"}, "webhook: string should match pattern '^https?://"),
    ({"webhook": "https://example.org/ a"}, "webhook: string should match pattern '^https?://"),
    ({"webhook": "https://" + "x" * 2041}, "webhook: string should have at most 2048 characters"),
    ({"url": "https://example.org/a.png"}, "url is not an argument of a job"),
    ({"priority": "high"}, "priority is not an argument of a job"),
]


@pytest.mark.parametrize("changes", RIGHT_JOBS)
def test_a_right_job_is_taken_as_it_is(changes: dict[str, Any]) -> None:
    arguments = job(**changes)

    taken = ModerationJob.from_arguments(arguments)

    assert taken.content_id == arguments["content_id"]
    assert taken.metadata == arguments.get("metadata", {})
    assert taken.policy == arguments.get("policy")
    assert taken.webhook == arguments.get("webhook")
    assert {taken.image.kind: getattr(taken.image, taken.image.kind)} == arguments["image"]


@pytest.mark.parametrize(("changes", "line"), WRONG_JOBS)
def test_a_wrong_field_is_named(changes: dict[str, Any], line: str) -> None:
    assert refusal(job(**changes)).startswith(f"invalid job: {line}")


def test_every_wrong_field_is_named_in_one_line() -> None:
    arguments = {"image": {"url": 5}, "policy": "a b", "metadata": {"k": 1}, "webhook": "x", "extra": 1}

    found = refusal(arguments)

    for name in ("content_id", "image.url", "policy", "metadata.k", "webhook", "extra"):
        assert f" {name}" in found
    assert found.isprintable()


@pytest.mark.parametrize("arguments", [None, [], "job", 5, [["image", "content_id"]]])
def test_arguments_that_are_no_object_are_refused(arguments: object) -> None:
    assert refusal(arguments).startswith("invalid job: job: input should be a valid dictionary")


HALF = "\ud83d"


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"content_id": HALF}, "content_id"),
        ({"image": {"url": HALF}}, "image.url"),
        ({"image": {"path": HALF}}, "image.path"),
        ({"image": {"base64": HALF}}, "image.base64"),
        ({"policy": HALF}, "policy"),
        ({"metadata": {"a": HALF}}, "metadata.a"),
        ({"metadata": {HALF: "a"}}, "metadata."),
        ({"webhook": f"https://{HALF}"}, "webhook"),
    ],
)
def test_half_a_character_is_refused_because_no_verdict_can_echo_it(changes: dict[str, Any], name: str) -> None:
    # JSON's "\ud83d" reaches us as a lone surrogate.
    found = refusal(json.loads(json.dumps(job(**changes))))

    assert found.startswith(f"invalid job: {name}")
    assert found.isprintable()


@pytest.mark.parametrize(
    "changes",
    [
        {"policy": "default\n"},
        {"image": {"blob": "a" * 64 + "\n"}},
        {"image": {"s3": "s3://bucket/key\n"}},
        {"webhook": "https://example.org\n"},
        {"content_id": "upload-1\n"},
    ],
)
def test_a_line_feed_at_the_end_is_not_overlooked(changes: dict[str, Any]) -> None:
    (name,) = changes
    assert refusal(job(**changes)).startswith(f"invalid job: {name}")


@pytest.mark.parametrize(
    "arguments",
    [
        job(metadata={f"key{number}": number for number in range(50_000)}),
        job(**{f"extra{number}": 1 for number in range(50_000)}),
        job(**{"x" * 1_000_000: 1}),
        job(**{"a\nb\x1b[2J": 1}),
        job(metadata={"a\nb" * 10_000: 5}),
    ],
    ids=["metadata", "extra", "long name", "terminal", "long key"],
)
def test_an_error_stays_one_readable_line_however_much_is_wrong(arguments: dict[str, Any]) -> None:
    found = refusal(arguments)

    assert found.isprintable()
    assert len(found) < 10_000


def test_what_is_left_out_of_a_long_error_is_counted() -> None:
    assert refusal(job(**{f"extra{number}": 1 for number in range(100)})).endswith("; and 20 more")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (job(), {"content_id": "upload-1"}),
        (
            {"content_id": "c", "policy": "p@1", "metadata": {"a": "b"}, "image": 5, "extra": 1},
            {"content_id": "c", "policy": "p@1", "metadata": {"a": "b"}},
        ),
        ({"content_id": "c", "policy": "a b", "metadata": {"a": "b"}}, {"content_id": "c", "metadata": {"a": "b"}}),
        ({"content_id": "c", "policy": "p", "metadata": {"a": 1}}, {"content_id": "c", "policy": "p"}),
        ({"content_id": "c", "policy": {}, "metadata": 1, "webhook": "ftp://h/"}, {"content_id": "c"}),
        ({"content_id": "c", "webhook": "https://h/"}, {"content_id": "c", "webhook": "https://h/"}),
        ({"content_id": "c", "metadata": {"a": HALF}}, {"content_id": "c"}),
    ],
)
def test_what_can_be_said_of_a_wrong_job_is_kept(arguments: dict[str, Any], expected: dict[str, Any]) -> None:
    assert Subject.salvage(arguments) == Subject(**expected)


@pytest.mark.parametrize(
    "arguments", [None, [], "x", {}, {"content_id": 5}, {"content_id": ""}, {"content_id": "a\nb"}, {"policy": "p"}]
)
def test_nothing_can_be_said_of_a_job_without_content_id(arguments: object) -> None:
    assert Subject.salvage(arguments) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3),
    max_leaves=8,
)
FIELDS = ["image", "content_id", "policy", "metadata", "webhook", "extra"]
right_jobs = st.sampled_from([JOB | right for right in RIGHT_JOBS])
wrong_fields = st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=2)


@unhurried
@given(st.builds(lambda right, wrong: right | wrong, right_jobs, wrong_fields) | json_values)
@example({"content_id": "c", "metadata": {"\ud800": "\ud800"}})
def test_a_hostile_job_is_a_job_or_one_line_and_its_salvage_can_be_written(arguments: Any) -> None:
    try:
        taken = ModerationJob.from_arguments(arguments)
    except JobInvalid:
        assert refusal(arguments).isprintable()
    else:
        assert ModerationJob.from_arguments(json.loads(taken.model_dump_json(exclude_unset=True))) == taken

    kept = Subject.salvage(arguments)
    if kept is not None:
        assert kept.content_id == arguments["content_id"]
        assert Subject.model_validate_json(kept.model_dump_json()) == kept


def category(**changes: Any) -> CategoryVerdict:
    fields: dict[str, Any] = {
        "score": 0.1 + 0.2, "action": "review", "margin": -1.5e-7, "prompt": "a photo of a gün", "contrast": "a knife",
        "view": 0, "thresholds": {"review": 0.3},
    }  # fmt: skip
    return CategoryVerdict(**(fields | changes))


POLICY_STAMP = PolicyStamp(id="default", version=3, digest="sha256:00")
MODEL_STAMP = ModelStamp(id="openai/clip", revision="abc", precision="fp32")
VERDICT = Verdict(
    verdict_id="f" * 32,
    job_id="job-1",
    content_id="upload-1",
    action="review",
    reason=None,
    policy=POLICY_STAMP,
    role="canary",
    model=MODEL_STAMP,
    calibrated=True,
    categories={"weapons": category(), "drugs": category(score=0.0, action="allow", thresholds={"block": 1.0})},
    image=ImageFacts(sha256="0", format="PNG", width=3, height=4, frames=1, views=1, bytes=5),
    shadow=[
        ShadowVerdict(
            policy=PolicyStamp(id="default", version=4, digest="sha256:01"),
            action="block",
            categories={"weapons": category(action="block", thresholds={"block": 0.1})},
        )
    ],
    metadata={"user": "7", "note": "two\nlines \U0001f600 \x00"},
    timings_seconds={"queue": 0.01, "fetch": 1.0},
    worker="host.1",
    created_at="2026-01-01T00:00:00.000Z",
)
UNJUDGED = Verdict(
    verdict_id="0" * 32,
    job_id=None,
    content_id="upload-2",
    action="review",
    reason="unknown_policy",
    policy=PolicyStamp(id="nowhere", version=None, digest=None),
    model=MODEL_STAMP,
    calibrated=False,
    categories={},
    image=None,
    worker="host.1",
    created_at="2026-01-01T00:00:00.000Z",
)


@pytest.mark.parametrize("verdict", [VERDICT, UNJUDGED])
def test_a_verdict_survives_json(verdict: Verdict) -> None:
    written = verdict.to_json()

    assert "\n" not in written
    assert Verdict.model_validate_json(written) == verdict
    assert Verdict.model_validate(json.loads(written)) == verdict
    assert Verdict.model_validate(verdict.model_dump(mode="json")) == verdict


@unhurried
@given(st.floats(0, 1), st.floats(allow_nan=False, allow_infinity=False), st.floats(0, 1), st.text(max_size=20))
def test_every_number_and_word_of_a_verdict_survives_json(
    score: float, margin: float, threshold: float, prompt: str
) -> None:
    found = category(score=score, margin=margin, thresholds={"block": threshold}, prompt=prompt)
    verdict = VERDICT.model_copy(update={"categories": {"c": found}})

    assert Verdict.model_validate_json(verdict.to_json()).categories == {"c": found}


def test_a_verdict_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        VERDICT.action = "allow"


def identity(**changes: Any) -> str:
    policy = POLICY_STAMP.model_copy(update=changes.pop("policy", {}))
    model = MODEL_STAMP.model_copy(update=changes.pop("model", {}))
    return verdict_id(changes.pop("source", "job-1"), policy, model)


def test_a_verdict_has_the_same_name_every_time() -> None:
    assert identity() == "330aeea0e00f6ee1da20731b9409681b"


@pytest.mark.parametrize(
    "changes",
    [
        {"source": "job-2"},
        {"policy": {"digest": "sha256:01"}},
        {"policy": {"digest": None}},
        {"model": {"id": "other"}},
        {"model": {"revision": "abd"}},
        {"model": {"precision": "int8"}},
    ],
)
def test_another_job_digest_or_model_is_another_verdict(changes: dict[str, Any]) -> None:
    assert identity(**changes) != identity()


def test_the_name_of_a_verdict_follows_from_nothing_else() -> None:
    # The version is in the digest already.
    assert identity(policy={"version": 4}) == identity()


def test_the_time_is_in_utc_with_milliseconds() -> None:
    now = utc_now()

    assert len(now) == len("2026-01-01T00:00:00.000Z")
    assert (now[10], now[19], now[-1]) == ("T", ".", "Z")


JOB_SCHEMA = Draft202012Validator(ModerationJob.model_json_schema())
VERDICT_SCHEMA = Draft202012Validator(Verdict.model_json_schema(mode="serialization"))
POLICY_SCHEMA = Draft202012Validator(Policy.model_json_schema())


@pytest.mark.parametrize("schema", [JOB_SCHEMA, VERDICT_SCHEMA, POLICY_SCHEMA], ids=["job", "verdict", "policy"])
def test_a_json_schema_is_one(schema: Draft202012Validator) -> None:
    Draft202012Validator.check_schema(schema.schema)


@pytest.mark.parametrize("changes", RIGHT_JOBS)
def test_the_job_schema_accepts_what_the_worker_accepts(changes: dict[str, Any]) -> None:
    assert [error.message for error in JOB_SCHEMA.iter_errors(job(**changes))] == []


@pytest.mark.parametrize("changes", [changes for changes, _ in WRONG_JOBS])
def test_the_job_schema_refuses_what_the_worker_refuses(changes: dict[str, Any]) -> None:
    assert not JOB_SCHEMA.is_valid(job(**changes))


@pytest.mark.parametrize("verdict", [VERDICT, UNJUDGED])
def test_the_verdict_schema_accepts_what_the_worker_pushes(verdict: Verdict) -> None:
    assert [error.message for error in VERDICT_SCHEMA.iter_errors(json.loads(verdict.to_json()))] == []


WRONG_VERDICTS: list[tuple[tuple[str, ...], Any]] = [
    (("schema_version",), 2),
    (("verdict_id",), ABSENT),
    (("content_id",), None),
    (("action",), "maybe"),
    (("action",), ABSENT),
    (("reason",), 5),
    (("role",), "shadow"),
    (("policy",), None),
    (("policy", "version"), "3"),
    (("model", "precision"), None),
    (("calibrated",), "yes"),
    (("categories", "weapons", "score"), 1.5),
    (("categories", "weapons", "score"), -0.1),
    (("categories", "weapons", "action"), "deny"),
    (("categories", "weapons", "view"), -1),
    (("categories", "weapons", "thresholds", "review"), "0.5"),
    (("image", "width"), "wide"),
    (("shadow",), {}),
    (("metadata", "user"), 7),
    (("timings_seconds", "queue"), "soon"),
]


def test_a_consumer_passes_over_what_a_newer_worker_adds() -> None:
    newer = json.loads(VERDICT.to_json()) | {"added": 1}
    newer["categories"]["weapons"]["added"] = newer["image"]["added"] = [1]

    assert Verdict.model_validate_json(json.dumps(newer)) == VERDICT
    assert VERDICT_SCHEMA.is_valid(newer)


@pytest.mark.parametrize(("path", "value"), WRONG_VERDICTS)
def test_the_verdict_schema_and_the_client_refuse_the_same(path: tuple[str, ...], value: Any) -> None:
    wrong = json.loads(VERDICT.to_json())
    *parents, last = path
    at = wrong
    for name in parents:
        at = at[name]
    if value is ABSENT:
        del at[last]
    else:
        at[last] = value

    assert not VERDICT_SCHEMA.is_valid(wrong)
    with pytest.raises(ValidationError):
        Verdict.model_validate_json(json.dumps(wrong))


def policy(**changes: Any) -> dict[str, Any]:
    weapons = {"prompts": ["a gun"], "thresholds": {"review": 0.5, "block": 0.9}} | changes.pop("weapons", {})
    fields = {"policy": "p", "version": 1, "contrast": ["food"], "categories": {"weapons": weapons}} | changes
    return {name: value for name, value in fields.items() if value is not ABSENT}


def test_the_policy_schema_accepts_the_shipped_policies() -> None:
    files = sorted(POLICIES.glob("*/v*.yaml"))

    assert POLICIES / "default" / "v1.yaml" in files
    for file in files:
        data = yaml.safe_load(file.read_text())
        assert [error.message for error in POLICY_SCHEMA.iter_errors(data)] == [], file


@pytest.mark.parametrize(
    "data",
    [
        policy(),
        policy(description="House rules.", templates=["{}", "a photo of {}", "{a} {}", "two\nlines {}"]),
        policy(weapons={"look_alikes": ["a toy"], "description": "Guns."}),
        policy(weapons={"look_alikes": None}),
        policy(weapons={"thresholds": {"review": 0}}),
        policy(weapons={"thresholds": {"block": 1, "review": None}}),
        policy(weapons={"thresholds": {"review": 0.5, "block": 0.5}}),
        policy(calibration={"m@r": {"weapons": {"bias": -3, "temperature": 0.1, "contrast_weight": 1}}}),
        policy(version=999_999_999),
    ],
)
def test_the_policy_schema_accepts_what_the_linter_accepts(data: dict[str, Any]) -> None:
    assert [error.message for error in POLICY_SCHEMA.iter_errors(data)] == []
    Policy.model_validate(data)


@pytest.mark.parametrize(
    "data",
    [
        policy(policy=ABSENT),
        policy(policy="a b"),
        policy(policy=""),
        policy(policy=1),
        policy(version=0),
        policy(version="1"),
        policy(version=1.5),
        policy(version=True),
        policy(version=10**9),
        policy(contrast=ABSENT),
        policy(contrast=[]),
        policy(contrast="food"),
        policy(contrast=["   "]),
        policy(contrast=[""]),
        policy(contrast=[5]),
        policy(contrast=["x" * 501]),
        policy(contrast=[f"thing {number}" for number in range(1001)]),
        policy(templates=[]),
        policy(templates=["a photo"]),
        policy(templates=["{} and {}"]),
        policy(templates=["{0}"]),
        policy(categories={}),
        policy(categories={"a b": {"prompts": ["x"], "thresholds": {"review": 0.5}}}),
        policy(categories={f"c{n}": {"prompts": ["x"], "thresholds": {"review": 0.5}} for n in range(201)}),
        policy(weapons={"prompts": []}),
        policy(weapons={"look_alikes": []}),
        policy(weapons={"thresholds": {}}),
        policy(weapons={"thresholds": {"review": None}}),
        policy(weapons={"thresholds": {"review": 7.0}}),
        policy(weapons={"thresholds": {"review": -0.1}}),
        policy(weapons={"thresholds": {"review": "0.5"}}),
        policy(weapons={"thresholds": {"review": 0.5, "blok": 0.9}}),
        policy(weapons={"lookalikes": ["a toy"]}),
        policy(calibration={"m@r": {"weapons": {"temperature": 0}}}),
        policy(calibration={"m@r": {"weapons": {"temperature": -1}}}),
        policy(calibration={"m@r": {"weapons": {"contrast_weight": 1.1}}}),
        policy(calibration={"m@r": {"weapons": {"slope": 1}}}),
        policy(calibration=None),
        policy(contrasts=["food"]),
        [],
    ],
)
def test_the_policy_schema_and_the_linter_refuse_the_same(data: Any) -> None:
    assert not POLICY_SCHEMA.is_valid(data)
    with pytest.raises(ValidationError):
        Policy.model_validate(data)
