"""What a faster precision changes in the scores and actions of a policy, on the images that somebody has.

In: files, a policy, an encoder in fp32 and one in the precision asked for. Out: a row for each category, and one for
the whole policy. Each encoder reads the sentences too, as a worker in that precision does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np

from worker.encoder.clip import ClipEncoder
from worker.errors import JobError
from worker.intake.decode import DecodedImage
from worker.intake.sandbox import Decoder
from worker.policy.compiled import CompiledPolicy, compile_policy
from worker.policy.schema import Policy
from worker.records import ACTION_ORDER, Action
from worker.scoring import score
from worker.verdict import Decision, decide

#: Of a row that is about all categories.
WHOLE_POLICY = "(policy)"
_PERCENTILE = 99
#: Files that are decoded together.
_BATCH = 64


@dataclass(frozen=True, slots=True)
class DriftRow:
    """How far scores moved, on all images, and whose action changed."""

    category: str
    images: int
    max_drift: float
    mean_drift: float
    p99_drift: float
    #: Images whose action became stricter, and milder.
    stricter: int
    milder: int

    @property
    def changed(self) -> int:
        """Images whose action changed."""
        return self.stricter + self.milder


def bench_precision(
    files: Iterable[bytes],
    policy: Policy,
    decoder: Decoder,
    exact: ClipEncoder,
    faster: ClipEncoder,
    progress: Callable[[str], None],
) -> list[DriftRow]:
    """Compare.

    Args:
        files: Images; those that cannot be judged are told and left out. Few are held at a time.
        policy: Whose scores are compared.
        decoder: For the encoders' views.
        exact: In fp32.
        faster: The same checkpoint in another precision.
        progress: Told what runs, and what is left out.

    Returns:
        The policy as a whole, then each category; none where there is no image.
    """
    encoders = [
        (each, compile_policy(policy, each.embed_texts, each.logit_scale, each.name)) for each in (exact, faster)
    ]
    pairs: list[tuple[Decision, Decision]] = []
    for images in _batches(files, decoder, progress):
        before, after = (_decide(images, encoder, compiled) for encoder, compiled in encoders)
        pairs += zip(before, after, strict=True)
        progress(f"{len(pairs)} images in {exact.precision} and {faster.precision}")
    if not pairs:
        return []
    scores = {
        name: [(one.categories[name].score, two.categories[name].score) for one, two in pairs]
        for name in policy.categories
    }
    whole = _row(
        WHOLE_POLICY, list(chain.from_iterable(scores.values())), [(one.action, two.action) for one, two in pairs]
    )
    return [
        whole,
        *(
            _row(name, found, [(one.categories[name].action, two.categories[name].action) for one, two in pairs])
            for name, found in scores.items()
        ),
    ]


def _batches(files: Iterable[bytes], decoder: Decoder, progress: Callable[[str], None]) -> Iterator[list[DecodedImage]]:
    left = iter(files)
    while batch := list(islice(left, _BATCH)):
        images = []
        for image in decoder(batch):
            if isinstance(image, JobError):
                progress(f"one file is left out: {image}")
            else:
                images.append(image)
        if images:
            yield images


def _decide(images: Sequence[DecodedImage], encoder: ClipEncoder, compiled: CompiledPolicy) -> list[Decision]:
    scores = score(encoder.embed_images([view for image in images for view in image.views]), compiled)
    ends = np.cumsum([len(image.views) for image in images])
    return [
        decide(compiled, scores.rows(slice(int(end) - len(image.views), int(end))))
        for image, end in zip(images, ends, strict=True)
    ]


def _row(category: str, scores: Sequence[tuple[float, float]], actions: Sequence[tuple[Action, Action]]) -> DriftRow:
    drift = np.abs([two - one for one, two in scores])
    moves = [ACTION_ORDER[two] - ACTION_ORDER[one] for one, two in actions]
    return DriftRow(
        category=category,
        images=len(actions),
        max_drift=float(drift.max()),
        mean_drift=float(drift.mean()),
        p99_drift=float(np.percentile(drift, _PERCENTILE)),
        stricter=sum(move > 0 for move in moves),
        milder=sum(move < 0 for move in moves),
    )
