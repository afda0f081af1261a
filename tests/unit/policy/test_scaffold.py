"""What `sluice policy new` writes is a policy, and what editors read beside it is good for them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from worker.policy.cases import CasesFile
from worker.policy.lint import lint_policy
from worker.policy.scaffold import SCHEMA_FILE, SCHEMA_LINE, first_version, next_version, schema_text
from worker.policy.schema import Policy
from worker.policy.wording import Page, warn_of_wording

POLICIES = Path(__file__).parents[3] / "policies"


@pytest.mark.parametrize("name", ["house", "on", "2024", "1.5", "null", "a-b_c.d", "1e5", "0x1f", "12_3"])
def test_a_first_version_is_valid_whatever_its_name_and_has_no_warnings(name: str) -> None:
    text = first_version(name, "policies")
    policy, findings = lint_policy(text, "v1.yaml", (name, 1))

    assert findings == []
    assert policy is not None
    assert not list(warn_of_wording(policy, Page.of("v1.yaml", text)))
    assert text.splitlines()[0] == SCHEMA_LINE


def test_a_next_version_keeps_comments_and_changes_two_lines() -> None:
    text = (POLICIES / "demo" / "v1.yaml").read_text()
    new = next_version(text, "house", 7)

    changed = [(a, b) for a, b in zip(text.splitlines(), new.splitlines(), strict=True) if a != b]
    assert changed == [("policy: demo", "policy: house"), ("version: 1", "version: 7")]
    assert lint_policy(new, "v7.yaml", ("house", 7))[1] == []


def test_a_next_version_gets_the_line_for_editors_and_keeps_what_stands_behind_the_values() -> None:
    text = 'policy: "old"  # ours\nversion: 1 # first\ncontrast: [food]\n'
    assert next_version(text, "new", 2) == f"{SCHEMA_LINE}\npolicy: new  # ours\nversion: 2 # first\ncontrast: [food]\n"


def test_a_file_that_hides_its_name_is_not_copied_by_guess() -> None:
    with pytest.raises(ValueError, match="version"):
        next_version("{policy: x, version: 1}\npolicy: x\n", "x", 2)


def _objects(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        if "properties" in schema and schema.get("type") == "object":
            yield schema
        for part in schema.values():
            yield from _objects(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from _objects(part)


@pytest.mark.parametrize("model", [Policy, CasesFile])
def test_the_schema_describes_every_key_and_refuses_others(model: Any) -> None:
    objects = list(_objects(model.model_json_schema()))

    assert len(objects) >= 3
    for found in objects:
        assert found["additionalProperties"] is False, found.get("title")
        for name, about in found["properties"].items():
            assert about.get("description"), f"{found.get('title')}.{name}"


def test_the_schema_beside_the_shipped_policies_is_the_one_that_is_printed() -> None:
    shipped = (POLICIES / SCHEMA_FILE).read_text()
    assert shipped == schema_text(), "sluice schema policy > policies/policy.schema.json"
    assert json.loads(shipped)["$schema"].startswith("https://json-schema.org/")
    for file in POLICIES.glob("*/v*.yaml"):
        assert file.read_text().startswith(SCHEMA_LINE), file
