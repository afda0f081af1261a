"""Image refs → bytes, against real servers on loopback, a real Redis and real files. Nothing leaves the machine."""

from __future__ import annotations

import base64
import gzip
import hashlib
import os
import socket
import struct
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from support import free_port

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
from worker.intake.files import open_beneath
from worker.intake.sources import BLOB_PREFIX, FetchLimits, Sources
from worker.records import ImageRef

BODY = b"\x89PNG and the rest of a file" * 100
#: Of one download, where it is the deadline that is tested; what is late must have ended a second after it.
TIMEOUT_SECONDS = 0.5
#: Of one download elsewhere: more than any machine needs.
PATIENT_SECONDS = 20.0
MAX_BYTES = 100_000

Answer = Callable[[BaseHTTPRequestHandler], None]


class Site:
    """An HTTP server on 127.0.0.1 that answers each path as a function says.

    Attributes:
        url: Where it is.
        asked: How often each path was asked for.
        headers: Of the last request.
    """

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.headers: dict[str, str] = {}
        self._answers: dict[str, Answer] = {}
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked[self.path.partition("?")[0]] += 1
                site.headers = {name.lower(): value for name, value in self.headers.items()}
                with suppress(OSError):
                    site._answers[self.path.partition("?")[0]](self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.01])
        self._thread.start()

    def page(self, path: str, answer: Answer) -> str:
        """Put up a page; its URL."""
        self._answers[path] = answer
        return self.url + path

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def body(content: bytes = BODY, status: int = 200, wait_seconds: float = 0.0, **headers: str) -> Answer:
    """Answer with a body and its right length."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(wait_seconds)
        handler.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def raw(*parts: bytes, then: Callable[[socket.socket], None] | None = None) -> Answer:
    """Answer with these bytes and nothing else, then do something to the connection."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        for part in parts:
            handler.wfile.write(part)
        if then is not None:
            then(handler.connection)

    return answer


def drip(start: bytes, drop: bytes) -> Answer:
    """Answer with a start, then with a drop every 20 ms for as long as anybody listens."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(start)
        while True:
            time.sleep(0.02)
            handler.wfile.write(drop)

    return answer


def flood(start: bytes, block: bytes, sent: list[int]) -> Answer:
    """Answer with a start, then with blocks for as long as they are taken; note their bytes."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(start)
        while True:
            handler.wfile.write(block)
            sent.append(len(block))

    return answer


