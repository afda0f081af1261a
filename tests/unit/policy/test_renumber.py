"""New numbers change their own lines, and nothing that is written once for several categories."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.policy.next_version import write_next
from worker.policy.renumber import renumber
from worker.policy.schema import Calibration

PAGE = """\
policy: house
version: 1
contrast: [food]
categories:
  weapons:
    prompts: [gun]  # more to come
    thresholds: {review: 0.5, block: 0.90}
  drugs: {prompts: [pills], thresholds: {review: 0.5}}
calibration:
  "m@r":
    weapons: {bias: 1.9, temperature: 1.30}
"""
MADE = Calibration(bias=2.5, temperature=0.75, contrast_weight=0.25, sentences="sha256:" + "0" * 64)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "house").mkdir()
    written = tmp_path / "house" / "v1.yaml"
    written.write_text(PAGE)
    return written


def test_only_the_new_numbers_differ(file: Path) -> None:
    target, policy = write_next(file, renumber("m@r", {"weapons": MADE}, {"weapons": {"block": 0.85}}))

    line = "{bias: 2.5, temperature: 0.75, contrast_weight: 0.25, sentences: sha256:" + "0" * 64 + "}"
    expected = PAGE.replace("version: 1", "version: 2").replace("block: 0.90", "block: 0.85")
    assert target.read_text() == expected.replace("{bias: 1.9, temperature: 1.30}", line)
    assert policy.calibration["m@r"]["weapons"] == MADE


def test_another_model_stands_beside_the_old_one(file: Path) -> None:
    _, policy = write_next(file, renumber("n@s", {"drugs": MADE}, {}))
    assert policy.calibration["m@r"]["weapons"].bias == 1.9
    assert policy.calibration["n@s"] == {"drugs": MADE}


def test_a_policy_without_calibrations_gets_its_first(file: Path) -> None:
    file.write_text(PAGE[: PAGE.index("calibration:")])
    _, policy = write_next(file, renumber("m@r", {"drugs": MADE}, {}))
    assert policy.calibration == {"m@r": {"drugs": MADE}}


def test_without_calibrations_none_is_begun(file: Path) -> None:
    file.write_text(PAGE[: PAGE.index("calibration:")])
    target, _ = write_next(file, renumber("m@r", {}, {"drugs": {"review": 0.25}}))
    assert "calibration" not in target.read_text()


ALIASED = """\
policy: house
version: 1
contrast: [food]
categories:
  weapons: &weapons {prompts: [gun], thresholds: &both {review: 0.5, block: 0.9}}
  drugs: {prompts: [pills], thresholds: *both}
  knives: *weapons
  swords:
    <<: *weapons
    prompts: [sword]
calibration:
  "m@r": &numbers {weapons: {bias: 1.0}}
  "m@s": *numbers
"""


@pytest.mark.parametrize("name", ["weapons", "drugs", "knives", "swords"])
def test_a_category_that_shares_its_numbers_gets_its_own(file: Path, name: str) -> None:
    file.write_text(ALIASED)
    _, policy = write_next(file, renumber("m@r", {name: MADE}, {name: {"review": 0.25}}))

    reviews = {other: category.thresholds.review for other, category in policy.categories.items()}
    assert reviews == dict.fromkeys(("weapons", "drugs", "knives", "swords"), 0.5) | {name: 0.25}
    assert {category.thresholds.block for category in policy.categories.values()} == {0.9}
    assert policy.calibration["m@r"][name] == MADE
    assert policy.calibration["m@s"] == {"weapons": Calibration(bias=1.0)}
