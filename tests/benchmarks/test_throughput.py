"""Images per second of `sluice work`, next to the bare encoder in the same run; prints, and judges nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import redis
import support
from PIL import Image

from worker.app import view_spec
from worker.client import Moderation
from worker.encoder.clip import ClipEncoder, load_encoder
from worker.intake.decode import Limits, decode

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(900)]

BATCH = 32


@pytest.fixture(scope="module")
def vit_b32(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(support.write_random_clip(tmp_path_factory.mktemp("vit-b-32")))


def photographs(count: int) -> list[bytes]:
    """Make noise-textured JPEGs of a photograph's size: as slow to decode as a real one."""
    rng = np.random.default_rng(0)
    files = []
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize((500, 375))
        texture = rng.normal(0, 12, (375, 500, 1))
        pixels = np.clip(np.asarray(coarse) + texture, 0, 255).astype(np.uint8)
        files.append(support.encode(Image.fromarray(pixels), "JPEG", quality=90))
    return files


def bare_rate(encoder: ClipEncoder, files: list[bytes], batch: int) -> float:
    """Return images a second of the encoder alone, on views that are ready."""
    limits = Limits(10**8, 10**8, ("JPEG",))
    views = [decode(data, limits, view_spec(encoder)).views[0] for data in files]
    encoder.warm_up()
    start = time.perf_counter()
    for place in range(0, len(views), batch):
        encoder.embed_images(views[place : place + batch])
    return len(views) / (time.perf_counter() - start)


def worker_rate(model: str, policies: Path, url: str, files: list[bytes]) -> float:
    """Return images a second of `sluice work`, between its first verdict and its last."""
    moderation = Moderation.from_url(url)
    moderation.enqueue_many([{"content_id": str(place), "data": data} for place, data in enumerate(files)])
    flags = {"redis-url": url, "model": model, "policies": policies, "policy": "tiny", "metrics-port": 0}
    command = [sys.executable, "-m", "worker", "work", "--burst", "--log-level", "warning"]
    command += [f"--{name}={value}" for name, value in flags.items()]
    subprocess.run(command, check=True, timeout=600)
    entries = moderation.connection.xrange("sluice:verdicts")
    first, last = (int(entries[place][0].split(b"-")[0]) for place in (0, -1))
    return (len(entries) - 1) / ((last - first) / 1000)


@pytest.mark.parametrize(("name", "count"), [("builtin", 384), ("vit_b32", 96)])
def test_throughput_of_the_worker_beside_the_bare_encoder(
    name: str, count: int, request: pytest.FixtureRequest, tiny_policies: Path, redis_server: str
) -> None:
    model = name if name == "builtin" else request.getfixturevalue(name)
    files = photographs(count)
    encoder = load_encoder(model, None, "cpu", "fp32", BATCH)
    rates: dict[str, list[float]] = {"bare, batch 1": [], f"bare, batch {BATCH}": [], "sluice work": []}
    for _ in range(2):
        redis.Redis.from_url(redis_server).flushall()
        rates["bare, batch 1"].append(bare_rate(encoder, files, 1))
        rates["sluice work"].append(worker_rate(model, tiny_policies, redis_server, files))
        rates[f"bare, batch {BATCH}"].append(bare_rate(encoder, files, BATCH))
    limit = max(rates[f"bare, batch {BATCH}"])
    print(f"\n{name}, fp32, {count} JPEGs of 500 x 375:")
    for what, measured in rates.items():
        print(f"  {what:<16} {max(measured):7.1f} images/s   {max(measured) / limit:.2f} of bare, batch {BATCH}")
