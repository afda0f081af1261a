"""Intake, for security: what hostile or broken files and addresses come in, and what they cost.

In: metrics of rejections, fetching, decoding and of processes that ended. Out: the dashboard's JSON.
"""

from __future__ import annotations

from typing import Any

from tools.dashboards import parts
from tools.dashboards.board import board, queues

_VERDICTS = 'sluice_verdicts_total{role!="shadow"}[$__rate_interval]'
#: Reasons by who gave the cause: the address or reference, the file, the file's attack on its decoder.
_SOURCES = "address_refused|path_refused|source_refused|source_unavailable|blob_mismatch"
_FILES = "image_too_large|image_undecodable|image_truncated|image_format_refused"
_ATTACKS = "decode_timeout|decode_memory|decode_crashed|job_timeout|worker_killed"


def intake() -> str:
    """Make the dashboard."""
    rows = {
        "Now": [*_refused_now(), *_processes_now()],
        "Rejections": _rejections(),
        "Fetch and decode": _stages(),
        "Processes that files ended": _ends(),
    }
    about = "For security: which uploads are refused and why, what do they cost, and does one of them kill processes?"
    return board("sluice-intake", about, [queues()], rows)


def _rejected(reasons: str) -> str:
    return f'sluice_images_rejected_total{{reason=~"{reasons}"}}[$__rate_interval]'


def _refused_now() -> list[Any]:
    return [
        parts.number(
            "Unreadable",
            "Share of the uploads that could not be judged: a review verdict with a reason.",
            "percentunit",
            (f"sum(rate(sluice_images_rejected_total[$__rate_interval])) / sum(rate({_VERDICTS}))", "unreadable"),
            steps=[(None, parts.GOOD), (0.05, parts.LOOK), (0.2, parts.BAD)],
        ),
        parts.number(
            "Refused addresses",
            "URLs, buckets and paths that may not be read. Many: somebody is looking for a way inside.",
            "suffix: /s",
            (f"sum(rate({_rejected('address_refused|path_refused')})) or vector(0)", "refused"),
            steps=[(None, parts.GOOD), (0.1, parts.LOOK), (1, parts.BAD)],
        ),
        parts.number(
            "Files that attack",
            "Files that made their decoder hang, swell or crash, or the worker's model process die.",
            "suffix: /s",
            (f"sum(rate({_rejected(_ATTACKS)})) or vector(0)", "attacks"),
            steps=[(None, parts.GOOD), (0.01, parts.LOOK), (0.1, parts.BAD)],
        ),
    ]


def _processes_now() -> list[Any]:
    return [
        parts.number(
            "Quarantined jobs",
            "Jobs that kill the process that looks at them, set aside alone. Keep the file: it is evidence.",
            "suffix: /s",
            (f"sum(rate({_rejected('worker_killed')})) or vector(0)", "quarantined"),
            steps=[(None, parts.GOOD), (0.000001, parts.BAD)],
        ),
        parts.number(
            "Decoders replaced",
            "Decoding processes that a file ended; those that were merely recycled are not counted.",
            "suffix: /s",
            ('sum(rate(sluice_decoder_ends_total{cause!="recycled"}[$__rate_interval])) or vector(0)', "decoders"),
            steps=[(None, parts.GOOD), (0.01, parts.LOOK), (0.1, parts.BAD)],
        ),
        parts.number(
            "Decode time, p99",
            "99 of 100 batches were decoded within this time.",
            "s",
            (_quantile(0.99, "decode"), "p99"),
            steps=[(None, parts.GOOD), (2.5, parts.LOOK), (10, parts.BAD)],
        ),
    ]


def _rejections() -> list[Any]:
    groups = (
        ("By the address or source", _SOURCES, "Refused before a byte of an image was read, or never delivered."),
        ("By the file", _FILES, "Files that are too large, broken, cut short, or of a format that is not accepted."),
        ("By what the file did", _ATTACKS, "Files that hung, swelled or crashed the process that looked at them."),
    )
    panels = [
        parts.bars(title, about, (f"sum by (reason) (increase({_rejected(reasons)}))", "{{reason}}"))
        for title, reasons, about in groups
    ]
    return [
        *panels,
        parts.bars(
            "By the job",
            "Jobs that name no such policy, do not fit the schema, were stopped, or met a defect of ours.",
            (
                "sum by (reason) (increase(sluice_images_rejected_total"
                f'{{reason!~"{_SOURCES}|{_FILES}|{_ATTACKS}"}}[$__rate_interval]))',
                "{{reason}}",
            ),
        ),
        parts.lines(
            "Unreadable share by queue",
            "Share of each queue's jobs that were rejected or ended dead: which door the bad uploads come through.",
            "percentunit",
            (
                'sum by (queue) (rate(sluice_jobs_total{queue=~"$queue", outcome=~"rejected|dead"}[$__rate_interval]))'
                ' / sum by (queue) (rate(sluice_jobs_total{queue=~"$queue"}[$__rate_interval]))',
                "{{queue}}",
            ),
        ),
        parts.compared(
            "Reasons now",
            "The ten most frequent reasons beside each other.",
            "suffix: /s",
            "sort_desc(topk(10, sum by (reason) (rate(sluice_images_rejected_total[$__rate_interval]))))",
            "{{reason}}",
        ),
    ]


def _quantile(value: float, stage: str) -> str:
    buckets = f'sluice_stage_seconds_bucket{{stage="{stage}"}}[$__rate_interval]'
    return f"histogram_quantile({value}, sum by (le) (rate({buckets})))"


def _stages() -> list[Any]:
    times = [
        parts.lines(
            f"{stage.capitalize()} time",
            about,
            "s",
            *((_quantile(value, stage), f"p{value * 100:.0f}") for value in (0.5, 0.95, 0.99)),
        ).span(6)
        for stage, about in (
            ("fetch", "Time that a batch took to fetch. Near its limit: a slow server, or one that holds connections."),
            ("decode", "Time that a batch took to decode. Near its limit: a file made to be expensive."),
        )
    ]
    spread = [
        parts.heat(
            f"{stage.capitalize()} times, spread",
            "Where the times lie: a second band far above the first is a kind of upload of its own.",
            "s",
            f'sum by (le) (increase(sluice_stage_seconds_bucket{{stage="{stage}"}}[$__rate_interval]))',
        ).span(6)
        for stage in ("fetch", "decode")
    ]
    return [times[0], spread[0], times[1], spread[1]]


def _ends() -> list[Any]:
    return [
        parts.bars(
            "Decoders replaced, by cause",
            "Timeout, memory, crashed: a file did it. Recycled: the process had decoded its share.",
            ("sum by (cause) (increase(sluice_decoder_ends_total[$__rate_interval]))", "{{cause}}"),
        ),
        parts.bars(
            "Horses that ended early, by cause",
            "Model processes that ended before they were told to. Killed again and again: look for one file.",
            ("sum by (cause) (increase(sluice_horse_ends_total[$__rate_interval]))", "{{cause}}"),
        ),
        parts.bars(
            "Quarantined and late jobs",
            "Jobs that kill the process that looks at them, or that ran past their time-out.",
            (f"sum by (reason) (increase({_rejected('worker_killed|job_timeout')}))", "{{reason}}"),
        ),
    ]
