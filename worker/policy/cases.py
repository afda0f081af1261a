"""The shape of `policies/<id>/tests.yaml`: images that an author knows, and what the policy must say of them.

In: plain data. Out: `CasesFile`. Whether an expectation holds is for `workbench.trial`; never an image, never a score.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from worker.policy.findings import Finding, finding_at, in_order, validate
from worker.policy.schema import Fraction, Name, Sentence, Text

#: The file's name; it stands beside the versions of its policy.
CASES_FILE = "tests.yaml"

Expected = Literal["allow", "review", "block", "not allow", "not review", "not block"]
_EXPECTED: tuple[str, ...] = ("allow", "review", "block", "not allow", "not review", "not block")
FilePath = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
NpzPath = Annotated[str, StringConstraints(pattern=r"\.npz$", max_length=4096)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def _or_a_word(schema: dict[str, Any]) -> None:
    """Say in the JSON Schema that `weapons: block` is short for `weapons: {action: block}`."""
    described = {"description": schema.pop("description", ""), "title": schema.pop("title", "")}
    block = dict(schema)
    schema.clear()
    schema |= described | {"anyOf": [{"enum": list(_EXPECTED)}, block]}


class Expectation(_Strict):
    """What a category must say of a case: an action, a span that its score lies in, or both."""

    model_config = ConfigDict(json_schema_extra=_or_a_word)

    action: Annotated[
        Expected | None, Field(description="allow, review or block: exactly this; with `not` before it: any other.")
    ] = None
    score: Annotated[
        tuple[Fraction, Fraction] | None,
        Field(strict=False, description="[LOW, HIGH]: the score lies between them, or is one of them."),
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _from_word(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            if value not in _EXPECTED:
                shown = "empty" if value is None else f"{str(value)[:60]!r}"
                raise ValueError(f"should be one of {', '.join(_EXPECTED)}, or {{score: [LOW, HIGH]}}, not {shown}")
            return {"action": value}
        return value

    @model_validator(mode="after")
    def _says_something(self) -> Expectation:
        if self.action is None and self.score is None:
            raise ValueError("give action, score or both")
        if self.score is not None and self.score[0] > self.score[1]:
            raise ValueError(f"the lower score ({self.score[0]:g}) must not be above the higher ({self.score[1]:g})")
        return self

    def holds(self, action: str, score: float) -> bool:
        """Whether this action and this score are what is expected."""
        if self.score is not None and not self.score[0] <= score <= self.score[1]:
            return False
        return self.action is None or is_expected(self.action, action)

    def __str__(self) -> str:
        span = f"score {self.score[0]:g} to {self.score[1]:g}" if self.score else None
        return ", ".join(part for part in (self.action, span) if part)


def is_expected(expected: str, action: str) -> bool:
    """Whether `action` is what `expected` asks for."""
    return action != expected.removeprefix("not ") if expected.startswith("not ") else action == expected


class Case(_Strict):
    """One image, or its stored embedding, and what the policy must say of it."""

    name: Annotated[Sentence, Field(description="What the case is called, here and in the embedding file; once each.")]
    image: Annotated[
        FilePath | None,
        Field(description="The picture's file, from this file's directory. Beside `embedding`, only `--record` looks."),
    ] = None
    embedding: Annotated[
        NpzPath | None,
        Field(description="An .npz file that `--record` writes, from this file's directory; then the picture can go."),
    ] = None
    action: Annotated[Expected | None, Field(description="What the whole policy must say of the image.")] = None
    expect: Annotated[
        dict[Name, Expectation], Field(description="What single categories must say, by the category's name.")
    ] = {}

    @model_validator(mode="after")
    def _is_whole(self) -> Case:
        if self.image is None and self.embedding is None:
            raise ValueError("give image, embedding or both")
        if self.action is None and not self.expect:
            raise ValueError("give action, expect or both; a case without them can never fail")
        return self


class CasesFile(_Strict):
    """The whole of `tests.yaml`: what a policy must say of images that its author knows."""

    description: Annotated[Text, Field(description="What these cases are, for people.")] = ""
    cases: Annotated[tuple[Case, ...], Field(min_length=1, max_length=10_000, strict=False, description="The cases.")]

    def contradictions(self, categories: Collection[str] | None = None) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Yield what the shape cannot say: a name given twice, a category that the policy has not."""
        first: dict[str, int] = {}
        for index, case in enumerate(self.cases):
            if case.name in first:
                yield ("cases", index, "name"), f"case {first[case.name] + 1} has this name already; change one of them"
            first.setdefault(case.name, index)
            for name in case.expect if categories is not None else ():
                known = categories or ()
                if name not in known:
                    close = difflib.get_close_matches(name, known, n=1)
                    hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(known)}"
                    yield ("cases", index, "expect", name), f"the policy has no such category; {hint}"


def lint_cases(
    text: str, file: str, categories: Collection[str] | None = None
) -> tuple[CasesFile | None, list[Finding]]:
    """Check a `tests.yaml`.

    Args:
        text: Its content.
        file: What to call it in findings.
        categories: Of the policy that is tested, where it is known.

    Returns:
        The cases when there is no error, and every finding in the order of the file.
    """
    cases, findings, places, _ = validate(CasesFile, text, file, "`sluice schema tests` shows what")
    for path, message in cases.contradictions(categories) if cases else ():
        findings.append(finding_at(file, places, path, message, key=path[-1] != "name"))
    return (cases if not findings else None), in_order(findings)
