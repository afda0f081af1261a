"""`sluice calibrate` and `sluice policy port` from outside: what they write judges, and what is wrong is one line."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
import support

from tools.drawings import write_drawings, write_labels
from worker.client import Moderation
from worker.policy.registry import shipped_directory

pytestmark = [pytest.mark.timeout(180), pytest.mark.thorough]

EACH = 6


@dataclass(frozen=True)
class Desk:
    """What an author has before the first calibration, and what came of it."""

    policies: Path
    images: Path
    labels: Path
    names: list[str]
    said: subprocess.CompletedProcess[str]
    report: Path

    def calibrate(self, *flags: object, ref: str = "demo@1") -> subprocess.CompletedProcess[str]:
        return support.typed("calibrate", ref, "--model", "builtin", "--policies", self.policies, *flags)

    def asked(self, *flags: object) -> tuple[object, ...]:
        return ("--labels", self.labels, "--images", self.images, "--min-positives", 2 * EACH, *flags)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """Give an author's directories after `demo@1` was calibrated into `demo@2`."""
    home = tmp_path_factory.mktemp("desk")
    shutil.copytree(shipped_directory(), home / "policies")
    names = write_drawings(home / "images", EACH)
    (home / "images" / "broken.png").write_bytes(b"no picture")
    labels = write_labels(home / "labels.csv", [*names, "gone-1", "gone-2", "broken"])
    with (home / "labels.csv").open("a") as file:
        file.write("cat-face-noto-0,*,0\n")
    report = home / "demo.html"
    bare = Desk(home / "policies", home / "images", labels, names, None, report)  # type: ignore[arg-type]
    flags = bare.asked("--target", "precision=0.9", "--max-flag-rate", 0.15, "--json", "--report", report)
    said = support.sluice("calibrate", "demo@1", "--model", "builtin", "--policies", bare.policies, *flags)
    return Desk(bare.policies, bare.images, labels, names, said, report)


def rows(said: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said.stdout.splitlines()]


def the_line(said: subprocess.CompletedProcess[str], code: int) -> str:
    assert (said.returncode, said.stdout) == (code, ""), said.stderr
    (line,) = said.stderr.splitlines()
    assert line.startswith("sluice: ")
    return line


def test_the_next_version_is_written_and_the_old_one_stays(desk: Desk) -> None:
    assert desk.said.returncode == 0, desk.said.stderr
    *categories, whole = rows(desk.said)
    assert whole["written"] == str(desk.policies / "demo" / "v2.yaml")
    assert whole["pictures"] == len(desk.names)
    assert (desk.policies / "demo" / "v1.yaml").read_bytes() == (shipped_directory() / "demo" / "v1.yaml").read_bytes()
    fitted = {row["category"] for row in categories if row["fitted"]}
    assert fitted == {"weapons", "alcohol", "death"}
    for row in categories:
        at = {action: one["threshold"] for action, one in row["after"]["thresholds"].items()}
        assert at["review"] <= at["block"]
        assert row["after"]["thresholds"]["review"]["flag_rate"] <= 0.15
        if row["fitted"]:
            assert row["after"]["thresholds"]["block"]["precision"] >= 0.9
            assert row["after"]["calibration_error"] < row["before"]["calibration_error"] + 0.05


def test_pictures_that_are_not_there_or_broken_are_named_and_counted(desk: Desk) -> None:
    whole = rows(desk.said)[-1]
    assert set(whole["unknown"]) == {"gone-1", "gone-2"}
    assert whole["unseen"] == {"broken.png": "image_undecodable"}
    assert "2 labelled pictures are not there: line" in desk.said.stderr
    assert "1 files cannot be judged: broken.png" in desk.said.stderr


def test_the_new_version_is_without_warning(desk: Desk) -> None:
    said = support.sluice("policy", "lint", desk.policies / "demo" / "v2.yaml", "--model", "builtin", "--strict")
    assert said.returncode == 0, said.stdout


def test_the_report_shows_pictures_and_loads_nothing(desk: Desk) -> None:
    page = desk.report.read_text()
    assert page.count("data:image/") > 50
    assert "Calibration of demo@1" in page
    assert 'src="http' not in page


