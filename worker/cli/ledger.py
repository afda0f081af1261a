"""`sluice ledger …`: what is remembered of judged images, archived, looked at, and forgotten."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import redis
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from worker.cli.console import Commands, add_command, add_group, print_json, settings_of
from worker.connection import PatientBackoff, open_redis, require_redis
from worker.errors import Missing, RedisUnreachable, UsageError
from worker.logs import configure_logging
from worker.settings import Settings, mask_url

if TYPE_CHECKING:
    from worker.ledger.about import Holding
    from worker.ledger.archive import Archived
    from worker.ledger.shelf import Shelf, StoredFile

_PLACES = ("redis_url", "s3_buckets", "s3_endpoint_url")
#: What an archive may be, for `--help`.
WHERE = "a directory, or s3://BUCKET/PREFIX (of SLUICE_S3_BUCKETS)"


def add_commands(commands: Commands) -> None:
    """Add the group's commands."""
    line = "embeddings of judged images: archive them, look at what there is, forget"
    verbs = add_group(
        commands, "ledger", line, "  sluice ledger show\n  sluice ledger archive --to /var/lib/sluice/ledger"
    )
    _add_archive(verbs)
    show = add_command(
        verbs,
        "show",
        _show,
        "say what the ledger holds: entries, since when, of which models",
        _PLACES,
        "  sluice ledger show\n  sluice ledger show --ledger /var/lib/sluice/ledger --json",
    )
    show.add_argument("--ledger", metavar="WHERE", help=f"also look at an archive: {WHERE}")
    show.add_argument("--json", action="store_true", help="print one JSON object a place")
    forget = add_command(
        verbs,
        "forget",
        _forget,
        "take uploads out of the ledger: out of Redis, and out of an archive",
        _PLACES,
        "  sluice ledger forget upload-1 upload-2 --ledger /var/lib/sluice/ledger",
    )
    forget.add_argument("content_ids", nargs="+", metavar="CONTENT_ID", help="the platform's ids of the uploads")
    forget.add_argument("--ledger", metavar="WHERE", help=f"the archive: {WHERE}")
    forget.add_argument("--json", action="store_true", help="print one JSON object a content id")


def _add_archive(verbs: Commands) -> None:
    archive = add_command(
        verbs,
        "archive",
        _archive,
        "move embeddings from Redis into Parquet files, a directory for each day",
        (*_PLACES, "log_format", "log_level"),
        "  sluice ledger archive --to /var/lib/sluice/ledger\n"
        "  sluice ledger archive --to s3://ledger/sluice --follow --retention-days 90",
    )
    archive.add_argument("--to", required=True, metavar="WHERE", help=WHERE)
    how = archive.add_mutually_exclusive_group()
    how.add_argument("--once", action="store_true", help="write what there is, and end (without --follow)")
    how.add_argument("--follow", action="store_true", help="go on; several share the work")
    archive.add_argument(
        "--retention-days", type=int, metavar="N", help="delete days that are older than so many (default: none)"
    )
    archive.add_argument(
        "--file-entries", type=int, default=10_000, metavar="N", help="entries of a file, at most (10000)"
    )
    archive.add_argument(
        "--file-seconds", type=float, default=60.0, metavar="S", help="an entry waits no longer for its file (60)"
    )
    archive.add_argument(
        "--claim-seconds",
        type=float,
        default=60.0,
        metavar="S",
        help="what another archiver has held for so long is taken over (60)",
    )
    archive.add_argument("--json", action="store_true", help="print one JSON object a file, and one at the end")


def _archive(options: argparse.Namespace) -> int:
    from worker.ledger.archive import Archiver, Rolling

    settings = settings_of(options)
    _check_numbers(options)
    configure_logging(settings)
    shelf = shelf_at(options.to, settings)

    def tell(what: str, file: StoredFile) -> None:
        if options.json:
            print_json({what: f"day={file.day}/{file.name}", "bytes": file.bytes})
        else:
            Console(stderr=True).print(
                f"{what} day={file.day}/{file.name}, {decimal(file.bytes)}", markup=False, soft_wrap=True
            )

    rolling = Rolling(options.file_entries, options.file_seconds, options.claim_seconds)
    backoff = PatientBackoff() if options.follow else None
    with reachable_redis(settings, backoff) as connection:
        archiver = Archiver(connection, shelf, rolling, options.retention_days, tell)

        def leave(signum: int, frame: FrameType | None) -> None:
            archiver.stop()
            if backoff:
                backoff.hurry()

        signal.signal(signal.SIGTERM, leave)
        signal.signal(signal.SIGINT, leave)
        (archiver.follow if options.follow else archiver.once)()
    _summarise(archiver.done, shelf, options.json)
    return 0


