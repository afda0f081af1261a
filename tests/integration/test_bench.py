"""`sluice bench …`: rows and exit codes; what they measure is nobody's promise, but for counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support import encode, sluice, typed

from worker.bench.encoder import bench_policy, read_files
from worker.bench.precision import WHOLE_POLICY

pytestmark = pytest.mark.thorough

RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="session")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write images, one of them below, and two files that are none."""
    directory = tmp_path_factory.mktemp("uploads")
    (directory / "below").mkdir()
    for place, name in enumerate(("a.png", "b.JPG", "below/c.webp")):
        pixels = RANDOM.integers(0, 256, (40 + place, 50, 3), dtype=np.uint8)
        (directory / name).write_bytes(encode(Image.fromarray(pixels), {"G": "JPEG", "p": "WEBP"}.get(name[-1], "PNG")))
    (directory / "broken.png").write_bytes(b"no image")
    (directory / "notes.txt").write_text("no image either")
    return directory


def rows_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_the_encoder_bench_prints_a_row_for_each_way_and_tells_its_progress_elsewhere(
    tiny_clip: Path, uploads: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / "a.png").write_bytes((uploads / "a.png").read_bytes())
    ended = sluice(
        "bench", "encoder", "--model", tiny_clip, "--images", images, "--batch", "1", "4",
        "--precision", "fp32", "int8", "--rounds", "1", "--threads", "1", "--json",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    rows = rows_of(ended.stdout)
    assert [(row["way"], row["precision"], row["batch"]) for row in rows] == [
        ("limit", "fp32", 4), ("transformers", "fp32", 4), ("tutorial", "fp32", 1),
        ("sluice, views", "fp32", 1), ("sluice, views", "fp32", 4),
        ("sluice, views", "int8", 1), ("sluice, views", "int8", 4),
        ("sluice, files", "fp32", 4), ("sluice, files", "int8", 4),
    ]  # fmt: skip
    assert all(row["images_per_second"] > 0 for row in rows)
    assert (rows[0]["share_of_limit"], rows[1]["times_transformers"], rows[2]["times_tutorial"]) == (1, 1, 1)
    assert "round 1 of 1" in ended.stderr


def test_the_precision_bench_prints_the_drift_of_the_policy_and_of_each_category(
    tiny_clip: Path, tiny_policies: Path, uploads: Path
) -> None:
    settings = {"model": tiny_clip, "policies": tiny_policies, "policy": "tiny"}
    arguments = ("bench", "precision", "--images", uploads, "--precision", "int8", "--json")
    ended = typed(*arguments, settings=settings)
    rows = rows_of(ended.stdout)
    assert [row["category"] for row in rows] == [WHOLE_POLICY, "weapons", "drugs"]
    assert {row["images"] for row in rows} == {3}
    assert {(row["policy"], row["precision"]) for row in rows} == {("tiny@1", "int8")}
    for row in rows:
        assert 0 < row["mean_drift"] <= row["p99_drift"] <= row["max_drift"] <= 1
    assert rows[0]["max_drift"] == max(row["max_drift"] for row in rows[1:])
    assert "one file is left out" in ended.stderr
    changed = rows[0]["stricter"] + rows[0]["milder"]
    assert ended.returncode == (1 if rows[0]["max_drift"] > 0.05 or changed else 0)
    strict = typed(*arguments, "--max-drift", "0", settings=settings)
    assert strict.returncode == 1, "some score moved"


def test_a_precision_that_is_none_is_wrong_usage(tiny_clip: Path, tiny_policies: Path, uploads: Path) -> None:
    settings = {"model": tiny_clip, "policies": tiny_policies, "policy": "tiny"}
    ended = typed("bench", "precision", "--images", uploads, settings=settings)
    assert ended.returncode == 2
    assert "--precision int8" in ended.stderr


def test_a_directory_without_images_is_missing(tiny_clip: Path, tiny_policies: Path, tmp_path: Path) -> None:
    settings = {"model": tiny_clip, "policies": tiny_policies, "policy": "tiny"}
    (tmp_path / "empty").mkdir()
    ended = typed("bench", "precision", "--precision", "int8", "--images", tmp_path / "empty", settings=settings)
    assert ended.returncode == 3
    ended = typed("bench", "encoder", "--model", tiny_clip, "--images", tmp_path / "empty")
    assert ended.returncode == 3


def test_counts_below_one_are_wrong_usage(tiny_clip: Path) -> None:
    assert typed("bench", "encoder", "--model", tiny_clip, "--batch", "0").returncode == 2
    assert typed("bench", "encoder", "--model", tiny_clip, "--rounds", "0").returncode == 2


def test_files_are_read_in_the_order_of_their_names_and_only_where_they_may_be_images(uploads: Path) -> None:
    assert len(list(read_files(uploads))) == 4
    assert next(read_files(uploads)) == (uploads / "a.png").read_bytes()


def test_the_policy_that_is_benched_has_eighty_sentences() -> None:
    policy = bench_policy()
    assert len(policy.contrast) + sum(len(category.prompts) for category in policy.categories.values()) == 80


def test_a_batch_of_32_costs_less_than_half_a_round_trip_a_job() -> None:
    ended = sluice("bench", "queue", "--jobs", 640, "--rounds", 1, "--json")
    assert ended.returncode == 0, ended.stderr
    rows = {row["worker"]: row for row in map(json.loads, ended.stdout.splitlines())}
    assert list(rows) == [
        "SimpleWorker", "Worker (forks)", "BatchWorker, 1", "BatchWorker, 8", "BatchWorker, 32", "BatchWorker, 128",
        "BatchWorker, 32, half fails", "BatchWorker, 32, verdicts", "BatchWorker, 32, verdicts, ledger",
    ]  # fmt: skip
    assert rows["SimpleWorker"]["speed_ratio"] == rows["SimpleWorker"]["cpu_ratio"] == 1
    assert rows["BatchWorker, 32"]["round_trips_per_job"] <= 0.4 < rows["SimpleWorker"]["round_trips_per_job"]


@pytest.mark.nightly
@pytest.mark.timeout(300)
def test_the_path_from_queue_to_verdict_is_measured_beside_the_bare_encoder(tiny_clip: Path) -> None:
    ended = sluice(
        "bench", "pipeline", "--model", tiny_clip, "--images", 12, "--batch-size", 4, "--rounds", 1, "--json",
        seconds=240,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    rows = {row["stream"]: row for row in map(json.loads, ended.stdout.splitlines())}
    assert list(rows) == ["bare encoder", "JPEG 500x375", "JPEG 4000x3000", "JPEG 500x375, 90 % seen before"]
    assert rows["bare encoder"]["share_of_bare"] == 1
    assert all(row["images_per_second"] > 0 for row in rows.values())


def test_a_fleet_is_measured_with_models_that_sleep_and_none_is_faster_than_its_model() -> None:
    ended = sluice(
        "bench", "fleet", "--workers", 1, 2, "--images-per-second", 200, "--batch", 8, "--seconds", 1, "--json"
    )
    assert ended.returncode == 0, ended.stderr
    rows = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [row["workers"] for row in rows] == [1, 2]
    for row in rows:
        # A batch that ends as the time begins counts whole.
        assert 0 < row["jobs_per_second"] <= 200 * row["workers"] * 1.2
        assert row["redis_ceiling"] > row["jobs_per_second"]
        assert row["redis_microseconds_per_job"] > 0
        assert "%" in row["commands"]
    assert "2 workers: measuring" in ended.stderr


def test_a_redis_that_is_in_use_is_not_emptied_unasked(redis_url: str) -> None:
    ended = sluice("bench", "fleet", "--redis-url", redis_url)
    assert ended.returncode == 2
    assert "--empty-that-redis" in ended.stderr
