"""Who plays: a Redis, two workers and a successor, a deliverer, those around them, and a Prometheus that watches."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import redis
import support
from house import House
from prometheus_client.parser import text_string_to_metric_families
from receiver import SECRET, Receiver

from played import props
from played.prometheus import Prometheus, running_prometheus

QUEUES = ("moderation-high", "moderation", "moderation-bulk")
#: Served by the worker that refuses what is not calibrated, and by no other.
STRICT_QUEUE = "moderation-strict"
#: Waits between the attempts to post a verdict, in seconds.
WEBHOOK_WAITS = (0.5, 1.0)
_REDIS_MEMORY = "256mb"

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def series_of(metrics_url: str) -> Series:
    """Read what an exporter shows: (name, labels) → value; nothing where nobody listens."""
    families = text_string_to_metric_families(support.get(metrics_url + "/metrics")[1])
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


@dataclass
class Cast:
    """Those who play.

    Attributes:
        directory: Where they run and log.
        policies: What the workers read.
        workers: Those that take jobs now.
        deliverer: The `sluice deliver` beside them.
    """

    directory: Path
    policies: Path
    server: support.DurableRedis
    connection: redis.Redis
    site: support.Website
    receiver: Receiver
    prometheus: Prometheus
    _stack: ExitStack
    _running: dict[str, list[support.Worker]] = field(default_factory=lambda: {"work": [], "deliver": []})
    workers: list[support.Worker] = field(default_factory=list)
    deliverer: support.Worker | None = None

    @property
    def house(self) -> House:
        """What a producer and a consumer do."""
        return House(self.connection, self.site, self.directory)

    @property
    def exporters(self) -> list[str]:
        """Metrics ports of all that run now."""
        return [each.metrics_url for each in (*self.workers, self.deliverer) if each is not None]

    def call(self, command: str, **settings: object) -> support.Worker:
        """Start a process of `sluice`.

        Args:
            command: `work` or `deliver`.
            **settings: That differ from those of the others.
        """
        each = support.Worker(self._settings() | settings, self.directory, (), {}, command)
        self._stack.callback(_end, each)
        self._running[command].append(each)
        for job, kind in (("sluice", "work"), ("sluice-deliver", "deliver")):
            # As a look-up of names finds what runs, ready or not.
            self.prometheus.watch(job, *(one.metrics_url for one in self._running[kind]))
        return each

    def welcome(self, *workers: support.Worker) -> None:
        """Wait until workers take jobs."""
        for worker in workers:
            worker.wait_ready()
        self.workers += workers

    def kill(self, worker: support.Worker) -> None:
        """Kill a worker as a machine that goes dark does; Prometheus misses it until another is called."""
        worker.process.kill()
        worker.process.wait()
        self.workers.remove(worker)
        self._running["work"].remove(worker)

    def has_caught_up(self, *prefixes: str) -> bool:
        """Whether Prometheus has what the exporters show now, of metrics whose names begin so."""
        for url in self.exporters:
            shown = {
                (name, *sorted(labels)): value
                for (name, labels), value in series_of(url).items()
                if name.startswith(prefixes)
            }
            matcher = f'{{__name__=~"({"|".join(prefixes)}).*",instance="{url.removeprefix("http://")}"}}'
            known = {}
            for row in self.prometheus.query(matcher):
                labels = {name: value for name, value in row["metric"].items() if name not in ("job", "instance")}
                known[labels.pop("__name__"), *sorted(labels.items())] = float(row["value"][1])
            if any(known.get(key) != value for key, value in shown.items()):
                return False
        return True

    def wait_for_scrape(self) -> None:
        """Wait until Prometheus has all that was counted; nothing may be counted meanwhile."""
        counted = ("sluice_verdicts", "sluice_jobs", "sluice_images", "sluice_webhooks", "sluice_policy")
        support.until(lambda: self.has_caught_up(*counted), what="Prometheus has what was counted")

    def start_redis(self) -> None:
        """Start Redis, or start it again, with a limit on its memory as the shipped one has."""
        self.server.start()
        self.connection.connection_pool.disconnect()
        self.connection.config_set("maxmemory", _REDIS_MEMORY)

    def _settings(self) -> dict[str, object]:
        return {
            "redis_url": self.server.url, "model": "builtin", "policies": self.policies, "policy": props.CALIBRATED,
            "queues": ",".join(QUEUES), "batch_size": 8, "threads": 1, "recovery_seconds": 2,
            "fetch_allow_private": True, "fetch_timeout_seconds": 30, "fetch_read_timeout_seconds": 30,
            "image_max_bytes": props.IMAGE_MAX_BYTES, "image_max_pixels": props.IMAGE_MAX_PIXELS,
            "decode_memory_bytes": props.DECODE_MEMORY_BYTES, "decode_timeout_seconds": props.DECODE_TIMEOUT_SECONDS,
            "webhook_url": "none", "webhook_secret": SECRET,
            "webhook_retry_seconds": ",".join(map(str, WEBHOOK_WAITS)),
        }  # fmt: skip


def _end(each: support.Worker) -> None:
    if each.process.poll() is None:
        each.process.kill()
        each.process.wait()


@contextmanager
def assembled(directory: Path, prometheus_port: int = 0) -> Iterator[Cast]:
    """Have everybody on stage for as long as the context lasts; skips the test where Prometheus or Redis is missing.

    Args:
        directory: Where they run and log.
        prometheus_port: Where Prometheus listens; 0: anywhere.
    """
    with ExitStack() as stack:
        prometheus = stack.enter_context(running_prometheus(directory, ("sluice", "sluice-deliver"), prometheus_port))
        server = support.DurableRedis(directory)
        stack.callback(server.kill)
        connection = stack.enter_context(contextlib.closing(redis.Redis(port=server.port)))
        site, receiver = support.Website(), Receiver()
        stack.callback(site.close)
        stack.callback(receiver.close)
        policies = props.write_policies(directory / "policies")
        cast = Cast(directory, policies, server, connection, site, receiver, prometheus, stack)
        cast.start_redis()
        cast.deliverer, *workers = (cast.call(command) for command in ("deliver", "work", "work"))
        cast.welcome(*workers)
        yield cast
