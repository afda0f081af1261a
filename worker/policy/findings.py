"""A YAML file → what it is, or every error in it, each with file, line, column, key and the mend.

In: YAML text and the model of its shape. Out: the model's object, and `Finding`s. Never stops at the first.
"""

from __future__ import annotations

import difflib
import reprlib
from dataclasses import asdict, dataclass
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, RootModel, ValidationError

from worker.policy.places import Path, Places, read_yaml
from worker.policy.schema import DIGEST_PATTERN, NAME_PATTERN

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
    findings = [Finding(file, p.line, p.column, dotted((p.key,)), p.message) for p in problems]
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
        message = _PATTERNS.get(item["ctx"]["pattern"], "must not be blank; write a sentence").format(quote(value))
    elif kind == "value_error":
        message = str(item["msg"]).removeprefix("Value error, ")
    elif kind in _MENDS:
        message = _mend(kind, value, item.get("ctx", {}))
    else:
        message = f"{str(item['msg'])[:1].lower()}{str(item['msg'])[1:]}, not {quote(value)}"
    return finding_at(file, places, path, message, key="[key]" in item["loc"])


def _mend(kind: str, value: object, bounds: dict[str, Any]) -> str:
    if kind == "string_type" and value is None:
        kind = "string_too_short"
    shown = {name: f"{bound:g}" if isinstance(bound, float) else bound for name, bound in bounds.items()}
    what, semicolon, mend = _MENDS[kind].format(**shown).partition(";")
    is_shown = value not in ("", [], {}) and kind not in {"missing", "string_too_short"}
    return what + (f", not {quote(value)}" if is_shown else "") + semicolon + mend


def quote(value: object) -> str:
    """Return a value as it stands in messages: short, however large it is."""
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
    return Finding(file, line, column, dotted(path), message)


def dotted(path: Path) -> str:
    """Return a path as it is written in messages: `categories.weapons.prompts.0`."""
    return ".".join(text if (text := str(part)).isprintable() and len(text) < _LONG else quote(text) for part in path)
