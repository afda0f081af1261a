"""A directory of policies is loaded whole and without error, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from worker.errors import PolicyInvalid, PolicyMissing, UnknownPolicy
from worker.policy.registry import PolicySet, lint_paths, lint_policy_file, load_directory, shipped_directory

POLICY = """\
# Line 1.
policy: {name}
version: {version}
contrast: [food, people at work]
categories:
  drugs: {{prompts: [pills], thresholds: {{review: 0.5}}}}
"""


def write(directory: Path, name: str = "default", version: int = 1, file: str | None = None) -> Path:
    path = directory / (file or f"{name}/v{version}.yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(POLICY.format(name=name, version=version))
    return path


def errors_of(directory: Path) -> list[str]:
    """Give what is wrong in a directory, each file named from there."""
    with pytest.raises(PolicyInvalid) as caught:
        load_directory(directory)
    linted = [str(finding) for finding in lint_paths([directory])[1]]
    assert sorted(linted) == sorted(caught.value.findings), "lint and load must agree"
    return [finding.replace(f"{directory}/", "") for finding in caught.value.findings]


def versions(policies: PolicySet) -> set[str]:
    return {policy.ref for policy in policies.policies.values()}


def test_every_version_of_every_policy_is_loaded(tmp_path: Path) -> None:
    for version in (1, 2, 10):
        write(tmp_path, "default", version)
    write(tmp_path, "art")
    (tmp_path / "README.md").write_text("not a policy")
    (tmp_path / "default" / "notes.yaml").write_text("not: [a policy")

    policies = load_directory(tmp_path)

    assert versions(policies) == {"default@1", "default@2", "default@10", "art@1"}
    assert policies.refs() == ["art", "art@1", "default", "default@1", "default@10", "default@2"]
    assert lint_paths([tmp_path]) == (4, [])


def test_without_a_rollout_the_highest_version_is_live(tmp_path: Path) -> None:
    for version in (1, 9, 10):
        write(tmp_path, "default", version)

    policies = load_directory(tmp_path)

    assert policies.deciding("default", "upload-1").version == 10
    assert policies.shadows("default", "default") == []
    assert [(policy.ref, role) for policy, role in policies.at_work()] == [("default@10", "live")]


def test_a_rollout_names_live_shadow_and_canary(tmp_path: Path) -> None:
    for version in (1, 2, 3):
        write(tmp_path, "default", version)
    (tmp_path / "rollout.yaml").write_text("default: {live: 2, shadow: [1, 3], canary: {version: 3, percent: 50}}\n")

    policies = load_directory(tmp_path)

    deciding = [policies.deciding("default", f"upload-{number}").version for number in range(200)]
    assert set(deciding) == {2, 3}
    assert deciding == [policies.deciding("default", f"upload-{number}").version for number in range(200)]
    assert [policy.version for policy in policies.shadows("default", "default")] == [1, 3]
    assert [(policy.ref, role) for policy, role in policies.at_work()] == [
        ("default@2", "live"),
        ("default@1", "shadow"),
        ("default@3", "shadow"),
        ("default@3", "canary"),
    ]


def test_a_pinned_job_is_decided_by_its_version_alone(tmp_path: Path) -> None:
    write(tmp_path, version=1)
    write(tmp_path, version=2)
    (tmp_path / "rollout.yaml").write_text("default: {live: 2, shadow: [1]}\n")

    policies = load_directory(tmp_path)

    assert {policies.deciding("default@1", f"upload-{number}").version for number in range(20)} == {1}
    assert policies.shadows("default", "default@1") == []


@pytest.mark.parametrize("ref", ["other", "default@2", "default@x", "other@1", "default@1@1", "", "@1", "DEFAULT"])
def test_an_unknown_policy_is_refused_with_the_known_ones(tmp_path: Path, ref: str) -> None:
    write(tmp_path)

    with pytest.raises(UnknownPolicy) as caught:
        load_directory(tmp_path).deciding(ref, "upload-1")

    assert str(caught.value) == f"unknown policy {ref}; known are default, default@1"


def test_a_policy_of_which_no_version_is_live_is_told_from_one_that_is_not_there(tmp_path: Path) -> None:
    write(tmp_path, version=1)
    write(tmp_path, version=2)
    (tmp_path / "rollout.yaml").write_text("{}\n")
    policies = load_directory(tmp_path)
    says = "no version of default is live; name one of default@1, default@2, or make one live: `default: {live: 2}`"

    with pytest.raises(UnknownPolicy) as caught:
        policies.deciding("default", "upload-1")

    assert str(caught.value).startswith(says)
    assert policies.deciding("default@1", "upload-1").version == 1
    assert policies.lacking("other", "unknown") == "unknown"


def test_a_directory_that_is_not_there_is_missing(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", write(tmp_path)):
        with pytest.raises(PolicyMissing, match="set SLUICE_POLICIES to one"):
            load_directory(path)


def test_a_directory_without_policies_is_missing(tmp_path: Path) -> None:
    (tmp_path / "default").mkdir()
    (tmp_path / "v1.yaml").write_text(POLICY.format(name="default", version=1))

    with pytest.raises(PolicyMissing, match=r"put one at .*<id>/v1\.yaml"):
        load_directory(tmp_path)


def test_lint_refuses_paths_without_policies(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")

    for name in ("empty", "nowhere", "link"):
        with pytest.raises(PolicyMissing, match="name a policy file or a directory"):
            lint_paths([tmp_path / name])


def test_a_file_says_the_version_and_the_id_of_its_path(tmp_path: Path) -> None:
    write(tmp_path, "default", 1, file="default/v2.yaml")
    write(tmp_path, "art", 1, file="drawings/v1.yaml")

    assert errors_of(tmp_path) == [
        "default/v2.yaml:3:10: version: version is 1 but the file is v2.yaml; make them the same",
        "drawings/v1.yaml:2:9: policy: policy is art but the directory is drawings; make them the same",
    ]


@pytest.mark.parametrize(
    "name", ["v01.yaml", "v1.yml", "v1-copy.yaml", "v2_old.yaml", "V2.yaml", "v0.yaml", "v1.yaml.yml"]
)
def test_a_file_that_is_nearly_called_like_a_version_is_found_and_not_left_out(tmp_path: Path, name: str) -> None:
    write(tmp_path, "default", 1)
    write(tmp_path, "default", 1, file=f"default/{name}")

    assert errors_of(tmp_path) == [f"default/{name}:1:1: not the name of a version; call it v1.yaml, v2.yaml, …"]


def test_a_policy_file_of_any_other_name_is_linted_by_what_it_says(tmp_path: Path) -> None:
    policy, findings = lint_policy_file(write(tmp_path, "default", 7, file="draft.yaml"))

    assert findings == []
    assert policy is not None
    assert policy.ref == "default@7"


def test_every_error_of_every_file_is_reported(tmp_path: Path) -> None:
    write(tmp_path, "art")
    write(tmp_path, "default").write_text("policy: default\nversion: x\ncontrast: food\n")
    write(tmp_path, "default", 2).write_text("policy: [")
    (tmp_path / "rollout.yaml").write_text("default: {live: 1, shadow: [2, 3]}\nart: {live: 1, shdow: [1]}\n")

    found = errors_of(tmp_path)

    assert [finding.split(": ")[0] for finding in found] == [
        "default/v1.yaml:1:1",
        "default/v1.yaml:2:10",
        "default/v1.yaml:3:11",
        "default/v2.yaml:1:10",
        "rollout.yaml:2:16",
    ]


def test_a_rollout_of_versions_that_are_not_there_is_found(tmp_path: Path) -> None:
    write(tmp_path, "default", 1)
    (tmp_path / "rollout.yaml").write_text("default:\n  live: 2\n  shadow: [1, 3]\nother: {live: 1}\n")

    assert errors_of(tmp_path) == [
        "rollout.yaml:2:9: default.live: version 2 does not exist; add default/v2.yaml or change it",
        "rollout.yaml:3:15: default.shadow.1: version 3 does not exist; add default/v3.yaml or change it",
        "rollout.yaml:4:15: other.live: version 1 does not exist; add other/v1.yaml or change it",
    ]


def test_a_version_that_is_there_but_broken_is_not_called_missing(tmp_path: Path) -> None:
    write(tmp_path, "default", 1).write_text("")
    (tmp_path / "rollout.yaml").write_text("default: {live: 1}\n")

    assert errors_of(tmp_path) == [
        "default/v1.yaml:1:1: the file is empty; `sluice schema policy` shows what belongs in it"
    ]


def test_a_file_that_is_not_utf8_is_found(tmp_path: Path) -> None:
    text = POLICY.format(name="default", version=1).replace("people at work", "caf\xe9")
    write(tmp_path).write_bytes(text.encode("latin-1"))
    (tmp_path / "rollout.yaml").write_bytes(b"\xff\xfe")

    assert errors_of(tmp_path) == [
        "default/v1.yaml:4:21: not UTF-8; save the file as UTF-8",
        "rollout.yaml:1:1: not UTF-8; save the file as UTF-8",
    ]


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())

    assert versions(load_directory(tmp_path)) == {"default@1"}


def test_a_broken_link_is_found_and_never_passed_over(tmp_path: Path) -> None:
    write(tmp_path, version=1)
    (tmp_path / "default" / "v2.yaml").symlink_to(tmp_path / "nowhere.yaml")

    assert errors_of(tmp_path) == [
        "default/v2.yaml:1:1: cannot be read (No such file or directory); make it a readable file"
    ]


def test_a_broken_link_of_a_rollout_does_not_put_the_highest_version_live(tmp_path: Path) -> None:
    write(tmp_path, version=1)
    (tmp_path / "rollout.yaml").symlink_to(tmp_path / "nowhere.yaml")

    assert errors_of(tmp_path) == [
        "rollout.yaml:1:1: cannot be read (No such file or directory); make it a readable file"
    ]


def test_a_directory_in_place_of_a_file_is_found(tmp_path: Path) -> None:
    write(tmp_path, version=1)
    (tmp_path / "default" / "v2.yaml").mkdir()

    assert errors_of(tmp_path) == ["default/v2.yaml:1:1: cannot be read (Is a directory); make it a readable file"]


def test_links_to_policies_are_followed(tmp_path: Path) -> None:
    target = write(tmp_path / "store")
    policies = tmp_path / "policies"
    (policies / "default").mkdir(parents=True)
    (policies / "default" / "v1.yaml").symlink_to(target)
    (tmp_path / "linked").symlink_to(policies)

    assert versions(load_directory(tmp_path / "linked")) == {"default@1"}


def test_lint_checks_files_and_directories_together(tmp_path: Path) -> None:
    one = write(tmp_path / "a", "default", 2, file="default/v1.yaml")
    write(tmp_path / "b")

    checked, findings = lint_paths([one, tmp_path / "b"])

    assert checked == 2
    assert [(finding.file, finding.key) for finding in findings] == [(str(one), "version")]


def test_a_rollout_is_linted_by_itself_against_the_versions_beside_it(tmp_path: Path) -> None:
    write(tmp_path)
    rollout = tmp_path / "rollout.yaml"
    rollout.write_text("default: {live: 2}\n")

    checked, findings = lint_paths([rollout])

    assert checked == 1
    assert [finding.key for finding in findings] == ["default.live"]


def test_the_policies_that_come_with_sluice_are_found() -> None:
    assert versions(load_directory(shipped_directory())) >= {"default@1", "demo@1"}


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    write(tmp_path)
    os.mkfifo(tmp_path / "default" / "v2.yaml")

    assert errors_of(tmp_path) == ["default/v2.yaml:1:1: not a regular file; make it one"]


def test_a_linked_directory_is_checked_as_it_is_loaded(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere")
    write(tmp_path / "policies", "other")
    (tmp_path / "policies" / "default").symlink_to(tmp_path / "elsewhere" / "default")
    assert versions(load_directory(tmp_path / "policies")) == {"default@1", "other@1"}
    (tmp_path / "elsewhere" / "default" / "v1.yaml").write_text("policy: default")

    assert errors_of(tmp_path / "policies")


def test_what_lies_in_a_hidden_directory_is_a_copy(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path, "..2026_01_01", file="..2026_01_01/v1.yaml")

    assert versions(load_directory(tmp_path)) == {"default@1"}
    assert lint_paths([tmp_path]) == (1, [])
