"""A report stands alone: nothing in it is loaded or run, and nothing of a stranger's becomes markup."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from browser import open_page
from jinja2 import UndefinedError

from worker.errors import UsageError
from worker.workbench.report import page
from worker.workbench.report.charts import score_histogram

PROBE = """\
{% extends "page.html.j2" %}
{% import "parts.html.j2" as parts %}
{% block title %}Of {{ name }}{% endblock %}
{% block body %}{{ chart }}{% call parts.picture(none, name) %}{{ parts.action("block") }}{% endcall %}{% endblock %}
"""


def probe(**values: object) -> str:
    return page._environment().from_string(PROBE).render(**values)


def test_what_a_stranger_wrote_is_text() -> None:
    written = probe(name="<script>alert(1)</script>", chart=score_histogram({"</text><b>": [1, 2]}, {"review": 0.5}))
    assert "<script" not in written
    assert "<b>" not in written
    assert written.count("&lt;script&gt;") == 3  # title, heading, the picture's name
    assert '<span class="block">block</span>' in written


def test_a_page_loads_nothing() -> None:
    written = probe(name="x", chart=score_histogram({"before": [5, 0, 1], "after": [4, 1, 1]}, {"review": 0.4}))
    assert "default-src 'none'" in written
    loaded = re.findall(r"(?:src|href)=\"(?!#|data:)[^\"]*\"", written)
    assert loaded == []


def test_a_chart_is_the_same_for_the_same_numbers_and_names_its_series() -> None:
    first, second = (score_histogram({"before": [5, 0, 1]}, {"review": 0.25, "block": 0.75}) for _ in range(2))
    assert first == second
    assert "mathdefault" not in first
    for words in ("before", "review from 0.25", "block from 0.75", "images"):
        assert words in first


def test_a_name_that_looks_like_mathematics_is_drawn_as_it_is() -> None:
    assert "$x^$" in score_histogram({"$x^$": [1]}, {})


def test_a_value_that_a_template_lacks_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        probe(name="x")


def test_a_page_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no/r\.html: No such file or directory; .*--report"):
        page.write_report(tmp_path / "no" / "r.html", "")


def test_a_browser_shows_it_without_a_complaint(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    page.write_report(
        file, probe(name="house@2", chart=score_histogram({"before": [9, 1], "after": [8, 2]}, {"review": 0.5}))
    )
    seen = open_page(file, tmp_path / "browser", tmp_path / "report.png")
    assert seen.complaints == []
    assert "<h1>Of house@2</h1>" in seen.dom
    assert (tmp_path / "report.png").stat().st_size > 10_000


def test_a_browser_would_complain_of_what_a_page_may_not_do(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(probe(name="x", chart="").replace("<main>", "<main><script>document.title = 'run'</script>"))
    seen = open_page(file, tmp_path / "browser")
    assert any("Content Security Policy" in line for line in seen.complaints)
    assert "<title>Of x</title>" in seen.dom
