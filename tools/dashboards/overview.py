"""Overview, for the operator: is work coming, does it get done in time, does it end well, what is full.

In: metrics of jobs, queues, processes, Redis and webhooks. Out: the dashboard's JSON.
"""

from __future__ import annotations

from typing import Any

from tools.dashboards import machines, parts
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
        "Now": [*_work_now(), *_trouble_now()],
        "Traffic, latency and errors": _golden(),
        "Saturation": _saturation(),
        "Inside a worker": [*_stages(), *_batches()],
        "Fleet": [*machines.fleet(), *machines.ends(), *machines.builds()],
        "Redis": machines.redis(),
        "Webhooks": machines.webhooks(),
    }
    about = "For the operator: does work come in, get done in time and end well, and what is full?"
    return board("sluice-overview", about, [queues()], rows)


def _work_now() -> list[Any]:
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
    ]


def _trouble_now() -> list[Any]:
    return [
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


def _stages() -> list[Any]:
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
    ]


def _batches() -> list[Any]:
    return [
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
