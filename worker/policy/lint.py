"""Checks policy and rollout files: every error, each with file, line, column, key and the mend.

In: YAML text. Out: `Policy` or `RolloutFile` when there is no error, and all findings. Never stops at the first.
"""

from __future__ import annotations

import difflib
import reprlib
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, RootModel, ValidationError

from worker.policy.exemplars import FINDER, Exemplar, Finder, nowhere
from worker.policy.places import Path, Places, read_yaml
from worker.policy.rollout import RolloutFile
from worker.policy.schema import DIGEST_PATTERN, NAME_PATTERN, Policy

_M = TypeVar("_M", bound=BaseModel)

#: What to do about a value of the wrong kind, by pydantic's error type.
_MENDS = {
    "missing": "required key is missing; add it",
    "tuple_type": "should be a list; write [first, second] or one `- item` a line",
    "string_type": "should be text; put it in quotes",
    "string_unicode": "should be whole characters; write the character itself instead of its \\u codes",
    "int_type": "should be a whole number",
    "int_from_float": "should be a whole number",
    "float_type": "should be a number",
    "dict_type": "should be a block of `key: value` lines",
    "model_type": "should be a block of `key: value` lines",
    "model_attributes_type": "should be a block of `key: value` lines",
    "too_short": "must not be empty; add an entry, or leave the key out if it is optional",
    "too_long": "should have at most {max_length} entries; remove some",
    "string_too_short": "must not be empty; write a sentence or remove the line",
    "string_too_long": "should have at most {max_length} characters; shorten it",
    "finite_number": "should be a finite number",
    "greater_than": "should be above {gt}",
    "greater_than_equal": "should be {ge} or more",
    "less_than": "should be below {lt}",
    "less_than_equal": "should be {le} or less",
}
#: What is said of text that lacks a shape, by the shape.
_PATTERNS = {
    NAME_PATTERN: "{} is not a name; use letters, digits, _ . and -, starting with a letter or digit, at most 64",
    DIGEST_PATTERN: "{} is no digest; leave it as `sluice calibrate` wrote it, or remove the key",
}
#: What is said of a key of the wrong kind is said by `places`, which knows how it is written.
_KEY_TYPES = {"string_type", "invalid_key"}

