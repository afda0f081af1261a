"""`sluice policy …`: the author's desk."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from worker.cli import desk, exemplar, fleet, port, trial, watching
from worker.cli.console import Commands, add_command, add_group, print_json, settings_of

if TYPE_CHECKING:
    from worker.policy.schema import Policy


def add_commands(commands: Commands) -> None:
    """Add the group's commands."""
    line = "check, show and change policies"
    verbs = add_group(commands, "policy", line, "  sluice policy new house\n  sluice policy lint policies/")
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
    desk.add_verbs(verbs)
    trial.add_verbs(verbs)
    port.add_verbs(verbs)
    fleet.add_verbs(verbs)
    watching.add_verbs(verbs)
    exemplar.add_verbs(verbs)


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
        print_json({"digest": policy.digest, "roles": roles} | _as_json(policy))
    else:
        _print_policy(policy, roles)
    return 0


def _as_json(policy: Policy) -> dict[str, Any]:
    """Return what a policy says; of an exemplar where it lies and whose it is, for nobody reads its numbers."""
    numbers = {"__all__": {"embeddings"}}
    brief = {"categories": {"__all__": {"exemplars": {"match": numbers, "unlike": numbers}}}}
    return policy.model_dump(mode="json", exclude_none=True, exclude=brief)


def _print_policy(policy: Policy, roles: list[str]) -> None:
    console = Console()
    console.print(f"[bold]{policy.ref}[/] {', '.join(roles) or 'not at work'}\n{escape(policy.description.strip())}")
    console.print(
        f"{policy.digest}\ncalibrated for: {escape(', '.join(_models(policy)) or 'no model')}", soft_wrap=True
    )
    table = Table("category", "review", "block", "prompts", "look-alikes", "what it is")
    table.columns[0].overflow = "fold"
    for name, category in policy.categories.items():
        thresholds = category.thresholds.as_dict()
        shown = [f"{thresholds[key]:g}" if key in thresholds else "" for key in ("review", "block")]
        counts = (str(len(category.prompts)), str(len(category.look_alikes or ())))
        table.add_row(escape(name), *shown, *counts, escape(" ".join(category.description.split())))
    console.print(table)
    exemplars = f", {count} exemplars" if (count := len(list(policy.exemplars()))) else ""
    console.print(f"{len(policy.contrast)} sentences of contrast, {len(policy.templates)} templates{exemplars}")


def _models(policy: Policy) -> Iterator[str]:
    """Yield the models that a policy is calibrated for, each with what is still lacking."""
    for model in policy.calibration:
        lacking = ", ".join(name for name in policy.categories if name not in policy.calibration_for(model))
        yield f"{model} (but not {lacking})" if lacking else model
