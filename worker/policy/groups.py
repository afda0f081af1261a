"""Words for groups of people, and sentences with a hole for them: what `sluice stress` compares.

In: YAML. Out: `GroupsFile`, every finding. What a model makes of the sentences is for `workbench.stress`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from worker.errors import PolicyInvalid, UsageError
from worker.policy.files import read_text
from worker.policy.findings import Finding, finding_at, in_order, validate
from worker.policy.schema import Sentence

#: The file that comes with Sluice.
DEFAULT_FILE = Path(__file__).with_name("groups.yaml")
#: Where a sentence has room for a word.
HOLE = "{group}"
#: Words before which "a" is "an": those that begin with a vowel, but for those that begin with the sound of "you".
_AN = re.compile(r"(?:[aio]|e(?!u)|u(?!k|ni|s))", re.IGNORECASE)
_ARTICLE = re.compile(rf"\b([Aa]) {re.escape(HOLE)}")


def _with_one_hole(sentence: str) -> str:
    if sentence.count(HOLE) != 1:
        raise ValueError(f"a sentence holds {HOLE} once, where the word goes; got {sentence!r}")
    return sentence


def _with_a_mean(words: tuple[str, ...]) -> tuple[str, ...]:
    if len(words) == 1:
        raise ValueError(f"{words[0]!r} stands alone, and each word is compared with the mean of its list; add another")
    return words


Word = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"\S")]
Words = Annotated[tuple[Word, ...], Field(min_length=1, max_length=200, strict=False), AfterValidator(_with_a_mean)]
#: What a list of words may be called; spaces are welcome.
ListName = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"\S")]


class GroupsFile(BaseModel):
    """The whole of a groups file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    sentences: Annotated[
        tuple[Annotated[Sentence, AfterValidator(_with_one_hole)], ...],
        Field(min_length=1, max_length=100, strict=False, description="Scenes, each with the hole {group} once."),
    ]
    groups: Annotated[
        dict[ListName, Words],
        Field(min_length=1, max_length=50, description="Lists of words by name, two words or more each."),
    ]

    def copies(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Yield what stands twice in one list: it would weigh twice in the mean."""
        for path, listed in (
            (("sentences",), self.sentences),
            *((("groups", name), words) for name, words in self.groups.items()),
        ):
            first: dict[str, int] = {}
            for index, text in enumerate(listed):
                bare = " ".join(text.casefold().split())
                if bare in first:
                    yield (*path, index), f"{text!r} stands in this list already (entry {first[bare] + 1}); remove one"
                first.setdefault(bare, index)


def fill(sentence: str, word: str) -> str:
    """Put a word into the hole of a sentence, with the article that it asks for."""
    if _AN.match(word):
        sentence = _ARTICLE.sub(rf"\1n {HOLE}", sentence)
    return sentence.replace(HOLE, word)


def lint_groups(text: str, file: str) -> tuple[GroupsFile | None, list[Finding]]:
    """Check a groups file.

    Args:
        text: Its content.
        file: What to call it in findings.

    Returns:
        The groups when there is no error, and every finding in the order of the file.
    """
    groups, findings, places, _ = validate(GroupsFile, text, file, "`sluice stress --print-groups` shows what")
    findings += [finding_at(file, places, path, message) for path, message in (groups.copies() if groups else ())]
    return (groups if not findings else None), in_order(findings)


def read_groups(file: Path) -> GroupsFile:
    """Read a groups file.

    Raises:
        UsageError: It is not there, or not UTF-8.
        PolicyInvalid: Every error in it.
    """
    try:
        text = read_text(file)
    except OSError as error:
        mend = "`sluice stress --print-groups` prints one to copy"
        raise UsageError(f"--groups {file}: {error.strerror}; name a file of groups, {mend}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"--groups {file} is not UTF-8; save it as UTF-8") from error
    groups, findings = lint_groups(text, str(file))
    if groups is None:
        raise PolicyInvalid([str(finding) for finding in findings])
    return groups
