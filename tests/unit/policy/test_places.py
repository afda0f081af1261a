"""A path in a document is found at its line and column."""

from __future__ import annotations

import pytest

from worker.policy.places import read_yaml

TEXT = """\
# A comment.
policy: tiny
categories:
  weapons:
    prompts:
      - a gun
      - a rifle
    thresholds: {review: 0.5, block: 0.9}
"""


@pytest.mark.parametrize(
    ("path", "value", "key"),
    [
        ((), (2, 1), (2, 1)),
        (("policy",), (2, 9), (2, 1)),
        (("categories",), (4, 3), (3, 1)),
        (("categories", "weapons"), (5, 5), (4, 3)),
        (("categories", "weapons", "prompts"), (6, 7), (5, 5)),
        (("categories", "weapons", "prompts", 1), (7, 9), (7, 9)),
        (("categories", "weapons", "thresholds", "block"), (8, 38), (8, 31)),
    ],
)
def test_values_and_keys_are_found(path: tuple[str | int, ...], value: tuple[int, int], key: tuple[int, int]) -> None:
    _, places, problems = read_yaml(TEXT)

    assert problems == []
    assert places.find(path) == value
    assert places.find(path, key=True) == key


@pytest.mark.parametrize(
    ("path", "place"),
    [
        (("version",), (2, 1)),
        (("categories", "drugs", "prompts"), (4, 3)),
        (("categories", "weapons", "prompts", 2), (6, 7)),
        (("policy", "id"), (2, 9)),
    ],
)
def test_what_is_not_there_is_shown_at_its_nearest_parent(path: tuple[str | int, ...], place: tuple[int, int]) -> None:
    _, places, _ = read_yaml(TEXT)

    assert places.find(path) == place


def test_nothing_has_a_place_in_an_unreadable_document() -> None:
    data, places, problems = read_yaml("a: [")

    assert data is None
    assert len(problems) == 1
    assert places.find(("a", 0)) == (1, 1)


def test_a_value_behind_an_alias_is_found_where_it_is_written() -> None:
    data, places, _ = read_yaml("a: &x [1, 2]\nb: *x\n")

    assert data == {"a": [1, 2], "b": [1, 2]}
    assert places.find(("b", 1)) == (1, 11)


def test_a_merged_key_is_found_where_it_applies() -> None:
    data, places, problems = read_yaml("a: &x {k: 1, l: 2}\nb: {<<: *x, k: 3}\n")

    assert problems == []
    assert data["b"] == {"k": 3, "l": 2}
    assert places.find(("b", "k")) == (2, 16)
    assert places.find(("b", "l")) == (1, 17)


@pytest.mark.parametrize("text", ["", "# nothing\n"])
def test_an_empty_document_is_no_problem_of_yaml(text: str) -> None:
    data, _, problems = read_yaml(text)

    assert (data, problems) == (None, [])


def test_dates_and_equals_signs_are_text() -> None:
    data, _, problems = read_yaml("[2026-01-01, 2026-99-99, =]")

    assert problems == []
    assert data == ["2026-01-01", "2026-99-99", "="]


def test_numbers_booleans_and_null_are_data() -> None:
    data, _, problems = read_yaml("[1, 1.5, true, no, null, ~, '1']")

    assert problems == []
    assert data == [1, 1.5, True, False, None, None, "1"]


@pytest.mark.parametrize("size", [1024 * 1024 - 3, 1024 * 1024 - 2])
def test_a_file_is_refused_above_one_mebibyte(size: int) -> None:
    data, _, problems = read_yaml("a: " + "x" * size)

    assert (data is None) == (size + 3 > 1024 * 1024)
    assert bool(problems) == (data is None)


def test_the_size_is_counted_in_bytes() -> None:
    _, _, problems = read_yaml("a: " + "ü" * (600 * 1024))

    assert [problem.message for problem in problems] == ["the file is larger than 1048576 bytes; split it"]
