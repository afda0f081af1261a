"""`sluice explain` with the packaged model: images, verdicts of a real worker, the ledger, and the pages it writes."""

from __future__ import annotations

import json
import logging
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import judged
import numpy as np
import pytest
import redis
from browser import open_page
from jsonschema import Draft202012Validator
from PIL import Image
from rq.job import Job

from worker import lookup
from worker.cli import main
from worker.client import QUEUES, Moderation
from worker.ledger.archive import Archiver, Rolling
from worker.ledger.entry import LEDGER
from worker.ledger.shelf import DirectoryShelf
from worker.records import Verdict
from worker.runtime.batch_worker import BatchWorker
from worker.runtime.stable import ModelStable
from worker.settings import load_settings
from worker.sinks.stream import STREAM

pytestmark = [pytest.mark.timeout(120), pytest.mark.thorough]

POLICIES = Path(__file__).parents[2] / "policies"
DRAWINGS = Path(__file__).parents[2] / "worker" / "cli" / "demo_images"
REVOLVER, CAT = DRAWINGS / "revolver-noto.png", DRAWINGS / "cat-face-noto.png"
#: Nobody listens there.
DEAD = "redis://127.0.0.1:1/0"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the demo policy: each run of the command compiles all policies that are at work."""
    policies = tmp_path_factory.mktemp("demo") / "policies"
    shutil.copytree(POLICIES / "demo", policies / "demo")
    return policies


@pytest.fixture
def explain(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, demo: Path
) -> Callable[..., tuple[int, str, str]]:
    """Run the command with the packaged model and the demo policy; exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    # The command logs to a stream that ends with the test.
    monkeypatch.setattr(logging.root, "handlers", list(logging.root.handlers))

    def run(*arguments: object, **settings: object) -> tuple[int, str, str]:
        given = {"model": "builtin", "policies": demo, "device": "cpu"} | settings
        flags = [text for name, value in given.items() for text in (f"--{name.replace('_', '-')}", str(value))]
        capsys.readouterr()
        code = main(["explain", *map(str, arguments), *flags])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def schema(of: str, capsys: pytest.CaptureFixture[str]) -> Draft202012Validator:
    capsys.readouterr()
    assert main(["schema", of]) == 0
    return Draft202012Validator(json.loads(capsys.readouterr().out))


# -- an image ---------------------------------------------------------------------------------------------------------


def test_an_image_is_judged_as_score_does_and_explained_from_its_embeddings(
    explain: Callable[..., tuple[int, str, str]], capsys: pytest.CaptureFixture[str], demo: Path
) -> None:
    code, out, _ = explain(REVOLVER, "--json", policy="demo")
    explanation = json.loads(out)
    main(["score", str(REVOLVER), "--json", "--policy", "demo", "--model", "builtin", "--policies", str(demo)])
    verdict = json.loads(capsys.readouterr().out)
    assert code == 0
    schema("explanation", capsys).validate(explanation)
    assert (explanation["action"], explanation["basis"], explanation["recomputed"]) == ("block", "image", "equal")
    for found in explanation["categories"]:
        judged = verdict["categories"][found["name"]]
        assert {key: found[key] for key in ("score", "action", "margin", "prompt", "contrast", "view")} == {
            key: judged[key] for key in ("score", "action", "margin", "prompt", "contrast", "view")
        }
    assert [(removal["text"], removal["action"]) for removal in explanation["removals"] if removal["flips"]] == [
        ("a pistol", "review")
    ]
    assert [moved["threshold"] for moved in explanation["thresholds"]] == ["block"]
    assert len(explanation["views"]) == verdict["image"]["views"] == 3
    assert explanation["heat"] is None


