"""`sluice stress`: what a policy says of pictures once they are changed, and of people once they are named."""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from worker.cli.console import Commands, add_command, print_json, settings_of
from worker.cli.progress import track
from worker.errors import JobError, UsageError

if TYPE_CHECKING:
    from worker.changed import Copier
    from worker.encoder.clip import ClipEncoder
    from worker.gallery import Gallery, Unseen
    from worker.intake.changes import Change
    from worker.policy.compiled import CompiledPolicy
    from worker.policy.groups import GroupsFile
    from worker.policy.schema import Policy
    from worker.settings import Settings
    from worker.workbench.stress.drift import Direction, Looks, Tally
    from worker.workbench.stress.examples import Example
    from worker.workbench.stress.groups import Shift
    from worker.workbench.stress.page import Found

_SETTINGS = (
    "policies", "model", "model_revision", "device", "precision", "batch_size", "threads",
    "views", "image_max_views", "image_max_frames", "image_max_bytes", "image_max_pixels", "image_formats",
    "decode_timeout_seconds", "decode_memory_bytes",
)  # fmt: skip
#: Remarks of a kind on the terminal, examples in the report, and pictures that are named one by one.
_REMARKS, _EXAMPLES, _NAMED = 8, 12, 5
_SIDES: tuple[Direction, ...] = ("weaker", "stronger")


