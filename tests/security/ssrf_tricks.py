"""Tries to turn the worker inward, in a network namespace without a way out; run by `test_ssrf`, never by hand outside.

In: nothing. Out: one JSON line: what was tried, what was let through, where connections went. A bait on loopback's own
port 80 answers all that gets so far; the attacker's site is 127.0.0.2, the one address that is opened for it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import fcntl
import json
import os
import socket
import struct
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from worker.addresses import fetch_policy
from worker.errors import AddressRefused
from worker.intake import web
from worker.intake.limits import FetchLimits

ATTACKER, BAIT = "127.0.0.2", "127.0.0.1"
#: Where connections may go: to the attacker, who is allowed to be fetched from, and nowhere else.
ALLOWED = {(ATTACKER, 80)}

#: Addresses of all that is not public, or is a door to it.
ADDRESSES = {
    "127.0.0.1": "loopback", "127.0.0.53": "a local resolver", "127.255.255.254": "the end of loopback",
    "0.0.0.0": "this host", "0.1.2.3": "this network", "10.0.0.1": "private", "10.255.255.255": "private",
    "172.16.0.1": "private", "172.17.0.1": "Docker's host", "172.31.255.255": "private", "192.168.0.1": "private",
    "192.168.122.1": "libvirt's host", "10.96.0.1": "Kubernetes' API", "10.0.2.2": "QEMU's host",
    "100.64.0.1": "carrier-grade NAT", "100.127.255.255": "carrier-grade NAT", "169.254.0.1": "link-local",
    "169.254.169.254": "metadata: AWS, GCP, Azure, DigitalOcean, Hetzner, OpenStack, Oracle, IBM, Vultr",
    "169.254.170.2": "credentials of ECS", "169.254.170.23": "credentials of EKS",
    "169.254.42.42": "metadata: Scaleway", "169.254.0.23": "metadata: Tencent", "100.100.100.200": "metadata: Alibaba",
    "192.0.0.192": "metadata: Oracle",
    "168.63.129.16": "Azure's wire server", "192.0.0.1": "protocol assignments", "192.0.0.170": "NAT64 discovery",
    "192.0.2.1": "documentation", "198.51.100.1": "documentation", "203.0.113.1": "documentation",
    "192.88.99.1": "6to4 relay", "198.18.0.1": "benchmarking", "224.0.0.1": "multicast", "239.255.255.250": "SSDP",
    "240.0.0.1": "reserved", "255.255.255.255": "broadcast",
    "::": "unspecified", "::1": "loopback", "fe80::1": "link-local", "febf::1": "link-local", "fec0::1": "site-local",
    "fc00::1": "unique local", "fd00:ec2::254": "metadata: AWS", "fd20:ce::254": "metadata: GCP",
    "fd00:42::42": "metadata: Scaleway", "ff02::1": "multicast", "ff05::1:3": "multicast",
    "::ffff:127.0.0.1": "mapped loopback", "::ffff:7f00:1": "mapped loopback in hex", "::ffff:0.0.0.0": "mapped zero",
    "::ffff:169.254.169.254": "mapped metadata", "::ffff:168.63.129.16": "mapped wire server",
    "::ffff:10.0.0.1": "mapped private", "0:0:0:0:0:ffff:7f00:0001": "mapped loopback, long",
    "::127.0.0.1": "compatible loopback", "::169.254.169.254": "compatible metadata",
    "::ffff:0:127.0.0.1": "translated loopback (SIIT)", "::ffff:0:169.254.169.254": "translated metadata (SIIT)",
    "64:ff9b::7f00:1": "NAT64 loopback", "64:ff9b::a9fe:a9fe": "NAT64 metadata",
    "64:ff9b::a83f:8110": "NAT64 wire server",
    "64:ff9b:1::a9fe:a9fe": "local NAT64", "2002:7f00:1::": "6to4 loopback", "2002:a9fe:a9fe::1": "6to4 metadata",
    "2002:a83f:8110::1": "6to4 wire server", "2002:0a00:0001::1": "6to4 private",
    "2001:0:7f00:1::": "Teredo of a loopback server", "2001:0:0808:0808:0:0:80ff:fffe": "Teredo of a loopback client",
    "2001:db8::1": "documentation", "3fff::1": "documentation", "100::1": "discard", "5f00::1": "segment routing",
    "2001:2::1": "benchmarking", "4000::1": "not assigned", "1::1": "not assigned", "e000::1": "not assigned",
}  # fmt: skip
#: Hosts that are an address in disguise.
DISGUISES = [
    "2130706433", "017700000001", "0x7f000001", "0X7F000001", "0177.0.0.1", "0177.0.0.01", "00177.00.00.01",
    "0x7f.0.0.1", "0x7f.0x0.0x0.0x1", "0x7f.1", "127.1", "127.0.1", "127.0.0.1.", "127.0.0.1..", "0", "0.0",
    "0x0", "00000",
    "127.000.000.001", "127.0.0.0x1", "0x7f.0.0.01", "2852039166", "0xa9fea9fe", "0xA9.0xFE.0xA9.0xFE", "025177524776",
    "0251.0376.0251.0376", "169.16689662", "169.254.43518", "425.510.425.510", "4294967297", "127.0.0.257",
    "①②⑦.⓪.⓪.①", "①②⑦.0.0.1", "１２７.０.０.１", "127。0。0。1", "127．0．0．1", "127｡0｡0｡1", "١٢٧.٠.٠.١",
    "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ", "LOCALHOST", "localhost", "localhost.", "localhost.localdomain", "ｌｏｃａｌｈｏｓｔ",
    "loc\u00adalhost",
    "xn--localhost-", "ip6-localhost", "[::1%25lo]", "[::1%lo]", "[fe80::1%25eth0]", "[0000::1]", "[::0001]",
    "[::FFFF:127.0.0.1]", "[::ffff:0x7f.0.0.1]", "[::1].", "[127.0.0.1]", "%31%32%37.0.0.1", "127%2e0%2e0%2e1",
    "127.0.0.1%00.example.org", "127.0.0.1%2f.example.org", "[v1.127.0.0.1]", "::1", "127.0.0.1:80:80",
]  # fmt: skip
#: Whole URLs: userinfo, separators that parsers read differently, ports, schemes.
URLS = [
    "http://example.org@127.0.0.1/", "http://example.org:80@127.0.0.1/", "http://@127.0.0.1/", "http://:@127.0.0.1/",
    "http://127.0.0.1@example.org/", "http://user:pass@attacker.example/", "http://127.0.0.1#@example.org/",
    "http://127.0.0.1?@example.org/", "http://127.0.0.1\\@example.org/", "http://example.org\\@127.0.0.1/",
    "http://example.org%40127.0.0.1/", "http://127.0.0.1%23@example.org/",
    "http://a@b@127.0.0.1/", "http:127.0.0.1/", "http:/127.0.0.1/", "http:///127.0.0.1/", "http:\\\\127.0.0.1/",
    "//127.0.0.1/", "\\\\127.0.0.1\\x", " http://127.0.0.1/", "http://127.0.0.1 /", "http://127.0.0.1\t/", "ht\ntp://127.0.0.1/",
    "http://127.0.0.1\r\nHost: x/", "http://127.0.0.1/\r\nX: y", "http://attacker.example:22/", "http://attacker.example:6379/",
    "http://attacker.example:8080/", "https://attacker.example:25/", "http://attacker.example:0/",
    "http://attacker.example:65616/", "http://attacker.example:-80/", "http://attacker.example:२२/",
    "file:///etc/passwd", "file://localhost/etc/passwd", "FILE:///etc/passwd", "gopher://127.0.0.1:6379/_FLUSHALL",
    "dict://127.0.0.1:11211/stats", "ftp://127.0.0.1/x", "sftp://127.0.0.1/x", "tftp://127.0.0.1/x", "ldap://127.0.0.1/x",
    "data:image/png;base64,AAAA", "javascript:alert(1)", "jar:http://127.0.0.1!/x", "netdoc:///etc/passwd",
    "unix:///var/run/docker.sock", "http+unix://%2Fvar%2Frun%2Fdocker.sock/", "ws://127.0.0.1/", "view-source:http://127.0.0.1/",
    "blob:http://127.0.0.1/x", "about:blank", "s3://bucket/key", "redis://127.0.0.1:6379/", "expect://id", "php://filter/x",
]  # fmt: skip
#: Names, with what a name server answers, one list a lookup, the last for ever.
NAMES: dict[str, list[list[str]]] = {
    "inward.example": [["127.0.0.1"]],
    "127.0.0.1.nip.example": [["127.0.0.1"]],
    "metadata.google.internal": [["169.254.169.254"]],
    "metadata": [["169.254.169.254"]],
    "instance-data": [["169.254.169.254"]],
    "kubernetes.default.svc": [["10.96.0.1"]],
    "host.docker.internal": [["192.168.65.2"]],
    "six.example": [["::1"]],
    "mapped.example": [["::ffff:127.0.0.1"]],
    "nat64.example": [["64:ff9b::7f00:1"]],
    "wire.example": [["168.63.129.16"]],
    "xn--80ak6aa92e.example": [["10.0.0.1"]],
    "mixed.example": [["8.8.8.8", "127.0.0.1"]],
    "mixed-last.example": [["127.0.0.1", "8.8.8.8"]],
    "mixed-six.example": [["8.8.8.8", "::1"]],
    "mixed-attacker.example": [[ATTACKER, BAIT]],
    "many.example": [[f"8.8.8.{n}" for n in range(1, 20)] + ["10.0.0.1"]],
    "denied.example": [["9.9.9.9"]],
    "rebound-at-once.example": [[BAIT], [ATTACKER]],
    "attacker.example": [[ATTACKER]],
    # Good when it is checked, bad when it would be looked up again.
    "rebinding.example": [[ATTACKER], [BAIT]],
    "rebinding-second.example": [[ATTACKER], [BAIT]],
    "localhost": [[BAIT]], "localhost.localdomain": [[BAIT]], "ip6-localhost": [["::1"]],
}  # fmt: skip
#: Names that are the attacker's own; what is fetched from them is nobody's secret.
OWN = {"attacker.example", "rebinding.example", "rebinding-second.example"}

lookups: Counter[str] = Counter()
connects: list[Any] = []
baited: list[str] = []
_ask = socket.getaddrinfo


def resolve(host: str, port: Any, family: int = 0, kind: int = 0, protocol: int = 0, flags: int = 0) -> Any:
    """Answer as the attacker's name server; numbers are read as the C library reads them."""
    name = host.decode() if isinstance(host, bytes) else host
    key = name.lower().rstrip(".")
    if key in NAMES:
        answers = NAMES[key][min(lookups[key], len(NAMES[key]) - 1)]
        lookups[key] += 1
        return [row for answer in answers for row in _ask(answer, port, 0, kind, protocol, socket.AI_NUMERICHOST)]
    return _ask(host, port, family, kind, protocol, flags | socket.AI_NUMERICHOST)


