"""Findings as CI reads them."""

from __future__ import annotations

import json
from pathlib import Path

from worker.policy.annotations import as_github, as_sarif
from worker.policy.findings import Finding
from worker.policy.wording import WARNINGS

ERROR = Finding("/work/policies/a b/v1.yaml", 3, 11, "contrast", "should be a list, 100% of it\nor: none")
WARNING = Finding("/elsewhere/v1.yaml", 7, 9, "categories.w.prompts.0", "too near", "warning", "near-copy")
ROOT = Path("/work")


def test_sarif_has_what_version_2_1_0_asks_for() -> None:
    log = json.loads(json.dumps(as_sarif([ERROR, WARNING], ROOT)))

    assert log["version"] == "2.1.0"
    assert log["$schema"].endswith("sarif-schema-2.1.0.json")
    (run,) = log["runs"]
    driver = run["tool"]["driver"]
    assert driver["name"] == "sluice policy lint"
    assert [about["id"] for about in driver["rules"]] == ["schema", *WARNINGS]
    assert all(about["shortDescription"]["text"] for about in driver["rules"])
    for found, finding in zip(run["results"], (ERROR, WARNING), strict=True):
        assert driver["rules"][found["ruleIndex"]]["id"] == found["ruleId"] == finding.code
        assert found["level"] == finding.severity
        assert finding.message in found["message"]["text"]
        place = found["locations"][0]["physicalLocation"]
        assert place["region"] == {"startLine": finding.line, "startColumn": finding.column}


def test_sarif_names_files_from_the_root_and_others_whole() -> None:
    uris = [
        found["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
        for found in as_sarif([ERROR, WARNING], ROOT)["runs"][0]["results"]
    ]
    assert uris == ["policies/a%20b/v1.yaml", "file:///elsewhere/v1.yaml"]


def test_sarif_of_nothing_is_a_run_without_findings() -> None:
    assert as_sarif([], ROOT)["runs"][0]["results"] == []


def test_github_gets_one_line_with_its_marks_escaped() -> None:
    assert as_github(ERROR, ROOT) == (
        "::error file=policies/a b/v1.yaml,line=3,col=11,title=sluice policy lint (schema)"
        "::contrast: should be a list, 100%25 of it%0Aor: none"
    )
    odd = Finding("/work/a,b:c/v1.yaml", 1, 1, "", "x", "warning", "cut")
    assert as_github(odd, ROOT).startswith("::warning file=a%2Cb%3Ac/v1.yaml,line=1,col=1,")
