"""A reviewer's correction as it is typed: from a judged upload to the next version, and every way in which it fails."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import redis
import support

import worker
from worker.policy.registry import shipped_directory

pytestmark = [pytest.mark.timeout(180), pytest.mark.thorough]

DRAWINGS = Path(worker.__file__).parent / "cli" / "demo_images"
PISTOL, CAT = DRAWINGS / "water-pistol-fluent.png", DRAWINGS / "cat-face-noto.png"


@pytest.fixture
def settings(tmp_path: Path, redis_url: str) -> dict[str, object]:
    """Settings of a desk: a directory with the demo's policy, the packaged model, an empty Redis."""
    shutil.copytree(shipped_directory() / "demo", tmp_path / "policies" / "demo")
    return {
        "policies": tmp_path / "policies", "policy": "demo", "model": "builtin", "redis_url": redis_url,
    }  # fmt: skip


def exemplar(settings: dict[str, object], *arguments: object) -> str:
    done = support.typed("policy", "exemplar", *arguments, settings=settings)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refusal(settings: dict[str, object], exit_code: int, *arguments: object) -> str:
    """Run a command that fails; its one line."""
    done = support.typed("policy", "exemplar", *arguments, settings=settings)
    assert (done.returncode, done.stdout) == (exit_code, ""), done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("sluice: ")
    return line.removeprefix("sluice: ")


def actions(settings: dict[str, object]) -> dict[str, tuple[str, int]]:
    """Judge the drawings by the queue; action and version of each."""
    said = support.sluice("enqueue", PISTOL, CAT, "--wait", "--json", settings=settings)
    assert said.returncode == 0, said.stderr
    found = [json.loads(line) for line in said.stdout.splitlines()]
    return {each["content_id"]: (each["action"], each["policy"]["version"]) for each in found}


def test_a_missed_upload_becomes_the_next_versions_exemplar_and_the_fleet_judges_by_it(
    settings: dict[str, object], tmp_path: Path, connection: redis.Redis
) -> None:
    fleet = settings | {"policies": "redis"}
    directory = Path(str(settings["policies"]))
    assert support.sluice("policy", "publish", "--all", directory, settings=fleet).returncode == 0

    with support.running_worker(fleet | {"metrics_port": 0}, tmp_path, wait=False) as running:
        support.until(lambda: "ready:" in running.log, what="the worker is ready")
        before = actions(fleet)
        (missed,) = (name for name in before if "water-pistol" in name)
        assert before == dict.fromkeys(before, ("allow", 1))

        told = exemplar(settings, "add", "demo", missed, "--category", "weapons", "--as", "match")
        file = directory / "demo" / "v2.yaml"
        first, second, third, last = told.splitlines()
        assert first == f"{file} written, from version 1: weapons has {missed} as match"
        assert second.startswith("  weapons: 0.4")
        assert second.endswith(" block")
        assert third == "  the whole policy: allow → block"
        assert last == "what else it changes: sluice backtest demo@2 --against demo@1"

        assert support.sluice("policy", "publish", file, settings=fleet).returncode == 0
        shutil.rmtree(directory)
        assert support.sluice("policy", "activate", "demo@2", settings=fleet).returncode == 0
        support.until(lambda: "new policies are at work" in running.log, what="the worker has the new version")
        assert actions(fleet) == {name: ("block" if name == missed else "allow", 2) for name in before}


def test_exemplars_are_listed_compared_and_removed(settings: dict[str, object]) -> None:
    add = ("add", "demo", "a pistol", "--category", "weapons", "--as", "match", "--image", PISTOL)
    told = json.loads(exemplar(settings, *add, "--json"))
    assert (told["version"], told["from"], told["action"]) == (2, 1, {"before": "allow", "after": "block"})

    (row,) = map(json.loads, exemplar(settings, "list", "demo", "--json").splitlines())
    assert (row["policy"], row["category"], row["as"], row["name"], row["strength"], row["views"]) == (
        "demo@2", "weapons", "match", "a pistol", 0.98, 1,
    )  # fmt: skip
    assert row["model"].startswith("builtin@")
    assert exemplar(settings, "list", "demo@1") == "demo@1 has no exemplars\n"
    assert "a pistol" in exemplar(settings, "list", "demo@2")

    compared = support.typed("policy", "diff", "demo@1", "demo@2", settings=settings)
    assert compared.returncode == 1
    assert f"categories.weapons.exemplars.match\n  + {row['file']}#a pistol\n" in compared.stdout
    shown = support.typed("policy", "show", "demo@2", "--json", settings=settings)
    pools = json.loads(shown.stdout)["categories"]["weapons"]["exemplars"]
    assert pools["match"] == [{"ref": f"{row['file']}#a pistol", "model": row["model"], "dim": 192}]

    removed = json.loads(exemplar(settings, "remove", "demo", "a pistol", "--category", "weapons", "--json"))
    assert (removed["version"], removed["removed"]) == (3, f"{row['file']}#a pistol")
    assert support.typed("policy", "diff", "demo@1", "demo@3", settings=settings).returncode == 0


