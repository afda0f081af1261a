"""`sluice deliver`: posts verdicts, shows endpoints, puts dead letters back."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from types import FrameType
from typing import TYPE_CHECKING

import redis
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from worker.cli.console import Commands, add_command, print_json, settings_of
from worker.connection import open_redis, require_redis
from worker.errors import RedisUnreachable, UsageError
from worker.logs import configure_logging
from worker.settings import Settings, mask_url

if TYPE_CHECKING:
    from worker.sinks.outbox import Outbox

#: Settings that the command heeds.
_SETTINGS = (
    "redis_url", "webhook_url", "webhook_secret", "webhook_allow_private", "webhook_timeout_seconds",
    "webhook_retry_seconds", "fetch_ports", "fetch_deny_networks", "fetch_allow_private", "verdict_stream_maxlen",
    "metrics_port", "metrics_host", "log_format", "log_level", "secrets_dir",
)  # fmt: skip


def add_commands(commands: Commands) -> None:
    """Add the group's command."""
    parser = add_command(
        commands,
        "deliver",
        _deliver,
        "post verdicts to webhooks, signed after the Standard Webhooks specification",
        _SETTINGS,
        "  sluice deliver --webhook-url https://example.org/hooks --metrics-port 9109\n"
        "  sluice deliver --endpoints\n  sluice deliver --replay\n"
        "  sluice deliver --switch-on https://example.org/hooks",
    )
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--burst", action="store_true", help="end when nothing is left to post now")
    instead.add_argument(
        "--replay", action="store_true", help="put the dead letters back, post what can be posted now, and end"
    )
    instead.add_argument(
        "--endpoints", action="store_true", help="show the endpoints that are off, fail or have something waiting"
    )
    instead.add_argument("--switch-on", metavar="URL", help="post again to an endpoint that was switched off")
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")


def _deliver(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    if options.endpoints:
        return _endpoints(settings, options)
    if options.switch_on is not None:
        return _switch_on(settings, options)
    configure_logging(settings)
    from worker.runtime.delivery_service import DeliveryService

    # Two that end by themselves may run beside one that stays, and have its port.
    is_short = options.burst or options.replay
    service = DeliveryService(settings.model_copy(update={"metrics_port": 0}) if is_short else settings)
    if options.replay:
        service.check()
        _replay(settings, options)

    def leave(signum: int, frame: FrameType | None) -> None:
        service.stop()

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    service.run(burst=is_short)
    return 0


def _replay(settings: Settings, options: argparse.Namespace) -> None:
    with _outbox(settings) as outbox:
        back, stay = outbox.replay()
    if options.json:
        print_json({"replayed": back, "kept": stay})
    else:
        print(f"{back} dead letters put back, {stay} kept because their endpoints are switched off", flush=True)


def _endpoints(settings: Settings, options: argparse.Namespace) -> int:
    from worker.addresses import shown

    table = Table("endpoint", "URL", "state", "waiting", "since", "says")
    table.columns[0].no_wrap = True
    table.columns[1].overflow = "fold"
    with _outbox(settings) as outbox:
        for found in outbox.endpoints():
            row = asdict(found) | {"url": shown(found.url)}
            if options.json:
                print_json(row)
            else:
                table.add_row(*(escape("" if value is None else str(value)) for value in row.values()))
    if not options.json:
        Console().print(table)
    return 0


def _switch_on(settings: Settings, options: argparse.Namespace) -> int:
    from worker.addresses import shown

    endpoint = shown(options.switch_on)
    with _outbox(settings) as outbox:
        if not outbox.switch_on(options.switch_on):
            raise UsageError(f"{endpoint} is not switched off; see `sluice deliver --endpoints`")
    if options.json:
        print_json({"endpoint": endpoint, "state": "on"})
    else:
        print("switched on; `sluice deliver --replay` puts what died meanwhile back")
    return 0


@contextmanager
def _outbox(settings: Settings) -> Iterator[Outbox]:
    """Open the outbox for a command that cannot go on without Redis."""
    from worker.runtime.delivery_service import open_outbox

    shown_url = mask_url(settings.redis_url)
    with open_redis(settings.redis_url) as connection:
        require_redis(connection, shown_url)
        try:
            yield open_outbox(settings, connection)
        except (redis.ConnectionError, redis.TimeoutError) as error:
            raise RedisUnreachable(f"Redis at {shown_url} went away ({error}); start it, and try again") from error
