"""labels.csv comes from strangers: what is wrong with it is said with its line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from worker.errors import UsageError
from worker.workbench.calibration.labels import Labels, read_labels, settle, unknown_lines

CATEGORIES = ("weapons", "drugs")
HEADER = b"content_id,category,label\n"


@pytest.fixture
def read(tmp_path: Path) -> Callable[[bytes], Labels]:
    def reading(content: bytes) -> Labels:
        file = tmp_path / "labels.csv"
        file.write_bytes(content)
        rows = read_labels(file, CATEGORIES)
        return settle(rows, file, CATEGORIES, lambda name: name if name.startswith("u") else None)

    return reading


def test_every_way_to_say_yes_and_no_is_read(read: Callable[[bytes], Labels]) -> None:
    said = b"u1,weapons,1\nu2,weapons,yes\nu3,weapons,TRUE\nu4,weapons,0\nu5,weapons,No\nu6,weapons,false\n"
    labels = read(HEADER + said)
    assert labels.categories["weapons"] == {
        "u1": True, "u2": True, "u3": True, "u4": False, "u5": False, "u6": False
    }  # fmt: skip
    assert labels.categories["drugs"] == {}


def test_a_picture_of_nothing_is_safe_for_every_category_but_those_it_was_judged_for(
    read: Callable[[bytes], Labels],
) -> None:
    labels = read(HEADER + b"u1,*,0\nu2,,no\nu3,drugs,1\nu1,weapons,1\n")
    assert labels.categories == {
        "weapons": {"u1": True, "u2": False},
        "drugs": {"u1": False, "u2": False, "u3": True},
    }
    assert sorted(labels.names) == ["u1", "u2", "u3"]


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + HEADER + b"u1,weapons,1\n",
        HEADER.replace(b"\n", b"\r\n") + b"u1,weapons,1\r\n\r\n",
        b"label,who,Content_ID , category\n1,me,u1,weapons\n",
        HEADER + b'"u1","weapons","1"\n,,\n',
        HEADER + b" u1 , weapons , 1 \nu1,weapons,yes\n",
    ],
    ids=["BOM", "Windows", "other order and columns", "quoted", "spaces and an agreeing copy"],
)
def test_what_spreadsheets_write_is_read(read: Callable[[bytes], Labels], content: bytes) -> None:
    assert read(content).categories == {"weapons": {"u1": True}, "drugs": {}}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", r"labels\.csv:1: the file is empty; its first line is `content_id,category,label`"),
        (HEADER, r"labels\.csv:1: holds no labels; write a line"),
        (b"content_id,label\nu1,1\n", r":1: no column category among content_id, label;"),
        (b"content_id;category;label\nu1;weapons;1\n", r":1: no column content_id among content_id;category;label;"),
        (b"label," + HEADER + b"1,u1,weapons,1\n", r":1: more than one column label"),
        (HEADER + b"u1,weapons,1\nu2,weapons\n", r":3: 2 cells, and the columns are more"),
        (HEADER + b"u1,weapon,1\n", r":2: no category 'weapon'; did you mean weapons\?"),
        (HEADER + b"u1,zzz,1\n", r":2: no category 'zzz'; the policy has weapons, drugs"),
        (HEADER + b"u1,weapons,maybe\n", r":2: label is 'maybe'; write 1 \(yes, true\) or 0"),
        (HEADER + b"u1,weapons,\n", r":2: label is ''"),
        (HEADER + b",weapons,1\n", r":2: no content_id"),
        (HEADER + b"u1,*,1\n", r":2: label 1 without a category; name what the picture shows"),
        (HEADER + b"u1,weapons,1\nu2,*,0\nu1,weapons,0\n", r":4: says the opposite of line 2 of 'u1' and weapons"),
        (HEADER + b"u1,weapons,1\n\xff\xfe,weapons,1\n", r":3: not UTF-8; save the file as UTF-8"),
        (HEADER + b'"u1,weapons,1\n', r":2: unexpected end of data; write it as comma-separated values"),
        (HEADER + b'u1,weapons,1\n"u"2,weapons,1\n', r":3: .*; write it as comma-separated values"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(read: Callable[[bytes], Labels], content: bytes, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read(content)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.csv: No such file or directory; name a file with --labels"):
        read_labels(tmp_path / "none.csv", CATEGORIES)
    with pytest.raises(UsageError, match="Is a directory"):
        read_labels(tmp_path, CATEGORIES)


def test_pictures_that_nobody_knows_are_counted_and_the_first_are_listed(read: Callable[[bytes], Labels]) -> None:
    lines = b"".join(b"x%d,weapons,1\nx%d,drugs,0\n" % (number, number) for number in range(7))
    labels = read(HEADER + b"u1,weapons,1\n" + lines)
    assert labels.unknown == {f"x{number}": 3 + 2 * number for number in range(7)}
    assert list(unknown_lines(labels)) == [
        *(f"line {3 + 2 * number}: no picture 'x{number}'" for number in range(5)),
        "and 2 more",
    ]
    assert labels.categories["weapons"] == {"u1": True}


def test_two_names_of_one_picture_must_agree(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_bytes(HEADER + b"a.png,weapons,1\na,weapons,0\n")
    rows = read_labels(file, CATEGORIES)
    with pytest.raises(UsageError, match=r":3: says the opposite of line 2"):
        settle(rows, file, CATEGORIES, lambda _: "a.png")


def test_a_name_of_two_pictures_is_an_error_with_its_line(tmp_path: Path) -> None:
    def resolve(name: str) -> str:
        raise UsageError(f"{name!r} may be a.png or a.jpg")

    file = tmp_path / "labels.csv"
    file.write_bytes(HEADER + b"a,weapons,1\n")
    with pytest.raises(UsageError, match=r"labels\.csv:2: 'a' may be"):
        settle(read_labels(file, CATEGORIES), file, CATEGORIES, resolve)


def test_only_pictures_that_could_be_judged_keep_their_labels() -> None:
    labels = Labels({"weapons": {"a": True, "b": False}}, {"c": 4}).only({"b"})
    assert labels.categories == {"weapons": {"b": False}}
    assert labels.unknown == {"c": 4}
