"""Where a fetch may go, decided without a packet: names are resolved by the tests themselves."""

from __future__ import annotations

import socket
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import pytest
from ssrfguard import BlockedAddressError, BlockedURLError, SSRFGuardError, resolve

from worker.addresses import MAX_REDIRECTS, fetch_policy, shown, why_refused

POLICY = fetch_policy(allow_hosts=(), allow_private=False)
PRIVATE_TOO = fetch_policy(allow_hosts=(), allow_private=True)

#: Addresses that a worker must never be made to talk to, and what each is.
INWARD = {
    "127.0.0.1": "loopback",
    "127.255.255.254": "the other end of loopback",
    "0.0.0.0": "this host",
    "0.1.2.3": "this network",
    "10.0.0.1": "private",
    "172.16.0.1": "private",
    "172.31.255.255": "private",
    "192.168.1.1": "private",
    "169.254.1.1": "link-local",
    "169.254.169.254": "metadata of AWS, GCP, Azure",
    "169.254.170.2": "credentials of ECS",
    "168.63.129.16": "Azure's wire server, a public address by the registries",
    "100.64.0.1": "carrier-grade NAT",
    "100.100.100.200": "metadata of Alibaba",
    "192.0.0.192": "metadata of Oracle",
    "192.0.2.1": "documentation",
    "198.18.0.1": "benchmarking",
    "224.0.0.1": "multicast",
    "240.0.0.1": "reserved",
    "255.255.255.255": "broadcast",
    "::": "unspecified",
    "::1": "loopback",
    "fe80::1": "link-local",
    "fc00::1": "unique local",
    "fd00:ec2::254": "metadata of AWS",
    "ff02::1": "multicast",
    "::ffff:127.0.0.1": "IPv4-mapped loopback",
    "::ffff:169.254.169.254": "IPv4-mapped metadata",
    "::ffff:168.63.129.16": "IPv4-mapped wire server",
    "::169.254.169.254": "IPv4-compatible metadata",
    "64:ff9b::7f00:1": "NAT64 loopback",
    "64:ff9b::a9fe:a9fe": "NAT64 metadata",
    "64:ff9b::a83f:8110": "NAT64 wire server",
    "64:ff9b:1::a9fe:a9fe": "local NAT64",
    "2002:a9fe:a9fe::1": "6to4 metadata",
    "2002:a83f:8110::1": "6to4 wire server",
    "2001:0:7f00:1::": "Teredo of loopback",
}
OUTWARD = [
    "1.1.1.1",
    "8.8.8.8",
    "168.63.129.15",
    "168.63.129.17",
    "100.63.255.255",
    "2606:4700::1111",
    "::ffff:8.8.8.8",
]


def literal(address: str) -> str:
    """Return a URL of an address."""
    return f"http://[{address}]/image.png" if ":" in address else f"http://{address}/image.png"


def answering(*addresses: str) -> Callable[..., Any]:
    """Return a resolver that has these answers to everything."""

    def getaddrinfo(host: str, port: int, *_: object) -> list[Any]:
        families = [socket.AF_INET if ip_address(address).version == 4 else socket.AF_INET6 for address in addresses]
        return [
            (family, socket.SOCK_STREAM, 6, "", (address, port) if family == socket.AF_INET else (address, port, 0, 0))
            for family, address in zip(families, addresses, strict=True)
        ]

    return getaddrinfo


@pytest.mark.parametrize("address", INWARD)
def test_an_inward_address_is_refused_in_a_url_and_as_the_answer_to_a_name(address: str) -> None:
    with pytest.raises(BlockedURLError):
        POLICY.check_url(literal(address))
    with pytest.raises(BlockedAddressError):
        POLICY.check_address(address)
    with pytest.raises(BlockedAddressError):
        resolve(POLICY.check_url("http://rebound.example/"), policy=POLICY, resolver=answering(address))


@pytest.mark.parametrize("address", OUTWARD)
def test_a_public_address_may_be_fetched_from(address: str) -> None:
    POLICY.check_address(address)
    assert POLICY.check_url(literal(address)).address == ip_address(address)
    resolved = resolve(POLICY.check_url("https://cdn.example/a.png"), policy=POLICY, resolver=answering(address))
    assert [answer.ip for answer in resolved] == [ip_address(address)]


def test_a_name_with_one_inward_answer_among_public_ones_is_refused_as_a_whole() -> None:
    with pytest.raises(BlockedAddressError):
        resolve(POLICY.check_url("http://mixed.example/"), policy=POLICY, resolver=answering("8.8.8.8", "10.0.0.1"))


