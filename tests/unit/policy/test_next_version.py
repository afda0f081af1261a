"""The next version of a policy: one change, everything else as its author wrote it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from worker.errors import PolicyConflict, PolicyInvalid, UsageError
from worker.policy import next_version
from worker.policy.next_version import write_next

PAGE = """\
# What we do not want.
policy: house
version: 1
contrast: [food, "people at work"]  # ordinary things
categories:
  weapons:
    # Long ones too.
    prompts:
      - gun
      - 'rifle'
    thresholds: {review: 0.5, block: 0.90}
"""


@pytest.fixture
def house(tmp_path: Path) -> Path:
    directory = tmp_path / "house"
    directory.mkdir()
    file = directory / "v1.yaml"
    file.write_text(PAGE)
    return file


def raise_threshold(document: Any) -> None:
    document["categories"]["weapons"]["thresholds"]["review"] = 0.625


def test_only_the_version_and_the_change_differ(house: Path) -> None:
    file, policy = write_next(house, raise_threshold)
    assert file == house.with_name("v2.yaml")
    assert file.read_text() == PAGE.replace("version: 1", "version: 2").replace("review: 0.5", "review: 0.625")
    assert (policy.version, policy.categories["weapons"].thresholds.review) == (2, 0.625)
    assert house.read_text() == PAGE
    assert sorted(other.name for other in house.parent.iterdir()) == ["v1.yaml", "v2.yaml"]


def test_a_small_number_is_one_for_every_reader(house: Path) -> None:
    def lower(document: Any) -> None:
        document["categories"]["weapons"]["thresholds"]["review"] = 2e-06

    file, policy = write_next(house, lower)
    assert policy.categories["weapons"].thresholds.review == 2e-06
    assert "review: 0.000002," in file.read_text()


def test_the_number_follows_the_highest_there_is(house: Path) -> None:
    house.with_name("v7.yaml").write_text(PAGE.replace("version: 1", "version: 7"))
    assert write_next(house, raise_threshold)[0].name == "v8.yaml"


def test_a_change_that_makes_it_invalid_writes_nothing(house: Path) -> None:
    def disorder(document: Any) -> None:
        document["categories"]["weapons"]["thresholds"]["review"] = 0.95

    with pytest.raises(PolicyInvalid, match=r"v2\.yaml:11:.*review"):
        write_next(house, disorder)
    assert [other.name for other in house.parent.iterdir()] == ["v1.yaml"]


def test_a_start_that_is_invalid_is_not_continued(house: Path) -> None:
    house.write_text(PAGE + "colour: red\n")
    with pytest.raises(PolicyInvalid, match="colour"):
        write_next(house, raise_threshold)


def test_of_two_authors_one_is_told(house: Path) -> None:
    def slow(document: Any) -> None:
        house.with_name("v2.yaml").write_text("the other's")
        raise_threshold(document)

    with pytest.raises(PolicyConflict, match=r"v2\.yaml was written by somebody else"):
        write_next(house, slow)
    assert house.with_name("v2.yaml").read_text() == "the other's"
    assert len(list(house.parent.iterdir())) == 2


def test_a_directory_that_cannot_be_written_says_so(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(next_version.os, "getpid", lambda: "x" * 300)  # a name too long for any file system
    with pytest.raises(UsageError, match="make the directory writable"):
        write_next(house, raise_threshold)
