"""What the commands on the fleet's registry share: arguments, the connection, and what is said.

In: parsed arguments. Out: settings, a Redis that answers, lines. Never a change.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

import redis

from worker.cli.console import add_command, print_json, settings_of
from worker.connection import open_redis, require_redis
from worker.errors import UsageError
from worker.settings import Settings, mask_url

#: Settings that all of them heed.
REGISTRY = ("redis_url", "policies")


def add(
    verbs: Any,
    name: str,
    run: Callable[[argparse.Namespace], int],
    help_line: str,
    examples: str,
    settings: tuple[str, ...] = REGISTRY,
) -> argparse.ArgumentParser:
    """Add one command with `--json`; see `add_command`."""
    parser = add_command(verbs, name, run, help_line, settings, examples)
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")
    return parser


def split(ref: str) -> tuple[str, int]:
    """Return id and version of `ID@VERSION`.

    Raises:
        UsageError: It is something else.
    """
    policy, _, version = ref.partition("@")
    if not policy or not version.isdecimal() or not 0 < int(version) < 10**9:
        raise UsageError(f"{ref} names no version; write it as ID@VERSION, such as default@2")
    return policy, int(version)


def connect(options: argparse.Namespace) -> tuple[Settings, redis.Redis]:
    """Return the settings, and the Redis that they name.

    Raises:
        RedisUnreachable: It does not answer.
    """
    settings = settings_of(options)
    connection = open_redis(settings.redis_url)
    require_redis(connection, mask_url(settings.redis_url))
    return settings, connection


def say(options: argparse.Namespace, row: dict[str, Any], line: str) -> None:
    """Print a row as JSON, or the line that says the same."""
    if options.json:
        print_json(row)
    else:
        print(line)


def hint(line: str) -> None:
    """Say something beside, on stderr."""
    print(line, file=sys.stderr)
