"""Runs a deliverer: as a process of its own, with its metrics port, or as a thread beside the worker.

In: settings. Out: posted verdicts until it is told to stop. It ends with the process that runs it.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field

import redis

from worker.connection import PatientBackoff, open_redis, require_redis
from worker.errors import RedisUnreachable, UsageError
from worker.metrics import Metrics
from worker.runtime.deliver import LEASE_MARGIN_SECONDS, Deliverer, Schedule
from worker.runtime.health import HealthServer
from worker.runtime.lanes import IN_FLIGHT
from worker.settings import Settings, mask_url
from worker.sinks.outbox import Outbox
from worker.sinks.webhook import Webhooks, read_secrets

log = logging.getLogger(__name__)

#: A loop that did not turn for so long is stuck.
_STUCK_SECONDS = 120.0
#: Until a thread that failed begins again.
_AGAIN_SECONDS = 5.0
_GOODBYE_SECONDS = 10.0


def open_outbox(settings: Settings, connection: redis.Redis) -> Outbox:
    """Return the outbox in a Redis."""
    return Outbox(connection, settings.verdict_stream_maxlen)


def read_keys(settings: Settings) -> tuple[bytes, ...]:
    """Return the keys that webhooks are signed with.

    Raises:
        UsageError: There are none, or one is not a secret.
    """
    if settings.webhook_secret is None:
        raise UsageError(
            "webhooks are signed; set SLUICE_WEBHOOK_SECRET, for example to "
            '"whsec_$(openssl rand -base64 32)", and give it to the receiver'
        )
    return read_secrets(settings.webhook_secret)


def _open_deliverer(settings: Settings, connection: redis.Redis, metrics: Metrics) -> Deliverer:
    webhooks = Webhooks(read_keys(settings), settings.webhook_timeout_seconds, settings.fetch_allow_private, IN_FLIGHT)
    return Deliverer(
        connection,
        open_outbox(settings, connection),
        webhooks,
        Schedule(settings.webhook_retry_seconds),
        settings.webhook_url,
        settings.webhook_timeout_seconds + LEASE_MARGIN_SECONDS,
        lambda outcome: metrics.webhooks.labels(outcome).inc(),
    )


@dataclass(slots=True)
class DeliveryService:
    """`sluice deliver`, whole.

    Attributes:
        settings: What to run.
    """

    settings: Settings
    _metrics: Metrics = field(default_factory=Metrics)
    _backoff: PatientBackoff = field(default_factory=PatientBackoff)
    _deliverer: Deliverer | None = None

    def run(self, burst: bool) -> None:
        """Deliver until stopped, or until nothing is left to do now.

        Args:
            burst: End when the stream has been read and nothing is due.

        Raises:
            Missing: Redis is not there.
            UsageError: A setting is wrong.
        """
        settings = self.settings
        read_keys(settings)
        asking = open_redis(settings.redis_url)
        require_redis(asking, mask_url(settings.redis_url))
        self._metrics.begin_webhooks()
        health = self._listen(asking)
        try:
            self._deliverer = _open_deliverer(settings, open_redis(settings.redis_url, self._backoff), self._metrics)
            if burst:
                self._deliverer.finish()
            self._metrics.up.set(1)
            log.info("ready: delivering the verdicts of sluice:verdicts")
            self._deliverer.run()
        except redis.RedisError as error:
            raise RedisUnreachable(f"Redis at {mask_url(settings.redis_url)} went away ({error})") from error
        finally:
            self._metrics.up.set(0)
            if health:
                health.close()

    def stop(self) -> None:
        """End soon; may be called by a signal handler."""
        self._backoff.hurry()
        if self._deliverer is not None:
            self._deliverer.stop()

    def _listen(self, asking: redis.Redis) -> HealthServer | None:
        settings = self.settings
        if settings.metrics_port == 0:
            return None
        return HealthServer(
            settings.metrics_host,
            settings.metrics_port,
            self._metrics.exporter(),
            self._live,
            lambda: self._ready(asking),
        )

    def _live(self) -> list[str]:
        deliverer = self._deliverer
        is_stuck = deliverer is not None and time.monotonic() - deliverer.turned > _STUCK_SECONDS
        return ["the loop does not turn"] if is_stuck else []

    def _ready(self, asking: redis.Redis) -> list[str]:
        try:
            asking.ping()
        except redis.RedisError as error:
            return [f"Redis does not answer: {error}"]
        return [] if self._deliverer else ["starting"]


class DeliveryThread(threading.Thread):
    """Delivers beside a worker, which it can neither delay nor end.

    Args:
        settings: The worker's.
        metrics: The worker's.

    Raises:
        UsageError: A setting is wrong.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        super().__init__(name="deliver", daemon=True)
        read_keys(settings)
        metrics.begin_webhooks()
        self._settings = settings
        self._metrics = metrics
        self._backoff = PatientBackoff()
        self._done = threading.Event()
        self._deliverer: Deliverer | None = None

    def run(self) -> None:
        """Deliver; after a failure, again."""
        while not self._done.is_set():
            try:
                connection = open_redis(self._settings.redis_url, self._backoff)
                self._deliverer = _open_deliverer(self._settings, connection, self._metrics)
                if self._done.is_set():
                    self._deliverer.finish()
                self._deliverer.run()
            except Exception:
                # The verdicts are in the stream; the worker goes on.
                log.exception("no webhooks for %g s", _AGAIN_SECONDS)
                self._done.wait(_AGAIN_SECONDS)

    def close(self, burst: bool) -> None:
        """End.

        Args:
            burst: First deliver what there is.
        """
        self._done.set()
        deliverer = self._deliverer
        if deliverer is not None and burst:
            deliverer.finish()
            self.join(self._settings.webhook_timeout_seconds + _GOODBYE_SECONDS)
        self._backoff.hurry()
        if deliverer is not None:
            deliverer.stop()
        self.join(_GOODBYE_SECONDS)
