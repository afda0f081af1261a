"""`sluice calibrate`: a policy's numbers for a model, fitted to pictures that a person judged, or to traffic."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from worker.cli.console import Commands, add_command, print_json, settings_of
from worker.cli.gathering import LOOKING, load, look, policies_directory, remember, thumbnails
from worker.cli.ledger import opened_ledger
from worker.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.encoder.clip import ClipEncoder
    from worker.gallery import Gallery, Unseen
    from worker.policy.schema import Policy
    from worker.settings import Settings
    from worker.workbench.calibration.calibrate import Asked
    from worker.workbench.calibration.findings import Calibrated
    from worker.workbench.calibration.labels import Labels, Row
    from worker.workbench.calibration.pools import Pools

#: Pictures of a report beside each threshold.
_NEAREST = 7
_LISTED = 5
_LEAST_POSITIVES = 2
_WHERE = "a directory, or s3://BUCKET/PREFIX (of SLUICE_S3_BUCKETS)"


def add_commands(commands: Commands) -> None:
    """Add the command."""
    calibrate = add_command(
        commands,
        "calibrate",
        _calibrate,
        "fit a policy's calibration and thresholds to judged pictures or to traffic; writes its next version",
        (*LOOKING, "redis_url", "s3_buckets", "s3_endpoint_url"),
        "  sluice calibrate house@3 --labels labels.csv --images evidence --target precision=0.95\n"
        "  sluice calibrate house@3 --labels labels.csv --ledger /var/lib/sluice/ledger --review-per-day 300\n"
        "  sluice calibrate house@3 --images sample --max-flag-rate 0.002 --dry-run\n"
        "  sluice calibrate demo@1 --model builtin --labels labels.csv --images drawings --report demo.html\n\n"
        "labels.csv has the columns content_id, category, label (1 or 0). Category * with label 0: the\n"
        "picture shows none of them. All pictures or entries count as traffic, judged or not. The version\n"
        "that was named is not changed. Exit code 1 when nothing was found to change.",
    )
    calibrate.add_argument("ref", metavar="ID@VERSION|FILE", help="the version to start from")
    calibrate.add_argument("--labels", type=Path, metavar="FILE.csv", help="what a person said of pictures")
    calibrate.add_argument("--images", type=Path, metavar="DIRECTORY", help="where the pictures are")
    calibrate.add_argument("--ledger", metavar="WHERE", help=f"an archive of the ledger instead: {_WHERE}")
    calibrate.add_argument("--stream", action="store_true", help="the ledger's entries in Redis, alone or as well")
    calibrate.add_argument(
        "--target", type=_target, metavar="precision=P", help="block: the lowest threshold with this precision"
    )
    review = calibrate.add_mutually_exclusive_group()
    review.add_argument(
        "--max-flag-rate", type=float, metavar="RATE", help="review: each category flags this share of traffic at most"
    )
    review.add_argument(
        "--review-per-day", type=float, metavar="N", help="review: all categories together flag so many uploads a day"
    )
    calibrate.add_argument(
        "--share", type=float, metavar="S", help="of all uploads that show a category (default: as among the judged)"
    )
    calibrate.add_argument(
        "--min-positives", type=int, default=20, metavar="N",
        help="a category with fewer pictures that show it, or that do not, keeps what it had (20)",
    )  # fmt: skip
    calibrate.add_argument("--seed", type=int, default=0, metavar="N", help="of intervals and held-out pictures (0)")
    calibrate.add_argument("--report", type=Path, metavar="FILE.html", help="write what was found as a page")
    calibrate.add_argument("--dry-run", action="store_true", help="write no version")
    calibrate.add_argument("--json", action="store_true", help="print one JSON object a category, and one at the end")


def _target(text: str) -> float:
    name, _, value = text.partition("=")
    if name != "precision":
        raise argparse.ArgumentTypeError(f"{text!r} is no target; write precision=0.95")
    return float(value)


def _calibrate(options: argparse.Namespace) -> int:
    from worker.policy.compiled import compile_policy
    from worker.policy.files import find_version_file, valid_policy
    from worker.workbench.calibration.calibrate import calibrate
    from worker.workbench.calibration.labels import Labels, read_labels
    from worker.workbench.report.page import require_writable

    settings = settings_of(options)
    asked = _asked(options)
    if options.report is not None:
        require_writable(options.report)
    file = find_version_file(options.ref, policies_directory(settings))
    policy = valid_policy(file)
    rows = read_labels(options.labels, policy.categories) if options.labels else []
    gallery, labels = _gallery(options), Labels({}, {})
    if gallery is not None:
        # Before anything is looked at: what is wrong with the labels is said at once.
        labels = _settle(rows, options, policy, _resolver(gallery))
    with opened_ledger(options.ledger, options.stream, settings) as sources:
        encoder = load(settings)
        compiled = compile_policy(policy, encoder.embed_texts, encoder.logit_scale, encoder.name)
        unseen: list[Unseen] = []
        if gallery is None:
            pools = remember(sources, encoder, compiled)
        else:
            pools, unseen = look(gallery, encoder, settings, compiled)
    if gallery is None:
        known = pools.places().keys()
        labels = _settle(rows, options, policy, lambda name: name if name in known else None)
    labels = labels.only(pools.places())
    found = calibrate(policy, encoder.name, pools, labels, asked)
    written = None if options.dry_run else _write(file, found)
    if options.report is not None:
        _report(options.report, found, pools, gallery, encoder, settings, written)
    return _tell(options, found, labels, unseen, written)


def _asked(options: argparse.Namespace) -> Asked:
    from worker.workbench.calibration.calibrate import Asked

    if (options.images is None) == (options.ledger is None and not options.stream):
        raise UsageError("give --images DIRECTORY, or the ledger with --ledger, --stream or both")
    if options.labels is None and options.max_flag_rate is None and options.review_per_day is None:
        raise UsageError("nothing is asked; give --labels, or traffic and --max-flag-rate or --review-per-day")
    if options.labels is None and options.target is not None:
        raise UsageError("--target precision=P needs --labels; without, --max-flag-rate chooses review")
    if options.review_per_day is not None and options.images is not None:
        raise UsageError("--review-per-day needs times, which pictures lack; give --ledger or --stream")
    for flag, value in (("--target precision", options.target), ("--share", options.share)):
        if value is not None and not 0 < value < 1:
            raise UsageError(f"{flag} is a share between 0 and 1; got {value:g}")
    if options.max_flag_rate is not None and not 0 <= options.max_flag_rate <= 1:
        raise UsageError(f"--max-flag-rate is a share from 0 to 1; got {options.max_flag_rate:g}")
    if options.review_per_day is not None and not 0 <= options.review_per_day < float("inf"):
        raise UsageError(f"--review-per-day counts uploads; got {options.review_per_day:g}")
    if options.min_positives < _LEAST_POSITIVES or options.seed < 0:
        raise UsageError(f"--min-positives is {_LEAST_POSITIVES} or more, and --seed 0 or more")
    return Asked(
        options.target, options.max_flag_rate, options.review_per_day, options.share, options.min_positives,
        options.seed,
    )  # fmt: skip


def _gallery(options: argparse.Namespace) -> Gallery | None:
    from worker.gallery import Gallery

    return None if options.images is None else Gallery(options.images)


def _resolver(gallery: Gallery) -> Callable[[str], str | None]:
    def resolve(content_id: str) -> str | None:
        file = gallery.find(content_id)
        return None if file is None else file.relative_to(gallery.directory).as_posix()

    return resolve


def _settle(
    rows: list[Row], options: argparse.Namespace, policy: Policy, resolve: Callable[[str], str | None]
) -> Labels:
    from worker.workbench.calibration.labels import settle

    labels = settle(rows, options.labels, policy.categories, resolve)
    if rows and not labels.names:
        where = options.images or options.ledger or "the stream"
        raise UsageError(
            f"{options.labels}: none of its {len(labels.unknown)} pictures is in {where} "
            f"({next(iter(labels.unknown))!r}, line {rows[0].line}, is not); name where they are"
        )
    return labels


def _write(file: Path, found: Calibrated) -> Path | None:
    from worker.policy.next_version import write_next
    from worker.policy.renumber import renumber

    calibrations, thresholds = found.calibrations(), found.thresholds()
    if not calibrations and not thresholds:
        return None
    return write_next(file, renumber(found.model, calibrations, thresholds))[0]


def _report(
    target: Path, found: Calibrated, pools: Pools, gallery: Gallery | None, encoder: ClipEncoder, settings: Settings,
    written: Path | None,
) -> None:  # fmt: skip
    from worker.workbench.calibration.page import draw, wanted_pictures
    from worker.workbench.report.page import write_report

    pictures = {}
    if gallery is not None:
        pictures = thumbnails(gallery, wanted_pictures(found, pools.names, _NEAREST), encoder, settings)
    write_report(target, draw(found, pools.names, pictures, _NEAREST, None if written is None else str(written)))


def _tell(
    options: argparse.Namespace, found: Calibrated, labels: Labels, unseen: list[Unseen], written: Path | None
) -> int:
    changed = bool(found.calibrations() or found.thresholds())
    for line in _trouble(labels, unseen):
        print(f"sluice: {line}", file=sys.stderr)
    if options.json:
        for category in found.categories.values():
            print_json(category.as_dict())
        print_json(
            {
                "policy": found.policy, "model": found.model, "pictures": found.pictures, "days": found.days,
                "unknown": labels.unknown, "unseen": {one.content_id: one.why.reason for one in unseen},
                "cautions": [one.as_dict() for one in found.cautions],
                "written": None if written is None else str(written),
            }
        )  # fmt: skip
        return 0 if changed else 1
    from worker.cli.calibration_tables import print_calibrated

    print_calibrated(found)
    if written is not None:
        print(f"{written} written; check it with `sluice policy lint {written}`")
    else:
        print("nothing was written" + ("" if changed else ": nothing was found to change"))
    return 0 if changed else 1


def _trouble(labels: Labels, unseen: list[Unseen]) -> Iterator[str]:
    from worker.workbench.calibration.labels import unknown_lines

    if labels.unknown:
        yield f"{len(labels.unknown)} labelled pictures are not there: {'; '.join(unknown_lines(labels))}"
    if unseen:
        shown = "; ".join(f"{one.content_id}: {one.why}" for one in unseen[:_LISTED])
        more = f"; and {len(unseen) - _LISTED} more" if len(unseen) > _LISTED else ""
        yield f"{len(unseen)} files cannot be judged: {shown}{more}"
