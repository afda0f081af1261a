"""`sluice work`."""

from __future__ import annotations

import argparse

from worker.cli.console import Commands, add_command, configure_logging, settings_of
from worker.settings import Settings


def add_commands(commands: Commands) -> None:
    """Add the group's command."""
    parser = add_command(
        commands,
        "work",
        _work,
        "work the queues: an RQ worker with the model loaded",
        tuple(Settings.model_fields),
        "  sluice work\n  sluice work --burst --model builtin --policy demo --metrics-port 0",
    )
    parser.add_argument("--burst", action="store_true", help="end when the queues are empty")


def _work(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    configure_logging(settings)
    from worker.runtime.service import Service

    Service(settings).run(burst=options.burst)
    return 0
