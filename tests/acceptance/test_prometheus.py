"""What the operator sees: a real Prometheus scrapes a real worker, and says what was done; liveness and readiness."""

from __future__ import annotations

import contextlib
import functools
import html
import http.client
import json
import re
import shutil
import subprocess
import sys
import time
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
import support
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from rq.job import Job
from rq.suspension import resume, suspend

from tools.dashboards import read
from worker.client import Moderation
from worker.errors import REASONS
from worker.records import Verdict

pytestmark = [pytest.mark.timeout(120), pytest.mark.thorough]

ROOT = Path(__file__).parents[2]
PNG = support.encode(Image.new("RGB", (40, 40), "navy"))
MIB = 1024 * 1024
PROCESSES = ("worker", "horse", "decoders")
QUEUES = ("moderation-high", "moderation", "moderation-bulk")

#: Every metric and its labels, as the contract names them; histograms by their base name.
METRICS = {
    "sluice_jobs_total": {"queue", "outcome"},
    "sluice_verdicts_total": {"policy", "role", "action"},
    "sluice_category_actions_total": {"policy", "role", "category", "action"},
    "sluice_score": {"policy", "category"},
    "sluice_stage_seconds": {"stage"},
    "sluice_queue_wait_seconds": {"queue"},
    "sluice_queue_jobs": {"queue"},
    "sluice_queue_oldest_seconds": {"queue"},
    "sluice_batch_images": set(),
    "sluice_memo_total": {"kind", "result"},
    "sluice_images_rejected_total": {"reason"},
    "sluice_policy_reloads_total": {"result"},
    "sluice_policy_disagreements_total": {"policy", "category", "direction"},
    "sluice_policy_info": {"policy", "version", "role", "digest"},
    "sluice_uncalibrated_verdicts_total": {"policy"},
    "sluice_model_info": {"model", "revision", "precision", "device"},
    "sluice_up": set(),
    "sluice_build_info": {"version"},
    "sluice_queue_running_jobs": {"queue"},
    "sluice_queue_dead_jobs": {"queue"},
    "sluice_stream_entries": {"stream"},
    "sluice_stream_max_entries": {"stream"},
    "sluice_redis_up": set(),
    "sluice_redis_memory_bytes": set(),
    "sluice_redis_memory_limit_bytes": set(),
    "sluice_memory_bytes": {"process"},
    "sluice_memory_limit_bytes": set(),
    "sluice_horse_ends_total": {"cause"},
    "sluice_decoder_ends_total": {"cause"},
    "sluice_jobs_recovered_total": set(),
    "sluice_uploads_total": {"outcome"},
    "sluice_policy_last_reload_successful": set(),
}
LABEL_VALUES = {
    "queue": set(QUEUES),
    "outcome": {"done", "rejected", "retried", "dead", "taken", "repeated", "refused"},
    "policy": {"house", "unknown"},
    "role": {"live", "shadow", "canary"},
    "action": {"allow", "review", "block"},
    "category": {"weapons", "drugs"},
    "stage": {"fetch", "decode", "embed", "score", "push"},
    "reason": set(REASONS),
    "direction": {"stricter", "milder"},
    "cause": {"killed", "crashed", "stopped", "late", "timeout", "memory", "recycled"},
    "process": set(PROCESSES),
    "stream": {"verdicts", "ledger", "uploads"},
}

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@dataclass
class Watched:
    """A worker, its Redis, and what it answered while it started."""

    worker: support.Worker
    server: support.DurableRedis
    connection: redis.Redis
    directory: Path
    #: (/livez, /readyz) of each look, before it was ready.
    looks: list[tuple[tuple[int, str], tuple[int, str]]]

    def page(self, path: str) -> tuple[int, str]:
        return support.get(self.worker.metrics_url + path)

    def series(self) -> Series:
        families = text_string_to_metric_families(self.page("/metrics")[1])
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in families
            for sample in family.samples
        }

    def finish(self, jobs: list[Job]) -> None:
        moderation = Moderation(self.connection)
        for job in jobs:
            moderation.wait(job, support.PATIENCE_SECONDS)

    def verdicts(self) -> list[Verdict]:
        rows: Any = self.connection.xrange("sluice:verdicts")
        return [Verdict.model_validate_json(fields[b"verdict"]) for _, fields in rows]


