"""Hostile uploads of every format and trick: each ends in a verdict or in a reason, and nothing else happens."""

from __future__ import annotations

import base64
import hashlib
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import redis
import support
from fuzz.corpus import corpus
from fuzz.jpegs import SLOWEST
from fuzz.parts import BROKEN, HUNGRY, LARGE, REFUSED, SLOW, TRUNCATED, VERDICT, Upload
from PIL import Image
from rq import Queue
from rq.serializers import JSONSerializer

from worker.errors import REASONS, JobError
from worker.intake.cell import Bounds
from worker.intake.decode import DecodedImage, Limits
from worker.intake.sandbox import Decoded, Decoder
from worker.intake.square import ViewSpec
from worker.records import Verdict

MIB = 1024 * 1024
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "AVIF")
LIMITS = Limits(20 * MIB, 50_000_000, FORMATS)
SPEC = ViewSpec(64, 64, Image.Resampling.BICUBIC.value, mode="whole")
TIMEOUT_SECONDS, MEMORY_BYTES = 5.0, 640 * MIB
#: Of a view: so much of the colour that a trick would hide is seen there.
SHARE, LEVELS = 0.01, 60
#: How much larger the process grows that asks for all of it.
GROWTH_BYTES = 128 * MIB

pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.thorough]


@pytest.fixture(scope="module")
def uploads() -> list[Upload]:
    return corpus()


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    decoder = Decoder(LIMITS, SPEC, Bounds(TIMEOUT_SECONDS, MEMORY_BYTES), 2)
    yield decoder
    decoder.close()


def _end_of(image: Decoded) -> str:
    return image.reason if isinstance(image, JobError) else VERDICT


def _hides(upload: Upload, image: Decoded) -> bool:
    """Whether no view shows the colour that is to be seen."""
    if upload.shows is None or not isinstance(image, DecodedImage):
        return False
    return not any(
        (np.abs(view.astype(int) - upload.shows).max(axis=2) <= LEVELS).mean() >= SHARE for view in image.views
    )


def test_every_hostile_upload_ends_as_it_must_and_hides_nothing(uploads: list[Upload], decoder: Decoder) -> None:
    assert len({upload.name for upload in uploads}) == len(uploads) >= 300
    process = psutil.Process()
    sizes = [process.memory_info().rss]

    def one(upload: Upload) -> tuple[Decoded, float]:
        start = time.monotonic()
        (image,) = decoder([upload.data])
        sizes.append(process.memory_info().rss)
        return image, time.monotonic() - start

    with ThreadPoolExecutor(2) as threads:
        ended = list(threads.map(one, uploads))
    images = [image for image, _ in ended]
    counts = Counter(map(_end_of, images))
    formats = Counter(image.facts.format for image in images if isinstance(image, DecodedImage))
    slowest = sorted(((round(took, 2), upload.name) for upload, (_, took) in zip(uploads, ended, strict=True)))[-3:]
    grown = (max(sizes) - sizes[0]) // MIB
    print(f"{len(uploads)} uploads: {dict(counts)}; formats with a verdict: {dict(formats)}; grown by {grown} MiB")
    print(f"the slowest, in seconds: {slowest}")
    otherwise = [
        f"{upload.name}: {_end_of(image)}, not {sorted(upload.ends)}: {image}"
        for upload, image in zip(uploads, images, strict=True)
        if upload.ends and _end_of(image) not in upload.ends
    ]
    assert otherwise == []
    assert [upload.name for upload, image in zip(uploads, images, strict=True) if _hides(upload, image)] == []
    assert max(sizes) - sizes[0] < GROWTH_BYTES
    assert set(counts) - {SLOW} == {VERDICT, BROKEN, TRUNCATED, LARGE, REFUSED, HUNGRY}
    assert set(formats) == set(FORMATS)
    assert len(decoder.pids) == 2


def test_the_slowest_upload_ends_with_its_time(uploads: list[Upload]) -> None:
    (bomb,) = (upload.data for upload in uploads if upload.name == SLOWEST)
    tight = Decoder(LIMITS, SPEC, Bounds(0.2, MEMORY_BYTES), 1)
    assert _end_of(tight([bomb])[0]) == SLOW
    tight.close()


def _enqueue(uploads: list[Upload], connection: redis.Redis) -> list[str]:
    """Put all on the queue, the small ones in their jobs, the others as blobs; their jobs' ids."""
    rows: list[Any] = []
    with connection.pipeline(transaction=False) as blobs:
        for upload in uploads:
            image = {"base64": base64.b64encode(upload.data).decode()}
            if len(upload.data) > 50_000:
                digest = hashlib.sha256(upload.data).hexdigest()
                blobs.set(f"sluice:blob:{digest}", upload.data)
                image = {"blob": digest}
            arguments = {"image": image, "content_id": upload.name}
            rows.append(Queue.prepare_data("worker.jobs.moderate", kwargs=arguments, timeout=60))
        blobs.execute()
    queue = Queue("moderation", connection=connection, serializer=JSONSerializer)
    return [job.id for job in queue.enqueue_many(rows)]


def _resident(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss) if pid else 0
    except psutil.Error:
        return 0


def test_a_worker_survives_all_hostile_uploads_and_says_of_each_what_became_of_it(
    uploads: list[Upload], redis_url: str, connection: redis.Redis, tiny_clip: Path, tmp_path: Path
) -> None:
    # A job with no bytes at all is none.
    sent = [upload for upload in uploads if upload.data]
    jobs = _enqueue(sent, connection)
    settings = {
        "redis_url": redis_url, "model": tiny_clip, "policy": "house",
        "policies": support.write_house_policies(tmp_path / "policies"), "threads": 2,
        "decode_timeout_seconds": TIMEOUT_SECONDS, "decode_memory_bytes": MEMORY_BYTES,
    }  # fmt: skip
    sizes: Counter[str] = Counter()
    horses: set[int] = set()
    with support.running_worker(settings, tmp_path, "--burst", wait=False) as worker:

        def has_left() -> bool:
            for name, pid in (("worker", worker.process.pid), ("horse", worker.horse_pid)):
                sizes[name] = max(sizes[name], _resident(pid))
            horses.update({worker.horse_pid} - {0})
            return worker.process.poll() is not None

        support.until(has_left, 110, "the burst ends")
        assert worker.process.returncode == 0, worker.log[-2000:]
    entries: Any = connection.xrange("sluice:verdicts")
    verdicts = {fields[b"job_id"].decode(): Verdict.model_validate_json(fields[b"verdict"]) for _, fields in entries}
    assert len(entries) == len(verdicts) == len(sent)
    ends = {upload.name: verdicts[job].reason or VERDICT for upload, job in zip(sent, jobs, strict=True)}
    print(f"{len(sent)} uploads: {dict(Counter(ends.values()))}; MiB: { ({k: v // MIB for k, v in sizes.items()}) }")
    certain = [upload for upload in sent if upload.ends]
    assert [(upload.name, ends[upload.name]) for upload in certain if ends[upload.name] not in upload.ends] == []
    assert set(ends.values()) - {VERDICT} <= set(REASONS) - {"worker_killed", "job_timeout", "internal_error"}
    assert {verdict.action for verdict in verdicts.values() if verdict.reason} == {"review"}
    assert len(horses) == 1, "no upload cost the process that holds the model"
    assert sizes["worker"] < 300 * MIB
    assert sizes["horse"] < 1500 * MIB
