"""Draws panels the way Grafana does, closely enough to judge titles, units, legends and colours.

In: a panel's JSON and its series. Out: HTML. What a panel's JSON does not say is not drawn.
"""

from __future__ import annotations

import html
import json
import math
import re
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
    "light-blue": "#8ab8ff",
    "dark-blue": "#1f60c4",
    "yellow": "#fade2a",
    "purple": "#b877d9",
    "super-light-purple": "#deb6f2",
}
#: Grafana's classic palette.
PALETTE = (
    "#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#705da0", "#37872d", "#fade2a",
    "#447ebc", "#c15c17", "#890f02", "#0a437c", "#6d1f62", "#584477", "#b7dbab", "#f4d598", "#70dbed", "#f9ba8f",
    "#f29191", "#82b5d8", "#e5a8e2", "#aea2e0",
)  # fmt: skip
#: From so many seconds on, an axis of time names minutes.
_MINUTES_FROM_SECONDS = 180
TEXT, GRID = "#ccccdc", "rgba(204,204,220,0.12)"


def colours(panel: dict[str, Any], found: Sequence[Series]) -> list[str]:
    """Say what colour each series has in a panel: its own by name, or its turn's in the palette."""
    fixed = {
        override["matcher"]["options"]: NAMED[each["value"]["fixedColor"]]
        for override in panel["fieldConfig"].get("overrides", [])
        for each in override["properties"]
        if each["id"] == "color"
    }
    return [
        # A regular expression is written /like this/.
        next(
            (look for name, look in fixed.items() if each.name == name or _fits(name, each.name)),
            PALETTE[turn % len(PALETTE)],
        )
        for turn, each in enumerate(found)
    ]


def _fits(pattern: str, name: str) -> bool:
    return len(pattern) > 1 and pattern[0] == pattern[-1] == "/" and re.search(pattern[1:-1], name) is not None


def timeseries(panel: dict[str, Any], found: Sequence[Series], moments: Sequence[tuple[float, str]]) -> str:
    """Draw lines, areas or bars over time, with a legend below and dashed lines where an operator looks or acts."""
    if not found:
        return _nothing()
    defaults = panel["fieldConfig"]["defaults"]
    custom = defaults.get("custom", {})
    stacked = custom.get("stacking", {}).get("mode") == "normal"
    figure = go.Figure()
    looks = colours(panel, found)
    for each, look in zip(found, looks, strict=True):
        figure.add_traces([_trace(part, look, custom, stacked) for part in ([each] if stacked else _unbroken(each))])
    low, high = _range(defaults, found, stacked)
    if custom.get("thresholdsStyle", {}).get("mode") == "dashed":
        for step in defaults["thresholds"]["steps"][1:]:
            if step["value"] <= high * 1.6:
                high = max(high, step["value"] * 1.05)
                figure.add_hline(step["value"], line={"color": NAMED[step["color"]], "dash": "dash", "width": 1})
    for moment, _ in moments:
        figure.add_vline(_clock(np.array([moment]))[0], line={"color": NAMED["purple"], "dash": "dot", "width": 1})
    if custom.get("scaleDistribution", {}).get("type") == "log":
        _scale_by_powers(figure, found, defaults["unit"])
    else:
        values = ticks(low, high, defaults["unit"])
        names = [shown(one, defaults["unit"]) for one in values]
        figure.update_yaxes(range=[low, high], tickvals=values, ticktext=names)
    figure.update_layout(showlegend=False, barmode="stack", bargap=0)
    return _drawn(figure, found) + _legend([(each.name, look) for each, look in zip(found, looks, strict=True)])


def _scale_by_powers(figure: Any, found: Sequence[Series], unit: str) -> None:
    every = np.concatenate([each.values for each in found])
    known = every[np.nan_to_num(every) > 0]
    low, high = (math.floor(math.log10(known.min())), math.ceil(math.log10(known.max()))) if known.size else (0, 1)
    values = [10.0**power for power in range(low, high + 1)]
    names = [shown(one, unit) for one in values]
    figure.update_yaxes(type="log", range=[low, max(high, low + 1)], tickvals=values, ticktext=names)


