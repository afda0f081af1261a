"""S3 refs → bytes, against a real S3 server on loopback."""

from __future__ import annotations

import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import support

from worker.app import fetch_limits
from worker.errors import AddressRefused, ImageTooLarge, JobError, SourceRefused, SourceUnavailable
from worker.intake.sources import FetchLimits, Sources
from worker.records import ImageRef
from worker.settings import Settings

BODY = b"an image" * 100
MAX_BYTES = 10_000


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """Run the server with a bucket `uploads`, and one that is not for us; its URL."""
    url = f"http://127.0.0.1:{(port := support.free_port())}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with (
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server,
        httpx.Client(base_url=url, trust_env=False) as client,
    ):
        try:
            support.until(lambda: _is_up(client), what="the S3 server answers")
            for path, content in {
                "/uploads": b"", "/private": b"", "/uploads/a/b.png": BODY, "/private/a.png": b"secret",
                "/uploads/full.png": b"x" * MAX_BYTES, "/uploads/large.png": b"x" * (MAX_BYTES + 1),
                "/uploads/%C3%A4%20%25%2B%3F%23.png": BODY,
            }.items():  # fmt: skip
                client.put(path, content=content).raise_for_status()
            yield url
        finally:
            server.kill()


def _is_up(client: httpx.Client) -> bool:
    try:
        return client.get("/moto-api/").is_success
    except httpx.TransportError:
        return False


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "an-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "SECRET")


@pytest.fixture
def make_sources(s3: str) -> Iterator[Callable[..., Sources]]:
    """Give a way to make sources that end with the test."""
    made: list[Sources] = []

    def make(**limits: Any) -> Sources:
        given = {"max_bytes": MAX_BYTES, "timeout_seconds": 20, "s3_buckets": ("uploads",), "s3_endpoint_url": s3}
        made.append(Sources(FetchLimits(**given | limits)))
        return made[-1]

    yield make
    for sources in made:
        sources.close()


def fetch(sources: Sources, ref: str) -> bytes | JobError:
    """Fetch one object."""
    return sources.fetch([ImageRef(s3=ref)])[0]


def test_objects_are_downloaded_by_bucket_and_key(make_sources: Callable[..., Sources]) -> None:
    sources = make_sources()
    refs = ["s3://uploads/a/b.png", "s3://uploads/ä %+?#.png", "s3://uploads/a/b.png"]
    assert sources.fetch([ImageRef(s3=ref) for ref in refs]) == [BODY] * 3
    sources.close()
    assert fetch(sources, "s3://uploads/a/b.png") == BODY


def test_an_object_of_exactly_the_limit_is_taken(make_sources: Callable[..., Sources]) -> None:
    assert fetch(make_sources(), "s3://uploads/full.png") == b"x" * MAX_BYTES
    assert isinstance(fetch(make_sources(), "s3://uploads/large.png"), ImageTooLarge)


@pytest.mark.parametrize(
    "ref",
    ["s3://private/a.png", "s3://UPLOADS/a/b.png", "s3://uploads.evil.example/a", "s3://uploads@private/a.png",
     "s3://uploads:80/a/b.png", "s3://127.0.0.1/a", "s3://uploads%2f..%2fprivate/a.png", "s3://..//private/a.png"],
)  # fmt: skip
def test_buckets_that_are_not_listed_are_refused(ref: str, make_sources: Callable[..., Sources]) -> None:
    error = fetch(make_sources(), ref)
    assert isinstance(error, AddressRefused)
    assert "SLUICE_S3_BUCKETS" in str(error)


def test_every_bucket_is_refused_where_none_is_listed(make_sources: Callable[..., Sources]) -> None:
    assert isinstance(fetch(make_sources(s3_buckets=()), "s3://uploads/a/b.png"), AddressRefused)


@pytest.mark.parametrize(
    "key", ["nothing.png", "../private/a.png", "a/../../private/a.png", "./a/b.png", "a//b.png", "..%2fprivate%2fa.png"]
)
def test_keys_that_are_not_there_or_climb_are_refused(key: str, make_sources: Callable[..., Sources]) -> None:
    assert isinstance(fetch(make_sources(), f"s3://uploads/{key}"), SourceRefused)


def test_a_bucket_that_is_listed_and_not_there_is_refused(make_sources: Callable[..., Sources]) -> None:
    assert isinstance(fetch(make_sources(s3_buckets=("gone-away",)), "s3://gone-away/a.png"), SourceRefused)


@pytest.mark.parametrize(
    ("status", "kind"), [(403, SourceRefused), (400, SourceRefused), (500, SourceUnavailable), (503, SourceUnavailable)]
)
def test_an_endpoint_that_fails_is_treated_like_any_source(
    status: int, kind: type[JobError], make_sources: Callable[..., Sources]
) -> None:
    site = support.Website()
    site.page("/uploads/a.png", (status, b"<Error/>"))
    try:
        error = fetch(make_sources(s3_endpoint_url=site.url), "s3://uploads/a.png")
    finally:
        site.close()
    assert isinstance(error, kind)
    assert str(status) in str(error)


def test_an_endpoint_that_hangs_is_left_at_the_deadline(make_sources: Callable[..., Sources]) -> None:
    site = support.Website()
    site.page("/uploads/a.png", (200, BODY), wait_seconds=2)
    try:
        error = fetch(make_sources(s3_endpoint_url=site.url, timeout_seconds=0.3), "s3://uploads/a.png")
    finally:
        site.close()
    assert isinstance(error, SourceUnavailable)


def test_an_endpoint_that_is_away_is_unavailable_and_nothing_of_the_signature_is_told(
    make_sources: Callable[..., Sources],
) -> None:
    away = f"http://127.0.0.1:{support.free_port()}"
    error = fetch(make_sources(s3_endpoint_url=away), "s3://uploads/a.png")
    assert isinstance(error, SourceUnavailable)
    kept = "".join(traceback.format_exception(error))
    assert "X-Amz" not in kept
    assert "SECRET" not in kept


def test_an_endpoint_from_anywhere_but_the_settings_is_not_asked(
    make_sources: Callable[..., Sources], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = support.Website()
    site.page("/uploads/a.png", (200, BODY))
    monkeypatch.setenv("AWS_ENDPOINT_URL", site.url)
    try:
        error = fetch(make_sources(s3_endpoint_url=None), "s3://uploads/a.png")
    finally:
        site.close()
    assert isinstance(error, AddressRefused)
    assert not site.asked


def test_proxies_of_the_environment_are_not_used(
    make_sources: Callable[..., Sources], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{support.free_port()}")
    assert fetch(make_sources(), "s3://uploads/a/b.png") == BODY


def test_the_settings_reach_the_fetch(s3: str) -> None:
    limits = fetch_limits(
        Settings(s3_buckets=("uploads",), s3_endpoint_url=s3, fetch_ports=(80,), fetch_max_redirects=1)
    )
    assert (limits.s3_buckets, limits.s3_endpoint_url, limits.ports, limits.max_redirects) == (
        ("uploads",),
        s3,
        (80,),
        1,
    )
    sources = Sources(limits)
    assert fetch(sources, "s3://uploads/a/b.png") == BODY
    sources.close()


def test_buckets_without_the_extra_are_one_line_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "obstore.py").write_text("raise ImportError('not installed')")
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from worker.errors import Missing\n"
        "from worker.intake.sources import FetchLimits, Sources\n"
        "try: Sources(FetchLimits(1, 1, s3_buckets=('uploads',)))\n"
        "except Missing as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.stdout == "SLUICE_S3_BUCKETS needs the extra s3; run pip install 'sluicegate[s3]'\n"
