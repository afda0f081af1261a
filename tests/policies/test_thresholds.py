"""Tables of score and thresholds to action: the only judgement that Sluice passes, written out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worker.policy.compiled import CompiledPolicy, Scores, compile_policy
from worker.policy.lint import lint_policy
from worker.records import Action, ModelStamp, Verdict
from worker.verdict import Decision, action_of, decide, replay, stamp, strongest

#: (thresholds as an author writes them, [(score, action)…]).
TABLES: list[tuple[str, list[tuple[float, Action]]]] = [
    (
        "{review: 0.5, block: 0.85}",
        [
            (0.0, "allow"),
            (math.nextafter(0.5, 0), "allow"),
            (0.5, "review"),
            (math.nextafter(0.5, 1), "review"),
            (math.nextafter(0.85, 0), "review"),
            (0.85, "block"),
            (math.nextafter(0.85, 1), "block"),
            (1.0, "block"),
        ],
    ),
    (
        "{review: 0.4}",
        [
            (0.0, "allow"),
            (math.nextafter(0.4, 0), "allow"),
            (0.4, "review"),
            (math.nextafter(0.4, 1), "review"),
            (1.0, "review"),
        ],
    ),
    (
        "{block: 0.7}",
        [
            (0.0, "allow"),
            (math.nextafter(0.7, 0), "allow"),
            (0.7, "block"),
            (math.nextafter(0.7, 1), "block"),
            (1.0, "block"),
        ],
    ),
    (
        "{review: 0.6, block: 0.6}",
        [(math.nextafter(0.6, 0), "allow"), (0.6, "block"), (math.nextafter(0.6, 1), "block")],
    ),
    ("{review: 0, block: 1}", [(0.0, "review"), (math.nextafter(1, 0), "review"), (1.0, "block")]),
    ("{block: 0}", [(0.0, "block"), (0.5, "block"), (1.0, "block")]),
    ("{review: 0}", [(0.0, "review"), (1.0, "review")]),
    ("{block: 1}", [(0.0, "allow"), (math.nextafter(1, 0), "allow"), (1.0, "block")]),
    ("{review: 1}", [(0.0, "allow"), (math.nextafter(1, 0), "allow"), (1.0, "review")]),
]
ROWS = [(thresholds, score, action) for thresholds, rows in TABLES for score, action in rows]

MODEL = ModelStamp(id="m", revision="r", precision="fp32")


def embed_texts(texts: Sequence[str]) -> np.ndarray:
    """Give every sentence the same direction: here scores are given, not computed."""
    return np.ones((len(texts), 1), np.float32)


def compiled(*thresholds: str) -> CompiledPolicy:
    """Compile a policy with one category for each of `thresholds`: `c0`, `c1`, …."""
    text = "policy: house\nversion: 1\ncontrast: [food, people at work]\ncategories:\n"
    for number, written in enumerate(thresholds):
        text += f"  c{number}: {{prompts: [bad {number}, worse {number}], thresholds: {written}}}\n"
    policy, findings = lint_policy(text, "house/v1.yaml")
    assert policy is not None, findings
    return compile_policy(policy, embed_texts, 100.0, "m@r")


def scores(*views: Sequence[float]) -> Scores:
    """Give the scores of each view; in view v, the v-th prompt and contrast sentence won."""
    score = np.array(views, dtype=np.float64)
    number, categories = score.shape
    view = np.arange(number)[:, None]
    prompt = 2 + 2 * np.arange(categories)[None, :] + view
    return Scores(score, np.log1p(score) - view, prompt, np.broadcast_to(view, score.shape))


def verdict(policy: CompiledPolicy, decision: Decision, reason: str | None = None) -> Verdict:
    return Verdict(
        verdict_id="v", job_id="j", content_id="upload-1", action=decision.action, reason=reason, policy=stamp(policy),
        model=MODEL, calibrated=False, categories=decision.categories, image=None, worker="w", created_at="now",
    )  # fmt: skip


@pytest.mark.parametrize(("thresholds", "score", "action"), ROWS)
def test_a_threshold_binds_at_equality_and_above_and_never_below(thresholds: str, score: float, action: Action) -> None:
    policy = compiled(thresholds)

    decision = decide(policy, scores([score]))

    assert decision.action == action
    assert decision.categories["c0"].action == action
    assert decision.categories["c0"].score == score


@pytest.mark.parametrize(("thresholds", "score", "action"), ROWS)
def test_a_stored_verdict_replays_to_the_same_action(thresholds: str, score: float, action: Action) -> None:
    policy = compiled(thresholds)
    stored = verdict(policy, decide(policy, scores([score])))

    assert replay(stored) == action
    assert replay(Verdict.model_validate_json(stored.to_json())) == action


@pytest.mark.parametrize(
    ("actions", "expected"),
    [
        (["allow", "allow", "allow"], "allow"),
        (["allow", "review", "allow"], "review"),
        (["review", "block", "allow"], "block"),
        (["block", "allow", "review"], "block"),
        (["block", "block", "block"], "block"),
        (["allow"], "allow"),
        ([], "allow"),
    ],
)
def test_the_strongest_action_wins(actions: list[Action], expected: Action) -> None:
    assert strongest(actions) == expected
    if actions:
        score_of = {"allow": 0.1, "review": 0.6, "block": 0.95}
        policy = compiled(*["{review: 0.5, block: 0.9}"] * len(actions))
        decision = decide(policy, scores([score_of[action] for action in actions]))
        assert [found.action for found in decision.categories.values()] == actions
        assert decision.action == expected


def test_each_category_is_held_to_its_own_thresholds() -> None:
    policy = compiled("{review: 0.5, block: 0.9}", "{review: 0.2}", "{block: 0.6}", "{review: 0.8}")

    decision = decide(policy, scores([0.55, 0.55, 0.55, 0.55]))

    assert [found.action for found in decision.categories.values()] == ["review", "review", "allow", "allow"]
    assert decision.action == "review"
    assert decision.categories["c0"].thresholds == {"review": 0.5, "block": 0.9}
    assert decision.categories["c2"].thresholds == {"block": 0.6}


def test_a_high_score_in_a_category_that_only_reviews_never_blocks() -> None:
    assert decide(compiled("{review: 0.2}", "{block: 0.99}"), scores([1.0, 0.98])).action == "review"


def test_the_worst_view_of_an_image_decides_each_category() -> None:
    policy = compiled("{review: 0.5, block: 0.9}", "{review: 0.5, block: 0.9}")

    decision = decide(policy, scores([0.1, 0.7], [0.95, 0.2]))

    first, second = decision.categories["c0"], decision.categories["c1"]
    assert decision.action == "block"
    assert (first.score, first.view, first.prompt, first.contrast) == (0.95, 1, "worse 0", "people at work")
    assert (second.score, second.view, second.prompt, second.contrast) == (0.7, 0, "bad 1", "food")
    assert first.margin == pytest.approx(math.log1p(0.95) - 1)
    assert second.margin == pytest.approx(math.log1p(0.7))


def test_of_equal_views_the_first_is_named() -> None:
    assert decide(compiled("{review: 0.5}"), scores([0.6], [0.6])).categories["c0"].view == 0


def test_a_score_that_is_no_number_is_an_error_and_never_allow() -> None:
    with pytest.raises(ValueError, match="score"):
        decide(compiled("{review: 0.5}"), scores([math.nan]))


def test_a_verdict_with_a_reason_replays_to_review() -> None:
    policy = compiled("{review: 0.5}")
    unjudged = verdict(policy, Decision("review", {}), reason="image_truncated")

    assert replay(unjudged) == "review"
    assert replay(Verdict.model_validate_json(unjudged.to_json())) == "review"


def test_a_replay_goes_by_the_stored_numbers_and_not_by_the_stored_action() -> None:
    policy = compiled("{review: 0.5, block: 0.9}")
    stored = verdict(policy, decide(policy, scores([0.95])))
    found = stored.categories["c0"].model_copy(update={"action": "allow"})
    tampered = stored.model_copy(update={"action": "allow", "categories": {"c0": found}})

    assert replay(tampered) == "block"


unit = st.floats(0, 1)
#: A busy machine is no failure.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@unhurried
@given(
    st.lists(st.tuples(unit, st.none() | unit, st.none() | unit), min_size=1, max_size=5).filter(
        lambda rows: all(review is not None or block is not None for _, review, block in rows)
    )
)
def test_any_scores_and_thresholds_replay_after_a_json_round_trip(
    rows: list[tuple[float, float | None, float | None]],
) -> None:
    ordered = [
        (score, *sorted(pair)) if None not in (pair := (review, block)) else (score, review, block)
        for score, review, block in rows
    ]
    written = [
        "{"
        + ", ".join(f"{key}: {value:.17e}" for key, value in (("review", r), ("block", b)) if value is not None)
        + "}"
        for _, r, b in ordered
    ]
    policy = compiled(*written)
    expected: list[Action] = [
        "block" if b is not None and b <= score else "review" if r is not None and r <= score else "allow"
        for score, r, b in ordered
    ]

    decision = decide(policy, scores([score for score, _, _ in ordered]))
    stored = verdict(policy, decision)
    again = Verdict.model_validate_json(stored.to_json())

    assert [found.action for found in decision.categories.values()] == expected
    assert decision.action == ("block" if "block" in expected else "review" if "review" in expected else "allow")
    assert again == stored
    assert replay(again) == replay(stored) == stored.action


@unhurried
@given(unit, unit, st.sampled_from([{"review": 0.3}, {"block": 0.3}, {"review": 0.3, "block": 0.7}]))
def test_a_higher_score_is_never_a_weaker_action(one: float, other: float, thresholds: dict[str, float]) -> None:
    order = ["allow", "review", "block"]
    low, high = sorted((one, other))

    assert order.index(action_of(low, thresholds)) <= order.index(action_of(high, thresholds))
