"""Every metric, defined once: names, help, labels and buckets of what Prometheus scrapes.

In: verdicts, and how jobs ended. Out: the text format. Labels come from closed sets, never from a producer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, make_wsgi_app
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from worker.disagreements import disagreements
from worker.records import CategoryVerdict, Verdict

#: Stages in the order of the flow.
STAGES = ("fetch", "decode", "embed", "score", "push")
#: How a job ends.
OUTCOMES = ("done", "rejected", "retried", "dead")

#: What came of a look at changed policies: they are at work; they are broken; they are gone; a defect of ours.
RELOADS = ("ok", "invalid", "missing", "failed")
#: What comes of an attempt to post a verdict: it arrived, is tried again, became a dead letter, or did because its
#: endpoint is switched off. Lost is what the stream's limit took before it was read.
WEBHOOK_OUTCOMES = ("delivered", "retried", "dead", "endpoint_off", "lost")

#: Kind of what is remembered (image, text), and whether it was (hit, miss).
MEMO_LABELS = ("kind", "result")

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_SCORES = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)

disable_created_metrics()


class QueueCollector(Collector):
    """Reads queues at scrape time, so that every worker shows the same truth.

    Args:
        read: Queue name to (jobs waiting, age of the oldest in seconds).
    """

    def __init__(self, read: Callable[[], Mapping[str, tuple[int, float]]]) -> None:
        self._read = read

    def describe(self) -> Iterable[Any]:
        """Name the metrics without asking Redis."""
        return self._families()

    def collect(self) -> Iterable[Any]:
        """Ask Redis."""
        jobs, oldest = self._families()
        for queue, (waiting, age_seconds) in self._read().items():
            jobs.add_metric([queue], waiting)
            oldest.add_metric([queue], age_seconds)
        return [jobs, oldest]

    @staticmethod
    def _families() -> list[GaugeMetricFamily]:
        return [
            GaugeMetricFamily("sluice_queue_jobs", "Jobs that wait.", labels=["queue"]),
            GaugeMetricFamily("sluice_queue_oldest_seconds", "Age of the job that waits longest.", labels=["queue"]),
        ]


class Metrics:
    """The metrics of one worker process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        made: dict[str, Any] = {"registry": self.registry}
        self.jobs = Counter("sluice_jobs_total", "Jobs that ended, by how.", ["queue", "outcome"], **made)
        self.verdicts = Counter("sluice_verdicts_total", "Verdicts.", ["policy", "role", "action"], **made)
        self.category_actions = Counter(
            "sluice_category_actions_total", "Actions of categories.", ["policy", "role", "category", "action"], **made
        )
        self.score = Histogram(
            "sluice_score", "Scores of the version that decides.", ["policy", "category"], buckets=_SCORES, **made
        )
        self.stage_seconds = Histogram(
            "sluice_stage_seconds", "Time in a stage, per batch.", ["stage"], buckets=_SECONDS, **made
        )
        self.queue_wait_seconds = Histogram(
            "sluice_queue_wait_seconds", "Time between enqueueing and start.", ["queue"], buckets=_SECONDS, **made
        )
        self.batch_images = Histogram("sluice_batch_images", "Images in a batch.", buckets=_IMAGES, **made)
        self.images_rejected = Counter(
            "sluice_images_rejected_total", "Images that could not be judged.", ["reason"], **made
        )
        self.uncalibrated_verdicts = Counter(
            "sluice_uncalibrated_verdicts_total",
            "Verdicts of a policy without calibration for the model.",
            ["policy"],
            **made,
        )
        self.memo = Counter(
            "sluice_memo_total", "Images and sentences: known already (hit), or embedded (miss).", MEMO_LABELS, **made
        )
        self.model_info = Gauge(
            "sluice_model_info", "The checkpoint in use.", ["model", "revision", "precision", "device"], **made
        )
        self.webhooks = Counter(
            "sluice_webhooks_total", "Attempts to post a verdict; lost: never read off the stream.", ["outcome"], **made
        )
        self.up = Gauge("sluice_up", "1 while the worker takes jobs, or `sluice deliver` verdicts.", **made)
        self._watch_policies()

    def _watch_policies(self) -> None:
        made: dict[str, Any] = {"registry": self.registry}
        self.policy_info = Gauge(
            "sluice_policy_info", "Policy versions at work.", ["policy", "version", "role", "digest"], **made
        )
        self.policy_reloads = Counter(
            "sluice_policy_reloads_total",
            "Looks at policies that had changed, by what came of them.",
            ["result"],
            **made,
        )
        self.policy_disagreements = Counter(
            "sluice_policy_disagreements_total",
            "Categories of which a version that watches said something else than the one that decided.",
            ["policy", "category", "direction"],
            **made,
        )

    def watch_queues(self, read: Callable[[], Mapping[str, tuple[int, float]]]) -> None:
        """Show the queues that `read` reports."""
        self.registry.register(QueueCollector(read))

    def begin_queues(self, queues: Iterable[str]) -> None:
        """Show counters at 0 from the start, so that a rate exists before the first event."""
        for queue in queues:
            for outcome in OUTCOMES:
                self.jobs.labels(queue, outcome)
            self.queue_wait_seconds.labels(queue)
        for stage in STAGES:
            self.stage_seconds.labels(stage)
        for result in RELOADS:
            self.policy_reloads.labels(result)
        for kind in ("image", "text"):
            for result in ("hit", "miss"):
                self.memo.labels(kind, result)

    def begin_webhooks(self) -> None:
        """Show the counters of webhooks at 0 from the start."""
        for outcome in WEBHOOK_OUTCOMES:
            self.webhooks.labels(outcome)

    def observe_verdict(self, verdict: Verdict) -> None:
        """Count a verdict and its categories, and its shadows."""
        # A policy that does not exist was named by a producer, who could name a million of them.
        policy = verdict.policy.id if verdict.policy.version is not None else "unknown"
        self.verdicts.labels(policy, verdict.role, verdict.action).inc()
        self._observe_categories(policy, verdict.role, verdict.categories)
        for name, found in verdict.categories.items():
            self.score.labels(policy, name).observe(found.score)
        for shadow in verdict.shadow:
            self.verdicts.labels(shadow.policy.id, "shadow", shadow.action).inc()
            self._observe_categories(shadow.policy.id, "shadow", shadow.categories)
            for found_there in disagreements(verdict, shadow):
                self.policy_disagreements.labels(policy, found_there.category, found_there.direction).inc()
        if verdict.reason is not None:
            self.images_rejected.labels(verdict.reason).inc()
        elif not verdict.calibrated:
            self.uncalibrated_verdicts.labels(policy).inc()

    def observe_stages(self, timings_seconds: Mapping[str, float]) -> None:
        """Count the stages of one batch."""
        for stage in STAGES:
            if stage in timings_seconds:
                self.stage_seconds.labels(stage).observe(timings_seconds[stage])

    def observe_memo(self, counts: Mapping[tuple[str, str], int]) -> None:
        """Count what the memo knew of a batch: `(kind, result)` → how often."""
        for (kind, result), times in counts.items():
            self.memo.labels(kind, result).inc(times)

    def _observe_categories(self, policy: str, role: str, categories: Mapping[str, CategoryVerdict]) -> None:
        for name, found in categories.items():
            self.category_actions.labels(policy, role, name, found.action).inc()

    def exporter(self) -> Callable[..., Iterable[bytes]]:
        """Return `/metrics` as a WSGI application."""
        application: Callable[..., Iterable[bytes]] = make_wsgi_app(self.registry)
        return application