@pytest.mark.parametrize(
    ("drawing", "right", "bottom", "category"),
    [
        ("bomb-fluent", False, False, "explosives"),
        ("cigarette-twemoji", True, True, "tobacco"),
    ],
)
def test_the_map_is_reddest_in_the_corner_where_the_thing_is(
    explain: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    drawing: str,
    right: bool,
    bottom: bool,
    category: str,
) -> None:
    # A plain background would be trimmed; on this one the whole picture is the only view.
    y, x = np.mgrid[0:256, 0:256]
    ground = np.stack([200 + 40 * x / 256, 210 + 30 * y / 256, 225 + 0 * x], -1).astype(np.uint8)
    with Image.open(DRAWINGS / f"{drawing}.png") as file:
        picture, thing = Image.fromarray(ground), file.convert("RGBA").resize((128, 128))
    picture.paste(thing, (128 * right, 128 * bottom), thing)
    picture.save(tmp_path / "upload.png")

    code, out, _ = explain("upload.png", "--heat", "heat.png", "--json", policy="demo")

    heat = json.loads(out)["heat"]
    assert (code, heat["category"], heat["view"]) == (0, category, 0)
    losses = np.array(heat["losses"])
    assert losses.max() == heat["greatest"] > 1
    left, top, *_ = heat["strongest"]
    middle = (heat["view_pixels"] - heat["patch_pixels"]) / 2
    assert ((left > middle), (top > middle)) == (right, bottom)
    with Image.open(tmp_path / "heat.png") as file:
        drawn = np.asarray(file, int)
    plain = np.asarray(picture.resize(drawn.shape[:2]), int)
    redder = (drawn[..., 0] - drawn[..., 2]) - (plain[..., 0] - plain[..., 2])
    half = len(drawn) // 2
    quarters = {
        (to_right, below): redder[half * below :, half * to_right :][:half, :half].sum()
        for to_right in (False, True)
        for below in (False, True)
    }
    assert max(quarters, key=quarters.__getitem__) == (right, bottom)


