"""The worker that RQ's own tests and the comparison of keys run: ours, but for what it accepts."""

from __future__ import annotations

from rq import SimpleWorker
from rq.job import Job
from rq.worker import BaseWorker


class AnyFunctionWorker(SimpleWorker):
    """Runs any function, in this process."""

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:
        """Return the time to live of a worker that heartbeats while it computes."""
        return int(BaseWorker.get_heartbeat_ttl(self, job, working_time))