@pytest.fixture(scope="module")
def watched(tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    directory = tmp_path_factory.mktemp("watched")
    server = support.DurableRedis(directory)
    server.start()
    policies = support.write_house_policies(directory / "policies")
    settings = {"redis_url": server.url, "model": tiny_clip, "policies": policies, "policy": "house"}
    try:
        with (
            redis.Redis(port=server.port) as connection,
            support.running_worker(settings, directory, wait=False) as worker,
        ):
            watched = Watched(worker, server, connection, directory, [])
            support.until(lambda: watched.page("/livez")[0], what="the metrics port answers")
            while (look := (watched.page("/livez"), watched.page("/readyz")))[1][0] != 200:
                watched.looks.append(look)
                assert worker.process.poll() is None, worker.log[-2000:]
            yield watched
    finally:
        server.kill()


@pytest.fixture(scope="module")
def prometheus(watched: Watched) -> Iterator[str]:
    """The address of a Prometheus that scrapes the worker every second."""
    binary = shutil.which("prometheus")
    if binary is None:
        pytest.skip("needs prometheus on PATH")
    config = watched.directory / "prometheus.yml"
    target = watched.worker.metrics_url.removeprefix("http://")
    config.write_text(
        "global: {scrape_interval: 1s, scrape_timeout: 1s}\n"
        f"scrape_configs: [{{job_name: sluice, static_configs: [{{targets: ['{target}']}}]}}]\n"
    )
    address = f"127.0.0.1:{support.free_port()}"
    process = subprocess.Popen(
        [binary, f"--config.file={config}", f"--storage.tsdb.path={watched.directory / 'tsdb'}",
         f"--web.listen-address={address}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        support.until(lambda: support.get(f"http://{address}/-/ready")[0] == 200, what="Prometheus is ready")
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(20)


def ask(prometheus: str, query: str) -> dict[tuple[str, ...], float]:
    """Ask Prometheus; the values by the labels of `by (…)`, in the order of their names."""
    status, text = support.get(f"{prometheus}/api/v1/query?{urllib.parse.urlencode({'query': query})}")
    answer = json.loads(text)
    assert (status, answer["status"]) == (200, "success"), text
    return {
        tuple(value for _, value in sorted(row["metric"].items())): float(row["value"][1])
        for row in answer["data"]["result"]
    }


def agrees(prometheus: str, query: str, values: dict[tuple[str, ...], float]) -> bool:
    return ask(prometheus, query) == values


# -- counting --------------------------------------------------------------------------------------------------------


def test_prometheus_counts_what_was_done(watched: Watched, prometheus: str) -> None:
    moderation = Moderation(watched.connection)
    uploads: list[dict[str, Any]] = [{"content_id": f"fine-{place}", "data": PNG} for place in range(5)]
    uploads += [{"content_id": f"broken-{place}", "data": b"no image", "priority": "high"} for place in range(3)]
    uploads += [{"content_id": "cut", "data": PNG[: len(PNG) // 2], "priority": "bulk"}]
    uploads += [{"content_id": f"dead-{place}", "data": PNG, "policy": "nobody"} for place in range(2)]
    uploads += [{"content_id": "pinned", "data": PNG, "policy": "house@3"}]
    watched.finish(moderation.enqueue_many(uploads))

    verdicts: Counter[tuple[str, ...]] = Counter()
    categories: Counter[tuple[str, ...]] = Counter()
    scores: Counter[tuple[str, ...]] = Counter()
    reasons: Counter[tuple[str, ...]] = Counter()
    for verdict in watched.verdicts():
        policy = verdict.policy.id if verdict.policy.version else "unknown"
        for role, judged in ((verdict.role, verdict), *(("shadow", shadow) for shadow in verdict.shadow)):
            verdicts[judged.action, policy, role] += 1
            for name, found in judged.categories.items():
                categories[found.action, name, policy, role] += 1
        scores.update((name, policy) for name in verdict.categories)
        reasons.update([(verdict.reason,)] if verdict.reason else [])
    assert sum(verdicts.values()) == len(uploads) + 5
    assert reasons == {("image_undecodable",): 3, ("image_truncated",): 1, ("unknown_policy",): 2}

    expected: dict[str, dict[tuple[str, ...], float]] = {
        "sum by (action, policy, role) (sluice_verdicts_total)": dict(verdicts),
        "sum by (action, category, policy, role) (sluice_category_actions_total)": dict(categories),
        "sum by (category, policy) (sluice_score_count)": dict(scores),
        "sum by (reason) (sluice_images_rejected_total) > 0": dict(reasons),
        "sum by (outcome, queue) (sluice_jobs_total) > 0": {
            ("done", "moderation"): 6, ("rejected", "moderation-high"): 3, ("rejected", "moderation-bulk"): 1,
            ("dead", "moderation"): 2,
        },
        "sum by (queue) (sluice_queue_wait_seconds_count)": {
            ("moderation",): 8, ("moderation-high",): 3, ("moderation-bulk",): 1
        },
        "sum by (policy) (sluice_uncalibrated_verdicts_total)": {("house",): 6},
        "sum(sluice_batch_images_sum)": {(): 12},
        "count by (stage) (sluice_stage_seconds_count > 0)": {
            ("fetch",): 1, ("decode",): 1, ("embed",): 1, ("score",): 1, ("push",): 1
        },
        "sum(sluice_up)": {(): 1},
        "sum by (policy, role, version) (sluice_policy_info)": {("house", "live", "1"): 1, ("house", "shadow", "2"): 1},
    }  # fmt: skip
    for query, values in expected.items():
        with contextlib.suppress(AssertionError):
            support.until(functools.partial(agrees, prometheus, query, values), 15)
        assert ask(prometheus, query) == values, query


def test_dashboards_are_drawn_from_what_prometheus_knows_on_one_page(watched: Watched, prometheus: str) -> None:
    watched.finish(Moderation(watched.connection).enqueue_many([{"content_id": "drawn", "data": PNG}]))
    support.until(lambda: len(ask(prometheus, "sum by (category) (sluice_score_count)")) == 2, 15, "scores are known")
    page = watched.directory / "dashboards.html"
    command = [sys.executable, "-m", "tools.dashboards.preview", f"--prometheus={prometheus}", f"--output={page}"]
    subprocess.run([*command, "--minutes=0.5", "--scrape-seconds=1", "--before=5s"], cwd=ROOT, check=True, timeout=60)

    text = page.read_text()
    for dashboard in map(read.load, read.paths()):
        for panel in read.drawn(dashboard):
            # A panel that is repeated is there once for each value: of the policy's two categories.
            titles = [panel["title"].replace("$category", name) for name in ("weapons", "drugs")]
            assert all(f">{html.escape(title)}<" in text for title in titles)
    assert re.search(r">Workers up<.+?<div class=\"stat\"[^>]*>1</div>", text)
    assert "<td>house</td><td>2</td><td>shadow</td>" in text
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", text)


def test_prometheus_sees_how_many_jobs_wait_and_for_how_long(watched: Watched, prometheus: str) -> None:
    suspend(watched.connection)
    try:
        support.until(lambda: b"suspended" in _states(watched.connection), what="suspended")
        uploads = [{"content_id": f"waits-{place}", "data": PNG, "priority": "bulk"} for place in range(3)]
        jobs = Moderation(watched.connection).enqueue_many(uploads)
        enqueued = time.time()
        waiting = {("moderation",): 0.0, ("moderation-high",): 0.0, ("moderation-bulk",): 3.0}
        support.until(lambda: ask(prometheus, "max by (queue) (sluice_queue_jobs)") == waiting, 15, "3 jobs wait")
        time.sleep(1)
        oldest = ask(prometheus, "max by (queue) (sluice_queue_oldest_seconds)")
        assert 0 < oldest["moderation-bulk",] <= time.time() - enqueued + 1
        assert (oldest["moderation",], oldest["moderation-high",]) == (0, 0)
    finally:
        resume(watched.connection)
    watched.finish(jobs)
    support.until(
        lambda: set(ask(prometheus, "max by (queue) (sluice_queue_jobs)").values()) == {0.0}, 15, "nothing waits"
    )


def _states(connection: redis.Redis) -> list[bytes]:
    return [connection.hget(key, "state") for key in connection.scan_iter("rq:worker:*", _type="hash")]  # type: ignore[misc]


def test_a_job_that_runs_one_that_is_dead_and_a_reader_that_lags_are_seen(watched: Watched) -> None:
    metric, moderation = watched.worker.metric, Moderation(watched.connection)
    site = support.Website()
    dead = metric("sluice_queue_dead_jobs", queue="moderation-high")
    watched.connection.xgroup_create("sluice:verdicts", "late-reader", "0", mkstream=True)
    entries = metric("sluice_stream_entries", stream="verdicts")
    try:
        slow = moderation.enqueue(content_id="slow", url=site.page("/slow", (200, PNG), wait_seconds=2))
        running = functools.partial(metric, "sluice_queue_running_jobs", queue="moderation")
        support.until(lambda: running() == 1, what="it runs")
        gone = moderation.enqueue(content_id="gone", data=PNG, policy="nobody", priority="high")
        watched.finish([slow, gone])
    finally:
        site.close()
    assert running() == 0
    assert metric("sluice_queue_dead_jobs", queue="moderation-high") == dead + 1
    assert metric("sluice_stream_entries", stream="verdicts") == entries + 2
    assert metric("sluice_stream_max_entries", stream="verdicts") == 100_000
    judged = sum(verdict.reason is None for verdict in watched.verdicts())
    assert metric("sluice_stream_entries", stream="ledger") == judged > 0
    assert metric("sluice_stream_max_entries", stream="ledger") == 50_000
    assert metric("sluice_stream_lag", group="late-reader") == entries + 2
    watched.connection.xreadgroup("late-reader", "one", {"sluice:verdicts": ">"}, count=1)
    assert metric("sluice_stream_lag", group="late-reader") == entries + 1
    for place in range(40):
        watched.connection.xgroup_create("sluice:verdicts", f"more-{place}", "$")
    assert len([labels for name, labels in watched.series() if name == "sluice_stream_lag"]) == 16
    for group in ("late-reader", *(f"more-{place}" for place in range(40))):
        watched.connection.xgroup_destroy("sluice:verdicts", group)


def test_the_memory_of_each_process_and_of_redis_is_shown(watched: Watched) -> None:
    memory = {process: watched.worker.metric("sluice_memory_bytes", process=process) for process in PROCESSES}
    assert all(10 * MIB < held < watched.worker.metric("sluice_memory_limit_bytes") for held in memory.values()), memory
    # torch is in the horse alone.
    assert memory["worker"] < memory["horse"]
    assert 0 < watched.worker.metric("sluice_redis_memory_bytes") < 1024 * MIB
    assert watched.worker.metric("sluice_redis_memory_limit_bytes") == 0


# -- the page --------------------------------------------------------------------------------------------------------


def test_every_metric_of_the_contract_is_exported_with_its_labels_and_no_other(watched: Watched) -> None:
    watched.finish(
        [
            Moderation(watched.connection).enqueue(content_id="one", data=PNG),
            Moderation(watched.connection).enqueue(content_id="other", data=b"no image"),
        ]
    )

    def counted() -> bool:
        # A verdict can be read before it is counted.
        return sum(value for (name, _), value in watched.series().items() if name == "sluice_verdicts_total") >= 2

    support.until(counted, what="both verdicts are counted")
    found: dict[str, set[str]] = {}
    for (name, labels), _ in watched.series().items():
        base = next((name.removesuffix(end) for end in ("_bucket", "_count", "_sum") if name.endswith(end)), name)
        found.setdefault(base, set()).update({label for label, _ in labels} - {"le"})
    assert found == METRICS


def test_label_values_come_from_closed_sets(watched: Watched) -> None:
    for (name, labels), _ in watched.series().items():
        for label, value in labels:
            if label in LABEL_VALUES:
                assert value in LABEL_VALUES[label], (name, labels)


def test_producers_cannot_add_series_by_naming_policies(watched: Watched) -> None:
    def series_by_metric() -> Counter[str]:
        return Counter(name for name, _ in watched.series())

    before = series_by_metric()
    uploads = [{"content_id": f"x-{place}", "data": PNG, "policy": f"nobody-{place}"} for place in range(50)]
    watched.finish(Moderation(watched.connection).enqueue_many(uploads))
    watched.finish(Moderation(watched.connection).enqueue_many([uploads[0] | {"policy": "house@77"}]))
    after = series_by_metric()
    assert {name: after[name] - before[name] for name in after if after[name] > before[name] + 1} == {}
    assert watched.worker.metric("sluice_verdicts_total", policy="unknown", role="live", action="review") >= 50


def test_promtool_finds_nothing_to_complain_about(watched: Watched) -> None:
    binary = shutil.which("promtool")
    if binary is None:
        pytest.skip("needs promtool on PATH")
    page = watched.page("/metrics")[1]
    done = subprocess.run(
        [binary, "check", "metrics"], input=page, capture_output=True, text=True, timeout=20, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "_created" not in page


def test_garbage_on_a_queue_does_not_take_the_metrics_away(watched: Watched) -> None:
    suspend(watched.connection)
    try:
        support.until(lambda: b"suspended" in _states(watched.connection), what="suspended")
        for garbage in ({"data": "x", "enqueued_at": "yesterday"}, {"status": "lost"}):
            watched.connection.hset("rq:job:garbage", mapping=garbage)
            watched.connection.rpush("rq:queue:moderation", "garbage", b"\xff")
            assert watched.page("/metrics")[0] == 200
            assert watched.worker.metric("sluice_up") == 1
            watched.connection.delete("rq:job:garbage", "rq:queue:moderation")
        watched.connection.set("rq:queue:moderation", "no list")
        assert watched.worker.metric("sluice_redis_up") == 1
        assert watched.worker.metric("sluice_queue_jobs", queue="moderation-high") == 0
        watched.connection.delete("rq:queue:moderation")
    finally:
        resume(watched.connection)


def test_nothing_but_the_three_pages_is_served_and_only_to_readers(watched: Watched) -> None:
    assert watched.page("/")[0] == 404
    assert watched.page("/metrics/x")[0] == 404
    address = watched.worker.metrics_url.removeprefix("http://")
    for path in ("/metrics", "/livez", "/readyz"):
        client = http.client.HTTPConnection(address, timeout=10)
        client.request("POST", path, body=b"x")
        assert client.getresponse().status == 405
        client.close()


# -- health ----------------------------------------------------------------------------------------------------------


def test_a_worker_that_still_loads_its_model_is_live_and_not_ready(watched: Watched) -> None:
    assert watched.looks
    for livez, readyz in watched.looks:
        assert livez == (200, "ok\n")
        assert readyz == (503, "the model and the policies are being loaded\n")


def test_a_worker_that_takes_jobs_is_live_and_ready(watched: Watched) -> None:
    assert (watched.page("/livez"), watched.page("/readyz")) == ((200, "ok\n"), (200, "ok\n"))


def test_a_redis_that_hangs_does_not_hang_the_metrics(watched: Watched) -> None:
    watched.server.pause()
    try:
        assert watched.series()["sluice_redis_up", ()] == 0
        assert watched.page("/readyz")[0] == 503
    finally:
        watched.server.resume()
    support.until(lambda: watched.page("/readyz")[0] == 200, what="ready again")


def test_a_worker_whose_redis_is_gone_is_live_not_ready_and_still_shows_its_counters(watched: Watched) -> None:
    def done() -> float:
        return watched.worker.metric("sluice_jobs_total", queue="moderation", outcome="done")

    before = done()
    watched.finish([Moderation(watched.connection).enqueue(content_id="before", data=PNG)])
    support.until(lambda: done() == before + 1, what="counted")
    watched.server.kill()
    try:
        _, says = support.until(lambda: (page := watched.page("/readyz"))[0] == 503 and page, 10, "not ready")
        assert says.startswith("Redis does not answer: ")
        assert watched.page("/livez") == (200, "ok\n")
        series = watched.series()
        assert "sluice_queue_jobs" not in {name for name, _ in series}
        assert series["sluice_redis_up", ()] == 0
        assert done() == before + 1
    finally:
        watched.server.start()
        watched.connection.connection_pool.disconnect()
    support.until(lambda: watched.page("/readyz")[0] == 200, what="ready again")
    watched.finish([Moderation(watched.connection).enqueue(content_id="after", data=PNG)])
