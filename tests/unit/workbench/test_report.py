"""A report stands alone: nothing in it is loaded or run, and nothing of a stranger's becomes markup."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
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
