"""`make demo-policy`: a policy's next version from a changed sentence to promotion, every command typed for real.

In: nothing. Out: what the commands print, and two pages, in a directory that is named at the end. The Redis, the worker
and the model are its own.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.drawings import write_drawings, write_labels
from tools.running_worker import environment, running_worker
from worker.cli.embedded_redis import embedded_redis
from worker.policy.registry import shipped_directory

#: Variations of each of the 25 drawings, in each of two streams.
_EACH = 12
_COLUMNS = "120"
_KNIFE = "uploads/kitchen-knife-noto-0.png"
_SENTENCE = "      - a kitchen knife for cooking\n"
_MORE_SENTENCES = _SENTENCE + "      - a chef's knife\n"


class Desk:
    """An author's desk: a directory, and an environment in which `sluice` works.

    Args:
        home: The directory.
        url: Of the Redis.
    """

    def __init__(self, home: Path, url: str) -> None:
        self.home = home
        self._environment = environment(
            redis_url=url, model="builtin", policy="demo", policies="policies", metrics_port="0"
        ) | {"COLUMNS": _COLUMNS}

    def type(self, line: str, *files: str, registry: bool = False, most: int = 30, finds: bool = False) -> None:
        """Run a command, and show it and what it says.

        Args:
            line: What follows `sluice`.
            files: Further arguments, not shown one by one.
            registry: Whether policies are those of the registry.
            most: Lines that are shown.
            finds: Whether exit code 1, something was found, is what is expected.
        """
        print(f"\n$ sluice {line}{' …' if files else ''}", flush=True)
        done = subprocess.run(
            [sys.executable, "-m", "worker", *shlex.split(line), *files],
            check=False, cwd=self.home, env=self._environment | ({"SLUICE_POLICIES": "redis"} if registry else {}),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        lines = done.stdout.splitlines()
        left_out = [f"… {len(lines) - most} more lines"] if len(lines) > most else []
        print("\n".join([*lines[:most], *left_out]), flush=True)
        if done.returncode != int(finds):
            raise SystemExit(f"sluice {line}: exit code {done.returncode}")

    @contextmanager
    def worker(self) -> Iterator[None]:
        """Let a worker run that judges by the registry."""
        print("\n$ SLUICE_POLICIES=redis sluice work &", flush=True)
        with running_worker(self.home, self._environment | {"SLUICE_POLICIES": "redis"}):
            yield


def play(desk: Desk) -> None:
    """Go from the version that is live to its successor."""
    _prepare(desk.home)
    desk.type("policy publish policies/demo/v1.yaml")
    desk.type("policy activate demo@1")
    with desk.worker():
        _say(
            "A stream of drawings is judged by demo@1; their embeddings stay in the ledger. A kitchen knife is blocked."
        )
        _stream(desk, "uploads")
        _say("The author copies demo@1, adds a look-alike, and reads what changed.")
        desk.type("policy new demo")
        _edit(desk.home / "policies" / "demo" / "v2.yaml")
        desk.type("policy diff demo@1 demo@2", finds=True)
        _say("The numbers were fitted to other sentences, so they are fitted anew, to drawings that a person judged.")
        desk.type(
            "calibrate demo@2 --labels labels.csv --images uploads --target precision=0.95 "
            "--report calibration.html", most=60,
        )  # fmt: skip
        _say("What would have become of the stream under the new version?")
        desk.type("backtest demo@3 --against demo@1 --images uploads --report backtest.html", most=60)
        _say("It watches new uploads as a shadow, and decides nothing.")
        desk.type("policy publish policies/demo/v3.yaml")
        desk.type("policy shadow demo@3")
        _stream(desk, "later")
        desk.type("policy disagreements demo@3", registry=True)
        _say("It has seen enough, and decides from now on: without a restart, and until `sluice policy rollback demo`.")
        desk.type(
            "policy promote demo@3 --promote-min-verdicts 100 --promote-max-disagreement-percent 30", registry=True
        )
        desk.type("policy history demo", registry=True)
        time.sleep(1)
        desk.type(f"enqueue {_KNIFE} --content-id the-knife-again --wait", registry=True)


def _prepare(home: Path) -> None:
    shutil.copytree(shipped_directory() / "demo", home / "policies" / "demo")
    names = write_drawings(home / "uploads", _EACH)
    write_drawings(home / "later", _EACH, seed=1)
    write_labels(home / "labels.csv", names)


def _edit(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.count(_SENTENCE) == 1
    file.write_text(text.replace(_SENTENCE, _MORE_SENTENCES), encoding="utf-8")


def _stream(desk: Desk, directory: str) -> None:
    files = sorted(str(file.relative_to(desk.home)) for file in (desk.home / directory).glob("*.png"))
    desk.type("enqueue --wait", *files, registry=True, most=12)


def _say(sentence: str) -> None:
    print(f"\n── {sentence}", flush=True)


def main() -> None:
    """Play it in a directory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("home", type=Path, help="where everything is written; what is there goes")
    home = parser.parse_args().home.absolute()
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    with embedded_redis() as (url, _):
        play(Desk(home, url))
    print(f"\nopen {home}/calibration.html and {home}/backtest.html in a browser")


if __name__ == "__main__":
    main()
