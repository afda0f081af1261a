"""The memo in a real Redis: what was seen is known again to the last bit, and whatever is wrong is a miss."""

from __future__ import annotations

import hashlib
import logging
import struct
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from support import free_port

from worker.encoder.memo import MAX_ENTRY_BYTES, PREFIX, ImageMemo, Matrix, Remembered, rounded
from worker.records import ImageFacts

DIM = 8


def seen(name: str, views: int = 1) -> Remembered:
    """Make an image up."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    rows = np.random.default_rng(len(name)).normal(size=(views, DIM)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    facts = ImageFacts(sha256=digest, format="JPEG", width=640, height=480, frames=1, views=views, bytes=90_211)
    return Remembered(facts, rows)


@pytest.fixture
def memo(connection: redis.Redis) -> ImageMemo:
    """Give a memo in an empty Redis."""
    return ImageMemo(connection, "0123456789abcdef", DIM, 60)


def key(image: Remembered) -> str:
    return f"{PREFIX}0123456789abcdef:{image.facts.sha256}"


def test_what_was_remembered_is_recalled_in_order_with_misses_in_between(memo: ImageMemo) -> None:
    first, second = seen("a"), seen("bb", views=3)
    memo.remember([first, second])
    found = memo.recall([second.facts.sha256, "0" * 64, first.facts.sha256])
    assert [image.facts if image else None for image in found] == [second.facts, None, first.facts]
    for image, original in ((found[0], second), (found[2], first)):
        assert image is not None
        assert image.embeddings.dtype == np.float32
        assert np.array_equal(image.embeddings, rounded(original.embeddings))


def test_rounding_twice_is_rounding_once_so_a_repeat_scores_as_the_first_did(memo: ImageMemo) -> None:
    image = Remembered(seen("a").facts, rounded(seen("a").embeddings))
    memo.remember([image])
    (found,) = memo.recall([image.facts.sha256])
    assert found is not None
    np.testing.assert_allclose(found.embeddings, image.embeddings, atol=1e-7)
    assert np.abs(image.embeddings - seen("a").embeddings).max() < 2**-11


def test_nothing_is_recalled_of_nothing(memo: ImageMemo, connection: redis.Redis) -> None:
    assert memo.recall([]) == []
    memo.remember([])
    assert connection.dbsize() == 0


def test_entries_end_with_their_time_to_live_and_are_small(memo: ImageMemo, connection: redis.Redis) -> None:
    image = seen("a")
    memo.remember([image])
    assert 0 < connection.ttl(key(image)) <= 60
    assert connection.strlen(key(image)) < 200 + 2 * DIM


def test_another_model_or_other_preprocessing_knows_nothing_of_it(memo: ImageMemo, connection: redis.Redis) -> None:
    image = seen("a")
    memo.remember([image])
    assert ImageMemo(connection, "fedcba9876543210", DIM, 60).recall([image.facts.sha256]) == [None]


def test_an_entry_that_is_too_large_is_not_written(memo: ImageMemo, connection: redis.Redis) -> None:
    memo.remember([seen("huge", views=MAX_ENTRY_BYTES // (2 * DIM) + 1), seen("a")])
    assert [memo_key.decode() for memo_key in connection.keys("*")] == [key(seen("a"))]


def _sealed(body: bytes) -> bytes:
    return body + struct.pack(">I", zlib.crc32(body))


def _damages(whole: bytes) -> Iterator[bytes]:
    body = whole[:-4]
    yield from (b"", b"\0", whole[:-1], whole + b"\0", whole[1:], b"x" * (MAX_ENTRY_BYTES + 1), b"[]", b"{}" * 100)
    yield from (whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(len(whole)))
    yield _sealed(b"\x02" + body[1:])
    yield _sealed(body[: -2 * DIM])
    yield _sealed(body + body[-2 * DIM :])
    yield _sealed(body[: -2 * DIM] + bytes(2 * DIM))
    yield _sealed(body[: -2 * DIM] + b"\xff\x7f" * DIM)
    yield _sealed(body.replace(b'"views":1', b'"views":0')[: -2 * DIM])
    yield _sealed(body.replace(b'"views":1', b'"views":9'))
    yield _sealed(body.replace(b'"views":1', b'"views":"1"'))


def test_an_entry_that_is_not_to_the_last_bit_what_was_written_is_a_miss(
    memo: ImageMemo, connection: redis.Redis
) -> None:
    image = seen("a")
    memo.remember([image])
    whole = connection.get(key(image))
    assert isinstance(whole, bytes)
    for damaged in _damages(whole):
        connection.set(key(image), damaged)
        assert memo.recall([image.facts.sha256]) == [None], damaged[:80]
    connection.set(key(image), whole)
    assert memo.recall([image.facts.sha256]) != [None]


def test_an_entry_of_another_image_or_of_another_kind_is_a_miss(memo: ImageMemo, connection: redis.Redis) -> None:
    image, other = seen("a"), seen("bb")
    memo.remember([other])
    connection.rename(key(other), key(image))
    assert memo.recall([image.facts.sha256]) == [None]
    connection.delete(key(image))
    connection.lpush(key(image), "x")
    assert memo.recall([image.facts.sha256]) == [None]


def test_a_redis_that_is_not_there_is_a_miss_that_is_logged_and_not_asked_again_at_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    absent = redis.Redis(port=free_port(), retry=Retry(NoBackoff(), 0))
    memo = ImageMemo(absent, "0123456789abcdef", DIM, 60)
    with caplog.at_level(logging.WARNING):
        assert memo.recall(["0" * 64, "1" * 64]) == [None, None]
        memo.remember([seen("a")])
        assert memo.recall(["0" * 64]) == [None]
    assert len(caplog.records) == 1


def test_a_redis_that_is_full_loses_nothing_but_the_memo(memo: ImageMemo, connection: redis.Redis) -> None:
    connection.config_set("maxmemory", "1")
    try:
        memo.remember([seen("a")])
    finally:
        connection.config_set("maxmemory", "0")
    assert memo.recall([seen("a").facts.sha256]) == [None]


def _unit(rows: Sequence[Sequence[float]]) -> Matrix:
    matrix = np.array(rows, np.float32)
    unit: Matrix = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    return unit


def test_rounded_rows_are_unit_rows() -> None:
    rows = rounded(_unit([[3.0, 4.0], [1e-3, 1.0]]))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
