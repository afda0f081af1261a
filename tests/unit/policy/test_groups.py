"""A groups file is checked as strictly as a policy, and words get the article that they ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.errors import PolicyInvalid, UsageError
from worker.policy.groups import DEFAULT_FILE, fill, lint_groups, read_groups

GROUPS = """\
sentences:
  - a {group} person at the beach
  - a portrait of a {group} person
groups:
  ages: [young, old]
  skin colour: [light, dark]
"""


def test_the_groups_that_come_with_sluice_are_valid_and_hold_what_the_page_promises() -> None:
    groups = read_groups(DEFAULT_FILE)
    assert len(groups.sentences) >= 5
    assert groups.groups.keys() >= {"gender", "age", "skin colour", "religion", "nationality", "disability"}
    assert "old" in groups.groups["age"]


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        ("a {group} person at the beach", "a person", "2:5: sentences.0: a sentence holds {group} once"),
        ("a {group} person at", "the {group} and {group} at", "2:5: sentences.0: a sentence holds {group} once"),
        ("[young, old]", "[young]", "5:9: groups.ages: 'young' stands alone"),
        ("[young, old]", "[]", "5:9: groups.ages: must not be empty"),
        ("[young, old]", "young", "5:9: groups.ages: should be a list, not 'young'; write"),
        ("[young, old]", "[young, 42]", "5:17: groups.ages.1: should be text, not 42"),
        ("[young, old]", "[young, Young]", "5:17: groups.ages.1: 'Young' stands in this list already (entry 1)"),
        ("[young, old]", '[young, " "]', "5:17: groups.ages.1: must not be blank"),
        ("  - a portrait of a", "  - A {group} person at the  beach\n  - a portrait of a", "3:5: sentences.1: "),
        ("groups:", "group:", "4:1: group: unknown key; did you mean groups?"),
        ("skin colour", "ages", "6:3: ages: duplicate key"),
        (GROUPS, "", "1:1: the file is empty; `sluice stress --print-groups` shows what belongs in it"),
        (GROUPS, "sentences: [", "not valid YAML"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(old: str, new: str, finding: str) -> None:
    text = GROUPS.replace(old, new, 1)
    assert text != GROUPS
    groups, findings = lint_groups(text, "groups.yaml")
    assert groups is None
    assert any(finding in str(found) for found in findings), [str(found) for found in findings]


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.yaml: No such file.*--print-groups"):
        read_groups(tmp_path / "nowhere.yaml")
    with pytest.raises(UsageError, match="Is a directory"):
        read_groups(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"sentences: [\xe9]")
    with pytest.raises(UsageError, match="not UTF-8"):
        read_groups(tmp_path / "latin.yaml")
    (tmp_path / "wrong.yaml").write_text("sentences: []\n")
    with pytest.raises(PolicyInvalid) as caught:
        read_groups(tmp_path / "wrong.yaml")
    assert len(caught.value.findings) == 2


@pytest.mark.parametrize(
    ("sentence", "word", "filled"),
    [
        ("a {group} person", "young", "a young person"),
        ("a {group} person", "old", "an old person"),
        ("A {group} person", "Iranian", "An Iranian person"),
        ("a photo of a {group} person", "European", "a photo of a European person"),
        ("a {group} person", "Ukrainian", "a Ukrainian person"),
        ("a {group} person", "unhappy", "an unhappy person"),
        ("the {group} person", "old", "the old person"),
        ("a photo of {group} people", "old", "a photo of old people"),
    ],
)
def test_a_word_gets_its_article(sentence: str, word: str, filled: str) -> None:
    assert fill(sentence, word) == filled