#: How a value is quoted in a message: short, however large it is.
_QUOTE = reprlib.Repr()
_QUOTE.maxlevel, _QUOTE.maxlist, _QUOTE.maxdict = 2, 3, 3
_QUOTE.maxstring = _QUOTE.maxlong = _QUOTE.maxother = 60
#: Characters of a key, and bits of a number, above which it is not quoted whole.
_LONG = 200
#: All embeddings of a policy, in characters of base64: a version is carried whole, in Redis and between processes.
_MAX_EXEMPLARS = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing wrong in a file; `line` and `column` count from 1."""

    file: str
    line: int
    column: int
    key: str
    message: str
    #: `error`, or `warning`: the file is valid, and yet this may not do what its author means.
    severity: str = "error"
    #: What kind of finding it is: `schema`, or a key of `wording.WARNINGS`.
    code: str = "schema"

    def __str__(self) -> str:
        key = f" {self.key}:" if self.key else ""
        kind = "" if self.severity == "error" else f" {self.severity}:"
        code = "" if self.code == "schema" else f" [{self.code}]"
        return f"{self.file}:{self.line}:{self.column}:{kind}{key} {self.message}{code}"

    def as_dict(self) -> dict[str, Any]:
        """Return the finding as one JSON object."""
        return asdict(self)


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


def in_order(findings: list[Finding]) -> list[Finding]:
    """Sort findings as they stand in their file."""
    return sorted(findings, key=lambda finding: (finding.line, finding.column))


def validate(
    model: type[_M], text: str, file: str, belongs: str, context: dict[str, Any] | None = None
) -> tuple[_M | None, list[Finding], Places, Any]:
    """Check the shape of a file.

    Args:
        model: What it should be.
        text: Its content.
        file: What to call it in findings.
        belongs: What is said to belong in it where it is empty.
        context: What validators need beside the file.

    Returns:
        What it is, when its shape is right; every finding so far; where everything stands; its plain data.
    """
    data, places, problems = read_yaml(text)
    findings = [Finding(file, p.line, p.column, _dotted((p.key,)), p.message) for p in problems]
    if data is None:
        if not findings:
            findings.append(Finding(file, 1, 1, "", f"the file is empty; {belongs} belongs in it"))
        return None, findings, places, data
    try:
        return model.model_validate(data, context=context), findings, places, data
    except ValidationError as error:
        wrong = [item for item in error.errors(include_url=False) if not _is_echo(item)]
        findings += [_from_pydantic(file, places, model, item) for item in wrong]
    return None, findings, places, data


def _is_echo(item: Any) -> bool:
    """Whether pydantic repeats what is said elsewhere: of a key that is not text, of a list whose entries are wrong."""
    is_key = item["type"] == "invalid_key" or item["loc"][-1:] == ("[key]",)
    return (is_key and item["type"] in _KEY_TYPES) or (item["type"] == "too_short" and bool(item["input"]))


def _from_pydantic(file: str, places: Places, model: type[BaseModel], item: Any) -> Finding:
    path: Path = tuple(part for part in item["loc"] if part != "[key]")
    kind, value = item["type"], item["input"]
    if kind == "extra_forbidden":
        allowed = list(_model_at(model, path[:-1]).model_fields)
        close = difflib.get_close_matches(str(path[-1]), allowed, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known keys are {', '.join(allowed)}"
        return finding_at(file, places, path, f"unknown key; {hint}", key=True)
    if kind == "string_pattern_mismatch":
        message = _PATTERNS.get(item["ctx"]["pattern"], "must not be blank; write a sentence").format(_quote(value))
    elif kind == "value_error":
        message = str(item["msg"]).removeprefix("Value error, ")
    elif kind in _MENDS:
        message = _mend(kind, value, item.get("ctx", {}))
    else:
        message = f"{str(item['msg'])[:1].lower()}{str(item['msg'])[1:]}, not {_quote(value)}"
    return finding_at(file, places, path, message, key="[key]" in item["loc"])


def _mend(kind: str, value: object, bounds: dict[str, Any]) -> str:
    if kind == "string_type" and value is None:
        kind = "string_too_short"
    shown = {name: f"{bound:g}" if isinstance(bound, float) else bound for name, bound in bounds.items()}
    what, semicolon, mend = _MENDS[kind].format(**shown).partition(";")
    is_shown = value not in ("", [], {}) and kind not in {"missing", "string_too_short"}
    return what + (f", not {_quote(value)}" if is_shown else "") + semicolon + mend


def _quote(value: object) -> str:
    if value is None or isinstance(value, bool):
        return "empty" if value is None else str(value).lower()
    return _QUOTE.repr(value) if not isinstance(value, int) or value.bit_length() < _LONG else "a very long number"


def _model_at(model: type[BaseModel], path: Path) -> type[BaseModel]:
    """Return the model whose keys stand at `path`, so that its names can be suggested."""
    kind: Any = model
    for part in path:
        if isinstance(kind, type) and issubclass(kind, RootModel):
            kind = _bare_kind(kind.model_fields["root"].annotation)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kind = _bare_kind(kind.model_fields[str(part)].annotation)
        else:
            # A mapping's values come last, and so do a tuple's entries before its dots.
            kind = _bare_kind([inner for inner in get_args(kind) if inner is not Ellipsis][-1])
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else model


def _bare_kind(kind: Any) -> Any:
    """Strip what does not change which keys there are: `Annotated`, and `None` beside it."""
    if get_origin(kind) is Annotated:
        return _bare_kind(get_args(kind)[0])
    if get_origin(kind) in {Union, UnionType}:
        return _bare_kind(next(inner for inner in get_args(kind) if inner is not type(None)))
    return kind


def finding_at(file: str, places: Places, path: Path, message: str, *, key: bool = False) -> Finding:
    """Return an error at a path of a file: at its value, or at its key."""
    line, column = places.find(path, key=key)
    return Finding(file, line, column, _dotted(path), message)


def _dotted(path: Path) -> str:
    return ".".join(text if (text := str(part)).isprintable() and len(text) < _LONG else _quote(text) for part in path)


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
            hint = f"did you mean {_dotted((close[0],))}?" if close else "remove it"
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
            yield path, f"is the same image as {_dotted(known)}; remove one"
        other = dims.setdefault(exemplar.model, exemplar)
        if other.dim != exemplar.dim:
            sizes = f"{exemplar.dim} numbers, and {_quote(other.ref)} of the same model {other.dim}"
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
            yield path, f"{_quote(text)} says the same as {_dotted(first[bare])}; reword or remove one"
        first.setdefault(bare, path)


def _bare(sentence: str) -> str:
    """Strip what makes no difference to CLIP: case, punctuation, articles, spaces."""
    text = unicodedata.normalize("NFKC", sentence).casefold()
    # Letters, marks, numbers and symbols stay; a vowel of Hindi is a mark. So does the hole of a template.
    kept = (char if unicodedata.category(char)[0] in "LMNS" else " " for char in text.replace("{}", "\N{WHITE SQUARE}"))
    words = "".join(kept).split()
    return " ".join(word for word in words if word not in {"a", "an", "the"}) or text.strip()
