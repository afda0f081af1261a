"""Known flips and drifts of a policy whose geometry is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from geometry import ALLOW, BLOCK, REVIEW, compiled, image

from worker.workbench.stress.drift import Drift, Looks, Tally, drifts


def sigmoid(margin: float) -> float:
    return 1 / (1 + math.exp(-margin))


def looked(*pictures: tuple[float, float, float]) -> Looks:
    """Give pictures by the margins of weapons: of the file, of its copy, of the copy greyed."""
    tally = Tally(compiled(), ["grey"])
    for number, margins in enumerate(pictures):
        for change, margin in zip((None, "copy", "grey"), margins, strict=True):
            tally.add(f"p{number}", change, image(weapons=margin))
    return tally.looks()


def drift_of(looks: Looks, category: str | None, change: str = "grey") -> Drift:
    (found,) = [one for one in drifts(looks) if (one.category, one.change) == (category, change)]
    return found


FIVE = (
    (BLOCK, BLOCK, ALLOW), (BLOCK, BLOCK, REVIEW), (BLOCK, BLOCK, BLOCK), (REVIEW, REVIEW, ALLOW),
    (ALLOW, ALLOW, REVIEW),
)  # fmt: skip


def test_each_picture_is_counted_where_its_action_went() -> None:
    found = drift_of(looked(*FIVE), "weapons")
    assert found.pictures == 5
    assert {pair: count for pair, count in found.moves.items() if count} == {
        ("block", "allow"): 1, ("block", "review"): 1, ("block", "block"): 1, ("review", "allow"): 1,
        ("allow", "review"): 1,
    }  # fmt: skip
    assert (found.moved("weaker"), found.could("weaker")) == (3, 4)
    assert (found.moved("stronger"), found.could("stronger")) == (1, 2)
    assert found.flips == 4


def test_the_whole_policy_has_actions_and_no_score() -> None:
    whole, other = drift_of(looked(*FIVE), None), drift_of(looked(*FIVE), "drugs")
    assert whole.moves == drift_of(looked(*FIVE), "weapons").moves
    assert (whole.score_drift, whole.margin_shift, whole.caught_margin_shift) == (None, None, None)
    assert other.flips == 0


def test_scores_and_margins_move_as_worked_out_by_hand() -> None:
    found = drift_of(looked(*FIVE), "weapons")
    far = [abs(sigmoid(new) - sigmoid(old)) for _, old, new in FIVE]
    assert found.score_drift is not None
    assert found.score_drift == pytest.approx((np.mean(far), np.percentile(far, 95)), abs=1e-5)
    assert found.margin_shift is not None
    assert found.margin_shift.value == pytest.approx(np.mean([new - old for _, old, new in FIVE]), abs=1e-5)
    assert found.margin_shift.low < found.margin_shift.value < found.margin_shift.high
    assert found.caught_margin_shift is not None
    assert found.caught_margin_shift.value == pytest.approx((-5 - 3 + 0 - 2) / 4, abs=1e-5)


def test_a_category_that_catches_nothing_has_no_shift_of_what_it_catches() -> None:
    found = drift_of(looked(*FIVE), "drugs")
    assert found.margin_shift is not None
    assert found.caught_margin_shift is None
    assert found.could("weaker") == 0
    assert found.as_dict()["weaker_rate"] is None


def test_the_copy_is_measured_against_the_file_and_the_change_against_the_copy() -> None:
    looks = looked((BLOCK, ALLOW, ALLOW), (ALLOW, BLOCK, ALLOW))
    assert {pair for pair, count in drift_of(looks, None, "copy").moves.items() if count} == {
        ("block", "allow"), ("allow", "block"),
    }  # fmt: skip
    assert {pair for pair, count in drift_of(looks, None, "grey").moves.items() if count} == {
        ("allow", "allow"), ("block", "allow"),
    }  # fmt: skip


def test_the_strongest_view_of_a_picture_counts() -> None:
    tally = Tally(compiled(), [])
    tally.add("p", None, np.concatenate([image(weapons=ALLOW), image(weapons=BLOCK)]))
    tally.add("p", "copy", image(weapons=ALLOW))
    assert drift_of(tally.looks(), "weapons", "copy").moves["block", "allow"] == 1


def test_looks_out_of_turn_are_refused() -> None:
    tally = Tally(compiled(), ["grey"])
    tally.add("p", None, image())
    with pytest.raises(ValueError, match="'grey' of 'p' comes out of turn"):
        tally.add("p", "grey", image())


def test_no_pictures_have_no_drifts() -> None:
    assert drifts(Tally(compiled(), ["grey"]).looks()) == []


def test_a_drift_is_one_flat_object_with_counts_and_intervals() -> None:
    row = drift_of(looked(*FIVE), "weapons").as_dict()
    assert (row["category"], row["change"], row["pictures"], row["flips"]) == ("weapons", "grey", 5, 4)
    assert row["moves"] == {"allow to review": 1, "review to allow": 1, "block to allow": 1, "block to review": 1}
    assert (row["weaker"], row["weaker_of"]) == (3, 4)
    assert row["weaker_rate"]["low"] < 0.75 == row["weaker_rate"]["value"] < row["weaker_rate"]["high"]
    assert row["margin_shift"].keys() == {"value", "low", "high"}
