"""`sluice backtest` from outside: a worker judges, its ledger is asked about a version that nobody has seen."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import support
from browser import open_page

import worker
from worker.cli.embedded_redis import embedded_redis
from worker.policy.registry import shipped_directory

pytestmark = [pytest.mark.timeout(180), pytest.mark.thorough]

DRAWINGS = Path(worker.__file__).parent / "cli" / "demo_images"
CHANGES = (
    ("version: 1\n", "version: 2\n"),
    ("      - a kitchen knife for cooking\n", "      - a kitchen knife for cooking\n      - a chef's knife\n"),
    ("review: 0.69, block: 0.95", "review: 0.3, block: 0.985"),
)


@dataclass(frozen=True)
class Desk:
    """What an author has: policies, yesterday's pictures, and a ledger of what was said of them."""

    settings: dict[str, object]
    images: Path
    archive: Path
    recorded: dict[str, str]

    def typed(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return support.typed("backtest", *arguments, settings=self.settings)

    def rows(self, *arguments: object) -> list[dict[str, Any]]:
        said = self.typed(*arguments, "--json")
        assert said.returncode == 0, said.stderr
        return [json.loads(line) for line in said.stdout.splitlines()]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Let a worker judge all drawings by `demo@1`, archive its ledger, and write `demo@2`."""
    home = tmp_path_factory.mktemp("desk")
    policies = home / "policies"
    shutil.copytree(shipped_directory() / "demo", policies / "demo")
    images = home / "images"
    images.mkdir()
    for drawing in DRAWINGS.glob("*.png"):
        shutil.copy(drawing, images)
    with embedded_redis() as (url, _):
        settings: dict[str, object] = {"policies": policies, "policy": "demo", "model": "builtin", "redis_url": url}
        with support.running_worker(settings | {"metrics_port": 0}, home, wait=False):
            said = support.sluice("enqueue", *sorted(images.iterdir()), "--wait", "--json", settings=settings)
        assert said.returncode == 0, said.stderr
        verdicts = [json.loads(line) for line in said.stdout.splitlines()]
        archived = support.typed("ledger", "archive", "--to", home / "ledger", settings=settings)
        assert archived.returncode == 0, archived.stderr
        text = (policies / "demo" / "v1.yaml").read_text()
        for old, new in CHANGES:
            assert text.count(old) == 1
            text = text.replace(old, new)
        (policies / "demo" / "v2.yaml").write_text(text)
        (policies / "rollout.yaml").write_text("demo: {live: 1}\n")
        yield Desk(settings, images, home / "ledger", {row["content_id"]: row["action"] for row in verdicts})


def test_the_version_that_judged_would_say_the_same_again(desk: Desk) -> None:
    total, *rest = desk.rows("demo@1", "--against", "demo@1")
    assert (total["entries"], total["stricter"], total["milder"]) == (len(desk.recorded), 0, 0)
    assert not [row for row in rest if row["row"] in ("flip", "because")]
    (recorded,) = (row for row in rest if row["row"] == "recorded")
    assert (recorded["policy"], recorded["stricter"], recorded["milder"]) == ("demo@1", 0, 0)
    expected = Counter(desk.recorded.values())
    assert recorded["recorded"] == recorded["before"] == {name: expected[name] for name in recorded["recorded"]}


def test_a_new_version_says_in_the_ledger_what_it_says_of_the_pictures(desk: Desk) -> None:
    found = desk.rows("demo@2", "--examples", 100)
    flips = {row["content_id"]: row for row in found if row["row"] == "flip"}
    scored = support.typed(
        "score", *sorted(desk.images.iterdir()), "--policy", "demo@2", "--json", settings=desk.settings
    )
    after = {Path(row["content_id"]).name: row["action"] for row in map(json.loads, scored.stdout.splitlines())}
    changed = {name: (action, after[name]) for name, action in desk.recorded.items() if action != after[name]}
    assert changed, "the version is no trial, for it changes nothing"
    assert {name: (row["before"], row["after"]) for name, row in flips.items()} == changed
    assert found[0]["stricter"] + found[0]["milder"] == len(changed)

    knife = flips["kitchen-knife-noto.png"]
    assert (knife["direction"], knife["category"], knife["before"]) == ("milder", "weapons", "block")
    assert knife["category_before"]["thresholds"] == {"review": 0.69, "block": 0.95}
    assert sum(row["entries"] for row in found if row["row"] == "because") == len(changed)


def test_what_is_printed_is_what_programs_read(desk: Desk) -> None:
    total = desk.rows("demo@2")[0]
    said = desk.typed("demo@2")
    assert said.returncode == 0, said.stderr
    changes = total["stricter"] + total["milder"]
    *_, headline = said.stdout.splitlines()
    assert headline.startswith(f"demo@1 → demo@2: {changes} of {total['entries']} entries change (")
    assert f"{total['stricter']} stricter, {total['milder']} milder; review load: " in headline
    load = [total[side]["review"] for side in ("actions_before", "actions_after")]
    assert f"review load: {load[0]} → {load[1]}" in headline


def test_an_archive_says_the_same_without_redis_and_its_report_shows_the_pictures(desk: Desk, tmp_path: Path) -> None:
    report, drawn = tmp_path / "report.html", tmp_path / "report.png"
    alone = ("demo@2", "--ledger", desk.archive, "--no-stream")
    assert desk.rows(*alone) == [row | _unread(row) for row in desk.rows("demo@2")]
    assert desk.rows("demo@2", "--ledger", desk.archive)[0]["entries"] == len(desk.recorded), (
        "what lies in both counts once"
    )
    said = desk.typed(*alone, "--report", report, "--images", desk.images)
    assert said.returncode == 0, said.stderr
    assert f"{report} written" in said.stderr
    seen = open_page(report, tmp_path / "scratch", drawn)
    assert seen.complaints == []
    assert drawn.stat().st_size > 0
    assert "demo@2" in seen.dom
    assert "kitchen-knife-noto.png" in seen.dom
    flips = [row for row in desk.rows(*alone) if row["row"] == "flip"]
    assert seen.dom.count('src="data:image/') == len(flips)


def _unread(row: dict[str, Any]) -> dict[str, Any]:
    return {"passed_over": 0} if row["row"] == "total" else {}


@pytest.mark.parametrize(
    ("arguments", "exit_code", "says"),
    [
        (("demo@9",), 3, "no policy demo@9; name a file, or one of demo, demo@1, demo@2 in"),
        (("demo@2", "--no-stream"), 2, "--no-stream leaves nothing to read; name the archive with --ledger"),
        (("demo@2", "--since", "yesterday"), 2, "--since 'yesterday' is no time; write 30m, 12h, 7d or 4w, or 2026-01"),
        (("demo@2", "--since", "1d", "--until", "2d"), 2, "--since 1d is not before --until 2d"),
        (("demo@2", "--until", "2000-01-01"), 3, "in that time; widen --since and --until"),
        (("demo@2", "--examples", -1), 2, "--examples is between 0 and 1000"),
        (("demo@2", "--images", "/"), 2, "--images shows pictures in the report; name its file with --report"),
        (
            ("demo@2", "--report", "/no/such/place/out.html"),
            2,
            "/no/such/place/out.html: No such file or directory; name a file",
        ),
        (("demo@2", "--ledger", "/no/such/ledger", "--no-stream"), 3, "no ledger at /no/such/ledger; write one with"),
        (
            ("demo@2", "--redis-url", "redis://127.0.0.1:1/0"),
            3,
            "Connection refused.); start one, or set SLUICE_REDIS_URL",
        ),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_what_is_wrong_is_one_line_that_names_the_mend(
    desk: Desk, arguments: tuple[object, ...], exit_code: int, says: str
) -> None:
    said = desk.typed(*arguments)
    assert (said.returncode, said.stdout) == (exit_code, ""), said.stderr
    (line,) = said.stderr.splitlines()
    assert line.startswith("sluice: ")
    assert says in line


def test_entries_of_another_policy_are_counted_only_when_asked_for(desk: Desk) -> None:
    other = desk.images.parent / "other.yaml"
    text = (shipped_directory() / "demo" / "v1.yaml").read_text().replace("policy: demo\n", "policy: other\n")
    other.write_text(text)
    said = desk.typed(other, "--against", other)
    assert said.returncode == 3
    counted = f"no entry was judged by this policy, but by demo ({len(desk.recorded)}); count them with --every-policy"
    assert counted in said.stderr
    assert desk.rows(other, "--against", other, "--every-policy")[0]["entries"] == len(desk.recorded)
