"""Images a second of one `sluice work`, end to end, beside the bare encoder on views that are ready.

In: a model, and a Redis that may be emptied. Out: one row for each stream, best of rounds in which all took turns.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import redis
from PIL import Image

from worker.app import decode_limits, view_spec
from worker.client import Moderation
from worker.encoder.clip import ClipEncoder, load_encoder
from worker.intake.decode import decode
from worker.intake.square import View
from worker.settings import PREFIX, Settings

_STREAM = "sluice:verdicts"
_POLICY = """\
policy: bench
version: 1
contrast: [{contrast}]
categories:
{categories}"""
_PATIENCE_SECONDS = 1200


@dataclass(frozen=True, slots=True)
class Stream:
    """What is put on the queue."""

    name: str
    #: Of the photographs, in pixels.
    width: int
    height: int
    images: int
    #: How many different images there are among them.
    different: int
    #: Whether the worker remembers what it saw.
    memo: bool = False


@dataclass(frozen=True, slots=True)
class PipelineRow:
    """What one stream reached."""

    stream: str
    images_per_second: float
    #: Of the bare encoder in the same rounds, at the same batch and precision.
    share_of_bare: float


def bench_pipeline(
    connection: redis.Redis, settings: Settings, images: int, rounds: int, progress: Callable[[str], None]
) -> list[PipelineRow]:
    """Measure.

    Args:
        connection: To a Redis that is emptied again and again.
        settings: That Redis, the model, device, precision, threads and batch.
        images: In each stream of different images; the stream of repeats has ten times as many.
        rounds: How often each takes its turn.
        progress: Told what runs.

    Returns:
        The best of each; the bare encoder first.
    """
    streams = [
        Stream("JPEG 500x375", 500, 375, images, images),
        Stream("JPEG 4000x3000", 4000, 3000, images, min(images, 64)),
        Stream("JPEG 500x375, 90 % seen before", 500, 375, 10 * images, images, memo=True),
    ]
    encoder = load_encoder(
        settings.model, settings.model_revision, settings.device, settings.precision, settings.batch_size
    )
    files = {stream.name: photographs(stream.different, stream.width, stream.height) for stream in streams}
    views = [decode(data, decode_limits(settings), view_spec(encoder)).views[0] for data in files[streams[0].name]]
    rates: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as directory:
        write_policy(Path(directory))
        for turn in range(rounds):
            progress(f"round {turn + 1} of {rounds}: bare encoder")
            rates.setdefault("bare encoder", []).append(_bare_rate(encoder, views, settings.batch_size))
            for stream in streams:
                progress(f"round {turn + 1} of {rounds}: {stream.name}, {stream.images} images")
                connection.flushall()
                _enqueue(connection, files[stream.name], stream)
                _work(settings, Path(directory), memo=stream.memo)
                rates.setdefault(stream.name, []).append(_rate(connection, settings.batch_size))
    bare = max(rates["bare encoder"])
    return [PipelineRow(name, max(found), max(found) / bare) for name, found in rates.items()]


def photographs(count: int, width: int, height: int) -> list[bytes]:
    """Make noise-textured JPEGs: as slow to decode as a real photograph of their size.

    Returns:
        Files; the same for the same arguments.
    """
    rng = np.random.default_rng(0)
    texture = rng.normal(0, 12, (height, width, 1)).astype(np.int16)
    files = []
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize((width, height))
        pixels = np.clip(np.asarray(coarse, np.int16) + np.roll(texture, int(rng.integers(width)), axis=1), 0, 255)
        file = io.BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files


def write_policy(directory: Path) -> None:
    """Write a policy of eighty sentences, the size of a real one."""
    categories = "".join(
        f"  category_{number}:\n    prompts: [{', '.join(f'thing {number} of kind {kind}' for kind in range(7))}]\n"
        f"    thresholds: {{review: 0.5, block: 0.9}}\n"
        for number in range(8)
    )
    contrast = ", ".join(f"ordinary thing {number}" for number in range(24))
    (directory / "bench").mkdir()
    (directory / "bench" / "v1.yaml").write_text(_POLICY.format(contrast=contrast, categories=categories))
    (directory / "rollout.yaml").write_text("bench: {live: 1}\n")


def _bare_rate(encoder: ClipEncoder, views: Sequence[View], batch: int) -> float:
    encoder.warm_up()
    started = time.perf_counter()
    for place in range(0, len(views), batch):
        encoder.embed_images(views[place : place + batch])
    return len(views) / (time.perf_counter() - started)


def _enqueue(connection: redis.Redis, files: Sequence[bytes], stream: Stream) -> None:
    moderation = Moderation(connection)
    rows = [
        {"content_id": str(number), "data": files[number % len(files)], "policy": "bench"}
        for number in range(stream.images)
    ]
    for start in range(0, len(rows), 500):
        moderation.enqueue_many(rows[start : start + 500])


def _work(settings: Settings, policies: Path, memo: bool) -> None:
    own: dict[str, Any] = {
        "redis_url": settings.redis_url, "threads": settings.threads, "model": settings.model,
        "device": settings.device, "precision": settings.precision,
        "batch_size": settings.batch_size, "policies": policies, "policy": "bench", "metrics_port": 0,
        "log_level": "error", "memo_ttl_seconds": 3600 if memo else 0,
    }  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    environment |= {PREFIX + name.upper(): str(value) for name, value in own.items()}
    command = [sys.executable, "-m", "worker", "work", "--burst"]
    subprocess.run(command, env=environment, check=True, timeout=_PATIENCE_SECONDS)


def _rate(connection: redis.Redis, batch: int) -> float:
    """Return images a second between the end of the first batch and the end of the last."""
    entries: Any = connection.xrange(_STREAM)
    stamps = [int(entry_id.split(b"-")[0]) for entry_id, _ in entries]
    first = max(stamp for stamp in stamps[:batch])
    return sum(stamp > first for stamp in stamps) / ((stamps[-1] - first) / 1000)