@pytest.mark.parametrize(
    "host",
    ["2130706433", "017700000001", "0177.0.0.1", "127.1", "127.0.1", "0", "127.0.0.1.", "①②⑦.0.0.1", "127。0。0。1"],
)
def test_an_address_in_disguise_is_refused_unresolved(host: str) -> None:
    with pytest.raises(BlockedURLError):
        POLICY.check_url(f"http://{host}/")


@pytest.mark.parametrize("host", ["0x7f000001", "0x7f.0.0.1", "0x7f.1", "0xa9fea9fe", "0xA9.0xFE.0xA9.0xFE"])
def test_a_hexadecimal_address_is_refused_once_the_platform_has_read_it(host: str) -> None:
    # It has the shape of a name, and only the C library knows better; AI_NUMERICHOST keeps it from asking anybody.
    def numbers_only(host: str, port: int, family: int, kind: int, protocol: int, flags: int) -> list[Any]:
        return socket.getaddrinfo(host, port, family, kind, protocol, flags | socket.AI_NUMERICHOST)

    with pytest.raises((BlockedAddressError, socket.gaierror)):
        resolve(POLICY.check_url(f"http://{host}/"), policy=POLICY, resolver=numbers_only)


@pytest.mark.parametrize(
    "url",
    [
        "http://user:secret@example.org/",
        "http://user@example.org/",
        "http://:secret@example.org/",
        "http://@example.org/",
        "http://example.org@127.0.0.1/",
        "http://example.org:80@127.0.0.1/",
        "http://127.0.0.1\\@example.org/",
        "https://example.org%2f@169.254.169.254/",
    ],
)
@pytest.mark.parametrize("policy", [POLICY, PRIVATE_TOO], ids=["public", "private too"])
def test_credentials_in_a_url_are_refused(url: str, policy: Any) -> None:
    with pytest.raises(BlockedURLError):
        policy.check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://example.org/image.png",
        "gopher://example.org/",
        "dict://example.org:11211/",
        "data:image/png;base64,AAAA",
        "javascript:alert(1)",
        "s3://bucket/key",
        "unix:///var/run/docker.sock",
        "//example.org/image.png",
        "example.org/image.png",
        "http:///image.png",
        "http://",
        "",
    ],
)
@pytest.mark.parametrize("policy", [POLICY, PRIVATE_TOO], ids=["public", "private too"])
def test_schemes_other_than_http_and_urls_without_a_host_are_refused(url: str, policy: Any) -> None:
    with pytest.raises(BlockedURLError):
        policy.check_url(url)


@pytest.mark.parametrize("port", [0, 1, 22, 25, 6379, 8080, 8443, 65535, 65536, 99999])
def test_ports_other_than_80_and_443_are_refused(port: int) -> None:
    with pytest.raises(BlockedURLError):
        POLICY.check_url(f"https://example.org:{port}/")


def test_ports_80_and_443_are_the_ones_that_may_be_named() -> None:
    assert [POLICY.check_url(url).port for url in ("http://h.example:80/", "https://h.example:443/")] == [80, 443]
    assert [POLICY.check_url(url).port for url in ("http://h.example/", "https://h.example/")] == [80, 443]


@pytest.mark.parametrize(
    "url",
    [
        "http://exa mple.org/",
        "http://example.org\t/",
        "http://example.org\r\nHost: evil/",
        "http://example.org%00.evil.example/",
        "http://[fe80::1%25eth0]/",
        "http://[::1/",
        "http://" + "a" * 64 + ".example/",
        "http://" + "a." * 200 + "example/",
        "http://example.org/" + "a" * 8192,
    ],
)
def test_malformed_hosts_and_urls_that_parsers_read_differently_are_refused(url: str) -> None:
    with pytest.raises(SSRFGuardError):
        POLICY.check_url(url)


def test_private_addresses_and_any_port_are_open_only_on_request() -> None:
    assert PRIVATE_TOO.check_url("http://127.0.0.1:9000/image.png").port == 9000
    assert PRIVATE_TOO.check_url("http://[::1]:80/").port == 80
    PRIVATE_TOO.check_address("192.168.1.1")
    PRIVATE_TOO.check_address("8.8.8.8")


def test_named_hosts_are_the_only_ones_that_may_be_fetched_from() -> None:
    policy = fetch_policy(allow_hosts=("cdn.example.org", "*.images.example"), allow_private=False)
    for host in ("cdn.example.org", "CDN.example.ORG", "cdn.example.org.", "a.images.example", "b.c.images.example"):
        assert policy.check_url(f"https://{host}/image.png")
    for host in (
        "example.org",
        "evil-cdn.example.org",
        "cdn.example.org.evil.example",
        "evilimages.example",
        "8.8.8.8",
    ):
        with pytest.raises(BlockedURLError, match="allowed_hosts"):
            policy.check_url(f"https://{host}/image.png")


