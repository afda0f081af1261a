"""The uploader reads what was done and in whose words, and nothing with which a policy could be felt out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import judged
import pytest
from judged import FOOD, PILLS, REVOLVER, RIFLE, SENTENCES

from worker.cli.explained import print_statement
from worker.errors import REASONS
from worker.records import ShadowVerdict, Verdict
from worker.workbench.explain.statement import REASONS as SAID
from worker.workbench.explain.statement import Statement, state
from worker.workbench.report.page import render

LOGITS = [{REVOLVER: 3, FOOD: 9}, {REVOLVER: 5, FOOD: 4, PILLS: 3.3}, {RIFLE: 12, PILLS: 11}]


def numbers(value: Any) -> Iterator[str]:
    """Yield every way in which the numbers of a verdict may be written."""
    if isinstance(value, dict):
        for part in value.values():
            yield from numbers(part)
    elif isinstance(value, list):
        for part in value:
            yield from numbers(part)
    elif isinstance(value, float):
        yield from (f"{value:.{digits}f}" for digits in range(1, 7))
        yield from (f"{value * 100:.0f} %", f"{value * 100:.0f}%", f"{value:.2f}".replace(".", ","), repr(value))


def renderings(statement: Statement, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return all that an uploader may be given."""
    capsys.readouterr()
    print_statement(statement)
    page = re.sub(r"<style>.*?</style>", "", render("statement", statement=statement), flags=re.DOTALL)
    return [capsys.readouterr().out, statement.model_dump_json(), page]


def shadowed(logits: dict[str, float]) -> Verdict:
    other = judged.verdict(judged.image({RIFLE: 7.5, PILLS: 6}), judged.compiled(judged.policy(2)))
    shadow = ShadowVerdict(policy=other.policy, action=other.action, categories=other.categories)
    return judged.verdict(judged.image(logits), shadow=[shadow.model_dump()])


@pytest.mark.parametrize("logits", LOGITS, ids=["allow", "review", "block"])
def test_no_number_no_sentence_and_no_other_category_is_in_what_the_uploader_is_given(
    logits: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    verdict = shadowed(logits)
    statement = state(verdict, judged.policy(), "write to appeals@example.org")
    written = set(numbers(verdict.model_dump()["categories"]))
    written |= set(numbers([shadow.model_dump()["categories"] for shadow in verdict.shadow]))
    assert len(written) > 40
    others = {"weapons", "drugs"} - ({statement.category.name} if statement.category else set())
    for rendering in renderings(statement, capsys):
        assert [text for text in [*written, *SENTENCES, *others] if text in rendering] == []
        assert not re.search(r"\bscore|threshold|margin|logit|prompt", rendering)
        assert ("appeals@example.org" in rendering) is (statement.action != "allow")


def test_it_names_the_category_in_the_policys_own_words_and_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    statement = state(shadowed(LOGITS[2]), judged.policy(), None)
    assert (statement.action, statement.policy.id, statement.policy.version) == ("block", "armoury", 1)
    assert statement.category is not None
    assert statement.category.model_dump() == {"name": "weapons", "description": "Arms that are carried openly."}
    text, _, page = renderings(statement, capsys)
    for rendering in (text, page):
        for words in ("Your upload was not accepted.", "weapons", "Arms that are carried openly.", "armoury, version 1",
                      "ab" * 16, "2027-08-09"):  # fmt: skip
            assert words in rendering
    assert "object" not in text
    assert "wrong" not in page


def test_an_upload_that_was_allowed_is_said_to_be_and_names_nothing() -> None:
    statement = state(shadowed(LOGITS[0]), judged.policy(), None)
    assert statement.lines[0] == "Your upload was accepted."
    assert statement.category is None


def test_an_upload_that_is_held_back_is_not_called_refused() -> None:
    assert state(shadowed(LOGITS[1]), judged.policy(), None).lines[0] == (
        "Your upload is held back until a person has looked at it."
    )


def test_a_policy_that_is_gone_leaves_the_categorys_name() -> None:
    category = state(shadowed(LOGITS[2]), None, None).category
    assert category is not None
    assert category.model_dump() == {"name": "weapons", "description": ""}


@pytest.mark.parametrize("reason", [*REASONS, "a_reason_of_tomorrow"])
def test_every_reason_has_plain_words_that_tell_nothing_of_the_inside(
    reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for rendering in renderings(state(judged.unjudged(reason), None, None), capsys):
        assert reason not in rendering
        assert "SLUICE" not in rendering
        assert "has not been checked" in rendering or "could not be checked" in rendering


def test_the_words_cover_the_reasons_that_there_are() -> None:
    assert SAID.keys() == REASONS.keys()


@pytest.mark.parametrize(
    ("appeal", "linked"),
    [("https://example.org/appeal?a=1&b=2", True), ("javascript:alert(1)", False), ("<b>call us</b>", False)],
)
def test_only_an_address_becomes_a_link_and_nothing_becomes_markup(appeal: str, linked: bool) -> None:
    page = render("statement", statement=state(shadowed(LOGITS[2]), judged.policy(), appeal))
    assert ("<a href=" in page) is linked
    assert "<b>" not in page


def test_a_hostile_name_of_a_category_stays_text(capsys: pytest.CaptureFixture[str]) -> None:
    verdict = shadowed(LOGITS[2])
    odd = {"<script>\x1b[31m": verdict.categories["weapons"]}
    text, _, page = renderings(state(verdict.model_copy(update={"categories": odd}), None, None), capsys)
    assert "\x1b" not in text
    assert "<script>" not in page
