"""`python -m tools.recording [FILE.svg]`: the first minutes with Sluice, typed for real, as one picture that moves.

In: nothing. Out: an SVG without scripts, whose lines appear one after the other and stay. The Redis, the worker and the
model are its own. Never a path or a name of the machine that it was recorded on.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

from rich.console import Console
from rich.text import Text

from tools.drawings import DRAWINGS
from tools.running_worker import environment, running_worker
from worker.cli.embedded_redis import embedded_redis
from worker.policy.registry import shipped_directory

_COLUMNS, _SIGN_WIDTH, _SIGN_HEIGHT = 100, 12, 20
_SIGN_SECONDS, _ANSWER_SECONDS, _LINE_SECONDS, _READ_SECONDS = 0.03, 0.5, 0.05, 1.4
#: What rich fills in; its own page would fetch fonts.
_PAGE = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">
<title>The first minutes with Sluice</title><desc>A terminal: DESCRIPTION</desc><style>
.{unique_id}-matrix {{ font: {char_height}px/{line_height}px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace }}
.{unique_id}-matrix text {{ white-space: pre; animation: appear 1ms both }}
.{unique_id}-title {{ font: bold 18px sans-serif }}
@keyframes appear {{ from {{ opacity: 0 }} }}
@media (prefers-reduced-motion: reduce) {{ .{unique_id}-matrix text {{ animation: none !important }} }}
{styles}</style>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})">{backgrounds}<g class="{unique_id}-matrix">{matrix}</g></g>
</svg>
"""


class Step(NamedTuple):
    """A line that is typed, how much of the answer is shown, and whether exit code 1, it found something, is right."""

    line: str
    first: int = 12
    last: int = 0
    finds: bool = False


STEPS = (
    Step("sluice score knife.png"),
    Step("sluice work &"),
    Step("sluice enqueue *.png --wait", first=7, last=2),
    Step("sluice explain knife.png", first=1, last=3),
    Step("sluice policy new demo"),
    Step(r"sed -i '/a kitchen/a\      - household cutlery\n      - a set of cutlery' policies/demo/v2.yaml"),
    Step("sluice policy diff demo@1 demo@2", finds=True),
    Step("sluice backtest demo@2 --against demo@1", first=4, last=4),
)


def play(home: Path) -> Iterator[tuple[str, list[str]]]:
    """Type every line in a directory; yields it with what is shown of the answer."""
    shutil.copytree(shipped_directory(), home / "policies")
    for drawing in DRAWINGS.glob("*.png"):
        shutil.copy(drawing, home / f"{drawing.stem.rsplit('-', 1)[0].removeprefix('kitchen-')}.png")
    with ExitStack() as stack:
        url, _ = stack.enter_context(embedded_redis())
        terminal = _terminal(url)
        for step in STEPS:
            if step.line.endswith("&"):
                stack.enter_context(running_worker(home, terminal))
                yield step.line, []
            else:
                yield step.line, _answer(step, home, terminal)


def _terminal(url: str) -> dict[str, str]:
    own = environment(redis_url=url, model="builtin", policy="demo", policies="policies", metrics_port="0")
    own["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), own["PATH"]])
    return own | {"COLUMNS": str(_COLUMNS), "FORCE_COLOR": "1", "TERM": "xterm-256color"}


def _answer(step: Step, home: Path, terminal: dict[str, str]) -> list[str]:
    done = subprocess.run(step.line, shell=True, check=False, cwd=home, env=terminal, capture_output=True, text=True)
    if done.returncode != int(step.finds):
        raise SystemExit(f"{step.line}: exit code {done.returncode}\n{done.stderr}")
    lines = done.stdout.rstrip().splitlines()
    if len(lines) > step.first + step.last:
        lines[step.first : len(lines) - step.last] = ["  …"]
    return lines


def draw(played: list[tuple[str, list[str]]]) -> str:
    """Draw the terminal as it is at the end, every sign with the moment at which it appears."""
    console = Console(record=True, width=_COLUMNS, file=io.StringIO())
    # Of each line: when its first sign appears, and how much later each further one.
    moments: list[tuple[float, float]] = []
    now = 0.5
    for line, answer in [*played, ("", [])]:
        # A style for each sign makes each a text of its own.
        console.print(Text.assemble(*((sign, "bold bright_white") for sign in f"$ {line}")))
        moments.append((now, _SIGN_SECONDS))
        now += len(line) * _SIGN_SECONDS + _ANSWER_SECONDS
        for row in [*answer, ""] if answer else []:
            for text in Text.from_ansi(row).wrap(console, _COLUMNS):
                console.print(text)
                moments.append((now, 0))
                now += _LINE_SECONDS
        now += _READ_SECONDS if answer else 0
    page = _PAGE.replace("DESCRIPTION", escape("; ".join(line for line, _ in played)))
    svg = console.export_svg(title="sluice", code_format=page, font_aspect_ratio=_SIGN_WIDTH / _SIGN_HEIGHT)

    def timed(text: re.Match[str]) -> str:
        place, x, line = text.groups()
        first, further = moments[int(line)]
        return f'{place} style="animation-delay:{first + further * float(x) / _SIGN_WIDTH:.2f}s"'

    # Rich writes the line that a text belongs to as the number of a clip path.
    return re.sub(r'(x="([\d.]+)" y="[^"]+" textLength="[^"]+") clip-path="url\(#[\w-]+-line-(\d+)\)"', timed, svg)


def main() -> None:
    """Record, and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, nargs="?", default=Path("docs/images/first-minutes.svg"))
    file: Path = parser.parse_args().file
    with tempfile.TemporaryDirectory() as home:
        svg = draw(list(play(Path(home))))
    for secret in (home, str(Path.home()), str(Path.cwd()), socket.gethostname()):
        if secret in svg:
            raise SystemExit(f"the recording names {secret}")
    file.write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
