"""`sluice policy exemplar add|remove|list`: images that were judged wrongly, as anchors of the next version."""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from worker.cli.console import JUDGING, Commands, add_command, add_group, print_json, settings_of
from worker.cli.gathering import load, policies_directory
from worker.cli.ledger import shelf_at
from worker.errors import Missing, PolicyMissing, RedisUnreachable, UsageError

if TYPE_CHECKING:
    from worker.encoder.clip import ClipEncoder
    from worker.ledger.shelf import Shelf
    from worker.policy.compiled import Matrix
    from worker.policy.schema import Policy
    from worker.settings import Settings
    from worker.verdict import Decision

_LOOKING = ("image_max_bytes", "image_max_pixels", "image_formats", "views", "image_max_views", "image_max_frames")
_MODEL = tuple(name for name in JUDGING if name in ("model", "model_revision", "device", "precision"))
_WHICH = "a policy's newest version, one of its versions, or a file"


class ExemplarMissing(Missing):
    """The ledger does not know the upload, or not under this model."""


def add_verbs(verbs: Commands) -> None:
    """Add the commands to the group `policy`."""
    line = "images that were judged wrongly, as anchors of the next version"
    own = add_group(verbs, "exemplar", line, "  sluice policy exemplar list demo")
    _add_add(own)
    remove = add_command(
        own,
        "remove",
        _remove,
        "write the next version of a policy without an exemplar",
        ("policies",),
        "  sluice policy exemplar remove demo upload-4711 --category weapons",
    )
    remove.add_argument("policy", metavar="ID[@VERSION]", help=_WHICH)
    remove.add_argument("name", metavar="NAME", help="what the exemplar is called, or FILE.npz#NAME")
    remove.add_argument("--category", required=True, metavar="NAME", help="of which category")
    remove.add_argument("--json", action="store_true", help="print one JSON object")
    listing = add_command(
        own,
        "list",
        _list,
        "show a policy's exemplars",
        ("policies", "redis_url"),
        "  sluice policy exemplar list demo\n  sluice policy exemplar list demo@2 --json",
    )
    listing.add_argument("policy", metavar="ID[@VERSION]", help="the newest version without a version")
    listing.add_argument("--json", action="store_true", help="print one JSON object an exemplar")


def _add_add(verbs: Commands) -> None:
    add = add_command(
        verbs,
        "add",
        _add,
        "write the next version of a policy with an image as an exemplar",
        ("policies", "redis_url", "s3_buckets", "s3_endpoint_url", *_MODEL, *_LOOKING),
        "  sluice policy exemplar add demo upload-4711 --category weapons --as match\n"
        "  sluice policy exemplar add demo upload-4712 --category weapons --as unlike --ledger /var/lib/sluice/ledger\n"
        "  sluice policy exemplar add demo@3 toy --category weapons --as unlike --image toy.jpg --model builtin\n\n"
        "The embedding is taken from the ledger: Redis, and the archive that --ledger names. It is written to a\n"
        "file beside the versions, named by its content. No version that is there is changed.",
    )
    add.add_argument("policy", metavar="ID[@VERSION]", help=_WHICH)
    add.add_argument("content_id", metavar="CONTENT_ID", help="the platform's id of the upload; the exemplar's name")
    add.add_argument("--category", required=True, metavar="NAME", help="which category was wrong")
    add.add_argument(
        "--as", dest="kind", required=True, choices=("match", "unlike"), help="it was missed, or wrongly flagged"
    )
    add.add_argument("--ledger", metavar="WHERE", help="also look in an archive: a directory, or s3://BUCKET/PREFIX")
    add.add_argument("--image", type=Path, metavar="FILE", help="look at this picture instead of the ledger")
    add.add_argument(
        "--strength", type=float, metavar="S", help="score of the category's exemplars themselves, 0.5 to 1 (0.98)"
    )
    add.add_argument("--json", action="store_true", help="print one JSON object")


