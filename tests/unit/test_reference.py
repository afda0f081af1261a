"""The README's tables are what the code says."""

from __future__ import annotations

from tools import reference


def test_the_tables_of_the_readme_are_up_to_date() -> None:
    text = reference.README.read_text()

    assert reference.render(text) == text, "run `python -m tools.reference`"


def test_every_table_has_its_place_in_the_readme() -> None:
    text = reference.README.read_text()

    for name in ("settings", "metrics", "reasons"):
        between = text.split(f"<!-- {name}: begin -->")[1].split(f"<!-- {name}: end -->")[0]
        assert between.count("\n|") > 5
