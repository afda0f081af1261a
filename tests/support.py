"""What several tests need: random-weight CLIP checkpoints, images, servers and commands to run."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest.mock
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import pytest
import redis
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from redis.backoff import NoBackoff
from redis.retry import Retry

T = TypeVar("T")


def write_random_clip(directory: Path, **config: Any) -> Path:
    """Write a CLIP with random weights: right shapes and cost, no meaning; ViT-B/32 without a config."""
    from worker.bench.checkpoint import write_random_clip

    return write_random_clip(directory, **config)


def write_tiny_clip(directory: Path) -> Path:
    """Write a random CLIP that embeds in a millisecond."""
    text = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "max_position_embeddings": 24, "vocab_size": 600, "bos_token_id": 598, "eos_token_id": 599,
        "projection_dim": 32,
    }  # fmt: skip
    vision = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": 32, "patch_size": 8, "projection_dim": 32,
    }  # fmt: skip
    return write_random_clip(directory, text_config=text, vision_config=vision, projection_dim=32)


def encode(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    """Return an image as the bytes of a file."""
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


# -- servers and commands --------------------------------------------------------------------------------------------

#: The installed command.
SLUICE = Path(sys.executable).with_name("sluice")
#: How long anything that must happen may take, in seconds: far more than it takes on an idle machine.
PATIENCE_SECONDS = 60.0


def until(check: Callable[[], T], seconds: float = PATIENCE_SECONDS, what: str = "") -> T:
    """Return the first true answer of `check`; fail when there is none in time."""
    deadline = time.monotonic() + seconds
    while not (answer := check()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what or check}")
        time.sleep(0.02)
    return answer


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get(url: str) -> tuple[int, str]:
    """Return status and text of a page on this machine; status 0 where nobody listens."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


def environment(settings: Mapping[str, object] | None = None, **variables: str) -> dict[str, str]:
    """Return the environment of a process: none of the caller's SLUICE_ variables, but these settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
    return kept | {f"SLUICE_{name.upper()}": str(value) for name, value in (settings or {}).items()} | variables


def sluice(
    *arguments: object,
    settings: Mapping[str, object] | None = None,
    directory: Path | None = None,
    seconds: float = PATIENCE_SECONDS,
    **variables: str,
) -> subprocess.CompletedProcess[str]:
    """Run the installed command to its end; where no `.env` lies, unless in a directory that may hold one."""
    return subprocess.run(
        [SLUICE, *map(str, arguments)],
        env=environment(settings, **variables),
        cwd=directory or tempfile.gettempdir(),
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def typed(
    *arguments: object, settings: Mapping[str, object] | None = None, directory: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run the command in this process, where torch is imported already: for many small tries of one command."""
    from worker.cli import main

    said, errors = io.StringIO(), io.StringIO()
    with (
        unittest.mock.patch.dict(os.environ, environment(settings, **variables), clear=True),
        contextlib.chdir(directory or tempfile.gettempdir()),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(errors),
    ):
        try:
            code = main([*map(str, arguments)])
        except SystemExit as ended:
            code = int(ended.code or 0)
    return subprocess.CompletedProcess(["sluice", *map(str, arguments)], code, said.getvalue(), errors.getvalue())


class DurableRedis:
    """A Redis server of one's own that writes every command to disk: it can be killed and started again.

    Args:
        directory: Where it writes.
    """

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it has read its file."""
        binary = next(filter(None, map(shutil.which, ("redis-server", "valkey-server"))), None)
        if binary is None:
            pytest.skip("needs redis-server or valkey-server on PATH")
        options = {"port": self.port, "bind": "127.0.0.1", "dir": self._directory, "save": "",
                   "appendonly": "yes", "appendfsync": "always"}  # fmt: skip
        command = [binary, *(part for name, value in options.items() for part in (f"--{name}", str(value)))]
        until(lambda: self._answers(command), what="Redis answers")

    def kill(self) -> None:
        """Kill it as a power cut does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Let it hang: it keeps its connections and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _answers(self, command: Sequence[str | Path]) -> bool:
        if self._process is None or self._process.poll() is not None:
            # While it was away, another process may have had its port for a moment.
            self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            with redis.Redis(port=self.port, retry=Retry(NoBackoff(), 0)) as connection:
                return connection.info("server")["process_id"] == self._process.pid
        except redis.ConnectionError:
            return False


