"""The function that producers enqueue: `worker.jobs.moderate`, a dotted path that is never renamed.

In: the keyword arguments of `ModerationJob`. Out: the verdict as plain JSON, RQ's return value.
Nothing is judged here: the app does that.
"""

from __future__ import annotations

from typing import Any

from rq.job import Job, get_current_job

from worker import app as sluice
from worker.errors import JobError
from worker.ledger.batch import halves
from worker.pipeline import QueuedJob
from worker.records import ModerationJob, Verdict, seconds_since


def moderate(**arguments: Any) -> dict[str, Any]:
    """Look at one image under one policy.

    Args:
        **arguments: `image` (exactly one of url, s3, blob, base64, path), `content_id`, and, if wanted, `policy`,
            `metadata` and `webhook`: the JSON Schema is printed by `sluice schema job`.

    Returns:
        The verdict: the JSON Schema is printed by `sluice schema verdict`.

    Raises:
        JobError: The job cannot end `done`; its verdict says `review`.
    """
    app = sluice.current()
    rq_job = get_current_job()
    queued = QueuedJob(
        ModerationJob.from_arguments(arguments),
        rq_job.id if rq_job else None,
        seconds_queued(rq_job) if rq_job else None,
    )
    judged = app.pipeline.judge(app.pipeline.prepare([queued]))
    (outcome,), (embedding,) = judged.outcomes, judged.embeddings
    # A Sluice worker pushes in the transaction that ends the job; under a stock worker this is the next best place.
    is_ours_to_push = rq_job is not None and not getattr(rq_job, "ends_with_verdict", False)
    if isinstance(outcome, JobError):
        if is_ours_to_push and not (outcome.retry and rq_job is not None and rq_job.should_retry):
            app.stream.push(app.connection, app.pipeline.unjudged(queued, outcome.reason), webhook=queued.job.webhook)
        raise outcome
    if is_ours_to_push and app.connection is not None:
        with app.connection.pipeline() as together:
            app.stream.push(together, outcome, webhook=queued.job.webhook)
            app.ledger.push(together, outcome, b"" if embedding is None else halves(embedding))
            together.execute()
    return as_return_value(outcome)


def as_return_value(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict as RQ's JSON serializer takes it."""
    return verdict.model_dump(mode="json")


def seconds_queued(rq_job: Job) -> float:
    """Return how long a job waited, in seconds."""
    return seconds_since(rq_job.enqueued_at) if rq_job.enqueued_at else 0.0
