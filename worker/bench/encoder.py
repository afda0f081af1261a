"""Images a second of the encoder, beside transformers' own, the tutorial's way, and what the machine can multiply.

In: a checkpoint and files. Out: one row for each way, best of rounds in which all took turns. Never another process:
whatever else runs on the machine meanwhile slows all of them down.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from worker.app import open_decoder
from worker.encoder.checkpoint import Checkpoint, load_checkpoint
from worker.encoder.clip import ClipEncoder, load_encoder
from worker.errors import JobError
from worker.intake.sandbox import Decoder
from worker.policy.compiled import CompiledPolicy, compile_policy
from worker.policy.schema import Category, Policy, Thresholds
from worker.scoring import score
from worker.settings import Settings
from worker.verdict import decide

#: Each way works for so long in each of its turns, or through its images once where that takes longer.
_TURN_SECONDS = 0.5
#: The product whose speed is the machine's limit: the larger layers of ViT-B/32 at batch 32, (rows, in, out).
_PRODUCT = (1600, 768, 3072)
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".avif"}
#: Images of one turn of the tutorial's way.
_TUTORIAL_IMAGES = 2
#: The ways: the tower's products alone; `get_image_features` on ready tensors; processor and whole model with all
#: sentences for each file; our encoder on decoded views; and all of decoding, embedding, scoring and deciding.
LIMIT, TRANSFORMERS, TUTORIAL, VIEWS, FILES = "limit", "transformers", "tutorial", "sluice, views", "sluice, files"


@dataclass(frozen=True, slots=True)
class EncoderRow:
    """What one way reached."""

    way: str
    precision: str
    batch: int
    images_per_second: float
    #: Multiples of the other ways in the same rounds.
    times_transformers: float
    times_tutorial: float
    #: Share of the products' own speed in fp32: nothing in fp32 can be faster than 1.
    share_of_limit: float


@dataclass(frozen=True, slots=True)
class _Way:
    name: str
    precision: str
    batch: int
    #: Works through some images once; returns how many.
    run: Callable[[], int]


def bench_encoder(
    model: str,
    settings: Settings,
    files: Sequence[bytes],
    policy: Policy,
    precisions: Sequence[str],
    batches: Sequence[int],
    rounds: int,
    progress: Callable[[str], None],
) -> list[EncoderRow]:
    """Measure.

    Args:
        model: `builtin`, a local directory or a hub id.
        settings: Limits of decoding, threads.
        files: JPEGs.
        policy: Whose sentences the tutorial's way reads anew for each image, and whose verdicts ours ends in.
        precisions: fp32, bf16, int8.
        batches: Images that the encoder takes at once.
        rounds: How often each way takes its turn.
        progress: Told what runs.

    Returns:
        The best of each way.
    """
    best: dict[tuple[str, str, int], float] = {}
    with ExitStack() as opened:
        ways = list(_ways(model, settings, files, policy, precisions, batches, opened))
        for turn in range(rounds):
            for way in ways:
                progress(f"round {turn + 1} of {rounds}: {way.name}, {way.precision}, batch {way.batch}")
                key = (way.name, way.precision, way.batch)
                best[key] = max(best.get(key, 0.0), _rate(way.run))
    found = {name: rate for (name, _, _), rate in best.items()}
    return [
        EncoderRow(*key, rate, rate / found[TRANSFORMERS], rate / found[TUTORIAL], rate / found[LIMIT])
        for key, rate in best.items()
    ]


def _ways(
    model: str,
    settings: Settings,
    files: Sequence[bytes],
    policy: Policy,
    precisions: Sequence[str],
    batches: Sequence[int],
    opened: ExitStack,
) -> Iterator[_Way]:
    encoders = {
        (precision, batch): load_encoder(model, None, "cpu", precision, batch)
        for precision in precisions
        for batch in batches
    }
    largest = max(batches)
    one = encoders[precisions[0], largest]
    # What it is compared with sees one view, the checkpoint's own.
    with_views = open_decoder(settings.model_copy(update={"views": "single"}), one, torch.get_num_threads())
    opened.callback(with_views.close)
    views = _views(with_views, (list(files) * largest)[:largest])
    checkpoint = load_checkpoint(model, None)
    yield _Way(LIMIT, "fp32", largest, _products(checkpoint.model))
    yield _Way(TRANSFORMERS, "fp32", largest, _by_transformers(checkpoint.model, one, views))
    yield _Way(TUTORIAL, "fp32", 1, _tutorial(checkpoint, files, policy))
    for (precision, batch), encoder in encoders.items():
        yield _Way(VIEWS, precision, batch, _embed(encoder, views[:batch]))
    for precision in precisions:
        encoder = encoders[precision, largest]
        compiled = compile_policy(policy, encoder.embed_texts, encoder.logit_scale, encoder.name)
        batch_of_files = (list(files) * largest)[:largest]
        yield _Way(FILES, precision, largest, _judge(encoder, with_views, compiled, batch_of_files))


def _rate(run: Callable[[], int]) -> float:
    """Return images a second, after one run that does not count."""
    run()
    done, started = 0, time.perf_counter()
    while (seconds := time.perf_counter() - started) < _TURN_SECONDS:
        done += run()
    return done / seconds


def _views(decoder: Decoder, files: Sequence[bytes]) -> list[Any]:
    views: list[Any] = []
    for image in decoder(files):
        if isinstance(image, JobError):
            raise image
        views += image.views
    return views


def _embed(encoder: ClipEncoder, views: Sequence[Any]) -> Callable[[], int]:
    return lambda: len(encoder.embed_images(views))


def _judge(
    encoder: ClipEncoder, decoder: Decoder, compiled: CompiledPolicy, files: Sequence[bytes]
) -> Callable[[], int]:
    def run() -> int:
        scores = score(encoder.embed_images(_views(decoder, files)), compiled)
        return len([decide(compiled, scores.rows(slice(row, row + 1))) for row in range(len(files))])

    return run


def _by_transformers(model: Any, encoder: ClipEncoder, views: Sequence[Any]) -> Callable[[], int]:
    """`get_image_features` on tensors that are ready: what a careful user of transformers does."""
    pixels = encoder.pixel_values(views).float()

    def run() -> int:
        with torch.inference_mode():
            return len(model.get_image_features(pixel_values=pixels).pooler_output)

    return run


def _tutorial(checkpoint: Checkpoint, files: Sequence[bytes], policy: Policy) -> Callable[[], int]:
    """The code of transformers' documentation, with the model kept loaded: all sentences anew for each image."""
    model, processor = checkpoint.model, checkpoint.processor
    sentences = _sentences(policy)

    def run() -> int:
        for data in files[:_TUTORIAL_IMAGES]:
            image = Image.open(io.BytesIO(data))
            inputs = processor(text=sentences, images=image, return_tensors="pt", padding=True, truncation=True)
            with torch.no_grad():
                model(**inputs).logits_per_image.softmax(dim=1)
        return _TUTORIAL_IMAGES

    return run


