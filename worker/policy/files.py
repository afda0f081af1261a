"""A policy's files, as its author finds them: versions, the newest of them, the tests beside them.

In: paths. Out: what was checked, every finding, and the policies that are valid, each with its page.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from worker.errors import PolicyInvalid, PolicyMissing
from worker.policy.cases import CASES_FILE, CasesFile, lint_cases
from worker.policy.findings import Finding
from worker.policy.registry import ROLLOUT_FILE, VERSION_FILE, lint_paths, lint_policy_file, load_directory
from worker.policy.schema import Policy
from worker.policy.wording import Page

#: Larger files are not read whole, in bytes; what `places` reads is less.
_MAX_BYTES = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found in files."""

    files: int
    findings: list[Finding]
    #: The valid policies, each once.
    policies: list[tuple[Policy, Page]]


def check_files(paths: Sequence[Path]) -> Checked:
    """Check policies, rollouts and tests.

    Args:
        paths: Files, or directories of them.

    Raises:
        PolicyMissing: A path does not exist, or a directory holds no policy.
    """
    named = [path for path in paths if path.name != CASES_FILE or path.is_dir()]
    checked, findings = lint_paths(named) if named else (0, [])
    policies = []
    for file in dict.fromkeys(_policies_at(named)):
        policy, _ = lint_policy_file(file)
        if policy is not None:
            policies.append((policy, Page.of(str(file), read_text(file))))
    for file in dict.fromkeys(_tests_at(paths)):
        checked += 1
        findings += check_cases_file(file, _newest_policy(file.parent))[1]
    return Checked(checked, findings, policies)


def check_cases_file(file: Path, policy: Policy | None) -> tuple[CasesFile | None, list[Finding]]:
    """Check a `tests.yaml` against the policy that it tests, where that is known.

    Raises:
        PolicyMissing: There is no such file.
    """
    if not file.is_file():
        raise PolicyMissing(f"no tests at {file}; write them, `sluice schema tests` shows what belongs in the file")
    try:
        text = read_text(file)
    except UnicodeDecodeError:
        return None, [Finding(str(file), 1, 1, "", "not UTF-8; save the file as UTF-8")]
    return lint_cases(text, str(file), policy.categories if policy else None)


def valid_policy(file: Path) -> Policy:
    """Read a policy file.

    Raises:
        PolicyMissing: There is no such file.
        PolicyInvalid: Every error in it.
    """
    if not file.is_file():
        raise PolicyMissing(f"no policy at {file}; name a policy file")
    policy, findings = lint_policy_file(file)
    if policy is None:
        raise PolicyInvalid([str(finding) for finding in findings])
    return policy


def find_policy(ref: str, directory: Path) -> Policy:
    """Return the policy of a file, or of `ID` (its live version) or `ID@VERSION` in a directory.

    Raises:
        PolicyMissing: There is none.
        PolicyInvalid: Every error in the file or the directory.
    """
    if ref.endswith((".yaml", ".yml")) or Path(ref).is_file():
        return valid_policy(Path(ref))
    policies = load_directory(directory)
    policy = policies.get(ref)
    if policy is None:
        known = f"no policy {ref}; name a file, or one of {', '.join(policies.refs())} in {directory}"
        raise PolicyMissing(policies.lacking(ref, known))
    return policy


def find_version_file(ref: str, directory: Path) -> Path:
    """Return the file of a policy as `find_policy` finds it.

    Args:
        ref: A file, or `ID` (its live version) or `ID@VERSION`.
        directory: Of the policies.

    Raises:
        PolicyMissing: There is none.
        PolicyInvalid: Every error in the file or the directory.
    """
    policy = find_policy(ref, directory)
    return Path(ref) if Path(ref).is_file() else directory / policy.policy / f"v{policy.version}.yaml"


def version_files(directory: Path) -> dict[int, Path]:
    """Return the versions in a policy's directory, in order."""
    found = {int(match[1]): file for file in directory.glob("v*.yaml") if (match := VERSION_FILE.fullmatch(file.name))}
    return dict(sorted(found.items()))


def with_tests(path: Path) -> list[tuple[Path, Path]]:
    """Return policy files, each with its tests.

    Args:
        path: A version (its own tests are beside it), a `tests.yaml` or the directory of a policy (its newest version),
            or a directory of such directories (each that has tests).

    Raises:
        PolicyMissing: There is no policy, or there are no tests.
    """
    if path.is_file() and path.name != CASES_FILE:
        return [(path, path.parent / CASES_FILE)]
    directory = path.parent if path.name == CASES_FILE and not path.is_dir() else path
    if version_files(directory):
        return [(_newest(directory), directory / CASES_FILE)]
    found = [(_newest(file.parent), file) for file in _tests_at([directory]) if version_files(file.parent)]
    if not found:
        raise PolicyMissing(f"no policy with a {CASES_FILE} at {path}; put one beside the versions of a policy")
    return found


def read_text(file: Path) -> str:
    """Read a file as far as a policy goes.

    Raises:
        UnicodeDecodeError: It is not UTF-8.
    """
    with file.open("rb") as source:
        return source.read(_MAX_BYTES).decode("utf-8-sig")


def _newest(directory: Path) -> Path:
    return list(version_files(directory).values())[-1]


def _newest_policy(directory: Path) -> Policy | None:
    return lint_policy_file(_newest(directory))[0] if version_files(directory) else None


def _policies_at(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(file for file in path.rglob("v*.yaml") if VERSION_FILE.fullmatch(file.name))
        elif path.name != ROLLOUT_FILE:
            yield path


def _tests_at(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(path.rglob(CASES_FILE))
        elif path.name == CASES_FILE:
            yield path
