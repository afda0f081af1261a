"""Dashboards and rules as they are shipped, over a fleet to which everything happens: what was done is shown."""

from __future__ import annotations

import contextlib
import functools
import re
import shutil
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql
import promql_parser
import pytest
import support
import yaml
from played import Played, playing
from played.cast import WEBHOOK_WAITS, series_of
from played.prometheus import SHIPPED

from tools.dashboards import read
from worker import errors
from worker.disagreements import disagreements
from worker.records import Verdict

pytestmark = [pytest.mark.timeout(240), pytest.mark.thorough]

ROOT = Path(__file__).parents[2]
#: Reasons of `REASONS` that nobody can bring about from outside, and why.
NOT_PLAYED = {"internal_error": "a defect of ours: none is known"}
#: Queries of panels that have no data here, and why.
EMPTY: dict[str, str] = {}
#: Recorded metrics that have no series here, and why.
ABSENT = {"policy_category:sluice_score:mean1d": "it looks at the day before the last hour"}
#: Metrics that no panel and no rule reads, and why.
UNUSED: dict[str, str] = {}
#: Alerts that the play must raise; what lasts for minutes before it fires is pending when the play ends.
RAISED = {
    "SluiceQuarantinedJobs": "firing",
    "SluiceWebhooksDead": "firing",
    "SluiceRedisUnreachable": "pending",
    "SluicePolicyReloadFailed": "pending",
    "SluiceUncalibratedVerdicts": "pending",
    "SluiceShadowDisagrees": "pending",
    "SluiceWorkerNotReady": "pending",
}
MAX_SERIES = 2_000

QUERIES = [query for path in read.paths() for query in read.panels(path)]
RULES = [
    (rule.get("record") or rule["alert"], rule["expr"])
    for path in sorted((SHIPPED / "rules").glob("*.yml"))
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
]
RECORDED = {name for name, _ in RULES if ":" in name}
EXPORTED = promql.exported()


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    with playing(tmp_path_factory.mktemp("played")) as played:
        yield played


@functools.cache
def parsed(expression: str) -> Any:
    return promql_parser.parse(expression)


def names_in(expression: str) -> set[str]:
    """List the metrics that an expression reads; dashboards' variables have a value here."""
    return {selector.name for selector in promql.selectors(parsed(read.substitute(expression)))}


def numbers(rows: list[dict[str, Any]]) -> list[float]:
    """List the samples of rows that are numbers."""
    samples = [sample for row in rows for sample in (row.get("values") or [row["value"]])]
    return [float(value) for _, value in samples if value not in ("NaN", "+Inf", "-Inf")]


# -- what is shipped ---------------------------------------------------------------------------------------------------


def test_every_query_of_every_panel_has_data_and_the_labels_that_its_legend_names(played: Played) -> None:
    empty, unlabelled = set(), set()
    for query in QUERIES:
        rows = _drawn(played, query.expression)
        if not numbers(rows):
            empty.add(f"{query.dashboard} / {query.title}: {query.legend}")
        for label in re.findall(r"{{(\w+)}}", query.legend):
            if any(label not in row["metric"] for row in rows):
                unlabelled.add((query.title, label))
    assert empty == set(EMPTY)
    assert unlabelled == set()


def _drawn(played: Played, expression: str) -> list[dict[str, Any]]:
    """Ask as Grafana asks for a graph of the play."""
    written = read.substitute(expression, rate_interval="5s")
    return played.cast.prometheus.range(written, played.began, played.ended, 1.0)


def test_variables_and_annotations_of_dashboards_have_values(played: Played) -> None:
    for path in read.paths():
        for variable in read.load(path)["templating"]["list"]:
            if variable["type"] == "query":
                metric, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"]).groups()
                matcher = {"match[]": read.substitute(metric), "start": played.began, "end": played.ended}
                assert played.cast.prometheus.ask(f"label/{label}/values", **matcher), variable["name"]
        for annotation in read.annotations(path):
            rows = played.cast.prometheus.range(
                read.substitute(annotation.expression, rate_interval="5s"), played.began, played.ended, 1.0
            )
            assert numbers(rows), annotation
            for label in re.findall(r"{{(\w+)}}", annotation.legend):
                assert all(label in row["metric"] for row in rows), annotation


def test_every_rule_is_evaluated_without_an_error(played: Played) -> None:
    groups = played.cast.prometheus.ask("rules")["groups"]
    found = [rule for group in groups for rule in group["rules"]]
    assert sorted(rule["name"] for rule in found) == sorted(name for name, _ in RULES)
    assert [(rule["name"], rule.get("lastError")) for rule in found if rule["health"] != "ok"] == []


def test_every_metric_that_a_rule_reads_or_records_is_there(played: Played) -> None:
    read_there = {name for _, expression in RULES for name in names_in(expression)}
    assert {name for name in read_there | RECORDED if not _has_series(played, name)} == set(ABSENT)


