"""Runs a deliverer: as a process of its own, with its metrics port, or as a thread beside the worker.

In: settings. Out: posted verdicts until it is told to stop. Never a worker that waits for it or ends with it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

import redis

from worker.connection import PatientBackoff, open_redis, require_redis
from worker.errors import RedisUnreachable, UsageError
from worker.metrics import Metrics
from worker.runtime.deliver import LEASE_MARGIN_SECONDS, Deliverer, Schedule
from worker.runtime.health import HealthServer
from worker.runtime.lanes import IN_FLIGHT
from worker.setting_types import NO_URL
from worker.settings import Settings, mask_url
from worker.sinks.outbox import Outbox
from worker.sinks.webhook import Reach, Webhooks, read_secrets

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


def read_url(settings: Settings) -> str | None:
    """Return where verdicts go whose job names no URL of its own; None: nowhere.

    Raises:
        UsageError: Nothing is said: then all of them would be passed over, unnoticed.
    """
    if settings.webhook_url is None:
        raise UsageError(
            f"there is no URL to post to; set SLUICE_WEBHOOK_URL, or to `{NO_URL}` where every job names its own"
        )
    return None if settings.webhook_url == NO_URL else settings.webhook_url


def _open_deliverer(settings: Settings, connection: redis.Redis, metrics: Metrics) -> Deliverer:
    url, keys = read_url(settings), read_keys(settings)
    reach = Reach(
        settings.fetch_deny_networks,
        settings.fetch_ports,
        settings.fetch_allow_private,
        url if settings.webhook_allow_private else None,
    )
    return Deliverer(
        connection,
        open_outbox(settings, connection),
        Webhooks(keys, settings.webhook_timeout_seconds, reach, IN_FLIGHT),
        Schedule(settings.webhook_retry_seconds),
        url,
        settings.webhook_timeout_seconds + LEASE_MARGIN_SECONDS,
        lambda outcome, times: metrics.webhooks.labels(outcome).inc(times),
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
    _is_stopped: bool = False

    def check(self) -> None:
        """Make sure that the settings can be worked with.

        Raises:
            UsageError: A setting is wrong.
        """
        read_url(self.settings)
        read_keys(self.settings)

    def run(self, burst: bool) -> None:
        """Deliver until stopped, or until nothing is left to do now.

        Args:
            burst: End when the stream has been read and nothing is due.

        Raises:
            Missing: Redis is not there.
            UsageError: A setting is wrong.
        """
        settings = self.settings
        self.check()
        asking = open_redis(settings.redis_url)
        require_redis(asking, mask_url(settings.redis_url))
        self._metrics.begin_webhooks()
        health = self._listen(asking)
        try:
            self._deliverer = _open_deliverer(settings, open_redis(settings.redis_url, self._backoff), self._metrics)
            if burst:
                self._deliverer.finish()
            if self._is_stopped:
                self._deliverer.stop()
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
        self._is_stopped = True
        self._backoff.hurry()
        if self._deliverer is not None:
            self._deliverer.stop()

    def _listen(self, asking: redis.Redis) -> HealthServer | None:
        settings = self.settings
        if settings.metrics_port == 0:
            return None
        exporter = self._metrics.exporter()
        try:
            return HealthServer(
                settings.metrics_host, settings.metrics_port, exporter, self._live, lambda: self._ready(asking)
            )
        except UsageError as error:
            if "metrics_port" in settings.model_fields_set:
                raise
            # Nobody chose that port; most likely a worker has it.
            log.warning("no metrics: %s", error)
            return None

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
        read_url(settings)
        read_keys(settings)
        metrics.begin_webhooks()
        self._settings = settings
        self._metrics = metrics
        self._backoff = PatientBackoff()
        self._done = threading.Event()
        self._deliverer: Deliverer | None = None

    def run(self) -> None:
        """Deliver; after a failure, again."""
        connection = open_redis(self._settings.redis_url, self._backoff)
        while not self._done.is_set():
            try:
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
        if burst:
            if self._deliverer is not None:
                self._deliverer.finish()
            self.join(self._settings.webhook_timeout_seconds + _GOODBYE_SECONDS)
        self._backoff.hurry()
        if self._deliverer is not None:
            self._deliverer.stop()
        self.join(_GOODBYE_SECONDS)


def delivering(settings: Settings, metrics: Metrics, burst: bool) -> AbstractContextManager[None]:
    """Return a context in which verdicts are delivered by a thread.

    Args:
        settings: The worker's.
        metrics: The worker's.
        burst: At its end, first deliver what there is.

    Raises:
        UsageError: A setting is wrong; at once.
    """
    thread = DeliveryThread(settings, metrics)

    @contextmanager
    def context() -> Iterator[None]:
        thread.start()
        try:
            yield
        finally:
            thread.close(burst)

    return context()
