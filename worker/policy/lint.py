"""Checks policy and rollout files: every error, each with file, line, column, key and the mend.

In: YAML text. Out: `Policy` or `RolloutFile` when there is no error, and all findings. Never stops at the first.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from worker.policy.places import Path, Places, read_yaml
from worker.policy.rollout import Canary, Rollout, RolloutFile
from worker.policy.schema import NAME_PATTERN, Calibration, Category, Policy, Thresholds

_M = TypeVar("_M", bound=BaseModel)

#: What to do about a value of the wrong kind, by pydantic's error type.
_MENDS = {
    "missing": "required key is missing; add it",
    "tuple_type": "should be a list; write [first, second] or one `- item` a line",
    "string_type": "should be text; put it in quotes",
    "int_type": "should be a whole number",
    "int_from_float": "should be a whole number",
    "float_type": "should be a number",
    "dict_type": "should be a block of `key: value` lines",
    "model_type": "should be a block of `key: value` lines",
    "model_attributes_type": "should be a block of `key: value` lines",
    "too_short": "must not be empty; add an entry, or leave the key out if it is optional",
    "string_too_short": "must not be empty; write a sentence or remove the line",
    "finite_number": "should be a finite number",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing wrong in a file; `line` and `column` count from 1."""

    file: str
    line: int
    column: int
    key: str
    message: str
    severity: str = "error"

    def __str__(self) -> str:
        key = f" {self.key}:" if self.key else ""
        return f"{self.file}:{self.line}:{self.column}:{key} {self.message}"

    def as_dict(self) -> dict[str, Any]:
        """Return the finding as one JSON object."""
        return asdict(self)


def lint_policy(text: str, file: str) -> tuple[Policy | None, list[Finding]]:
    """Check one policy file.

    Args:
        text: Its content.
        file: What to call it in findings.

    Returns:
        The policy when there is no error, and every finding in the order of the file.
    """
    policy, findings, places = _validate(Policy, text, file)
    if policy is not None:
        findings += [_finding(file, places, path, message) for path, message in _meaning(policy)]
    return (policy if not findings else None), sorted(findings, key=lambda f: (f.line, f.column))


def lint_rollout(text: str, file: str) -> tuple[RolloutFile | None, list[Finding]]:
    """Check a rollout file; the same as `lint_policy`, for `rollout.yaml`."""
    rollout, findings, _ = _validate(RolloutFile, text, file)
    return (rollout if not findings else None), findings


def _validate(model: type[_M], text: str, file: str) -> tuple[_M | None, list[Finding], Places]:
    data, places, problems = read_yaml(text)
    findings = [Finding(file, p.line, p.column, p.key, p.message) for p in problems]
    if data is None:
        if not findings:
            findings.append(
                Finding(file, 1, 1, "", "the file is empty; `sluice schema policy` shows what belongs in it")
            )
        return None, findings, places
    try:
        return model.model_validate(data), findings, places
    except ValidationError as error:
        findings += [_from_pydantic(file, places, model, item) for item in error.errors(include_url=False)]
    return None, sorted(findings, key=lambda f: (f.line, f.column)), places


def _from_pydantic(file: str, places: Places, model: type[BaseModel], item: Any) -> Finding:
    path: Path = tuple(part for part in item["loc"] if part != "[key]")
    kind, value = item["type"], item["input"]
    if kind == "extra_forbidden":
        allowed = list(_model_at(model, path[:-1]).model_fields)
        close = difflib.get_close_matches(str(path[-1]), allowed, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known keys are {', '.join(allowed)}"
        return _finding(file, places, path, f"unknown key; {hint}", key=True)
    if kind == "string_pattern_mismatch":
        is_name = item["ctx"]["pattern"] == NAME_PATTERN
        name_rule = "use letters, digits, _ . and -, starting with a letter or digit, at most 64"
        message = f"{value!r} is not a name; {name_rule}" if is_name else "must not be blank; write a sentence"
    elif kind == "value_error":
        message = str(item["msg"]).removeprefix("Value error, ")
    elif kind in _MENDS:
        shown = "" if kind == "missing" else f", not {_shorten(value)}"
        message = _MENDS[kind].replace(";", f"{shown};", 1) if ";" in _MENDS[kind] else _MENDS[kind] + shown
    else:
        message = f"{str(item['msg'])[:1].lower()}{str(item['msg'])[1:]}, not {_shorten(value)}"
    return _finding(file, places, path, message, key="[key]" in item["loc"])


def _shorten(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."  # noqa: PLR2004 - the length of a readable line


def _model_at(model: type[BaseModel], path: Path) -> type[BaseModel]:
    """Return the model whose keys stand at `path`, so that its names can be suggested."""
    if model is RolloutFile:
        return Canary if path[-1:] == ("canary",) else Rollout
    match path:
        case ("categories", _, "thresholds"):
            return Thresholds
        case ("categories", _):
            return Category
        case ("calibration", _, _):
            return Calibration
        case _:
            return Policy


def _finding(file: str, places: Places, path: Path, message: str, *, key: bool = False) -> Finding:
    line, column = places.find(path, key=key)
    return Finding(file, line, column, ".".join(str(part) for part in path), message)


def _meaning(policy: Policy) -> Iterator[tuple[Path, str]]:
    """Yield what the shape cannot say: copies, contradictions, calibrations of nothing."""
    contrast = [(("contrast", index), text) for index, text in enumerate(policy.contrast)]
    yield from _copies(contrast)
    for name, category in policy.categories.items():
        at: Path = ("categories", name)
        prompts = [((*at, "prompts", index), text) for index, text in enumerate(category.prompts)]
        look_alikes = [((*at, "look_alikes", index), text) for index, text in enumerate(category.look_alikes or ())]
        yield from _copies([*contrast, *prompts, *look_alikes], report=len(contrast))
    yield from _copies([(("templates", index), text) for index, text in enumerate(policy.templates)])
    for model, calibrations in policy.calibration.items():
        for name in calibrations.keys() - policy.categories.keys():
            close = difflib.get_close_matches(name, list(policy.categories), n=1)
            hint = f"did you mean {close[0]}?" if close else "remove it"
            yield ("calibration", model, name), f"there is no category of this name; {hint}"


def _copies(sentences: Sequence[tuple[Path, str]], report: int = 0) -> Iterator[tuple[Path, str]]:
    """Yield every sentence from index `report` on that says the same as an earlier one.

    A copy moves a margin by up to log 2 and means nothing; between prompts and contrast it contradicts itself.
    """
    first: dict[str, Path] = {}
    for index, (path, text) in enumerate(sentences):
        bare = _bare(text)
        if bare in first and index >= report:
            where = ".".join(str(part) for part in first[bare])
            yield path, f"{text!r} says the same as {where}; reword or remove one"
        first.setdefault(bare, path)


def _bare(sentence: str) -> str:
    """Strip what makes no difference to CLIP: case, punctuation, articles, spaces."""
    words = re.findall(r"[^\W_]+|\{\}", sentence.casefold())
    return " ".join(word for word in words if word not in {"a", "an", "the"}) or sentence.casefold().strip()
