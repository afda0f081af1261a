"""`sluice policy publish|activate|rollback|shadow|canary|promote`: changes a running fleet's policies."""

from __future__ import annotations

import argparse
import getpass
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis

from worker.cli.registry import REGISTRY, add, connect, hint, say, split
from worker.errors import PolicyConflict, PolicyInvalid, PolicyMissing, UsageError
from worker.policy import changes
from worker.policy.beside import Beside
from worker.policy.files import read_text
from worker.policy.fleet import Fleet
from worker.policy.lint import lint_policy
from worker.policy.publishing import Author
from worker.policy.registry import lint_policy_file, load_directory
from worker.policy.sources import REDIS
from worker.settings import Settings
from worker.sinks.watched import keys_of, read_watched

if TYPE_CHECKING:
    from worker.policy.changes import State
    from worker.policy.schema import Policy

_PROMOTING = (*REGISTRY, "promote_min_verdicts", "promote_max_disagreement_percent")


def add_verbs(verbs: Any) -> None:
    """Add the group's commands."""
    what = "put policy files into the fleet's registry, each version for ever"
    examples = "  sluice policy publish policies/default/v2.yaml\n  sluice policy publish --all policies/"
    publish = _signed(add(verbs, "publish", _publish, what, examples))
    publish.add_argument("files", nargs="*", type=Path, metavar="FILE", help="policy files")
    what = "every version in a directory, and its rollout for policies that have none"
    publish.add_argument("--all", type=Path, metavar="DIRECTORY", dest="directory", help=what)
    _add_change(verbs, "activate", _activate, "make a version live; workers have it within a second")
    shadow = _add_change(verbs, "shadow", _shadow, "let a version judge beside the live one, and decide nothing")
    shadow.add_argument("--off", action="store_true", help="end its watch")
    canary = _add_change(verbs, "canary", _canary, "let a version decide for a share of the uploads")
    canary.add_argument("--percent", type=float, required=True, metavar="P", help="0 to 100; 0 ends the canary")
    what = "make a shadow live that has seen enough and differed little"
    promote = _add_change(verbs, "promote", _promote, what, _PROMOTING)
    promote.add_argument("--force", action="store_true", help="whatever it has seen")
    what = "make the version live that was live before"
    rollback = _signed(add(verbs, "rollback", _rollback, what, "  sluice policy rollback default"))
    rollback.add_argument("policy", metavar="ID")


