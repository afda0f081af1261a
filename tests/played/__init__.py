"""A scripted load: real workers, a real Redis and a real Prometheus, and every kind of event that a metric counts."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from played.cast import Cast, assembled
from played.scenes import SCENES, Play


@dataclass(frozen=True)
class Played:
    """What was played; everybody is still there.

    Attributes:
        cast: Who played.
        done: What was done, as the play counted it.
        hooked: How many verdicts the traffic had posted.
        began: When the first scene began, in Unix seconds.
        ended: When the last one ended.
    """

    cast: Cast
    done: Counter[str]
    hooked: int
    began: float
    ended: float


@contextmanager
def playing(directory: Path, seconds: float = 0.0, prometheus_port: int = 0) -> Iterator[Played]:
    """Play all scenes, and keep everybody for as long as the context lasts.

    Args:
        directory: Where all of them run and log.
        seconds: How long the play shall be at least: scenes are spread over it, with nothing but traffic between them.
        prometheus_port: Where Prometheus listens; 0: anywhere.

    Raises:
        AssertionError: What must happen did not.
    """
    with assembled(directory, prometheus_port) as cast:
        play, began = Play(cast), time.time()
        for place, scene in enumerate(SCENES):
            time.sleep(max(0.0, began + seconds * place / (len(SCENES) - 1) - time.time()))
            started = time.time()
            scene(play)
            print(f"{time.time() - started:5.1f} s {scene.__name__}", flush=True)
        yield Played(cast, play.done, len(play.traffic.hooked), began, time.time())
