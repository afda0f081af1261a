"""Overview, for the operator: is work coming, does it get done in time, does it end well, what is full.

In: metrics of jobs, queues, processes, Redis and webhooks. Out: the dashboard's JSON.
"""

from __future__ import annotations

from typing import Any

from tools.dashboards import parts
from tools.dashboards.board import board, queues

_JOBS = 'sluice_jobs_total{queue=~"$queue"}[$__rate_interval]'
_NOT_DONE = 'sluice_jobs_total{queue=~"$queue", outcome!="done"}[$__rate_interval]'
_WAIT = 'sum by (le) (rate(sluice_queue_wait_seconds_bucket{queue=~"$queue"}[$__rate_interval]))'
_STAGE = "sluice_stage_seconds_sum[$__rate_interval]"
#: `sluice deliver` has sluice_up too, but no model.
_WORKERS = "sluice_up and on (job, instance) sluice_model_info"


def overview() -> str:
    """Make the dashboard."""
    rows = {
        "Now": _now(),
        "Traffic, latency and errors": _golden(),
        "Saturation": _saturation(),
        "Inside a worker": _inside(),
        "Fleet": _fleet(),
        "Redis": _redis(),
        "Webhooks": _webhooks(),
    }
    about = "For the operator: does work come in, get done in time and end well, and what is full?"
    return board("sluice-overview", about, [queues()], rows)


def _now() -> list[Any]:
    return [
        parts.number(
            "Workers up",
            "Workers that take jobs. Red: nobody does.",
            "short",
            (f"sum({_WORKERS}) or vector(0)", "workers"),
            steps=[(None, parts.BAD), (1, parts.GOOD)],
        ),
        parts.number(
            "Jobs per second",
            "Jobs that ended, however they ended. Under the rate of arrival, the queue grows.",
            "suffix: /s",
            (f"sum(rate({_JOBS}))", "jobs"),
        ),
        parts.number(
            "Queue wait, p95",
            "95 of 100 jobs were started within this time after they were enqueued.",
            "s",
            (f"histogram_quantile(0.95, {_WAIT})", "p95"),
            steps=[(None, parts.GOOD), (30, parts.LOOK), (120, parts.BAD)],
        ),
        parts.number(
            "Oldest job",
            "Age of the job that waits longest: the first sign that nothing moves. Bulk may wait: choose queues.",
            "s",
            ('max(max by (queue) (sluice_queue_oldest_seconds{queue=~"$queue"}))', "oldest"),
            steps=[(None, parts.GOOD), (60, parts.LOOK), (300, parts.BAD)],
        ),
        parts.number(
            "Jobs not done",
            "Share of the jobs that ended otherwise than done: rejected, retried or dead.",
            "percentunit",
            (f"sum(rate({_NOT_DONE})) / sum(rate({_JOBS}))", "share"),
            steps=[(None, parts.GOOD), (0.05, parts.LOOK), (0.2, parts.BAD)],
        ),
        parts.states(
            parts.number(
                "Redis answers",
                "Whether every worker reached Redis when it was last asked. Without it nothing is claimed or ended.",
                "short",
                ("min(max by (instance) (sluice_redis_up))", "Redis"),
                steps=[(None, parts.BAD), (1, parts.GOOD)],
            ),
            {0: ("away", parts.BAD), 1: ("answers", parts.GOOD)},
        ),
    ]


def _golden() -> list[Any]:
    quantiles = [(f"histogram_quantile({value}, {_WAIT})", f"p{value * 100:.0f}") for value in (0.5, 0.95, 0.99)]
    return [
        parts.lines(
            "Jobs by how they ended",
            "Throughput. Done: a verdict from the image. Rejected: a review verdict with a reason. Retried: tried "
            "again later. Dead: in the dead-letter box, and a review verdict says so.",
            "suffix: /s",
            (f"sum by (outcome) (rate({_JOBS}))", "{{outcome}}"),
            stacked=True,
        ),
        parts.lines(
            "Queue wait",
            "Time between enqueueing and start: what an upload waits before anybody looks at it.",
            "s",
            *quantiles,
        ),
        parts.lines(
            "Jobs not done, by how",
            "Errors, as shares of all jobs that ended.",
            "percentunit",
            (
                f"sum by (outcome) (rate({_NOT_DONE})) / ignoring (outcome) group_left sum(rate({_JOBS}))",
                "{{outcome}}",
            ),
        ),
    ]


def _saturation() -> list[Any]:
    per_queue = (
        ("Jobs waiting", "sluice_queue_jobs", "short", "Depth of each queue. Add workers while it grows."),
        ("Oldest job by queue", "sluice_queue_oldest_seconds", "s", "Age of the job that waits longest in each queue."),
        ("Jobs running", "sluice_queue_running_jobs", "short", "Jobs that workers hold, batches that wait included."),
        (
            "Dead-letter box",
            "sluice_queue_dead_jobs",
            "short",
            "Jobs in RQ's FailedJobRegistry. Each has had a review verdict; somebody should still look why.",
        ),
    )
    panels = [
        parts.lines(
            title, about, unit, (f'max by (queue) ({metric}{{queue=~"$queue"}})', "{{queue}}"), stacked=unit == "short"
        ).span(6)
        for title, metric, unit, about in per_queue
    ]
    panels[1] = parts.limited(panels[1], 60, 300)
    return panels


