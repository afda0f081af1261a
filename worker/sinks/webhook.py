"""Signs a verdict after the Standard Webhooks specification and posts it.

In: a URL, the name of the verdict and its JSON. Out: an `Answer`, whatever the receiver does. Never a redirect, never
an address that the guard refuses, never longer than the time-out, never a retry: that is the caller's.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal
from ssrfguard import BlockedAddressError, SSRFGuardError

from worker.addresses import fetch_policy, guarded_client
from worker.errors import UsageError

_SECRET_PREFIX = "whsec_"  # noqa: S105 - what a secret starts with
#: Bytes of a secret, by the specification.
_SECRET_BYTES = range(24, 65)
#: What is read of an answer's body, and for how many seconds: enough to use the connection again.
_READ_BYTES = 16_384
_READ_SECONDS = 1.0
#: Longest wait that a receiver may ask for: a day, as the schedule's own longest.
_LONGEST_RETRY_AFTER_SECONDS = 86_400.0
_SUCCESS = range(200, 300)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one attempt."""

    #: HTTP status; None where there was no answer.
    status: int | None
    #: The same in words, for people; quotes nothing that the receiver wrote.
    says: str
    #: For how long the receiver wants to be left alone.
    retry_after_seconds: float | None = None
    #: Whether the guard refused the address, so that nothing was sent.
    is_refused: bool = False

    @property
    def is_success(self) -> bool:
        """Whether the receiver has the verdict."""
        return self.status in _SUCCESS


def read_secrets(text: str) -> tuple[bytes, ...]:
    """Read the secrets to sign with.

    Args:
        text: One or more of `whsec_` and base64, between commas: the new one and the old one during a rotation.

    Raises:
        UsageError: One is not such a secret; it is not quoted.
    """
    keys = []
    for number, part in enumerate((part.strip() for part in text.split(",")), 1):
        try:
            key = base64.b64decode(part.removeprefix(_SECRET_PREFIX), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if not part.startswith(_SECRET_PREFIX) or len(key) not in _SECRET_BYTES:
            raise UsageError(
                f"SLUICE_WEBHOOK_SECRET: secret {number} is not {_SECRET_PREFIX} and 24 to 64 bytes in base64; "
                f'make one with: echo "{_SECRET_PREFIX}$(openssl rand -base64 32)"'
            )
        keys.append(key)
    return tuple(keys)


def sign(keys: Sequence[bytes], webhook_id: str, timestamp: int, body: bytes) -> str:
    """Return the header `webhook-signature`.

    Args:
        keys: One signature for each.
        webhook_id: Without a full stop in it.
        timestamp: Of the attempt, in Unix seconds.
        body: What is posted.

    Source: Standard Webhooks 1.0, "Signature scheme" and "Webhook headers".
    """
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    digests = (hmac.new(key, signed, hashlib.sha256).digest() for key in keys)
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)


def read_retry_after(text: str | None) -> float | None:
    """Return the seconds that a header `Retry-After` asks for, a day at most; None where it cannot be read.

    Source: RFC 9110, section 10.2.3: seconds, or a date.
    """
    if not text:
        return None
    if text.strip().isascii() and text.strip().isdigit():
        return min(float(text), _LONGEST_RETRY_AFTER_SECONDS)
    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, ValueError, OverflowError):
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(max(0.0, (aware - datetime.now(UTC)).total_seconds()), _LONGEST_RETRY_AFTER_SECONDS)


class Webhooks:
    """Posts many verdicts at the same time, from a thread with an event loop; `close` it.

    Args:
        keys: What `read_secrets` returned.
        timeout_seconds: For one attempt, from the look-up of the name to the status line.
        allow_private: Also to private and loopback addresses, on any port.
        connections: How many attempts at the same time.
    """

    def __init__(self, keys: Sequence[bytes], timeout_seconds: float, allow_private: bool, connections: int) -> None:
        self._keys = tuple(keys)
        self._timeout_seconds = timeout_seconds
        # The list of hosts that images come from says nothing about where verdicts go.
        self._policy = fetch_policy((), allow_private)
        self._connections = connections
        self._portal_manager: Any = start_blocking_portal()
        self._portal: BlockingPortal = self._portal_manager.__enter__()
        self._client: httpx.AsyncClient = self._portal.call(self._open)

    def post(self, url: str, webhook_id: str, body: bytes) -> Future[Answer]:
        """Begin one attempt.

        Args:
            url: Where.
            webhook_id: The same in every attempt, so that the receiver can drop repeats.
            body: JSON.
        """
        return self._portal.start_task_soon(self._attempt, url, webhook_id, body)

    def close(self) -> None:
        """Break off what is under way, and close the connections."""
        self._portal.call(self._client.aclose)
        self._portal.call(self._portal.stop, True)
        self._portal_manager.__exit__(None, None, None)

    async def _open(self) -> httpx.AsyncClient:
        return guarded_client(self._policy, self._timeout_seconds, self._connections)

    async def _attempt(self, url: str, webhook_id: str, body: bytes) -> Answer:
        seconds = self._timeout_seconds
        # Not `asyncio.timeout`: it would wait for what it cancels, and a name lookup ends when its server wants.
        task = asyncio.ensure_future(self._send(url, webhook_id, body))
        try:
            done, _ = await asyncio.wait({task}, timeout=seconds)
        finally:
            if not task.done():
                task.cancel()
        if not done:
            return Answer(None, f"no answer within {seconds:g} s")
        try:
            return await self._read(task.result())
        except SSRFGuardError as error:
            return Answer(None, f"not posted: {_why_refused(error)}", is_refused=True)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError):
            return Answer(None, "not posted: not a URL that can be posted to", is_refused=True)
        except httpx.TimeoutException:
            return Answer(None, f"no answer within {seconds:g} s")
        except (httpx.HTTPError, OSError) as error:
            return Answer(None, f"no answer: {type(error).__name__}")

    async def _send(self, url: str, webhook_id: str, body: bytes) -> httpx.Response:
        timestamp = int(time.time())
        headers = {
            "Content-Type": "application/json",
            "Accept": "*/*",
            "webhook-id": webhook_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(self._keys, webhook_id, timestamp, body),
        }
        request = self._client.build_request(
            "POST", url, content=body, headers=headers, timeout=httpx.Timeout(self._timeout_seconds)
        )
        return await self._client.send(request, stream=True, follow_redirects=False)

    async def _read(self, response: httpx.Response) -> Answer:
        try:
            # The status line is the answer; what follows may be long, late, or not as long as it says.
            await _skip_body(response)
        finally:
            with suppress(httpx.HTTPError, OSError):
                await response.aclose()
        status = response.status_code
        return Answer(status, f"answered {status}", read_retry_after(response.headers.get("Retry-After")))


async def _skip_body(response: httpx.Response) -> None:
    """Read a short body to its end, so that its connection can be used again; leave any other."""
    read = 0
    with suppress(httpx.HTTPError, OSError, TimeoutError):
        async with asyncio.timeout(_READ_SECONDS):
            async for chunk in response.aiter_raw():
                read += len(chunk)
                if read > _READ_BYTES:
                    return


def _why_refused(error: SSRFGuardError) -> str:
    """Return why the guard refused; its own reason for a URL quotes it, tokens and all."""
    if isinstance(error, BlockedAddressError):
        return f"{error.address} is an address that may not be posted to"
    return "its scheme, host or port may not be posted to"
