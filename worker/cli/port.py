"""`sluice policy port`: a policy's numbers for another checkpoint, from the same pictures and without labels."""

from __future__ import annotations

import argparse
import gc
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from worker.cli.console import Commands, add_command, print_json, settings_of
from worker.cli.gathering import LOOKING, load, look, policies_directory
from worker.errors import UsageError

if TYPE_CHECKING:
    from worker.gallery import Gallery
    from worker.policy.schema import Policy
    from worker.settings import Settings
    from worker.workbench.calibration.pools import Pools
    from worker.workbench.calibration.port import Ported


def add_verbs(verbs: Commands) -> None:
    """Add the command to the group `policy`."""
    port = add_command(
        verbs,
        "port",
        _port,
        "carry a policy's calibration over to another model: each threshold flags as many pictures as before",
        LOOKING,
        "  sluice policy port house@3 --to openai/clip-vit-large-patch14 --images sample\n"
        "  sluice policy port demo@1 --model builtin --to ./my-clip --images drawings --dry-run\n\n"
        "--model names the model that the numbers are of. Needs no labels: give pictures like your uploads, the\n"
        "more the better. Thresholds stay; the next version gets a calibration for the other model beside the old.",
    )
    port.add_argument("ref", metavar="ID@VERSION|FILE", help="the version to start from")
    port.add_argument("--to", required=True, metavar="MODEL", help="the other model: a hub id, a directory, or builtin")
    port.add_argument("--to-revision", metavar="REVISION", help="branch, tag or commit of a hub model")
    port.add_argument("--images", type=Path, required=True, metavar="DIRECTORY", help="pictures like your uploads")
    port.add_argument("--dry-run", action="store_true", help="write no version")
    port.add_argument("--json", action="store_true", help="print one JSON object a category, and one at the end")


def _port(options: argparse.Namespace) -> int:
    from worker.gallery import Gallery
    from worker.policy.files import find_version_file, valid_policy
    from worker.policy.next_version import write_next
    from worker.policy.renumber import renumber
    from worker.workbench.calibration.port import port

    settings = settings_of(options)
    other = settings.model_copy(update={"model": options.to, "model_revision": options.to_revision})
    file = find_version_file(options.ref, policies_directory(settings))
    policy = valid_policy(file)
    gallery = Gallery(options.images)
    source, before = _look(gallery, settings, policy)
    # One model at a time: both might not fit.
    gc.collect()
    target, after = _look(gallery, other, policy)
    if source == target:
        raise UsageError(f"{options.to} is the model that the numbers are of; name another with --to")
    both = set(before.names) & set(after.names)
    if not both:
        raise UsageError(f"no picture in {options.images} can be judged by both models; name another directory")
    found = port(policy, source, target, before.only(both), after.only(both))
    written = None
    if not options.dry_run:
        written = write_next(file, renumber(target, found.calibrations(), {}))[0]
    return _tell(options, found, len(gallery), written)


def _look(gallery: Gallery, settings: Settings, policy: Policy) -> tuple[str, Pools]:
    """Look at all pictures with one model, and let go of it; its name, and what it saw."""
    from worker.policy.compiled import compile_policy

    encoder = load(settings)
    compiled = compile_policy(policy, encoder.embed_texts, encoder.logit_scale, encoder.name)
    return encoder.name, look(gallery, encoder, settings, compiled)[0]


def _tell(options: argparse.Namespace, found: Ported, files: int, written: Path | None) -> int:
    if files > found.pictures:
        print(
            f"sluice: {files - found.pictures} files cannot be judged by both models, and are left out", file=sys.stderr
        )
    if options.json:
        for category in found.categories.values():
            print_json(category.as_dict())
        print_json(
            {
                "policy": found.policy, "from": found.source, "to": found.target, "pictures": found.pictures,
                "cautions": [one.as_dict() for one in found.cautions],
                "written": None if written is None else str(written),
            }
        )  # fmt: skip
        return 0
    _print(found)
    print(
        "nothing was written" if written is None else f"{written} written; check it with `sluice policy lint {written}`"
    )
    return 0


def _print(found: Ported) -> None:
    from worker.cli.calibration_tables import moved, share, wide_console
    from worker.cli.tables import COLOURS

    console = wide_console()
    console.print(
        f"[bold]{found.policy}[/] from {escape(found.source)} to {escape(found.target)}: {found.pictures:,} pictures",
        soft_wrap=True,
    )
    table = Table("category", "bias", "temperature", "threshold", "reach it", "of all")
    table.columns[0].overflow = "fold"
    for category in found.categories.values():
        before, after = category.before, category.after
        for action, at in category.thresholds.items():
            reach = str(at.before) if at.before == at.after else f"{at.before} → {at.after}"
            table.add_row(
                escape(category.name), moved(before.bias, after.bias), moved(before.temperature, after.temperature),
                f"[{COLOURS[action]}]{action}[/] {at.threshold:g}", reach, share(at.after / found.pictures),
            )  # fmt: skip
    console.print(table)
    for caution in found.cautions:
        console.print(f"[yellow]careful[/] {escape(str(caution))}", soft_wrap=True, highlight=False)