def _sentences(policy: Policy) -> list[str]:
    return [
        *policy.contrast,
        *(
            sentence
            for found in policy.categories.values()
            for sentence in (*found.prompts, *(found.look_alikes or ()))
        ),
    ]


def _products(model: Any) -> Callable[[], int]:
    """The tower's multiplications alone, as one product of the same size again and again."""
    rows, width, height = _PRODUCT
    left, right = torch.randn(rows, width), torch.randn(height, width)
    packed = torch.ops.mkldnn._reorder_linear_weight(right, rows)
    images = 32
    times = round(images * _multiplications(model.config.vision_config) / (rows * width * height))

    def run() -> int:
        with torch.inference_mode():
            for _ in range(times):
                torch.ops.mkldnn._linear_pointwise(left, packed, None, "none", [], "none")
        return images

    return run


def _multiplications(vision: Any) -> float:
    """Count the multiply-adds of one image: patches, then for each layer attention's and the MLP's products."""
    patches = (vision.image_size // vision.patch_size) ** 2
    tokens, width = patches + 1, vision.hidden_size
    layer = tokens * width * (4 * width + 2 * vision.intermediate_size) + 2 * tokens * tokens * width
    return float(patches * width * 3 * vision.patch_size**2 + vision.num_hidden_layers * layer)


def bench_policy() -> Policy:
    """Make a policy of eighty sentences, the size of a real one."""
    categories = {
        f"category_{number}": Category(
            prompts=tuple(f"thing {number} of kind {kind}" for kind in range(7)),
            thresholds=Thresholds(review=0.5, block=0.9),
        )
        for number in range(8)
    }
    contrast = tuple(f"ordinary thing {number}" for number in range(24))
    return Policy(policy="bench", version=1, contrast=contrast, categories=categories)


def read_files(directory: Path) -> Iterator[bytes]:
    """Yield the files of a directory and below that may be images, in the order of their names.

    Args:
        directory: Where they lie.
    """
    for path in sorted(directory.rglob("*")):
        if path.suffix.lower() in _SUFFIXES and path.is_file():
            yield path.read_bytes()
