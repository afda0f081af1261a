"""The Redis Stream `sluice:verdicts`: one entry for every upload.

In: a `Verdict`. Out: an entry with the verdict as JSON, four flat fields for filtering, and `webhook` where the job
names one. A push that belongs to a job rides in the transaction that ends the job.
"""

from __future__ import annotations

from typing import Any

from worker.records import Verdict
from worker.sinks.fence import Fence, append

#: Redis key of the stream.
STREAM = "sluice:verdicts"


class VerdictStream:
    """Pushes verdicts.

    Args:
        maxlen: How many entries Redis keeps, about.
    """

    def __init__(self, maxlen: int) -> None:
        self._maxlen = maxlen

    def push(self, connection: Any, verdict: Verdict, fence: Fence | None = None, webhook: str | None = None) -> None:
        """Append a verdict.

        Args:
            connection: A `redis.Redis`, or a pipeline whose transaction the push joins.
            verdict: What to append.
            fence: Push only while this is there.
            webhook: The job's own URL.
        """
        append(connection, self.command(verdict, verdict.to_json().encode(), webhook), fence)

    def command(self, verdict: Verdict, verdict_json: bytes, webhook: str | None = None) -> list[Any]:
        """Return the Redis command that appends a verdict, for a transaction that is not redis-py's.

        Args:
            verdict: What to append.
            verdict_json: It as JSON.
            webhook: The job's own URL. It is no part of the verdict, which everybody reads: it may hold a token.
        """
        fields = ("verdict", verdict_json, "job_id", verdict.job_id or "", "content_id", verdict.content_id,
                  "policy", verdict.policy.id, "action", verdict.action)  # fmt: skip
        own = () if webhook is None else ("webhook", webhook)
        return ["XADD", STREAM, "MAXLEN", "~", self._maxlen, "*", *fields, *own]