def _add(options: argparse.Namespace) -> int:
    from worker.policy.compiled import compile_policy
    from worker.policy.correction import add_exemplar
    from worker.policy.files import valid_policy
    from worker.policy.stored import StoredEmbeddings
    from worker.scoring import score
    from worker.verdict import decide
    from worker.workbench.telling import telling_views

    if options.image and options.ledger:
        raise UsageError("--image looks at a picture and --ledger at what is remembered; give one of them")
    if options.strength is not None and not 0.5 < options.strength < 1:  # noqa: PLR2004 - as in the schema
        raise UsageError("--strength is a score above 0.5 and below 1")
    settings = settings_of(options)
    file = _version_file(options.policy, policies_directory(settings))
    before = valid_policy(file)
    _require_category(before, options.category)
    encoder = load(settings)
    seen = _look(options, encoder, settings) if options.image else _recall(options, encoder, settings)

    def judge(policy: Policy) -> Decision:
        compiled = compile_policy(policy, encoder.embed_texts, encoder.logit_scale, encoder.name)
        return decide(compiled, score(seen, compiled))

    compiled = compile_policy(before, encoder.embed_texts, encoder.logit_scale, encoder.name)
    views = telling_views(compiled, options.category, options.kind, seen)
    image = StoredEmbeddings(encoder.name, encoder.precision, {options.content_id: views})
    target, after = add_exemplar(file, options.category, options.kind, image, options.strength)
    _tell_added(options, before, after, target, (judge(before), judge(after)))
    return 0


def _tell_added(
    options: argparse.Namespace, before: Policy, after: Policy, target: Path, decisions: tuple[Decision, Decision]
) -> None:
    category = options.category
    old, new = (decision.categories[category] for decision in decisions)
    row = {
        "file": str(target), "policy": after.policy, "version": after.version, "from": before.version,
        "digest": after.digest, "category": category, "as": options.kind, "content_id": options.content_id,
        "score": {"before": old.score, "after": new.score}, "action": {"before": old.action, "after": new.action},
        "policy_action": {"before": decisions[0].action, "after": decisions[1].action}, "next": _trial(before, after),
    }  # fmt: skip
    if options.json:
        print_json(row)
        return
    print(f"{target} written, from version {before.version}: {category} has {options.content_id} as {options.kind}")
    print(f"  {category}: {old.score:.3f} {old.action} → {new.score:.3f} {new.action}")
    print(f"  the whole policy: {decisions[0].action} → {decisions[1].action}")
    print(f"what else it changes: {_trial(before, after)}")


def _trial(before: Policy, after: Policy) -> str:
    return f"sluice backtest {after.ref} --against {before.ref}"


def _look(options: argparse.Namespace, encoder: ClipEncoder, settings: Settings) -> Matrix:
    """Look at a picture, as the worker does.

    Raises:
        UsageError: There is no such file, or it cannot be judged.
    """
    from worker.app import decode_limits, view_spec
    from worker.encoder.memo import rounded
    from worker.errors import ImageRejected
    from worker.intake.decode import decode

    try:
        with options.image.open("rb") as source:
            data = source.read(settings.image_max_bytes + 1)
        views = decode(data, decode_limits(settings), view_spec(encoder, settings)).views
    except OSError as error:
        raise UsageError(f"--image {options.image}: {error.strerror}; name a picture") from error
    except ImageRejected as error:
        raise UsageError(f"--image {options.image} cannot be judged: {error}") from error
    return rounded(encoder.embed_images(views))


def _recall(options: argparse.Namespace, encoder: ClipEncoder, settings: Settings) -> Matrix:
    """Return the newest embeddings of the upload that the ledger has under this model.

    Raises:
        ExemplarMissing: It has none.
    """
    from worker.encoder.memo import rounded

    shelf = shelf_at(options.ledger, settings) if options.ledger else None
    found = _look_up(options.content_id, shelf, settings)
    if encoder.name not in found:
        where = f"the ledger{f' or {shelf}' if shelf else ''}"
        if found:
            raise ExemplarMissing(
                f"{where} knows {options.content_id} under {', '.join(found)} and not under {encoder.name}; "
                f"name that model with --model, or the picture with --image"
            )
        mend = (
            "name the picture with --image" if shelf else "name the archive with --ledger, or the picture with --image"
        )
        raise ExemplarMissing(f"{where} has no upload {options.content_id}; {mend}")
    embeddings = found[encoder.name].embeddings
    if embeddings.shape[1] != encoder.dim:
        raise ExemplarMissing(
            f"{options.content_id} has {embeddings.shape[1]} numbers in the ledger, not {encoder.dim}"
        )
    return rounded(embeddings)


