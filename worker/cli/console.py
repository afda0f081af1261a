"""What commands share: settings from flags, JSON lines, errors, logging.

In: parsed arguments. Out: lines on stdout (results) and stderr (everything else).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from typing import Any

from worker.errors import PolicyInvalid, SluiceError
from worker.settings import Settings, load_settings

#: Settings of commands that judge.
JUDGING = (
    "policies", "policy", "model", "model_revision", "device", "precision", "batch_size", "uncalibrated",
    "image_max_bytes", "image_max_pixels", "image_formats",
    "fetch_timeout_seconds", "fetch_connect_timeout_seconds", "fetch_read_timeout_seconds", "fetch_max_redirects",
    "fetch_ports", "fetch_allow_hosts", "fetch_deny_networks", "fetch_allow_private", "s3_buckets", "s3_endpoint_url",
)  # fmt: skip
#: Settings of commands that only need the model.
MODEL = ("model", "model_revision", "device", "precision", "image_max_bytes", "image_max_pixels", "image_formats")

Commands = Any
#: Begins the name that a setting's flag has among the parsed arguments.
SETTING = "setting_"


def add_command(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], int],
    help_line: str,
    settings: Iterable[str],
    examples: str,
) -> argparse.ArgumentParser:
    """Add one command, with a flag for each setting that it heeds.

    Args:
        commands: Where to add it.
        name: What is typed.
        run: What it does; returns the exit code.
        help_line: One line.
        settings: Fields of `Settings`.
        examples: Shown under `--help`.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help_line,
        description=help_line[:1].upper() + help_line[1:] + ".",
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--debug", action="store_true", help="show a traceback when something goes wrong")
    group = parser.add_argument_group("settings", "each overrides its SLUICE_ variable; see `sluice settings`")
    for field in settings:
        about = Settings.model_fields[field]
        is_switch = about.annotation is bool
        flag = "--" + field.replace("_", "-")
        more: dict[str, Any] = {"action": argparse.BooleanOptionalAction} if is_switch else {"metavar": "VALUE"}
        group.add_argument(flag, dest=f"{SETTING}{field}", default=None, help=about.description, **more)
    parser.set_defaults(run=run)
    return parser


def add_group(commands: Commands, name: str, help_line: str, examples: str) -> Commands:
    """Add a command that only holds others.

    Args:
        commands: Where to add it.
        name: What is typed.
        help_line: One line.
        examples: Shown under `--help`.

    Returns:
        Where to add the others.
    """
    group = commands.add_parser(
        name,
        help=help_line,
        description=help_line[:1].upper() + help_line[1:] + ".",
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return group.add_subparsers(title="commands", metavar="COMMAND", required=True)


def settings_of(options: argparse.Namespace) -> Settings:
    """Read the settings, flags first.

    Raises:
        UsageError: Every wrong one.
    """
    return load_settings(flags_of(options))


def flags_of(options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that were given as flags."""
    return {
        name.removeprefix(SETTING): value
        for name, value in vars(options).items()
        if name.startswith(SETTING) and value is not None
    }


def print_json(value: Any) -> None:
    """Print one object as one line on stdout."""
    print(json.dumps(value, ensure_ascii=False, separators=(", ", ": ")), flush=True)


def print_error(error: SluiceError) -> None:
    """Print an error on stderr: one line, or one for each finding in a policy."""
    lines = error.findings if isinstance(error, PolicyInvalid) else [" ".join(str(error).split())]
    for line in lines:
        print(f"sluice: {line}", file=sys.stderr)
