"""The policies that come with Sluice are without error, and the default one is worth copying."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.policy.lint import lint_policy
from worker.policy.registry import lint_paths, load_directory
from worker.policy.schema import Policy

POLICIES = Path(__file__).parents[2] / "policies"


@pytest.fixture(scope="module")
def default() -> Policy:
    return load_directory(POLICIES).deciding("default", "upload-1")


def test_the_shipped_policies_have_no_findings() -> None:
    checked, findings = lint_paths([POLICIES])

    assert [str(finding) for finding in findings] == []
    assert checked == len(list(POLICIES.glob("*/v*.yaml"))) + 1 >= 3


def test_the_rollout_names_every_shipped_policy() -> None:
    policies = load_directory(POLICIES)

    assert set(policies.rollouts) == {path.name for path in POLICIES.iterdir() if path.is_dir()} >= {"default", "demo"}


def test_the_default_policy_covers_at_least_ten_categories(default: Policy) -> None:
    assert len(default.categories) >= 10
    assert {"weapons", "drugs", "graphic_violence", "self_harm"} <= set(default.categories)
    assert default.description.strip()
    assert len(default.contrast) >= 10


def test_every_default_category_is_described_with_prompts_look_alikes_and_thresholds(default: Policy) -> None:
    for name, category in default.categories.items():
        assert len(category.description.split()) >= 5, name
        assert len(category.prompts) >= 2, name
        assert category.look_alikes, name
        assert category.thresholds.review is not None, name
        assert 0 < category.thresholds.review < 1, name
        assert category.thresholds.block is None or category.thresholds.review < category.thresholds.block <= 1, name


def test_no_shipped_sentence_is_longer_than_clip_reads() -> None:
    # CLIP reads 77 tokens; a word is seldom more than two. What comes after is cut off without a word.
    for policy in load_directory(POLICIES).policies.values():
        sentences = [*policy.contrast]
        for category in policy.categories.values():
            sentences += [*category.prompts, *(category.look_alikes or ())]
        for text in (template.replace("{}", text) for text in sentences for template in policy.templates):
            assert len(text.split()) <= 20, text


def test_a_look_alike_stands_beside_what_it_resembles_and_is_no_prompt_elsewhere(default: Policy) -> None:
    prompts = {text: name for name, category in default.categories.items() for text in category.prompts}
    for name, category in default.categories.items():
        for text in category.look_alikes or ():
            assert text not in prompts, f"{text!r} of {name} is a prompt of {prompts.get(text)}"


def test_a_shipped_policy_with_one_letter_changed_has_another_digest(default: Policy) -> None:
    text = (POLICIES / "default" / f"v{default.version}.yaml").read_text()
    sentence = default.categories["weapons"].prompts[0]
    assert text.count(f"- {sentence}\n") == 1

    changed, findings = lint_policy(text.replace(f"- {sentence}\n", f"- {sentence}s\n"), "f")

    assert findings == []
    assert changed is not None
    assert changed.digest != default.digest
