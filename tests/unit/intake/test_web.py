"""What needs TLS to be seen: a redirect from https to http."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from worker.errors import AddressRefused
from worker.intake.limits import FetchLimits
from worker.intake.web import download

LIMITS = FetchLimits(max_bytes=100, timeout_seconds=1)


def answer(request: httpx.Request) -> httpx.Response:
    """Be the network: /end answers, the rest redirects to what the query says."""
    if request.url.path == "/end":
        return httpx.Response(200, stream=httpx.ByteStream(b"image"))
    return httpx.Response(302, headers={"Location": request.url.params["to"]})


def fetch(url: str) -> bytes:
    """Download one URL."""

    async def work() -> bytes:
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
            return await download(client, url, "it", LIMITS)

    return asyncio.run(work())


def test_a_redirect_from_https_to_http_is_not_followed() -> None:
    with pytest.raises(AddressRefused, match="from https to http"):
        fetch("https://a.example/?to=http://a.example/end")
    with pytest.raises(AddressRefused, match="from https to http"):
        fetch("http://a.example/?to=https%3A%2F%2Fa.example%2F%3Fto%3Dhttp%3A%2F%2Fa.example%2Fend")


@pytest.mark.parametrize(
    "url", ["https://a.example/?to=https://b.example/end", "http://a.example/?to=https://a.example/end"]
)
def test_a_redirect_that_keeps_or_gains_encryption_is_followed(url: str) -> None:
    assert fetch(url) == b"image"
