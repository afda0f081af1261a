"""No endpoint takes another's place, and no schedule ends early."""

from __future__ import annotations

import pytest

from worker.runtime.deliver import Schedule
from worker.runtime.lanes import IN_FLIGHT, Lanes


def widen(lanes: Lanes, endpoint: str, times: int = 20) -> None:
    for _ in range(times):
        lanes.enter(endpoint)
        lanes.leave(endpoint, is_success=True, is_under_load=False)


def test_an_endpoint_begins_with_one_attempt_and_widens_with_each_success() -> None:
    lanes = Lanes()
    assert lanes.places(["a"]) == {"a": 1}
    widen(lanes, "a", 3)
    assert lanes.places(["a"]) == {"a": 4}
    widen(lanes, "a", 100)
    assert lanes.places(["a"]) == {"a": 16}


def test_what_is_under_way_is_counted() -> None:
    lanes = Lanes()
    lanes.enter("a")
    assert lanes.places(["a", "b"]) == {"b": 1}


def test_a_failure_leaves_one_attempt_and_load_halves_them() -> None:
    lanes = Lanes()
    widen(lanes, "a", 11)
    lanes.enter("a")
    lanes.leave("a", is_success=False, is_under_load=True)
    assert lanes.places(["a"]) == {"a": 6}
    lanes.enter("a")
    lanes.leave("a", is_success=False, is_under_load=False)
    assert lanes.places(["a"]) == {"a": 1}


def test_a_thousand_endpoints_that_hang_leave_half_of_the_places_to_those_that_answer() -> None:
    lanes = Lanes()
    widen(lanes, "good")
    hanging = [f"hangs-{number}" for number in range(1000)]
    given = lanes.places(hanging)
    for endpoint in given:
        lanes.enter(endpoint)
    assert len(given) == IN_FLIGHT // 2
    assert lanes.places([*hanging, "good"]) == {"good": 16}


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