def test_the_new_version_judges_as_calibrated_until_a_sentence_changes(
    desk: Desk, redis_url: str, connection: redis.Redis, tmp_path: Path
) -> None:
    text = (desk.policies / "demo" / "v2.yaml").read_text()
    assert text.count("- a dagger\n") == 1
    policies = tmp_path / "policies"
    shutil.copytree(desk.policies, policies)
    changed = text.replace("- a dagger\n", "- a bayonet\n").replace("version: 2", "version: 3")
    (policies / "demo" / "v3.yaml").write_text(changed)
    linted = support.sluice("policy", "lint", policies / "demo" / "v3.yaml", "--model", "builtin")
    assert "[stale-calibration]" in linted.stdout
    settings = {"model": "builtin", "policies": policies, "policy": "demo", "redis_url": redis_url}
    client = Moderation.from_url(redis_url)
    data = (desk.images / "revolver-noto-0.png").read_bytes()
    with support.running_worker(settings, tmp_path) as worker:
        said = {
            ref: client.wait(client.enqueue(data=data, content_id=ref, policy=ref), 60).calibrated
            for ref in ("demo@2", "demo@3")
        }
        assert said == {"demo@2": True, "demo@3": False}
        support.until(lambda: worker.metric("sluice_uncalibrated_verdicts_total", policy="demo") == 1, what="counted")
        assert worker.leave() == 0


def test_the_ledger_serves_instead_of_pictures_in_redis_and_archived(
    desk: Desk, redis_url: str, connection: redis.Redis, tmp_path: Path
) -> None:
    settings = {"model": "builtin", "policies": desk.policies, "policy": "demo", "redis_url": redis_url}
    client = Moderation.from_url(redis_url)
    jobs = [client.enqueue(data=(desk.images / f"{name}.png").read_bytes(), content_id=name) for name in desk.names]
    with support.running_worker(settings, tmp_path, "--burst"):
        for job in jobs:
            client.wait(job, 60)
    asked = ("--labels", desk.labels, "--min-positives", 2 * EACH, "--redis-url", redis_url, "--json", "--dry-run")
    from_stream = desk.calibrate(*asked, "--target", "precision=0.9", "--stream")
    assert from_stream.returncode == 0, from_stream.stderr
    archived = support.sluice("ledger", "archive", "--to", tmp_path / "ledger", "--redis-url", redis_url)
    assert archived.returncode == 0, archived.stderr
    from_both = desk.calibrate(*asked, "--target", "precision=0.9", "--stream", "--ledger", tmp_path / "ledger")
    from_archive = desk.calibrate(*asked, "--target", "precision=0.9", "--ledger", tmp_path / "ledger")

    *_categories, whole = rows(from_stream)
    assert (whole["pictures"], whole["written"]) == (len(desk.names), None)
    assert set(whole["unknown"]) == {"gone-1", "gone-2", "broken"}
    # Embeddings of the ledger are those of the pictures, in another order.
    looked = {row["category"]: row["after"]["calibration"] for row in rows(desk.said)[:-1] if row["fitted"]}
    for said in (from_stream, from_both, from_archive):
        found = {row["category"]: row["after"]["calibration"] for row in rows(said)[:-1] if row["fitted"]}
        assert found.keys() == looked.keys()
        assert rows(said)[-1]["pictures"] == len(desk.names)
        for name, numbers in found.items():
            assert numbers["bias"] == pytest.approx(looked[name]["bias"], abs=0.05)
    # Too short a time for reviews a day.
    said = the_line(desk.calibrate("--stream", "--redis-url", redis_url, "--review-per-day", 3), 2)
    assert "an hour or more" in said


