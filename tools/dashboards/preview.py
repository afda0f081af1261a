"""Draws the shipped dashboards without Grafana: `python -m tools.dashboards.preview --prometheus URL`.

In: a running Prometheus that has scraped workers. Out: one page that holds all it needs. Each panel asks what its JSON
says and lies where its JSON says; what Grafana adds by itself (menus, zooming, other themes) is not there.
"""

from __future__ import annotations

import argparse
import copy
import html
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from tools.dashboards import figures, read
from tools.dashboards.asking import Asking

_PAGE = Path(__file__).with_name("preview.html")
#: Points of a line.
_POINTS = 150
#: How many panels a repeated one becomes; a page need not be longer to show what they look like.
_REPEATED = 6


def page(dashboards: list[dict[str, Any]], asking: Asking) -> str:
    """Draw dashboards below each other.

    Args:
        dashboards: As Grafana loads them.
        asking: Where and about when their panels ask.

    Returns:
        HTML without references to anything outside.
    """
    body = "".join(_dashboard(each, asking) for each in dashboards)
    return _PAGE.read_text().replace("PLOTLY", get_plotlyjs(), 1).replace("BODY", body, 1)


def _dashboard(dashboard: dict[str, Any], asking: Asking) -> str:
    moments = [each for query in dashboard["annotations"]["list"] for each in asking.moments(query)]
    panels = list(repeated(dashboard, asking))
    drawn = "".join(
        _placed(panel, _heading(panel) or _panel(panel, asking.about(**more), moments)) for panel, more in panels
    )
    variables = "".join(
        f"<span>{html.escape(each.get('label') or each['name'])}: {html.escape(_chosen(each, asking))}</span>"
        for each in dashboard["templating"]["list"]
    ) + "".join(f"<em>{html.escape(each['name'])}</em>" for each in dashboard["annotations"]["list"])
    return (
        f'<section id="{dashboard["uid"]}"><h1>{html.escape(dashboard["title"])}</h1>'
        f"<p>{html.escape(dashboard['description'])}</p>"
        f'<div class="variables">{variables}</div><div class="grid">{drawn}</div></section>'
    )


def _chosen(variable: dict[str, Any], asking: Asking) -> str:
    value = asking.variables.get(variable["name"], "Prometheus")
    return "All" if value == ".+" else value


def repeated(dashboard: dict[str, Any], asking: Asking) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """Yield panels with the values of variables that are theirs alone; a repeated panel comes once for each value."""
    variables = {each["name"]: each for each in dashboard["templating"]["list"]}
    for panel in dashboard["panels"]:
        if not panel.get("repeat"):
            yield panel, {}
            continue
        name, across = panel["repeat"], panel["maxPerRow"]
        for index, value in enumerate(asking.values_of(variables[name]["query"]["query"])[:_REPEATED]):
            one = copy.deepcopy(panel)
            width, height = 24 // across, panel["gridPos"]["h"]
            one["gridPos"] |= {
                "x": index % across * width,
                "w": width,
                "y": panel["gridPos"]["y"] + index // across * height,
            }
            one["title"] = panel["title"].replace(f"${name}", value)
            yield one, {name: value}


def _heading(panel: dict[str, Any]) -> str:
    return f'<div class="row">{html.escape(panel["title"])}</div>' if panel["type"] == "row" else ""


def _panel(panel: dict[str, Any], asking: Asking, moments: list[tuple[float, str]]) -> str:
    found = [each for target in panel["targets"] for each in asking.series(target)]
    if panel["type"] == "timeseries":
        inner = figures.timeseries(panel, found, moments)
    else:
        inner = {
            "heatmap": figures.heatmap,
            "state-timeline": figures.timeline,
            "stat": figures.stat,
            "table": figures.table,
            "bargauge": figures.bargauge,
        }[panel["type"]](panel, found)
    about = html.escape(panel["description"], quote=True)
    return f'<h2 title="{about}">{html.escape(panel["title"])}<i>i</i></h2>{inner}'


def _placed(panel: dict[str, Any], inner: str) -> str:
    place = panel["gridPos"]
    style = f"grid-area: {place['y'] + 1} / {place['x'] + 1} / span {place['h']} / span {place['w']}"
    kind = "heading" if panel["type"] == "row" else "panel"
    return f'<div class="{kind}" style="{style}">{inner}</div>'


def arguments() -> argparse.ArgumentParser:
    """Say what is asked for on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prometheus", required=True, metavar="URL")
    parser.add_argument("--output", type=Path, default=Path("build/dashboards.html"))
    parser.add_argument("--minutes", type=float, default=15, help="how far back to look")
    parser.add_argument("--end", type=float, default=None, metavar="UNIX", help="when to stop looking; now")
    parser.add_argument("--scrape-seconds", type=float, default=5, help="how often that Prometheus scrapes")
    parser.add_argument("--before", default="1d", help="what scores are compared with")
    return parser


def asking_of(chosen: argparse.Namespace) -> Asking:
    """Say where and about when to ask."""
    end = chosen.end or time.time()
    step = max(chosen.scrape_seconds, chosen.minutes * 60 / _POINTS)
    # Grafana's own rule: at least four scrapes, and no gap between points.
    rate = f"{max(4 * chosen.scrape_seconds, step + chosen.scrape_seconds):.0f}s"
    variables = {"rate_interval": rate, "policy": ".+", "queue": ".+", "category": ".+", "before": chosen.before}
    return Asking(chosen.prometheus.rstrip("/"), end - chosen.minutes * 60, end, step, variables)


def main() -> None:
    """Write the page."""
    chosen = arguments().parse_args()
    dashboards = [read.load(path) for path in read.paths()]
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    chosen.output.write_text(page(dashboards, asking_of(chosen)))


if __name__ == "__main__":
    main()