def _has_series(played: Played, name: str) -> bool:
    return bool(played.cast.prometheus.query(f"last_over_time({name}[10m])"))


def test_every_metric_is_exported_and_is_in_a_panel_or_a_rule(played: Played) -> None:
    assert {name for name in EXPORTED if not _has_series(played, name)} == set()
    expressions = [query.expression for query in QUERIES] + [expression for _, expression in RULES]
    used = {name for expression in expressions for name in names_in(expression)}
    # A histogram is in use where a part of it is.
    unused = {name for name in EXPORTED if not {name, *_parts(name)} & used}
    assert unused == set(UNUSED)


def _parts(name: str) -> list[str]:
    stem = re.sub(r"_(bucket|sum|count)$", "", name)
    return [] if stem == name else [stem + end for end in ("_bucket", "_sum", "_count")]


def test_no_exporter_has_more_series_than_its_budget_and_promtool_finds_no_fault(played: Played) -> None:
    binary = shutil.which("promtool")
    if binary is None:
        pytest.skip("needs promtool on PATH")
    for url in played.cast.exporters:
        page = support.get(url + "/metrics")[1]
        assert 0 < len(series_of(url)) <= MAX_SERIES
        done = subprocess.run(
            [binary, "check", "metrics"], input=page, capture_output=True, text=True, timeout=20, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), url


# -- what was done -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def verdicts(played: Played) -> list[Verdict]:
    """Every verdict that a consumer could read."""
    return [Verdict.model_validate_json(entry["verdict"]) for entry in played.cast.house.entries()]


def counted(played: Played, metric: str, by: str, matchers: str = "") -> dict[tuple[str, ...], float]:
    """Sum a counter over all that ever exported it; a worker that was killed counts as when it was scraped last."""
    rows = played.cast.prometheus.values(f"sum by ({by}) (last_over_time({metric}{{{matchers}}}[10m]))")
    return {labels: value for labels, value in rows.items() if value}


def test_the_play_has_every_action_in_each_category_on_each_queue_and_every_reason(
    played: Played, verdicts: list[Verdict]
) -> None:
    actions = {(name, found.action) for verdict in verdicts for name, found in verdict.categories.items()}
    categories = {name for verdict in verdicts if verdict.policy.id == "demo" for name in verdict.categories}
    assert len(categories) == 8
    assert {(name, action) for name in categories for action in ("allow", "review", "block")} <= actions
    reasons = {verdict.reason for verdict in verdicts if verdict.reason}
    assert reasons == set(errors.REASONS) - set(NOT_PLAYED)
    assert {verdict.role for verdict in verdicts} == {"live", "canary"}
    assert {verdict.calibrated for verdict in verdicts} == {True, False}
    assert set(_ended(played)) == {"moderation-high", "moderation", "moderation-bulk", "moderation-strict"}


def _ended(played: Played) -> Counter[str]:
    return Counter({queue: round(times) for (queue,), times in counted(played, "sluice_jobs_total", "queue").items()})


def test_verdicts_are_as_many_as_a_consumer_reads_by_role_and_action(played: Played, verdicts: list[Verdict]) -> None:
    assert Counter(verdict.content_id for verdict in verdicts).most_common(1)[0][1] == 1
    by_action = Counter((verdict.action,) for verdict in verdicts)
    assert counted(played, "sluice_verdicts_total", "action", 'role!="shadow"') == by_action
    by_policy = Counter(
        (judged.action, verdict.policy.id if verdict.policy.version else "unknown", role)
        for verdict in verdicts
        for role, judged in ((verdict.role, verdict), *(("shadow", shadow) for shadow in verdict.shadow))
    )
    assert counted(played, "sluice_verdicts_total", "action,policy,role") == by_policy
    categories = Counter(
        (found.action, name, role)
        for verdict in verdicts
        for role, judged in ((verdict.role, verdict), *(("shadow", shadow) for shadow in verdict.shadow))
        for name, found in judged.categories.items()
    )
    assert counted(played, "sluice_category_actions_total", "action,category,role") == categories
    scores = Counter((name, verdict.policy.id) for verdict in verdicts for name in verdict.categories)
    assert counted(played, "sluice_score_count", "category,policy") == scores
    uncalibrated = Counter((v.policy.id,) for v in verdicts if v.reason is None and not v.calibrated)
    assert counted(played, "sluice_uncalibrated_verdicts_total", "policy") == uncalibrated


def test_jobs_are_as_many_as_ended_so_and_rejections_as_many_as_have_that_reason(
    played: Played, verdicts: list[Verdict]
) -> None:
    reasons = Counter((verdict.reason,) for verdict in verdicts if verdict.reason)
    assert counted(played, "sluice_images_rejected_total", "reason") == reasons
    outcomes = Counter((_outcome(verdict.reason),) for verdict in verdicts)
    outcomes["retried",] = played.done["retried"]
    assert counted(played, "sluice_jobs_total", "outcome") == outcomes


