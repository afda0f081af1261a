"""`sluice completion`: a script that lets a shell complete commands, flags and their values.

In: the command's own parser. Out: the script on stdout, written by shtab.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Literal, get_args, get_origin

from worker.cli.console import SETTING, Commands, add_command
from worker.settings import Settings

#: Those that are tried; shtab knows more.
_SHELLS = ("bash", "zsh", "fish", "tcsh")
#: What names a directory, or may name one.
_DIRECTORY_METAVARS = frozenset({"DIR", "DIRECTORY", "WHERE", "MODEL"})
_DIRECTORY_NAMES = frozenset({"secrets_dir", "path_root", "policies", "model"})


def add_commands(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "completion",
        _completion,
        "print a script with which a shell completes commands, flags and values",
        (),
        "  sluice completion bash > ~/.local/share/bash-completion/completions/sluice\n"
        '  sluice completion zsh > "${fpath[1]}/_sluice"\n'
        "  sluice completion fish > ~/.config/fish/completions/sluice.fish\n"
        "  sluice completion tcsh > ~/.sluice.tcsh        and in ~/.tcshrc: source ~/.sluice.tcsh\n\n"
        "A shell that is opened afterwards completes; print the script again after an upgrade of Sluice.\n"
        "bash: needs the package bash-completion, and that directory (mkdir -p); or put into ~/.bashrc\n"
        'eval "$(sluice completion bash)". zsh: ~/.zshrc must say autoload -Uz compinit && compinit.',
    )
    parser.add_argument("shell", choices=_SHELLS, help="whose script")


def _completion(options: argparse.Namespace) -> int:
    import shtab

    from worker.cli import build_parser

    parser = build_parser()
    _say_what_completes(parser)
    script = shtab.complete(parser, options.shell)
    if options.shell == "zsh":
        # shtab 1.13 writes what zsh takes for the first of several words only; `*:` is for all of them.
        script = re.sub(r'^  "\(\*\)::?', '  "*:', script, flags=re.MULTILINE)
    print(script)
    return 0


def _say_what_completes(parser: argparse.ArgumentParser) -> None:
    """Give the arguments of a parser, and of all below it, what argparse does not need and a completion does."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                _say_what_completes(below)
        elif action.choices is None and action.nargs != 0:
            _say_what_completes_one(action)


def _say_what_completes_one(action: argparse.Action) -> None:
    import shtab

    name = action.dest.removeprefix(SETTING)
    annotation = Settings.model_fields[name].annotation if name != action.dest else None
    if get_origin(annotation) is Literal:
        action.choices = get_args(annotation)
    elif action.metavar in _DIRECTORY_METAVARS or name in _DIRECTORY_NAMES:
        action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
    elif action.type is Path or not action.option_strings:
        # Most words that stand without a flag may be a file; of the others nothing is known, and a shell offers files.
        action.complete = shtab.FILE  # type: ignore[attr-defined]
