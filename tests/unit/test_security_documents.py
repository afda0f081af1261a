"""What docs/security.md promises has its test, and an audit that could not be made is not passed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools import audit

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "security.md").read_text()
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_every_test_that_the_table_names_exists(file: str, test: str) -> None:
    assert f"\ndef {test}(" in (ROOT / file).read_text()


def test_every_threat_has_a_test() -> None:
    rows = [row for row in TEXT.splitlines() if row.startswith("| ") and not row.startswith("| threat")]
    assert len(rows) > 20
    assert [row for row in rows if "`tests/" not in row.rsplit("|", 2)[1]] == []


def test_an_audit_names_holes_and_whatever_nobody_could_say_anything_about() -> None:
    report = {
        "dependencies": [
            {"name": "fine", "version": "1", "vulns": []},
            {"name": "holed", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]},
            {"name": "unknown", "skip_reason": "not found"},
            {"name": audit.OWN, "skip_reason": "not found"},
        ]
    }
    assert audit.with_holes(report) == ["holed 2: CVE-1, mended in 3"]
    assert audit.without_answer(report) == ["unknown"]


def test_what_is_deployed_is_what_the_project_needs_and_not_what_tests_need() -> None:
    packages = audit.runtime_packages()
    assert {"rq", "torch", "pillow", "httpcore"} <= set(packages)
    assert {"pytest", "moto", "hypothesis", "pip-audit"}.isdisjoint(packages)
