"""The parts that dashboards are made of: panels by what they show, and colours that mean the same everywhere.

In: a title, a description, a unit, queries. Out: the Grafana Foundation SDK's builders. Looks are decided only here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from grafana_foundation_sdk.builders import bargauge, common, dashboard, heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

GOOD, LOOK, BAD, PLAIN = "green", "orange", "red", "blue"
#: What an action, an outcome or a role looks like, wherever it is drawn: label → value → Grafana's colour.
COLOURS: Mapping[str, Mapping[str, str]] = {
    "action": {"allow": GOOD, "review": LOOK, "block": BAD},
    "outcome": {
        "done": GOOD,
        "delivered": GOOD,
        "retried": "yellow",
        "rejected": LOOK,
        "dead": BAD,
        "endpoint_off": "purple",
        "lost": "dark-red",
    },
    "role": {"live": PLAIN, "canary": "yellow", "shadow": "purple"},
    "direction": {"stricter": LOOK, "milder": PLAIN},
    "result": {"ok": GOOD, "invalid": LOOK, "missing": "yellow", "failed": BAD},
}
#: Series that are named by hand.
NAMED = {"p50": PLAIN, "p95": LOOK, "p99": BAD, "limit": BAD, "used": PLAIN}

#: Expression and legend of a query.
Asked = tuple[str, str]
Panel = TypeVar("Panel", timeseries.Panel, stat.Panel, heatmap.Panel, table.Panel, bargauge.Panel)

_DATASOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")


def lines(title: str, description: str, unit: str, *asked: Asked, stacked: bool = False) -> timeseries.Panel:
    """Draw values over time; stacked where they are parts of a whole."""
    panel = _panel(timeseries.Panel(), title, description, unit, asked)
    panel = panel.min(0).line_width(1).fill_opacity(60 if stacked else 8).show_points(options.VisibilityMode.NEVER)
    panel = panel.tooltip(common.VizTooltipOptions().mode(options.TooltipDisplayMode.MULTI))
    panel = panel.legend(_legend()).color_scheme(_colour(models.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(options.StackingMode.NORMAL).group("A"))
    return _coloured(panel, asked).height(8).span(8)


def bars(title: str, description: str, *asked: Asked) -> timeseries.Panel:
    """Draw how often something rare happened, as bars: a line through rare events shows what never was."""
    panel = lines(title, description, "short", *asked, stacked=True)
    return panel.draw_style(options.GraphDrawStyle.BARS).decimals(0)


def limited(panel: timeseries.Panel, look_at: float, bad_at: float) -> timeseries.Panel:
    """Draw the values from which an operator looks and acts as lines across a panel."""
    style = common.GraphThresholdsStyleConfig().mode(options.GraphThresholdsStyleMode.DASHED)
    return panel.thresholds(_steps([(None, GOOD), (look_at, LOOK), (bad_at, BAD)])).thresholds_style(style)


def number(
    title: str, description: str, unit: str, *asked: Asked, steps: Sequence[tuple[float | None, str]] = ((None, PLAIN),)
) -> stat.Panel:
    """Show the value of now, large, coloured by what it means, with its course behind it."""
    panel = _panel(stat.Panel(), title, description, unit, asked)
    panel = panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    panel = panel.graph_mode(options.BigValueGraphMode.AREA).color_mode(options.BigValueColorMode.VALUE)
    panel = panel.thresholds(_steps(steps)).color_scheme(_colour(models.FieldColorModeId.THRESHOLDS))
    return panel.height(4).span(4)


def states(panel: stat.Panel, names: Mapping[int, tuple[str, str]]) -> stat.Panel:
    """Show names and colours in the place of numbers."""
    shown = {
        str(value): models.ValueMappingResult(text=text, color=colour, index=index)
        for index, (value, (text, colour)) in enumerate(names.items())
    }
    return panel.mappings([models.ValueMap(options=shown)]).graph_mode(options.BigValueGraphMode.NONE)


def heat(title: str, description: str, unit: str, expression: str) -> heatmap.Panel:
    """Draw how a histogram's observations lie over time; `unit` is that of what was observed."""
    query = _query(expression, "{{le}}").format(PromQueryFormat.HEATMAP)
    panel = _panel(heatmap.Panel(), title, description, "short", ()).with_target(query.ref_id("A"))
    panel = panel.calculate(calculate=False).y_axis(heatmap.YAxisConfig().unit(unit)).cell_gap(1)
    colours = heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Blues").reverse(reverse=False)
    return panel.color(colours.steps(32)).show_legend().height(8).span(8)


def rows(title: str, description: str, expression: str, columns: Mapping[str, str], unit: str = "short") -> table.Panel:
    """Show labels as a table.

    Args:
        title: As drawn.
        description: As shown where one asks.
        expression: What gives the rows, at this moment.
        columns: Label → heading, in order; `Value` is the number beside them.
        unit: Of that number.
    """
    query = _query(expression, "").format(PromQueryFormat.TABLE).instant()
    panel = _panel(table.Panel(), title, description, unit, ()).with_target(query.ref_id("A"))
    wanted = {
        "excludeByName": {"Time": True},
        "indexByName": {name: index for index, name in enumerate(columns)},
        "renameByName": dict(columns),
    }
    panel = panel.show_header(show_header=True)
    return panel.with_transformation(models.DataTransformerConfig(id_val="organize", options=wanted)).height(8).span(8)


def compared(title: str, description: str, unit: str, expression: str, legend: str) -> bargauge.Panel:
    """Lay values of now beside each other as bars."""
    panel = _panel(bargauge.Panel(), title, description, unit, ())
    panel = panel.with_target(_query(expression, legend).instant().ref_id("A")).min(0)
    panel = panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    panel = panel.orientation(options.VizOrientation.HORIZONTAL).display_mode(options.BarGaugeDisplayMode.BASIC)
    panel = panel.color_scheme(_colour(models.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
    return panel.height(8).span(8)


def _panel(panel: Panel, title: str, description: str, unit: str, asked: Sequence[Asked]) -> Panel:
    panel = panel.title(title).description(description).unit(unit).datasource(_DATASOURCE)
    for letter, (expression, legend) in zip("ABCDEFGH", asked, strict=False):
        panel = panel.with_target(_query(expression, legend).ref_id(letter))
    return panel


def _query(expression: str, legend: str) -> prometheus.Dataquery:
    query = prometheus.Dataquery().expr(" ".join(expression.split())).legend_format(legend)
    return query.datasource(_DATASOURCE).range()


def _legend() -> common.VizLegendOptions:
    shown = common.VizLegendOptions().show_legend(show_legend=True).placement(options.LegendPlacement.BOTTOM)
    return shown.display_mode(options.LegendDisplayMode.LIST).calcs([])


def _colour(mode: models.FieldColorModeId) -> dashboard.FieldColor:
    return dashboard.FieldColor().mode(mode)


def _steps(steps: Sequence[tuple[float | None, str]]) -> dashboard.ThresholdsConfig:
    found = [models.Threshold(value=value, color=colour) for value, colour in steps]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(found)


def _coloured(panel: timeseries.Panel, asked: Sequence[Asked]) -> timeseries.Panel:
    for _, legend in asked:
        found = COLOURS.get(legend.strip("{}"), {legend: NAMED[legend]} if legend in NAMED else {})
        for name, colour in found.items():
            fixed: Any = {"mode": "fixed", "fixedColor": colour}
            panel = panel.override_by_name(name, [models.DynamicConfigValue(id_val="color", value=fixed)])
    return panel