def watch(event: str, arguments: Any) -> None:
    """Note every connection, and allow none but to the attacker."""
    if event != "socket.connect" or arguments[0].family == socket.AF_UNIX:
        return
    connects.append(arguments[1])
    if arguments[1][:2] not in ALLOWED:
        raise PermissionError(f"a connection to {arguments[1]} was tried")


def raise_loopback() -> None:
    """Switch the namespace's own loopback on, and see that there is nothing else."""
    with socket.socket() as any_socket:
        # SIOCSIFFLAGS with IFF_UP | IFF_RUNNING.
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 0x1 | 0x40))
    interfaces = {name for _, name in socket.if_nameindex()}
    with open("/proc/net/route") as routes:  # noqa: PTH123
        ways_out = routes.read().splitlines()[1:]
    if "lo" not in interfaces or ways_out:
        sys.exit(f"this namespace has a way out: {interfaces}, {ways_out}")


class Redirects(BaseHTTPRequestHandler):
    """The attacker's site: sends on to wherever the query says; the bait says what it should not."""

    def do_GET(self) -> None:
        if self.server.server_address[0] != ATTACKER:
            baited.append(self.path)
            self._answer(200, b"secret")
            return
        index = self.path.strip("/")
        if not index.isdecimal():
            self._answer(200, b"harmless")
            return
        hops, target = REDIRECTS[int(index)]
        where = f"http://attacker.example/{len(REDIRECTS)}" if hops < 0 else target
        if hops > 1:
            REDIRECTS.append((hops - 1, target))
            where = f"http://attacker.example/{len(REDIRECTS) - 1}"
        if hops < 0:
            REDIRECTS.append((hops, target))
        self._answer(302, b"", where)

    def _answer(self, status: int, body: bytes, location: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if location is not None:
            self.send_header("Location", location.encode().decode("latin-1"))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


#: Hops and target of each redirect; a negative number of hops never ends.
REDIRECTS: list[tuple[int, str]] = []


def serve(address: str) -> None:
    """Listen on port 80 of an address."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = type("Server", (ThreadingHTTPServer,), {"address_family": family})
    server = kind((address, 80), Redirects)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def tricks() -> list[tuple[str, str]]:
    """Return what is tried: what it is, and its URL."""
    tried = [(f"{what} as an address", f"http://{f'[{a}]' if ':' in a else a}/x") for a, what in ADDRESSES.items()]
    tried += [("an address in disguise", f"http://{host}/x") for host in DISGUISES]
    tried += [("a URL", url) for url in URLS]
    tried += [("a name", f"http://{name}/x") for name in NAMES if name not in OWN]
    tried += [("a network of the deny list", url) for url in ("http://9.9.9.9/x", "http://[::ffff:9.9.9.9]/x")]
    targets = [url for _, url in tried if url.isascii() and url.isprintable()]
    for target in targets:
        REDIRECTS.append((1, target))
        # What is relative leads back to the attacker's own site; nothing is learnt there.
        if target.startswith("data:") or ("://" in target and ":///" not in target):
            tried.append((f"a redirect to {target}", f"http://attacker.example/{len(REDIRECTS) - 1}"))
    for what, hops in (
        ("a chain of three redirects", 3),
        ("a chain of five redirects", 5),
        ("redirects without end", -1),
    ):
        REDIRECTS.append((hops, "http://127.0.0.1/x"))
        tried.append((what, f"http://attacker.example/{len(REDIRECTS) - 1}"))
    for target in ("http://rebound-at-once.example/x", "http://user:pass@127.0.0.1/x", "//127.0.0.1/x", "//[::1]/x"):
        REDIRECTS.append((2, target))
        tried.append((f"two redirects to {target}", f"http://attacker.example/{len(REDIRECTS) - 1}"))
    return tried


async def attempt(client: web.Web) -> dict[str, Any]:
    """Try everything."""
    through: list[str] = []
    otherwise: list[str] = []
    tried = tricks()
    for what, url in tried:
        lookups.clear()
        fetched = await client.fetch(url)
        if isinstance(fetched, bytes):
            through.append(f"{what}: {url!r}: {fetched!r}")
        elif not isinstance(fetched, AddressRefused):
            otherwise.append(f"{what}: {url!r}: {fetched}")
    rebindings = []
    for name in sorted(OWN - {"attacker.example"}):
        lookups.clear()
        fetched = await client.fetch(f"http://{name}/x")
        rebindings.append([name, fetched == b"harmless", lookups[name]])
    return {"tried": len(tried), "through": through, "otherwise": otherwise, "rebindings": rebindings}


async def main() -> None:
    """Try everything, and report."""
    web.fetch_policy = lambda *given: dataclasses.replace(  # type: ignore[assignment]
        fetch_policy(*given), allowed_networks=(f"{ATTACKER}/32",)
    )
    client = web.Web(FetchLimits(max_bytes=1000, timeout_seconds=5, deny_networks=("9.9.9.0/24",)))
    report = await attempt(client)
    await client.close()
    await asyncio.sleep(0)
    strangers = [address for address in connects if address[:2] not in ALLOWED]
    print(json.dumps(report | {"connects": len(connects), "strangers": strangers, "baited": baited}))


if __name__ == "__main__":
    raise_loopback()
    for address in (ATTACKER, BAIT, "::1"):
        serve(address)
    socket.getaddrinfo = resolve
    sys.addaudithook(watch)
    asyncio.run(main())
    sys.stdout.flush()
    os._exit(0)
