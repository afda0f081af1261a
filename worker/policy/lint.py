"""Checks policy and rollout files: their shape, and what the shape cannot say.

In: YAML text. Out: `Policy` or `RolloutFile` when there is no error, and all findings. Never stops at the first.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from worker.policy.exemplars import FINDER, Exemplar, Finder, nowhere
from worker.policy.findings import Finding, dotted, finding_at, in_order, quote, validate
from worker.policy.places import Path
from worker.policy.rollout import RolloutFile
from worker.policy.schema import Policy

#: All embeddings of a policy, in characters of base64: a version is carried whole, in Redis and between processes.
_MAX_EXEMPLARS = 8 * 1024 * 1024


def lint_policy(
    text: str, file: str, named: tuple[str, int] | None = None, exemplars: Finder = nowhere
) -> tuple[Policy | None, list[Finding]]:
    """Check one policy file.

    Args:
        text: Its content.
        file: What to call it in findings.
        named: The id and version that its path says, if its path says them.
        exemplars: Knows the embeddings that the file names.

    Returns:
        The policy when there is no error, and every finding in the order of the file.
    """
    belongs = "`sluice schema policy` shows what"
    policy, findings, places, data = validate(Policy, text, file, belongs, {FINDER: exemplars})
    wrong = [*_meaning(data), *(_misnamed(policy, *named) if policy and named else ())]
    wrong += _exemplars(policy) if policy else ()
    findings += [finding_at(file, places, path, message, key=path[0] == "calibration") for path, message in wrong]
    return (policy if not findings else None), in_order(findings)


def lint_rollout(
    text: str, file: str, exists: Callable[[str, int], bool] = lambda _name, _version: True
) -> tuple[RolloutFile | None, list[Finding]]:
    """Check a rollout file; the same as `lint_policy`, for `rollout.yaml`.

    Args:
        text: Its content.
        file: What to call it in findings.
        exists: Whether there is such a version of such a policy.
    """
    rollout, findings, places, _ = validate(RolloutFile, text, file, "`ID: {live: VERSION}`")
    for name, entry in rollout.root.items() if rollout else ():
        for path, version in entry.places():
            if not exists(name, version):
                message = f"version {version} does not exist; add {name}/v{version}.yaml or change it"
                findings.append(finding_at(file, places, (name, *path), message))
    return (rollout if not findings else None), in_order(findings)


def _misnamed(policy: Policy, name: str, version: int) -> Iterator[tuple[Path, str]]:
    if policy.policy != name:
        yield ("policy",), f"policy is {policy.policy} but the directory is {name}; make them the same"
    if policy.version != version:
        yield ("version",), f"version is {policy.version} but the file is v{version}.yaml; make them the same"


def _meaning(data: object) -> Iterator[tuple[Path, str]]:
    """Yield what the shape cannot say: copies, contradictions, calibrations of nothing.

    Args:
        data: What the file holds; what is wrong with its shape hides nothing of the rest.
    """
    contrast = _sentences(data, "contrast")
    yield from _copies(contrast)
    categories = _mapping(data, "categories")
    for name in categories:
        prompts = _sentences(data, "categories", name, "prompts")
        look_alikes = _sentences(data, "categories", name, "look_alikes")
        yield from _copies([*contrast, *prompts, *look_alikes], report=len(contrast))
    yield from _copies(_sentences(data, "templates"))
    for model in _mapping(data, "calibration"):
        for name in _mapping(data, "calibration", model).keys() - categories.keys():
            close = difflib.get_close_matches(str(name), [str(known) for known in categories], n=1)
            hint = f"did you mean {dotted((close[0],))}?" if close else "remove it"
            yield ("calibration", model, name), f"there is no category of this name; {hint}"


def _exemplars(policy: Policy) -> Iterator[tuple[Path, str]]:
    """Yield exemplars that cannot all count: copies and contradictions, other sizes, more than can be carried."""
    first: dict[tuple[str, str], Path] = {}
    dims: dict[str, Exemplar] = {}
    total = 0
    for (name, kind, index), exemplar in policy.exemplars():
        path: Path = ("categories", name, "exemplars", kind, index)
        known = first.setdefault((name, exemplar.embeddings), path)
        if known != path:
            yield path, f"is the same image as {dotted(known)}; remove one"
        other = dims.setdefault(exemplar.model, exemplar)
        if other.dim != exemplar.dim:
            sizes = f"{exemplar.dim} numbers, and {quote(other.ref)} of the same model {other.dim}"
            yield path, f"has {sizes}; record it again"
        total += len(exemplar.embeddings)
        if total > _MAX_EXEMPLARS > total - len(exemplar.embeddings):
            yield path, f"all exemplars up to here are larger than {_MAX_EXEMPLARS} bytes; remove some"


def _at(data: object, path: Path) -> object:
    for part in path:
        data = data.get(part) if isinstance(data, dict) else None
    return data


def _mapping(data: object, *path: str | int) -> dict[Any, Any]:
    found = _at(data, path)
    return found if isinstance(found, dict) else {}


def _sentences(data: object, *path: str | int) -> list[tuple[Path, str]]:
    found = _at(data, path)
    listed = found if isinstance(found, list) else []
    return [((*path, index), text) for index, text in enumerate(listed) if isinstance(text, str) and text.strip()]


def _copies(sentences: Sequence[tuple[Path, str]], report: int = 0) -> Iterator[tuple[Path, str]]:
    """Yield every sentence from index `report` on that says the same as an earlier one.

    A copy moves a margin by up to log 2 and means nothing; between prompts and contrast it contradicts itself.
    """
    first: dict[str, Path] = {}
    for index, (path, text) in enumerate(sentences):
        bare = _bare(text)
        if bare in first and index >= report:
            yield path, f"{quote(text)} says the same as {dotted(first[bare])}; reword or remove one"
        first.setdefault(bare, path)


def _bare(sentence: str) -> str:
    """Strip what makes no difference to CLIP: case, punctuation, articles, spaces."""
    text = unicodedata.normalize("NFKC", sentence).casefold()
    # Letters, marks, numbers and symbols stay; a vowel of Hindi is a mark. So does the hole of a template.
    kept = (char if unicodedata.category(char)[0] in "LMNS" else " " for char in text.replace("{}", "\N{WHITE SQUARE}"))
    words = "".join(kept).split()
    return " ".join(word for word in words if word not in {"a", "an", "the"}) or text.strip()
