"""`python -m played --for 120 --prometheus-port N`: plays, says when it is over, and stays until it is told to end.

In: SIGINT or SIGTERM ends it. Out: the times of the scenes, then one line of JSON: where Prometheus is, and for which
time it has something to show.
"""

from __future__ import annotations

import argparse
import json
import signal
import tempfile
import threading
from pathlib import Path

from played import playing


def main() -> None:
    """Play and stay."""
    parser = argparse.ArgumentParser(prog="python -m played", description="Play every kind of event to a Prometheus.")
    parser.add_argument("--for", dest="seconds", type=float, default=120.0, help="seconds that the play shall take")
    parser.add_argument("--prometheus-port", type=int, default=0, help="of 127.0.0.1; 0: any")
    options = parser.parse_args()
    ended = threading.Event()
    with (
        tempfile.TemporaryDirectory(prefix="played-") as directory,
        playing(Path(directory), options.seconds, options.prometheus_port) as played,
    ):
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, lambda *_: ended.set())
        print(json.dumps({"prometheus": played.cast.prometheus.url, "began": played.began, "ended": played.ended}),
                  flush=True)  # fmt: skip
        ended.wait()


main()
