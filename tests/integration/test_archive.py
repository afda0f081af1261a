"""From the stream into files: nothing is lost, nothing is there twice, whatever dies; what is forgotten is gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import ledgers
import pytest
import redis
import support
from cable import Cable
from ledgers import LEDGER, NEW_YEAR, OTHER, archiver, day, days_of, fields, names, push, read, rows_on

from worker.connection import PatientBackoff, open_redis
from worker.ledger.about import in_stream, on_shelf
from worker.ledger.entry import ARCHIVE_GROUP as GROUP
from worker.ledger.forgetting import FORGOTTEN, forget_in_stream, forget_on_shelf
from worker.ledger.shelf import DirectoryShelf, Shelf, open_shelf

pytestmark = pytest.mark.thorough


@pytest.fixture
def shelf(tmp_path: Path) -> DirectoryShelf:
    return DirectoryShelf(tmp_path / "ledger")


def pending(connection: redis.Redis) -> int:
    summary: Any = connection.xpending(LEDGER, GROUP)
    return int(summary["pending"])


def consumers(connection: redis.Redis) -> list[Any]:
    rows: Any = connection.xinfo_consumers(LEDGER, GROUP)
    return [row["name"] for row in rows]


# -- archive and read ------------------------------------------------------------------------------------------------


def test_what_is_in_the_stream_comes_into_files_by_day_and_model_and_stays_in_the_stream(
    connection: redis.Redis, shelf: DirectoryShelf
) -> None:
    push(connection, names(250))
    push(connection, names(30, "other"), day(1), model=OTHER, dim=4)
    one = archiver(connection, shelf)
    one.once()
    assert (one.done.entries, one.done.files, one.done.passed_over) == (280, 4, 0)
    assert rows_on(shelf) == sorted(names(250) + names(30, "other"))
    assert days_of(shelf) == ["2026-01-01", "2026-01-02"]
    assert connection.xlen(LEDGER) == 280
    assert (pending(connection), consumers(connection)) == (0, [])
    again = archiver(connection, shelf)
    again.once()
    assert (again.done.entries, len(shelf.files())) == (0, 4)


def test_a_reader_sees_each_verdict_once_wherever_it_lies(connection: redis.Redis, shelf: DirectoryShelf) -> None:
    everything = names(1500)
    push(connection, everything[:1200])
    archiver(connection, shelf, 500).once()
    push(connection, everything[1100:])  # 100 of them again, as a job that was run twice does
    assert read(connection, shelf) == everything
    connection.xtrim(LEDGER, maxlen=350, approximate=False)
    assert read(connection, shelf) == everything
    assert read(connection, None) == sorted(everything[-350:])
    assert read(None, shelf) == sorted(everything[:1200])
    assert read(None, None) == []


def test_a_reader_takes_a_time_and_a_model(connection: redis.Redis, shelf: DirectoryShelf) -> None:
    today = datetime.now(UTC).replace(microsecond=0)
    moments = {f"{number}-days": today - timedelta(days=number) for number in range(6)}
    for name, moment in moments.items():
        push(connection, [name], moment)
        push(connection, [f"{name}-other"], moment, model=OTHER)
    archiver(connection, shelf).once()
    ours = sorted(moments)
    for source in ((None, shelf), (connection, shelf)):
        assert read(*source, model="openai/clip@abc") == ours
        assert read(*source, model="openai/clip@abc", since=today - timedelta(days=2)) == ours[:3]
        assert read(*source, model="openai/clip@abc", until=today - timedelta(days=2)) == ours[3:]
        window = {"since": today - timedelta(days=4), "until": today - timedelta(days=3)}
        assert read(*source, **window) == ["4-days", "4-days-other"]
        assert read(*source, model="nobody@1") == []


def test_what_is_no_entry_is_passed_over_and_acknowledged(connection: redis.Redis, shelf: DirectoryShelf) -> None:
    good = fields("good")
    hostile = [
        ["x", "y"], [*good[:-1], b"\0" * 16], [*good[:-1], b"\xff\x7f" * 8], ["schema_version", 9, *good[2:]],
        ["schema_version", 1, "content_id", "../../etc", *good[4:-1], b""], [b"\xff" * 100, b"\xff" * 100],
    ]  # fmt: skip
    for row in hostile:
        connection.execute_command("XADD", LEDGER, "*", *row)
    push(connection, ["good"])
    assert read(connection, shelf) == ["good"]
    one = archiver(connection, shelf)
    one.once()
    assert (one.done.entries, one.done.passed_over, pending(connection)) == (1, len(hostile), 0)
    assert read(None, shelf) == ["good"]
    assert in_stream(connection).passed_over == len(hostile) - 2  # lengths of rows are not looked at here
    assert in_stream(connection).entries == 3


def test_two_archivers_share_the_work_and_no_entry_is_in_two_files(
    connection: redis.Redis, redis_url: str, shelf: DirectoryShelf
) -> None:
    everything = names(3000)
    push(connection, everything)
    crew = [archiver(redis.Redis.from_url(redis_url), shelf, 50, claim_seconds=60.0) for _ in range(3)]
    threads = [threading.Thread(target=one.once) for one in crew]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert rows_on(shelf) == everything
    assert sum(one.done.entries for one in crew) == 3000
    assert sum(one.done.entries > 0 for one in crew) > 1


# -- death -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "point",
    ["after XREADGROUP", "a file is half written", "a file is complete", "before XACK", "after XACK",
     "after SMEMBERS", "before XREADGROUP"],
)  # fmt: skip
def test_an_archiver_that_is_killed_loses_nothing_and_doubles_nothing(
    point: str, connection: redis.Redis, redis_url: str, shelf: DirectoryShelf
) -> None:
    everything = names(300)
    for number in range(3):
        push(connection, everything[number::3], day(number), views=2)
    command = [sys.executable, "-m", "ledgers", redis_url, str(shelf), point]
    ended = subprocess.run(command, cwd=Path(__file__).parents[1], check=False, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    assert read(connection, shelf) == everything
    archiver(connection, shelf).once()
    assert read(None, shelf) == rows_on(shelf) == everything
    assert read(connection, shelf) == everything
    assert pending(connection) == 0


@pytest.mark.nightly
def test_archivers_that_are_killed_again_and_again_lose_nothing(
    connection: redis.Redis, redis_url: str, shelf: DirectoryShelf
) -> None:
    everything = names(2400)
    settings = {"redis_url": redis_url}
    command = [support.SLUICE, "ledger", "archive", "--to", str(shelf), "--follow", "--file-entries", "20",
               "--file-seconds", "0", "--claim-seconds", "0.05"]  # fmt: skip
    for number in range(4):
        push(connection, everything[number::4], views=3)
        wanted = len(shelf.files()) + 5 + 3 * number
        with subprocess.Popen(command, env=support.environment(settings), stderr=subprocess.DEVNULL) as process:
            support.until(lambda wanted=wanted: len(shelf.files()) >= wanted, what="files")
            process.kill()
        assert read(connection, shelf) == sorted(name for part in range(number + 1) for name in everything[part::4])
    time.sleep(0.05)
    archiver(connection, shelf).once()
    assert read(None, shelf) == rows_on(shelf) == everything


@pytest.mark.parametrize("question", [b"XREADGROUP", b"XCLAIM", b"XACK"])
def test_an_answer_that_is_lost_on_the_way_loses_no_entry(
    question: bytes, connection: redis.Redis, shelf: DirectoryShelf
) -> None:
    cable = Cable(int(url_of(connection).rpartition(":")[2].partition("/")[0]))
    push(connection, names(50))
    connection.xgroup_create(LEDGER, GROUP, id="0")
    connection.xreadgroup(GROUP, "dead", {LEDGER: ">"}, count=10)
    time.sleep(0.01)
    with open_redis(f"redis://127.0.0.1:{cable.port}/0", PatientBackoff()) as over_it:
        cable.lose(question)
        one = archiver(over_it, shelf, 20)
        one.once()
    assert cable.has_broken.is_set()
    cable.close()
    assert rows_on(shelf) == names(50)
    assert (pending(connection), consumers(connection)) == (0, [b"dead"])


def test_what_a_living_archiver_holds_is_left_to_it(connection: redis.Redis, shelf: DirectoryShelf) -> None:
    push(connection, names(10))
    connection.xgroup_create(LEDGER, GROUP, id="0")
    connection.xreadgroup(GROUP, "living", {LEDGER: ">"}, count=5)
    other = archiver(connection, shelf, claim_seconds=60.0)
    other.once()
    assert (other.done.entries, pending(connection), consumers(connection)) == (5, 5, [b"living"])


def test_entries_that_were_trimmed_while_a_dead_archiver_held_them_are_counted(
    connection: redis.Redis, shelf: DirectoryShelf
) -> None:
    push(connection, names(10))
    connection.xgroup_create(LEDGER, GROUP, id="0")
    connection.xreadgroup(GROUP, "dead", {LEDGER: ">"}, count=10)
    connection.xtrim(LEDGER, maxlen=4, approximate=False)
    time.sleep(0.01)
    one = archiver(connection, shelf)
    one.once()
    assert (one.done.entries, one.done.lost, pending(connection)) == (4, 6, 0)


# -- following -------------------------------------------------------------------------------------------------------


def following(one: Any) -> threading.Thread:
    thread = threading.Thread(target=one.follow)
    thread.start()
    return thread


def test_a_follower_writes_full_files_at_once_and_others_when_an_entry_has_waited(
    connection: redis.Redis, redis_url: str, shelf: DirectoryShelf
) -> None:
    one = archiver(redis.Redis.from_url(redis_url), shelf, 100, seconds=3.0)
    thread = following(one)
    try:
        push(connection, names(100))
        support.until(lambda: one.done.entries == 100, 10, "a full file")
        pushed = time.monotonic()
        push(connection, ["late"])
        support.until(lambda: one.done.entries == 101, 10, "a file for one")
        assert time.monotonic() - pushed > 2.5
        assert one.done.files == 2
    finally:
        one.stop()
        thread.join(20)
    assert not thread.is_alive()
    assert consumers(connection) == []


def test_a_follower_survives_a_redis_that_is_emptied_and_says_when_entries_left_unread(
    connection: redis.Redis, redis_url: str, shelf: DirectoryShelf, caplog: pytest.LogCaptureFixture
) -> None:
    one = archiver(redis.Redis.from_url(redis_url), shelf, 100, seconds=0.0)
    thread = following(one)
    try:
        push(connection, ["before"])
        support.until(lambda: one.done.entries == 1, 10, "the first")
        connection.flushall()
        push(connection, ["after"])
        support.until(lambda: one.done.entries == 2, 20, "the second")
    finally:
        one.stop()
        thread.join(20)
    waiting = archiver(connection, shelf, 1000, seconds=3600.0)
    push(connection, names(10, "lost"))
    assert not waiting._is_due()
    connection.xtrim(LEDGER, maxlen=3, approximate=False)
    assert not waiting._is_due()
    assert "entries left sluice:ledger before they were archived" in caplog.text
    waiting.once()
    assert waiting.done.entries == 3


# -- forgetting and retention ----------------------------------------------------------------------------------------


def test_what_is_forgotten_is_gone_from_stream_and_files_and_the_rest_stays(
    connection: redis.Redis, shelf: DirectoryShelf
) -> None:
    everything = names(120)
    push(connection, everything[:100])
    archiver(connection, shelf, 40).once()
    push(connection, everything[100:])
    push(connection, [everything[0]], day(1), verdict_id="0" * 32)
    gone = [everything[0], everything[1], everything[110], "nobody"]
    assert forget_in_stream(connection, gone) == {everything[0]: 2, everything[1]: 1, everything[110]: 1}
    assert forget_on_shelf(shelf, gone) == {everything[0]: 1, everything[1]: 1}
    assert (forget_in_stream(connection, gone), forget_on_shelf(shelf, gone)) == ({}, {})
    left = [name for name in everything if name not in gone]
    assert read(connection, shelf) == left
    assert rows_on(shelf) == [name for name in everything[:100] if name not in gone]
    archiver(connection, shelf, 40).once()
    assert rows_on(shelf) == left
    assert 0 < connection.ttl(FORGOTTEN) <= 3600


def test_an_archiver_that_has_entries_in_its_hands_does_not_bring_back_what_is_forgotten_meanwhile(
    connection: redis.Redis, shelf: DirectoryShelf
) -> None:
    class Forgetting(DirectoryShelf):
        def write(self, day: str, name: str, content: bytes) -> None:
            # The archiver has read; whoever forgets looks at stream and files now, and sees no file yet.
            forget_in_stream(connection, ["upload-1", "lonely"])
            forget_on_shelf(shelf, ["upload-1", "lonely"])
            super().write(day, name, content)

    push(connection, names(5))
    push(connection, ["lonely"], day(4))
    one = archiver(connection, Forgetting(Path(str(shelf))))
    one.once()
    assert rows_on(shelf) == [name for name in names(5) if name != "upload-1"]
    assert (one.done.entries, one.done.files) == (4, 1)


def test_what_a_dead_archiver_left_overwrites_its_file_though_its_first_entry_was_forgotten(
    connection: redis.Redis, redis_url: str, shelf: DirectoryShelf
) -> None:
    push(connection, names(300))
    command = [sys.executable, "-m", "ledgers", redis_url, str(shelf), "before XACK"]
    subprocess.run(command, cwd=Path(__file__).parents[1], check=False, timeout=60)
    before = [file.name for file in shelf.files()]
    first: Any = connection.xpending_range(LEDGER, GROUP, "-", "+", 1)
    ((_, row),) = connection.xrange(LEDGER, first[0]["message_id"], count=1)  # type: ignore[misc]
    gone = row[b"content_id"].decode()
    forget_in_stream(connection, [gone])
    forget_on_shelf(shelf, [gone])
    archiver(connection, shelf).once()
    assert set(before) < {file.name for file in shelf.files()}
    assert rows_on(shelf) == [name for name in names(300) if name != gone]


def test_days_that_are_too_old_are_deleted_whole_and_said(
    connection: redis.Redis, shelf: DirectoryShelf, tmp_path: Path
) -> None:
    now = datetime.now(UTC)
    for age in (0, 1, 2, 3, 40):
        push(connection, [f"{age} days"], now - timedelta(days=age))
    archiver(connection, shelf).once()
    assert len(days_of(shelf)) == 5
    done = support.sluice("ledger", "archive", "--to", shelf, "--retention-days", 2, "--json",
                          settings={"redis_url": url_of(connection)})  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["deleted"][:14] for row in said[:-1]] == [
        f"day={now - timedelta(days=age):%Y-%m-%d}" for age in (40, 3)
    ]
    assert len(days_of(shelf)) == len(list((tmp_path / "ledger").iterdir())) == 3


def url_of(connection: redis.Redis) -> str:
    return f"redis://127.0.0.1:{connection.connection_pool.connection_kwargs['port']}/0"


# -- the command -----------------------------------------------------------------------------------------------------


def test_the_command_archives_shows_and_forgets(redis_url: str, connection: redis.Redis, tmp_path: Path) -> None:
    push(connection, names(50))
    place, settings = tmp_path / "here", {"redis_url": redis_url}
    done = support.sluice("ledger", "archive", "--to", place, settings=settings)
    assert (done.returncode, done.stdout) == (0, f"50 entries in 1 files, {_size(place)}, to {place}\n")
    assert done.stderr.startswith("written day=2026-01-01/")
    shown = support.sluice("ledger", "show", "--ledger", place, "--json", settings=settings)
    stream, files = [json.loads(line) for line in shown.stdout.splitlines()]
    assert (stream["place"], stream["entries"], stream["models"]) == ("sluice:ledger", 50, {"openai/clip@abc": 50})
    assert (files["place"], files["entries"], files["files"], files["oldest"]) == (
        str(place), 50, 1, NEW_YEAR.isoformat(),
    )  # fmt: skip
    assert stream["bytes"] > 0 < files["bytes"]
    forgotten = support.sluice("ledger", "forget", "upload-1", "nobody", "--ledger", place, "--json", settings=settings)
    assert [json.loads(line) for line in forgotten.stdout.splitlines()] == [
        {"content_id": "upload-1", "stream": 1, "files": 1}, {"content_id": "nobody", "stream": 0, "files": 0},
    ]  # fmt: skip
    again = support.sluice("ledger", "forget", "upload-1", "--ledger", place, settings=settings)
    assert (again.returncode, again.stdout) == (0, f"0 entries forgotten from Redis, 0 from {place}\n")
    assert support.sluice("ledger", "show", "--ledger", place, settings=settings).stdout.count("49") >= 2


def _size(place: Path) -> str:
    from rich.filesize import decimal

    return decimal(on_shelf(DirectoryShelf(place)).bytes)


def test_a_following_command_ends_at_sigterm_with_its_summary(
    redis_url: str, connection: redis.Redis, tmp_path: Path
) -> None:
    push(connection, names(10))
    command = [support.SLUICE, "ledger", "archive", "--to", tmp_path / "x", "--follow", "--json", "--file-seconds", "0"]
    with subprocess.Popen(
        command, env=support.environment({"redis_url": redis_url}), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()).keys() == {"written", "bytes"}
        process.send_signal(signal.SIGTERM)
        summary = json.loads(process.stdout.read())
    assert (process.returncode, summary["entries"], summary["files"]) == (0, 10, 1)


def test_a_following_command_waits_for_a_redis_that_went_away_and_leaves_at_once_when_it_is_told_to(
    tmp_path: Path,
) -> None:
    server = support.DurableRedis(tmp_path)
    server.start()
    command = [support.SLUICE, "ledger", "archive", "--to", tmp_path / "x", "--follow", "--json", "--file-seconds", "0"]
    try:
        with (
            redis.Redis(port=server.port) as connection,
            subprocess.Popen(
                command, env=support.environment({"redis_url": server.url}), stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, text=True,
            ) as process,
        ):  # fmt: skip
            assert process.stdout is not None
            push(connection, ["first"])
            assert "written" in process.stdout.readline()
            server.kill()
            time.sleep(1.5)
            server.start()
            connection.connection_pool.disconnect()
            push(connection, ["second"])
            assert "written" in process.stdout.readline()
            server.kill()
            time.sleep(1.5)
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=20)
    finally:
        server.kill()
    assert process.returncode == 3
    assert "went away" in said.splitlines()[-1]
    assert rows_on(DirectoryShelf(tmp_path / "x")) == ["first", "second"]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("archive",), 2, "--to"),
        (("archive", "--to", "x", "--once", "--follow"), 2, "not allowed with"),
        (("archive", "--to", "x", "--retention-days", "0"), 2, "--retention-days"),
        (("archive", "--to", "x", "--file-entries", "0"), 2, "--file-entries"),
        (("archive", "--to", "x", "--claim-seconds", "nan"), 2, "--claim-seconds"),
        (("archive", "--to", "s3://other/x"), 2, "SLUICE_S3_BUCKETS"),
        (("archive", "--to", "ftp://other/x"), 2, "neither a directory"),
        (("archive", "--to", "/proc/nowhere"), 3, "/proc/nowhere"),
        (("forget",), 2, "CONTENT_ID"),
        (("show", "--redis-url", "redis://127.0.0.1:1/0"), 3, "does not answer"),
    ],
)
def test_what_is_wrong_is_one_line_and_an_exit_code(
    arguments: tuple[str, ...], code: int, says: str, redis_url: str, connection: redis.Redis, tmp_path: Path
) -> None:
    push(connection, ["a"])
    done = support.typed("ledger", *arguments, settings={"redis_url": redis_url}, directory=tmp_path)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (code, "")
    assert says in line


# -- buckets ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """Run an S3 server with a bucket `ledger`; its URL."""
    url = f"http://127.0.0.1:{(port := support.free_port())}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with (
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server,
        httpx.Client(base_url=url, trust_env=False) as client,
    ):
        try:
            support.until(lambda: _is_up(client), what="the S3 server answers")
            client.put("/ledger").raise_for_status()
            yield url
        finally:
            server.kill()


def _is_up(client: httpx.Client) -> bool:
    try:
        return client.get("/moto-api/").is_success
    except httpx.TransportError:
        return False


def test_a_bucket_is_a_place_like_any_other(
    s3: str, connection: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "an-id", "AWS_SECRET_ACCESS_KEY": "SECRET", "AWS_REGION": "us-east-1"}
    for name, value in keys.items():
        monkeypatch.setenv(name, value)
    settings = {"redis_url": redis_url, "s3_buckets": "ledger", "s3_endpoint_url": s3}
    now = datetime.now(UTC)
    push(connection, names(20), now)
    push(connection, ["old"], now - timedelta(days=9))
    done = support.sluice("ledger", "archive", "--to", "s3://ledger/a/b", "--json", settings=settings)
    assert done.returncode == 0, done.stderr
    shelf: Shelf = open_shelf("s3://ledger/a/b", ("ledger",), s3)
    assert read(None, shelf) == sorted([*names(20), "old"])
    assert read(connection, shelf) == sorted([*names(20), "old"])
    forget = support.sluice("ledger", "forget", "upload-3", "--ledger", "s3://ledger/a/b", settings=settings)
    assert forget.stdout == "1 entries forgotten from Redis, 1 from s3://ledger/a/b\n"
    archiver(connection, shelf, retention_days=3).once()
    assert read(None, shelf) == [name for name in names(20) if name != "upload-3"]
    assert on_shelf(shelf).files == 1
    assert open_shelf("s3://ledger/a", ("ledger",), s3).files() == []
    push(connection, ["later"])
    lost = support.sluice(
        "ledger", "archive", "--to", "s3://ledger/x",
        settings=settings | {"s3_endpoint_url": f"http://127.0.0.1:{support.free_port()}"},
    )  # fmt: skip
    (line,) = lost.stderr.splitlines()
    assert (lost.returncode, "SLUICE_S3_ENDPOINT_URL" in line, "SECRET" in line) == (3, True, False), line
    assert pending(connection) == 1


# -- the document ----------------------------------------------------------------------------------------------------


def test_the_documents_lines_read_an_archive(connection: redis.Redis, shelf: DirectoryShelf) -> None:
    push(connection, names(30))
    push(connection, ["next day"], day(1))
    archiver(connection, shelf).once()
    document = (Path(__file__).parents[2] / "docs" / "ledger.md").read_text()
    (lines,) = [part.partition("```")[0] for part in document.split("```python\n") if "pyarrow" in part]
    program = (
        lines.replace("LEDGER", str(shelf))
        + "print(len(table), rows.shape, rows.dtype, (rows ** 2).sum(1).round(2).max())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ, timeout=60
    )
    assert done.stdout == f"31 (31, {ledgers.DIM}) float32 1.0\n"
