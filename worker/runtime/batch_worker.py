"""An RQ worker that takes many jobs at once: `worker.jobs.moderate` and nothing else, judged by a horse that lives on.

In: RQ queues. Out: jobs ended each by itself, its verdict in the same transaction. To every RQ tool an ordinary worker.
Neither this module nor what it imports brings torch in.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, ClassVar

import redis
from redis.client import Pipeline as Transaction
from redis.exceptions import NoScriptError
from rq import Queue
from rq.exceptions import StopRequested
from rq.executions import Execution
from rq.job import Job
from rq.suspension import is_suspended
from rq.utils import now
from rq.worker.base import DequeueStrategy, WorkerStatus

from worker.errors import WorkerKilled
from worker.metrics import Metrics
from worker.runtime.batches import LONE_DEATHS, Batches
from worker.runtime.claims import HELD_PREFIX, Claim, Hands, prefixes_of
from worker.runtime.commands import CommandedWorker
from worker.runtime.doorbell import Doorbell
from worker.runtime.ending_worker import End
from worker.runtime.ends import Ends
from worker.runtime.hashes import max_data_bytes
from worker.runtime.observed import observe_claims, observe_ends
from worker.runtime.recovery import Keeper, recover
from worker.runtime.stable import ModelStable, Stable
from worker.runtime.wire import Outcome
from worker.settings import Settings, load_settings
from worker.sinks.ledger import LedgerStream
from worker.sinks.stream import VerdictStream

log = logging.getLogger(__name__)

#: Seconds between looks at suspension and maintenance, while there is nothing to do.
_LISTEN_SECONDS = 1.0
#: A second signal so soon is the same one, sent by a pool and by the terminal.
_SAME_SIGNAL_SECONDS = 1.0


class BatchWorker(CommandedWorker):
    """Takes up to `BATCH_SIZE` jobs at once, from several queues, and ends each by itself.

    Args:
        *args: RQ's.
        settings: What the horse is built from; read from the environment without it.
        metrics: Where ends of jobs are counted.
        stable: Where batches run; a horse of its own without it.
        hurry: Called when the worker is about to leave and nothing shall wait any more.
        **kwargs: RQ's.
    """

    #: Jobs and results are JSON, whatever a command line says.
    forced_serializer: ClassVar[str | None] = "json"

    def __init__(
        self,
        *args: Any,
        settings: Settings | None = None,
        metrics: Metrics | None = None,
        stable: Stable | None = None,
        hurry: Callable[[], None] = lambda: None,
        **kwargs: Any,
    ) -> None:
        if self.forced_serializer:
            kwargs["serializer"] = self.forced_serializer
        super().__init__(*args, **kwargs)
        self.settings = settings or load_settings()
        max_bytes = max_data_bytes(self.settings.image_max_bytes)
        self.guard_jobs(self.settings.callbacks, max_bytes)
        self.metrics = metrics or Metrics()
        self.stream = VerdictStream(self.settings.verdict_stream_maxlen)
        self.ledger = LedgerStream(self.settings.ledger_maxlen, self.settings.ledger_ttl_seconds)
        self.stable = stable or self.open_stable()
        self.batches = Batches(self.stable, self._end)
        self._hurry = hurry
        self._held = {}
        self._next: list[Claim] = []
        self._shutdown_is_noted = False
        self._jobs_left = float("inf")
        self._hands = Hands(
            self.connection, self.name, self.settings.recovery_seconds, self.job_monitoring_interval,
            prefixes_of(self.job_class, self.queue_class), max_bytes,
        )  # fmt: skip
        self._ends = Ends(self)
        self._keeper: Keeper | None = None
        self._doorbell: Doorbell | None = None

    def open_stable(self) -> Stable:
        """Return where batches run."""
        return ModelStable(self.settings)

    # -- life --------------------------------------------------------------------------------------------------------

    def work(self, *args: Any, max_jobs: int | None = None, **kwargs: Any) -> bool:
        """Work as RQ does; `max_jobs` counts jobs, not batches."""
        self._jobs_left = float("inf") if max_jobs is None else max_jobs
        return bool(super().work(*args, **kwargs))

    def bootstrap(self, *args: Any, **kwargs: Any) -> None:
        """Load the model, take over what dead workers held, and appear."""
        self.stable.open()
        recovered = self.metrics.jobs_recovered.inc
        recover(self._hands, recovered)
        super().bootstrap(*args, **kwargs)
        self._hands.renew(())
        self._keeper = Keeper(self._hands, self._held.values, self.heartbeat, self.settings.recovery_seconds, recovered)
        self._keeper.start()

    def teardown(self) -> None:
        """Leave: what is still held goes back, and nothing waits for a Redis that is not there."""
        self._hurry()
        if self._keeper:
            self._keeper.close()
        if self._doorbell:
            self._doorbell.close()
        if self.pubsub_thread:
            # Else RQ waits a second for a thread that waits a minute.
            self.pubsub_thread.stop()
        try:
            if self._held:
                self.stable.kill("stopped")
            # Asked of Redis: of a claim that was cut short it may know more than this process.
            if back := self._hands.give_back():
                log.warning("%d unfinished jobs go back to their queues", len(back))
            super().teardown()
            self._hands.sign_off()
        except redis.RedisError as error:
            log.warning("left without signing off: Redis does not answer (%s)", error)
        finally:
            self._held.clear()
            self.stable.close()

    def _shutdown(self) -> None:
        """Note the wish to stop; acted upon where no job can be lost, for this may be the middle of anything."""
        self._stop_requested = True
        if not self._held:
            self._hurry()

    def request_force_stop(self, signum: int, frame: FrameType | None) -> None:
        """Leave at once; `teardown` gives back what is unfinished.

        Raises:
            SystemExit: Unless it is the first signal, come twice.
        """
        requested = self._shutdown_requested_date
        if requested and (now() - requested).total_seconds() < _SAME_SIGNAL_SECONDS:
            return
        log.warning("cold shutdown: unfinished jobs are given back")
        raise SystemExit(128 + signum)

    def heartbeat(self, timeout: int | None = None, pipeline: Transaction | None = None) -> None:
        """Tell Redis that the worker lives; appear again where Redis, or another worker, has forgotten it."""
        if pipeline is None and self.birth_date and not self.connection.hexists(self.key, "birth"):
            # A claim or a state may have been written since another worker took this one for dead.
            self.connection.delete(self.key)
            self.register_birth()
        super().heartbeat(timeout, pipeline)

    # -- taking jobs -------------------------------------------------------------------------------------------------

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[Job, Queue] | None:
        """Wait for jobs; the first is returned, the others are claimed with it."""
        self.set_state(WorkerStatus.IDLE)
        idle_until = time.monotonic() + (float("inf") if max_idle_time is None else max_idle_time)
        while True:
            self.batches.turned = time.monotonic()
            self._may_go_on()
            self.stable.hear()
            try:
                self.heartbeat()
                if self.should_run_maintenance_tasks:
                    self.run_maintenance_tasks()
                self._next = self._claim()
                if self._next:
                    claim = self._next[0]
                    return self.job_of(claim), self.queue_of(claim)
                left = idle_until - time.monotonic()
                if timeout is None or left <= 0:
                    return None
                self.check_for_suspension(burst=False)
                self._listen().wait(min(_LISTEN_SECONDS, left), lambda: self._stop_requested)
            except (redis.ConnectionError, redis.TimeoutError, NoScriptError) as error:
                # A script of RQ's may be loaded into a Redis that another has replaced before it is called.
                log.warning("Redis does not answer (%s); trying again", error)
                time.sleep(_LISTEN_SECONDS)

    def _may_go_on(self) -> None:
        if self._stop_requested or self._jobs_left <= 0:
            raise StopRequested

    def _listen(self) -> Doorbell:
        if self._doorbell is None:
            self._doorbell = Doorbell(self.connection, self.queue_keys())
        return self._doorbell

    def _claim(self) -> list[Claim]:
        """Claim a batch: what is there, and what arrives within `BATCH_WAIT_SECONDS` of the first."""
        wanted = int(min(self.settings.batch_size, self._jobs_left))
        claims = self._claim_now(wanted)
        if 0 < len(claims) < wanted and self.settings.batch_wait_seconds and not claims[0].deaths:
            time.sleep(self.settings.batch_wait_seconds)
            claims += self._claim_now(wanted - len(claims))
        self._jobs_left -= len(claims)
        return claims

    def _claim_now(self, wanted: int) -> list[Claim]:
        if self._dequeue_strategy not in (None, DequeueStrategy.DEFAULT):
            # RQ changes the order of the queues after each job.
            found: list[Claim] = []
            while len(found) < wanted and (one := self._claim_in_order(1)):
                found += one
            return found
        return self._claim_in_order(wanted)

    def _claim_in_order(self, wanted: int) -> list[Claim]:
        names = [queue.name for queue in self._ordered_queues]
        claims, dropped = self._hands.claim(names, wanted, len(self._held))
        for name in dropped:
            log.warning("dropped from a queue, because it is no job: %s", name)
        for claim in claims:
            if claim.deaths > LONE_DEATHS:
                claim.error = WorkerKilled(f"{claim.deaths} workers died while they held this job")
            self._hold(claim)
        if claims:
            self._state = WorkerStatus.BUSY
            self.reorder_queues(self.queue_of(claims[-1]))
            observe_claims(self.metrics, claims)
        return claims

    def _hold(self, claim: Claim) -> None:
        execution = Execution(claim.execution_id, claim.job_id, self.connection, worker_name=self.name)
        self.executions[claim.execution_id] = execution
        self._held[claim.execution_id] = claim

    def check_for_suspension(self, burst: bool) -> None:
        """Wait while the workers are suspended."""
        while not self._stop_requested and is_suspended(self.connection, self):
            if burst:
                raise StopRequested
            self.batches.turned = time.monotonic()
            self.set_state(WorkerStatus.SUSPENDED)
            time.sleep(_LISTEN_SECONDS)

    # -- running them ------------------------------------------------------------------------------------------------

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Run batches for as long as there are jobs: while one is in the encoder, the next is claimed and prepared."""
        claims, self._next = self._next or [self._adopt(job, queue)], []
        self.batches.submit(claims)
        while len(self.batches):
            may_take = self.batches.has_place and not claims[0].deaths
            may_take = may_take and not self._stop_requested and self._jobs_left > 0
            self._note_shutdown()
            more = self._claim() if may_take and not self.should_run_maintenance_tasks else []
            if more:
                self.batches.submit(more)
            else:
                self.batches.advance()
        self._note_shutdown()
        self.set_state(WorkerStatus.IDLE)

    def _note_shutdown(self) -> None:
        """Show in Redis that the worker was asked to leave; not in the signal's handler, which may be anywhere."""
        if self._stop_requested and not self._shutdown_is_noted:
            self.set_shutdown_requested_date()
            self._shutdown_is_noted = True

    def _adopt(self, job: Job, queue: Queue) -> Claim:
        """Return a job that somebody else took from its queue as a claim."""
        execution = self.prepare_execution(job)
        self.prepare_job_execution(job, remove_from_intermediate_queue=len(self.queues) == 1)
        fields: Any = self.connection.hgetall(job.key)
        claim = Claim.from_hash(job.id, queue.name, execution.id, fields, execution.created_at.timestamp())
        self.connection.hset(HELD_PREFIX + self.name, claim.member, queue.name)
        self._held[execution.id] = claim
        return claim

    def _end(self, claims: Sequence[Claim], outcomes: Sequence[Outcome], seconds: float) -> None:
        ends = [End(claim, outcome) for claim, outcome in zip(claims, outcomes, strict=True)]
        started = time.perf_counter()
        written = self._ends.write(ends, seconds)
        for claim in claims:
            self._held.pop(claim.execution_id, None)
            self.executions.pop(claim.execution_id, None)
        counts = observe_ends(self.metrics, written, time.perf_counter() - started)
        self.metrics.observe_counts(self.stable.take_counts())
        log.info("%d jobs in %.3f s: %s", len(claims), seconds, counts)
