"""What operators ask of a running worker: stop a job, stop an execution, kill the horse.

In: RQ's commands, heard by a thread of RQ's. Out: wishes, which the worker's loop sees to. Never a write to Redis.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from typing import Any

from rq.command import parse_payload

from worker.runtime.batches import Batches
from worker.runtime.claims import Claim
from worker.runtime.ending_worker import EndingWorker
from worker.runtime.stable import Stable

log = logging.getLogger(__name__)


class CommandedWorker(EndingWorker):
    """A worker of batches that hears commands."""

    #: Where batches run.
    stable: Stable
    #: What runs there.
    batches: Batches
    #: What it holds, by execution; read by other threads.
    _held: dict[str, Claim]

    @property
    def horse_pid(self) -> int:
        """The horse's process id; 0 where there is none."""
        return self.stable.pid

    def kill_horse(self, sig: signal.Signals = signal.SIGKILL) -> None:
        """Kill the horse, from whichever thread; its jobs are run apart."""
        if self.stable.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.stable.pid, sig)

    def handle_payload(self, message: dict[str, Any]) -> None:
        """Obey a command; RQ's own way with `stop-job` knows of one job only."""
        try:
            payload = parse_payload(message)
            command, job_id = payload["command"], str(payload.get("job_id"))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            log.warning("a command that cannot be read: %r", error)
            return
        if command != "stop-job":
            super().handle_payload(message)
        elif any(claim.job_id == job_id for claim in list(self._held.values())):
            self.batches.to_stop.add(job_id)
        else:
            log.warning("not working on job %s, so it cannot be stopped", job_id)

    def request_stop_execution(self, execution_id: str) -> None:
        """Stop one execution; called from the thread that hears commands."""
        claim = self._held.get(str(execution_id))
        if claim is None:
            log.warning("not running execution %s, so it cannot be stopped", execution_id)
        else:
            self.batches.to_stop.add(claim.job_id)
