"""Reads the shipped dashboards back: panels, their queries, and a query as Prometheus understands it.

In: deploy/grafana/dashboards/*.json. Out: what tests and the preview ask a Prometheus. Never looks at the code that
wrote the JSON: what Grafana would load is what is read.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

#: Where the dashboards lie.
DASHBOARDS = Path(__file__).parents[2] / "deploy" / "grafana" / "dashboards"


class Query(NamedTuple):
    """One query of one panel."""

    dashboard: str
    title: str
    expression: str
    #: How a series is named, with `{{label}}`; empty in tables and heat maps.
    legend: str


def paths() -> list[Path]:
    """List the shipped dashboards."""
    return sorted(DASHBOARDS.glob("*.json"))


def load(path: Path) -> dict[str, Any]:
    """Read a dashboard."""
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def drawn(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    """List the panels that draw something: all but the rows' headings, those of folded rows too."""
    every = [inner for panel in dashboard["panels"] for inner in (panel, *panel.get("panels", []))]
    return [panel for panel in every if panel["type"] != "row"]


def panels(path: Path) -> list[Query]:
    """List every query of every panel of a dashboard; a panel with three queries is there three times."""
    dashboard = load(path)
    return [
        Query(dashboard["title"], panel["title"], target["expr"], target.get("legendFormat", ""))
        for panel in drawn(dashboard)
        for target in panel["targets"]
    ]


def annotations(path: Path) -> list[Query]:
    """List the queries of a dashboard's annotations."""
    dashboard = load(path)
    return [
        Query(dashboard["title"], each["name"], each["expr"], each.get("titleFormat", ""))
        for each in dashboard["annotations"]["list"]
    ]


def substitute(
    expression: str,
    rate_interval: str = "10s",
    policy: str = ".+",
    queue: str = ".+",
    category: str = ".+",
    before: str = "10s",
) -> str:
    """Put values in the place of a dashboard's variables, as Grafana does before it asks.

    Args:
        expression: A query as it stands in the JSON.
        rate_interval: PromQL duration, for `$__rate_interval` (four scrapes in Grafana) and `$__interval`.
        policy: Regular expression of policy ids.
        queue: Regular expression of queue names.
        category: Regular expression of category names.
        before: PromQL duration that the present is compared with.

    Returns:
        PromQL.

    Raises:
        ValueError: The expression names another variable.
    """
    values = {
        "__rate_interval": rate_interval,
        "__interval": rate_interval,
        "policy": policy,
        "queue": queue,
        "category": category,
        "before": before,
    }

    def value(found: re.Match[str]) -> str:
        if found[1] not in values:
            raise ValueError(f"no value for the variable ${found[1]} in: {expression}")
        return values[found[1]]

    return re.sub(r"\$(\w+)", value, expression)
