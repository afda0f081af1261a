"""`sluice backtest`: a policy's next version against everything that was uploaded, before it goes live."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from worker.cli.console import Commands, add_command, print_json, settings_of
from worker.cli.ledger import WHERE, opened_ledger
from worker.cli.progress import track
from worker.cli.registry import hint
from worker.errors import Missing, UsageError
from worker.settings import Settings, mask_url

if TYPE_CHECKING:
    from worker.encoder.clip import ClipEncoder
    from worker.ledger.reader import LedgerReader
    from worker.policy.schema import Policy
    from worker.workbench.backtest.flips import Flip
    from worker.workbench.backtest.run import Found

_SETTINGS = (
    "policies", "redis_url", "model", "model_revision", "device", "precision", "batch_size", "threads",
    "s3_buckets", "s3_endpoint_url", "image_max_bytes", "image_max_pixels", "image_formats", "views",
    "image_max_views", "image_max_frames",
)  # fmt: skip
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
#: Examples of each direction, at most.
_MAX_EXAMPLES = 1000


def add_commands(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "backtest",
        _backtest,
        "judge everything in the ledger again, under two versions of a policy: what would change",
        _SETTINGS,
        "  sluice backtest default@4 --since 7d\n"
        "  sluice backtest default@4 --against default@3 --ledger /var/lib/sluice/ledger --report out.html\n"
        "  sluice backtest draft.yaml --ledger s3://ledger/sluice --no-stream --images uploads/ --json",
    )
    parser.add_argument("new", metavar="ID@NEW", help="the version to try, or a policy file")
    parser.add_argument("--against", metavar="ID@OLD", help="what to compare with (default: the live version of ID)")
    parser.add_argument("--since", metavar="WHEN", help="verdicts from then on: 12h, 7d, 4w ago, or a date (all)")
    parser.add_argument("--until", metavar="WHEN", help="verdicts before then (now)")
    parser.add_argument("--ledger", metavar="WHERE", help=f"also read an archive: {WHERE}")
    parser.add_argument("--no-stream", action="store_true", help="read the archive alone; Redis is not asked")
    parser.add_argument("--every-policy", action="store_true", help="count entries that other policies judged, too")
    parser.add_argument("--images", type=Path, metavar="DIR", help="pictures by content id, for the report")
    parser.add_argument("--examples", type=int, default=12, metavar="N", help="shown of each direction (12)")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write a page that stands alone")
    parser.add_argument("--json", action="store_true", help="print one JSON object a row")


def _backtest(options: argparse.Namespace) -> int:
    from worker.ledger.reader import LedgerReader, Wanted

    settings = settings_of(options)
    _check(options)
    new = _find(options.new, settings)
    old = _find(options.against or new.policy, settings)
    since, until = (_when(text, flag) for text, flag in ((options.since, "--since"), (options.until, "--until")))
    if since is not None and until is not None and since >= until:
        raise UsageError(f"--since {options.since} is not before --until {options.until}")
    # Before the model, which takes seconds: whoever forgot to start Redis hears of it at once.
    with opened_ledger(options.ledger, not options.no_stream, settings) as sources:
        reader = LedgerReader(*sources, Wanted(since, until))
        encoder, found = _run(options, settings, reader, old, new)
    _require_some(found, encoder, options, settings)
    if options.report:
        _write(options, settings, encoder, found)
    _print(found, reader, options.json)
    return 0


def _check(options: argparse.Namespace) -> None:
    from worker.workbench.report.page import require_writable

    if options.no_stream and options.ledger is None:
        raise UsageError("--no-stream leaves nothing to read; name the archive with --ledger")
    if not 0 <= options.examples <= _MAX_EXAMPLES:
        raise UsageError(f"--examples is between 0 and {_MAX_EXAMPLES}")
    if options.images is not None and not options.images.is_dir():
        raise UsageError(f"{options.images} is no directory; name the one that holds the pictures with --images")
    if options.images is not None and options.report is None:
        raise UsageError("--images shows pictures in the report; name its file with --report")
    if options.report is not None:
        require_writable(options.report)


def _find(ref: str, settings: Settings) -> Policy:
    """Return the policy of a file, or of `ID` or `ID@VERSION` in the directory or the registry."""
    from worker.policy.files import find_policy

    if settings.policies != "redis" or ref.endswith((".yaml", ".yml")) or Path(ref).is_file():
        return find_policy(ref, Path(settings.policies))
    from worker.at_work import policy_source
    from worker.errors import PolicyMissing

    policies = policy_source(settings).load()
    policy = policies.get(ref)
    if policy is None:
        known = f"no policy {ref}; name a file, or one of {', '.join(policies.refs())} in the registry"
        raise PolicyMissing(policies.lacking(ref, known))
    return policy


def _when(text: str | None, flag: str) -> datetime | None:
    if text is None:
        return None
    if ago := re.fullmatch(r"([0-9]{1,6})([mhdw])", text):
        return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{flag} {text!r} is no time; write 30m, 12h, 7d or 4w, or 2026-01-31[T12:00Z]") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _run(
    options: argparse.Namespace, settings: Settings, reader: LedgerReader, old: Policy, new: Policy
) -> tuple[ClipEncoder, Found]:
    from worker.at_work import CompiledPolicies
    from worker.cores import usable_cores
    from worker.encoder.clip import load_encoder, use_threads
    from worker.workbench.backtest.run import Scope, backtest

    threads = settings.threads or usable_cores()
    use_threads(threads)
    encoder = load_encoder(
        settings.model, settings.model_revision, settings.device, settings.precision, settings.batch_size
    )
    compiled = CompiledPolicies(encoder)
    scope = Scope(encoder.name, encoder.dim, None if options.every_policy else frozenset({old.policy, new.policy}))
    batches = track(reader.batches(), None, "judging the ledger", len)
    found = backtest(batches, compiled(old), compiled(new), scope, examples=options.examples, threads=threads)
    return encoder, found


def _require_some(found: Found, encoder: ClipEncoder, options: argparse.Namespace, settings: Settings) -> None:
    """Make sure that something was judged.

    Raises:
        Missing: Nothing was; what there is instead, and what to do.
    """
    if found.tally.entries:
        return
    left_out = found.left_out
    if left_out.policies:
        named = ", ".join(f"{name} ({count:,})" for name, count in left_out.policies.most_common())
        raise Missing(f"no entry was judged by this policy, but by {named}; count them with --every-policy")
    if left_out.models:
        named = ", ".join(f"{name} ({count:,})" for name, count in left_out.models.most_common())
        raise Missing(f"no entry was embedded by {encoder.name}, but by {named}; name that model with --model")
    when = " in that time; widen --since and --until" if options.since or options.until else ""
    mend = when or "; SLUICE_LEDGER_MAXLEN must not be 0, and --ledger names an archive"
    raise Missing(f"nothing in {_where(options, settings)}{mend}")


def _where(options: argparse.Namespace, settings: Settings) -> str:
    stream = [] if options.no_stream else [f"the stream of {mask_url(settings.redis_url)}"]
    return " and ".join([*stream, *([options.ledger] if options.ledger else [])])


def _write(options: argparse.Namespace, settings: Settings, encoder: ClipEncoder, found: Found) -> None:
    from worker.workbench.backtest.page import report_page
    from worker.workbench.report.page import write_report

    pictures = dict(_pictures(options.images, found.flips, encoder, settings)) if options.images else {}
    spans = [f"{flag} {text}" for flag, text in (("since", options.since), ("until", options.until)) if text]
    where = ", ".join([_where(options, settings), *spans])
    model = f"{encoder.name}, {encoder.precision}"
    write_report(options.report, report_page(found, model, where, pictures, options.images is not None))
    hint(f"{options.report} written")


def _pictures(
    directory: Path, flips: Sequence[Flip], encoder: ClipEncoder, settings: Settings
) -> Iterator[tuple[str, str]]:
    """Yield small pictures of the examples by content id, each of the view that decided."""
    from worker.gallery import Gallery, Picture
    from worker.intake.thumbnail import data_uri

    gallery = Gallery(directory)
    shown = {flip.found.content_id: flip for flip in flips}
    here = []
    for content_id in shown:
        try:
            if gallery.find(content_id) is not None:
                here.append(content_id)
        except UsageError as error:
            hint(f"sluice: no picture: {error}")
    for picture in track(gallery.look(here, encoder, settings), len(here), "decoding pictures"):
        flip = shown[picture.content_id]
        if not isinstance(picture, Picture):
            hint(f"sluice: no picture of {picture.content_id!r}: {picture.why}")
        elif picture.sha256 != flip.found.image_sha256:
            hint(f"sluice: no picture of {picture.content_id!r}: the file is not the one that was judged")
        else:
            decides = flip.category_after or flip.category_before
            view = decides.view if decides is not None and decides.view < len(picture.views) else 0
            yield picture.content_id, data_uri(picture.views[view])


def _print(found: Found, reader: LedgerReader, as_json: bool) -> None:
    from worker.workbench.backtest import summary

    if as_json:
        for row in summary.rows(found):
            print_json(row | {"passed_over": reader.passed_over} if row["row"] == "total" else row)
        return
    console = Console()
    table = Table("category", "before", "after", "stricter", "milder", caption="allow / review / block")
    table.columns[0].overflow = "fold"
    for category in summary.categories(found):
        both = (category.before, category.after)
        sides = ["" if counts is None else " / ".join(f"{n:,}" for n in counts) for counts in both]
        changes = ("" if n is None else f"{n:,}" for n in (category.stricter, category.milder))
        table.add_row(escape(category.name), *sides, *changes)
    console.print(table)
    for flip in found.flips:
        line = f"{flip.found.content_id}  {flip.before.action} → {flip.after.action}  {summary.reason(flip)}"
        console.print(escape(line), highlight=False, soft_wrap=True)
    for note in summary.notes(found):
        hint(f"note: {note}")
    if reader.passed_over:
        hint(f"note: {reader.passed_over:,} entries of the stream could not be read")
    print(summary.headline(found))
