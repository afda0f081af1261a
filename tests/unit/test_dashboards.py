"""The shipped dashboards are what the code says, ask for what workers export, and mean what they show."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path
from typing import Any

import promql
import promql_parser
import pytest
import yaml

from tools.dashboards import read
from tools.dashboards.__main__ import MADE_BY
from tools.dashboards.board import BOARDS
from tools.dashboards.parts import COLOURS, NAMED

ROOT = Path(__file__).parents[2]
#: Stands for $__rate_interval, and is written nowhere else.
MARK = promql_parser.parse_duration("12347s")
EXPORTED = promql.exported()

DASHBOARDS = [read.load(path) for path in read.paths()]
PANELS = [(dashboard, panel) for dashboard in DASHBOARDS for panel in read.drawn(dashboard)]
TARGETS = [(panel, target) for _, panel in PANELS for target in panel["targets"]]

each_dashboard = pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda found: found["uid"])
each_panel = pytest.mark.parametrize(
    ("dashboard", "panel"), PANELS, ids=[f"{dashboard['uid']}-{panel['title']}" for dashboard, panel in PANELS]
)
each_query = pytest.mark.parametrize(
    ("panel", "target"), TARGETS, ids=[f"{panel['title']}-{target['refId']}" for panel, target in TARGETS]
)


def parsed(text: str, **values: str) -> Any:
    return promql_parser.parse(read.substitute(text, **values))


def queries_of_variables(dashboard: dict[str, Any]) -> list[str]:
    return [each["query"]["query"] for each in dashboard["templating"]["list"] if each["type"] == "query"]


def cells(place: dict[str, int]) -> set[tuple[int, int]]:
    columns = range(place["x"], place["x"] + place["w"])
    return {(x, y) for x in columns for y in range(place["y"], place["y"] + place["h"])}


# Code and JSON


@pytest.mark.parametrize("name", MADE_BY)
def test_a_dashboard_is_what_the_code_says(name: str) -> None:
    assert (read.DASHBOARDS / name).read_text() == MADE_BY[name](), "run `python -m tools.dashboards`"


def test_every_dashboard_that_is_shipped_is_made_by_code() -> None:
    assert {path.name for path in read.paths()} == set(MADE_BY)


# What Grafana needs


def test_dashboards_have_addresses_of_their_own_and_link_to_each_other_and_to_the_runbook() -> None:
    assert {found["uid"] for found in DASHBOARDS} == set(BOARDS)
    for found in DASHBOARDS:
        urls = [link["url"] for link in found["links"]]
        assert [url for url in urls if url.startswith("/d/")] == [f"/d/{uid}" for uid in BOARDS if uid != found["uid"]]
        assert sum("runbook" in url for url in urls) == 1


@each_dashboard
def test_ids_and_titles_are_unique(dashboard: dict[str, Any]) -> None:
    ids = [panel["id"] for panel in dashboard["panels"]]
    titles = [panel["title"] for panel in dashboard["panels"]]

    assert len(set(ids)) == len(ids)
    assert len(set(titles)) == len(titles)


@each_dashboard
def test_panels_fill_the_grid_without_overlap_or_hole(dashboard: dict[str, Any]) -> None:
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    taken = [cells(place) for place in places]

    assert all(p["x"] >= 0 and p["x"] + p["w"] <= 24 for p in places)
    assert not any(one & other for one, other in combinations(taken, 2))
    # A panel that is repeated fills its rows when Grafana draws it.
    repeated = {y for panel in dashboard["panels"] if panel.get("repeat") for _, y in cells(panel["gridPos"])}
    height = max(p["y"] + p["h"] for p in places)
    every = {(x, y) for x in range(24) for y in range(height) if y not in repeated}
    assert not every - set().union(*taken)


@each_dashboard
def test_a_dashboard_refreshes_and_is_of_a_schema_that_grafana_11_reads(dashboard: dict[str, Any]) -> None:
    assert dashboard["refresh"] == "10s"
    assert 39 <= dashboard["schemaVersion"] <= 41


@each_panel
def test_a_panel_says_what_it_shows(dashboard: dict[str, Any], panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert len(panel["description"].split()) > 4
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]


@each_panel
def test_a_panel_asks_the_data_source_that_the_reader_chose(dashboard: dict[str, Any], panel: dict[str, Any]) -> None:
    chosen = {"type": "prometheus", "uid": "${datasource}"}

    assert panel["datasource"] == chosen
    assert [target["datasource"] for target in panel["targets"]] == [chosen] * len(panel["targets"])


@each_panel
def test_series_of_one_panel_have_one_kind_of_value(dashboard: dict[str, Any], panel: dict[str, Any]) -> None:
    """A panel with two jobs has two metrics that are not parts of one."""
    read_by = [
        {re.sub("_(total|bucket|sum|count)$", "", each.name) for each in promql.selectors(parsed(target["expr"]))}
        for target in panel["targets"]
    ]
    families = {re.sub("_limit", "", name) for names in read_by for name in names}

    assert len(panel["targets"]) == 1 or len(families) == 1


@each_dashboard
def test_variables_are_used_and_all_means_what_is_to_come_too(dashboard: dict[str, Any]) -> None:
    variables = {each["name"]: each for each in dashboard["templating"]["list"]}
    asked = " ".join(target["expr"] for panel in read.drawn(dashboard) for target in panel["targets"])

    assert variables.pop("datasource")["query"] == "prometheus"
    assert set(re.findall(r"\$(\w+)", asked)) - {"__rate_interval"} == set(variables)
    for variable in variables.values():
        if variable["type"] == "query":
            assert (variable["multi"], variable["includeAll"], variable["allValue"]) == (True, True, ".+")


@each_dashboard
def test_variables_are_read_from_labels_that_exist(dashboard: dict[str, Any]) -> None:
    for query in queries_of_variables(dashboard):
        found = re.fullmatch(r"label_values\((.+), (\w+)\)", query)
        assert found is not None
        assert found[2] in promql.labels(parsed(found[1]), EXPORTED) - promql.TARGET


def test_moderation_marks_when_a_policy_went_live() -> None:
    [annotation] = read.annotations(read.DASHBOARDS / "moderation.json")
    tree = parsed(annotation.expression)

    assert {each.name for each in promql.selectors(tree)} == {"sluice_policy_info"}
    assert set(re.findall(r"{{(\w+)}}", annotation.legend)) <= promql.labels(tree, EXPORTED)


# What Prometheus understands


@each_query
def test_a_query_reads_what_a_worker_exports_by_labels_that_it_has(
    panel: dict[str, Any], target: dict[str, Any]
) -> None:
    tree = parsed(target["expr"])

    for selector in promql.selectors(tree):
        assert selector.name in EXPORTED
        assert {each.name for each in selector.matchers.matchers} <= EXPORTED[selector.name].labels
    for part, _ in promql.walk(tree):
        if isinstance(part, promql_parser.AggregateExpr) and part.modifier:
            assert set(part.modifier.labels) <= promql.labels(part.expr, EXPORTED)


@each_query
def test_what_only_grows_is_drawn_as_a_rate_and_nothing_else_is(panel: dict[str, Any], target: dict[str, Any]) -> None:
    tree = parsed(target["expr"])

    for part, above in promql.walk(tree):
        if isinstance(part, promql_parser.VectorSelector):
            calls = [each.func.name for each in above[:2] if isinstance(each, promql_parser.Call)]
            assert (calls[:1] in (["rate"], ["increase"])) == EXPORTED[part.name].grows


@each_query
def test_a_rate_is_taken_over_the_interval_that_grafana_chooses(panel: dict[str, Any], target: dict[str, Any]) -> None:
    tree = parsed(target["expr"], rate_interval="12347s")

    ranges = [part.range for part, _ in promql.walk(tree) if isinstance(part, promql_parser.MatrixSelector)]
    assert ranges == [MARK] * len(ranges)


@each_query
def test_a_rate_is_taken_before_series_are_added_up(panel: dict[str, Any], target: dict[str, Any]) -> None:
    """A restart is a reset of one series; in a sum of many it would be lost."""
    for part, above in promql.walk(parsed(target["expr"])):
        if isinstance(part, promql_parser.Call) and part.func.name in ("rate", "increase"):
            assert any(isinstance(each, promql_parser.AggregateExpr) for each in above)


@each_query
def test_what_every_worker_shows_alike_is_not_added_up(panel: dict[str, Any], target: dict[str, Any]) -> None:
    for part, above in promql.walk(parsed(target["expr"])):
        if isinstance(part, promql_parser.VectorSelector) and re.match("sluice_(queue|stream|redis)_", part.name):
            if part.name.startswith("sluice_queue_wait"):
                continue
            nearest = next(each for each in above if isinstance(each, promql_parser.AggregateExpr))
            assert str(nearest.op) == "max"


@each_query
def test_buckets_keep_their_bounds(panel: dict[str, Any], target: dict[str, Any]) -> None:
    for part, above in promql.walk(parsed(target["expr"])):
        if isinstance(part, promql_parser.VectorSelector) and part.name.endswith("_bucket"):
            nearest = next(each for each in above if isinstance(each, promql_parser.AggregateExpr))
            assert "le" in nearest.modifier.labels


@each_query
def test_a_legend_names_labels_that_the_query_leaves(panel: dict[str, Any], target: dict[str, Any]) -> None:
    left = promql.labels(parsed(target["expr"]), EXPORTED)
    named = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))

    if panel["type"] == "table":
        [arranged] = panel["transformations"]
        said = arranged["options"]
        shown = said.get("renameByName") or {said["rowField"], said["columnField"], said["valueField"]}
        assert set(shown) == left | {"Value"}
        assert target["format"] == "table"
    else:
        assert target["legendFormat"]
        assert named == left, "series that the legend does not tell apart, or a label that is not there"


@each_query
def test_a_heat_map_asks_for_buckets(panel: dict[str, Any], target: dict[str, Any]) -> None:
    drawn_as_heat = panel["type"] == "heatmap"

    assert (target.get("format") == "heatmap") == drawn_as_heat
    assert (target["legendFormat"] == "{{le}}") == drawn_as_heat


# What colours mean


@each_panel
def test_an_action_has_the_same_colour_everywhere(dashboard: dict[str, Any], panel: dict[str, Any]) -> None:
    known = {name: colour for values in COLOURS.values() for name, colour in values.items()} | NAMED
    for override in panel["fieldConfig"]["overrides"]:
        [colour] = [each["value"]["fixedColor"] for each in override["properties"] if each["id"] == "color"]
        assert known[override["matcher"]["options"].strip("/ $")] == colour
    legends = {target.get("legendFormat", "").strip("{}") for target in panel["targets"]}
    if panel["type"] == "timeseries" and legends & {*COLOURS, *NAMED}:
        assert panel["fieldConfig"]["overrides"]


def test_allowing_is_green_reviewing_is_orange_and_blocking_is_red() -> None:
    assert COLOURS["action"] == {"allow": "green", "review": "orange", "block": "red"}


@each_panel
def test_thresholds_say_good_look_and_bad_in_the_same_colours(dashboard: dict[str, Any], panel: dict[str, Any]) -> None:
    steps = panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", [])
    colours = [step["color"] for step in steps]

    assert colours in (
        [],
        ["blue"],
        ["green", "orange"],
        ["green", "orange", "red"],
        ["green", "red"],
        ["red", "green"],
    )
    assert [step["value"] for step in steps[1:]] == sorted(step["value"] for step in steps[1:])


# How Grafana is told


def test_grafana_asks_as_often_as_prometheus_scrapes() -> None:
    """Else $__rate_interval is too short for a rate, or blurs it."""
    sources = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/prometheus.yaml").read_text())
    scraped = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["global"]["scrape_interval"]
    [source] = sources["datasources"]

    assert source["uid"] == "sluice-prometheus"
    assert source["jsonData"]["timeInterval"] == scraped


def test_grafana_takes_dashboards_from_files_only() -> None:
    [provider] = yaml.safe_load((ROOT / "deploy/grafana/provisioning/dashboards/sluice.yaml").read_text())["providers"]

    assert provider["type"] == "file"
    assert provider["disableDeletion"] is True
    assert provider["allowUiUpdates"] is False


# Reading back


def test_a_variable_without_a_value_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\$planet"):
        read.substitute('sluice_up{planet="$planet"}')


def test_variables_are_replaced_as_grafana_does() -> None:
    query = 'rate(sluice_jobs_total{queue=~"$queue"}[$__rate_interval])'

    assert read.substitute(query, rate_interval="20s", queue="a|b") == 'rate(sluice_jobs_total{queue=~"a|b"}[20s])'
