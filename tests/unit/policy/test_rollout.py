"""Which version decides for which upload, and what may stand in rollout.yaml."""

from __future__ import annotations

import math

import pytest

from worker.policy.lint import lint_rollout
from worker.policy.rollout import Canary, Rollout

UPLOADS = [f"upload-{number}" for number in range(20_000)]


def share(percent: float, policy: str = "default") -> set[str]:
    rollout = Rollout(live=1, canary=Canary(version=2, percent=percent))
    return {upload for upload in UPLOADS if rollout.deciding_version(policy, upload) == 2}


def only(text: str) -> str:
    rollout, findings = lint_rollout(text, "rollout.yaml")
    assert rollout is None
    assert len(findings) == 1, findings
    return str(findings[0])


@pytest.mark.parametrize("percent", [0.5, 5.0, 12.5, 50.0, 99.0])
def test_a_canary_decides_for_its_share(percent: float) -> None:
    expected = len(UPLOADS) * percent / 100
    deviation = math.sqrt(expected * (1 - percent / 100))

    assert abs(len(share(percent)) - expected) < 4 * deviation


def test_a_canary_of_0_decides_never_and_one_of_100_always() -> None:
    assert share(0) == set()
    assert share(100) == set(UPLOADS)


def test_without_a_canary_live_decides() -> None:
    rollout = Rollout(live=3, shadow=(4,))

    assert {rollout.deciding_version("default", upload) for upload in UPLOADS[:100]} == {3}


def test_an_upload_stays_on_its_side() -> None:
    assert share(10) == share(10)
    # Known values: another process, machine or release must say the same.
    rollout = Rollout(live=1, canary=Canary(version=2, percent=50))
    assert [rollout.deciding_version("default", f"upload-{number}") for number in range(8)] == [2, 1, 2, 2, 2, 1, 1, 2]


def test_who_is_in_the_canary_stays_when_it_grows() -> None:
    assert share(1) < share(5) < share(50)


def test_two_policies_draw_different_canaries() -> None:
    both = share(50, "default") & share(50, "other")

    assert abs(len(both) - len(UPLOADS) / 4) < 4 * math.sqrt(len(UPLOADS) * 3 / 16)


def test_a_right_rollout_has_no_findings() -> None:
    text = "default: {live: 1, shadow: [2, 3], canary: {version: 2, percent: 2.5}}\nother: {live: 7}\n"

    rollout, findings = lint_rollout(text, "rollout.yaml")

    assert findings == []
    assert rollout is not None
    assert rollout.root == {
        "default": Rollout(live=1, shadow=(2, 3), canary=Canary(version=2, percent=2.5)),
        "other": Rollout(live=7),
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("default: {live: 1, shdow: [2]}", "1:20: default.shdow: unknown key; did you mean shadow?"),
        ("default: {live: 1, zzz: 2}", "1:20: default.zzz: unknown key; known keys are live, shadow, canary"),
        (
            "default: {live: 1, canary: {version: 1, percnt: 5, percent: 5}}",
            "1:41: default.canary.percnt: unknown key; did you mean percent?",
        ),
        ("canary: {live: 1, shadows: [2]}", "1:19: canary.shadows: unknown key; did you mean shadow?"),
        ("default: {shadow: [1]}", "1:10: default.live: required key is missing; add it"),
        ("default: {live: 0}", "1:17: default.live: should be 1 or more, not 0"),
        ("default: {live: true}", "1:17: default.live: should be a whole number, not true"),
        ("default: {live: '1'}", "1:17: default.live: should be a whole number, not '1'"),
        ("default: {live: 1.0}", "1:17: default.live: should be a whole number, not 1.0"),
        ("default: {live: 1, shadow: 2}", "1:28: default.shadow: should be a list, not 2; write [first, second]"),
        ("default: {live: 1, shadow: ['2']}", "1:29: default.shadow.0: should be a whole number, not '2'"),
        (
            "default: {live: 1, canary: {version: 2, percent: 101}}",
            "1:50: default.canary.percent: should be 100 or less, not 101",
        ),
        (
            "default: {live: 1, canary: {version: 2, percent: -1}}",
            "1:50: default.canary.percent: should be 0 or more, not -1",
        ),
        (
            "default: {live: 1, canary: {version: 2, percent: .nan}}",
            "1:50: default.canary.percent: should be a finite number, not nan",
        ),
        ("default: {live: 1, canary: {version: 2}}", "1:28: default.canary.percent: required key is missing; add it"),
        ("default: 1", "1:10: default: should be a block of `key: value` lines, not 1"),
        ("'a b': {live: 1}", "1:1: a b: 'a b' is not a name; use letters, digits"),
        ("default: {live: 1, live: 2}", "1:20: live: duplicate key, first given on line 1; keep one of them"),
        ("default: {live: 1", "1:18: not valid YAML: while parsing a flow mapping, expected ',' or '}'"),
        ("", "1:1: the file is empty; `ID: {live: VERSION}` belongs in it"),
    ],
)
def test_what_is_wrong_in_a_rollout_is_found_with_its_place_and_mend(text: str, expected: str) -> None:
    assert only(text).startswith(f"rollout.yaml:{expected}")


def test_every_error_of_a_rollout_is_reported_in_the_order_of_the_file() -> None:
    text = "a: {live: 1, live: 2}\nb: {live: 0}\nc: {live: 1, live: 1}\n"

    _, findings = lint_rollout(text, "f")

    assert [(finding.line, finding.key) for finding in findings] == [(1, "live"), (2, "b.live"), (3, "live")]


def test_every_version_that_does_not_exist_is_found_where_it_is_named() -> None:
    text = "default:\n  live: 2\n  shadow: [1, 3]\n  canary: {version: 4, percent: 5}\n"

    rollout, findings = lint_rollout(text, "f", lambda name, version: (name, version) == ("default", 1))

    assert rollout is None
    assert [str(finding) for finding in findings] == [
        "f:2:9: default.live: version 2 does not exist; add default/v2.yaml or change it",
        "f:3:15: default.shadow.1: version 3 does not exist; add default/v3.yaml or change it",
        "f:4:21: default.canary.version: version 4 does not exist; add default/v4.yaml or change it",
    ]


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("{live: 1, shadow: [1]}", "remove it from shadow"),
        ("{live: 1, shadow: [2, 2]}", "keep one"),
        ("{live: 1, canary: {version: 1, percent: 5}}", "name another version"),
    ],
)
def test_a_version_cannot_take_part_twice(entry: str, says: str) -> None:
    rollout, findings = lint_rollout(f"default: {entry}\n", "rollout.yaml")

    assert rollout is None
    assert [finding.key for finding in findings] == ["default"]
    assert says in findings[0].message


def test_a_canary_share_is_not_rounded_up() -> None:
    rollout = Rollout(live=1, canary=Canary(version=2, percent=0.07))
    decided = [rollout.deciding_version("default", f"upload-{number}") for number in range(200_000)]

    assert abs(decided.count(2) - 140) < 4 * math.sqrt(140)
