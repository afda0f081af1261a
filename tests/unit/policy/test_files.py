"""A policy's files are found as an author means them, whatever else lies beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.errors import PolicyInvalid, PolicyMissing
from worker.policy.files import check_files, find_policy, valid_policy, version_files, with_tests
from worker.policy.registry import lint_policy_file, load_directory

POLICY = """\
policy: {name}
version: {version}
contrast: [food, people at work]
categories:
  drugs: {{prompts: [pills], thresholds: {{review: 0.5}}}}
"""
CASES = "cases:\n  - {name: a, image: a.png, expect: {drugs: review}}\n"


def write(directory: Path, name: str, *versions: int) -> Path:
    (directory / name).mkdir(exist_ok=True)
    for version in versions:
        (directory / name / f"v{version}.yaml").write_text(POLICY.format(name=name, version=version))
    return directory / name


def test_tests_are_no_policy_to_the_loader_and_are_checked_by_lint(tmp_path: Path) -> None:
    house = write(tmp_path, "house", 1, 2)
    (house / "tests.yaml").write_text(CASES)
    assert set(load_directory(tmp_path).policies) == {("house", 1), ("house", 2)}
    assert (check_files([tmp_path]).files, check_files([tmp_path]).findings) == (3, [])

    (house / "tests.yaml").write_text(CASES.replace("drugs", "drogs"))
    assert set(load_directory(tmp_path).policies) == {("house", 1), ("house", 2)}
    for paths in ([tmp_path], [house / "tests.yaml"]):
        (finding,) = check_files(paths).findings
        assert str(finding).startswith(
            f"{house}/tests.yaml:2:38: cases.0.expect.drogs: the policy has no such category"
        )


def test_versions_are_in_the_order_of_their_numbers_and_the_newest_is_tested(tmp_path: Path) -> None:
    house = write(tmp_path, "house", 2, 10, 9)
    (house / "v11.yaml.bak").write_text("")
    (house / "tests.yaml").write_text(CASES)

    assert list(version_files(house)) == [2, 9, 10]
    newest = [(house / "v10.yaml", house / "tests.yaml")]
    assert with_tests(house) == with_tests(house / "tests.yaml") == with_tests(tmp_path) == newest
    assert with_tests(house / "v2.yaml") == [(house / "v2.yaml", house / "tests.yaml")]


def test_where_nothing_can_be_tested_that_is_said(tmp_path: Path) -> None:
    write(tmp_path, "house", 1)
    with pytest.raises(PolicyMissing, match=r"no policy with a tests\.yaml"):
        with_tests(tmp_path)
    with pytest.raises(PolicyMissing):
        with_tests(tmp_path / "nowhere")


def test_a_policy_is_named_by_file_by_id_or_by_version(tmp_path: Path) -> None:
    house = write(tmp_path, "house", 1, 2)
    (tmp_path / "rollout.yaml").write_text("house: {live: 1}\n")

    refs = [find_policy(ref, tmp_path).ref for ref in ("house", "house@2", str(house / "v2.yaml"))]
    assert refs == ["house@1", "house@2", "house@2"]
    for ref in ("house@3", "home", "house@x", "house@", str(house / "v3.yaml")):
        with pytest.raises(PolicyMissing, match="no policy"):
            find_policy(ref, tmp_path)
    (house / "v2.yaml").write_text("policy: [")
    with pytest.raises(PolicyInvalid):
        valid_policy(house / "v2.yaml")


def test_a_huge_file_is_read_no_further_than_a_policy_goes(tmp_path: Path) -> None:
    with (tmp_path / "huge.yaml").open("wb") as file:
        file.truncate(2**36)
    policy, (finding,) = lint_policy_file(tmp_path / "huge.yaml")
    assert policy is None
    assert "larger than 1048576 bytes" in finding.message


def test_a_device_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "endless.yaml").symlink_to("/dev/zero")
    policy, (finding,) = lint_policy_file(tmp_path / "endless.yaml")
    assert policy is None
    assert finding.message == "not a regular file; make it one"


def test_files_in_other_encodings_are_named_and_a_mark_of_utf_8_is_none(tmp_path: Path) -> None:
    house = write(tmp_path, "house", 1)
    text = POLICY.format(name="house", version=1)
    (house / "v1.yaml").write_bytes(text.encode("utf-8-sig"))
    (house / "tests.yaml").write_bytes(CASES.encode("utf-8-sig"))
    assert check_files([tmp_path]).findings == []

    (house / "v1.yaml").write_bytes(text.encode("utf-16"))
    (house / "tests.yaml").write_bytes(CASES.encode("utf-16"))
    assert [finding.message for finding in check_files([tmp_path]).findings] == [
        "not UTF-8; save the file as UTF-8"
    ] * 2
