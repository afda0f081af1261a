"""Image ref → bytes: URLs, blobs in Redis, base64, paths under a root.

In: a sequence of `ImageRef`s. Out: for each, in order, its bytes or the `JobError` that says why not.
Never more than the byte limit is held, never longer than the time-out is waited.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import os
import stat
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import redis
from anyio.from_thread import BlockingPortal, start_blocking_portal
from ssrfguard import SSRFGuardError, TooManyRedirectsError

from worker.addresses import fetch_policy, guarded_client, shown
from worker.errors import (
    AddressRefused,
    BlobMismatch,
    ImageTooLarge,
    ImageUndecodable,
    JobError,
    JobInvalid,
    PathRefused,
    SourceRefused,
    SourceUnavailable,
)
from worker.records import ImageRef

#: Redis key of a blob, before its digest.
BLOB_PREFIX = "sluice:blob:"
_FETCHES_AT_ONCE = 32
_TOO_MANY_REQUESTS = 429
_CLIENT_ERROR = range(400, 500)


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """How far a fetch goes."""

    max_bytes: int
    #: For one whole download, in seconds.
    timeout_seconds: float
    allow_hosts: tuple[str, ...] = ()
    allow_private: bool = False
    #: What `path` refs must lie under; None refuses them.
    path_root: Path | None = None


class Sources:
    """Fetches every kind of image ref; use it as a context manager, or `close` it."""

    def __init__(self, limits: FetchLimits, connection: redis.Redis | None = None) -> None:
        self._limits = limits
        self._connection = connection
        self._policy = fetch_policy(limits.allow_hosts, limits.allow_private)
        self._portal_manager: Any = None
        self._portal: BlockingPortal | None = None
        self._client: httpx.AsyncClient | None = None

    def fetch(self, refs: Sequence[ImageRef]) -> list[bytes | JobError]:
        """Fetch images, the URLs among them at the same time.

        Args:
            refs: What to fetch.

        Returns:
            Bytes or the reason why not; same length, same order.
        """
        urls = [ref.url for ref in refs if ref.url is not None]
        fetched = iter(self._fetch_urls(urls)) if urls else iter(())
        return [next(fetched) if ref.url is not None else self._fetch_local(ref) for ref in refs]

    def close(self) -> None:
        """Close the connections; `fetch` opens them again."""
        if self._portal is not None:
            if self._client is not None:
                self._portal.call(self._client.aclose)
            self._portal_manager.__exit__(None, None, None)
        self._portal = self._client = self._portal_manager = None

    def _fetch_urls(self, urls: list[str]) -> list[bytes | JobError]:
        if self._portal is None:
            self._portal_manager = start_blocking_portal()
            self._portal = self._portal_manager.__enter__()
        return self._portal.call(self._gather, urls)

    async def _gather(self, urls: list[str]) -> list[bytes | JobError]:
        if self._client is None:
            self._client = guarded_client(self._policy, self._limits.timeout_seconds, _FETCHES_AT_ONCE)
        return list(await asyncio.gather(*(self._fetch_url(self._client, url) for url in urls)))

    async def _fetch_url(self, client: httpx.AsyncClient, url: str) -> bytes | JobError:
        """Download one image within the byte limit and the total deadline."""
        seconds = self._limits.timeout_seconds
        try:
            return await _within(seconds, self._download(client, url))
        except JobError as error:
            return error
        except SSRFGuardError as error:
            return _because(AddressRefused(f"{shown(url)} may not be fetched: {_reason_of(error)}"), error)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError) as error:
            return _because(AddressRefused(f"{shown(url)} is not a URL that can be fetched"), error)
        except (TimeoutError, httpx.TimeoutException) as error:
            return _because(SourceUnavailable(f"{shown(url)} did not answer within {seconds:g} s"), error)
        except (httpx.HTTPError, OSError) as error:
            name = str(error) or type(error).__name__
            return _because(SourceUnavailable(f"{shown(url)} cannot be reached: {name}"), error)

    async def _download(self, client: httpx.AsyncClient, url: str) -> bytes:
        async with client.stream("GET", url) as response:
            status = response.status_code
            if status >= _CLIENT_ERROR.stop or status == _TOO_MANY_REQUESTS:
                raise SourceUnavailable(f"{shown(url)} answered {status}")
            if not response.is_success:
                raise SourceRefused(f"{shown(url)} answered {status}")
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > self._limits.max_bytes:
                    raise ImageTooLarge(f"{shown(url)} is larger than {self._limits.max_bytes} bytes")
            return bytes(body)

    def _fetch_local(self, ref: ImageRef) -> bytes | JobError:
        try:
            if ref.blob is not None:
                return self._fetch_blob(ref.blob)
            if ref.base64 is not None:
                return self._fetch_base64(ref.base64)
            if ref.path is not None:
                return self._fetch_path(Path(ref.path))
        except JobError as error:
            return error
        return JobInvalid(f"{ref.kind} refs cannot be fetched by this worker; use url, blob, base64 or path")

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
        root = self._limits.path_root
        if root is None:
            raise PathRefused("path refs are refused; set SLUICE_PATH_ROOT to the directory they may lie in")
        try:
            resolved = (root / path).resolve(strict=True)
            if not resolved.is_relative_to(root.resolve()):
                raise PathRefused(f"{path} lies outside SLUICE_PATH_ROOT")
            return _read_regular_file(resolved, self._limits.max_bytes)
        except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: a loop of links, before Python 3.13
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise SourceRefused(f"{path} cannot be read: {reason}") from error


async def _within(seconds: float, work: Coroutine[Any, Any, bytes]) -> bytes:
    """Return what `work` returns, or raise TimeoutError at once when it is late.

    `asyncio.timeout` would wait for the end of what it cancels, and a name lookup ends when its server wants.
    """
    task = asyncio.ensure_future(work)
    done, _ = await asyncio.wait({task}, timeout=seconds)
    if not done:
        task.cancel()
        raise TimeoutError
    return task.result()


def _read_regular_file(path: Path, max_bytes: int) -> bytes:
    """Read a file, but never a FIFO or a device, and never through a link put there in between."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise PathRefused(f"{path.name} is not a regular file")
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise ImageTooLarge(f"{path.name} is larger than {max_bytes} bytes")
    return data


def _reason_of(error: SSRFGuardError) -> str:
    if isinstance(error, TooManyRedirectsError):
        return f"it redirects more than {error.limit} times"
    return str(getattr(error, "reason", "") or type(error).__name__)


def _because(error: JobError, cause: BaseException) -> JobError:
    error.__cause__ = cause
    return error
