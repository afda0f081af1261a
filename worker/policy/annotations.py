"""Findings as other programs read them: SARIF 2.1.0 and the annotations of GitHub Actions.

In: findings. Out: one JSON document, or one workflow command a finding. Never anything that the findings do not say.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from worker import __version__
from worker.policy.findings import Finding
from worker.policy.wording import WARNINGS

_KINDS = {"schema": "The file is not a valid policy."} | WARNINGS
_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def as_sarif(findings: Sequence[Finding], root: Path) -> dict[str, Any]:
    """Return a SARIF log of one run.

    Args:
        findings: What was found.
        root: The directory that files are named from, as a checkout's viewer needs it.

    Source:
        OASIS, "Static Analysis Results Interchange Format (SARIF) Version 2.1.0", sections 3.14, 3.27 to 3.30.
    """
    kinds = list(_KINDS)
    rows = [
        {
            "ruleId": finding.code,
            "ruleIndex": kinds.index(finding.code),
            "level": finding.severity,
            "message": {"text": _text(finding)},
            "locations": [_location(finding, root)],
        }
        for finding in findings
    ]
    about = [{"id": code, "shortDescription": {"text": text}} for code, text in _KINDS.items()]
    driver = {"name": "sluice policy lint", "version": __version__, "rules": about}
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": rows}
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}


def as_github(finding: Finding, root: Path) -> str:
    """Return a workflow command, `::error file=…,line=…,col=…,title=…::…`.

    Source:
        GitHub documentation, "Workflow commands for GitHub Actions"; escapes as in actions/toolkit, `command.ts`.
    """
    properties = {
        "file": _name(finding.file, root), "line": finding.line, "col": finding.column,
        "title": f"sluice policy lint ({finding.code})",
    }  # fmt: skip
    marks = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
    more_marks: Mapping[int, str] = marks | str.maketrans({":": "%3A", ",": "%2C"})
    listed = ",".join(f"{key}={str(value).translate(more_marks)}" for key, value in properties.items())
    return f"::{finding.severity} {listed}::{_text(finding).translate(marks)}"


def _text(finding: Finding) -> str:
    return f"{finding.key}: {finding.message}" if finding.key else finding.message


def _location(finding: Finding, root: Path) -> dict[str, Any]:
    name = _name(finding.file, root)
    uri = Path(name).as_uri() if Path(name).is_absolute() else urllib.parse.quote(name)
    region = {"startLine": finding.line, "startColumn": finding.column}
    return {"physicalLocation": {"artifactLocation": {"uri": uri}, "region": region}}


def _name(file: str, root: Path) -> str:
    path = Path(file).absolute()
    return path.relative_to(root.absolute()).as_posix() if path.is_relative_to(root.absolute()) else path.as_posix()