def test_what_is_no_image_has_its_reason_explained_to_each_reader(
    explain: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    (tmp_path / "hostile.png").write_bytes(REVOLVER.read_bytes()[:600])
    code, out, _ = explain("hostile.png", "--report", "r.html", policy="demo")
    assert code == 1
    assert "not judged: image_truncated: the file ends before the image does" in out
    assert "image_truncated" in (tmp_path / "r.html").read_text()
    code, out, _ = explain("hostile.png", "--audience", "user", policy="demo")
    assert code == 1
    assert "the file is not complete" in out
    assert "image_truncated" not in out
    code, out, err = explain("hostile.png", "--heat", "h.png", policy="demo")
    assert (code, out) == (2, "")
    assert err.endswith("sluice: --heat: the image was not judged (image_truncated), so there is nothing to draw\n")


# -- a verdict --------------------------------------------------------------------------------------------------------


@dataclass
class Judged:
    """What a worker made of two uploads under a policy of three versions, the second of which watches."""

    url: str
    policies: Path
    block: Job
    allow: Job

    def verdict(self, job: Job) -> Verdict:
        return Verdict.model_validate(job.latest_result().return_value)


@pytest.fixture(scope="module")
def stable(redis_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[_SharedStable]:
    """One horse with the packaged model for all the tests of this module."""
    policies = tmp_path_factory.mktemp("house") / "policies"
    shutil.copytree(POLICIES / "demo", policies / "demo")
    first = (policies / "demo" / "v1.yaml").read_text()
    without = first.replace("version: 1", "version: 2").replace("      - a pistol\n", "")
    (policies / "demo" / "v2.yaml").write_text(without)
    (policies / "demo" / "v3.yaml").write_text(first.replace("version: 1", "version: 3").replace("0.95", "0.999"))
    (policies / "rollout.yaml").write_text("demo: {live: 1, shadow: [2]}\n")
    flags = {"model": "builtin", "policies": str(policies), "policy": "demo", "redis_url": redis_server}
    stable = _SharedStable(load_settings(flags))
    stable.policies = policies
    yield stable
    ModelStable.close(stable)


class _SharedStable(ModelStable):
    policies: Path

    def close(self) -> None:
        """Stay; the module closes it."""


@pytest.fixture
def house(connection: redis.Redis, redis_url: str, stable: _SharedStable, tmp_path: Path) -> Judged:
    """Let a worker judge a revolver and a cat."""
    moderation = Moderation(connection)
    jobs = [moderation.enqueue(content_id=file.stem, data=file.read_bytes()) for file in (REVOLVER, CAT)]
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    BatchWorker(list(QUEUES.values()), connection=connection, stable=stable).work(burst=True)
    for number, handler in kept.items():
        signal.signal(number, handler)
    own = tmp_path / "policies"
    shutil.copytree(stable.policies, own)
    return Judged(redis_url, own, *jobs)


def test_a_job_and_its_verdict_are_explained_alike_from_the_ledger(
    explain: Callable[..., tuple[int, str, str]], house: Judged, capsys: pytest.CaptureFixture[str]
) -> None:
    verdict = house.verdict(house.block)
    by_job, by_verdict = (
        explain(ref, "--json", policies=house.policies, redis_url=house.url)
        for ref in (house.block.id, verdict.verdict_id)
    )
    assert by_job == by_verdict
    code, out, _ = by_job
    explanation = json.loads(out)
    schema("explanation", capsys).validate(explanation)
    assert code == 0
    assert (explanation["basis"], explanation["recomputed"], explanation["notes"]) == ("ledger", "equal", [])
    for found in explanation["categories"]:
        assert found["score"] == verdict.categories[found["name"]].score
        assert found["margin"] == verdict.categories[found["name"]].margin
    decided = next(view for view in explanation["views"] if view["decides"])
    assert decided["margin"] == pytest.approx(verdict.categories["weapons"].margin, abs=1e-4)
    assert [(said["policy"]["version"], said["action"], said["source"]) for said in explanation["versions"]] == [
        (2, verdict.shadow[0].action, "judged"),
        (3, "review", "judged"),
    ]
    assert [removal["text"] for removal in explanation["removals"] if removal["flips"]] == ["a pistol"]


def test_a_verdict_is_found_when_its_job_is_forgotten_and_explained_alone_when_the_ledger_has_none(
    explain: Callable[..., tuple[int, str, str]], house: Judged, connection: redis.Redis
) -> None:
    connection.delete(f"rq:job:{house.block.id}", f"rq:results:{house.block.id}", LEDGER)
    code, out, _ = explain(house.block.id, "--json", policies=house.policies, redis_url=house.url)
    explanation = json.loads(out)
    assert (code, explanation["basis"], explanation["recomputed"]) == (0, "verdict", None)
    assert "the ledger has no embeddings of this verdict" in explanation["notes"][0]
    assert [(said["policy"]["version"], said["source"]) for said in explanation["versions"]] == [(2, "shadow")]
    assert explanation["categories"][0]["thresholds"][0]["by_logits"] > 0
    assert explanation["thresholds"][0]["action"] == "review"
    assert (explanation["sentences"], explanation["removals"]) == ([], [])


def test_the_archive_of_the_ledger_is_looked_at_too(
    explain: Callable[..., tuple[int, str, str]], house: Judged, connection: redis.Redis, tmp_path: Path
) -> None:
    rolling = Rolling(entries=100, seconds=0.0, claim_seconds=0.001)
    Archiver(connection, DirectoryShelf(tmp_path / "archive"), rolling, None, lambda what, file: None).once()
    connection.delete(LEDGER)
    code, out, _ = explain(
        house.block.id, "--ledger", "archive", "--json", policies=house.policies, redis_url=house.url
    )
    assert (code, json.loads(out)["basis"], json.loads(out)["recomputed"]) == (0, "ledger", "equal")


def test_the_upload_itself_gives_the_map_and_another_file_is_refused(
    explain: Callable[..., tuple[int, str, str]], house: Judged, connection: redis.Redis, tmp_path: Path
) -> None:
    connection.delete(LEDGER)
    where: dict[str, Any] = {"policies": house.policies, "redis_url": house.url}
    code, out, _ = explain(house.block.id, "--image", REVOLVER, "--heat", "h.png", "--json", **where)
    assert (code, json.loads(out)["basis"], json.loads(out)["heat"]["category"]) == (0, "image", "weapons")
    with Image.open(tmp_path / "h.png") as drawn:
        assert drawn.size == (432, 432)
    code, out, err = explain(house.block.id, "--image", CAT, **where)
    assert (code, out) == (2, "")
    assert "cat-face-noto.png is not the image of this verdict" in err
    code, _, err = explain(house.block.id, "--image", "nobody.png", **where)
    assert (code, "nobody.png: No such file" in err) == (2, True)
    code, _, err = explain(house.block.id, "--heat", "h2.png", **where)
    assert (code, "the picture is not at hand; name the upload's file with --image" in err) == (2, True)
    assert not (tmp_path / "h2.png").exists()


def test_views_that_the_worker_did_not_make_explain_nothing(
    explain: Callable[..., tuple[int, str, str]], house: Judged
) -> None:
    where: dict[str, Any] = {"policies": house.policies, "redis_url": house.url, "views": "single"}
    code, out, _ = explain(house.block.id, "--image", REVOLVER, "--json", **where)
    explanation = json.loads(out)
    assert (code, explanation["recomputed"], explanation["removals"]) == (0, "differs", [])
    assert "judging again did not give this verdict" in explanation["notes"][0]
    code, _, err = explain(house.block.id, "--image", REVOLVER, "--heat", "h.png", **where)
    assert (code, "judging again did not give this verdict" in err) == (2, True)


@pytest.mark.parametrize("change", ["edited", "gone", "broken", "no directory"])
def test_a_policy_that_changed_or_went_is_said_and_the_verdicts_own_numbers_stay(
    explain: Callable[..., tuple[int, str, str]], house: Judged, change: str
) -> None:
    file = house.policies / "demo" / "v1.yaml"
    match change:
        case "edited":
            file.write_text(file.read_text().replace("- a pistol", "- a small pistol"))
        case "gone":
            file.unlink()
            (house.policies / "rollout.yaml").write_text("demo: {live: 2}\n")
        case "broken":
            file.write_text("policy: [")
        case _:
            shutil.rmtree(house.policies)
    code, out, _ = explain(house.block.id, "--json", policies=house.policies, redis_url=house.url)
    explanation = json.loads(out)
    assert (code, explanation["basis"], explanation["recomputed"]) == (0, "verdict", None)
    (note,) = explanation["notes"]
    says = {"edited": "demo@1 has changed since", "gone": "demo@1 is not among the policies any more"}
    assert says.get(change, "the policies cannot be read") in note
    assert explanation["categories"][0]["prompt"] == "a pistol"
    code, out, _ = explain(house.block.id, "--audience", "user", policies=house.policies, redis_url=house.url)
    assert (code, "weapons" in out, "Guns, swords" in out) == (0, True, False)


def test_another_model_explains_nothing(explain: Callable[..., tuple[int, str, str]], house: Judged) -> None:
    where: dict[str, Any] = {"policies": house.policies, "redis_url": house.url}
    code, out, _ = explain(house.block.id, "--json", model="openai/other", **where)
    assert (code, json.loads(out)["basis"]) == (0, "verdict")
    assert "the model here is openai/other; name that one with --model" in json.loads(out)["notes"][0]
    code, _, err = explain(house.block.id, "--image", REVOLVER, model="openai/other", **where)
    assert (code, "name that one with --model" in err) == (2, True)


def test_versions_may_be_limited_and_an_unknown_one_is_named(
    explain: Callable[..., tuple[int, str, str]], house: Judged
) -> None:
    where: dict[str, Any] = {"policies": house.policies, "redis_url": house.url}
    _, out, _ = explain(house.allow.id, "--versions", "3", "--json", **where)
    assert [(said["policy"]["version"], said["source"]) for said in json.loads(out)["versions"]] == [
        (2, "shadow"),
        (3, "judged"),
    ]
    code, out, err = explain(house.allow.id, "--versions", "3,9", **where)
    assert (code, out) == (3, "")
    assert err == "sluice: there is no demo@9; known versions of demo: 1, 2, 3\n"


# -- what is not there ------------------------------------------------------------------------------------------------


def test_an_unknown_id_is_one_line_that_says_where_was_looked(
    explain: Callable[..., tuple[int, str, str]], house: Judged
) -> None:
    code, out, err = explain("0" * 32, redis_url=house.url)
    assert (code, out) == (3, "")
    assert re.fullmatch(
        r"sluice: no verdict .* 0{32} among the 2 newest of sluice:verdicts; .*sluice verdicts --json`\n", err
    )
    code, _, err = explain("photo.jpgg", redis_url=house.url)
    assert (code, err) == (
        2,
        "sluice: photo.jpgg is no file, no URL and no id; name an image, a job, a verdict or an upload\n",
    )


def test_a_stream_that_is_too_long_is_looked_through_in_part_and_that_is_said(
    connection: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdicts = [judged.verdict(judged.image({}), job_id=f"job-{number}") for number in range(5)]
    for verdict in verdicts:
        connection.xadd(STREAM, {"verdict": verdict.to_json()})
    monkeypatch.setattr(lookup, "_PAGE", 2)
    assert lookup.find_verdict(connection, "job-0") == verdicts[0]
    monkeypatch.setattr(lookup, "MAX_VERDICTS", 3)
    assert lookup.find_verdict(connection, "job-2") == verdicts[2]
    with pytest.raises(lookup.VerdictMissing, match="among the 3 newest of sluice:verdicts, and older ones were not"):
        lookup.find_verdict(connection, "job-1")


def test_an_upload_is_found_by_its_content_id_but_hides_no_job(connection: redis.Redis) -> None:
    first, again, posing = (
        judged.verdict(judged.image({}), job_id=job_id, content_id=content_id)
        for job_id, content_id in (("job-1", "upload-1"), ("job-2", "upload-1"), ("job-3", "job-1"))
    )
    for verdict in (first, again, posing):
        connection.xadd(STREAM, {"verdict": verdict.to_json()})
    assert lookup.find_verdict(connection, "upload-1") == again
    assert lookup.find_verdict(connection, "job-1") == first


def test_a_job_that_waits_has_no_verdict_yet(
    explain: Callable[..., tuple[int, str, str]], connection: redis.Redis, redis_url: str
) -> None:
    job = Moderation(connection).enqueue(content_id="waits", data=CAT.read_bytes())
    code, _, err = explain(job.id, redis_url=redis_url)
    assert (code, err) == (3, f"sluice: job {job.id} has no verdict yet, it is queued; ask again when it has ended\n")


def test_without_redis_a_job_cannot_be_explained_and_an_image_can(
    explain: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    code, out, err = explain("a-job", redis_url=DEAD)
    assert (code, out, len(err.splitlines())) == (3, "", 1)
    assert "does not answer" in err
    code, out, _ = explain(CAT, "--audience", "user", redis_url=DEAD, policy="demo")
    assert (code, out.splitlines()[0]) == (0, "Your upload was accepted.")


def test_entries_that_are_no_verdicts_are_passed_over(
    explain: Callable[..., tuple[int, str, str]], house: Judged, connection: redis.Redis
) -> None:
    verdict = house.verdict(house.block)
    for text in (verdict.verdict_id, '{"verdict_id": "' + verdict.verdict_id + '"}', "\xff" + verdict.verdict_id):
        connection.xadd(STREAM, {"verdict": text})
    connection.xadd(STREAM, {"other": "field"})
    connection.xadd(f"rq:results:{verdict.verdict_id}", {"type": 1, "return_value": "no base64 !"})
    code, out, _ = explain(verdict.verdict_id, "--json", policies=house.policies, redis_url=house.url)
    assert (code, json.loads(out)["job_id"]) == (0, house.block.id)


def test_a_forged_verdict_moves_no_cursor_and_no_markup(
    explain: Callable[..., tuple[int, str, str]], house: Judged, connection: redis.Redis, tmp_path: Path
) -> None:
    verdict = house.verdict(house.block)
    forged = verdict.categories["weapons"].model_copy(update={"prompt": "\x1b[2J[red]<script>alert(1)</script>"})
    odd = verdict.model_copy(update={"verdict_id": "f" * 32, "job_id": None, "categories": {"we\x1bapons": forged}})
    connection.xadd(STREAM, {"verdict": odd.to_json()})
    code, out, _ = explain("f" * 32, "--report", "r.html", policies=house.policies, redis_url=house.url)
    assert code == 0
    assert "\x1b" not in out
    assert "[red]<script>" in out.replace("\n", "")
    assert "<script" not in (tmp_path / "r.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["photo.jpgg", "--policy", "demo"],
            "photo.jpgg is no file, so it is taken for a job .*--policy is for an image",
        ),
        ([CAT, "--image", REVOLVER], "--image belongs to a job or a verdict"),
        ([CAT, "--ledger", "x"], "--ledger belongs to a job or a verdict"),
        ([CAT, "--audience", "user", "--heat", "h.png"], "--heat is for the reviewer"),
        ([CAT, "--audience", "user", "--versions", "1"], "--versions is for the reviewer"),
        ([CAT, "--versions", "1,b", "--policy", "demo"], "--versions 1,b: write numbers with commas, as in 1,3"),
        ([CAT, "--top", "0"], "--top counts sentences"),
        ([CAT, "--policy", "demo", "--heat", "no/h.png"], "no/h.png: No such file or directory; .*--heat"),
    ],
)
def test_wrong_usage_is_one_line(
    explain: Callable[..., tuple[int, str, str]], arguments: list[object], says: str
) -> None:
    code, out, err = explain(*arguments)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert re.search(says, err)


# -- pages ------------------------------------------------------------------------------------------------------------


def test_a_browser_shows_both_readers_their_page(
    explain: Callable[..., tuple[int, str, str]], house: Judged, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where: dict[str, Any] = {"policies": house.policies, "redis_url": house.url}
    for_user = ["--audience", "user", "--appeal", "https://example.org/appeal"]
    code, _, _ = explain(house.block.id, "--image", REVOLVER, "--report", "reviewer.html", **where)
    assert code == 0
    code, out, _ = explain(house.block.id, "--report", "user.html", *for_user, "--json", **where)
    assert code == 0
    schema("statement", capsys).validate(json.loads(out))

    seen = open_page(tmp_path / "reviewer.html", tmp_path / "browser")
    assert seen.complaints == []
    for words in ("a pistol", "a water pistol", "What would have changed the action", "demo@3", "judged again"):
        assert words in seen.dom
    uris = re.findall(r'src="data:image/(?:png|jpeg);base64,([^"]+)"', seen.dom)
    assert len(uris) == 2
    seen = open_page(tmp_path / "user.html", tmp_path / "browser")
    assert seen.complaints == []
    page = re.sub(r"<style>.*?</style>", "", (tmp_path / "user.html").read_text(), flags=re.DOTALL)
    verdict = house.verdict(house.block)
    numbers = {f"{value:.{digits}f}" for found in verdict.categories.values() for digits in (1, 2, 3, 4)
               for value in (found.score, found.margin, *found.thresholds.values())}  # fmt: skip
    sentences = {text for found in verdict.categories.values() for text in (found.prompt, found.contrast)}
    others = verdict.categories.keys() - {"weapons"}
    assert [text for text in [*numbers, *sentences, *others] if text in page] == []
    assert "Guns, swords and knives carried as weapons." in page
    assert 'href="https://example.org/appeal"' in page
