"""Where a fetch may go: the one guarded HTTP client, and how URLs are shown.

In: settings. Out: an httpx client that connects only to the addresses that it checked (no DNS rebinding).
Never fetch with any other client: `intake` and `sinks` both use this one.
"""

from __future__ import annotations

import ipaddress
from http.cookiejar import CookieJar, DefaultCookiePolicy
from urllib.parse import urlsplit, urlunsplit

import httpx
from ssrfguard import DEFAULT_DENIED, AddressTable, Block, Policy, Reach
from ssrfguard.httpx import AsyncClient

#: Redirects that are followed, each checked like the first URL.
MAX_REDIRECTS = 3
#: Seconds.
CONNECT_TIMEOUT_SECONDS = 3.0

# A public address by the registries, and the metadata service of every Azure machine.
_AZURE_WIRE_SERVER = Block(
    ipaddress.IPv4Network("168.63.129.16/32"), "Azure wire server", "not in any RFC", Reach.DENIED
)
_EVERYWHERE = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))


def fetch_policy(allow_hosts: tuple[str, ...], allow_private: bool) -> Policy:
    """Say what may be fetched from.

    Args:
        allow_hosts: The only hosts; empty for any.
        allow_private: Also private and loopback addresses, on any port.
    """
    denied = AddressTable((*DEFAULT_DENIED.blocks, _AZURE_WIRE_SERVER), snapshot=DEFAULT_DENIED.snapshot)
    return Policy(
        denied_networks=denied,
        allowed_networks=_EVERYWHERE if allow_private else (),
        allowed_ports=frozenset(range(1, 65536)) if allow_private else frozenset({80, 443}),
        allowed_hosts=frozenset(allow_hosts),
        max_redirects=MAX_REDIRECTS,
    )


def guarded_client(policy: Policy, timeout_seconds: float, connections: int) -> AsyncClient:
    """Open the client: nothing from the environment, no cookies, no compression, redirects checked."""
    return AsyncClient(
        policy=policy,
        trust_env=False,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        follow_redirects=True,
        timeout=httpx.Timeout(timeout_seconds, connect=min(CONNECT_TIMEOUT_SECONDS, timeout_seconds)),
        limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
        headers={"User-Agent": "sluice", "Accept": "image/*,*/*;q=0.1", "Accept-Encoding": "identity"},
    )


def shown(url: str) -> str:
    """Return `url` as it may be logged: without query, fragment and credentials, on one line."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "(malformed URL)"
    # Without `//` there is no host to urlsplit, and the credentials are in the path.
    path = parts.path if host else parts.path.rpartition("@")[2]
    plain = urlunsplit((parts.scheme, host, path, "", ""))[:200]
    return "".join(character if character.isprintable() else "?" for character in plain)
