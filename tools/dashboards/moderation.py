"""Moderation, for the policy author: what a policy does to uploads, and what another version would do.

In: metrics of verdicts, categories, scores and policies. Out: the dashboard's JSON.
"""

from __future__ import annotations

from typing import Any

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import dashboard as models

from tools.dashboards import parts
from tools.dashboards.board import board, labelled, policies

#: What decided: a shadow watches only.
_DECIDED = 'sluice_verdicts_total{policy=~"$policy", role!="shadow"}[$__rate_interval]'
_ACTED = 'sluice_category_actions_total{policy=~"$policy", role!="shadow", action!="allow"}[$__rate_interval]'
_BY_ROLE = 'sluice_category_actions_total{policy=~"$policy"}[$__rate_interval]'
_DISAGREED = 'sluice_policy_disagreements_total{policy=~"$policy"}[$__rate_interval]'
_UNCALIBRATED = 'sluice_uncalibrated_verdicts_total{policy=~"$policy"}[$__rate_interval]'
_SUM = 'sum by (category) (rate(sluice_score_sum{policy=~"$policy"}[$__rate_interval]'
_COUNT = 'sum by (category) (rate(sluice_score_count{policy=~"$policy"}[$__rate_interval]'
#: `sluice deliver` exports the gauge too, but judges nothing.
_RELOADED = "sluice_policy_last_reload_successful and on (job, instance) sluice_policy_info"


def moderation() -> str:
    """Make the dashboard."""
    rows = {
        "Now": [*_actions_now(), *_policies_now()],
        "Verdicts": [*_actions(), *_by_category()],
        "Live, canary and shadow": _roles(),
        "Scores": _scores(),
        "Policies": _policies(),
        "Score distributions": _distributions(),
    }
    about = "For the policy author: what do policies do to uploads, what would the next version do, do scores drift?"
    variables = [policies(), _categories(), _before()]
    return board("sluice-moderation", about, variables, rows, activations=True)


def _categories() -> dashboard.QueryVariable:
    return labelled(
        "category", "category", 'sluice_score_bucket{policy=~"$policy"}', "Categories whose distributions are drawn."
    )


def _before() -> dashboard.CustomVariable:
    chosen = models.VariableOption(selected=True, text="1d", value="1d")
    variable = dashboard.CustomVariable("before").label("Compared with").values("1h,6h,1d,7d").current(chosen)
    return variable.description("How long ago the scores lie that those of now are compared with.")


def _actions_now() -> list[Any]:
    return [
        parts.number(
            "Verdicts per second",
            "Verdicts of the versions that decide.",
            "suffix: /s",
            (f"sum(rate({_DECIDED}))", "verdicts"),
        ),
        parts.number(
            "Under review",
            "Share of the verdicts that ask a person to look.",
            "percentunit",
            (f"sum(rate({_decided('review')})) / sum(rate({_DECIDED}))", "review"),
            steps=[(None, parts.GOOD), (0.1, parts.LOOK), (0.3, parts.BAD)],
        ),
        parts.number(
            "Blocked",
            "Share of the verdicts that block an upload.",
            "percentunit",
            (f"sum(rate({_decided('block')})) / sum(rate({_DECIDED}))", "block"),
        ),
    ]


def _policies_now() -> list[Any]:
    return [
        parts.number(
            "Shadow disagrees",
            "Share of a watching version's categories that differ in action from the version that decided.",
            "percentunit",
            (f"sum(rate({_DISAGREED})) / sum(rate({_by_role('shadow')}))", "disagreements"),
            steps=[(None, parts.GOOD), (0.05, parts.LOOK), (0.2, parts.BAD)],
        ),
        parts.number(
            "Uncalibrated",
            "Share of the verdicts whose policy has no calibration for the model in use: their scores mean little.",
            "percentunit",
            (
                f"(sum(rate({_UNCALIBRATED})) or vector(0)) / sum(rate({_DECIDED}))",
                "uncalibrated",
            ),
            steps=[(None, parts.GOOD), (0.001, parts.LOOK)],
        ),
        parts.states(
            parts.number(
                "Policies as written",
                "Whether every worker has at work what is written. Refused: what was written is broken, see the log.",
                "short",
                (f"min({_RELOADED})", "policies"),
                steps=[(None, parts.BAD), (1, parts.GOOD)],
            ),
            {0: ("refused", parts.BAD), 1: ("at work", parts.GOOD)},
        ),
    ]


def _decided(action: str) -> str:
    return f'sluice_verdicts_total{{policy=~"$policy", role!="shadow", action="{action}"}}[$__rate_interval]'


def _by_role(role: str) -> str:
    return f'sluice_category_actions_total{{policy=~"$policy", role="{role}"}}[$__rate_interval]'


