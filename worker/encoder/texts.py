"""Sentences that were embedded before: in this process, and in Redis for the whole fleet.

In: sentences. Out: their embeddings, each embedded once for a model. What Redis does not know, or what is not to the
last bit what was written there, is embedded here. Never an error for want of Redis.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import redis

log = logging.getLogger(__name__)

Matrix = npt.NDArray[np.float32]

#: What the keys of sentences start with; the encoder's fingerprint and the sentence's SHA-256 follow.
PREFIX = "sluice:memo:text:"
#: Sentences that a process remembers: at 768 dimensions 300 MB.
MAX_SENTENCES = 100_000
_CHECKSUM_BYTES = 4
#: What rounding does to the length of a unit row stays far below this.
_UNIT_TOLERANCE = 1e-3


class SharedTexts:
    """Sentences that a worker of the fleet embedded.

    Args:
        connection: Where to; every trouble with it is a miss.
        fingerprint: Names all that an embedding depends on beside the sentence.
        dim: Of the embeddings.
        ttl_seconds: For how long a sentence is remembered after it was embedded.
    """

    def __init__(self, connection: redis.Redis, fingerprint: str, dim: int, ttl_seconds: int) -> None:
        self._connection = connection
        self._prefix = f"{PREFIX}{fingerprint}:"
        self._dim = dim
        self._ttl_seconds = ttl_seconds

    def recall(self, sentences: Sequence[str]) -> dict[str, Matrix]:
        """Return the rows, `(dim,)` float32, of those that are known."""
        try:
            values: Any = self._connection.mget([self._key(sentence) for sentence in sentences])
        except redis.RedisError as error:
            log.warning("sentences are embedded again: %s", error)
            return {}
        rows = {sentence: self._unpack(value) for sentence, value in zip(sentences, values, strict=True)}
        return {sentence: row for sentence, row in rows.items() if row is not None}

    def remember(self, rows: dict[str, Matrix]) -> None:
        """Store rows."""
        try:
            with self._connection.pipeline(transaction=False) as together:
                for sentence, row in rows.items():
                    together.set(self._key(sentence), _pack(row), ex=self._ttl_seconds)
                together.execute()
        except redis.RedisError as error:
            log.warning("sentences are not remembered: %s", error)

    def _key(self, sentence: str) -> str:
        return self._prefix + hashlib.sha256(sentence.encode()).hexdigest()

    def _unpack(self, entry: object) -> Matrix | None:
        if not isinstance(entry, bytes) or len(entry) != self._dim * 4 + _CHECKSUM_BYTES:
            return None
        body = entry[:-_CHECKSUM_BYTES]
        if zlib.crc32(body) != int.from_bytes(entry[-_CHECKSUM_BYTES:], "big"):
            return None
        row = np.frombuffer(body, "<f4").astype(np.float32)
        return row if abs(float(np.linalg.norm(row)) - 1) < _UNIT_TOLERANCE else None


def _pack(row: Matrix) -> bytes:
    body = row.astype("<f4").tobytes()
    return body + zlib.crc32(body).to_bytes(_CHECKSUM_BYTES, "big")


class TextMemo:
    """Embeds each sentence once; a policy's next version shares most of its sentences with the one before.

    Args:
        embed: The text tower: n sentences to `(n, dim)`.
        shared: What the fleet knows; None asks nobody.
    """

    def __init__(self, embed: Callable[[Sequence[str]], Matrix], shared: SharedTexts | None = None) -> None:
        self._embed = embed
        self._shared = shared
        self._rows: dict[str, Matrix] = {}
        self._counts: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    def __call__(self, sentences: Sequence[str]) -> Matrix:
        """Embed sentences: n to `(n, dim)` float32, unit rows, in order."""
        with self._lock:
            if len(self._rows) > MAX_SENTENCES:
                self._rows.clear()
            unknown = list(dict.fromkeys(sentence for sentence in sentences if sentence not in self._rows))
            if unknown and self._shared:
                self._rows.update(self._shared.recall(unknown))
            new = [sentence for sentence in unknown if sentence not in self._rows]
            if new:
                rows = dict(zip(new, self._embed(new), strict=True))
                self._rows.update(rows)
                if self._shared:
                    self._shared.remember(rows)
            self._counts["text", "miss"] += len(new)
            self._counts["text", "hit"] += len(sentences) - len(new)
            return np.stack([self._rows[sentence] for sentence in sentences])

    def take_counts(self) -> Counter[tuple[str, str]]:
        """Return hits and misses since the last call."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
            return counts
