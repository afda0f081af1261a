"""URL → bytes, over the guarded client: redirects, statuses, sizes and time-outs.

In: URLs of strangers. Out: the bytes of one answer, whole and within the limit, or the `JobError` that says why not.
Never quote a URL's query or credentials, nor what a source or a library says of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from ssrfguard import SSRFGuardError

from worker.addresses import fetch_policy, guarded_client, seconds_until, shown, why_refused, within
from worker.errors import AddressRefused, ImageTooLarge, JobError, SourceRefused, SourceUnavailable
from worker.intake.limits import FetchLimits

_SERVER_ERROR = 500
#: 200, and 203 of a proxy that says it has changed something: a part (206) or nothing (204) is no image.
_COMPLETE = frozenset({200, 203})
#: Refusals that pass: request time-out, too early, too many requests.
_LATER = frozenset({408, 425, 429})


class Web:
    """Fetches URLs; belongs to one event loop.

    Args:
        limits: How far a fetch goes.
    """

    def __init__(self, limits: FetchLimits) -> None:
        self._limits = limits
        policy = fetch_policy(
            limits.allow_hosts, limits.allow_private, limits.deny_networks, limits.ports, limits.max_redirects
        )
        self._client = guarded_client(
            policy, limits.timeout_seconds, limits.at_once, limits.connect_seconds, limits.read_seconds
        )

    async def fetch(self, url: str) -> bytes | JobError:
        """Download one image within the byte limit and the total deadline."""
        name, limits = shown(url), self._limits
        try:
            with mapped(name, limits):
                return await within(limits.timeout_seconds, download(self._client, url, name, limits))
        except JobError as error:
            return bare(error)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def bare(error: JobError) -> JobError:
    """Return an error without what it came from: RQ stores tracebacks, and what libraries raise quotes whole URLs."""
    error.__cause__ = error.__context__ = None
    return error


@contextmanager
def mapped(name: str, limits: FetchLimits) -> Iterator[None]:
    """Turn what httpx and the guard raise into errors of ours that quote nothing of theirs; see `bare`.

    Args:
        name: What is being fetched, as it may be shown.
        limits: For the words about time.

    Raises:
        JobError: The URL is refused, or its source unavailable.
    """
    try:
        yield
    except (SSRFGuardError, httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError) as error:
        raise AddressRefused(f"{name} may not be fetched: {_refusal(error)}") from error
    except (TimeoutError, httpx.HTTPError, OSError) as error:
        raise SourceUnavailable(f"{name} {_trouble(error, limits)}") from error


async def download(client: httpx.AsyncClient, url: str, name: str, limits: FetchLimits) -> bytes:
    """Return the body behind a URL.

    Args:
        client: Guarded; follows no redirects by itself.
        url: Where to begin.
        name: It, as it may be shown.
        limits: Bytes and redirects.

    Raises:
        JobError: The answer is not one whole image within the limits.
        SSRFGuardError: The URL, or one that it redirects to, points where it must not.
        httpx.HTTPError: The network failed.
    """
    request = client.build_request("GET", url)
    for _ in range(limits.max_redirects + 1):
        response = await client.send(request, stream=True)
        try:
            if response.next_request is None:
                return await _read(response, name, limits.max_bytes)
        finally:
            # Its body is not read: it may be endless, or packed.
            await response.aclose()
        if request.url.scheme == "https" and response.next_request.url.scheme == "http":
            raise AddressRefused(f"{name} may not be fetched: it redirects from https to http")
        request = response.next_request
    raise AddressRefused(f"{name} may not be fetched: it redirects more than {limits.max_redirects} times")


async def _read(response: httpx.Response, name: str, max_bytes: int) -> bytes:
    status, headers = response.status_code, response.headers
    if status >= _SERVER_ERROR or status in _LATER:
        raise SourceUnavailable(f"{name} answered {status}", seconds_until(headers.get("Retry-After", "")))
    if status not in _COMPLETE:
        raise SourceRefused(f"{name} answered {status}")
    if headers.get("Content-Encoding", "").strip().lower() not in ("", "identity"):
        # The same bytes could be one picture to us and another, unpacked, to a browser.
        raise SourceRefused(f"{name} answered with a Content-Encoding that was not asked for")
    length = headers.get("Content-Length", "")
    if length.isdecimal() and int(length[:20]) > max_bytes:
        raise ImageTooLarge(f"{name} is larger than {max_bytes} bytes")
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > max_bytes:
            raise ImageTooLarge(f"{name} is larger than {max_bytes} bytes")
    return bytes(body)


def _refusal(error: Exception) -> str:
    return why_refused(error) if isinstance(error, SSRFGuardError) else "it is not well-formed"


def _trouble(error: Exception, limits: FetchLimits) -> str:
    """Say what went wrong on the way; only what the system says of a connection is quoted."""
    if isinstance(error, httpx.ConnectTimeout):
        return f"did not take a connection within {min(limits.connect_seconds, limits.timeout_seconds):g} s"
    if isinstance(error, httpx.ReadTimeout | httpx.WriteTimeout):
        return f"was silent for {min(limits.read_seconds, limits.timeout_seconds):g} s"
    if isinstance(error, TimeoutError | httpx.TimeoutException):
        return f"did not answer within {limits.timeout_seconds:g} s"
    detail = str(error) if isinstance(error, httpx.ConnectError) else ""
    return f"cannot be reached: {detail or type(error).__name__}"