def test_a_policy_is_carried_over_to_another_model_with_the_same_flag_rates(
    desk: Desk, tiny_clip: Path, tmp_path: Path
) -> None:
    policies = tmp_path / "policies"
    shutil.copytree(desk.policies, policies)
    flags = ("--model", "builtin", "--policies", policies, "--images", desk.images)
    said = support.typed("policy", "port", "demo@1", "--to", tiny_clip, *flags, "--json")
    assert said.returncode == 0, said.stderr
    *categories, whole = rows(said)
    assert whole["written"] == str(policies / "demo" / "v3.yaml")
    assert whole["pictures"] == len(desk.names)
    for row in categories:
        for at in row["thresholds"].values():
            assert at["before"] == at["after"]
    shown = support.typed("policy", "show", "demo@3", "--policies", policies)
    assert shown.stdout.count("@") >= 3
    # Under the other model its verdicts are calibrated, and say what they said.
    images = [desk.images / f"{name}.png" for name in desk.names[:3]]
    scored = support.typed(
        "score", *images, "--model", tiny_clip, "--policies", policies, "--policy", "demo@3", "--json"
    )
    assert {verdict["calibrated"] for verdict in rows(scored)} == {True}
    same = support.typed("policy", "port", "demo@1", "--to", "builtin", *flags)
    assert "is the model that the numbers are of" in the_line(same, 2)


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        ([], 2, "give --images DIRECTORY, or the ledger"),
        (["--images", "IMAGES"], 2, "nothing is asked; give --labels"),
        (["--images", "IMAGES", "--stream", "--labels", "LABELS"], 2, "give --images DIRECTORY, or the ledger"),
        (["--images", "IMAGES", "--target", "precision=0.9", "--max-flag-rate", "0.1"], 2, "needs --labels"),
        (["--images", "IMAGES", "--labels", "LABELS", "--target", "precision=2"], 2, "between 0 and 1; got 2"),
        (["--images", "IMAGES", "--labels", "LABELS", "--target", "recall=0.9"], 2, "'recall=0.9' is no target"),
        (["--images", "IMAGES", "--labels", "LABELS", "--target", "precision=x"], 2, "--target"),
        (["--images", "IMAGES", "--labels", "LABELS", "--share", "0"], 2, "--share is a share"),
        (["--images", "IMAGES", "--max-flag-rate", "nan"], 2, "--max-flag-rate is a share"),
        (["--images", "IMAGES", "--review-per-day", "3"], 2, "which pictures lack"),
        (["--images", "IMAGES", "--labels", "LABELS", "--min-positives", "1"], 2, "--min-positives is 2 or more"),
        (["--images", "IMAGES", "--labels", "none.csv"], 2, "none.csv: No such file or directory"),
        (["--images", "none", "--labels", "LABELS"], 2, "none is no directory"),
        (["--images", "EMPTY", "--labels", "LABELS"], 2, "holds no files"),
        (["--images", "BROKEN", "--max-flag-rate", "0.1"], 2, "none of the 1 files"),
        (["--images", "BROKEN", "--labels", "LABELS"], 2, "none of its"),
        (["--stream", "--redis-url", "redis://127.0.0.1:1/0", "--max-flag-rate", "0.1"], 3, "127.0.0.1:1"),
        (["--ledger", "none", "--max-flag-rate", "0.1"], 3, "no ledger at none; write one with `sluice ledger"),
        (["--ledger", "EMPTY", "--max-flag-rate", "0.1"], 3, "the ledger holds nothing that builtin@"),
        (["--images", "IMAGES", "--labels", "LABELS", "--dry-run", "--report", "/no/r.html"], 2, "/no/r.html: No such"),
    ],
)
def test_what_cannot_be_done_is_one_line(desk: Desk, tmp_path: Path, flags: list[str], code: int, said: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"no picture")
    short = tmp_path / "labels.csv"
    short.write_text("content_id,category,label\nrevolver-noto-0,weapons,1\n")
    words = {"IMAGES": desk.images, "LABELS": short, "EMPTY": tmp_path / "empty", "BROKEN": tmp_path / "broken"}
    before = sorted(desk.policies.rglob("*"))
    assert said in the_line(desk.calibrate(*(words.get(flag, flag) for flag in flags)), code)
    assert sorted(desk.policies.rglob("*")) == before


def test_nothing_to_change_writes_nothing_and_ends_with_1(desk: Desk, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("content_id,category,label\nrevolver-noto-0,weapons,1\ncat-face-noto-0,*,0\n")
    few = tmp_path / "few"
    few.mkdir()
    for name in ("revolver-noto-0.png", "cat-face-noto-0.png"):
        shutil.copy(desk.images / name, few)
    said = desk.calibrate("--labels", labels, "--images", few, "--target", "precision=0.9")
    assert said.returncode == 1, said.stderr
    assert "nothing was found to change" in said.stdout
    assert "weapons: 1 pictures show it, and 20 are wanted" in said.stdout
    assert not (desk.policies / "demo" / "v3.yaml").exists()


def test_a_policy_that_is_not_there_is_named(desk: Desk) -> None:
    assert "no policy nobody@1" in the_line(desk.calibrate(*desk.asked(), ref="nobody@1"), 3)
