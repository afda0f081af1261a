"""The pictures that are shown are those whose action differs most, and not one of them ten times."""

from __future__ import annotations

from geometry import ALLOW, BLOCK, REVIEW, compiled, image

from worker.workbench.stress.drift import Looks, Tally
from worker.workbench.stress.examples import Example, strongest_examples

CHANGES = ["grey", "blur", "flip"]


def looked(*pictures: tuple[float, ...]) -> Looks:
    tally = Tally(compiled(), CHANGES)
    for number, (before, *after) in enumerate(pictures):
        for change, margin in zip((None, "copy", *CHANGES), (before, before, *after), strict=True):
            tally.add(f"p{number}", change, image(weapons=margin))
    return tally.looks()


def test_the_farthest_action_comes_first_then_the_farther_score() -> None:
    found = strongest_examples(looked((BLOCK, REVIEW, BLOCK, ALLOW), (ALLOW, ALLOW, REVIEW, ALLOW)), 9)
    assert [(one.content_id, one.change, one.actions) for one in found] == [
        ("p0", "flip", ("block", "allow")), ("p1", "blur", ("allow", "review")), ("p0", "grey", ("block", "review")),
    ]  # fmt: skip
    first: Example = found[0]
    assert first.category == "weapons"
    assert first.scores[0] > 0.9
    assert first.scores[1] < 0.5


def test_the_category_is_the_one_whose_action_moved() -> None:
    tally = Tally(compiled(), ["grey"])
    # The score of drugs moves farther, but stays on one side of its threshold.
    for change, weapons, drugs in ((None, 2.1, 4.0), ("copy", 2.3, 4.0), ("grey", 2.0, 0.1)):
        tally.add("p", change, image(weapons=weapons, drugs=drugs))
    (found,) = strongest_examples(tally.looks(), 9)
    assert (found.category, found.actions) == ("weapons", ("block", "review"))


def test_one_picture_and_one_change_are_shown_twice_at_most() -> None:
    found = strongest_examples(looked(*[(BLOCK, ALLOW, ALLOW, ALLOW)] * 9), 99)
    assert len(found) == 6
    for kind in ("content_id", "change"):
        shown = [getattr(one, kind) for one in found]
        assert max(map(shown.count, shown)) == 2
    assert len(strongest_examples(looked(*[(BLOCK, ALLOW, ALLOW, ALLOW)] * 9), 3)) == 3


def test_without_flips_and_without_pictures_there_are_none() -> None:
    assert strongest_examples(looked((BLOCK, BLOCK, BLOCK, BLOCK)), 9) == []
    assert strongest_examples(looked(), 9) == []