def test_a_named_host_that_points_inward_is_refused_all_the_same() -> None:
    policy = fetch_policy(allow_hosts=("cdn.example.org",), allow_private=False)
    with pytest.raises(BlockedAddressError):
        resolve(policy.check_url("http://cdn.example.org/"), policy=policy, resolver=answering("10.0.0.1"))


def test_three_redirects_are_followed() -> None:
    assert POLICY.max_redirects == MAX_REDIRECTS == 3


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("https://cdn.example/a/b.png", "https://cdn.example/a/b.png"),
        ("https://cdn.example:8443/a.png?token=SECRET&x=1#SECRET", "https://cdn.example:8443/a.png"),
        ("https://SECRET:SECRET@cdn.example/a.png", "https://cdn.example/a.png"),
        ("https://SECRET@SECRET@cdn.example/a.png?SECRET", "https://cdn.example/a.png"),
        ("//SECRET:SECRET@cdn.example/a.png?SECRET", "//cdn.example/a.png"),
        ("SECRET@cdn.example/a.png", "cdn.example/a.png"),
        ("https://cdn.example/a\x1b[31m\u2028.png", "https://cdn.example/a?[31m?.png"),
        ("https://cdn.example/a\nb.png", "https://cdn.example/ab.png"),
        ("https://[::1/?SECRET", "(malformed URL)"),
        ("no URL", "no URL"),
        ("", ""),
    ],
)
def test_a_url_is_shown_without_query_fragment_and_credentials_on_one_line(url: str, text: str) -> None:
    assert shown(url) == text
    assert "SECRET" not in shown(url)


@pytest.mark.parametrize("url", ["https:SECRET:SECRET@cdn.example/a.png", "https:///SECRET:SECRET@cdn.example/a.png"])
def test_credentials_are_not_shown_when_slashes_are_missing_or_too_many(url: str) -> None:
    assert shown(url).endswith("cdn.example/a.png")
    assert "SECRET" not in shown(url)


def test_a_long_url_is_shown_short() -> None:
    assert len(shown("https://cdn.example/" + "a" * 8000)) == 200


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize("address", ["9.9.9.9", "10.9.1.2", "::ffff:9.9.9.9", "64:ff9b::909:909", "2002:909:909::1"])
def test_a_denied_network_is_refused_whatever_else_is_allowed_and_in_every_disguise(
    address: str, private: bool
) -> None:
    policy = fetch_policy((), private, ("9.9.9.0/24", "10.9.0.0/16", "10.9.0.0/24"))
    with pytest.raises(BlockedAddressError):
        policy.check_address(address)


def test_a_denied_network_denies_what_the_table_permits_inside_it() -> None:
    policy = fetch_policy((), allow_private=False, deny_networks=("0.0.0.0/0", "::/0"))
    for address in (*OUTWARD, "192.0.0.9", "2001:1::1"):
        with pytest.raises(BlockedAddressError):
            policy.check_address(address)


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "168.63.129.16", "100.100.100.200", "fd00:ec2::254", "fd20:ce::254", "fe80::1", "0.0.0.0"],
)
def test_metadata_services_are_refused_even_where_private_addresses_are_allowed(address: str) -> None:
    with pytest.raises(BlockedAddressError):
        PRIVATE_TOO.check_address(address)


@pytest.mark.parametrize(
    "address", ["10.1.2.3", "172.20.0.1", "100.64.0.1", "127.0.0.1", "::1", "fd12::1", "::ffff:10.0.0.1"]
)
def test_private_addresses_are_open_on_request(address: str) -> None:
    PRIVATE_TOO.check_address(address)


def test_the_ports_that_may_be_named_are_a_choice() -> None:
    policy = fetch_policy((), allow_private=False, ports=(8443,))
    assert policy.check_url("https://h.example:8443/").port == 8443
    with pytest.raises(BlockedURLError):
        policy.check_url("https://h.example/")


@pytest.mark.parametrize(
    "url",
    [
        "http://SECRET:SECRET@example.org/",
        "SECRET://example.org/",
        "http://example.org:SECRET/",
        "http://user:SECRET/SECRET@example.org/",
        "http://[SECRET]/",
        "http://example.org/?SECRET\n",
        "http://10.0.0.1/?SECRET",
        "http://example.org/" + "SECRET" * 2000,
        "http://example.org:8080/?SECRET",
    ],
)
def test_why_a_url_is_refused_is_said_without_quoting_it(url: str) -> None:
    with pytest.raises(SSRFGuardError) as caught:
        POLICY.check_url(url)
    assert "SECRET" not in why_refused(caught.value).upper()
    assert why_refused(caught.value)


def test_a_password_with_a_slash_in_it_is_not_shown() -> None:
    assert shown("http://user:SEC/RET@cdn.example/a.png") == "(malformed URL)"
