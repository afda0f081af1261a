"""On a machine with a CUDA device: the same embeddings as on the CPU, in each precision, and uploads judged on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
import support
import torch
from house import INLINE, House

from worker.bench.checkpoint import write_random_clip
from worker.encoder.clip import load_encoder

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.timeout(180),
]

SENTENCES = ["a photo of a gun", "a kitchen knife", "two people at the beach", "food"]
#: Largest difference of a number of an embedding, and smallest cosine, beside fp32 on the CPU.
DIFFERENCES = {"fp32": 1e-5, "bf16": 0.02, "fp16": 0.003}
COSINES = {"fp32": 0.999999, "bf16": 0.999, "fp16": 0.9999}


@pytest.fixture(scope="module")
def full_size(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Write a ViT-B/32 of random weights."""
    return str(write_random_clip(tmp_path_factory.mktemp("b32")))


def squares(count: int, side: int) -> list[Any]:
    return list(np.random.default_rng(1).integers(0, 256, (count, side, side, 3), dtype=np.uint8))


@pytest.mark.parametrize("precision", DIFFERENCES)
@pytest.mark.parametrize("checkpoint", ["full_size", "builtin"])
def test_embeddings_are_those_of_the_cpu(checkpoint: str, precision: str, request: pytest.FixtureRequest) -> None:
    name = checkpoint if checkpoint == "builtin" else request.getfixturevalue(checkpoint)
    exact = load_encoder(name, None, "cpu", "fp32", 8)
    close = load_encoder(name, None, "cuda", precision, 8)
    assert (close.device.type, close.precision) == ("cuda", precision)
    views = squares(20, exact.preprocessing.crop)
    for ours, theirs in (
        (close.embed_images(views), exact.embed_images(views)),
        (close.embed_texts(SENTENCES), exact.embed_texts(SENTENCES)),
    ):
        assert ours.dtype == np.float32
        assert np.abs(ours - theirs).max() <= DIFFERENCES[precision]
        assert (ours * theirs).sum(axis=1).min() >= COSINES[precision]


def test_pixels_are_looked_up_on_the_device_as_on_the_cpu() -> None:
    cpu, cuda = (load_encoder("builtin", None, device, "fp32", 8) for device in ("cpu", "cuda"))
    views = squares(5, cpu.preprocessing.crop)
    assert torch.equal(cuda.pixel_values(views).cpu(), cpu.pixel_values(views))


def test_uploads_are_judged_on_the_device(connection: redis.Redis, redis_url: str, tmp_path: Path) -> None:
    site = support.Website()
    house = House(connection, site, tmp_path)
    policies = support.write_house_policies(tmp_path / "policies")
    settings = {
        "redis_url": redis_url, "model": "builtin", "device": "cuda", "precision": "bf16", "policies": policies,
        "policy": "house",
    }  # fmt: skip
    with support.running_worker(settings, tmp_path) as worker:
        jobs = [house.enqueue(f"upload-{place}", image=INLINE) for place in range(40)]
        assert house.ended(*jobs) == ["finished"] * 40
        assert "cuda" in support.get(worker.metrics_url + "/metrics")[1]
        first = worker.kill_horse()
        again = house.enqueue("again", image=INLINE)
        assert house.ended(again) == ["finished"]
        assert worker.horse_pid != first
    assert {house.verdict(job).model.precision for job in (*jobs, again)} == {"bf16"}
    site.close()