def _look_up(content_id: str, shelf: Shelf | None, settings: Settings) -> dict[str, Any]:
    from worker.connection import open_redis, require_redis
    from worker.ledger.lookup import look_up
    from worker.ledger.reader import LedgerReader
    from worker.settings import mask_url

    url = mask_url(settings.redis_url)
    with open_redis(settings.redis_url) as connection:
        try:
            require_redis(connection, url)
        except RedisUnreachable as error:
            if shelf is None:
                raise
            print(f"sluice: only {shelf} is looked at: {error}", file=sys.stderr)
            return look_up(LedgerReader(None, shelf), content_id)
        try:
            return look_up(LedgerReader(connection, shelf), content_id)
        except (redis.ConnectionError, redis.TimeoutError) as error:
            raise RedisUnreachable(f"Redis at {url} went away ({error}); start it, and try again") from error


def _remove(options: argparse.Namespace) -> int:
    from worker.policy.correction import remove_exemplar
    from worker.policy.files import valid_policy

    file = _version_file(options.policy, policies_directory(settings_of(options)))
    before = valid_policy(file)
    _require_category(before, options.category)
    target, after, ref = remove_exemplar(file, options.category, options.name)
    row = {
        "file": str(target), "policy": after.policy, "version": after.version, "from": before.version,
        "digest": after.digest, "category": options.category, "removed": ref, "next": _trial(before, after),
    }  # fmt: skip
    if options.json:
        print_json(row)
    else:
        print(f"{target} written, from version {before.version}: {options.category} without {ref}")
        print(f"what it changes: {_trial(before, after)}")
    return 0


def _list(options: argparse.Namespace) -> int:
    from worker.at_work import policy_source

    name, _, version = options.policy.partition("@")
    known = policy_source(settings_of(options)).load().policies
    versions = [number for policy, number in known if policy == name]
    number = int(version) if version.isdecimal() else max(versions, default=0)
    if number not in versions or (version and not version.isdecimal()):
        refs = ", ".join(sorted(f"{policy}@{each}" for policy, each in known))
        raise PolicyMissing(f"no policy {options.policy}; there are {refs}")
    policy = known[name, number]
    if options.json:
        for row in _rows(policy):
            print_json(row)
        return 0
    table = Table("category", "as", "exemplar", "file", "strength", "views", "model", title=policy.ref)
    for column in table.columns:
        column.overflow = "fold"
    for row in _rows(policy):
        table.add_row(
            *(escape(str(row[key])) for key in ("category", "as", "name", "file", "strength", "views", "model"))
        )
    Console().print(table if table.row_count else f"{policy.ref} has no exemplars", markup=False)
    return 0


def _rows(policy: Policy) -> list[dict[str, Any]]:
    rows = []
    for (name, kind, _), exemplar in policy.exemplars():
        pools = policy.categories[name].exemplars
        rows.append(
            {
                "policy": policy.ref, "category": name, "as": kind, "name": exemplar.name,
                "file": exemplar.ref.partition("#")[0], "strength": pools.strength if pools else None,
                "views": len(exemplar.rows()), "model": exemplar.model, "digest": exemplar.digest,
            }
        )  # fmt: skip
    return rows


def _version_file(ref: str, directory: Path) -> Path:
    """Return the file of a version; of an id alone the newest, on which corrections build."""
    from worker.policy.files import find_version_file, version_files

    if "@" in ref or ref.endswith((".yaml", ".yml")):
        return find_version_file(ref, directory)
    files = version_files(directory / ref) if directory.is_dir() else {}
    if not files:
        raise PolicyMissing(f"no policy {ref} in {directory}; set --policies, or name a file")
    return list(files.values())[-1]


def _require_category(policy: Policy, name: str) -> None:
    if name not in policy.categories:
        close = difflib.get_close_matches(name, policy.categories, n=1)
        hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(policy.categories)}"
        raise UsageError(f"{policy.ref} has no category {name}; {hint}")