def timeline(panel: dict[str, Any], found: Sequence[Series]) -> str:
    """Draw a bar for each series, coloured by the state that it was in."""
    states = panel["fieldConfig"]["defaults"]["mappings"][0]["options"]
    looks = [NAMED[states[value]["color"]] for value in ("0", "1")]
    figure = go.Figure(
        go.Heatmap(
            x=_clock(found[0].times) if found else [],
            y=[each.name for each in found],
            z=[each.values for each in found],
            colorscale=[[0, looks[0]], [0.5, looks[0]], [0.5, looks[1]], [1, looks[1]]],
            zmin=0,
            zmax=1,
            ygap=10,
            showscale=False,
        )
    )
    figure.update_yaxes(type="category")
    return _drawn(figure, found) + _legend(
        [(states[value]["text"], look) for value, look in zip("01", looks, strict=True)]
    )


def _unbroken(each: Series) -> list[Series]:
    """Cut a series at its gaps: an area would be drawn across them."""
    known = np.flatnonzero(~np.isnan(each.values))
    runs = np.split(known, np.flatnonzero(np.diff(known) > 1) + 1)
    return [Series(each.name, each.labels, each.times[run], each.values[run]) for run in runs if run.size]


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
    every = np.array([each.values for each in found])
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
    keep = slice(0, min(len(names), (int(used[-1]) if used.size else 0) + 1))
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
    return _drawn(figure, ordered)


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
    """Write rows of labels under their headings, or values under those of one label."""
    [organized] = panel["transformations"]
    if organized["id"] == "groupingToMatrix":
        return _matrix(panel, found, organized["options"]["rowField"], organized["options"]["columnField"])
    columns = organized["options"]["renameByName"]
    order = sorted(columns, key=lambda name: organized["options"]["indexByName"][name])
    unit = panel["fieldConfig"]["defaults"]["unit"]
    body = [[_cell(each, name, unit) for name in order] for each in found]
    return _table([columns[name] for name in order], body)


def _matrix(panel: dict[str, Any], found: Sequence[Series], down: str, across: str) -> str:
    unit = panel["fieldConfig"]["defaults"]["unit"]
    values = {(each.labels[down], each.labels[across]): shown(each.last, unit) for each in found}
    columns = sorted({column for _, column in values})
    body = [[row, *(values.get((row, column), "") for column in columns)] for row in sorted({row for row, _ in values})]
    return _table([f"{down}\\{across}", *columns], body)


def _table(headings: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    def cells(kind: str, texts: Sequence[str]) -> str:
        return f"<tr>{''.join(f'<{kind}>{html.escape(text)}</{kind}>' for text in texts)}</tr>"

    rows = "".join(cells("td", row) for row in body)
    return f"<table><thead>{cells('th', headings)}</thead><tbody>{rows}</tbody></table>" if body else _nothing()


def _cell(each: Series, name: str, unit: str) -> str:
    return shown(each.last, unit) if name == "Value" else each.labels.get(name, "")


def bargauge(panel: dict[str, Any], found: Sequence[Series]) -> str:
    """Draw a horizontal bar for each series."""
    unit = panel["fieldConfig"]["defaults"]["unit"]
    top = max((each.last for each in found if not math.isnan(each.last)), default=0) or 1
    rows = [
        f'<div class="name">{html.escape(each.name)}</div><div class="track"><div style="width:'
        f'{100 * float(np.nan_to_num(each.last)) / top:.1f}%;background:{look}"></div></div>'
        f"<div>{shown(each.last, unit)}</div>"
        for each, look in zip(found, colours(panel, found), strict=True)
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


def _drawn(figure: Any, found: Sequence[Series]) -> str:
    figure.update_layout(
        template="plotly_dark",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 8, "r": 8, "t": 4, "b": 4},
        font={"size": 11, "color": TEXT, "family": "Inter, Helvetica, Arial, sans-serif"},
    )
    figure.update_xaxes(gridcolor=GRID, nticks=6, automargin=True, tickangle=0, ticklabelstandoff=6)
    figure.update_yaxes(gridcolor=GRID, zeroline=False, automargin=True)
    if found:
        first, last = found[0].times[[0, -1]]
        tick = "%H:%M" if last - first > _MINUTES_FROM_SECONDS else "%H:%M:%S"
        figure.update_xaxes(range=_clock([first, last]), tickformat=tick)
    data = json.dumps(json.loads(figure.to_json()))
    return f"<div class='plot' data-figure='{html.escape(data, quote=True)}'></div>"
