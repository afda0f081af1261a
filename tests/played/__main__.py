"""`python -m played`: plays, then draws the dashboards, or stays until it is told to end.

In: SIGINT or SIGTERM ends it. Out: the times of the scenes; a page with `--draw`, else one line of JSON: where
Prometheus is, and for which time it has something to show.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

from played import Played, playing
from tools.dashboards import preview, read
from tools.dashboards.asking import Asking


def main() -> None:
    """Play and stay."""
    parser = argparse.ArgumentParser(prog="python -m played", description="Play every kind of event to a Prometheus.")
    parser.add_argument("--for", dest="seconds", type=float, default=120.0, help="seconds that the play shall take")
    parser.add_argument("--prometheus-port", type=int, default=0, help="of 127.0.0.1; 0: any")
    parser.add_argument("--draw", type=Path, metavar="FILE", help="draw the dashboards into this page, and end")
    options = parser.parse_args()
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, end)
    with (
        tempfile.TemporaryDirectory(prefix="played-") as directory,
        playing(Path(directory), options.seconds, options.prometheus_port) as played,
    ):
        if options.draw:
            options.draw.parent.mkdir(parents=True, exist_ok=True)
            options.draw.write_text(preview.page([read.load(path) for path in read.paths()], asking(played)))
            print(f"open {options.draw}", flush=True)
            return
        times = {"began": played.began, "ended": played.ended}
        print(json.dumps({"prometheus": played.cast.prometheus.url} | times), flush=True)
        signal.pause()


def asking(played: Played) -> Asking:
    """Ask its Prometheus, which scrapes every second, about the play; scores are compared with a moment before."""
    minutes = (played.ended - played.began) / 60
    options = ["--prometheus", played.cast.prometheus.url, "--minutes", f"{minutes}", "--end", f"{played.ended}"]
    return preview.asking_of(preview.arguments().parse_args([*options, "--scrape-seconds", "1", "--before", "10s"]))


def end(signum: int, frame: FrameType | None) -> None:
    """End, and with it all that was started."""
    sys.exit(0)


main()
