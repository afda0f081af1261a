"""No endpoint takes another's place, and no schedule ends early."""

from __future__ import annotations

import pytest

from worker.runtime.deliver import Schedule
from worker.runtime.lanes import IN_FLIGHT, Lanes
from worker.sinks.outbox import Standing


def widen(lanes: Lanes, endpoint: str, times: int = 20) -> None:
    for _ in range(times):
        lanes.enter(endpoint, "well")
        lanes.leave(endpoint, is_success=True, is_under_load=False)


def begin(lanes: Lanes, due: dict[Standing, list[str]]) -> dict[str, int]:
    """Begin all attempts that have a place."""
    given = lanes.places(due)
    for standing, names in due.items():
        for name in names:
            for _ in range(given.get(name, 0)):
                lanes.enter(name, standing)
    return given


def test_an_endpoint_begins_with_one_attempt_and_widens_with_each_success() -> None:
    lanes = Lanes()
    assert lanes.places({"new": ["a"]}) == {"a": 1}
    widen(lanes, "a", 3)
    assert lanes.places({"well": ["a"]}) == {"a": 4}
    widen(lanes, "a", 100)
    assert lanes.places({"well": ["a"]}) == {"a": 16}


def test_what_is_under_way_is_counted() -> None:
    lanes = Lanes()
    lanes.enter("a", "new")
    assert lanes.places({"new": ["a", "b"]}) == {"b": 1}


def test_a_failure_leaves_one_attempt_and_load_halves_them() -> None:
    lanes = Lanes()
    widen(lanes, "a", 11)
    lanes.enter("a", "well")
    lanes.leave("a", is_success=False, is_under_load=True)
    assert lanes.places({"well": ["a"]}) == {"a": 6}
    lanes.enter("a", "well")
    lanes.leave("a", is_success=False, is_under_load=False)
    assert lanes.places({"well": ["a"]}) == {"a": 1}


def test_endpoints_that_fail_take_no_place_of_new_ones_and_neither_of_those_that_answer() -> None:
    lanes = Lanes()
    widen(lanes, "good")
    failing = [f"fails-{number}" for number in range(1000)]
    new = [f"new-{number}" for number in range(1000)]
    assert sum(begin(lanes, {"well": [], "new": [], "failing": failing}).values()) == 64
    assert sum(begin(lanes, {"well": [], "new": new, "failing": failing[64:]}).values()) == 64
    assert begin(lanes, {"well": ["good"], "new": new[64:], "failing": failing[64:]}) == {"good": 16}
    answering = [f"good-{number}" for number in range(1000)]
    assert sum(begin(lanes, {"well": answering, "new": [], "failing": []}).values()) == IN_FLIGHT - 64 - 64 - 16


def test_the_operators_own_endpoint_has_its_places_whatever_all_others_do() -> None:
    lanes = Lanes(own="own")
    widen(lanes, "own")
    others = [f"other-{number}" for number in range(1000)]
    for _ in range(10):
        begin(lanes, {"well": others})
    assert lanes.places({"well": others}) == {"own": 16}


def test_a_schedule_has_every_wait_with_at_most_a_fifth_more_and_then_ends() -> None:
    schedule = Schedule((5.0, 300.0))
    for attempts, wait in ((1, 5.0), (2, 300.0)):
        seconds = schedule.wait_seconds(attempts, None)
        assert seconds is not None
        assert wait <= seconds <= wait * 1.2
    assert schedule.wait_seconds(3, None) is None
    assert schedule.wait_seconds(3, 60.0) is None


@pytest.mark.parametrize(("asked", "least"), [(1.0, 5.0), (60.0, 60.0)])
def test_what_a_receiver_asks_for_makes_a_wait_longer_and_never_shorter(asked: float, least: float) -> None:
    seconds = Schedule((5.0,)).wait_seconds(1, asked)
    assert seconds is not None
    assert least <= seconds <= least * 1.2
