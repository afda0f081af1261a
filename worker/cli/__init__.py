"""The `sluice` command: arguments, progress, tables, exit codes, nothing else; one file per group of commands.

In: a command line. Out: exit code 0 done, 1 something was found, 2 wrong usage, 3 something needed is missing.
Errors are one line on stderr that names the cause and the mend.
"""

from __future__ import annotations

import argparse
import gc
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from worker import __version__
from worker.cli import (
    backtest,
    bench,
    calibrate,
    completion,
    deliver,
    demo,
    explain,
    inspect,
    ledger,
    look,
    policy,
    queue,
    stress,
    work,
)
from worker.cli.console import print_error
from worker.errors import SluiceError, UsageError

#: The groups, in the order of `--help`.
_GROUPS = (
    demo, work, look, explain, queue, deliver, policy, stress, calibrate, backtest, ledger, bench, inspect, completion,
)  # fmt: skip
_EPILOG = """\
start here:
  sluice demo                              see it work, with a Redis and a model of its own
  sluice score photo.jpg --policy demo     one verdict, without a queue
  sluice doctor                            what is missing on this machine, and what to do
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: The command line without the program's name; None takes the process's own.

    Returns:
        The exit code.
    """
    parser = build_parser()
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except SluiceError as error:
        _explain(error, options.debug)
        return error.exit_code
    except KeyboardInterrupt:
        print("sluice: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader of our output left (`| head`); Python would complain about it once more at exit.
        sys.stdout = None
        return 128 + signal.SIGPIPE
    except Exception as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())
        _explain(SluiceError(f"{what}; --debug shows where"), options.debug)
        return SluiceError.exit_code
    finally:
        if arguments is None:
            # The process ends: without this, Python first looks through every object of torch, for a second or two.
            gc.freeze()


def _explain(error: SluiceError, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    else:
        print_error(error)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; the commands' parsers are of this class too."""

    def error(self, message: str) -> NoReturn:
        """End with exit code 2."""
        self.exit(UsageError.exit_code, f"sluice: {' '.join(message.split())}; see `{self.prog} --help`\n")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with every command."""
    parser = _Parser(
        prog="sluice",
        description="Content moderation as a stream: RQ workers score uploads with CLIP against plain-word policies.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"sluice {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for group in _GROUPS:
        group.add_commands(commands)
    return parser