def _actions() -> list[Any]:
    return [
        parts.lines(
            "Verdicts by action",
            "What became of uploads: the strongest action of a verdict's categories.",
            "suffix: /s",
            (f"sum by (action) (rate({_DECIDED}))", "{{action}}"),
            stacked=True,
        ),
        parts.lines(
            "Share of each action",
            "What part of the verdicts each action is. A step here without a step in traffic is a change of policy.",
            "percentunit",
            (f"sum by (action) (rate({_DECIDED})) / ignoring (action) group_left sum(rate({_DECIDED}))", "{{action}}"),
            stacked=True,
        ).max(1),
        parts.lines(
            "Categories that act",
            "How often each category asked for review or block.",
            "suffix: /s",
            (f"sum by (category) (rate({_ACTED}))", "{{category}}"),
            stacked=True,
        ),
    ]


def _by_category() -> list[Any]:
    return [
        parts.matrix(
            "Blocked, by category and role",
            "Share of the images in which a category blocks, for the version at work and those that watch or try.",
            "percentunit",
            f"sum by (category, role) (rate({_acts('block')})) / sum by (category, role) (rate({_BY_ROLE}))",
            down="category",
            across="role",
        ).span(12),
        parts.matrix(
            "Reviewed, by category and role",
            "Share of the images in which a category asks for review, for the version at work and the others.",
            "percentunit",
            f"sum by (category, role) (rate({_acts('review')})) / sum by (category, role) (rate({_BY_ROLE}))",
            down="category",
            across="role",
        ).span(12),
    ]


def _acts(action: str) -> str:
    return f'sluice_category_actions_total{{policy=~"$policy", action="{action}"}}[$__rate_interval]'


def _roles() -> list[Any]:
    shares = 'sluice_verdicts_total{policy=~"$policy"%s}[$__rate_interval]'
    return [
        parts.lines(
            "Not allowed, by role",
            "Share of the verdicts that review or block, for each role. Far apart: look before you promote.",
            "percentunit",
            (
                f"sum by (role) (rate({shares % ', action!=%sallow%s' % (chr(34), chr(34))}))"
                f" / sum by (role) (rate({shares % ''}))",
                "{{role}}",
            ),
        ),
        parts.lines(
            "Disagreements by direction",
            "How often a watching version was stricter or milder in a category than the one that decided.",
            "suffix: /s",
            (f"sum by (direction) (rate({_DISAGREED}))", "{{direction}}"),
            stacked=True,
        ),
        parts.matrix(
            "Disagreements by category",
            "How often versions differ in each category now; `sluice policy disagreements` lists the images.",
            "suffix: /s",
            f"sum by (category, direction) (rate({_DISAGREED}))",
            down="category",
            across="direction",
        ).height(8),
    ]


def _scores() -> list[Any]:
    now, before = f"{_SUM})) / {_COUNT}))", f"{_SUM} offset $before)) / {_COUNT} offset $before))"
    return [
        parts.lines(
            "Mean score",
            "Mean of each category's scores, over all images.",
            "short",
            (now, "{{category}}"),
        ),
        parts.lines(
            "Score drift",
            "Mean score now less the mean of the time before (variable “Compared with”). Far from 0: other uploads, or "
            "another model.",
            "short",
            (f"({now}) - ({before})", "{{category}}"),
        ).min(None),
        parts.lines(
            "Uncalibrated verdicts",
            "Share of each policy's verdicts without calibration for the model. `sluice calibrate` mends it.",
            "percentunit",
            (
                f"(sum by (policy) (rate({_UNCALIBRATED})) or 0 * sum by (policy) (rate({_DECIDED})))"
                f" / sum by (policy) (rate({_DECIDED}))",
                "{{policy}}",
            ),
        ).max(1),
    ]


def _policies() -> list[Any]:
    return [
        parts.rows(
            "Policies at work",
            "Which versions decide, watch or try, and on how many workers. Fewer than all: some are still reloading.",
            'count by (policy, version, role, digest) (sluice_policy_info{policy=~"$policy"})',
            {"policy": "Policy", "version": "Version", "role": "Role", "digest": "Digest", "Value": "Workers"},
        ).span(12),
        parts.bars(
            "Reloads",
            "Looks at policies that had changed, by what came of them. Invalid ones never replace what is at work.",
            ("sum by (result) (increase(sluice_policy_reloads_total[$__rate_interval]))", "{{result}}"),
        ).span(12),
    ]


def _distributions() -> list[Any]:
    panel = parts.heat(
        "Scores of $category",
        "How the category's scores lie, in the buckets of its histogram. Thresholds belong where few scores lie.",
        "short",
        'sum by (le) (increase(sluice_score_bucket{policy=~"$policy", category=~"$category"}[$__rate_interval]))',
    )
    return [panel.repeat("category").repeat_direction("h").max_per_row(3)]
