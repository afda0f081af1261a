"""labels.csv → what a person said of pictures, category by category.

In: a file of a stranger. Out: `Labels`, or one line that names the line that is wrong. Never a guess.
"""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from worker.errors import UsageError

#: The columns that are read; others are passed over.
COLUMNS = ("content_id", "category", "label")
#: In the column `category`: every category.
ALL = ("", "*")
_WORDS = {"1": True, "yes": True, "true": True, "0": False, "no": False, "false": False}
#: Larger files are refused, in bytes.
_MAX_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the file."""

    #: Counts from 1.
    line: int
    content_id: str
    #: None: every category.
    category: str | None
    shown: bool


@dataclass(frozen=True, slots=True)
class Labels:
    """What was said, by picture."""

    #: By category, then by the picture's name: whether it shows the category.
    categories: Mapping[str, Mapping[str, bool]]
    #: Content ids that nobody knows, with their first lines.
    unknown: Mapping[str, int]

    @property
    def names(self) -> list[str]:
        """Every picture of which something was said."""
        return list(dict.fromkeys(name for said in self.categories.values() for name in said))

    def only(self, known: Collection[str]) -> Labels:
        """Return what was said of pictures that are there."""
        return Labels(
            {
                category: {name: shown for name, shown in said.items() if name in known}
                for category, said in self.categories.items()
            },
            self.unknown,
        )


def read_labels(file: Path, categories: Collection[str]) -> list[Row]:
    """Read a file of labels: UTF-8, with a line of column names.

    Args:
        file: Comma-separated, with the columns `COLUMNS`.
        categories: The policy's.

    Raises:
        UsageError: It cannot be read, or a line is wrong.
    """
    reader = csv.reader(io.StringIO(_text(file), newline=""), strict=True)
    rows: list[Row] = []
    try:
        columns = _columns(file, next(reader, []))
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append(_row(f"{file}:{reader.line_num}", reader.line_num, cells, columns, categories))
    except csv.Error as error:
        raise UsageError(f"{file}:{reader.line_num}: {error}; write it as comma-separated values") from error
    if not rows:
        raise UsageError(f"{file}:1: holds no labels; write a line `CONTENT_ID,CATEGORY,1` for each picture")
    return rows


def settle(rows: list[Row], file: Path, categories: Collection[str], resolve: Callable[[str], str | None]) -> Labels:
    """Put lines together: of each picture and category one answer.

    What is said of a category by name outweighs what is said of all.

    Args:
        rows: Of the file.
        file: Its name, for errors.
        categories: The policy's, in order.
        resolve: A content id's picture; None where there is none.

    Raises:
        UsageError: Two lines disagree, or a content id may be several pictures.
    """
    said: dict[tuple[str, str | None], Row] = {}
    unknown: dict[str, int] = {}
    for row in rows:
        try:
            name = resolve(row.content_id)
        except UsageError as error:
            raise UsageError(f"{file}:{row.line}: {error}") from error
        if name is None:
            unknown.setdefault(row.content_id, row.line)
            continue
        first = said.setdefault((name, row.category), row)
        if first.shown != row.shown:
            of = f"{row.content_id!r} and {row.category}"
            raise UsageError(f"{file}:{row.line}: says the opposite of line {first.line} of {of}; remove one of them")
    safe = {name: False for name, category in said if category is None}
    labels = {
        wanted: safe | {name: row.shown for (name, category), row in said.items() if category == wanted}
        for wanted in categories
    }
    return Labels(labels, unknown)


def _text(file: Path) -> str:
    try:
        with file.open("rb") as source:
            data = source.read(_MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}; name a file with --labels") from error
    if len(data) > _MAX_BYTES:
        raise UsageError(f"{file} has more than {_MAX_BYTES} bytes; split it")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{file}:{line}: not UTF-8; save the file as UTF-8") from error


def _columns(file: Path, header: list[str]) -> dict[str, int]:
    found = [cell.strip().casefold() for cell in header]
    if not found:
        raise UsageError(f"{file}:1: the file is empty; its first line is `{','.join(COLUMNS)}`")
    for column in COLUMNS:
        if found.count(column) != 1:
            what = "no column" if column not in found else "more than one column"
            shown = ", ".join(found)[:100]
            raise UsageError(f"{file}:1: {what} {column} among {shown}; its first line is `{','.join(COLUMNS)}`")
    return {column: found.index(column) for column in COLUMNS}


def _row(place: str, line: int, cells: list[str], columns: Mapping[str, int], categories: Collection[str]) -> Row:
    if len(cells) <= max(columns.values()):
        raise UsageError(f"{place}: {len(cells)} cells, and the columns are more; give {', '.join(COLUMNS)}")
    content_id, category, label = (cells[columns[name]].strip() for name in COLUMNS)
    if not content_id:
        raise UsageError(f"{place}: no content_id; name the picture, or remove the line")
    shown = _WORDS.get(label.casefold())
    if shown is None:
        raise UsageError(f"{place}: label is {label[:40]!r}; write 1 (yes, true) or 0 (no, false)")
    if category in ALL:
        if shown:
            raise UsageError(f"{place}: label 1 without a category; name what the picture shows")
        return Row(line, content_id, None, False)
    if category not in categories:
        raise UsageError(f"{place}: no category {category[:80]!r}; {_hint(category, categories)}")
    return Row(line, content_id, category, shown)


def _hint(category: str, categories: Collection[str]) -> str:
    close = difflib.get_close_matches(category, categories, n=1)
    return f"did you mean {close[0]}?" if close else f"the policy has {', '.join(categories)}"


def unknown_lines(labels: Labels, most: int = 5) -> Iterator[str]:
    """Yield content ids that nobody knows, as they are listed: the first few, and how many more."""
    for content_id, line in list(labels.unknown.items())[:most]:
        yield f"line {line}: no picture {content_id[:80]!r}"
    if len(labels.unknown) > most:
        yield f"and {len(labels.unknown) - most} more"