def _signed(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("--author", metavar="NAME", help="who, for the history; your user name without it")
    return parser


def _add_change(
    verbs: Any,
    name: str,
    run: Callable[[argparse.Namespace], int],
    help_line: str,
    settings: tuple[str, ...] = REGISTRY,
) -> argparse.ArgumentParser:
    more = " --percent 5" if name == "canary" else ""
    parser = _signed(add(verbs, name, run, help_line, f"  sluice policy {name} default@2{more}", settings))
    parser.add_argument("ref", metavar="ID@VERSION")
    return parser


def _publish(options: argparse.Namespace) -> int:
    if bool(options.files) == bool(options.directory):
        raise UsageError("name policy files, or a directory with --all")
    files, rollouts = options.files, {}
    if options.directory:
        found = load_directory(options.directory)
        files = [options.directory / name / f"v{number}.yaml" for name, number in sorted(found.policies)]
        rollouts = found.rollouts
    policies = _read(files)
    settings, connection = connect(options)
    author = _author(options, connection)
    if options.directory:
        done = author.seed(policies, rollouts)
    else:
        done = [f"published {policy.ref}" for text, policy in policies if author.publish(text, policy)]
    for line in done or ["all published already, word for word"]:
        say(options, {"done": line}, line)
    if not options.directory and done:
        hint(f"judged by none of it yet: try it with `sluice policy shadow {policies[-1][1].ref}`, "
              f"or make it live with `sluice policy activate {policies[-1][1].ref}`")  # fmt: skip
    _warn_of_directory(settings)
    return 0


def _read(files: list[Path]) -> list[tuple[str, Policy]]:
    found, wrong = [], []
    for file in files:
        if not file.exists():
            raise PolicyMissing(f"no policy at {file}; name a policy file")
        policy, findings = lint_policy_file(file)
        wrong += [str(finding) for finding in findings]
        if policy is not None:
            text = read_text(file)
            if lint_policy(text, str(file), exemplars=Beside(file.parent))[0] != policy:
                raise PolicyConflict(f"{file} changed while it was read; run it again")
            found.append((text, policy))
    if wrong:
        raise PolicyInvalid(wrong)
    return found


def _activate(options: argparse.Namespace) -> int:
    policy, version = split(options.ref)
    return _change(options, policy, f"activate {version}", partial(_at, changes.activate, policy, version))


def _rollback(options: argparse.Namespace) -> int:
    policy = options.policy
    return _change(options, policy, "rollback", lambda state, known: changes.roll_back(policy, state, known))


def _shadow(options: argparse.Namespace) -> int:
    policy, version = split(options.ref)
    if options.off:
        change = partial(_at, partial(changes.shadow, off=True), policy, version)
        return _change(options, policy, f"shadow {version} off", change)
    # What it saw in an earlier watch was other traffic.
    forget = keys_of(policy, version)
    return _change(options, policy, f"shadow {version}", partial(_at, changes.shadow, policy, version), *forget)


def _canary(options: argparse.Namespace) -> int:
    if not 0 <= options.percent <= 100:  # noqa: PLR2004
        raise UsageError("--percent is a share from 0 to 100")
    policy, version = split(options.ref)
    change = partial(_at, partial(changes.canary, percent=options.percent), policy, version)
    return _change(options, policy, f"canary {version} at {options.percent:g} %", change)


def _promote(options: argparse.Namespace) -> int:
    policy, version = split(options.ref)
    settings, connection = connect(options)
    seen = read_watched(connection, policy, version)
    state = Fleet(connection).states().get(policy)
    is_shadow = bool(state and state.rollout and version in state.rollout.shadow)
    says = f"it has judged {seen.verdicts} images and disagreed on {seen.percent:.2f} %"
    if not options.force:
        mend = f"see `sluice policy disagreements {options.ref}`, or use --force"
        if not is_shadow:
            raise PolicyConflict(
                f"{options.ref} is no shadow; let it watch first: `sluice policy shadow {options.ref}`"
            )
        if seen.verdicts < settings.promote_min_verdicts:
            wanted = f"{settings.promote_min_verdicts} images first"
            raise PolicyConflict(f"{options.ref} is to judge {wanted}; {says}; {mend}")
        if seen.percent > settings.promote_max_disagreement_percent:
            limit = f"{settings.promote_max_disagreement_percent:g} %"
            raise PolicyConflict(f"{options.ref} may disagree on {limit} at most; {says}; {mend}")
    what = f"promote {version} ({'forced; ' if options.force else ''}{says})"
    return _change(options, policy, what, partial(_at, changes.activate, policy, version))


def _at(change: Callable[..., State], policy: str, version: int, state: State, known: set[int]) -> State:
    return change(policy, state, version, known)


def _change(
    options: argparse.Namespace, policy: str, what: str, change: Callable[[State, set[int]], State], *forget: str
) -> int:
    settings, connection = connect(options)
    before, after = _author(options, connection).change(policy, what, change, *forget)
    row = {"policy": policy, "what": what, "from": str(before), "to": str(after)}
    say(options, row, f"{policy}: {before}  →  {after}")
    _warn_of_directory(settings)
    return 0


def _author(options: argparse.Namespace, connection: redis.Redis) -> Author:
    return Author(connection, options.author or getpass.getuser())


def _warn_of_directory(settings: Settings) -> None:
    if settings.policies != REDIS:
        hint("workers read the registry where SLUICE_POLICIES=redis is set; those with a directory do not")
