"""What the worker counts of its jobs.

In: claims, and how they ended. Out: metrics. Never Redis.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

from worker.errors import JobError
from worker.metrics import Metrics
from worker.runtime.claims import Claim
from worker.runtime.ending_worker import End

log = logging.getLogger(__name__)


def observe_claims(metrics: Metrics, claims: Sequence[Claim]) -> None:
    """Count a batch that was taken."""
    metrics.batch_images.observe(len(claims))
    for claim in claims:
        metrics.queue_wait_seconds.labels(claim.queue).observe(claim.queue_seconds)


def observe_ends(metrics: Metrics, ends: Sequence[End], push_seconds: float) -> str:
    """Count a batch that was ended.

    Args:
        metrics: Where.
        ends: What was written, and not by another worker.
        push_seconds: How long the writing took.

    Returns:
        What was counted, for a log line.
    """
    # All verdicts of a batch carry the times of their batch.
    verdicts = [end.outcome.verdict for end in ends if end.outcome.verdict is not None]
    timings = next((verdict.timings_seconds for verdict in verdicts if "fetch" in verdict.timings_seconds), {})
    metrics.observe_stages(timings | {"push": push_seconds})
    counts: Counter[str] = Counter()
    for end in ends:
        outcome, verdict = _outcome_of(end), end.outcome.verdict
        metrics.jobs.labels(end.claim.queue, outcome).inc()
        counts[outcome] += 1
        if verdict is not None and not end.retried:
            metrics.observe_verdict(verdict)
            counts[verdict.action] += 1
            log.debug("%s %s: %s %s", end.claim.job_id, verdict.content_id, verdict.action, verdict.reason or "")
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "all taken over by others"


def _outcome_of(end: End) -> str:
    error = end.outcome.error
    if end.retried:
        return "retried"
    if error is None:
        return "done" if end.outcome.verdict is None or end.outcome.verdict.reason is None else "rejected"
    return error.outcome if isinstance(error, JobError) and not error.retry else "dead"
