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
from typing import Any

import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal
from ssrfguard import Policy, SSRFGuardError

from worker.addresses import PORTS, fetch_policy, guarded_client, seconds_until, why_refused, within
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


def read_retry_after(text: str) -> float | None:
    """Return the seconds that a header `Retry-After` asks for, from 0 to a day; None where it cannot be read."""
    seconds = seconds_until(text)
    return None if seconds is None else min(max(0.0, seconds), _LONGEST_RETRY_AFTER_SECONDS)


@dataclass(frozen=True, slots=True)
class Reach:
    """Where may be posted to."""

    #: CIDRs, refused whatever else is allowed.
    deny_networks: tuple[str, ...] = ()
    #: The only ports.
    ports: tuple[int, ...] = PORTS
    #: Also private and loopback addresses, on any port.
    allow_private: bool = False
    #: The one URL to which this is allowed though it is allowed to no other: the operator's own.
    private_url: str | None = None

    def policy(self, allow_private: bool) -> Policy:
        """Return what the guard is told. The hosts that images come from say nothing about where verdicts go."""
        return fetch_policy((), allow_private, self.deny_networks, self.ports)


class Webhooks:
    """Posts many verdicts at the same time, from a thread with an event loop; `close` it.

    Args:
        keys: What `read_secrets` returned.
        timeout_seconds: For one attempt, from the look-up of the name to the status line.
        reach: Where may be posted to.
        connections: How many attempts at the same time.
    """

    def __init__(self, keys: Sequence[bytes], timeout_seconds: float, reach: Reach, connections: int) -> None:
        self._keys = tuple(keys)
        self._timeout_seconds = timeout_seconds
        self._reach = reach
        self._connections = connections
        self._portal_manager: Any = start_blocking_portal()
        self._portal: BlockingPortal = self._portal_manager.__enter__()
        self._client: httpx.AsyncClient = self._portal.call(self._open, reach.allow_private)
        self._private_client = self._portal.call(self._open, True) if reach.private_url else self._client

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
        for client in (self._client, self._private_client):
            self._portal.call(client.aclose)
        self._portal.call(self._portal.stop, True)
        self._portal_manager.__exit__(None, None, None)

    async def _open(self, allow_private: bool) -> httpx.AsyncClient:
        return guarded_client(self._reach.policy(allow_private), self._timeout_seconds, self._connections)

    async def _attempt(self, url: str, webhook_id: str, body: bytes) -> Answer:
        try:
            return await self._read(await within(self._timeout_seconds, self._send(url, webhook_id, body)))
        except SSRFGuardError as error:
            return Answer(None, f"not posted: {why_refused(error)}", is_refused=True)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError):
            return Answer(None, "not posted: it is not well-formed", is_refused=True)
        except (TimeoutError, httpx.TimeoutException):
            return Answer(None, f"no answer within {self._timeout_seconds:g} s")
        except (httpx.HTTPError, OSError) as error:
            # What a library says of a failure may quote the URL.
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
        client = self._private_client if url == self._reach.private_url else self._client
        request = client.build_request(
            "POST", url, content=body, headers=headers, timeout=httpx.Timeout(self._timeout_seconds)
        )
        return await client.send(request, stream=True, follow_redirects=False)

    async def _read(self, response: httpx.Response) -> Answer:
        try:
            # The status line is the answer; what follows may be long, late, or not as long as it says.
            await _skip_body(response)
        finally:
            with suppress(httpx.HTTPError, OSError):
                await response.aclose()
        status = response.status_code
        return Answer(status, f"answered {status}", read_retry_after(response.headers.get("Retry-After", "")))


async def _skip_body(response: httpx.Response) -> None:
    """Read a short body to its end, so that its connection can be used again; leave any other."""
    read = 0
    with suppress(httpx.HTTPError, OSError, TimeoutError):
        async with asyncio.timeout(_READ_SECONDS):
            async for chunk in response.aiter_raw():
                read += len(chunk)
                if read > _READ_BYTES:
                    return
