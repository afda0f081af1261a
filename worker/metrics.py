"""Every metric, defined once: names, help, labels and buckets of what Prometheus scrapes.

In: verdicts, and how jobs ended. Out: the text format. Labels come from closed sets, never from a producer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, make_wsgi_app
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from worker import __version__
from worker.disagreements import disagreements
from worker.errors import REASONS
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

#: What comes of an entry of the uploads' stream: a job was enqueued; there was one of the same upload; it is none.
UPLOAD_OUTCOMES = ("taken", "repeated", "refused")

#: How a horse ended too early: by SIGKILL, the kernel's for memory included; by itself; at the worker's hands, because
#: a job of it was stopped, or was late.
HORSE_ENDS = ("killed", "crashed", "stopped", "late")
#: Why a decoder process was replaced; recycled: it had decoded as many images as one may.
DECODER_ENDS = ("timeout", "memory", "crashed", "recycled")

#: What a horse and its decoders count, brought to the worker with a batch: what it is and its labels → how often.
#: ("memo", kind, hit or miss) · ("horse", cause) · ("decoder", cause)
Counts = Mapping[tuple[str, ...], int]
#: Name of a metric → its labels' values → value; what is not known is left out: a gap is true, a zero is not.
Scraped = Mapping[str, Mapping[tuple[str, ...], float]]

#: What is read when Prometheus asks: name → help, labels. Whatever Redis knows, every worker shows alike.
SCRAPED: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "sluice_queue_jobs": ("Jobs that wait.", ("queue",)),
    "sluice_queue_oldest_seconds": ("Age of the job that waits longest.", ("queue",)),
    "sluice_queue_running_jobs": ("Jobs that workers hold.", ("queue",)),
    "sluice_queue_dead_jobs": ("Jobs that failed and are kept: RQ's FailedJobRegistry.", ("queue",)),
    "sluice_stream_entries": ("Entries of a stream.", ("stream",)),
    "sluice_stream_max_entries": ("Entries beyond which a stream forgets its oldest.", ("stream",)),
    "sluice_stream_lag": ("Verdicts that a consumer group has not read, where Redis knows.", ("group",)),
    "sluice_redis_up": ("1 while Redis answers.", ()),
    "sluice_redis_memory_bytes": ("Memory that Redis uses.", ()),
    "sluice_redis_memory_limit_bytes": ("Memory that Redis may use; 0 without a limit.", ()),
    "sluice_memory_bytes": ("Resident memory: the worker, its horse, and the horse's decoders.", ("process",)),
    "sluice_memory_limit_bytes": ("Memory that the container may use, or that the machine has.", ()),
}

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_SCORES = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)

disable_created_metrics()


class ScrapedCollector(Collector):
    """Reads the metrics of `SCRAPED` when it is asked.

    Args:
        read: What they are now.
    """

    def __init__(self, read: Callable[[], Scraped]) -> None:
        self._read = read

    def describe(self) -> Iterable[Any]:
        """Name the metrics without reading them."""
        return self._families({})

    def collect(self) -> Iterable[Any]:
        """Read them."""
        return self._families(self._read())

    @staticmethod
    def _families(found: Scraped) -> list[GaugeMetricFamily]:
        families = []
        for name, (text, labels) in SCRAPED.items():
            family = GaugeMetricFamily(name, text, labels=labels)
            for values, value in found.get(name, {}).items():
                family.add_metric(values, value)
            families.append(family)
        return families


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
            "sluice_memo_total",
            "Images and sentences: known already (hit), or embedded (miss).",
            ["kind", "result"],
            **made,
        )
        self.model_info = Gauge(
            "sluice_model_info", "The checkpoint in use.", ["model", "revision", "precision", "device"], **made
        )
        self.webhooks = Counter(
            "sluice_webhooks_total", "Attempts to post a verdict; lost: never read off the stream.", ["outcome"], **made
        )
        self.uploads = Counter(
            "sluice_uploads_total", "Entries of the uploads' stream, by what came of them.", ["outcome"], **made
        )
        self.up = Gauge("sluice_up", "1 while the worker takes jobs, or `sluice deliver` verdicts.", **made)
        Gauge("sluice_build_info", "What runs.", ["version"], **made).labels(__version__).set(1)
        self._watch_processes(made)
        self._watch_policies(made)

    def _watch_processes(self, made: dict[str, Any]) -> None:
        self.horse_ends = Counter(
            "sluice_horse_ends_total", "Horses that ended before they were told to.", ["cause"], **made
        )
        self.decoder_ends = Counter(
            "sluice_decoder_ends_total", "Decoder processes that were replaced.", ["cause"], **made
        )
        self.jobs_recovered = Counter(
            "sluice_jobs_recovered_total", "Jobs that were taken over from dead workers.", **made
        )

    def _watch_policies(self, made: dict[str, Any]) -> None:
        self.policy_info = Gauge(
            "sluice_policy_info", "Policy versions at work.", ["policy", "version", "role", "digest"], **made
        )
        self.policy_reloads = Counter(
            "sluice_policy_reloads_total",
            "Looks at policies that had changed, by what came of them.",
            ["result"],
            **made,
        )
        self.policy_reload_successful = Gauge(
            "sluice_policy_last_reload_successful", "1 while the policies at work are those that there are.", **made
        )
        self.policy_reload_successful.set(1)
        self.policy_disagreements = Counter(
            "sluice_policy_disagreements_total",
            "Categories of which a version that watches said something else than the one that decided.",
            ["policy", "category", "direction"],
            **made,
        )

    def watch(self, read: Callable[[], Scraped]) -> None:
        """Show what `read` finds whenever Prometheus asks."""
        self.registry.register(ScrapedCollector(read))

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
        for outcome in UPLOAD_OUTCOMES:
            self.uploads.labels(outcome)
        for kind in ("image", "text"):
            for result in ("hit", "miss"):
                self.memo.labels(kind, result)
        # Of a reason that counts from 1, no rate would see the first: the one job that is quarantined.
        for reason in REASONS:
            self.images_rejected.labels(reason)
        for cause in HORSE_ENDS:
            self.horse_ends.labels(cause)
        for cause in DECODER_ENDS:
            self.decoder_ends.labels(cause)

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

    def observe_counts(self, counts: Counts) -> None:
        """Count what a horse has counted."""
        counters = {"memo": self.memo, "horse": self.horse_ends, "decoder": self.decoder_ends}
        for (what, *labels), times in counts.items():
            counters[what].labels(*labels).inc(times)

    def _observe_categories(self, policy: str, role: str, categories: Mapping[str, CategoryVerdict]) -> None:
        for name, found in categories.items():
            self.category_actions.labels(policy, role, name, found.action).inc()

    def exporter(self) -> Callable[..., Iterable[bytes]]:
        """Return `/metrics` as a WSGI application."""
        application: Callable[..., Iterable[bytes]] = make_wsgi_app(self.registry)
        return application
