"""The parts that dashboards are made of: panels by what they show, and colours that mean the same everywhere.

In: a title, a description, a unit, queries. Out: the Grafana Foundation SDK's builders. Looks are decided only here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

GOOD, LOOK, BAD, PLAIN = "green", "orange", "red", "blue"
#: What the values of closed sets look like, wherever they are drawn: label → value → Grafana's colour. What operators
#: and policy authors name (queues, categories) takes the next colour of the palette.
COLOURS: Mapping[str, Mapping[str, str]] = {
    "action": {"allow": GOOD, "review": LOOK, "block": BAD},
    "outcome": {
        "done": GOOD,
        "taken": GOOD,
        "repeated": PLAIN,
        "refused": BAD,
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
    "cause": {
        "killed": BAD,
        "crashed": LOOK,
        "memory": "dark-red",
        "timeout": "purple",
        "late": "purple",
        "stopped": "yellow",
        "recycled": PLAIN,
    },
    "stage": {
        "fetch": "light-blue",
        "decode": "purple",
        "embed": "dark-blue",
        "score": "yellow",
        "push": "super-light-purple",
    },
    "process": {"worker": "light-blue", "horse": "dark-blue", "decoders": "purple"},
    "queue": {"moderation-high": "purple", "moderation": PLAIN, "moderation-bulk": "light-blue"},
    "reason": {
        "address_refused": "dark-red",
        "path_refused": "purple",
        "source_refused": "yellow",
        "source_unavailable": "light-blue",
        "blob_mismatch": "dark-blue",
        "image_too_large": "yellow",
        "image_undecodable": "light-blue",
        "image_truncated": "purple",
        "image_format_refused": "dark-blue",
        "decode_timeout": "purple",
        "decode_memory": "dark-red",
        "decode_crashed": LOOK,
        "job_timeout": "yellow",
        "worker_killed": BAD,
        "unknown_policy": "light-blue",
        "uncalibrated": "purple",
        "invalid_job": "yellow",
        "job_stopped": "dark-blue",
        "internal_error": BAD,
    },
    "kind": {"image": PLAIN, "text": "purple"},
    "stream": {"verdicts": PLAIN, "ledger": "purple"},
}
#: Series that are named by hand.
NAMED = {"p50": PLAIN, "p95": LOOK, "p99": BAD, "limit": BAD, "used": PLAIN}

#: Expression and legend of a query.
Asked = tuple[str, str]
Panel = TypeVar("Panel", timeseries.Panel, stat.Panel, statetimeline.Panel, heatmap.Panel, table.Panel, bargauge.Panel)
Coloured = TypeVar("Coloured", timeseries.Panel, bargauge.Panel)

_DATASOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")


def lines(title: str, description: str, unit: str, *asked: Asked, stacked: bool = False) -> timeseries.Panel:
    """Draw values over time; stacked where they are parts of a whole."""
    panel = _panel(timeseries.Panel(), title, description, unit, asked)
    panel = (
        panel.min(0)
        .line_width(0 if stacked else 1)
        .fill_opacity(70 if stacked else 8)
        .show_points(options.VisibilityMode.NEVER)
    )
    panel = panel.tooltip(common.VizTooltipOptions().mode(options.TooltipDisplayMode.MULTI))
    panel = panel.legend(_legend()).color_scheme(_colour(models.FieldColorModeId.PALETTE_CLASSIC))
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(options.StackingMode.NORMAL).group("A"))
    return _coloured(panel, asked).height(8).span(8)


def logarithmic(panel: timeseries.Panel) -> timeseries.Panel:
    """Draw values a thousand times apart in one panel."""
    scale = common.ScaleDistributionConfig().type(options.ScaleDistribution.LOG).log(10)
    return panel.min(None).scale_distribution(scale).fill_opacity(0)


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


def states(panel: stat.Panel, names: Mapping[int, Asked]) -> stat.Panel:
    """Show names and colours in the place of numbers; `names`: value → name, colour."""
    return panel.mappings(_mapped(names)).graph_mode(options.BigValueGraphMode.NONE)


def timeline(title: str, description: str, asked: Asked, names: Mapping[int, Asked]) -> statetimeline.Panel:
    """Draw a bar for each series whose colour says which state it was in; `names`: value → name, colour."""
    panel = _panel(statetimeline.Panel(), title, description, "short", [asked]).mappings(_mapped(names))
    panel = panel.merge_values(merge_values=True).show_value(options.VisibilityMode.NEVER).row_height(0.8)
    panel = panel.fill_opacity(80).line_width(0).legend(_legend()).thresholds(_steps([(None, BAD), (1, GOOD)]))
    return panel.color_scheme(_colour(models.FieldColorModeId.THRESHOLDS)).height(8).span(8)


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
    panel = panel.color_scheme(_colour(models.FieldColorModeId.PALETTE_CLASSIC))
    return _coloured(panel, [(expression, legend)]).height(8).span(8)


def matrix(title: str, description: str, unit: str, expression: str, down: str, across: str) -> table.Panel:
    """Lay values of now out as a table whose rows are one label's values and whose columns another's."""
    query = _query(expression, "").format(PromQueryFormat.TABLE).instant()
    panel = _panel(table.Panel(), title, description, unit, ()).with_target(query.ref_id("A"))
    wanted = {"columnField": across, "rowField": down, "valueField": "Value", "emptyValue": "null"}
    panel = panel.show_header(show_header=True).decimals(2)
    return (
        panel.with_transformation(models.DataTransformerConfig(id_val="groupingToMatrix", options=wanted))
        .height(10)
        .span(8)
    )


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


def _mapped(names: Mapping[int, Asked]) -> list[Any]:
    shown = {
        str(value): models.ValueMappingResult(text=text, color=colour, index=index)
        for index, (value, (text, colour)) in enumerate(names.items())
    }
    return [models.ValueMap(options=shown)]


def _colour(mode: models.FieldColorModeId) -> dashboard.FieldColor:
    return dashboard.FieldColor().mode(mode)


def _steps(steps: Sequence[tuple[float | None, str]]) -> dashboard.ThresholdsConfig:
    found = [models.Threshold(value=value, color=colour) for value, colour in steps]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(found)


def _coloured(panel: Coloured, asked: Sequence[Asked]) -> Coloured:
    for _, legend in asked:
        # Of `{{category}} {{direction}}`, the last says what it looks like.
        before, _, last = legend.rpartition(" ")
        found = COLOURS.get(last.strip("{}"), {last: NAMED[last]} if last in NAMED else {})
        for name, colour in found.items():
            fixed: Any = {"mode": "fixed", "fixedColor": colour}
            override = panel.override_by_regexp if before else panel.override_by_name
            panel = override(
                f"/ {name}$/" if before else name, [models.DynamicConfigValue(id_val="color", value=fixed)]
            )
    return panel