def _inside() -> list[Any]:
    return [
        parts.logarithmic(
            parts.lines(
                "Stage time, p95",
                "95 of 100 batches spent at most this in a stage. Fetch waits for others' servers; embed is the model.",
                "s",
                (
                    "histogram_quantile(0.95, sum by (le, stage) "
                    "(rate(sluice_stage_seconds_bucket[$__rate_interval])))",
                    "{{stage}}",
                ),
            )
        ).span(6),
        parts.lines(
            "Where time goes",
            "Each stage's share of the time in all stages. The largest is what to make faster.",
            "percentunit",
            (f"sum by (stage) (rate({_STAGE})) / ignoring (stage) group_left sum(rate({_STAGE}))", "{{stage}}"),
            stacked=True,
        )
        .max(1)
        .span(6),
        parts.heat(
            "Batch fill",
            "How many images the batches held. Ones under load: images come singly, or the batch wait is short.",
            "short",
            "sum by (le) (increase(sluice_batch_images_bucket[$__rate_interval]))",
        ).span(6),
        parts.lines(
            "Memo hit rate",
            "Share of images and sentences that had been embedded before, and cost no model time.",
            "percentunit",
            (
                'sum by (kind) (rate(sluice_memo_total{result="hit"}[$__rate_interval]))'
                " / sum by (kind) (rate(sluice_memo_total[$__rate_interval]))",
                "{{kind}}",
            ),
        )
        .max(1)
        .span(6),
    ]


def _fleet() -> list[Any]:
    return [
        parts.timeline(
            "Taking work, by process",
            "Green while a worker takes jobs or `sluice deliver` verdicts; orange while it drains or waits.",
            ("max by (instance) (sluice_up)", "{{instance}}"),
            {0: ("waits", parts.LOOK), 1: ("takes work", parts.GOOD)},
        ).span(6),
        parts.lines(
            "Memory by process",
            "Resident memory of all workers, of their model processes (horses) and of those that decode.",
            "bytes",
            ("sum by (process) (max by (instance, process) (sluice_memory_bytes))", "{{process}}"),
            stacked=True,
        ).span(6),
        parts.limited(
            parts.lines(
                "Memory against its limit",
                "What a worker and its children use of what the container, or else the machine, may use.",
                "percentunit",
                (
                    "sum by (instance) (max by (instance, process) (sluice_memory_bytes))"
                    " / max by (instance) (sluice_memory_limit_bytes)",
                    "{{instance}}",
                ),
            ),
            0.8,
            0.95,
        ).span(6),
        parts.bars(
            "Jobs taken over",
            "Jobs that a worker took over from one that died with them.",
            ("sum(increase(sluice_jobs_recovered_total[$__rate_interval]))", "jobs"),
        ).span(6),
        parts.bars(
            "Horses that ended early",
            "Model processes that ended before they were told to, by cause; the worker starts another.",
            ("sum by (cause) (increase(sluice_horse_ends_total[$__rate_interval]))", "{{cause}}"),
        ).span(6),
        parts.bars(
            "Decoders replaced",
            "Decoding processes that were replaced, by cause. Recycled is routine; the others were a file's doing.",
            ("sum by (cause) (increase(sluice_decoder_ends_total[$__rate_interval]))", "{{cause}}"),
        ).span(6),
        parts.rows(
            "Builds",
            "How many processes run each version. Two versions are an upgrade under way.",
            "count by (version) (sluice_build_info)",
            {"version": "Version", "Value": "Processes"},
        ).span(3),
        parts.rows(
            "Models",
            "How many workers run each checkpoint. Scores of two checkpoints are not comparable.",
            "count by (model, revision, precision, device) (sluice_model_info)",
            {
                "model": "Model",
                "revision": "Revision",
                "precision": "Precision",
                "device": "Device",
                "Value": "Workers",
            },
        ).span(9),
    ]


def _redis() -> list[Any]:
    return [
        parts.timeline(
            "Redis answers, by process",
            "Whether a worker reached Redis when it was asked for its metrics.",
            ("max by (instance) (sluice_redis_up)", "{{instance}}"),
            {0: ("away", parts.BAD), 1: ("answers", parts.GOOD)},
        ).span(6),
        parts.lines(
            "Redis memory",
            "Memory in use and the limit; no line of a limit: there is none.",
            "bytes",
            ("max(sluice_redis_memory_bytes)", "used"),
            ("max(sluice_redis_memory_limit_bytes) > 0", "limit"),
        )
        .fill_opacity(0)
        .span(6),
        parts.lines(
            "Streams against their cap",
            "A full stream forgets its oldest entries. By design for the ledger; of verdicts, readers may miss some.",
            "percentunit",
            ("max by (stream) (sluice_stream_entries) / max by (stream) (sluice_stream_max_entries)", "{{stream}}"),
        ).span(6),
        parts.lines(
            "Verdicts not yet read",
            "What each consumer group has still to read. Above the stream's cap, verdicts are lost to it.",
            "short",
            ("max by (group) (sluice_stream_lag)", "{{group}}"),
        ).span(6),
    ]


def _webhooks() -> list[Any]:
    return [
        parts.lines(
            "Webhook attempts",
            "Attempts to post a verdict. Dead letters lie in sluice:webhooks:dead; lost ones were never read.",
            "suffix: /s",
            ("sum by (outcome) (rate(sluice_webhooks_total[$__rate_interval]))", "{{outcome}}"),
            stacked=True,
        ).span(12),
        parts.lines(
            "Webhooks not delivered",
            "Share of the attempts that did not arrive, by what came of them.",
            "percentunit",
            (
                'sum by (outcome) (rate(sluice_webhooks_total{outcome!="delivered"}[$__rate_interval]))'
                " / ignoring (outcome) group_left sum(rate(sluice_webhooks_total[$__rate_interval]))",
                "{{outcome}}",
            ),
        ).span(12),
    ]
