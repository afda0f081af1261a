"""Plain words are said where counts carry them, and what hurts most comes first."""

from __future__ import annotations

from geometry import ALLOW, BLOCK, REVIEW, compiled, image

from worker.workbench.stress.drift import Drift, Tally, drifts
from worker.workbench.stress.groups import Shift
from worker.workbench.stress.words import Remark, remarks_on_changes, remarks_on_groups, too_few

WORDS = {"copy": "copied", "grey": "greyed", "blur": "blurred"}


def measured(*pictures: tuple[float, float, float]) -> list[Drift]:
    """Give pictures by the margins of weapons: unchanged, greyed, blurred."""
    tally = Tally(compiled(), ["grey", "blur"])
    for number, (before, *after) in enumerate(pictures):
        for change, margin in zip((None, "copy", "grey", "blur"), (before, before, *after), strict=True):
            tally.add(f"p{number}", change, image(weapons=margin))
    return drifts(tally.looks())


def remarks(*pictures: tuple[float, float, float]) -> list[Remark]:
    return [one for one in remarks_on_changes(measured(*pictures), WORDS) if one.category == "weapons"]


def test_what_slips_through_is_said_with_its_counts() -> None:
    found = remarks(*[(BLOCK, ALLOW, BLOCK)] * 3, *[(BLOCK, BLOCK, BLOCK)] * 7)
    assert [(one.says, one.about) for one in found] == [
        (
            "weapons: 3 of 10 blocked pictures are allowed once they are greyed "
            "(30\u00a0%; 95\u00a0% interval 11 to 60\u00a0%)",
            "grey",
        )
    ]


def test_two_ends_are_one_sentence_the_farther_first() -> None:
    (found,) = remarks(*[(BLOCK, REVIEW, BLOCK)] * 4, (BLOCK, ALLOW, BLOCK), (BLOCK, BLOCK, BLOCK))
    assert "1 of 6 blocked pictures is allowed, and 4 are sent to review, once they are greyed" in found.says


def test_false_alarms_are_said_of_fewer_among_many() -> None:
    many = [(ALLOW, ALLOW, ALLOW)] * 95
    (found,) = remarks(*[(ALLOW, REVIEW, ALLOW)] * 5, *many)
    assert "5 of 100 allowed pictures are sent to review once they are greyed" in found.says
    # The same share of what is caught is not said: it may be one in a hundred.
    assert remarks(*[(BLOCK, REVIEW, BLOCK)] * 5, *[(BLOCK, BLOCK, BLOCK)] * 95) == []


def test_nothing_is_said_of_few_pictures_or_of_one() -> None:
    assert remarks(*[(BLOCK, ALLOW, BLOCK)] * 4) == []
    assert remarks((BLOCK, ALLOW, BLOCK), *[(BLOCK, BLOCK, BLOCK)] * 5) == []
    assert remarks(*[(BLOCK, BLOCK, BLOCK)] * 9) == []


def test_what_hurts_most_comes_first() -> None:
    # Greyed, blocked pictures are allowed; blurred, as many are only reviewed.
    grey, blur = remarks(*[(BLOCK, ALLOW, REVIEW)] * 5, *[(BLOCK, BLOCK, BLOCK)] * 5)
    assert (grey.about, blur.about) == ("grey", "blur")
    assert grey.hurts == 2 * blur.hurts
    # More of them weigh more.
    first, second = remarks((BLOCK, ALLOW, ALLOW), *[(BLOCK, BLOCK, ALLOW)] * 8, (BLOCK, ALLOW, BLOCK))
    assert (first.about, second.about) == ("blur", "grey")


def test_the_whole_policy_is_named_so() -> None:
    says = [one.says for one in remarks_on_changes(measured(*[(BLOCK, ALLOW, BLOCK)] * 6), WORDS)]
    assert any(text.startswith("the whole policy: 6 of 6 blocked pictures are allowed") for text in says)


def test_categories_that_catch_too_few_are_named_with_how_many() -> None:
    assert too_few(measured(*[(BLOCK, BLOCK, BLOCK)] * 2)) == {"weapons": 2, "drugs": 0}
    assert too_few(measured(*[(REVIEW, BLOCK, BLOCK)] * 5)) == {"drugs": 0}


def shift(by: float, low: float, high: float, *, weight: float | None = None, group: str = "old") -> Shift:
    return Shift("ages", group, "drugs", 8, by, low, high, by if weight is None else weight, 0)


def test_a_word_is_said_where_all_sentences_agree() -> None:
    (above,) = remarks_on_groups([shift(2.1, 0.9, 3.0)])
    assert above.says == (
        "drugs: the margin of 'old' is 2.1 logits above the mean of its list, ages (0.9 to 3.0 over 8 sentences)"
    )
    (below,) = remarks_on_groups([shift(-2.1, -3.0, -0.9)])
    assert "is 2.1 logits below" in below.says
    assert "(0.9 to 3.0 over 8 sentences)" in below.says
    assert remarks_on_groups([shift(2.1, -0.1, 3.0)]) == []


def test_logits_count_by_what_they_do_to_the_score() -> None:
    # Of a category of high temperature the same logits move the score less.
    assert remarks_on_groups([shift(2.1, 0.9, 3.0, weight=0.9)]) == []
    found = remarks_on_groups([shift(2.1, 1, 3, weight=1.5, group="old"), shift(1.1, 1, 2, weight=3.0, group="young")])
    assert [one.about for one in found] == ["young", "old"]
