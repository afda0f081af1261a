"""`sluice policy list|history|disagreements`: what the fleet's registry holds, and what its shadows said."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from worker.cli.console import print_json
from worker.cli.registry import add, connect, split
from worker.errors import PolicyMissing
from worker.policy.fleet import Fleet
from worker.sinks.watched import Differing, Watched, read_sample, read_watched

if TYPE_CHECKING:
    from worker.policy.changes import State


def add_verbs(verbs: Any) -> None:
    """Add the group's commands."""
    add(verbs, "list", _list, "list the registry: versions, roles, authors", "  sluice policy list --json")
    history = add(verbs, "history", _history, "print who changed what, and when", "  sluice policy history default")
    history.add_argument("policy", nargs="?", metavar="ID")
    what = "print what a shadow said otherwise, and a sample of the uploads"
    differing = add(verbs, "disagreements", _disagreements, what, "  sluice policy disagreements default@2")
    differing.add_argument("ref", metavar="ID@VERSION")
    differing.add_argument("--limit", type=int, default=20, metavar="N", help="uploads that are shown, newest first")


def _list(options: argparse.Namespace) -> int:
    _, connection = connect(options)
    fleet = Fleet(connection)
    versions, states = fleet.versions(), fleet.states()
    if not versions:
        raise PolicyMissing("Redis holds no policy; run `sluice policy publish --all policies/`")
    table = Table("policy", "version", "roles", "author", "published", "digest")
    for each in versions:
        policy, state = each.policy, states[each.policy.policy]
        roles = _roles(state, policy.version)
        row = {"policy": policy.policy, "version": policy.version, "roles": roles, "author": each.author,
               "published": each.created_at, "digest": policy.digest}  # fmt: skip
        if options.json:
            print_json(row)
        else:
            table.add_row(policy.policy, str(policy.version), ", ".join(roles), escape(each.author), each.created_at,
                          policy.digest[:19])  # fmt: skip
    if not options.json:
        Console().print(table)
    return 0


def _roles(state: State, version: int) -> list[str]:
    rollout = state.rollout
    if rollout is None:
        return []
    roles = ["live"] if rollout.live == version else []
    roles += ["shadow"] if version in rollout.shadow else []
    if rollout.canary and rollout.canary.version == version:
        roles.append(f"canary {rollout.canary.percent:g} %")
    return roles


def _history(options: argparse.Namespace) -> int:
    _, connection = connect(options)
    found = Fleet(connection).history(options.policy)
    if not found:
        raise PolicyMissing(f"no history{f' of {options.policy}' if options.policy else ''} in this Redis")
    table = Table("when", "who", "policy", "what", "from", "to")
    for each in found:
        if options.json:
            print_json({"when": each.when, "who": each.who, "policy": each.policy, "what": each.what,
                        "from": each.before, "to": each.after})  # fmt: skip
        else:
            table.add_row(
                *(escape(part) for part in (each.when, each.who, each.policy, each.what, each.before, each.after))
            )
    if not options.json:
        Console().print(table)
    return 0


def _disagreements(options: argparse.Namespace) -> int:
    policy, version = split(options.ref)
    _, connection = connect(options)
    seen = read_watched(connection, policy, version)
    if not seen.verdicts:
        mend = f"`sluice policy shadow {options.ref}` begins it"
        raise PolicyMissing(f"{options.ref} has judged nothing as a shadow; {mend}")
    sample = read_sample(connection, policy, version, max(1, options.limit))
    counts = [{"category": category, "direction": direction, "images": times}
              for (category, direction), times in sorted(seen.categories.items())]  # fmt: skip
    if options.json:
        print_json({"policy": policy, "version": version, "verdicts": seen.verdicts, "disagreed": seen.disagreed,
                    "categories": counts})  # fmt: skip
        for each in sample:
            print_json({name: getattr(each, name) for name in each.__dataclass_fields__})
        return 0
    _print_disagreements(options.ref, seen, counts, sample)
    return 0


def _print_disagreements(
    ref: str, seen: Watched, counts: Sequence[dict[str, object]], sample: Sequence[Differing]
) -> None:
    console = Console()
    console.print(f"{ref} judged {seen.verdicts} images and disagreed on {seen.disagreed} ({seen.percent:.2f} %)")
    for row in counts:
        console.print(f"  {escape(str(row['category']))}: {row['direction']} on {row['images']}")
    table = Table("upload", "live", "shadow", "categories", "when")
    for each in sample:
        shown = ", ".join(f"{name} {direction}" for name, direction in each.categories.items())
        table.add_row(escape(each.content_id), each.live, each.shadow, escape(shown), each.when)
    console.print(table)
