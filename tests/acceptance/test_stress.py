"""`sluice stress` as it is typed: its output, its page, its exit codes, and one line when something is wrong."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import support
from PIL import Image

from worker.cli import demo
from worker.policy.groups import DEFAULT_FILE
from worker.policy.registry import shipped_directory

pytestmark = [pytest.mark.timeout(120), pytest.mark.thorough]

DRAWINGS = Path(demo.__file__).parent / "demo_images"
DEMO = {"model": "builtin", "policies": shipped_directory(), "threads": 1}
GROUPS = "sentences: ['a photo of a {group} person']\ngroups: {ages: [young, old]}\n"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Copy some drawings, and put hostile files beside them."""
    directory = tmp_path / "uploads"
    directory.mkdir()
    for name in ("revolver-noto", "bomb-fluent", "cat-face-noto", "house-twemoji"):
        shutil.copy(DRAWINGS / f"{name}.png", directory)
    return directory


def groups_file(directory: Path, text: str = GROUPS) -> Path:
    file = directory / "groups.yaml"
    file.write_text(text)
    return file


def test_json_is_one_object_a_category_and_change_or_word_and_hostile_pictures_are_named(
    pictures: Path, tmp_path: Path
) -> None:
    (pictures / "broken.png").write_bytes(b"no picture")
    Image.new("1", (16_000, 16_000)).save(pictures / "huge.png")
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]
    frames[0].save(pictures / "moving.gif", save_all=True, append_images=frames[1:])
    said = support.sluice(
        "stress", "demo@1", "--images", pictures, "--only", "grey", "noise", "--json",
        "--groups", groups_file(tmp_path), "--report", tmp_path / "r.html", settings=DEMO,
    )  # fmt: skip
    assert said.returncode == 1
    assert said.stderr.splitlines() == [
        "sluice: broken.png cannot be judged: image_undecodable",
        "sluice: huge.png cannot be judged: image_too_large",
    ]
    assert "broken.png" in (tmp_path / "r.html").read_text()
    found = [json.loads(line) for line in said.stdout.splitlines()]
    changes = [row for row in found if row["kind"] == "change"]
    groups = [row for row in found if row["kind"] == "group"]
    assert len(changes) + len(groups) == len(found)
    assert [row["change"] for row in changes if row["category"] is None] == ["copy", "grey", "noise"]
    assert (len(changes), len(groups)) == (3 * (1 + 8), 2 * 8)
    assert {row["pictures"] for row in changes} == {5}
    assert {row["policy"] for row in found} == {"demo@1"}
    # A revolver and a bomb are blocked; a cat, a house and the animation may become stronger.
    assert (changes[0]["weaker_of"], changes[0]["stronger_of"]) == (2, 3)


def test_the_groups_that_come_along_are_printed_to_copy(tmp_path: Path) -> None:
    said = support.sluice("stress", "--print-groups")
    assert (said.returncode, said.stdout) == (0, DEFAULT_FILE.read_text())


def test_what_is_wrong_is_said_in_one_line_before_the_model_is_loaded(tmp_path: Path) -> None:
    for flags, code, says in (
        ((), 2, "sluice: name the policy to measure, as ID@VERSION"),
        (("demo", "--images", tmp_path, "--only", "gray"), 2, "sluice: there is no change 'gray'; did you mean grey?"),
    ):
        said = support.sluice("stress", *flags, settings=DEMO, PYTHONPROFILEIMPORTTIME="1")
        imports = [line for line in said.stderr.splitlines() if line.startswith("import time:")]
        (line,) = [line for line in said.stderr.splitlines() if not line.startswith("import time:")]
        assert (said.returncode, said.stdout) == (code, "")
        assert imports
        assert line.startswith(says)
        assert not any(line.endswith("| torch") or line.endswith(" torch") for line in imports)


def test_wrong_groups_are_named_with_line_and_column(tmp_path: Path) -> None:
    file = groups_file(tmp_path, "sentences: [a person]\ngroups:\n  ages: [young, young]\n  x: [1, 2]\n")
    said = support.sluice("stress", "demo", "--groups", file, settings=DEMO)
    assert said.returncode == 1
    assert [line.removeprefix(f"sluice: {file}:").partition(" ")[0] for line in said.stderr.splitlines()] == [
        "1:13:", "4:7:", "4:10:",
    ]  # fmt: skip


def test_ctrl_c_ends_it_at_once_and_leaves_an_earlier_page_alone(pictures: Path, tmp_path: Path) -> None:
    for number in range(40):
        shutil.copy(pictures / "bomb-fluent.png", pictures / f"bomb-{number}.png")
    report = tmp_path / "r.html"
    report.write_text("earlier")
    process = subprocess.Popen(
        [support.SLUICE, "stress", "demo", "--images", pictures, "--report", report],
        env=support.environment(DEMO), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    children = Path(f"/proc/{process.pid}/task")
    support.until(lambda: _decoders(children), what="decoder processes run")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "sluice: interrupted\n")
    assert report.read_text() == "earlier"


def _decoders(tasks: Path) -> list[str]:
    found = [pid for task in tasks.glob("*/children") for pid in task.read_text().split()]
    return [pid for pid in found if b"worker.intake.cell" in Path(f"/proc/{pid}/cmdline").read_bytes()]