def add_commands(commands: Commands) -> None:
    """Add the command."""
    stress = add_command(
        commands,
        "stress",
        _stress,
        "what a policy's actions do when the same picture is changed, and its margins when a group is named",
        _SETTINGS,
        "  sluice stress demo@1 --images drawings --model builtin --report stress.html\n"
        "  sluice stress house@2 --images uploads --limit 200 --only grey crop text --json\n"
        "  sluice stress house@2                          sentences only\n"
        "  sluice stress --print-groups > groups.yaml     words to change, for --groups groups.yaml\n\n"
        "Changes: jpeg-75 jpeg-40 crop-centre crop-top-left … letterbox flip rotate-left-5 rotate-right-5\n"
        "rotate-90 grey hue contrast-low contrast-high dark bright blur noise small corner text-small\n"
        "text-large. Exit code 1 when a picture cannot be judged, else 0: it measures, and judges nothing.",
    )
    stress.add_argument("ref", nargs="?", metavar="ID[@VERSION]", help="the policy: a file, or one of the directory's")
    stress.add_argument("--images", type=Path, metavar="DIR", help="pictures to change; without, only sentences")
    stress.add_argument("--only", nargs="+", metavar="CHANGE", help="these changes; `crop` stands for all crops")
    stress.add_argument("--limit", type=int, metavar="N", help="so many pictures, spread evenly over the directory")
    stress.add_argument("--text", metavar="TEXT", help="what is written over pictures (a photo of a puppy)")
    stress.add_argument("--groups", type=Path, metavar="FILE", help="words and sentences instead of those built in")
    stress.add_argument("--print-groups", action="store_true", help="print those built in, to copy, and end")
    stress.add_argument("--report", type=Path, metavar="FILE.html", help="write a page with matrix, charts, examples")
    stress.add_argument("--json", action="store_true", help="print one JSON object a category and change, or word")


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is to be measured: all that can be wrong with a command line is known before the model is loaded."""

    policy: Policy
    groups: GroupsFile
    changes: tuple[Change, ...]
    text: str
    #: None: no pictures.
    gallery: Gallery | None
    names: list[str]


def _stress(options: argparse.Namespace) -> int:
    if options.print_groups:
        from worker.policy.groups import DEFAULT_FILE

        print(DEFAULT_FILE.read_text(encoding="utf-8"), end="")
        return 0
    settings = settings_of(options)
    asked = _asked(options, settings)
    if options.report:
        from worker.workbench.report.page import require_writable

        require_writable(options.report)
    from worker.encoder.clip import load_encoder
    from worker.policy.compiled import compile_policy

    encoder = load_encoder(
        settings.model, settings.model_revision, settings.device, settings.precision, settings.batch_size
    )
    compiled = compile_policy(asked.policy, encoder.embed_texts, encoder.logit_scale, encoder.name)
    if not compiled.calibrated:
        print(
            f"sluice: {asked.policy.ref} has no calibration for {encoder.name}; its scores are a ranking",
            file=sys.stderr,
        )
    found, examples = _measure(options, settings, asked, compiled, encoder)
    if options.report:
        from worker.workbench.report.page import write_report
        from worker.workbench.stress.page import stress_page

        write_report(options.report, stress_page(found, examples))
    if options.json:
        _print_rows(found)
    else:
        _print_tables(found)
    _tell_unseen(found.unseen)
    return 1 if found.unseen else 0


def _asked(options: argparse.Namespace, settings: Settings) -> _Asked:
    if options.ref is None:
        raise UsageError("name the policy to measure, as ID@VERSION; `sluice policy list` shows those there are")
    if settings.policies == "redis":
        raise UsageError(
            "SLUICE_POLICIES is redis, and this command is about files; name their directory with --policies"
        )
    picturing = [flag for flag in ("only", "limit", "text") if getattr(options, flag) is not None]
    if options.images is None and picturing:
        raise UsageError(f"--{picturing[0]} is about pictures; say where they are with --images")
    if options.limit is not None and options.limit < 1:
        raise UsageError(f"--limit {options.limit} leaves nothing to look at; leave it out for all pictures")
    from worker.intake.changes import TEXT, check_text, choose
    from worker.policy.files import find_policy
    from worker.policy.groups import DEFAULT_FILE, read_groups

    policy = find_policy(options.ref, Path(settings.policies))
    groups = read_groups(options.groups or DEFAULT_FILE)
    changes, text = choose(options.only), check_text(TEXT if options.text is None else options.text)
    if options.images is None:
        return _Asked(policy, groups, (), text, None, [])
    # Last, for it brings the model's libraries in.
    from worker.gallery import Gallery

    gallery = Gallery(options.images)
    return _Asked(policy, groups, changes, text, gallery, _spread(gallery.names(), options.limit))


def _spread(names: list[str], most: int | None) -> list[str]:
    """Take so many names, evenly: directories are sorted by what they hold."""
    if most is None or most >= len(names):
        return names
    return [names[place * len(names) // most] for place in range(most)]


def _measure(
    options: argparse.Namespace, settings: Settings, asked: _Asked, compiled: CompiledPolicy, encoder: ClipEncoder
) -> tuple[Found, list[tuple[Example, str, str]]]:
    from worker.workbench.stress.drift import Tally
    from worker.workbench.stress.examples import strongest_examples

    tally = Tally(compiled, [change.name for change in asked.changes])
    unseen: list[Unseen] = []
    examples: list[tuple[Example, str, str]] = []
    if asked.gallery is not None:
        from worker.changed import Copier

        with Copier(asked.gallery, encoder, settings, asked.text) as copier:
            _look(copier, asked, tally, unseen)
            if options.report:
                by_name = {change.name: change for change in asked.changes}
                for example in strongest_examples(tally.looks(), _EXAMPLES):
                    examples.append((example, *_thumbnails(copier, example.content_id, by_name[example.change])))
    return _found(asked, tally.looks(), unseen, compiled, encoder), examples


def _look(copier: Copier, asked: _Asked, tally: Tally, unseen: list[Unseen]) -> None:
    from worker.changed import Look

    total = len(asked.names) * (len(asked.changes) + 2)
    for seen in track(copier.look(asked.names, asked.changes), total, "pictures x changes"):
        if isinstance(seen, Look):
            tally.add(seen.content_id, seen.change, seen.embeddings)
        else:
            unseen.append(seen)


def _thumbnails(copier: Copier, content_id: str, change: Change) -> tuple[str, str]:
    from worker.intake.thumbnail import data_uri

    shown = copier.show(content_id, change)
    # A picture that has gone meanwhile is shown as not at hand.
    return ("", "") if isinstance(shown, JobError) else (data_uri(shown[0]), data_uri(shown[1]))


def _found(
    asked: _Asked, looks: Looks, unseen: Sequence[Unseen], compiled: CompiledPolicy, encoder: ClipEncoder
) -> Found:
    from worker.intake import copies
    from worker.workbench.stress.drift import COPY, drifts
    from worker.workbench.stress.groups import shifts
    from worker.workbench.stress.page import Found
    from worker.workbench.stress.words import remarks_on_changes, remarks_on_groups, too_few

    words = {COPY: copies.WORDS} | {change.name: change.words for change in asked.changes}
    drifted, shifted = drifts(looks), shifts(compiled, asked.groups, encoder)
    return Found(
        compiled=compiled,
        model=f"{encoder.name}, {encoder.precision}",
        pictures=len(looks.content_ids),
        unseen=[(one.content_id, one.why.reason) for one in unseen],
        drifts=drifted,
        shifts=shifted,
        on_changes=remarks_on_changes(drifted, words),
        on_groups=remarks_on_groups(shifted),
        too_few=too_few(drifted),
        words=words,
        groups=asked.groups,
    )


def _print_rows(found: Found) -> None:
    head = {"policy": found.compiled.policy.ref, "model": found.model}
    said: dict[tuple[str, str | None, str], list[str]] = defaultdict(list)
    for kind, remarks in (("change", found.on_changes), ("group", found.on_groups)):
        for remark in remarks:
            said[kind, remark.category, remark.about].append(remark.says)
    for drift in found.drifts:
        says = said["change", drift.category, drift.change]
        print_json(head | {"kind": "change"} | drift.as_dict() | {"says": says})
    for shift in found.shifts:
        says = [text for text in said["group", shift.category, shift.group] if f", {shift.listed} (" in text]
        print_json(head | {"kind": "group"} | shift.as_dict() | {"says": says})


def _print_tables(found: Found) -> None:
    console = Console()
    if found.drifts:
        console.print(_changes_table(found))
    if found.shifts:
        console.print(_groups_table(found.shifts))
    for heading, remarks in (("pictures", found.on_changes), ("groups", found.on_groups)):
        if remarks:
            console.print(f"\nWhat is fragile: {heading}", style="bold")
        for remark in remarks[:_REMARKS]:
            console.print(f"- {escape(remark.says)}", soft_wrap=True, highlight=False)
        if len(remarks) > _REMARKS:
            console.print(f"- and {len(remarks) - _REMARKS} more: --report shows them, --json prints all")
    if not found.on_changes and not found.on_groups:
        console.print("\nNothing moves by enough to say that it is fragile.")
    if found.too_few:
        listed = ", ".join(f"{name} ({count})" for name, count in found.too_few.items())
        console.print(f"\nToo few pictures are caught to say what slips through of: {escape(listed)}", soft_wrap=True)


def _changes_table(found: Found) -> Table:
    table = Table(title=f"{found.compiled.policy.ref}, {found.pictures} pictures, the whole policy")
    table.add_column("change", no_wrap=True)
    for name in ("action differs", "weaker", "stronger"):
        table.add_column(name, justify="right")
    table.add_column("|score| moves most", overflow="fold")
    for column in ("mean", "p95"):
        table.add_column(column, justify="right")
    for drift in found.drifts:
        if drift.category is not None:
            continue
        beside = [one for one in found.drifts if one.change == drift.change and one.score_drift is not None]
        most = max(beside, key=lambda one: one.score_drift or (0.0, 0.0))
        mean, p95 = most.score_drift or (0.0, 0.0)
        sides = [f"{drift.moved(side)}/{drift.could(side)}" for side in _SIDES]
        shown = f"{drift.flips}/{drift.pictures}"
        table.add_row(drift.change, shown, *sides, escape(most.category or ""), f"{mean:.2f}", f"{p95:.2f}")
    return table


def _groups_table(shifts: Sequence[Shift]) -> Table:
    table = Table("list", "word", "moves most", title="margins beside the mean of each list, in logits")
    table.columns[2].overflow = "fold"
    table.add_column("by", justify="right")
    table.add_column("lowest to highest", justify="right")
    words = dict.fromkeys((shift.listed, shift.group) for shift in shifts)
    for listed, group in words:
        own = [shift for shift in shifts if (shift.listed, shift.group) == (listed, group)]
        most = max(own, key=lambda shift: abs(shift.shift))
        span = f"{most.low:+.1f} to {most.high:+.1f}"
        table.add_row(escape(listed), escape(group), escape(most.category), f"{most.shift:+.1f}", span)
    return table


def _tell_unseen(unseen: Sequence[tuple[str, str]]) -> None:
    for name, reason in unseen[:_NAMED]:
        shown = "".join(letter if letter.isprintable() else "?" for letter in name)
        print(f"sluice: {shown} cannot be judged: {reason}", file=sys.stderr)
    if len(unseen) > _NAMED:
        print(f"sluice: nor can {len(unseen) - _NAMED} more; the report counts them", file=sys.stderr)
