"""A correction is the next version of an author's page: one exemplar more or less, and everything else as it was."""

from __future__ import annotations

from pathlib import Path

import exemplars
import numpy as np
import pytest

from worker.errors import PolicyConflict, PolicyInvalid, PolicyMissing, UsageError
from worker.policy import correction
from worker.policy.correction import add_exemplar, remove_exemplar
from worker.policy.registry import lint_policy_file
from worker.policy.stored import StoredEmbeddings

PAGE = """\
policy: house
version: 1
contrast: [food, "people at work"]  # ordinary things
categories:
  weapons:
    prompts: [gun]
    thresholds:
      review: 0.5
      block: 0.90  # or so

  # What else there is.
  drugs: {prompts: [pills], thresholds: {review: 0.5}}
"""


@pytest.fixture
def house(tmp_path: Path) -> Path:
    file = tmp_path / "house" / "v1.yaml"
    file.parent.mkdir()
    file.write_text(PAGE)
    return file


def image(name: str = "upload-1", seed: int = 1) -> StoredEmbeddings:
    return StoredEmbeddings("m@r", "fp32", {name: exemplars.unit(seed)})


def named(directory: Path) -> list[str]:
    return sorted(file.name for file in directory.iterdir())


def test_an_exemplar_is_added_at_the_end_of_its_category_and_comments_stay(house: Path) -> None:
    file, policy = add_exemplar(house, "weapons", "match", image())
    ((_, exemplar),) = policy.exemplars()

    block = f"    exemplars:\n      match:\n        - {exemplar.ref}\n"
    before = PAGE.replace("version: 1", "version: 2")
    assert file.read_text() == before.replace("  # or so\n", f"  # or so\n{block}")
    assert house.read_text() == PAGE
    assert np.array_equal(exemplar.rows(), exemplars.unit(1))


def test_every_correction_builds_on_the_last_and_taking_all_back_leaves_the_page_as_it_was(house: Path) -> None:
    second, _ = add_exemplar(house, "weapons", "match", image())
    third, _ = add_exemplar(second, "weapons", "match", image("upload: 2", 2))
    fourth, policy = add_exemplar(third, "weapons", "unlike", image("upload-3", 3), strength=0.9)
    pools = policy.categories["weapons"].exemplars
    assert pools is not None
    assert [[each.name for each in pool] for pool in (pools.match, pools.unlike)] == [
        ["upload-1", "upload: 2"],
        ["upload-3"],
    ]
    assert pools.strength == 0.9
    assert "\n  # What else there is.\n  drugs:" in fourth.read_text()

    file = fourth
    for name in ("upload-1", "upload-3", "upload: 2"):
        file, policy, ref = remove_exemplar(file, "weapons", name)
        assert ref.endswith(f"#{name}")
    assert file.read_text() == PAGE.replace("version: 1", "version: 7")
    assert list(policy.exemplars()) == []


def test_an_embeddings_file_is_named_by_its_content_and_never_changed(house: Path) -> None:
    second, before = add_exemplar(house, "weapons", "match", image())
    (file,) = house.parent.glob("*.npz")
    content, about = file.read_bytes(), file.stat()
    add_exemplar(second, "drugs", "unlike", image())
    add_exemplar(second, "weapons", "match", image("upload-1", 2))

    assert (file.read_bytes(), file.stat().st_ino, file.stat().st_mtime_ns) == (
        content, about.st_ino, about.st_mtime_ns,
    )  # fmt: skip
    assert len(list(house.parent.glob("*.npz"))) == 2
    assert lint_policy_file(second)[0] == before


def test_an_author_who_writes_on_one_line_is_answered_on_it(house: Path) -> None:
    file, policy = add_exemplar(house, "drugs", "unlike", image())
    ((_, exemplar),) = policy.exemplars()
    assert (
        f"  drugs: {{prompts: [pills], thresholds: {{review: 0.5}}, exemplars: {{unlike: [{exemplar.ref}]}}}}\n"
        in file.read_text()
    )


@pytest.mark.parametrize("kind", ["match", "unlike"])
def test_the_same_image_is_not_added_twice_to_a_category(house: Path, kind: correction.Kind) -> None:
    second, _ = add_exemplar(house, "weapons", "match", image())
    there = named(house.parent)
    with pytest.raises(PolicyConflict, match=r"weapons has this image as match already \(exemplar-\w+.npz#upload-1\)"):
        add_exemplar(second, "weapons", kind, image("the same under another name"))
    assert named(house.parent) == there


def test_what_cannot_be_written_leaves_nothing_behind(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PolicyMissing, match="house@1 has no category weapon; it has weapons, drugs"):
        add_exemplar(house, "weapon", "match", image())
    with pytest.raises(PolicyInvalid, match=r"v2.yaml:\d+:\d+: categories.weapons.exemplars.match.0: '.*' is not FILE"):
        add_exemplar(house, "weapons", "match", image("a name\nof two lines"))
    with pytest.raises(PolicyInvalid, match="strength: should be below 1"):
        add_exemplar(house, "weapons", "match", image(), strength=2.0)

    def somebody_else(*_: object) -> None:
        raise PolicyConflict("v2.yaml was written by somebody else")

    monkeypatch.setattr(correction, "write_next", somebody_else)
    with pytest.raises(PolicyConflict):
        add_exemplar(house, "weapons", "match", image())
    assert named(house.parent) == ["v1.yaml"]


def test_a_directory_that_cannot_be_written_is_said_so(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UsageError, match=r"exemplar-\w+.npz: No space left on device; make the directory writable"):
        add_exemplar(house, "weapons", "match", image())
    assert named(house.parent) == ["v1.yaml"]


def test_removing_names_what_is_there_where_the_name_is_none_or_several(house: Path) -> None:
    with pytest.raises(PolicyMissing, match=r"weapons of .*v1.yaml has no exemplar x; it has none"):
        remove_exemplar(house, "weapons", "x")
    with pytest.raises(PolicyMissing, match="house@1 has no category arms"):
        remove_exemplar(house, "arms", "x")
    second, _ = add_exemplar(house, "weapons", "match", image())
    third, policy = add_exemplar(second, "weapons", "unlike", image("upload-1", 2))
    first, other = (each.ref for _, each in policy.exemplars())
    with pytest.raises(PolicyMissing, match=f"has no exemplar x; it has {first}, {other}"):
        remove_exemplar(third, "weapons", "x")
    with pytest.raises(UsageError, match=f"'upload-1' may be {first} or {other}; name the one that is meant"):
        remove_exemplar(third, "weapons", "upload-1")
    _, policy, ref = remove_exemplar(third, "weapons", other)
    assert ref == other
    assert [each.ref for _, each in policy.exemplars()] == [first]
