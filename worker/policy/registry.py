"""Where policies are kept: reads a directory of `<id>/v<N>.yaml` files and its `rollout.yaml`.

In: a directory. Out: a `PolicySet`, complete and without error, or every finding at once. Never half a set.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from worker.errors import PolicyInvalid, PolicyMissing, UnknownPolicy
from worker.policy.beside import Beside
from worker.policy.findings import Finding
from worker.policy.lint import lint_policy, lint_rollout
from worker.policy.places import MAX_BYTES
from worker.policy.rollout import Rollout
from worker.policy.schema import Policy

ROLLOUT_FILE = "rollout.yaml"
#: What a version's file is called.
VERSION_FILE = re.compile(r"v([1-9][0-9]{0,8})\.yaml")
#: What was meant to be one: a file that nobody reads is a policy that nobody applies.
_ALMOST_A_VERSION = re.compile(r"v[0-9].*\.ya?ml", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PolicySet:
    """All policies that can judge, and which versions of them are at work."""

    policies: dict[tuple[str, int], Policy]
    rollouts: dict[str, Rollout]

    def deciding(self, ref: str, content_id: str) -> Policy:
        """Return the version that decides for an upload.

        Args:
            ref: `id` (its live version, or its canary for its share) or `id@version`.
            content_id: The platform's id of the upload.

        Raises:
            UnknownPolicy: There is none; the message lists the known ones.
        """
        name, _, pinned = ref.partition("@")
        if not pinned and name in self.rollouts:
            return self.policies[name, self.rollouts[name].deciding_version(name, content_id)]
        policy = self.get(ref)
        if policy is None:
            raise UnknownPolicy(self.lacking(ref, f"unknown policy {ref}; known are {', '.join(self.refs())}"))
        return policy

    def get(self, ref: str) -> Policy | None:
        """Return the policy of `id` (its live version) or `id@version`; None: there is none."""
        name, at, version = ref.partition("@")
        if not at:
            return self.policies[name, self.rollouts[name].live] if name in self.rollouts else None
        return self.policies.get((name, int(version))) if version.isdecimal() else None

    def lacking(self, ref: str, unknown: str) -> str:
        """Say why there is no policy `ref`: what is meant is there and not live, or it is `unknown`."""
        versions = sorted(version for name, version in self.policies if name == ref)
        if not versions:
            return unknown
        named = ", ".join(f"{ref}@{version}" for version in versions)
        return (
            f"no version of {ref} is live; name one of {named}, or make one live: `{ref}: {{live: {versions[-1]}}}` in "
            f"{ROLLOUT_FILE}, or `sluice policy activate {ref}@{versions[-1]}` in the registry"
        )

    def shadows(self, policy_id: str, ref: str) -> list[Policy]:
        """Return the versions that watch when a job names `ref`: none when it is pinned to a version."""
        if "@" in ref or policy_id not in self.rollouts:
            return []
        return [self.policies[policy_id, version] for version in self.rollouts[policy_id].shadow]

    def refs(self) -> list[str]:
        """Return every policy and version, sorted: `default`, `default@1`, …."""
        return sorted([*self.rollouts, *(f"{name}@{version}" for name, version in self.policies)])

    def to_json(self) -> bytes:
        """Return all of it as JSON, for a process that takes over."""
        return _CARRIED.dump_json((list(self.policies.values()), self.rollouts))

    @classmethod
    def from_json(cls, data: bytes) -> PolicySet:
        """Read what `to_json` wrote."""
        policies, rollouts = _CARRIED.validate_json(data)
        return cls({(policy.policy, policy.version): policy for policy in policies}, rollouts)

    def at_work(self) -> list[tuple[Policy, str]]:
        """Return every policy version that is at work, with its role."""
        rows = []
        for name, rollout in self.rollouts.items():
            rows.append((self.policies[name, rollout.live], "live"))
            rows += [(self.policies[name, version], "shadow") for version in rollout.shadow]
            if rollout.canary:
                rows.append((self.policies[name, rollout.canary.version], "canary"))
        return rows


_CARRIED: TypeAdapter[tuple[list[Policy], dict[str, Rollout]]] = TypeAdapter(tuple[list[Policy], dict[str, Rollout]])


def load_directory(directory: Path) -> PolicySet:
    """Read and check every policy in `directory`.

    Raises:
        PolicyMissing: There is no such directory, or no policy in it.
        PolicyInvalid: Every error in every file.
    """
    if not directory.is_dir():
        shipped = shipped_directory()
        raise PolicyMissing(f"no policy directory at {directory}; set SLUICE_POLICIES to one, such as {shipped}")
    policies, findings = _load_versions(directory)
    if not policies and not findings:
        raise PolicyMissing(f"no policy in {directory}; put one at {directory}/<id>/v1.yaml")
    rollouts, wrong = _load_rollouts(directory / ROLLOUT_FILE, policies, findings)
    if findings + wrong:
        raise PolicyInvalid([str(finding) for finding in findings + wrong])
    return PolicySet(policies, rollouts)


def _version_files(files: Iterable[Path]) -> list[Path]:
    return sorted(file for file in files if _ALMOST_A_VERSION.fullmatch(file.name))


def lint_policy_file(file: Path) -> tuple[Policy | None, list[Finding]]:
    """Check one policy file; its name too, if it begins like that of a version."""
    text, findings = _read(file)
    if text is None:
        return None, findings
    match = VERSION_FILE.fullmatch(file.name)
    named = (file.absolute().parent.name, int(match[1])) if match else None
    policy, findings = lint_policy(text, str(file), named, Beside(file.parent))
    if match is None and _ALMOST_A_VERSION.fullmatch(file.name):
        findings.insert(0, Finding(str(file), 1, 1, "", "not the name of a version; call it v1.yaml, v2.yaml, …"))
    return (policy if not findings else None), findings


def lint_paths(paths: Iterable[Path]) -> tuple[int, list[Finding]]:
    """Check files, and every policy and rollout in directories.

    Returns:
        How many files were checked, and every finding.

    Raises:
        PolicyMissing: A path does not exist, or a directory holds no policy.
    """
    checked, findings = 0, []
    for path in paths:
        below = _below(path, path.rglob("*")) if path.is_dir() else []
        rollouts = [file for file in below if file.name == ROLLOUT_FILE]
        files = [*_version_files(below), *rollouts] if path.is_dir() else [path]
        if not files or not path.exists():
            raise PolicyMissing(f"no policy at {path}; name a policy file or a directory of <id>/v<N>.yaml files")
        for file in files:
            checked += 1
            findings += _lint_rollout_file(file) if file.name == ROLLOUT_FILE else lint_policy_file(file)[1]
    return checked, findings


def _below(directory: Path, files: Iterable[Path]) -> list[Path]:
    """Return files, those in linked directories too, and none in hidden ones: Kubernetes keeps copies there."""
    found = {*files, *directory.glob("*/*")}
    return sorted(file for file in found if not any(part[0] == "." for part in file.relative_to(directory).parts))


def _lint_rollout_file(file: Path) -> list[Finding]:
    policies, findings = _load_versions(file.parent)
    return _load_rollouts(file, policies, findings)[1]


def _load_versions(directory: Path) -> tuple[dict[tuple[str, int], Policy], list[Finding]]:
    policies: dict[tuple[str, int], Policy] = {}
    findings: list[Finding] = []
    for file in _version_files(_below(directory, ())):
        policy, wrong = lint_policy_file(file)
        findings += wrong
        if policy is not None:
            policies[policy.policy, policy.version] = policy
    return policies, findings


def _load_rollouts(
    file: Path, policies: dict[tuple[str, int], Policy], earlier: list[Finding]
) -> tuple[dict[str, Rollout], list[Finding]]:
    """Read the rollout; without one, the highest version of each policy is live."""
    if not file.exists() and not file.is_symlink():
        live: dict[str, int] = {}
        for name, version in policies:
            live[name] = max(version, live.get(name, 0))
        return {name: Rollout(live=version) for name, version in live.items()}, []
    text, findings = _read(file)
    if text is None:
        return {}, findings
    known = {*((file.parent / name / f"v{version}.yaml") for name, version in policies)}
    known |= {Path(finding.file) for finding in earlier}
    rollout, findings = lint_rollout(text, str(file), lambda name, n: file.parent / name / f"v{n}.yaml" in known)
    return (rollout.root if rollout else {}), findings


def _read(file: Path) -> tuple[str | None, list[Finding]]:
    try:
        kind = file.stat().st_mode
        if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
            # Whoever opened a pipe would wait for its other end.
            return None, [Finding(str(file), 1, 1, "", "not a regular file; make it one")]
        with file.open("rb") as source:
            # A file that has no end, such as a device, is read no further than a policy goes.
            data = source.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            return None, [Finding(str(file), 1, 1, "", f"the file is larger than {MAX_BYTES} bytes; split it")]
        return data.decode("utf-8-sig"), []
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode()
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        return None, [Finding(str(file), line, column, "", "not UTF-8; save the file as UTF-8")]
    except OSError as error:
        return None, [Finding(str(file), 1, 1, "", f"cannot be read ({error.strerror}); make it a readable file")]


def shipped_directory() -> Path:
    """Return the policies that come with Sluice: in the installed package, or beside it in a checkout."""
    installed = Path(__file__).parent / "shipped"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "policies"
