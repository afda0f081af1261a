"""`sluice demo`: the whole house in a minute, with a Redis and a model of its own."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, NoReturn

from rich.console import Console
from rich.live import Live

from worker.cli.console import Commands, add_command, settings_of
from worker.cli.embedded_redis import embedded_redis, end, free_port
from worker.cli.tables import add_verdict, verdict_table
from worker.client import Moderation
from worker.connection import open_redis, require_redis
from worker.errors import SluiceError, UsageError
from worker.records import QUEUES, Verdict
from worker.settings import mask_url

_IMAGES = Path(__file__).parent / "demo_images"
#: Loading torch and the model takes most of it.
_PATIENCE_SECONDS = 120.0
_GOODBYE_SECONDS = 15.0
_COUNTED_SECONDS = 5.0
_DONE = f'sluice_jobs_total{{outcome="done",queue="moderation"}} {len(list(_IMAGES.glob("*.png")))}.0'
_SHOWN_METRICS = ("sluice_jobs_total{", "sluice_verdicts_total{", "sluice_stage_seconds_count{", "sluice_model_info{")


def add_commands(commands: Commands) -> None:
    """Add the group's command."""
    add_command(
        commands,
        "demo",
        _demo,
        "see it work: a Redis, a worker with the packaged model, sample drawings, their verdicts and metrics",
        ("redis_url",),
        "  sluice demo\n  sluice demo --redis-url redis://127.0.0.1:6379/0      a Redis of your own, without jobs",
    )


def _demo(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    console = Console()
    with ExitStack() as stack:
        stack.enter_context(_signals_as_interrupt())
        if options.setting_redis_url:
            url = settings.redis_url
            _require_unused(url)
            console.print(f"1. Redis at {mask_url(url)}")
        else:
            url, what = stack.enter_context(embedded_redis())
            console.print(f"1. Redis: {what} at {url}, for as long as this takes")
        metrics_port = free_port()
        worker, log = stack.enter_context(_worker(url, metrics_port))
        console.print(
            "2. worker: `sluice work --model builtin --policy demo`, loading its model meanwhile", soft_wrap=True
        )
        _show_verdicts(console, url, worker, log)
        _show_metrics(console, metrics_port)
    _show_next(console)
    return 0


def _require_unused(url: str) -> None:
    """Make sure that nobody's uploads are judged by a model that knows drawings.

    Raises:
        RedisUnreachable: Redis does not answer.
        UsageError: It has jobs.
    """
    connection = open_redis(url)
    require_redis(connection, mask_url(url))
    if any(connection.exists(f"rq:queue:{name}") for name in QUEUES.values()):
        raise UsageError(f"Redis at {mask_url(url)} has jobs waiting; give the demonstration an empty one, or none")


@contextmanager
def _signals_as_interrupt() -> Iterator[None]:
    """Clean up on SIGTERM, and when the terminal is closed, as on Ctrl-C."""

    def interrupt(signum: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    # What `nohup` has set to be ignored stays so.
    heard = [signum for signum in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(signum) != signal.SIG_IGN]
    before = {signum: signal.signal(signum, interrupt) for signum in heard}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


@contextmanager
def _worker(url: str, metrics_port: int) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    from worker.policy.registry import shipped_directory

    flags = {
        "redis-url": url, "model": "builtin", "policies": str(shipped_directory()), "policy": "demo",
        "metrics-port": str(metrics_port), "metrics-host": "127.0.0.1", "queues": "moderation",
    }  # fmt: skip
    command = [sys.executable, "-m", "worker", "work", *(f"--{name}={value}" for name, value in flags.items())]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            yield process, log
        finally:
            end(process, _GOODBYE_SECONDS)


def _show_verdicts(console: Console, url: str, worker: subprocess.Popen[bytes], log: IO[bytes]) -> None:
    moderation = Moderation.from_url(url)
    images = sorted(_IMAGES.glob("*.png"))
    jobs = moderation.enqueue_many(
        [{"content_id": image.stem, "data": image.read_bytes(), "policy": "demo"} for image in images]
    )
    console.print(f"3. {len(jobs)} sample drawings on the queue; their verdicts as they arrive:\n")
    waiting = {job.id for job in jobs}
    table = verdict_table()
    with Live(table, console=console, refresh_per_second=8):
        for verdict in _follow(moderation, worker, log, waiting):
            add_verdict(table, verdict)


def _follow(
    moderation: Moderation, worker: subprocess.Popen[bytes], log: IO[bytes], waiting: set[str]
) -> Iterator[Verdict]:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while waiting:
        if worker.poll() is not None or time.monotonic() > deadline:
            log.seek(0)
            says = log.read().decode(errors="replace").strip().splitlines()[-1:] or ["nothing"]
            raise SluiceError(f"the demonstration's worker gave no verdict; it says: {says[0]}")
        for verdict in moderation.verdicts("sluice-demo", "demo", idle_seconds=1.0):
            if verdict.job_id in waiting:
                waiting.discard(verdict.job_id)
                yield verdict
            if not waiting:
                break


def _show_metrics(console: Console, port: int) -> None:
    deadline = time.monotonic() + _COUNTED_SECONDS
    lines = _read_metrics(port)
    # A worker counts a moment after its verdicts are in Redis.
    while _DONE not in "\n".join(lines) and time.monotonic() < deadline:
        time.sleep(0.05)
        lines = _read_metrics(port)
    console.print("\n4. what Prometheus would read from the worker's /metrics (a part):\n")
    for line in lines:
        if line.startswith(_SHOWN_METRICS) and not line.endswith(" 0.0"):
            console.print(f"   {line}", highlight=False, soft_wrap=True)


def _read_metrics(port: int) -> list[str]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        return list(answer.read().decode().splitlines())


def _show_next(console: Console) -> None:
    from worker.policy.registry import shipped_directory

    # Where the commands below find the policy, unless they are typed in a checkout.
    policies = "" if Path("policies/demo").is_dir() else f" --policies {shlex.quote(str(shipped_directory()))}"
    drawing = shlex.quote(os.path.relpath(_IMAGES / "revolver-noto.png"))
    typed = _as_typed()
    console.print(
        "\n5. your turn. The packaged model knows drawings, not photographs: it is for trying the tool, never for\n"
        "   moderating uploads. `sluice work` uses openai/clip-vit-base-patch32 unless told otherwise.\n\n"
        f"   one verdict, without a queue:\n     {typed} score {drawing} --model builtin --policy demo{policies}\n"
        f"   what the verdicts above were judged by:\n     {typed} policy show demo{policies}\n"
        f"   what a real set-up still lacks:\n     {typed} doctor --model builtin{policies}\n",
        highlight=False,
        soft_wrap=True,
    )


def _as_typed() -> str:
    """Return what starts this command here: its name, where a shell finds it."""
    return (
        "sluice" if shutil.which("sluice") else shlex.quote(os.path.relpath(Path(sys.executable).with_name("sluice")))
    )
