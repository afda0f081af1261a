"""The frame of a dashboard: variables, annotations, links, refresh, rows.

In: rows of panels. Out: the JSON that Grafana loads. No dashboard names a data source or sets an id itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models

#: Dashboard uid → title; the order of the links.
BOARDS = {"sluice-overview": "Overview", "sluice-moderation": "Moderation", "sluice-intake": "Intake"}
#: Where a reader finds what to do: Grafana serves files below its `public` directory, where docs/ is mounted.
RUNBOOK = "/public/sluice/runbook.md"

_LIVE = 'sluice_policy_info{role="live", policy=~"$policy"}'


def labelled(name: str, label: str, of: str, description: str) -> dashboard.QueryVariable:
    """Make a variable of the values of a label; "All" is every value, those to come too."""
    variable = dashboard.QueryVariable(name).label(name.capitalize()).description(description)
    variable = variable.query({"query": f"label_values({of}, {label})", "refId": name}).multi(multi=True)
    variable = variable.datasource(models.DataSourceRef(type_val="prometheus", uid="${datasource}"))
    variable = variable.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(models.VariableSort.ALPHABETICAL_ASC)
    variable = variable.include_all(include_all=True).all_value(".+")
    return variable.current(models.VariableOption(selected=True, text=["All"], value=["$__all"]))


def queues() -> dashboard.QueryVariable:
    """Make the variable `queue`."""
    return labelled("queue", "queue", "sluice_jobs_total", "Queues that workers listen to.")


def policies() -> dashboard.QueryVariable:
    """Make the variable `policy`."""
    return labelled("policy", "policy", "sluice_policy_info", "Policies at work.")


def board(
    uid: str,
    description: str,
    variables: Sequence[dashboard.QueryVariable | dashboard.CustomVariable],
    rows: Mapping[str, Sequence[Any]],
    activations: bool = False,
) -> str:
    """Make a dashboard.

    Args:
        uid: A key of `BOARDS`.
        description: Whom it is for, and what it answers.
        variables: Beside `datasource`.
        rows: Heading → builders of panels, left to right; they fill 24 columns and then go on below.
        activations: Mark the moments when a policy version went live.

    Returns:
        JSON.
    """
    made = dashboard.Dashboard(f"Sluice / {BOARDS[uid]}").uid(uid).description(description).tags(["sluice"])
    made = made.time("now-1h", "now").refresh("10s").timezone("browser").readonly()
    made = made.tooltip(models.DashboardCursorSync.CROSSHAIR)
    made = made.with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    for variable in variables:
        made = made.with_variable(variable)
    for link in _links(uid):
        made = made.link(link)
    identity = count(1)
    for heading, panels in rows.items():
        made = made.with_row(dashboard.Row(heading).id(next(identity)))
        for panel in panels:
            made = made.with_panel(panel.id(next(identity)))
    found = json.loads(json.dumps(made.build(), cls=JSONEncoder))
    found["annotations"] = {"list": [_activations()] if activations else []}
    return json.dumps(found, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _links(uid: str) -> list[dashboard.DashboardLink]:
    others = [
        dashboard.DashboardLink(title).type(models.DashboardLinkType.LINK).url(f"/d/{other}").icon("dashboard")
        for other, title in BOARDS.items()
        if other != uid
    ]
    kept = [link.keep_time(keep_time=True).include_vars(include_vars=True) for link in others]
    runbook = dashboard.DashboardLink("Runbook").type(models.DashboardLinkType.LINK).url(RUNBOOK).icon("doc")
    return [*kept, runbook.target_blank(target_blank=True).tooltip("What to do for each alert: docs/runbook.md.")]


def _activations() -> dict[str, Any]:
    """Mark when a version went live: at work now, not one step ago, and another was; else every start were one."""
    before = f"{_LIVE} offset $__interval"
    now = f"max by (policy, version) ({_LIVE}) unless max by (policy, version) ({before})"
    return {
        "name": "Policy activations",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "enable": True,
        "hide": False,
        "iconColor": "purple",
        "expr": f"({now}) and on (policy) max by (policy) ({before})",
        "step": "10s",
        "titleFormat": "{{policy}} version {{version}} went live",
        "tagKeys": "policy,version",
    }
