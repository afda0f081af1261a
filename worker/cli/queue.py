"""`sluice enqueue` and `sluice verdicts`: what a backend does, by hand."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis
from rich.console import Console

from worker.cli.console import Commands, add_command, print_json, settings_of
from worker.cli.tables import add_verdict, verdict_table
from worker.connection import open_redis, require_redis
from worker.errors import JobInvalid, RedisUnreachable, UsageError
from worker.records import Verdict
from worker.settings import Settings, mask_url

if TYPE_CHECKING:
    from worker.client import Moderation


def add_commands(commands: Commands) -> None:
    """Add the group's commands."""
    enqueue = add_command(
        commands,
        "enqueue",
        _enqueue,
        "put images on the queue, as a backend does",
        ("redis_url", "policy"),
        "  sluice enqueue photo.jpg --wait\n  sluice enqueue https://example.org/cat.png --priority bulk --json",
    )
    enqueue.add_argument("images", nargs="+", metavar="IMAGE|URL", help="files (their bytes go to Redis) and URLs")
    enqueue.add_argument("--content-id", help="the platform's id of the upload; the file name or URL without it")
    enqueue.add_argument("--priority", choices=("high", "normal", "bulk"), default="normal")
    enqueue.add_argument("--wait", action="store_true", help="wait for the verdicts and print them")
    enqueue.add_argument("--timeout", type=float, default=60.0, metavar="SECONDS", help="how long to wait (60)")
    enqueue.add_argument("--json", action="store_true", help="print one JSON object an image")

    verdicts = add_command(
        commands,
        "verdicts",
        _verdicts,
        "print the verdicts that Redis keeps",
        ("redis_url",),
        "  sluice verdicts --last 20\n  sluice verdicts --follow --json | jq 'select(.action == \"block\")'",
    )
    verdicts.add_argument("--follow", action="store_true", help="go on with new verdicts as they arrive")
    verdicts.add_argument("--last", type=int, metavar="N", help="begin with the last N (10 with --follow, else all)")
    verdicts.add_argument("--json", action="store_true", help="print verdicts as JSON, one a line")


def _enqueue(options: argparse.Namespace) -> int:
    from worker.client import Moderation

    settings = settings_of(options)
    if options.content_id is not None and len(options.images) > 1:
        raise UsageError("--content-id names one upload; enqueue the images one by one")
    if not 0 <= options.timeout < float("inf"):
        raise UsageError("--timeout counts seconds; give 0 or more")
    given_policy = options.setting_policy
    uploads = [
        _upload(image) | {"policy": given_policy, "priority": options.priority}
        | ({"content_id": options.content_id} if options.content_id is not None else {})
        for image in options.images
    ]  # fmt: skip
    with reachable_redis(settings) as connection:
        moderation = Moderation(connection)
        try:
            jobs = moderation.enqueue_many(uploads)
        except JobInvalid as error:
            raise UsageError(str(error)) from error
        if options.wait:
            return _wait(moderation, jobs, options)
    for job, upload in zip(jobs, uploads, strict=True):
        if options.json:
            print_json({"job_id": job.id, "content_id": upload["content_id"], "queue": job.origin})
        else:
            print(f"{job.id}  {upload['content_id']}")
    return 0


@contextmanager
def reachable_redis(settings: Settings) -> Iterator[redis.Redis]:
    """Open Redis for a command that cannot go on without it, whenever it goes away."""
    shown_url = mask_url(settings.redis_url)
    with open_redis(settings.redis_url) as connection:
        require_redis(connection, shown_url)
        try:
            yield connection
        except (redis.ConnectionError, redis.TimeoutError) as error:
            raise RedisUnreachable(f"Redis at {shown_url} went away ({error}); start it, and try again") from error


def _upload(image: str) -> dict[str, Any]:
    if image.lower().startswith(("http://", "https://")):
        return {"content_id": image[:512], "url": image}
    try:
        data = Path(image).read_bytes()
    except OSError as error:
        raise UsageError(f"{image}: {error.strerror}; name a file or a URL") from error
    if not data:
        raise UsageError(f"{image}: the file is empty; name an image file")
    return {"content_id": Path(image).name, "data": data}


def _wait(moderation: Moderation, jobs: list[Any], options: argparse.Namespace) -> int:
    table = verdict_table()
    unjudged = 0
    for job in jobs:
        verdict = moderation.wait(job, options.timeout)
        unjudged += verdict.reason is not None
        if options.json:
            print_json(verdict.model_dump(mode="json"))
        else:
            add_verdict(table, verdict)
    if not options.json:
        Console().print(table)
    return 1 if unjudged else 0


def _verdicts(options: argparse.Namespace) -> int:
    from worker.client import read_verdicts

    settings = settings_of(options)
    if options.last is not None and options.last < 0:
        raise UsageError("--last counts verdicts; give 0 or more")
    last = 10 if options.follow and options.last is None else options.last
    table = verdict_table()
    with reachable_redis(settings) as connection:
        for verdict in read_verdicts(connection, last=last, follow=options.follow):
            if options.json:
                print_json(verdict.model_dump(mode="json"))
            elif options.follow:
                print(_line(verdict), flush=True)
            else:
                add_verdict(table, verdict)
    if not options.json and not options.follow:
        Console().print(table)
    return 0


def _line(verdict: Verdict) -> str:
    asking = [f"{name} {found.score:.2f}" for name, found in verdict.categories.items() if found.action != "allow"]
    why = verdict.reason or ", ".join(asking)
    return f"{verdict.created_at}  {verdict.action:<6}  {verdict.content_id}  {why}".rstrip()
