"""What may be done to the versions of a policy that are at work."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.errors import PolicyConflict, PolicyMissing
from worker.policy.changes import MAX_BEFORE, MAX_SHADOWS, State, activate, canary, roll_back, shadow
from worker.policy.rollout import Canary, Rollout

KNOWN = {1, 2, 3}
LIVE_1 = State(rollout=Rollout(live=1))


def rollout(state: State) -> Rollout:
    assert state.rollout is not None
    return state.rollout


def test_the_first_version_that_is_activated_is_live_and_has_nothing_before_it() -> None:
    assert activate("p", State(), 2, KNOWN) == State(rollout=Rollout(live=2))


def test_an_activated_version_leaves_its_other_roles_and_the_old_one_can_be_rolled_back_to() -> None:
    state = State(rollout=Rollout(live=1, shadow=(2, 3), canary=Canary(version=2, percent=5)))
    after = activate("p", state, 2, KNOWN)

    assert after == State(rollout=Rollout(live=2, shadow=(3,)), before=(1,))
    assert roll_back("p", after, KNOWN) == State(rollout=Rollout(live=1, shadow=(3,)))


def test_a_canary_that_is_not_activated_stays() -> None:
    state = State(rollout=Rollout(live=1, canary=Canary(version=3, percent=5)))
    assert rollout(activate("p", state, 2, KNOWN)).canary == Canary(version=3, percent=5)


def test_versions_are_rolled_back_one_after_the_other() -> None:
    state = activate("p", activate("p", LIVE_1, 2, KNOWN), 3, KNOWN)
    lives = []
    while state.before:
        state = roll_back("p", state, KNOWN)
        lives.append(rollout(state).live)
    assert lives == [2, 1]
    with pytest.raises(PolicyConflict, match="no version of p was live before"):
        roll_back("p", state, KNOWN)


def test_what_is_not_published_cannot_be_put_to_work() -> None:
    for change in (activate, shadow):
        with pytest.raises(PolicyMissing, match=r"p@9 is not published; published are 1, 2, 3"):
            change("p", LIVE_1, 9, KNOWN)
    with pytest.raises(PolicyMissing):
        canary("p", LIVE_1, 9, KNOWN, 5)
    with pytest.raises(PolicyMissing):
        roll_back("p", State(rollout=Rollout(live=1), before=(9,)), KNOWN)


def test_what_is_so_already_or_cannot_be_is_a_conflict_and_no_change() -> None:
    watching = shadow("p", LIVE_1, 2, KNOWN)
    for change in (
        lambda: activate("p", LIVE_1, 1, KNOWN),
        lambda: shadow("p", LIVE_1, 1, KNOWN),
        lambda: shadow("p", watching, 2, KNOWN),
        lambda: shadow("p", watching, 3, KNOWN, off=True),
        lambda: shadow("p", State(), 1, KNOWN),
        lambda: canary("p", State(), 1, KNOWN, 5),
        lambda: canary("p", LIVE_1, 1, KNOWN, 5),
        lambda: canary("p", LIVE_1, 2, KNOWN, 0),
        lambda: canary("p", canary("p", LIVE_1, 2, KNOWN, 5), 2, KNOWN, 5),
    ):
        with pytest.raises(PolicyConflict):
            change()


def test_a_shadow_and_a_canary_begin_and_end() -> None:
    watching = shadow("p", LIVE_1, 2, KNOWN)
    assert rollout(watching).shadow == (2,)
    assert shadow("p", watching, 2, KNOWN, off=True) == LIVE_1
    deciding = canary("p", LIVE_1, 2, KNOWN, 5)
    assert rollout(canary("p", deciding, 2, KNOWN, 50)).canary == Canary(version=2, percent=50)
    assert canary("p", deciding, 2, KNOWN, 0) == LIVE_1


def test_shadows_are_bounded() -> None:
    known = set(range(1, 20))
    state = LIVE_1
    for version in range(2, 2 + MAX_SHADOWS):
        state = shadow("p", state, version, known)
    with pytest.raises(PolicyConflict, match="watch already"):
        shadow("p", state, 15, known)


CHANGES = st.one_of(
    st.tuples(st.just("activate"), st.integers(1, 4)),
    st.tuples(st.just("rollback"), st.just(0)),
    st.tuples(st.just("shadow"), st.integers(1, 4)),
    st.tuples(st.just("off"), st.integers(1, 4)),
    st.tuples(st.just("canary"), st.integers(1, 4)),
    st.tuples(st.just("end"), st.integers(1, 4)),
)


@given(st.lists(CHANGES, max_size=40))
def test_whatever_is_done_one_published_version_is_live_and_has_no_other_role(done: list[tuple[str, int]]) -> None:
    state = LIVE_1
    for what, version in done:
        try:
            match what:
                case "activate":
                    state = activate("p", state, version, KNOWN)
                case "rollback":
                    state = roll_back("p", state, KNOWN)
                case "shadow" | "off":
                    state = shadow("p", state, version, KNOWN, off=what == "off")
                case _:
                    state = canary("p", state, version, KNOWN, 0 if what == "end" else 10)
        except (PolicyConflict, PolicyMissing):
            continue
    found = rollout(State.model_validate_json(state.model_dump_json()))
    assert found == state.rollout
    assert {version for _, version in found.places()} <= KNOWN
    assert found.live not in found.shadow
    assert found.canary is None or found.canary.version != found.live
    assert len(state.before) <= MAX_BEFORE
