"""Images that were embedded before, in Redis.

In: digests of files. Out: what is known of them; what is not is a miss, and so is whatever cannot be
read, was written by something else, or lies in a Redis that does not answer. Never an error, never a wrong embedding.
"""

from __future__ import annotations

import logging
import struct
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import redis

from worker.records import ImageFacts

log = logging.getLogger(__name__)

Matrix = npt.NDArray[np.float32]

#: What the keys of images start with; the encoder's fingerprint and the file's SHA-256 follow.
PREFIX = "sluice:memo:image:"
#: Larger entries are neither written nor read: the 48 views of an animation at 768 dimensions are 77 kB.
MAX_ENTRY_BYTES = 128 * 1024
#: Seconds for which a Redis that failed is left alone: meanwhile all is a miss.
_REST_SECONDS = 5.0
#: Version of the entry, then the bytes of the facts.
_HEAD = struct.Struct(">BH")
_CHECKSUM = struct.Struct(">I")
_VERSION = 1
#: What rounding to 16 bits does to the length of a unit row stays far below this.
_UNIT_TOLERANCE = 0.01
#: Bits of a float32 that a half has: its sign, five of its exponent, its fraction.
_SIGN_EXPONENT_FRACTION = np.int32(-0x7000_0001)
#: The first power of two that 16 bits cannot hold.
_NO_HALF = np.float32(2**16)
#: The exponent of a float32 counts from 127, of a half from 15.
_BIAS = np.float32(2.0 ** (127 - 15))


@dataclass(frozen=True, slots=True)
class Remembered:
    """An image that was embedded: what it is, and its views' embeddings, `(views, dim)` float32, unit rows."""

    facts: ImageFacts
    embeddings: Matrix


class ImageMemo:
    """Remembers images by their bytes.

    Args:
        connection: Where to; every trouble with it is a miss.
        fingerprint: Names all that an embedding depends on beside the bytes of the file.
        dim: Of the embeddings.
        ttl_seconds: For how long an image is remembered after it was embedded.
    """

    def __init__(self, connection: redis.Redis, fingerprint: str, dim: int, ttl_seconds: int) -> None:
        self._connection = connection
        self._prefix = f"{PREFIX}{fingerprint}:"
        self._dim = dim
        self._ttl_seconds = ttl_seconds
        self._rests_until = 0.0

    def recall(self, digests: Sequence[str]) -> list[Remembered | None]:
        """Look images up, in one round trip.

        Args:
            digests: SHA-256 of the files, hexadecimal.

        Returns:
            What is known; None for a miss. Same length, same order.
        """
        keys = [self._prefix + digest for digest in digests]
        values: Any = self._ask(lambda: self._connection.mget(keys)) or [None] * len(keys)
        return [_unpack(value, digest, self._dim) for digest, value in zip(digests, values, strict=True)]

    def remember(self, images: Sequence[Remembered]) -> None:
        """Store images, in one round trip."""
        with self._connection.pipeline(transaction=False) as together:
            for image in images:
                entry = _pack(image)
                if len(entry) <= MAX_ENTRY_BYTES:
                    together.set(self._prefix + image.facts.sha256, entry, ex=self._ttl_seconds)
            if len(together):
                self._ask(together.execute)

    def _ask(self, ask: Callable[[], Any]) -> Any:
        """Return Redis's answer; None when there is none."""
        if time.monotonic() < self._rests_until:
            return None
        try:
            return ask()
        except redis.RedisError as error:
            self._rests_until = time.monotonic() + _REST_SECONDS
            log.warning("the memo is left alone for %g s: %s", _REST_SECONDS, error)
            return None


def rounded(embeddings: Matrix | npt.NDArray[np.float16]) -> Matrix:
    """Return embeddings as memo and ledger give them back, so that a repeat scores as the first did.

    Args:
        embeddings: `(n, dim)` float32, unit rows; or float16 that these were rounded to.

    Returns:
        The same in the precision of 16 bits, unit rows again.
    """
    unit = _widened(embeddings.astype(np.float16, copy=False))
    lengths = np.sqrt(np.einsum("rd,rd->r", unit, unit))
    # What is no number of 16 bits has become one of this size or more; it must not become a score.
    lengths[lengths >= _NO_HALF] = np.nan
    unit /= lengths[:, None]
    return unit


def _widened(halves: npt.NDArray[np.float16]) -> Matrix:
    """Return numbers of 16 bits in 32, exactly; seven times as fast as numpy, which takes one at a time.

    What is infinite, or no number, becomes `_NO_HALF` or more.
    """
    # Exponent and fraction move to where a float32 has them, the sign stays at the top, and the exponent's bias is made
    # up for.
    bits = halves.view(np.int16).astype(np.int32)
    bits <<= 13
    bits &= _SIGN_EXPONENT_FRACTION
    wide = bits.view(np.float32)
    wide *= _BIAS
    return wide


def _pack(image: Remembered) -> bytes:
    facts = image.facts.model_dump_json(exclude_defaults=True).encode()
    body = _HEAD.pack(_VERSION, len(facts)) + facts + image.embeddings.astype("<f2").tobytes()
    return body + _CHECKSUM.pack(zlib.crc32(body))


def _unpack(entry: object, digest: str, dim: int) -> Remembered | None:
    """Read an entry; None for anything that is not, to the last bit, what `_pack` wrote of this image."""
    if not isinstance(entry, bytes) or not _HEAD.size + _CHECKSUM.size < len(entry) <= MAX_ENTRY_BYTES:
        return None
    body, checksum = entry[: -_CHECKSUM.size], entry[-_CHECKSUM.size :]
    version, length = _HEAD.unpack_from(body)
    if version != _VERSION or checksum != _CHECKSUM.pack(zlib.crc32(body)):
        return None
    try:
        facts = ImageFacts.model_validate_json(body[_HEAD.size : _HEAD.size + length])
        halves = np.frombuffer(body[_HEAD.size + length :], "<f2").reshape(facts.views, dim)
    except ValueError:
        return None
    lengths = np.linalg.norm(halves.astype(np.float32), axis=1)
    is_unit = facts.views > 0 and bool((np.abs(lengths - 1) < _UNIT_TOLERANCE).all())
    return Remembered(facts, rounded(halves.astype(np.float32))) if is_unit and facts.sha256 == digest else None
