"""What the pipeline asks of its stages, and how a batch passes through one.

In: a batch in which some have ended already. Out: the same length and order, whatever ended or failed on the way.
Nothing here knows which stages there are.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, TypeVar

import numpy as np

from worker.encoder.memo import Remembered, rounded
from worker.errors import JobError
from worker.intake.decode import DecodedImage
from worker.intake.square import View
from worker.policy.compiled import CompiledPolicy, Matrix
from worker.records import ImageFacts, ImageRef
from worker.scoring import score
from worker.verdict import Decision, decide

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class SeenImage:
    """An image on its way: with views, or with the embeddings that were remembered of it."""

    facts: ImageFacts
    views: tuple[View, ...]
    #: `(views, dim)`; None when it is to be embedded.
    remembered: Matrix | None


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


class Remembers(Protocol):
    """Digests of files → what was embedded of them before."""

    def recall(self, digests: Sequence[str]) -> Sequence[Remembered | None]:
        """Look up; same length, same order; None for a miss."""

    def remember(self, images: Sequence[Remembered]) -> None:
        """Store."""


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


def decode_once(files: Sequence[bytes], decode: Decodes, memo: Remembers | None) -> list[SeenImage | JobError]:
    """Decode what is neither remembered nor there twice.

    Args:
        files: Of one batch.
        decode: The decoder; sees each new file once.
        memo: What is known already; None knows nothing.

    Returns:
        Same length, same order; files with the same bytes share one image.
    """
    digests = [hashlib.sha256(data).hexdigest() for data in files]
    distinct = dict(zip(digests, files, strict=True))
    known = memo.recall(list(distinct)) if memo else [None] * len(distinct)
    found: dict[str, SeenImage | JobError] = {
        digest: SeenImage(image.facts, (), image.embeddings)
        for digest, image in zip(distinct, known, strict=True)
        if image is not None
    }
    new = [digest for digest in distinct if digest not in found]
    decoded = decode([distinct[digest] for digest in new]) if new else ()
    for digest, image in zip(new, decoded, strict=True):
        found[digest] = image if isinstance(image, JobError) else SeenImage(image.facts, image.views, None)
    return [found[digest] for digest in digests]


def embed_once(images: Sequence[SeenImage], encoder: Embeds) -> list[Matrix]:
    """Embed all views of all new images at once, each image once.

    Args:
        images: Of one batch.
        encoder: The encoder. Embeddings are rounded at once to what memo and ledger keep of them, for a repeat, and a
            judgement of the past, must score as the first did.

    Returns:
        `(views, dim)` for each image; same length, same order.

    Raises:
        ValueError: The encoder returned more or fewer rows than it was given views.
    """
    new = {image.facts.sha256: image for image in images if image.remembered is None}
    found: dict[str, Matrix] = {}
    if new:
        embeddings = encoder.embed_images([view for image in new.values() for view in image.views])
        ends = np.cumsum([len(image.views) for image in new.values()])
        if len(embeddings) != ends[-1]:
            raise ValueError(f"the encoder made {len(embeddings)} embeddings of {ends[-1]} views")
        found = dict(zip(new, np.split(rounded(embeddings), ends[:-1]), strict=True))
    return [found[image.facts.sha256] if image.remembered is None else image.remembered for image in images]


def remember(
    images: Sequence[SeenImage | JobError], embeddings: Sequence[Matrix | JobError], memo: Remembers | None
) -> int:
    """Remember what was embedded.

    Returns:
        How many images of the batch that were, each counted once.
    """
    new = {
        image.facts.sha256: Remembered(image.facts, embedding)
        for image, embedding in zip(images, embeddings, strict=True)
        if isinstance(image, SeenImage) and image.remembered is None and not isinstance(embedding, JobError)
    }
    if memo and new:
        memo.remember(list(new.values()))
    return len(new)


def decide_all(compiled: CompiledPolicy, embeddings: Sequence[Matrix]) -> list[Decision]:
    """Decide images under one policy, with one matrix product.

    Args:
        compiled: The policy.
        embeddings: `(views, dim)` of each image.

    Returns:
        Same length, same order.
    """
    scores = score(np.concatenate(embeddings), compiled)
    ends = np.cumsum([0, *(len(part) for part in embeddings)])
    return [decide(compiled, scores.rows(slice(int(start), int(end)))) for start, end in pairwise(ends)]


@contextmanager
def timed(stage: str, seconds: dict[str, float]) -> Iterator[None]:
    """Note how long the block took, in seconds, under the name of the stage."""
    start = time.perf_counter()
    yield
    seconds[stage] = round(time.perf_counter() - start, 6)
