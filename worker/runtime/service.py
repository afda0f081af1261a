"""`sluice work`, whole: the health server, the model, the scheduler and the worker, from start to end.

In: `Settings`. Out: worked queues. The health server answers first, so that a slow download is `live`, not `ready`.
"""

from __future__ import annotations

import logging
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import redis

from worker.connection import PatientBackoff, open_redis, require_redis
from worker.errors import SluiceError
from worker.metrics import Metrics
from worker.runtime.batch_worker import BatchWorker
from worker.runtime.hashes import max_data_bytes
from worker.runtime.health import HealthServer
from worker.runtime.scheduling import SchedulerThread
from worker.runtime.scraped import read_all
from worker.runtime.stable import ModelStable, Ready
from worker.runtime.uploads import Uploads
from worker.settings import Settings, mask_url

log = logging.getLogger(__name__)

_GOODBYE_SECONDS = 5.0
#: Seconds after which RQ forgets a silent worker.
_WORKER_TTL_SECONDS = 60
#: How long Redis may take to answer a scrape or a probe; asked twice, it is still less than their own time-outs.
_ANSWER_SECONDS = 1.5
#: A loop that did not turn for so long is stuck: it turns many times a second, whatever the horse does.
_STUCK_SECONDS = 120.0
#: RQ's states of a worker that does not listen yet, to queues or to signals.
_NOT_YET = ("starting", "started")


@dataclass(slots=True)
class Service:
    """One worker and its horse.

    Attributes:
        settings: What to run.
    """

    settings: Settings
    _metrics: Metrics = field(default_factory=Metrics)
    _worker: BatchWorker | None = None
    #: Digests of versions whose lack of a calibration was told.
    _warned_of: set[str] = field(default_factory=set)
    #: Why the policies at work are not those that there are now, in words.
    _policy_problem: str | None = None

    def run(self, burst: bool, deliver: bool = False) -> None:
        """Work the queues until stopped, or until they are empty.

        Args:
            burst: End when there is nothing left to do.
            deliver: Also post the verdicts to webhooks.

        Raises:
            Missing: Redis, the model or the policies are not there.
            PolicyInvalid: Every error in every policy file.
            UsageError: A setting is wrong.
            SluiceError: The loop ended by itself.
        """
        settings = self.settings
        # Whoever asks about health or queues must have an answer soon, so these questions have no patience.
        asking = open_redis(settings.redis_url, answer_seconds=_ANSWER_SECONDS)
        require_redis(asking, mask_url(settings.redis_url))
        delivering = self._delivering(burst) if deliver else nullcontext()
        health = self._listen(asking)
        stable = ModelStable(settings, self._show_versions)
        try:
            ready = stable.open()
            with delivering:
                self._work(stable, ready, burst)
        finally:
            stable.close()
            if health:
                health.close()

    def _delivering(self, burst: bool) -> AbstractContextManager[None]:
        # Whoever does not deliver needs no HTTP client.
        from worker.runtime.delivery_service import delivering  # noqa: PLC0415

        return delivering(self.settings, self._metrics, burst)

    def _work(self, stable: ModelStable, ready: Ready, burst: bool) -> None:
        queues = list(self.settings.queues)
        backoff = PatientBackoff()
        connection = open_redis(self.settings.redis_url, backoff)
        scheduler = SchedulerThread(queues, connection, max_data_bytes(self.settings.image_max_bytes))

        def hurry() -> None:
            backoff.hurry()
            scheduler.request_stop()

        worker = BatchWorker(
            queues,
            connection=connection,
            settings=self.settings,
            metrics=self._metrics,
            stable=stable,
            hurry=hurry,
            worker_ttl=_WORKER_TTL_SECONDS,
            default_result_ttl=self.settings.result_ttl_seconds,
            log_job_description=False,
        )
        self._worker = worker
        scheduler.start()
        uploads = Uploads(open_redis(self.settings.redis_url), self._count_uploads, burst)
        if self.settings.uploads:
            uploads.start()
            if burst:
                uploads.join()
        log.info("ready: %s@%s on %s, queues %s", ready.model, ready.revision, ready.device, ", ".join(queues))
        self._metrics.up.set(1)
        try:
            worker.work(burst=burst, logging_level="WARNING")
        finally:
            self._metrics.up.set(0)
            uploads.close()
            hurry()
            scheduler.join(_GOODBYE_SECONDS)
        if not burst and not worker._stop_requested:
            # RQ ends its loop quietly; whoever restarts workers that fail must hear of it.
            raise SluiceError("the worker's loop ended without being told to; the lines above say why")

    def _count_uploads(self, outcome: str, times: int) -> None:
        self._metrics.uploads.labels(outcome).inc(times)

    def _listen(self, connection: redis.Redis) -> HealthServer | None:
        settings, metrics = self.settings, self._metrics
        metrics.begin_queues(settings.queues)
        metrics.watch(lambda: read_all(settings, connection, self._worker.stable.pid if self._worker else 0))
        if settings.metrics_port == 0:
            return None
        return HealthServer(
            settings.metrics_host,
            settings.metrics_port,
            metrics.exporter(),
            self._live,
            lambda: self._ready(connection),
            self._notes,
        )

    def _show_versions(self, ready: Ready, reload: str | None) -> None:
        metrics = self._metrics
        if reload is not None:
            metrics.policy_reloads.labels(reload).inc()
        self._policy_problem = ready.problem
        metrics.policy_reload_successful.set(ready.problem is None)
        metrics.model_info.labels(ready.model, ready.revision, ready.precision, ready.device).set(1)
        metrics.policy_info.clear()
        for policy, version, role, digest, is_calibrated in ready.policies:
            metrics.policy_info.labels(policy, str(version), role, digest).set(1)
            if not is_calibrated and digest not in self._warned_of:
                self._warned_of.add(digest)
                log.warning(
                    "%s@%d is not calibrated for %s@%s: its verdicts say so",
                    policy, version, ready.model, ready.revision,
                )  # fmt: skip

    def _live(self) -> list[str]:
        worker = self._worker
        stuck = worker is not None and time.monotonic() - worker.batches.turned > _STUCK_SECONDS
        return ["the worker's loop does not turn"] if stuck else []

    def _notes(self) -> list[str]:
        """Say what is wrong and does not keep the worker from judging."""
        return [f"earlier policies are kept: {self._policy_problem}"] if self._policy_problem else []

    def _ready(self, connection: redis.Redis) -> list[str]:
        problems = []
        if self._worker is None or self._worker.get_state() in _NOT_YET:
            problems.append("the model and the policies are being loaded")
        elif self._worker._stop_requested:
            problems.append("the worker is leaving")
        elif not self._worker.stable.pid:
            problems.append("the horse is being replaced")
        try:
            connection.ping()
        except redis.RedisError as error:
            problems.append(f"Redis does not answer: {error}")
        return problems
