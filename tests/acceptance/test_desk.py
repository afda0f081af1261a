"""The author's desk from outside: lint, diff, test and new as they are typed, with their output and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import support
from jsonschema import Draft202012Validator

from worker.policy.registry import shipped_directory

pytestmark = pytest.mark.timeout(120)

HOUSE = """\
policy: house
version: 1
contrast: [a plate of food, people at work]
categories:
  weapons: {prompts: [a gun, no toy], thresholds: {review: 0.5, block: 0.9}}
"""


@pytest.fixture
def house(tmp_path: Path) -> Path:
    (tmp_path / "house").mkdir()
    (tmp_path / "house" / "v1.yaml").write_text(HOUSE)
    return tmp_path


def test_warnings_alone_are_no_failure_until_strict_makes_them_errors(house: Path) -> None:
    said = support.sluice("policy", "lint", house, "--no-model")
    assert (said.returncode, said.stderr) == (0, "")
    warning, summary = said.stdout.splitlines()
    assert warning.startswith(
        f"{house}/house/v1.yaml:5:30: warning: categories.weapons.prompts.1: CLIP cannot read 'no'"
    )
    assert summary == "1 file checked, 0 errors, 1 warning"

    said = support.sluice("policy", "lint", house, "--no-model", "--strict", "--json")
    (row,) = map(json.loads, said.stdout.splitlines())
    assert said.returncode == 1
    assert (row["severity"], row["code"], row["line"], row["column"]) == ("error", "negation", 5, 30)


def test_without_the_model_one_line_says_that_less_was_checked(house: Path) -> None:
    said = support.sluice(
        "policy", "lint", house, "--json", "--model", "somebody/not-on-this-machine", HF_HUB_OFFLINE="1"
    )
    assert said.returncode == 0
    (line,) = said.stderr.splitlines()
    assert line.startswith("sluice: only schema and wording were checked, for the model somebody/not-on-this-machine")
    assert "--model" in line
    assert [json.loads(row)["code"] for row in said.stdout.splitlines()] == ["negation"]


def test_ci_reads_sarif_or_annotations(house: Path) -> None:
    said = support.sluice("policy", "lint", house, "--no-model", "--format", "sarif")
    log = json.loads(said.stdout)
    assert said.returncode == 0
    assert [found["ruleId"] for found in log["runs"][0]["results"]] == ["negation"]

    (house / "house" / "v1.yaml").write_text(HOUSE.replace("[a gun, no toy]", "a gun"))
    said = support.sluice("policy", "lint", house, "--no-model", "--format", "github")
    assert said.returncode == 1
    assert said.stdout.startswith("::error file=")
    assert (
        "/house/v1.yaml,line=5,col=22,title=sluice policy lint (schema)::categories.weapons.prompts: should"
        in said.stdout
    )


def test_diff_ends_like_diff(house: Path) -> None:
    (house / "house" / "v2.yaml").write_text(HOUSE.replace("version: 1", "version: 2").replace("0.9", "0.8"))

    said = support.typed("policy", "diff", "house@1", "house@2", "--policies", house)
    assert said.returncode == 1
    assert said.stdout.splitlines() == [
        "house@1 → house@2: 1 change", "", "categories.weapons.thresholds.block", "  ~ 0.9 → 0.8  (-0.1)",
    ]  # fmt: skip
    said = support.typed("policy", "diff", house / "house" / "v1.yaml", "house@2", "--policies", house, "--json")
    assert [json.loads(row)["after"] for row in said.stdout.splitlines()] == [0.8]

    said = support.typed("policy", "diff", "house@2", "house", "--policies", house)
    assert (said.returncode, said.stdout) == (0, "house@2 → house@2: 0 changes\n")
    said = support.typed("policy", "diff", "house@1", "house@9", "--policies", house)
    assert said.returncode == 3
    assert "no policy house@9; name a file, or one of house, house@1, house@2" in said.stderr


def test_new_begins_a_policy_then_its_next_version_and_overwrites_nothing(tmp_path: Path) -> None:
    policies = tmp_path / "policies"
    said = support.typed("policy", "new", "on", "--policies", policies)
    first = policies / "on" / "v1.yaml"
    assert (said.returncode, said.stderr) == (0, "")
    assert str(first) in said.stdout
    text = first.read_text()
    assert text.startswith("# yaml-language-server: $schema=../policy.schema.json\n")
    Draft202012Validator.check_schema(json.loads((policies / "policy.schema.json").read_text()))
    assert support.typed("policy", "lint", policies, "--no-model", "--strict").returncode == 0

    assert support.typed("policy", "new", "on", "--policies", policies).returncode == 0
    assert (policies / "on" / "v2.yaml").read_text() == text.replace("version: 1", "version: 2")
    assert first.read_text() == text

    said = support.typed("policy", "new", "art", "--from", "on@2", "--policies", policies)
    assert said.returncode == 0
    assert "policy: art\nversion: 1\n" in (policies / "art" / "v1.yaml").read_text()
    for wrong, code in ((("../x",), 2), (("art", "--from", "on@9"), 3), (("art", "--from", "../../etc@1"), 3)):
        assert support.typed("policy", "new", *wrong, "--policies", policies).returncode == code
    assert sorted(path.name for path in policies.rglob("*.yaml")) == ["v1.yaml", "v1.yaml", "v2.yaml"]


def test_a_policy_is_tested_from_outside() -> None:
    said = support.sluice("policy", "test", shipped_directory(), "--model", "builtin", "--json")
    rows = [json.loads(row) for row in said.stdout.splitlines()]
    assert (said.returncode, said.stderr) == (0, "")
    assert len(rows) == 43
    assert all(row["passed"] for row in rows)
