"""Exemplars are read from files beside the policy and nowhere else, count in its digest, and travel with it."""

from __future__ import annotations

import base64
import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import exemplars
import numpy as np
import pytest

from worker.policy import beside
from worker.policy.exemplars import Exemplar, carried, to_carry
from worker.policy.lint import lint_policy
from worker.policy.registry import PolicySet, lint_policy_file, load_directory
from worker.policy.schema import Policy
from worker.policy.stored import StoredEmbeddings

#: Of `exemplars.page()`, as it was before there were exemplars.
DIGEST_BEFORE = "sha256:bf7901fb19bff31b6c9d33743441a2d5d1a6206aa83df2ad52deace99b4de3fd"


def valid(file: Path) -> Policy:
    policy, findings = lint_policy_file(file)
    assert policy is not None, [str(finding) for finding in findings]
    return policy


def finding(file: Path) -> str:
    """The one thing that is wrong in a file."""
    policy, findings = lint_policy_file(file)
    assert policy is None
    (found,) = findings
    return str(found).removeprefix(f"{file}:")


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """The directory of a policy, with a file of two images."""
    exemplars.put(
        tmp_path / "house", {"upload-1": exemplars.unit(1), "upload 2": exemplars.unit(2, rows=3)}, name="a.npz"
    )
    return tmp_path / "house"


def test_exemplars_are_read_from_the_file_beside_the_policy(house: Path) -> None:
    policy = valid(exemplars.write(house.parent, "match: [a.npz#upload-1]", "unlike: ['a.npz#upload 2']"))

    found = dict(policy.exemplars())
    assert list(found) == [("weapons", "match", 0), ("weapons", "unlike", 0)]
    match, unlike = found.values()
    assert (match.ref, match.name, match.model, match.dim) == ("a.npz#upload-1", "upload-1", "m@r", 8)
    assert np.array_equal(match.rows(), exemplars.unit(1))
    assert np.array_equal(unlike.rows(), exemplars.unit(2, rows=3))
    weapons = policy.categories["weapons"].exemplars
    assert weapons is not None
    assert weapons.strength == 0.98


def test_the_digest_of_a_policy_without_exemplars_is_what_it_was(house: Path) -> None:
    policy = valid(exemplars.write(house.parent))

    assert policy.digest == DIGEST_BEFORE
    assert "exemplars" not in policy.model_dump(mode="json")["categories"]["weapons"]
    with_one = valid(exemplars.write(house.parent, "match: [a.npz#upload-1]"))
    assert with_one.without_exemplars().digest == DIGEST_BEFORE


def test_the_digest_covers_the_embedding_and_not_its_name_alone(house: Path) -> None:
    file = exemplars.write(house.parent, "match: [a.npz#upload-1]")
    before = valid(file)
    exemplars.put(house, {"upload-1": exemplars.unit(7)}, name="a.npz")
    other_image = valid(file)
    exemplars.put(house, {"upload-1": exemplars.unit(1)}, model="n@r", name="a.npz")
    other_model = valid(file)

    assert len({before.digest, other_image.digest, other_model.digest}) == 3


def test_a_file_that_is_named_by_its_content_holds_that_content_or_is_refused(tmp_path: Path) -> None:
    name = exemplars.put(tmp_path / "house", {"x": exemplars.unit(1)})
    file = exemplars.write(tmp_path, f"match: [{name}#x]")
    assert len(list(valid(file).exemplars())) == 1

    exemplars.put(tmp_path / "house", {"x": exemplars.unit(2)}, name=name)
    assert finding(file) == (
        f"9:15: categories.weapons.exemplars.match.0: {name} is not what it was when it was written; "
        "restore it, it is never edited"
    )


def test_a_policy_with_exemplars_is_the_same_after_every_journey(house: Path) -> None:
    file = exemplars.write(house.parent, "match: [a.npz#upload-1]", "unlike: ['a.npz#upload 2']")
    policy = valid(file)
    packed = json.loads(json.dumps({each.ref: to_carry(each) for _, each in policy.exemplars()}))
    published, findings = lint_policy(file.read_text(), "redis", ("house", 1), carried(packed))
    assert published is not None, findings
    loaded = load_directory(house.parent)
    handed_over = PolicySet.from_json(loaded.to_json()).policies["house", 1]

    assert published == policy == handed_over
    assert published.digest == policy.digest == handed_over.digest


# -- what is refused, and where ----------------------------------------------------------------------------------------


