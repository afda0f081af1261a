"""`sluice work`."""

from __future__ import annotations

import argparse
import signal
from types import FrameType
from typing import NoReturn

from worker.cli.console import Commands, add_command, settings_of
from worker.logs import configure_logging
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
    parser.add_argument(
        "--deliver", action="store_true", help="also post the verdicts to webhooks, as `sluice deliver` does"
    )


def _work(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    configure_logging(settings)
    # Until RQ listens to signals itself; as a container's first process we would not hear this one at all.
    signal.signal(signal.SIGTERM, _leave)
    from worker.runtime.service import Service

    Service(settings).run(burst=options.burst, deliver=options.deliver)
    return 0


def _leave(signum: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + signum)
