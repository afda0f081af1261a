"""What acceptance tests share: settings of a worker, a website to fetch from, a Redis of a test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import support
from house import House, durable_redis


@pytest.fixture(scope="module")
def settings(tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    policies = support.write_house_policies(tmp_path_factory.mktemp("policies"))
    return {
        "model": tiny_clip, "policies": policies, "policy": "house",
        "fetch_allow_private": True, "fetch_timeout_seconds": 30, "fetch_read_timeout_seconds": 30,
    }  # fmt: skip


@pytest.fixture(scope="module")
def site() -> Iterator[support.Website]:
    site = support.Website()
    yield site
    site.close()


@pytest.fixture
def own(tmp_path: Path, site: support.Website) -> Iterator[tuple[support.DurableRedis, House]]:
    """A Redis for one test."""
    with durable_redis(tmp_path) as server, redis.Redis(port=server.port) as connection:
        yield server, House(connection, site, tmp_path)