def test_what_cannot_be_found_is_said_with_the_mend(settings: dict[str, object], tmp_path: Path) -> None:
    add = ("add", "demo", "upload-1", "--category", "weapons", "--as", "match")
    assert refusal(settings, 3, *add) == (
        "the ledger has no upload upload-1; name the archive with --ledger, or the picture with --image"
    )
    dead = settings | {"redis_url": f"redis://127.0.0.1:{support.free_port()}/0"}
    assert "Redis" in refusal(dead, 3, *add)
    assert "nothing.png: No such file or directory; name a picture" in refusal(
        settings, 2, *add, "--image", tmp_path / "nothing.png"
    )
    (tmp_path / "broken.png").write_bytes(b"no picture")
    assert "broken.png cannot be judged: " in refusal(settings, 2, *add, "--image", tmp_path / "broken.png")
    assert refusal(settings, 3, "add", "home", *add[2:]).startswith("no policy home in ")
    assert refusal(settings, 2, *add[:4], "weapon", *add[5:]) == (
        "demo@1 has no category weapon; did you mean weapons?"
    )
    assert "--strength is a score above 0.5 and below 1" in refusal(settings, 2, *add, "--strength", "nan")
    assert "give one of them" in refusal(settings, 2, *add, "--image", PISTOL, "--ledger", tmp_path)
    assert "invalid choice" in refusal(settings, 2, *add[:-1], "like")
    assert "has no exemplar upload-1; it has none" in refusal(
        settings, 3, "remove", "demo", "upload-1", "--category", "weapons"
    )
    assert "no policy demo@7; there are demo@1" in refusal(settings, 3, "list", "demo@7")
    assert "name their directory" in refusal(settings | {"policies": "redis"}, 2, *add)
    assert sorted(file.name for file in (tmp_path / "policies" / "demo").iterdir()) == [
        "tests.npz", "tests.yaml", "v1.yaml",
    ]  # fmt: skip


def test_another_models_upload_is_not_taken_and_another_models_exemplar_does_not_count(
    settings: dict[str, object], tiny_clip: Path, tmp_path: Path
) -> None:
    tiny = settings | {"model": tiny_clip}
    add = ("add", "demo", "water pistol", "--category", "weapons", "--as", "match")
    exemplar(settings, *add, "--image", PISTOL)

    linted = support.typed("policy", "lint", tmp_path / "policies" / "demo" / "v2.yaml", "--json", settings=tiny)
    (found,) = [row for row in map(json.loads, linted.stdout.splitlines()) if row["code"] == "exemplar-model"]
    assert found["key"] == "categories.weapons.exemplars.match.0"
    assert "was embedded by builtin@" in found["message"]
    scored = support.typed("score", PISTOL, "--policy", "demo@2", "--json", settings=tiny)
    assert scored.returncode == 0, scored.stderr
    verdict = json.loads(scored.stdout)
    assert verdict["calibrated"] is False
    assert not verdict["categories"]["weapons"]["prompt"].startswith("exemplar")
    assert "demo@2: 1 exemplars do not count under" in scored.stderr

    with support.running_worker(settings | {"metrics_port": 0}, tmp_path, wait=False) as running:
        support.until(lambda: "ready:" in running.log, what="the worker is ready")
        actions(settings)
    (name,) = [each for each in (PISTOL.name, str(PISTOL)) if each][:1]
    assert "knows " in refusal(tiny, 3, "add", "demo", name, *add[3:])