def _check_numbers(options: argparse.Namespace) -> None:
    if options.retention_days is not None and not 1 <= options.retention_days <= 100_000:  # noqa: PLR2004 - 270 years
        raise UsageError("--retention-days counts days; give 1 or more")
    if not 1 <= options.file_entries <= 1_000_000:  # noqa: PLR2004 - what one process can hold
        raise UsageError("--file-entries is between 1 and 1000000")
    if not (0 <= options.file_seconds < float("inf") and 0 < options.claim_seconds < float("inf")):
        raise UsageError("--file-seconds and --claim-seconds count seconds; give more than 0")


def _summarise(done: Archived, shelf: Shelf, as_json: bool) -> None:
    if as_json:
        print_json({"to": str(shelf)} | asdict(done))
        return
    more = f", {done.passed_over} passed over" if done.passed_over else ""
    more += f", {done.lost} gone before they could be archived" if done.lost else ""
    print(f"{done.entries} entries in {done.files} files, {decimal(done.bytes)}, to {shelf}{more}")


def _show(options: argparse.Namespace) -> int:
    from worker.ledger.about import in_stream, on_shelf

    settings = settings_of(options)
    with reachable_redis(settings) as connection:
        holdings = [in_stream(connection)]
    if options.ledger is not None:
        holdings.append(on_shelf(shelf_at(options.ledger, settings)))
    if options.json:
        for holding in holdings:
            print_json(holding.as_dict())
        return 0
    table = Table("place", "entries", "size", "oldest", "newest", "models")
    for holding in holdings:
        table.add_row(*_row(holding))
    Console().print(table)
    return 0


def _row(holding: Holding) -> Iterator[str]:
    yield escape(holding.place)
    yield f"{holding.entries:,}" + (f" (and {holding.passed_over} unreadable)" if holding.passed_over else "")
    yield decimal(holding.bytes) + (f" in {holding.files} files" if holding.files else "")
    for moment in (holding.oldest, holding.newest):
        yield "" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}Z"
    yield escape("\n".join(f"{model}: {count:,}" for model, count in holding.models.most_common()))


def _forget(options: argparse.Namespace) -> int:
    from worker.ledger.forgetting import forget_in_stream, forget_on_shelf

    settings = settings_of(options)
    content_ids = list(dict.fromkeys(options.content_ids))
    shelf = None if options.ledger is None else shelf_at(options.ledger, settings)
    with reachable_redis(settings) as connection:
        stream = forget_in_stream(connection, content_ids)
    files = forget_on_shelf(shelf, content_ids) if shelf is not None else {}
    for content_id in content_ids if options.json else ():
        print_json({"content_id": content_id, "stream": stream[content_id], "files": files.get(content_id, 0)})
    if not options.json:
        where = f", {sum(files.values())} from {shelf}" if shelf is not None else ""
        print(f"{sum(stream.values())} entries forgotten from Redis{where}")
    return 0


def shelf_at(place: str, settings: Settings) -> Shelf:
    """Return the archive that a command line names; see `open_shelf`."""
    from worker.ledger.shelf import open_shelf

    return open_shelf(place, settings.s3_buckets, settings.s3_endpoint_url)


@contextmanager
def opened_ledger(
    place: str | None, stream: bool, settings: Settings
) -> Iterator[tuple[redis.Redis | None, Shelf | None]]:
    """Open an archive, the stream in Redis, or both: what is missing is said before anything takes long.

    Raises:
        Missing: There is no such directory.
        RedisUnreachable: Redis does not answer, or went away.
        UsageError: The place cannot be read.
    """
    shelf = None if place is None else shelf_at(place, settings)
    if place is not None and "://" not in place and not Path(place).expanduser().is_dir():
        raise Missing(f"no ledger at {place}; write one with `sluice ledger archive --to {place}`")
    with reachable_redis(settings) if stream else nullcontext() as connection:
        yield connection, shelf


@contextmanager
def reachable_redis(settings: Settings, backoff: PatientBackoff | None = None) -> Iterator[redis.Redis]:
    """Open Redis; with a backoff an absence is waited out, once it has answered."""
    shown_url = mask_url(settings.redis_url)
    with open_redis(settings.redis_url) as asking:
        require_redis(asking, shown_url)
    with open_redis(settings.redis_url, backoff) as connection:
        try:
            yield connection
        except (redis.ConnectionError, redis.TimeoutError) as error:
            raise RedisUnreachable(f"Redis at {shown_url} went away ({error}); start it, and try again") from error
