"""The lower half of the overview: processes, Redis and webhooks.

In: metrics of processes, Redis and deliveries. Out: rows of panels.
"""

from __future__ import annotations

from typing import Any

from tools.dashboards import parts


def fleet() -> list[Any]:
    """Make the panels of processes and their memory."""
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
    ]


def ends() -> list[Any]:
    """Make the panels of what ended before it was told to."""
    return [
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
    ]


def builds() -> list[Any]:
    """Make the tables of what runs."""
    return [
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


def redis() -> list[Any]:
    """Make the panels of Redis."""
    return [
        parts.timeline(
            "Redis answers, by process",
            "Whether a worker reached Redis when it was asked for its metrics.",
            ("max by (instance) (sluice_redis_up)", "{{instance}}"),
            {0: ("away", parts.BAD), 1: ("answers", parts.GOOD)},
        ).span(8),
        parts.lines(
            "Redis memory",
            "Memory in use and the limit; no line of a limit: there is none.",
            "bytes",
            ("max(sluice_redis_memory_bytes)", "used"),
            ("max(sluice_redis_memory_limit_bytes) > 0", "limit"),
        )
        .fill_opacity(0)
        .span(8),
        parts.lines(
            "Streams against their cap",
            "A full stream forgets its oldest entries. By design for the ledger; of verdicts, readers may miss some.",
            "percentunit",
            ("max by (stream) (sluice_stream_entries) / max by (stream) (sluice_stream_max_entries)", "{{stream}}"),
        ).span(8),
        parts.lines(
            "Verdicts not yet read",
            "What each consumer group has still to read. Above the stream's cap, verdicts are lost to it.",
            "short",
            ("max by (group) (sluice_stream_lag)", "{{group}}"),
        ).span(12),
        parts.bars(
            "Uploads off the stream",
            "Entries of sluice:uploads: enqueued, known already, or no uploads, which are kept in sluice:uploads:dead.",
            ("sum by (outcome) (increase(sluice_uploads_total[$__rate_interval]))", "{{outcome}}"),
        ).span(12),
    ]


def webhooks() -> list[Any]:
    """Make the panels of `sluice deliver`."""
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
