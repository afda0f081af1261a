"""What the pipeline asks of its stages, and how a batch passes through one.

In: a batch in which some have ended already. Out: the same length and order, whatever ended or failed on the way.
Nothing here knows which stages there are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar

from worker.errors import JobError
from worker.intake.decode import DecodedImage, View
from worker.policy.compiled import Matrix
from worker.records import ImageRef

A = TypeVar("A")
B = TypeVar("B")


class Fetches(Protocol):
    """Image refs → bytes."""

    def fetch(self, refs: Sequence[ImageRef]) -> Sequence[bytes | JobError]:
        """Fetch; same length, same order."""


class Decodes(Protocol):
    """Bytes → views."""

    def __call__(self, files: Sequence[bytes]) -> Sequence[DecodedImage | JobError]:
        """Decode; same length, same order."""


class Embeds(Protocol):
    """Views → unit embeddings."""

    def embed_images(self, views: Sequence[View]) -> Matrix:
        """Embed n views to `(n, dim)`; same order."""


def follow(
    before: Sequence[A | JobError], stage: Callable[[list[int], list[A]], Sequence[B | JobError]]
) -> list[B | JobError]:
    """Run a stage on what is still going; what ended already keeps its place.

    Args:
        before: What came out of the stage before.
        stage: Called with the places and the items that are still going, if any; same length, same order.

    Raises:
        ValueError: The stage returned more or fewer than it was given.
    """
    at = [place for place, item in enumerate(before) if not isinstance(item, JobError)]
    going = [item for item in before if not isinstance(item, JobError)]
    # Strict: a stage that dropped an image would give every later one its neighbour's verdict.
    after = dict(zip(at, stage(at, going) if going else (), strict=True))
    return [item if isinstance(item, JobError) else after[place] for place, item in enumerate(before)]


@contextmanager
def timed(stage: str, seconds: dict[str, float]) -> Iterator[None]:
    """Note how long the block took, in seconds, under the name of the stage."""
    start = time.perf_counter()
    yield
    seconds[stage] = round(time.perf_counter() - start, 6)
