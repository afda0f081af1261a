"""Real parts for every tier: one Redis server for the whole run, tiny CLIP checkpoints, policies for them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import support

TINY_POLICY = """\
policy: tiny
version: 1
contrast: [a photo of food, people at work]
categories:
  weapons: {prompts: [a gun, a rifle], look_alikes: [a kitchen knife], thresholds: {review: 0.5, block: 0.9}}
  drugs: {prompts: [pills], thresholds: {review: 0.5}}
"""


# Threads of torch that wait for work take no core from the processes beside them; read when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Where a run of the tests was put in the background, these are ignored, and whatever a test starts inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest: else it runs last and alone."""
    items.sort(key=lambda item: item.get_closest_marker("thorough") is None)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the caller's SLUICE_ variables and .env out of the tests."""
    for name in [name for name in os.environ if name.startswith("SLUICE_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """Start a real server, found as `sluice demo` finds one; its URL."""
    from worker.cli.embedded_redis import embedded_redis

    with embedded_redis() as (url, _):
        yield url


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """Give an empty Redis."""
    with redis.Redis.from_url(redis_server) as connection:
        connection.flushall()
    return redis_server


@pytest.fixture
def connection(redis_url: str) -> Iterator[redis.Redis]:
    """Give a connection to an empty Redis."""
    with redis.Redis.from_url(redis_url) as connection:
        yield connection


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a random CLIP of 32 dimensions, for shapes and speed."""
    return support.write_tiny_clip(tmp_path_factory.mktemp("tiny-clip"))


@pytest.fixture
def tiny_policies(tmp_path: Path) -> Path:
    """Write a directory with the policy `tiny`."""
    directory = tmp_path / "policies"
    (directory / "tiny").mkdir(parents=True)
    (directory / "tiny" / "v1.yaml").write_text(TINY_POLICY)
    return directory
