"""Draws panels the way Grafana does, closely enough to judge titles, units, legends and colours.

In: a panel's JSON and its series. Out: HTML. What a panel's JSON does not say is not drawn.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from tools.dashboards.asking import Series
from tools.dashboards.units import shown, ticks

#: Grafana's names of colours, in its dark theme.
NAMED = {
    "green": "#73bf69",
    "orange": "#ff9830",
    "red": "#f2495c",
    "dark-red": "#c4162a",
    "blue": "#5794f2",
    "yellow": "#fade2a",
    "purple": "#b877d9",
    "super-light-blue": "#c0d8ff",
}
#: Grafana's classic palette.
PALETTE = (
    "#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#705da0", "#37872d", "#fade2a",
    "#447ebc", "#c15c17", "#890f02", "#0a437c", "#6d1f62", "#584477", "#b7dbab", "#f4d598", "#70dbed", "#f9ba8f",
    "#f29191", "#82b5d8", "#e5a8e2", "#aea2e0", "#629e51", "#e5ac0e", "#64b0c8", "#e0752d", "#bf1b00", "#0a50a1",
    "#962d82", "#614d93", "#9ac48a", "#f2c96d", "#65c5db", "#f9934e", "#ea6460", "#5195ce", "#d683ce", "#806eb7",
    "#3f6833", "#967302", "#2f575e", "#99440a", "#58140c", "#052b51", "#511749", "#3f2b5b", "#e0f9d7", "#fceaca",
    "#cffaff", "#f9e2d2", "#fce2de", "#badff4", "#f9d9f9", "#dedaf7",
)  # fmt: skip
TEXT, GRID = "#ccccdc", "rgba(204,204,220,0.12)"


def by_name(name: str) -> str:
    """Choose a colour by a series' name, as Grafana's "classic palette (by series name)" does."""
    found = 0
    for sign in name:
        found = ((found << 5) - found + ord(sign)) & 0xFFFFFFFF
    signed = found - (1 << 32) if found >= 1 << 31 else found
    return PALETTE[abs(signed) % len(PALETTE)]


def colour(panel: dict[str, Any], name: str) -> str:
    """Say what colour a series has in a panel."""
    for override in panel["fieldConfig"].get("overrides", []):
        if override["matcher"]["options"] == name:
            for each in override["properties"]:
                if each["id"] == "color":
                    return NAMED[each["value"]["fixedColor"]]
    return by_name(name)


def timeseries(panel: dict[str, Any], found: Sequence[Series], moments: Sequence[tuple[float, str]]) -> str:
    """Draw lines, areas or bars over time, with a legend below and dashed lines where an operator looks or acts."""
    defaults = panel["fieldConfig"]["defaults"]
    custom = defaults.get("custom", {})
    stacked = custom.get("stacking", {}).get("mode") == "normal"
    figure = go.Figure()
    for each in sorted(found, key=lambda one: one.name):
        figure.add_trace(_trace(each, colour(panel, each.name), custom, stacked))
    low, high = _range(defaults, found, stacked)
    if custom.get("thresholdsStyle", {}).get("mode") == "dashed":
        for step in defaults["thresholds"]["steps"][1:]:
            if step["value"] <= high * 1.6:
                high = max(high, step["value"] * 1.05)
                figure.add_hline(step["value"], line={"color": NAMED[step["color"]], "dash": "dash", "width": 1})
    for moment, _ in moments:
        figure.add_vline(_clock(np.array([moment]))[0], line={"color": NAMED["purple"], "dash": "dot", "width": 1})
    values = ticks(low, high, defaults["unit"])
    figure.update_yaxes(range=[low, high], tickvals=values, ticktext=[shown(one, defaults["unit"]) for one in values])
    figure.update_layout(showlegend=False, barmode="stack", bargap=0)
    return _drawn(figure) + _legend([(each.name, colour(panel, each.name)) for each in found])


def _trace(each: Series, line: str, custom: dict[str, Any], stacked: bool) -> Any:
    times = _clock(each.times)
    if custom.get("drawStyle") == "bars":
        return go.Bar(x=times, y=each.values, name=each.name, marker={"color": line, "line": {"width": 0}})
    opacity = custom.get("fillOpacity", 0) / 100
    fill = "rgba({}, {}, {}, {})".format(*(int(line[at : at + 2], 16) for at in (1, 3, 5)), opacity)
    look: dict[str, Any] = {"stackgroup": "A"} if stacked else {"fill": "tozeroy" if opacity else None}
    width = {"color": line, "width": custom.get("lineWidth", 1)}
    return go.Scatter(x=times, y=each.values, name=each.name, mode="lines", line=width, fillcolor=fill, **look)


def _range(defaults: dict[str, Any], found: Sequence[Series], stacked: bool) -> tuple[float, float]:
    every = np.array([each.values for each in found]) if found else np.zeros((1, 1))
    with np.errstate(all="ignore"):
        highest = np.nanmax(np.nansum(every, axis=0) if stacked else np.nan_to_num(every), initial=0)
        lowest = np.nanmin(np.nan_to_num(every), initial=0)
    low = defaults.get("min", lowest * 1.1)
    high = defaults.get("max", highest * 1.1)
    return float(low), float(high) if high > low else float(low) + 1


def heatmap(panel: dict[str, Any], found: Sequence[Series]) -> str:
    """Draw a histogram's buckets over time; each cell is what fell between two bounds, as Grafana shows it."""
    unit = panel["options"]["yAxis"]["unit"]
    ordered = sorted(found, key=lambda each: float(each.labels["le"]))
    if not ordered:
        return _nothing()
    bounds = [float(each.labels["le"]) for each in ordered]
    cells = np.diff(np.nan_to_num(np.array([each.values for each in ordered])), axis=0, prepend=0).clip(min=0)
    names = [shown(bound, unit) if math.isfinite(bound) else "more" for bound in bounds]
    used = np.flatnonzero(cells.sum(axis=1))
    keep = slice(0, min(len(names), (int(used[-1]) if used.size else 0) + 2))
    cells[cells <= panel["options"]["filterValues"]["le"]] = np.nan
    figure = go.Figure(
        go.Heatmap(
            x=_clock(ordered[0].times),
            y=names[keep],
            z=cells[keep],
            colorscale="Blues_r",
            ygap=panel["options"]["cellGap"],
            colorbar={"thickness": 8, "tickfont": {"size": 10}, "nticks": 4},
            hoverongaps=False,
        )
    )
    figure.update_yaxes(type="category", nticks=9)
    return _drawn(figure)


