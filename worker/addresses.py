"""Where a fetch may go: the one guarded HTTP client, its deadline, and how URLs are shown.

In: settings. Out: an httpx client that connects only to the addresses that it checked (no DNS rebinding).
Never fetch with any other client: `intake` and `sinks` both use this one.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Coroutine, Iterable
from datetime import UTC
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TypeVar
from urllib.parse import urlsplit, urlunsplit

import httpx
from ssrfguard import (
    DEFAULT_DENIED,
    AddressTable,
    Block,
    BlockedAddressError,
    Policy,
    Reach,
    SSRFGuardError,
    TooManyRedirectsError,
)
from ssrfguard.httpx import AsyncClient

#: Redirects that are followed, each checked like the first URL.
MAX_REDIRECTS = 3
#: Seconds.
CONNECT_TIMEOUT_SECONDS = 3.0
#: Longest silence in the middle of an answer, in seconds.
READ_TIMEOUT_SECONDS = 5.0
#: Ports that may be fetched from.
PORTS = (80, 443)
#: Names that are looked up at the same time: a lookup that hangs holds its thread beyond every deadline.
_LOOKUPS_AT_ONCE = 128

_T = TypeVar("_T")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _block(network: str, name: str, reach: Reach = Reach.DENIED) -> Block:
    return Block(ipaddress.ip_network(network), name, "not in the table", reach)


# What the table of ssrfguard does not have. All of IPv6 that is not global unicast is refused by default, so that no
# transition mechanism has to be known by name.
_ADDED = (
    _block("168.63.129.16/32", "Azure wire server"),
    _block("::/0", "not global unicast"),
    _block("2000::/3", "global unicast", Reach.PERMITTED),
    _block("fd20:ce::254/128", "Cloud metadata (GCP over IPv6)"),
    _block("fd00:42::42/128", "Cloud metadata (Scaleway over IPv6)"),
)
#: What `allow_private` opens. Link-local addresses are not among them, and metadata services stay refused.
_PRIVATE = frozenset(
    ipaddress.ip_network(network)
    for network in (
        "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8", "::1/128", "fc00::/7",
    )
)  # fmt: skip
#: What a refused URL is told, by a word of the guard's own reason. That reason quotes the URL, secrets and all.
_URL_REASONS = {
    "max_url_length": "it is too long",
    "allowed_schemes": "its scheme is neither http nor https",
    "no scheme": "it has no scheme",
    "allow_userinfo": "it carries credentials",
    "allowed_hosts": "its host is not one that may be fetched from (SLUICE_FETCH_ALLOW_HOSTS)",
    "allowed_ports": "its port is not one that may be fetched from (SLUICE_FETCH_PORTS)",
    "digits and dots": "its host is a number in disguise",
}


def fetch_policy(
    allow_hosts: Iterable[str],
    allow_private: bool,
    deny_networks: Iterable[str] = (),
    ports: Iterable[int] = PORTS,
    max_redirects: int = MAX_REDIRECTS,
) -> Policy:
    """Say what may be fetched from.

    Args:
        allow_hosts: The only hosts; empty for any.
        allow_private: Also private and loopback addresses, on any port.
        deny_networks: CIDRs that are refused whatever else is allowed, in any IPv6 disguise too.
        ports: The only ports.
        max_redirects: How many redirects are followed.

    Raises:
        ValueError: A network is not a CIDR, or a host no name.
    """
    return Policy(
        denied_networks=_table(allow_private, [ipaddress.ip_network(network) for network in deny_networks]),
        allowed_ports=frozenset(range(1, 65536)) if allow_private else frozenset(ports),
        allowed_hosts=frozenset(allow_hosts),
        max_redirects=max_redirects,
    )


def _table(allow_private: bool, denied: list[Network]) -> AddressTable:
    """Return the table of addresses, in which the longest prefix decides."""
    reach = {block.network: block for block in (*DEFAULT_DENIED.blocks, *_ADDED)}
    if allow_private:
        reach |= {network: Block(network, "private", "allowed by setting", Reach.PERMITTED) for network in _PRIVATE}
    for network in denied:
        # What lies inside would decide for itself.
        reach = {other: block for other, block in reach.items() if not _contains(network, other)}
        reach[network] = Block(network, "denied", "SLUICE_FETCH_DENY_NETWORKS", Reach.DENIED)
    return AddressTable(tuple(reach.values()), snapshot=DEFAULT_DENIED.snapshot)


def _contains(network: Network, other: Network) -> bool:
    if isinstance(network, ipaddress.IPv4Network):
        return isinstance(other, ipaddress.IPv4Network) and other.subnet_of(network)
    return isinstance(other, ipaddress.IPv6Network) and other.subnet_of(network)


def guarded_client(
    policy: Policy,
    timeout_seconds: float,
    connections: int,
    connect_seconds: float = CONNECT_TIMEOUT_SECONDS,
    read_seconds: float = READ_TIMEOUT_SECONDS,
) -> AsyncClient:
    """Open the client: nothing from the environment, no cookies, no compression.

    It follows no redirect by itself, because httpx would read the whole body of each, and unpack it, without a limit.
    """
    return AsyncClient(
        policy=policy,
        trust_env=False,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        follow_redirects=False,
        timeout=httpx.Timeout(
            timeout_seconds, connect=min(connect_seconds, timeout_seconds), read=min(read_seconds, timeout_seconds)
        ),
        limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
        resolver_slots=max(_LOOKUPS_AT_ONCE, connections),
        headers={"User-Agent": "sluice", "Accept": "image/*,*/*;q=0.1", "Accept-Encoding": "identity"},
    )


def why_refused(error: SSRFGuardError) -> str:
    """Return why the guard refused, in words that quote nothing of the URL."""
    if isinstance(error, TooManyRedirectsError):
        return f"it redirects more than {error.limit} times"
    if isinstance(error.__cause__, BlockedAddressError):
        error = error.__cause__
    reason = str(getattr(error, "reason", ""))
    if isinstance(error, BlockedAddressError):
        return reason.partition(". A name that")[0]
    return next((said for word, said in _URL_REASONS.items() if word in reason), "it is not well-formed")


def shown(url: str) -> str:
    """Return `url` as it may be logged: without query, fragment and credentials, on one line."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        # A password with a slash in it ends up where the port belongs, and the rest of it in the path.
        _ = parts.port
    except ValueError:
        return "(malformed URL)"
    # Without `//` there is no host to urlsplit, and the credentials are in the path.
    path = parts.path if host else parts.path.rpartition("@")[2]
    plain = urlunsplit((parts.scheme, host, path, "", ""))[:200]
    return "".join(character if character.isprintable() else "?" for character in plain)


def seconds_until(retry_after: str) -> float | None:
    """Read a `Retry-After` header.

    Args:
        retry_after: Seconds, or a date.

    Returns:
        Seconds from now; None where it says nothing that can be understood.

    Source:
        RFC 9110, section 10.2.3.
    """
    if retry_after.isascii() and retry_after.isdecimal():
        return float(retry_after[:20])
    try:
        moment = parsedate_to_datetime(retry_after)
        return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None


async def within(seconds: float, work: Coroutine[object, object, _T]) -> _T:
    """Return what `work` returns.

    `asyncio.timeout` would wait for the end of what it cancels, and a name lookup ends when its server wants.

    Raises:
        TimeoutError: At once when it is late.
    """
    task = asyncio.ensure_future(work)
    done, _ = await asyncio.wait({task}, timeout=seconds)
    if not done:
        task.cancel()
        raise TimeoutError
    return task.result()
