"""docs/security.md names a test for every defence, and each of them exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()
#: Rows of the table: file, names.
ROWS = re.findall(r"^\|.*\| (tests/\S+\.py): (`test_.*`) \|$", PAGE, re.MULTILINE)
NAMED = [(file, name) for file, names in ROWS for name in re.findall(r"`(\w+)`", names)]


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_defence_has_the_test_that_is_named_for_it(file: str, name: str) -> None:
    tree = ast.parse((ROOT / file).read_text())

    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_row_of_the_table_names_a_test() -> None:
    table = PAGE.split("| threat | defence | test |")[1].split("\n\n")[0]
    rows = [line for line in table.splitlines()[2:] if not line.startswith("| **")]

    assert len(rows) == len(ROWS) > 15


def test_every_file_and_heading_that_the_page_links_to_is_there() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", PAGE + (ROOT / "SECURITY.md").read_text().replace("(docs/", "(../docs/"))

    assert links
    assert all((ROOT / "docs" / link).exists() for link in links)