def stat(panel: dict[str, Any], found: Sequence[Series]) -> str:
    """Write the last value, in the colour of its threshold, over its course."""
    defaults = panel["fieldConfig"]["defaults"]
    value = found[0].last if found else float("nan")
    look = "grey"
    for step in defaults["thresholds"]["steps"]:
        if not math.isnan(value) and (step["value"] is None or value >= step["value"]):
            look = NAMED[step["color"]]
    text = shown(value, defaults["unit"])
    for mapping in defaults.get("mappings", []):
        text = mapping["options"].get(f"{value:g}", {}).get("text", text)
    course = _course(found[0].values, look) if found and panel["options"]["graphMode"] == "area" else ""
    return f'<div class="stat" style="color:{look}">{html.escape(text)}</div>{course}'


def _course(values: Any, look: str) -> str:
    known = np.nan_to_num(values)
    top = float(known.max()) or 1.0
    points = " ".join(f"{100 * at / max(1, known.size - 1):.1f},{30 - 28 * v / top:.1f}" for at, v in enumerate(known))
    return (
        '<svg class="course" viewBox="0 0 100 30" preserveAspectRatio="none">'
        f'<polygon points="0,30 {points} 100,30" fill="{look}" opacity="0.2"/>'
        f'<polyline points="{points}" fill="none" stroke="{look}" vector-effect="non-scaling-stroke"/></svg>'
    )


def table(panel: dict[str, Any], found: Sequence[Series]) -> str:
    """Write rows of labels under their headings."""
    [organized] = panel["transformations"]
    columns = organized["options"]["renameByName"]
    order = sorted(columns, key=lambda name: organized["options"]["indexByName"][name])
    unit = panel["fieldConfig"]["defaults"]["unit"]
    head = "".join(f"<th>{html.escape(columns[name])}</th>" for name in order)
    body = "".join(
        f"<tr>{''.join(f'<td>{html.escape(_cell(each, name, unit))}</td>' for name in order)}</tr>" for each in found
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" if found else _nothing()


def _cell(each: Series, name: str, unit: str) -> str:
    return shown(each.last, unit) if name == "Value" else each.labels.get(name, "")


def bargauge(panel: dict[str, Any], found: Sequence[Series]) -> str:
    """Draw a horizontal bar for each series."""
    unit = panel["fieldConfig"]["defaults"]["unit"]
    top = max((each.last for each in found if not math.isnan(each.last)), default=0) or 1
    rows = [
        f'<div class="name">{html.escape(each.name)}</div><div class="track"><div style="width:'
        f'{100 * float(np.nan_to_num(each.last)) / top:.1f}%;background:{colour(panel, each.name)}"></div></div>'
        f"<div>{shown(each.last, unit)}</div>"
        for each in found
    ]
    return f'<div class="bars">{"".join(rows)}</div>' if rows else _nothing()


def _legend(names: Sequence[tuple[str, str]]) -> str:
    shown_names = sorted(set(names))
    each = "".join(f'<span><i style="background:{look}"></i>{html.escape(name)}</span>' for name, look in shown_names)
    return f'<div class="legend">{each}</div>' if names else _nothing()


def _nothing() -> str:
    return '<div class="nothing">No data</div>'


def _clock(times: Any) -> Any:
    return [np.datetime64(int(each * 1000), "ms") for each in times]


def _drawn(figure: Any) -> str:
    figure.update_layout(
        template="plotly_dark",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 8, "r": 8, "t": 4, "b": 4},
        font={"size": 11, "color": TEXT, "family": "Inter, Helvetica, Arial, sans-serif"},
    )
    figure.update_xaxes(gridcolor=GRID, tickformat="%H:%M:%S", nticks=5, automargin=True, tickangle=0)
    figure.update_yaxes(gridcolor=GRID, zeroline=False, automargin=True)
    data = json.dumps(json.loads(figure.to_json()))
    return f"<div class='plot' data-figure='{html.escape(data, quote=True)}'></div>"