ONE = "match: [a.npz#upload-1]"
TWICE = "is the same image as categories.weapons.exemplars.match.0; remove one"
NO_REF = "should be FILE.npz#NAME in quotes"
OUTSIDE = "is not FILE.npz#NAME; the file must lie in the directory of the policy"
CARRIED = "match: [{ref: a.npz#upload-1, model: m@r, dim: 1, embeddings: AACAPw==}]"


@pytest.mark.parametrize(
    ("lines", "place", "expected"),
    [
        (["match: a.npz#upload-1"], "9:14: match", "should be a list"),
        (["unlike: a.npz#upload-1"], "9:15: unlike", "should be a list"),
        (["match: [a.npz#upload-1, a.npz#nobody]"], "9:31: match.1", "a.npz holds no 'nobody'; it holds 'upload 2', "),
        (["match: [b.npz#x]"], "9:15: match.0", "there is no b.npz beside this file; copy it there"),
        (["match: [a.npz]"], "9:15: match.0", "'a.npz' is not FILE.npz#NAME"),
        (["match: [a.txt#x]"], "9:15: match.0", "'a.txt#x' is not FILE.npz#NAME"),
        (["match: [../house/a.npz#upload-1]"], "9:15: match.0", f"'../house/a.npz#upload-1' {OUTSIDE}"),
        (["match: [/etc/a.npz#x]"], "9:15: match.0", f"'/etc/a.npz#x' {OUTSIDE}"),
        (["match: [.a.npz#x]"], "9:15: match.0", "'.a.npz#x' is not"),
        (["match: [7]"], "9:15: match.0", NO_REF),
        (["match: [[a.npz#upload-1]]"], "9:15: match.0", NO_REF),
        ([CARRIED], "9:15: match.0", NO_REF),
        (["matches: [a.npz#upload-1]"], "9:7: matches", "unknown key; did you mean match?"),
        (["match: []"], "9:7: ", "give match, unlike or both"),
        (["match: [a.npz#upload-1, a.npz#upload-1]"], "9:31: match.1", TWICE),
        ([ONE, "unlike: [a.npz#upload-1]"], "10:16: unlike.0", TWICE),
        ([ONE, "strength: 1"], "10:17: strength", "should be below 1"),
        ([ONE, "strength: 0.5"], "10:17: strength", "should be above 0.5"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(house: Path, lines: list[str], place: str, expected: str) -> None:
    at, _, key = place.rpartition(" ")
    whole = ".".join(filter(None, ("categories.weapons.exemplars", key)))
    assert finding(exemplars.write(house.parent, *lines)).startswith(f"{at} {whole}: {expected}")


def test_two_sizes_under_one_model_are_refused(house: Path) -> None:
    exemplars.put(house, {"wide": exemplars.unit(3, dim=16)}, name="b.npz")
    assert finding(exemplars.write(house.parent, "match: [a.npz#upload-1, b.npz#wide]")) == (
        "9:31: categories.weapons.exemplars.match.1: has 16 numbers, and 'a.npz#upload-1' of the same model 8; "
        "record it again"
    )


def test_more_than_can_be_carried_is_refused_where_it_becomes_too_much(
    house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.policy.lint._MAX_EXEMPLARS", 100)
    assert finding(exemplars.write(house.parent, "match: [a.npz#upload-1]", "unlike: ['a.npz#upload 2']")).startswith(
        "10:16: categories.weapons.exemplars.unlike.0: all exemplars up to here are larger than 100 bytes; remove some"
    )


def test_a_text_without_a_directory_has_no_exemplars(house: Path) -> None:
    _, findings = lint_policy(exemplars.page("match: [a.npz#upload-1]"), "text")
    assert [found.message.partition(";")[0] for found in findings] == [
        "this text has no directory, so its exemplars cannot be read"
    ]


def link(directory: Path) -> None:
    exemplars.put(directory.parent / "elsewhere", {"x": exemplars.unit(1)}, name="real.npz")
    (directory / "b.npz").symlink_to(directory.parent / "elsewhere" / "real.npz")


def packed(**arrays: Any) -> bytes:
    target = io.BytesIO()
    np.savez(target, **arrays)
    return target.getvalue()


def damaged(directory: Path) -> None:
    content = bytearray(StoredEmbeddings("m@r", "fp32", {"x": exemplars.unit(1)}).to_bytes())
    content[200] ^= 255
    (directory / "b.npz").write_bytes(content)


def encrypted(directory: Path) -> None:
    content = bytearray(StoredEmbeddings("m@r", "fp32", {"x": exemplars.unit(1)}).to_bytes())
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = content.find(mark)
        while place >= 0:
            content[place + at] |= 1
            place = content.find(mark, place + 1)
    (directory / "b.npz").write_bytes(content)


def bomb(directory: Path) -> None:
    with zipfile.ZipFile(directory / "b.npz", "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("embeddings.npy", b"\0" * (beside.MAX_FILE_BYTES + 1))


def long(directory: Path) -> None:
    (directory / "b.npz").touch()
    os.truncate(directory / "b.npz", beside.MAX_FILE_BYTES + 1)


def of(rows: np.ndarray) -> Callable[[Path], str]:
    return lambda directory: exemplars.put(directory, {"x": rows}, name="b.npz")


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (link, "b.npz is a symbolic link; put the file itself beside the policy"),
        (lambda at: os.mkfifo(at / "b.npz"), "b.npz is not a regular file; put the file itself beside the policy"),
        (lambda at: (at / "b.npz").mkdir(), "b.npz cannot be read (Is a directory); make it a readable file"),
        (lambda at: (at / "b.npz").write_bytes(b""), "b.npz is no file of embeddings"),
        (lambda at: (at / "b.npz").write_bytes(b"PK nonsense"), "b.npz is no file of embeddings"),
        (damaged, "b.npz is no file of embeddings"),
        (encrypted, "b.npz is no file of embeddings"),
        (bomb, "b.npz is larger than 16777216 bytes; split it"),
        (long, "b.npz is larger than 16777216 bytes; split it"),
        (lambda at: (at / "b.npz").write_bytes(packed(x=np.zeros(1))), "b.npz is no file of embeddings"),
        (of(2 * exemplars.unit(1)), "b.npz does not hold one unit vector for each view"),
        (of(np.nan * exemplars.unit(1)), "b.npz does not hold one unit vector for each view"),
        (of(exemplars.unit(1, rows=65)), "b.npz#x should hold 1 to 64 views of 8 numbers"),
    ],
)
def test_a_file_that_is_none_is_refused_and_not_waited_for(house: Path, place: Any, expected: str) -> None:
    place(house)
    found = finding(exemplars.write(house.parent, "match: [a.npz#upload-1, b.npz#x]"))
    assert found.startswith(f"9:31: categories.weapons.exemplars.match.1: {expected}")


def test_nothing_that_a_hostile_file_holds_is_more_than_a_finding(house: Path) -> None:
    whole = StoredEmbeddings("m@r", "fp32", {"x": exemplars.unit(1)}).to_bytes()
    draw = np.random.default_rng(0)
    file = exemplars.write(house.parent, "match: [b.npz#x]")
    refused = 0
    for _ in range(300):
        content = bytearray(whole)
        for at in draw.integers(0, len(content), 3):
            content[at] = draw.integers(0, 256)
        (house / "b.npz").write_bytes(content[: draw.integers(1, len(content) + 1)] if draw.random() < 0.3 else content)
        refused += lint_policy_file(file)[0] is None
    assert refused > 200


# -- what was published ------------------------------------------------------------------------------------------------


def carried_row(**other: Any) -> dict[str, Any]:
    return to_carry(Exemplar.of("a.npz#x", "m@r", exemplars.unit(1))) | other


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ({}, "its embedding was not published with it; publish the version again"),
        ({"a.npz#x": "nonsense"}, "model: Field required"),
        ({"a.npz#x": carried_row(embeddings="?")}, "a.npz#x does not carry base64"),
        ({"a.npz#x": carried_row(embeddings="")}, "a.npz#x should hold 1 to 64 views of 8 numbers"),
        ({"a.npz#x": carried_row(dim=5)}, "a.npz#x should hold 1 to 64 views of 5 numbers"),
        ({"a.npz#x": carried_row(dim=0)}, "dim: Input should be greater than or equal to 1"),
        ({"a.npz#x": carried_row(dim=10**30)}, "dim: "),
        ({"a.npz#x": carried_row(embeddings=base64.b64encode(b"\xff" * 32).decode())}, "a.npz#x does not hold unit"),
        ({"a.npz#x": carried_row(more=1)}, "more: Extra inputs are not permitted"),
    ],
)
def test_what_nobody_published_is_refused(rows: dict[str, Any], expected: str) -> None:
    policy, (found,) = lint_policy(exemplars.page("match: [a.npz#x]"), "redis", None, carried(rows))
    assert policy is None
    assert found.message.startswith(expected)
    assert found.key == "categories.weapons.exemplars.match.0"