def _outcome(reason: str | None) -> str:
    """Say how a job ended whose verdict has this reason."""
    if reason is None:
        return "done"
    rejected = {kind.reason for kind in (errors.ImageRejected, *errors.ImageRejected.__subclasses__())}
    return "rejected" if reason in rejected else "dead"


def test_disagreements_are_as_many_as_the_verdicts_hold(played: Played, verdicts: list[Verdict]) -> None:
    found = Counter(
        (there.category, there.direction, verdict.policy.id)
        for verdict in verdicts
        for shadow in verdict.shadow
        for there in disagreements(verdict, shadow)
    )
    assert {direction for _, direction, _ in found} == {"stricter", "milder"}
    assert counted(played, "sluice_policy_disagreements_total", "category,direction,policy") == found


def test_webhooks_are_as_many_as_arrived_and_failed_at_the_receiver(played: Played) -> None:
    arrived = {path: len(played.cast.receiver.got(path)) for path in ("/fine", "/shaky", "/broken", "/gone")}
    waits = len(WEBHOOK_WAITS)
    assert arrived == {"/fine": played.hooked + 1, "/shaky": 2, "/broken": 1 + waits, "/gone": 1}
    assert played.cast.receiver.wrong == []
    assert counted(played, "sluice_webhooks_total", "outcome") == {
        ("delivered",): arrived["/fine"] + 1, ("retried",): 1 + waits, ("dead",): 1, ("endpoint_off",): 1
    }  # fmt: skip


def test_what_died_was_replaced_and_what_it_held_was_taken_over(played: Played) -> None:
    assert counted(played, "sluice_jobs_recovered_total", "job") == {("sluice",): played.done["recovered"]}
    # The poisonous job crashed one horse and had one killed; one was late, one was stopped.
    assert counted(played, "sluice_horse_ends_total", "cause") == {
        ("crashed",): 1, ("killed",): 1, ("late",): 1, ("stopped",): 1
    }  # fmt: skip
    decoders = counted(played, "sluice_decoder_ends_total", "cause")
    assert {cause for (cause,) in decoders} >= {"timeout", "memory", "crashed"}


def test_a_reader_that_stopped_lags_and_policies_at_work_are_those_that_were_written_last(played: Played) -> None:
    ask = played.cast.prometheus.values
    entries = ask('max(sluice_stream_entries{stream="verdicts"})')[()]
    assert ask('max(sluice_stream_lag{group="backend"})') == {(): entries - 1}
    assert ask("sum by (policy, role, version) (sluice_policy_info)") == {
        ("demo", "live", "2"): 2, ("demo", "shadow", "1"): 2, ("demo", "shadow", "3"): 2,
        ("house", "live", "3"): 2, ("house", "shadow", "2"): 2,
    }  # fmt: skip
    assert ask("count(sluice_policy_last_reload_successful == 1)") == {(): 3}
    assert counted(played, "sluice_policy_reloads_total", "result").keys() >= {("ok",), ("invalid",)}


def test_redis_was_seen_to_be_away_and_workers_to_be_gone(played: Played) -> None:
    ask = played.cast.prometheus.range
    for expression in ("min(sluice_redis_up)", "min(sluice_policy_last_reload_successful)"):
        rows = ask(expression, played.began, played.ended, 1.0)
        assert {0.0, 1.0} == set(numbers(rows)), expression


def test_alerts_on_what_happened_are_raised_and_no_others_fire(played: Played) -> None:
    def raised() -> dict[str, set[str]]:
        rows = played.cast.prometheus.range("ALERTS", played.began, time.time(), 1.0)
        found: dict[str, set[str]] = defaultdict(set)
        for row in rows:
            found[row["metric"]["alertname"]].add(row["metric"]["alertstate"])
        return found

    # What happened last has to go through a recording rule first.
    with contextlib.suppress(AssertionError):
        support.until(lambda: all(state in raised()[name] for name, state in RAISED.items()), 10)
    found = raised()
    assert {name: state for name, state in RAISED.items() if state not in found[name]} == {}
    assert {name for name in found if "firing" in found[name]} == {
        name for name, state in RAISED.items() if state == "firing"
    }


def test_every_dashboard_is_drawn_from_what_happened(played: Played, tmp_path: Path) -> None:
    page, now = tmp_path / "dashboards.html", time.time()
    command = [sys.executable, "-m", "tools.dashboards.preview", f"--prometheus={played.cast.prometheus.url}",
               f"--output={page}", f"--minutes={(now - played.began) / 60}", f"--end={now}", "--scrape-seconds=1",
               "--before=10s"]  # fmt: skip
    subprocess.run(command, cwd=ROOT, check=True, timeout=100)
    text = page.read_text()
    for name in ("moderation-strict", "worker_killed", "decode_crashed"):
        assert name in text, name
