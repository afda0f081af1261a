"""Image ref → bytes: URLs, objects in buckets, blobs in Redis, base64, paths under a root.

In: a sequence of `ImageRef`s. Out: for each, in order, its bytes or the `JobError` that says why not.
Never more than the byte limit is held, never longer than the time-out is waited.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import redis
from anyio.from_thread import BlockingPortal, start_blocking_portal

from worker.errors import (
    BlobMismatch,
    ImageTooLarge,
    ImageUndecodable,
    JobError,
    JobInvalid,
    PathRefused,
    SourceRefused,
    SourceUnavailable,
)
from worker.intake.buckets import Buckets, check_extra
from worker.intake.files import read_file
from worker.intake.limits import FetchLimits
from worker.intake.web import Web
from worker.records import ImageRef

__all__ = ["BLOB_PREFIX", "FetchLimits", "Sources"]

#: Redis key of a blob, before its digest.
BLOB_PREFIX = "sluice:blob:"


class Sources:
    """Fetches every kind of image ref; use it as a context manager, or `close` it.

    Args:
        limits: How far a fetch goes.
        connection: Where blobs lie; None refuses them.

    Raises:
        Missing: Buckets are listed, and the extra `s3` is not installed.
    """

    def __init__(self, limits: FetchLimits, connection: redis.Redis | None = None) -> None:
        if limits.s3_buckets:
            check_extra()
        self._limits = limits
        self._connection = connection
        self._portal_manager: Any = None
        self._portal: BlockingPortal | None = None
        self._web: Web | None = None
        self._buckets: Buckets | None = None

    def fetch(self, refs: Sequence[ImageRef]) -> list[bytes | JobError]:
        """Fetch images, those that come over HTTP at the same time.

        Args:
            refs: What to fetch.

        Returns:
            Bytes or the reason why not; same length, same order.
        """
        remote = [ref for ref in refs if _is_remote(ref)]
        fetched = iter(self._fetch_remote(remote)) if remote else iter(())
        return [next(fetched) if _is_remote(ref) else self._fetch_local(ref) for ref in refs]

    def close(self) -> None:
        """Close the connections; `fetch` opens them again."""
        if self._portal is not None:
            for client in (self._web, self._buckets):
                if client is not None:
                    self._portal.call(client.close)
            self._portal_manager.__exit__(None, None, None)
        self._portal = self._portal_manager = self._web = self._buckets = None

    def _fetch_remote(self, refs: list[ImageRef]) -> list[bytes | JobError]:
        if self._portal is None:
            self._portal_manager = start_blocking_portal()
            self._portal = self._portal_manager.__enter__()
        return self._portal.call(self._gather, refs)

    async def _gather(self, refs: list[ImageRef]) -> list[bytes | JobError]:
        return list(await asyncio.gather(*(self._fetch_one(ref) for ref in refs)))

    async def _fetch_one(self, ref: ImageRef) -> bytes | JobError:
        if ref.url is not None:
            self._web = self._web or Web(self._limits)
            return await self._web.fetch(ref.url)
        self._buckets = self._buckets or Buckets(self._limits)
        return await self._buckets.fetch(ref.s3 or "")

    def _fetch_local(self, ref: ImageRef) -> bytes | JobError:
        try:
            if ref.blob is not None:
                return self._fetch_blob(ref.blob)
            if ref.base64 is not None:
                return self._fetch_base64(ref.base64)
            return self._fetch_path(Path(ref.path or ""))
        except JobError as error:
            return error

    def _fetch_blob(self, digest: str) -> bytes:
        if self._connection is None:
            raise JobInvalid("blob refs need Redis, which this command does not use")
        try:
            # One byte more than the limit tells a blob that is too large from one that just fits.
            data = self._connection.getrange(BLOB_PREFIX + digest, 0, self._limits.max_bytes)
        except redis.RedisError as error:
            if "WRONGTYPE" in str(error):
                raise SourceRefused(f"{BLOB_PREFIX}{digest} holds no string") from error
            raise SourceUnavailable(f"Redis did not give the blob: {error}") from error
        if not isinstance(data, bytes) or not data:
            raise SourceRefused(f"there is no blob {digest}; store its bytes at {BLOB_PREFIX}{digest} first")
        if len(data) > self._limits.max_bytes:
            raise ImageTooLarge(f"the blob is larger than {self._limits.max_bytes} bytes")
        if hashlib.sha256(data).hexdigest() != digest:
            raise BlobMismatch(f"the bytes at {BLOB_PREFIX}{digest} have another SHA-256")
        return data

    def _fetch_base64(self, text: str) -> bytes:
        if len(text) * 3 // 4 > self._limits.max_bytes + 3:
            raise ImageTooLarge(f"the base64 holds more than {self._limits.max_bytes} bytes")
        try:
            data = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ImageUndecodable(f"not base64: {error}") from error
        if len(data) > self._limits.max_bytes:
            raise ImageTooLarge(f"the base64 holds more than {self._limits.max_bytes} bytes")
        return data

    def _fetch_path(self, path: Path) -> bytes:
        if self._limits.path_root is None:
            raise PathRefused("path refs are refused; set SLUICE_PATH_ROOT to the directory they may lie in")
        return read_file(self._limits.path_root, path, self._limits.max_bytes)


def _is_remote(ref: ImageRef) -> bool:
    return ref.url is not None or ref.s3 is not None