class Website:
    """Answers on loopback as it was told: for each path a list of answers, the last one for ever.

    Attributes:
        url: Where it is.
        asked: How often each path was asked for.
    """

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self._answers: dict[str, list[tuple[int, bytes, float]]] = {}
        self._tell: dict[str, Callable[[], None]] = {}
        self._headers: dict[str, Mapping[str, str]] = {}
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body, wait_seconds = site._next(self.path.partition("?")[0])
                time.sleep(wait_seconds)
                with contextlib.suppress(OSError):
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(body)))
                    for name, value in site._headers.get(self.path.partition("?")[0], {}).items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def page(
        self,
        path: str,
        *answers: tuple[int, bytes],
        wait_seconds: float = 0.0,
        tell: Callable[[], None] = lambda: None,
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """Put up a page; its URL.

        Args:
            path: Where.
            *answers: Status and body of each.
            wait_seconds: Before each.
            tell: Called whenever somebody asks for it, before it is answered.
            headers: Of each answer.
        """
        self._headers[path] = headers or {}
        self._answers[path] = [(status, body, wait_seconds) for status, body in answers]
        self._tell[path] = tell
        return self.url + path

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _next(self, path: str) -> tuple[int, bytes, float]:
        answers = self._answers.get(path, [(404, b"", 0.0)])
        place = min(self.asked[path], len(answers) - 1)
        self.asked[path] += 1
        self._tell.get(path, lambda: None)()
        return answers[place]


def _command_of(pid: str) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent does not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


class Worker:
    """A `sluice work` that runs, or another command that stays, as a process of its own.

    Attributes:
        process: It.
        metrics_url: Where its metrics port is.
    """

    def __init__(
        self,
        settings: Mapping[str, object],
        directory: Path,
        flags: Sequence[str],
        variables: Mapping[str, str],
        command: str = "work",
    ) -> None:
        port = free_port()
        self.metrics_url = f"http://127.0.0.1:{port}"
        self._log = directory / f"{command}-{port}.log"
        with self._log.open("wb") as file:
            self.process = subprocess.Popen(
                [SLUICE, command, *flags],
                env=environment({"metrics_port": port} | dict(settings), **variables),
                cwd=directory,
                stdout=file,
                stderr=file,
            )

    @property
    def log(self) -> str:
        """What it said so far."""
        return self._log.read_text(errors="replace")

    @property
    def horse_pid(self) -> int:
        """The process that holds its model; 0 where there is none."""
        with contextlib.suppress(OSError):
            pid = self.process.pid
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            return next((int(child) for child in children if b"worker.runtime.horse" in _command_of(child)), 0)
        return 0

    def kill_horse(self) -> int:
        """Kill the process that holds its model, as a lack of memory does; its id."""
        pid = until(lambda: self.horse_pid, what="there is a horse")
        os.kill(pid, signal.SIGKILL)
        return pid

    def wait_ready(self) -> None:
        """Wait until it takes jobs."""
        until(lambda: self.process.poll() is not None or "ready:" in self.log, what="the worker is ready")
        assert self.process.poll() is None, self.log[-2000:]
        until(lambda: get(self.metrics_url + "/readyz")[0] == 200, what="/readyz")

    def leave(self, seconds: float = PATIENCE_SECONDS, signum: int = signal.SIGTERM) -> int:
        """Ask it to leave; its exit code."""
        self.process.send_signal(signum)
        return self.process.wait(seconds)

    def metric(self, name: str, **labels: str) -> float:
        """Read one sample of its metrics; 0 where there is none."""
        families = text_string_to_metric_families(get(self.metrics_url + "/metrics")[1])
        samples = (sample for family in families for sample in family.samples)
        return sum(sample.value for sample in samples if sample.name == name and sample.labels == labels)


@contextlib.contextmanager
def running_worker(
    settings: Mapping[str, object], directory: Path, *flags: str, wait: bool = True, **variables: str
) -> Iterator[Worker]:
    """Run `sluice work` for as long as the context lasts.

    Args:
        settings: By the names of their fields.
        directory: Where it runs and logs.
        flags: More of the command line.
        wait: Until it takes jobs.
        variables: Of its environment.
    """
    worker = Worker(settings, directory, flags, variables)
    try:
        if wait:
            worker.wait_ready()
        yield worker
    finally:
        if worker.process.poll() is None:
            worker.process.kill()
            worker.process.wait()


HOUSE_POLICY = """\
policy: house
version: {version}
contrast: [a photo of food, people at work]
categories:
  weapons: {{prompts: [a gun, a rifle], look_alikes: [a kitchen knife], thresholds: {{review: {review}, block: 0.9}}}}
  drugs: {{prompts: [pills], thresholds: {{review: 0.5}}}}
"""


def write_house_policies(directory: Path) -> Path:
    """Write the policy `house`: version 1 is live, version 2 watches, version 3 is not at work."""
    (directory / "house").mkdir(parents=True)
    write_house_policies_over(directory)
    return directory


def write_house_policies_over(directory: Path) -> None:
    """Write the same over what became of it."""
    for version, review in ((1, 0.5), (2, 0.0), (3, 0.5)):
        (directory / "house" / f"v{version}.yaml").write_text(HOUSE_POLICY.format(version=version, review=review))
    (directory / "rollout.yaml").write_text("house: {live: 1, shadow: [2]}\n")
