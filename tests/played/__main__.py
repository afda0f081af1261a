"""`python -m played --for 120 --prometheus-port N`: plays, says when it is over, and stays until it is told to end.

In: SIGINT or SIGTERM ends it. Out: the times of the scenes, then one line of JSON: where Prometheus is, and for which
time it has something to show.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

from played import playing


def main() -> None:
    """Play and stay."""
    parser = argparse.ArgumentParser(prog="python -m played", description="Play every kind of event to a Prometheus.")
    parser.add_argument("--for", dest="seconds", type=float, default=120.0, help="seconds that the play shall take")
    parser.add_argument("--prometheus-port", type=int, default=0, help="of 127.0.0.1; 0: any")
    options = parser.parse_args()
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, end)
    with (
        tempfile.TemporaryDirectory(prefix="played-") as directory,
        playing(Path(directory), options.seconds, options.prometheus_port) as played,
    ):
        times = {"began": played.began, "ended": played.ended}
        print(json.dumps({"prometheus": played.cast.prometheus.url} | times), flush=True)
        signal.pause()


def end(signum: int, frame: FrameType | None) -> None:
    """End, and with it all that was started."""
    sys.exit(0)


main()
