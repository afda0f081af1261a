"""The shipped rules: promtool accepts them, each is tried both ways, and they speak of what workers export."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from promql_parser import AggregateExpr, BinaryExpr, Call, MatrixSelector, ParenExpr, VectorSelector

from worker.metrics import SCRAPED, Metrics

pytestmark = pytest.mark.thorough

PROMETHEUS = Path(__file__).parents[2] / "deploy" / "prometheus"
RUNBOOK = Path(__file__).parents[2] / "docs" / "runbook.md"
TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))
#: What Prometheus itself adds to each target, and to each series.
OF_PROMETHEUS = {"up": {"job", "instance"}}
OF_TARGETS = {"job", "instance"}
#: Alerts that may get somebody out of bed.
FEW_PAGES = 8


def load(file: Path) -> Any:
    return yaml.safe_load(file.read_text())


def rules() -> list[dict[str, Any]]:
    files = sorted((PROMETHEUS / "rules").glob("*.yml"))
    return [rule for file in files for group in load(file)["groups"] for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}
RECORDED = {rule["record"]: rule for rule in rules() if "record" in rule}
GROUPS = [group for file in TESTS for group in load(file)["tests"]]


def promtool(*arguments: object) -> subprocess.CompletedProcess[str]:
    binary = shutil.which("promtool")
    if binary is None:
        pytest.skip("needs promtool on PATH")
    return subprocess.run([binary, *map(str, arguments)], capture_output=True, text=True, timeout=100, check=False)


# -- promtool ----------------------------------------------------------------------------------------------------------


def test_promtool_accepts_the_shipped_configuration_and_every_rule_file_of_it() -> None:
    done = promtool("check", "config", PROMETHEUS / "prometheus.yml")
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 rule files found" in done.stdout
    assert f"{len(ALERTS)} rules found" in done.stdout
    done = promtool("check", "rules", *sorted((PROMETHEUS / "rules").glob("*.yml")))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.stem)
def test_every_rule_does_what_its_test_says(file: Path) -> None:
    done = promtool("test", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_fleet_that_rests_on_purpose_wakes_nobody(tmp_path: Path) -> None:
    """One line says that there may be no workers; then their end is no alert, whatever they said last."""
    for file in (PROMETHEUS / "rules").glob("*.yml"):
        (tmp_path / file.name).write_text(file.read_text().replace("expr: vector(1)", "expr: vector(0)"))
    target = 'job="sluice",instance="a:9108"'
    last = {
        f"up{{{target}}}": "1x10 stale", f"sluice_up{{{target}}}": "1x10 stale",
        f'sluice_model_info{{{target},model="m"}}': "1x10 stale",
        f'sluice_queue_jobs{{{target},queue="moderation"}}': "5x10 stale",
        f'sluice_queue_oldest_seconds{{{target},queue="moderation"}}': "9999x3 0x7 stale",
        f'sluice_jobs_total{{{target},queue="moderation",outcome="done"}}': "0+9x10 stale",
        'up{job="prometheus",instance="localhost:9090"}': "1x60",
    }  # fmt: skip
    quiet = [
        {"alertname": alert, "eval_time": moment, "exp_alerts": []} for alert in ALERTS for moment in ("12m", "60m")
    ]
    test = {
        "rule_files": [file.name for file in tmp_path.glob("*.yml")],
        "evaluation_interval": "1m",
        "group_eval_order": load(PROMETHEUS / "tests" / "verdicts.yml")["group_eval_order"],
        "tests": [
            {"interval": "1m", "alert_rule_test": quiet,
             "input_series": [{"series": name, "values": values} for name, values in last.items()]}
        ],
    }  # fmt: skip
    (tmp_path / "rest.yml").write_text(yaml.safe_dump(test))
    done = promtool("test", "rules", tmp_path / "rest.yml")
    assert done.returncode == 0, done.stdout + done.stderr


# -- tests of the rules ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_has_a_case_that_fires_it_and_another_that_nearly_does(alert: str) -> None:
    fires, silent = set(), set()
    for place, group in enumerate(GROUPS):
        expected = [each["exp_alerts"] for each in group.get("alert_rule_test", []) if each["alertname"] == alert]
        if any(expected):
            fires.add(place)
        elif expected:
            silent.add(place)
    assert fires
    assert silent


@pytest.mark.parametrize("record", RECORDED)
def test_each_recording_rule_has_a_case_with_a_value(record: str) -> None:
    checks = [check for group in GROUPS for check in group.get("promql_expr_test", [])]
    assert any(check["expr"].split("{")[0] == record and check["exp_samples"] for check in checks)


def test_tests_evaluate_groups_in_the_order_in_which_they_build_on_each_other() -> None:
    order = [
        group["name"] for name in ("recording", "alerts") for group in load(PROMETHEUS / f"rules/{name}.yml")["groups"]
    ]
    for file in TESTS:
        known = order if file.stem != "recording" else [name for name in order if "alerts" not in name]
        assert load(file)["group_eval_order"] == known, file.name


# -- what alerts say ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_says_what_to_do_and_how_urgent_it_is(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"] == {"severity": rule["labels"]["severity"]}
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{alert.lower()}"
    assert alert.lower() in anchors(), "the runbook has no such section"


def test_nights_are_calm() -> None:
    pages = [name for name, rule in ALERTS.items() if rule["labels"]["severity"] == "page"]
    assert len(pages) <= FEW_PAGES, pages
    assert all("for" in ALERTS[name] for name in pages), "nobody gets up for a moment"


def test_the_runbook_has_no_section_of_an_alert_that_does_not_exist() -> None:
    headings = re.findall(r"^### (Sluice\w+)$", RUNBOOK.read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(ALERTS)


def anchors() -> set[str]:
    """Return the anchors of the runbook's headings, as forges make them."""
    headings = re.findall(r"^#+ (.+)$", RUNBOOK.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


# -- what rules speak of -----------------------------------------------------------------------------------------------


def exported() -> dict[str, set[str]]:
    """Return the series that workers export, with the labels that a scrape leaves on them."""
    found = dict(OF_PROMETHEUS) | {name: set(labels) | OF_TARGETS for name, (_, labels) in SCRAPED.items()}
    metrics = Metrics()
    for collector in metrics.registry._collector_to_names:
        for family in collector.describe():
            labels = set(collector._labelnames) | OF_TARGETS  # type: ignore[attr-defined]
            if family.type == "histogram":
                found |= {f"{family.name}_{end}": labels for end in ("sum", "count")}
                found[f"{family.name}_bucket"] = labels | {"le"}
            else:
                found[family.name + ("_total" if family.type == "counter" else "")] = labels
    return found


EXPORTED = exported()


def labels_of(node: Any) -> set[str]:
    """Return the labels that an expression's series may have; fail where it asks for one that is not there."""
    found: set[str] = set()
    match node:
        case ParenExpr():
            found = labels_of(node.expr)
        case MatrixSelector():
            found = labels_of(node.vector_selector)
        case VectorSelector():
            found = _selected(node)
        case AggregateExpr():
            found = _aggregated(node)
        case BinaryExpr():
            found = _combined(node)
        case Call():
            inside = set().union(*map(labels_of, node.args))
            found = inside if node.func.name not in {"scalar", "vector"} else set()
    return found


def _selected(node: VectorSelector) -> set[str]:
    name = node.name
    assert name in EXPORTED or name in RECORDED, f"nobody exports {name}"
    known = EXPORTED[name] if name in EXPORTED else labels_of(promql_parser.parse(RECORDED[name]["expr"]))
    for matcher in node.matchers.matchers:
        assert matcher.name in known, f"{name} has no label {matcher.name}"
    return known


def _aggregated(node: AggregateExpr) -> set[str]:
    inside = labels_of(node.expr)
    kept = set(node.modifier.labels) if node.modifier else set()
    assert kept <= inside, f"{node.prettify()}: no label {kept - inside}"
    return kept


def _combined(node: BinaryExpr) -> set[str]:
    left, right = labels_of(node.lhs), labels_of(node.rhs)
    matching = node.modifier.matching if node.modifier else None
    if matching is not None:
        wanted = set(matching.labels)
        assert wanted <= left & right, f"{node.prettify()}: no label {wanted - (left & right)} on both sides"
    return left | right if str(node.op) == "or" else left or right


@pytest.mark.parametrize("name", [*ALERTS, *RECORDED])
def test_each_rule_speaks_of_metrics_and_labels_that_there_are(name: str) -> None:
    rule = ALERTS.get(name) or RECORDED[name]
    labels = labels_of(promql_parser.parse(rule["expr"]))
    said = " ".join(rule.get("annotations", {}).values())
    for label in re.findall(r"\$labels\.(\w+)", said):
        assert label in labels, f"{name} has no label {label}"


@pytest.mark.parametrize(
    ("expression", "wrong"),
    [
        ("rate(sluice_job_total[5m])", "nobody exports sluice_job_total"),
        ('sum(sluice_jobs_total{result="dead"})', "no label result"),
        ("max by (stream) (sluice_queue_jobs)", "no label {'stream'}"),
        ("sluice_up == 1 and on (queue) sluice_queue_jobs", "no label {'queue'} on both sides"),
    ],
)
def test_an_expression_that_speaks_of_nothing_is_found(expression: str, wrong: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(wrong)):
        labels_of(promql_parser.parse(expression))


def test_names_of_recorded_series_follow_the_convention_of_prometheus() -> None:
    for name, rule in RECORDED.items():
        level, metric, operations = name.split(":")
        kept = labels_of(promql_parser.parse(rule["expr"]))
        # A level of instances keeps the job, as it does everywhere.
        assert kept - {"job"} == ({*level.split("_")} if level != "sluice" else set()), name
        assert metric.startswith("sluice_"), name
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*(\d+[mhd])?", operations), name


def _gauges() -> Iterator[str]:
    yield from (name for name in SCRAPED if name.startswith(("sluice_queue_", "sluice_stream_", "sluice_redis_")))


def test_what_every_worker_reads_from_redis_is_never_summed_before_it_is_one_number() -> None:
    expressions = [promql_parser.parse(rule["expr"]) for rule in rules()]
    for gauge in _gauges():
        for expression in expressions:
            for around in re.findall(rf"(\w+)(?: by \([^)]*\))? ?\(\s*{gauge}\b", expression.prettify()):
                assert around == "max", f"{around}({gauge}) counts each worker"
