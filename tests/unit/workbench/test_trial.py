"""Expectations are held against embeddings, and what cannot be judged holds none."""

from __future__ import annotations

import numpy as np

from worker.errors import ImageTooLarge
from worker.policy.cases import lint_cases
from worker.policy.compiled import CompiledPolicy, compile_policy
from worker.policy.lint import lint_policy
from worker.workbench.trial import check_cases, greatest_scores

POLICY = """\
policy: house
version: 3
contrast: [food]
categories:
  weapons: {prompts: [gun], thresholds: {review: 0.5, block: 0.9}}
  drugs: {prompts: [pills], thresholds: {review: 0.5}}
"""
AXES = np.eye(3, dtype=np.float32)
GUN, PILLS = AXES[1:2], AXES[2:3]


def compiled() -> CompiledPolicy:
    policy, _ = lint_policy(POLICY, "v")
    assert policy is not None
    order = {"food": 0, "gun": 1, "pills": 2}
    return compile_policy(policy, lambda texts: AXES[[order[text] for text in texts]], 20.0, "m@r")


CASES = """\
cases:
  - {name: gun, image: g, action: block, expect: {weapons: block, drugs: {score: [0.4, 0.6]}}}
  - {name: pills, image: p, action: allow, expect: {drugs: not review}}
  - {name: both, image: b, expect: {weapons: block, drugs: review}}
  - {name: huge, image: h, action: review, expect: {weapons: allow}}
"""


def test_each_expectation_becomes_one_check_in_order() -> None:
    cases, findings = lint_cases(CASES, "t")
    assert cases is not None, findings
    embeddings = {"gun": GUN, "pills": PILLS, "both": np.concatenate([GUN, PILLS]), "huge": ImageTooLarge("1 GB")}

    checks = list(check_cases(compiled(), cases.cases, embeddings))

    said = [(check.case, check.category, check.action, check.passed) for check in checks]
    assert said == [
        ("gun", None, "block", True), ("gun", "weapons", "block", True), ("gun", "drugs", "review", True),
        ("pills", None, "review", False), ("pills", "drugs", "review", False),
        # A category's score is the greatest of the views'.
        ("both", "weapons", "block", True), ("both", "drugs", "review", True),
        ("huge", None, None, False), ("huge", "weapons", None, False),
    ]  # fmt: skip
    assert checks[-1].reason == "image_too_large"
    assert {check.policy for check in checks} == {"house@3"}
    assert checks[2].score == 0.5
    assert checks[2].expected == "score 0.4 to 0.6"
    assert checks[0].as_dict()["score"] is None


def test_the_greatest_score_of_images_is_by_category_over_all_views() -> None:
    seen = greatest_scores(compiled(), {"a": GUN, "b": np.concatenate([AXES[:1], PILLS])}, "2 images")

    assert seen.where == "2 images"
    assert seen.greatest["weapons"] > 0.99
    assert seen.greatest["drugs"] > 0.99
