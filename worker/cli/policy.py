"""`sluice policy …`: the author's desk."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from worker.cli import fleet, watching
from worker.cli.console import Commands, add_command, print_json, settings_of

if TYPE_CHECKING:
    from worker.policy.schema import Policy


def add_commands(commands: Commands) -> None:
    """Add the group's commands."""
    line = "check, show and change policies"
    group = commands.add_parser("policy", help=line, description=line.capitalize() + ".")
    verbs = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    lint = add_command(
        verbs,
        "lint",
        _lint,
        "check policy files: every error with its place and the mend",
        (),
        "  sluice policy lint policies/\n  sluice policy lint policies/default/v2.yaml --json",
    )
    lint.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="policy files, or directories of them")
    lint.add_argument("--json", action="store_true", help="print one JSON object a finding")
    show = add_command(
        verbs,
        "show",
        _show,
        "print one policy",
        ("policies", "redis_url"),
        "  sluice policy show demo\n  sluice policy show demo@1 --json",
    )
    show.add_argument("ref", metavar="ID[@VERSION]", help="the live version without a version")
    show.add_argument("--json", action="store_true", help="print one JSON object")
    fleet.add_commands(verbs)
    watching.add_commands(verbs)


def _lint(options: argparse.Namespace) -> int:
    from worker.policy.registry import lint_paths

    checked, findings = lint_paths(options.paths)
    for finding in findings:
        if options.json:
            print_json(finding.as_dict())
        else:
            print(finding)
    if not options.json:
        files = "1 file" if checked == 1 else f"{checked} files"
        print(f"{files} checked, {len(findings)} {'error' if len(findings) == 1 else 'errors'}")
    return 1 if findings else 0


def _show(options: argparse.Namespace) -> int:
    from worker.at_work import policy_source
    from worker.errors import PolicyMissing, UnknownPolicy

    policies = policy_source(settings_of(options)).load()
    try:
        policy = policies.deciding(options.ref, content_id="")
    except UnknownPolicy as error:
        raise PolicyMissing(str(error)) from error
    roles = [role for version, role in policies.at_work() if version.ref == policy.ref]
    if options.json:
        print_json({"digest": policy.digest, "roles": roles} | policy.model_dump(mode="json", exclude_none=True))
    else:
        _print_policy(policy, roles)
    return 0


def _print_policy(policy: Policy, roles: list[str]) -> None:
    console = Console()
    console.print(f"[bold]{policy.ref}[/] {', '.join(roles) or 'not at work'}\n{escape(policy.description.strip())}")
    console.print(
        f"{policy.digest}\ncalibrated for: {escape(', '.join(policy.calibration) or 'no model')}", soft_wrap=True
    )
    table = Table("category", "review", "block", "prompts", "look-alikes", "what it is")
    table.columns[0].overflow = "fold"
    for name, category in policy.categories.items():
        thresholds = category.thresholds.as_dict()
        shown = [f"{thresholds[key]:g}" if key in thresholds else "" for key in ("review", "block")]
        counts = (str(len(category.prompts)), str(len(category.look_alikes or ())))
        table.add_row(escape(name), *shown, *counts, escape(" ".join(category.description.split())))
    console.print(table)
    console.print(f"{len(policy.contrast)} sentences of contrast, {len(policy.templates)} templates")
