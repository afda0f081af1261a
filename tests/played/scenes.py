"""What is played, scene by scene: every event that a metric counts, and a note of each that can be counted outside.

Each scene leaves the stage as it found it: all workers take jobs, and the traffic goes on.
"""

from __future__ import annotations

import functools
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import psutil
import support
from house import PNG
from PIL import Image
from receiver import answer
from rq.command import send_stop_job_command
from rq.job import Job
from rq.suspension import resume, suspend

from played import props
from played.cast import QUEUES, STRICT_QUEUE, WEBHOOK_WAITS, Cast
from played.traffic import Traffic

#: How long Redis is away, in seconds.
AWAY_SECONDS = 5.0
#: How long the workers take nothing, in seconds.
BACKLOG_SECONDS = 3.0
#: A consumer group that has stopped reading.
LAGGARD = "backend"


@dataclass
class Play:
    """The scenes, in the order of `SCENES`.

    Attributes:
        done: What was done, as a play can count it: name of what → how often.
    """

    cast: Cast
    done: Counter[str] = field(default_factory=Counter)
    _later: list[Job] = field(default_factory=list)
    _coming: support.Worker | None = None

    def __post_init__(self) -> None:
        self.house = self.cast.house
        self.webhooks = {
            path: self.cast.receiver.endpoint(path, *behaviours)
            for path, behaviours in {
                "/fine": [answer(204)], "/shaky": [answer(500), answer(204)], "/broken": [answer(500)],
                "/gone": [answer(410)],
            }.items()
        }  # fmt: skip
        self.traffic = Traffic(self.house, self.webhooks["/fine"])

    # -- waiting -----------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Wait until nothing waits in a queue or is in a worker's hands; what waits for a retry does not count."""
        queues = [self.house.queue(name) for name in (*QUEUES, STRICT_QUEUE)]
        support.until(
            lambda: not any(queue.count for queue in queues) and self.house.nothing_is_stranded(), what="all is done"
        )

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Have nothing under way and nothing that Prometheus has not seen."""
        with self.traffic.held():
            self.settle()
            self.cast.wait_for_scrape()
            yield

    # -- scenes ------------------------------------------------------------------------------------------------------

    def opening(self) -> None:
        """Uploads arrive, one consumer stops reading, and what takes its time is begun."""
        for data in props.DRAWINGS.values():
            self.cast.connection.set("sluice:blob:" + props.digest(data), data)
        self.traffic.send_every_drawing()
        self.traffic.start()
        support.until(lambda: self.cast.connection.xlen("sluice:verdicts"), what="a verdict")
        self.cast.connection.xgroup_create("sluice:verdicts", LAGGARD, "0")
        self.cast.connection.xreadgroup(LAGGARD, "one", {"sluice:verdicts": ">"}, count=1)
        down = self.cast.site.page("/down", (503, b""))
        shaky = self.cast.site.page("/shaky", (503, b""), (200, PNG))
        self._later = [self.house.enqueue(f"from{page[-5:]}", image={"url": page}) for page in (down, shaky)]
        self.done["retried"] += 3 + 1

    def webhooks_go_wrong(self) -> None:
        """Verdicts are posted to those who take them late, never, and no more."""
        names = {path: f"hook{path.replace('/', '-')}" for path in self.webhooks}
        jobs = [self.house.enqueue(names[path], webhook=url) for path, url in self.webhooks.items()]
        self.house.ended(*jobs)
        self.done.update(
            {"delivered": 2, "retried posts": 1 + len(WEBHOOK_WAITS), "dead posts": 1, "posts to nobody": 1}
        )

    def rejections(self) -> None:
        """Jobs and images that are refused at the door, on two queues."""
        page = self.cast.site.page
        square = support.encode(Image.new("RGB", (400, 400), "teal"))
        self.cast.connection.set("sluice:blob:" + props.digest(b"other"), b"than its name says")
        images = {
            "image_too_large": {"url": page("/too-large", (200, bytes(props.IMAGE_MAX_BYTES + 1)))},
            "image_undecodable": {"base64": "AAAA"},
            "image_truncated": {"url": page("/truncated", (200, square[: len(square) // 2]))},
            "image_format_refused": {"url": page("/bmp", (200, support.encode(Image.new("RGB", (9, 9)), "BMP")))},
            "address_refused": {"s3": "s3://of-somebody-else/image.png"},
            "path_refused": {"path": "/etc/hostname"},
            "source_refused": {"url": page("/nowhere", (404, b""))},
            "blob_mismatch": {"blob": props.digest(b"other")},
        }
        special: dict[str, dict[str, Any]] = {name: {"image": image} for name, image in images.items()}
        special |= {"unknown_policy": {"policy": "nobody"}, "invalid_job": {"colour": "red"}}
        for queue in ("moderation", "moderation-bulk"):
            named = {f"{name}-{queue}": job for name, job in special.items()}
            jobs = self.house.enqueue_batch(*named, queue=queue, special=named)
            self.house.ended(*jobs)
            found = {name: self.house.verdict(job).reason for name, job in zip(special, jobs, strict=True)}
            assert found == {name: name for name in special}, found

    def files_that_attack(self) -> None:
        """Files that take too much memory, that hang their decoder, and that crash it."""
        page, slow = self.cast.site.page, props.slow_file()
        self.house.ended(self.house.enqueue("attack-huge", image={"url": page("/huge", (200, props.huge_file()))}))
        for name, signum in (("hang", signal.SIGSTOP), ("crash", signal.SIGSEGV)):
            with self._decoders_get(signum):
                job = self.house.enqueue(f"attack-{name}", image={"url": page(f"/{name}", (200, slow))})
                self.house.ended(job)

    @contextmanager
    def _decoders_get(self, signum: int) -> Iterator[None]:
        """Send a signal to whatever process decodes something large, as a hole in a decoder would."""
        done = threading.Event()

        def send() -> None:
            while not done.wait(0.02):
                for pid in self._busy_decoders():
                    with suppress(ProcessLookupError):
                        os.kill(pid, signum)

        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _busy_decoders(self) -> Iterator[int]:
        for worker in self.cast.workers:
            with suppress(psutil.Error):
                for process in psutil.Process(worker.process.pid).children(recursive=True):
                    with suppress(psutil.Error):
                        # Nothing ordinary takes so much.
                        is_large = process.memory_info().rss > 150 * 1024 * 1024
                        if is_large and "worker.intake.cell" in process.cmdline():
                            yield process.pid

    def slow_jobs(self) -> None:
        """A job is late, and an operator stops another; without others, for else a whole batch is run apart."""
        with self.traffic.held():
            self.settle()
            late = self.house.enqueue("late", image=self.house.slow_page("/late", 8), timeout=1)
            stopped = self.house.enqueue("stopped", image=self.house.slow_page("/stopped", 20))
            support.until(lambda: self.cast.site.asked["/stopped"], what="the job runs")
            send_stop_job_command(self.cast.connection, stopped.id, serializer=stopped.serializer)
            self.house.ended(late, stopped)

    def policies_change(self) -> None:
        """A canary, a file that is broken, a directory that is gone for a moment, another live version."""
        write = functools.partial(props.write_rollout, self.cast.policies)
        house = {"live": 1, "shadow": [2]}
        write(demo={"live": 1, "shadow": [3], "canary": {"version": 2, "percent": 50}}, house=house)
        self._all_have("ok", 1)
        time.sleep(1.5)
        broken = self.cast.policies / props.CALIBRATED / "v9.yaml"
        broken.write_text("policy: demo\nversion: 9\ncategories: {}\n")
        self._all_have("invalid", 1)
        # Long enough that a scrape sees it.
        time.sleep(1.5)
        broken.unlink()
        self._all_have("ok", 2)
        write(demo={"live": 2, "shadow": [1, 3]}, house={"live": 3, "shadow": [2]})
        self._all_have("ok", 3)

    def _all_have(self, result: str, times: int) -> None:
        for worker in self.cast.workers:
            reloads = functools.partial(worker.metric, "sluice_policy_reloads_total", result=result)
            support.until(lambda reloads=reloads: reloads() >= times, what=f"{times} reloads are {result}")

    def backlog(self) -> None:
        """An operator suspends the workers, and jobs wait."""
        suspend(self.cast.connection)
        try:
            time.sleep(BACKLOG_SECONDS)
        finally:
            resume(self.cast.connection)

    def redis_away(self) -> None:
        """Redis dies, and comes back."""
        with self.quiet():
            self.cast.server.kill()
            time.sleep(AWAY_SECONDS)
            self.cast.start_redis()
            for worker in self.cast.workers:
                ready = functools.partial(support.get, worker.metrics_url + "/readyz")
                support.until(lambda ready=ready: ready()[0] == 200, what="the worker is ready again")

    def kill(self) -> None:
        """A worker is killed with jobs in hand, which the other ends."""
        with self.quiet():
            victim = self.cast.workers[-1]
            held = self._occupy(victim)
            self.cast.kill(victim)
            self.done["recovered"] += len(held)
            self.settle()
            self._poison()

    def _occupy(self, worker: support.Worker) -> list[Job]:
        """Have a worker hold jobs that take a while; those that it holds."""
        (name,) = [
            key.decode().removeprefix("rq:worker:")
            for key in self.cast.connection.smembers("rq:workers")
            if self.cast.connection.hget(key, "pid") == str(worker.process.pid).encode()
        ]
        for place in range(20):
            self.house.enqueue(f"held-{place}", image=self.house.slow_page(f"/held-{place}", 2))
            support.until(lambda place=place: self.cast.site.asked[f"/held-{place}"], what="the job runs")
            if held := self.cast.connection.hgetall("sluice:held:" + name):
                return list(held)
        raise AssertionError("the worker takes no job")

    def _poison(self) -> None:
        """A job kills the horse that looks at it, until it is quarantined; meanwhile another worker is called."""
        (worker,) = self.cast.workers
        signals = iter([signal.SIGSEGV])

        def kill() -> None:
            # The first death is a crash, the others are the kernel's.
            os.kill(support.until(lambda: worker.horse_pid), next(signals, signal.SIGKILL))

        page = self.cast.site.page("/poison", (200, PNG), wait_seconds=0.2, tell=kill)
        poison = self.house.enqueue("poison", image={"url": page})
        support.until(lambda: self.cast.site.asked["/poison"], what="the only worker has it")
        self._coming = self.cast.call("work", uncalibrated="refuse", queues=",".join((STRICT_QUEUE, *QUEUES)))
        self.house.ended(poison)

    def successor(self) -> None:
        """Another worker takes the place of the dead one, which refuses policies without calibration."""
        assert self._coming is not None
        self.cast.welcome(self._coming)
        strict = self.house.enqueue_batch(
            "strict-1", "strict-2", queue=STRICT_QUEUE, special={"strict-1": {"policy": props.UNCALIBRATED}}
        )
        self.house.ended(*strict)

    def closing(self) -> None:
        """All that was begun has ended, and Prometheus has seen it."""
        self.house.ended(*self._later)
        self.traffic.stop()
        self.settle()
        support.until(self._is_posted, what="all verdicts are posted or given up")
        self.cast.wait_for_scrape()

    def _is_posted(self) -> bool:
        assert self.cast.deliverer is not None
        settled = sum(
            self.cast.deliverer.metric("sluice_webhooks_total", outcome=outcome)
            for outcome in ("delivered", "dead", "endpoint_off")
        )
        return settled == len(self.traffic.hooked) + len(self.webhooks)


#: In this order; the traffic begins with the first and ends with the last.
SCENES: tuple[Callable[[Play], None], ...] = (
    Play.opening, Play.rejections, Play.webhooks_go_wrong, Play.policies_change, Play.files_that_attack, Play.slow_jobs,
    Play.backlog, Play.redis_away, Play.kill, Play.successor, Play.closing,
)  # fmt: skip