def reset(connection: socket.socket) -> None:
    """Break a connection off with RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def redirect(location: str, status: int = 302) -> Answer:
    """Send on."""
    return body(b"", status, Location=location)


# -- no packet leaves ------------------------------------------------------------------------------------------------

_guarded = False
_connected_to: list[Any] = []


def _watch_connections(event: str, arguments: Any) -> None:
    if _guarded and event == "socket.connect":
        address = arguments[1]
        _connected_to.append(address)
        if isinstance(address, tuple) and address[0] not in {"127.0.0.1", "::1"}:
            raise AssertionError(f"a test tried to connect to {address}")


sys.addaudithook(_watch_connections)


@pytest.fixture(autouse=True)
def connected_to(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Refuse every connection but to loopback, and every question to a name server; give what was connected to."""
    global _guarded  # noqa: PLW0603 - an audit hook cannot be taken out again
    ask = socket.getaddrinfo

    def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
        if host not in {"127.0.0.1", "::1", "localhost"}:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return ask(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    _guarded = True
    _connected_to.clear()
    yield _connected_to
    _guarded = False


@pytest.fixture
def site() -> Iterator[Site]:
    """Start a site."""
    site = Site()
    yield site
    site.close()


@pytest.fixture
def make_sources() -> Iterator[Callable[..., Sources]]:
    """Give a way to make sources that end with the test; loopback may be fetched from."""
    made: list[Sources] = []

    def make(connection: redis.Redis | None = None, **limits: Any) -> Sources:
        given = {"max_bytes": MAX_BYTES, "timeout_seconds": PATIENT_SECONDS, "allow_private": True} | limits
        made.append(Sources(FetchLimits(**given), connection))
        return made[-1]

    yield make
    for sources in made:
        sources.close()


@pytest.fixture
def sources(make_sources: Callable[..., Sources]) -> Sources:
    """Give sources that may fetch from loopback."""
    return make_sources()


@pytest.fixture
def hasty_sources(make_sources: Callable[..., Sources]) -> Sources:
    """Give sources that wait half a second."""
    return make_sources(timeout_seconds=TIMEOUT_SECONDS)


def fetch(sources: Sources, **ref: str) -> bytes | JobError:
    """Fetch one image."""
    (fetched,) = sources.fetch([ImageRef(**ref)])
    return fetched


def fetch_timed(sources: Sources, url: str) -> tuple[bytes | JobError, float]:
    """Fetch one URL; what came, and the seconds that it took."""
    start = time.monotonic()
    fetched = fetch(sources, url=url)
    return fetched, time.monotonic() - start


# -- URLs ------------------------------------------------------------------------------------------------------------


def test_a_url_is_downloaded(site: Site, sources: Sources) -> None:
    assert fetch(sources, url=site.page("/a.png", body())) == BODY


def test_a_url_is_downloaded_over_and_over_and_after_closing(site: Site, sources: Sources) -> None:
    url = site.page("/a.png", body())
    assert [fetch(sources, url=url) for _ in range(3)] == [BODY] * 3
    sources.close()
    assert fetch(sources, url=url) == BODY


def test_localhost_is_a_name_like_any_other(site: Site, sources: Sources) -> None:
    assert fetch(sources, url=site.page("/a.png", body()).replace("127.0.0.1", "localhost")) == BODY


@pytest.mark.parametrize("status", [304, 400, 401, 403, 404, 410, 451])
def test_a_source_that_has_nothing_is_not_asked_again(status: int, site: Site, sources: Sources) -> None:
    error = fetch(sources, url=site.page("/a.png", body(b"<h1>no</h1>", status)))
    assert isinstance(error, SourceRefused)
    assert str(status) in str(error)
    assert not error.retry


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_source_that_may_answer_later_is_unavailable(status: int, site: Site, sources: Sources) -> None:
    error = fetch(sources, url=site.page("/a.png", body(b"<h1>later</h1>", status)))
    assert isinstance(error, SourceUnavailable)
    assert str(status) in str(error)
    assert error.retry


def test_a_refused_connection_is_unavailable(sources: Sources) -> None:
    assert isinstance(fetch(sources, url=f"http://127.0.0.1:{free_port()}/a.png"), SourceUnavailable)


def test_a_name_that_nobody_knows_is_unavailable(sources: Sources) -> None:
    assert isinstance(fetch(sources, url="http://nowhere.invalid/a.png"), SourceUnavailable)


_OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(raw(_OK + b"Content-Length: 1000\r\n\r\n" + b"x" * 500, then=reset), id="reset in mid-body"),
        pytest.param(raw(_OK + b"Content-Length: 1000\r\n\r\n" + b"x" * 500), id="closed in mid-body"),
        pytest.param(raw(_OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nxxxxx\r\n"), id="closed between chunks"),
        pytest.param(raw(_OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nxx", then=reset), id="reset in a chunk"),
        pytest.param(raw(_OK + b"Content-Le", then=reset), id="reset in the headers"),
        pytest.param(raw(then=reset), id="reset before a word"),
        pytest.param(
            raw(_OK + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffffffff\r\nxx"), id="a chunk of a zettabyte"
        ),
        pytest.param(raw(_OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nxxxxxx"), id="two lengths"),
        pytest.param(raw(_OK + b"Content-Length: -5\r\n\r\nxxxxx"), id="a negative length"),
        pytest.param(raw(), id="closed before a word"),
        pytest.param(raw(b"SSH-2.0-OpenSSH_9.9\r\n"), id="not HTTP"),
        pytest.param(raw(_OK + b"X: " + b"x" * 1_000_000 + b"\r\n\r\n"), id="a header of a megabyte"),
    ],
)
def test_a_broken_answer_is_unavailable_and_never_a_part_of_the_body(
    answer: Answer, site: Site, sources: Sources
) -> None:
    assert isinstance(fetch(sources, url=site.page("/a.png", answer)), SourceUnavailable)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(drip(_OK + b"Content-Length: 99999\r\n\r\n", b"x"), id="body"),
        pytest.param(drip(_OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"), id="chunks"),
        pytest.param(drip(_OK, b"X-Header: x\r\n"), id="headers"),
        pytest.param(drip(_OK + b"X-Header: ", b"x"), id="one header"),
        pytest.param(drip(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"), id="early hints"),
        pytest.param(body(wait_seconds=3), id="nothing"),
    ],
)
def test_an_answer_that_drips_ends_at_the_total_deadline(answer: Answer, site: Site, hasty_sources: Sources) -> None:
    error, seconds = fetch_timed(hasty_sources, site.page("/a.png", answer))
    assert isinstance(error, SourceUnavailable)
    assert "0.5 s" in str(error)
    assert TIMEOUT_SECONDS * 0.9 < seconds < TIMEOUT_SECONDS + 1


def test_redirects_share_one_deadline(site: Site, hasty_sources: Sources) -> None:
    end = site.page("/end", body(wait_seconds=0.3))
    middle = site.page("/middle", body(b"", 302, 0.3, Location=end))
    error, seconds = fetch_timed(hasty_sources, site.page("/start", body(b"", 302, 0.3, Location=middle)))
    assert isinstance(error, SourceUnavailable)
    assert seconds < TIMEOUT_SECONDS + 1


def test_a_name_server_that_hangs_does_not_hold_a_fetch_beyond_its_deadline(
    hasty_sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()

    def hang(*_: object, **__: object) -> Any:
        released.wait(10)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", hang)
        error, seconds = fetch_timed(hasty_sources, "http://slow.invalid/a.png")
        released.set()
    assert isinstance(error, SourceUnavailable)
    assert seconds < TIMEOUT_SECONDS + 1


def test_a_slow_url_does_not_cost_its_neighbours_anything(site: Site, make_sources: Callable[..., Sources]) -> None:
    sources = make_sources(timeout_seconds=2.0)
    slow = site.page("/slow", drip(_OK + b"Content-Length: 1000\r\n\r\n", b"x"))
    quick = site.page("/quick", body())
    fetched = sources.fetch([ImageRef(url=url) for url in (quick, slow, quick)])
    assert fetched[0] == fetched[2] == BODY
    assert isinstance(fetched[1], SourceUnavailable)


# -- how much --------------------------------------------------------------------------------------------------------


def test_a_body_of_exactly_the_limit_is_taken(site: Site, sources: Sources) -> None:
    assert fetch(sources, url=site.page("/a.png", body(b"x" * MAX_BYTES))) == b"x" * MAX_BYTES
    error = fetch(sources, url=site.page("/b.png", body(b"x" * (MAX_BYTES + 1))))
    assert isinstance(error, ImageTooLarge)


@pytest.mark.parametrize(
    ("start", "block"),
    [
        pytest.param(_OK + b"Content-Length: 10000000000\r\n\r\n", b"x" * 65_536, id="length given"),
        pytest.param(
            _OK + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b"x" * 65_536 + b"\r\n", id="in chunks"
        ),
        pytest.param(b"HTTP/1.0 200 OK\r\n\r\n", b"x" * 65_536, id="until the end"),
    ],
)
def test_an_endless_body_is_too_large_as_soon_as_it_is(
    start: bytes, block: bytes, site: Site, sources: Sources
) -> None:
    sent: list[int] = []
    error, seconds = fetch_timed(sources, site.page("/a.png", flood(start, block, sent)))
    assert isinstance(error, ImageTooLarge)
    assert seconds < 5
    # What lies in the buffers of two sockets, and not much more.
    assert sum(sent) < 20_000_000


def test_what_comes_after_the_length_that_was_given_is_not_read(site: Site, sources: Sources) -> None:
    answer = raw(_OK + b"Content-Length: 10\r\n\r\n" + b"x" * (MAX_BYTES * 2))
    assert fetch(sources, url=site.page("/a.png", answer)) == b"x" * 10


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "zstd", "GZIP", "identity, gzip", "aes128gcm"])
def test_a_packed_answer_that_nobody_asked_for_is_refused_unread(encoding: str, site: Site, sources: Sources) -> None:
    # 20 MB in 20 KB.
    bomb = gzip.compress(bytes(20_000_000))
    error = fetch(sources, url=site.page("/a.png", body(bomb, Content_Encoding=encoding)))
    assert site.headers["accept-encoding"] == "identity"
    assert isinstance(error, SourceRefused)
    assert "Content-Encoding" in str(error)


def test_an_answer_that_says_it_is_not_packed_is_taken(site: Site, sources: Sources) -> None:
    assert fetch(sources, url=site.page("/a.png", body(Content_Encoding="identity"))) == BODY


@pytest.mark.parametrize("length", ["100001", "9" * 19, "9" * 5000])
def test_a_length_beyond_the_limit_is_believed_before_anything_is_read(
    length: str, site: Site, sources: Sources
) -> None:
    answer = raw(_OK + f"Content-Length: {length}\r\n\r\n".encode())
    assert isinstance(fetch(sources, url=site.page("/a.png", answer)), ImageTooLarge | SourceUnavailable)


def test_the_body_of_a_redirect_is_not_read_however_long_or_packed(site: Site, sources: Sources) -> None:
    end = site.page("/end", body())
    sent: list[int] = []
    start = f"HTTP/1.1 302 Found\r\nLocation: {end}\r\nContent-Encoding: gzip\r\n\r\n".encode()
    fetched, seconds = fetch_timed(sources, site.page("/a.png", flood(start, b"x" * 65_536, sent)))
    assert fetched == BODY
    assert seconds < 5
    assert sum(sent) < 20_000_000


def test_a_part_of_a_body_or_none_of_it_is_no_image(site: Site, sources: Sources) -> None:
    for status in (201, 202, 204, 206, 226):
        assert isinstance(fetch(sources, url=site.page("/a.png", body(b"", status))), SourceRefused)


def test_what_a_source_says_of_the_type_of_its_bytes_changes_nothing(site: Site, sources: Sources) -> None:
    for kind in ("text/html", "image/png, text/html", "image/png; charset=x\tx", ""):
        assert fetch(sources, url=site.page("/a.png", body(Content_Type=kind))) == BODY


# -- where to --------------------------------------------------------------------------------------------------------


def test_three_redirects_are_followed_and_a_fourth_is_not(site: Site, sources: Sources) -> None:
    site.page("/0", body())
    for hop in range(1, 5):
        # A relative one among them.
        site.page(f"/{hop}", redirect(f"/{hop - 1}" if hop == 2 else f"{site.url}/{hop - 1}", 301 if hop == 3 else 302))
    assert fetch(sources, url=f"{site.url}/3") == BODY
    error = fetch(sources, url=f"{site.url}/4")
    assert isinstance(error, AddressRefused)
    assert "redirects more than 3 times" in str(error)


def test_a_redirect_in_a_circle_ends(site: Site, sources: Sources) -> None:
    assert isinstance(fetch(sources, url=site.page("/a", redirect("/a"))), AddressRefused)
    assert site.asked["/a"] == 4


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/a.png",
        "gopher://127.0.0.1/",
        "http://user:secret@127.0.0.1/a.png",
        "http://2130706433/a.png",
        "http://localhost/a.png",
        "http://[::1]/a.png",
        "http://10.0.0.1/a.png",
    ],
)
def test_every_redirect_is_checked_like_the_first_url(
    location: str, site: Site, make_sources: Callable[..., Sources], connected_to: list[Any]
) -> None:
    sources = make_sources(allow_hosts=("127.0.0.1",))
    error = fetch(sources, url=site.page("/a.png", redirect(location)))
    assert isinstance(error, AddressRefused)
    assert len(connected_to) == 1


@pytest.mark.parametrize("location", ["http://0177.0.0.1/", "http://[::1/", "http://127.0.0.1:port/"])
def test_a_redirect_that_cannot_be_read_is_not_followed(
    location: str, site: Site, sources: Sources, connected_to: list[Any]
) -> None:
    assert isinstance(fetch(sources, url=site.page("/a.png", redirect(location))), SourceUnavailable)
    assert len(connected_to) == 1


def test_only_named_hosts_are_connected_to(
    site: Site, make_sources: Callable[..., Sources], connected_to: list[Any]
) -> None:
    url = site.page("/a.png", body())
    assert isinstance(fetch(make_sources(allow_hosts=("cdn.example",)), url=url), AddressRefused)
    assert connected_to == []
    assert fetch(make_sources(allow_hosts=("cdn.example", "127.0.0.1")), url=url) == BODY


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f000001", "[::ffff:127.0.0.1]"])
def test_loopback_is_not_connected_to_unless_private_addresses_are_allowed(
    host: str, make_sources: Callable[..., Sources], connected_to: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # What a C library makes of the hexadecimal one.
    ask = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *rest, **more: ask(host.replace("0x7f000001", "127.0.0.1"), *rest, **more)
    )
    error = fetch(make_sources(allow_private=False), url=f"http://{host}/a.png")
    assert isinstance(error, AddressRefused)
    assert connected_to == []


@pytest.mark.parametrize("address", ["10.0.0.1", "169.254.169.254", "168.63.129.16", "[fd00:ec2::254]", "192.168.0.1"])
def test_private_addresses_are_refused_without_a_packet(
    address: str, make_sources: Callable[..., Sources], connected_to: list[Any]
) -> None:
    error = fetch(make_sources(allow_private=False), url=f"http://{address}/latest/meta-data?SECRET")
    assert isinstance(error, AddressRefused)
    assert error.reason == "address_refused"
    assert "SECRET" not in str(error)
    assert connected_to == []


def test_proxies_of_the_environment_are_not_used(site: Site, sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = Site()
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, proxy.url)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    try:
        assert fetch(sources, url=site.page("/a.png", body())) == BODY
        assert not proxy.asked
    finally:
        proxy.close()


def test_nothing_of_the_worker_is_told_to_a_source(
    site: Site, sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login user password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    url = site.page("/a.png", body(Set_Cookie="visitor=1; Path=/"))
    fetch(sources, url=url)
    fetch(sources, url=url)
    assert site.headers.keys() <= {"host", "connection", "user-agent", "accept", "accept-encoding"}
    assert site.headers["user-agent"] == "sluice"


@pytest.mark.parametrize(
    "url",
    [
        "",
        " ",
        "http://",
        "http:///a.png",
        "http://[::1",
        "http://[v1.x]/",
        "http://127.0.0.1:port/",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:-1/",
        "http://127.0.0.1:1:2/",
        "http://%31%32%37.0.0.1/",
        "http://127.0.0.1/\0",
        "http://127.0.0.1\r\nHost: evil/",
        "http://\u2488\u2488/",
        "http://" + "a" * 70 + ".example/",
        "http://xn--/",
        "http://.../",
        "http://é" + "́" * 300 + "/",
        "http://user:secret@127.0.0.1/",
        "//127.0.0.1/a.png",
        "127.0.0.1/a.png",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "http+unix://%2Fvar%2Frun%2Fdocker.sock/",
        "http://?#",
        "\\\\127.0.0.1\\share",
        "http://127.0.0.1/" + "a" * 8100,
    ],
)
def test_no_url_however_strange_does_harm_to_its_batch(url: str, make_sources: Callable[..., Sources]) -> None:
    sources = make_sources(allow_private=False)
    # What an ImageRef would not take is tried as well.
    strange = ImageRef.model_construct({"url"}, url=url)
    fetched = sources.fetch([strange, ImageRef(base64="AAAA")])
    assert isinstance(fetched[0], AddressRefused | SourceUnavailable)
    assert "secret" not in str(fetched[0])
    assert fetched[1] == b"\0\0\0"


# -- batches ---------------------------------------------------------------------------------------------------------


def test_ten_slow_urls_are_downloaded_at_the_same_time_and_in_order(site: Site, sources: Sources) -> None:
    # The first takes longest.
    urls = [site.page(f"/{n}", body(b"%d" % n, wait_seconds=0.5 - 0.02 * n)) for n in range(10)]
    start = time.monotonic()
    fetched = sources.fetch([ImageRef(url=url) for url in urls])
    assert time.monotonic() - start < 3
    assert fetched == [b"%d" % n for n in range(10)]


def test_a_batch_keeps_length_and_order_with_every_kind_and_failures_in_between(
    site: Site, make_sources: Callable[..., Sources], connection: redis.Redis, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(b"path")
    digest = hashlib.sha256(b"blob").hexdigest()
    connection.set(BLOB_PREFIX + digest, b"blob")
    refs: list[dict[str, str]] = [
        {"url": site.page("/1", body(b"one", wait_seconds=0.2))},
        {"path": "a.png"},
        {"url": site.page("/2", body(b"", 404))},
        {"base64": base64.b64encode(b"text").decode()},
        {"blob": digest},
        {"s3": "s3://bucket/key"},
        {"url": site.page("/3", body(b"three"))},
        {"path": "b.png"},
    ]
    fetched = make_sources(connection, path_root=tmp_path).fetch([ImageRef(**ref) for ref in refs])
    assert [item if isinstance(item, bytes) else type(item) for item in fetched] == [
        b"one",
        b"path",
        SourceRefused,
        b"text",
        b"blob",
        AddressRefused,
        b"three",
        SourceRefused,
    ]


def test_a_batch_of_nothing_is_nothing(sources: Sources) -> None:
    assert sources.fetch([]) == []


def test_what_went_wrong_is_said_on_one_line_without_query_fragment_and_credentials(
    site: Site, make_sources: Callable[..., Sources]
) -> None:
    sources = make_sources(timeout_seconds=2.0)
    secret = "?token=SECRET&x=SECRET#SECRET"
    urls = [
        site.page("/404", body(status=404)),
        site.page("/500", body(status=500)),
        site.page("/large", body(b"x" * (MAX_BYTES + 1))),
        site.page("/circle", redirect("/circle?SECRET")),
        site.page("/drip", drip(_OK, b"X: x\r\n")),
        site.page("/reset", raw(then=reset)),
        site.page("/odd", redirect("http://SECRET:SECRET@127.0.0.1:port/?SECRET")),
        site.page("/away", redirect("ftp://SECRET:SECRET@127.0.0.1/?SECRET")),
        f"http://127.0.0.1:{free_port()}/refused",
        "http://SECRET:SECRET@127.0.0.1/credentials",
        "http://nowhere.invalid/a.png",
    ]
    for url, error in zip(urls, sources.fetch([ImageRef(url=url + secret) for url in urls]), strict=True):
        assert isinstance(error, JobError), url
        assert "SECRET" not in str(error), url
        assert "\n" not in str(error), url
        assert len(str(error)) < 500, url


# -- blobs -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def put(connection: redis.Redis) -> Callable[[bytes], str]:
    """Give a way to store a blob; its digest."""

    def put(data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        connection.set(BLOB_PREFIX + digest, data)
        return digest

    return put


def test_a_blob_is_read(
    make_sources: Callable[..., Sources], connection: redis.Redis, put: Callable[[bytes], str]
) -> None:
    assert fetch(make_sources(connection), blob=put(BODY)) == BODY


def test_a_blob_that_is_not_there_is_refused_and_its_key_is_named(
    make_sources: Callable[..., Sources], connection: redis.Redis
) -> None:
    digest = "0" * 64
    error = fetch(make_sources(connection), blob=digest)
    assert isinstance(error, SourceRefused)
    assert BLOB_PREFIX + digest in str(error)


def test_bytes_of_another_digest_are_a_mismatch(make_sources: Callable[..., Sources], connection: redis.Redis) -> None:
    digest = hashlib.sha256(b"what was meant").hexdigest()
    connection.set(BLOB_PREFIX + digest, b"what is there")
    assert isinstance(fetch(make_sources(connection), blob=digest), BlobMismatch)


def test_a_blob_of_exactly_the_limit_is_taken(
    make_sources: Callable[..., Sources], connection: redis.Redis, put: Callable[[bytes], str]
) -> None:
    sources = make_sources(connection)
    assert fetch(sources, blob=put(b"x" * MAX_BYTES)) == b"x" * MAX_BYTES
    assert isinstance(fetch(sources, blob=put(b"x" * (MAX_BYTES + 1))), ImageTooLarge)


def test_a_key_that_holds_no_string_is_refused_and_harms_nobody(
    make_sources: Callable[..., Sources], connection: redis.Redis, put: Callable[[bytes], str]
) -> None:
    connection.rpush(BLOB_PREFIX + "a" * 64, "x")
    fetched = make_sources(connection).fetch([ImageRef(blob="a" * 64), ImageRef(blob=put(BODY))])
    assert isinstance(fetched[0], SourceRefused)
    assert fetched[1] == BODY


def test_a_blob_without_redis_is_not_a_job_for_this_command(make_sources: Callable[..., Sources]) -> None:
    assert isinstance(fetch(make_sources(), blob="a" * 64), JobInvalid)


def test_a_blob_is_unavailable_while_redis_is_away(make_sources: Callable[..., Sources]) -> None:
    with redis.Redis(port=free_port(), retry=Retry(NoBackoff(), 0)) as nobody:
        assert isinstance(fetch(make_sources(nobody), blob="a" * 64), SourceUnavailable)


def test_a_blob_is_unavailable_while_redis_hangs(make_sources: Callable[..., Sources]) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        redis.Redis(port=silent.getsockname()[1], socket_timeout=0.1, retry=Retry(NoBackoff(), 0)) as connection,
    ):
        assert isinstance(fetch(make_sources(connection), blob="a" * 64), SourceUnavailable)


# -- base64 ----------------------------------------------------------------------------------------------------------


def test_base64_is_decoded(sources: Sources) -> None:
    for data in (BODY, BODY[:-1], BODY[:-2]):
        assert fetch(sources, base64=base64.b64encode(data).decode()) == data


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("_-_-", id="the alphabet of URLs"),
        pytest.param("AAA", id="no padding"),
        pytest.param("A===", id="too much padding"),
        pytest.param("AA==AAAA", id="padding in the middle"),
        pytest.param("AAAA\nAAAA", id="lines"),
        pytest.param("data:image/png;base64,AAAA", id="a data URL"),
        pytest.param("ÄÖÜß", id="letters that are no ASCII"),
        pytest.param("<h1>", id="HTML"),
    ],
)
def test_what_is_not_base64_is_undecodable(text: str, sources: Sources) -> None:
    error = fetch(sources, base64=text)
    assert isinstance(error, ImageUndecodable)
    assert "not base64" in str(error)


@pytest.mark.parametrize("over", [1, 2, 3, 4, 1_000_000])
def test_base64_of_more_bytes_than_the_limit_is_too_large(over: int, sources: Sources) -> None:
    assert fetch(sources, base64=base64.b64encode(b"x" * MAX_BYTES).decode()) == b"x" * MAX_BYTES
    error = fetch(sources, base64=base64.b64encode(b"x" * (MAX_BYTES + over)).decode())
    assert isinstance(error, ImageTooLarge)


# -- paths -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make a root with a file in it, beside what must stay out of reach."""
    root = tmp_path / "root"
    (root / "inner").mkdir(parents=True)
    (root / "a.png").write_bytes(BODY)
    (root / "inner" / "b.png").write_bytes(BODY)
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "root-beside").mkdir()
    (tmp_path / "root-beside" / "c.png").write_bytes(b"secret")
    return root


@pytest.fixture
def files(root: Path, make_sources: Callable[..., Sources]) -> Sources:
    """Give sources that read files under the root."""
    return make_sources(path_root=root)


def test_files_under_the_root_are_read_by_relative_and_absolute_path(root: Path, files: Sources) -> None:
    for path in ("a.png", "inner/b.png", "inner/../a.png", str(root / "a.png"), f"{root}/inner/../a.png"):
        assert fetch(files, path=path) == BODY


def test_a_root_that_is_a_link_is_followed(root: Path, make_sources: Callable[..., Sources]) -> None:
    link = root.parent / "link"
    link.symlink_to(root)
    assert fetch(make_sources(path_root=link), path="a.png") == BODY
    assert fetch(make_sources(path_root=link), path=str(root / "a.png")) == BODY


@pytest.mark.parametrize(
    "path", ["../secret.png", "inner/../../secret.png", "/etc/passwd", "{root}/../secret.png", "../root-beside/c.png"]
)
def test_files_outside_the_root_are_refused(path: str, root: Path, files: Sources) -> None:
    error = fetch(files, path=path.format(root=root))
    assert isinstance(error, PathRefused)
    assert "SLUICE_PATH_ROOT" in str(error)


def test_a_link_that_leads_out_is_refused_and_one_that_stays_inside_is_followed(root: Path, files: Sources) -> None:
    (root / "out.png").symlink_to(root.parent / "secret.png")
    (root / "out").symlink_to(root.parent)
    (root / "in.png").symlink_to(root / "inner" / "b.png")
    assert isinstance(fetch(files, path="out.png"), PathRefused)
    assert isinstance(fetch(files, path="out/secret.png"), PathRefused)
    assert fetch(files, path="in.png") == BODY


def test_links_in_a_circle_are_refused_and_harm_nobody(root: Path, files: Sources) -> None:
    (root / "circle.png").symlink_to(root / "circle.png")
    fetched = files.fetch([ImageRef(path="circle.png"), ImageRef(path="a.png")])
    assert isinstance(fetched[0], SourceRefused | PathRefused)
    assert fetched[1] == BODY


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _directory(path: Path) -> None:
    path.mkdir()


def _unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


# A FIFO that is opened without care waits for a writer for ever; /dev/zero never ends.
@pytest.mark.timeout(20)
@pytest.mark.parametrize("make", [_fifo, _directory, _unix_socket, _device])
def test_what_is_no_regular_file_is_refused_at_once_and_leaves_nothing_open(
    make: Callable[[Path], None], tmp_path: Path, make_sources: Callable[..., Sources]
) -> None:
    make(tmp_path / "x")
    sources = make_sources(path_root=Path("/"))
    fetch(sources, path="/dev/null")
    before = _open_descriptors()
    for _ in range(5):
        error = fetch(sources, path=str(tmp_path / "x"))
        assert isinstance(error, SourceRefused if make is _unix_socket else PathRefused)
    assert _open_descriptors() == before


def _open_descriptors() -> Sequence[str]:
    return sorted(os.listdir("/dev/fd"))  # noqa: PTH208 - listing opens one, always the same


@pytest.mark.parametrize("path", ["b.png", "a.png/b.png", "inner/nothing/b.png", "x" * 4000])
def test_a_file_that_is_not_there_is_refused(path: str, files: Sources) -> None:
    error = fetch(files, path=path)
    assert isinstance(error, SourceRefused)
    assert not error.retry


def test_a_file_of_exactly_the_limit_is_taken(root: Path, files: Sources) -> None:
    (root / "a.png").write_bytes(b"x" * MAX_BYTES)
    (root / "b.png").write_bytes(b"x" * (MAX_BYTES + 1))
    assert fetch(files, path="a.png") == b"x" * MAX_BYTES
    assert isinstance(fetch(files, path="b.png"), ImageTooLarge)


def test_paths_are_refused_where_no_root_is_set(root: Path, sources: Sources) -> None:
    error = fetch(sources, path=str(root / "a.png"))
    assert isinstance(error, PathRefused)
    assert "SLUICE_PATH_ROOT" in str(error)


@pytest.mark.parametrize("part", ["inner", "inner/b.png"])
def test_a_part_of_a_path_that_has_become_a_link_since_it_was_looked_at_is_not_followed(part: str, root: Path) -> None:
    outside = root.parent / "outside"
    (outside / "inner").mkdir(parents=True)
    (outside / "inner" / "b.png").write_bytes(b"secret")
    resolved = (root / "inner" / "b.png").resolve()
    (root / part).rename(root / "moved")
    (root / part).symlink_to(outside / part)
    with pytest.raises(OSError, match=r"symbolic links|Not a directory"):
        open_beneath(root, resolved.relative_to(root))


def test_a_directory_that_is_swapped_for_a_link_all_the_time_never_leads_out(root: Path, files: Sources) -> None:
    (root.parent / "outside").mkdir()
    (root.parent / "outside" / "b.png").write_bytes(b"secret")
    (root / "link").symlink_to(root.parent / "outside")
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            (root / "inner").rename(root / "kept")
            (root / "link").rename(root / "inner")
            (root / "inner").rename(root / "link")
            (root / "kept").rename(root / "inner")

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        seen = {
            data if isinstance(data, bytes) else type(data)
            for data in files.fetch([ImageRef(path="inner/b.png")] * 300)
        }
    finally:
        done.set()
        thread.join()
    assert seen <= {BODY, SourceRefused, PathRefused}


# -- when to ask again, and what is said -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7), ("0", None), ("-5", None), ("86400", 900), ("9" * 400, 900), ("soon", None), ("", None), ("7.5", None)],
)
@pytest.mark.parametrize("status", [429, 503])
def test_a_source_that_says_when_to_ask_again_is_heeded_within_a_bound(
    status: int, header: str, seconds: float | None, site: Site, sources: Sources
) -> None:
    error = fetch(sources, url=site.page("/a.png", body(b"", status, Retry_After=header)))
    assert isinstance(error, SourceUnavailable)
    assert error.retry_after_seconds == seconds


def test_a_date_to_ask_again_is_heeded_too(site: Site, sources: Sources) -> None:
    for moment, least, most in ((time.time() + 60, 50, 61), (time.time() + 10**7, 900, 900)):
        error = fetch(sources, url=site.page("/a.png", body(b"", 503, Retry_After=formatdate(moment, usegmt=True))))
        assert isinstance(error, SourceUnavailable)
        assert least <= (error.retry_after_seconds or 0) <= most


def test_a_source_that_falls_silent_is_left_before_the_total_deadline(
    site: Site, make_sources: Callable[..., Sources]
) -> None:
    answer = raw(_OK + b"Content-Length: 100\r\n\r\nx", then=lambda _: time.sleep(3))
    error, seconds = fetch_timed(make_sources(read_seconds=0.3), site.page("/a.png", answer))
    assert isinstance(error, SourceUnavailable)
    assert "0.3 s" in str(error)
    assert seconds < PATIENT_SECONDS


def test_how_many_redirects_are_followed_is_a_choice(site: Site, make_sources: Callable[..., Sources]) -> None:
    end = site.page("/end", body())
    url = site.page("/a.png", redirect(end))
    assert fetch(make_sources(max_redirects=1), url=url) == BODY
    for none in (make_sources(max_redirects=0),):
        error = fetch(none, url=url)
        assert isinstance(error, AddressRefused)
        assert "redirects more than 0 times" in str(error)


def test_a_denied_network_is_not_connected_to_even_where_private_addresses_are_allowed(
    site: Site, make_sources: Callable[..., Sources], connected_to: list[Any]
) -> None:
    error = fetch(make_sources(deny_networks=("127.0.0.0/8",)), url=site.page("/a.png", body()))
    assert isinstance(error, AddressRefused)
    assert connected_to == []


def test_a_traceback_of_a_failed_fetch_holds_no_query_and_no_credentials(
    site: Site, make_sources: Callable[..., Sources]
) -> None:
    urls = [
        "http://user:SECRET@127.0.0.1/?SECRET",
        "http://user:SEC/RET@127.0.0.1/",
        "http://127.0.0.1:SECRET/",
        site.page("/away", redirect("http://127.0.0.1:SECRET/")) + "?SECRET",
        site.page("/in", redirect("http://SECRET:SECRET@127.0.0.1/?SECRET")) + "?SECRET",
        site.page("/reset", raw(then=reset)) + "?SECRET",
        site.page("/garbage", raw(b"SECRET SECRET SECRET\r\n\r\n")),
    ]
    strange = [ImageRef.model_construct({"url"}, url=url) for url in urls]
    for url, error in zip(urls, make_sources().fetch(strange), strict=True):
        assert isinstance(error, JobError), url
        kept = "".join(traceback.format_exception(error))
        # Only lines of code, and what we say ourselves.
        assert "SECRET" not in kept.upper(), url
        assert "SEC/RET" not in kept, url
