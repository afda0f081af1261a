"""`sluice explain`: why a verdict says what it says, for the reviewer in numbers, for the uploader in words."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.cli.console import JUDGING, Commands, add_command, print_json, settings_of
from worker.cli.evidence import VIEWS, Evidence, judge_here, look_up
from worker.errors import UsageError
from worker.logs import configure_logging
from worker.records import printable

if TYPE_CHECKING:
    from worker.policy.schema import Policy
    from worker.settings import Settings
    from worker.workbench.explain.explanation import Explanation

_SETTINGS = (*JUDGING, *VIEWS, "redis_url", "appeal")


def add_commands(commands: Commands) -> None:
    """Add the command."""
    explain = add_command(
        commands,
        "explain",
        _explain,
        "say why an upload was allowed, sent to review or blocked, and what would have changed that",
        _SETTINGS,
        "  sluice explain photo.jpg --policy demo --model builtin --heat heat.png\n"
        "  sluice explain upload-4711                 the newest verdict of an upload\n"
        "  sluice explain 1f0c…                       of a job or a verdict: `sluice verdicts --json` prints both ids\n"
        "  sluice explain 1f0c… --image upload.jpg --report why.html\n"
        "  sluice explain 1f0c… --audience user --appeal https://example.org/appeal\n\n"
        "An image is judged here and now, as `sluice score` does. Of a job or a verdict, the policy that judged\n"
        "is used; what needs embeddings takes them from the ledger, or from --image. Exit code 1: the image\n"
        "could not be judged.",
    )
    explain.add_argument(
        "target",
        metavar="IMAGE|URL|JOB|VERDICT_ID|CONTENT_ID",
        help="what to explain; of an upload's verdicts, the newest",
    )
    explain.add_argument(
        "--audience", choices=("reviewer", "user"), default="reviewer", help="user: what the uploader may read"
    )
    explain.add_argument("--image", type=Path, metavar="FILE", help="the upload itself, of a job or verdict")
    explain.add_argument("--ledger", metavar="WHERE", help="also look for embeddings in this archive of the ledger")
    explain.add_argument("--heat", type=Path, metavar="FILE.png", help="draw where in the picture the category is seen")
    explain.add_argument("--report", type=Path, metavar="FILE.html", help="write a page")
    explain.add_argument("--versions", metavar="N,…", help="judge under these versions (default: all that are known)")
    explain.add_argument("--top", type=int, default=5, metavar="N", help="sentences of each kind that are listed (5)")
    explain.add_argument("--json", action="store_true", help="print one JSON object; see `sluice schema explanation`")


def _explain(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    _check(options)
    configure_logging(settings)
    with _evidence(options, settings) as evidence:
        if options.audience == "user":
            _tell_user(evidence, options, settings)
        else:
            _tell_reviewer(evidence, options)
    return 1 if evidence.verdict.reason is not None else 0


def _check(options: argparse.Namespace) -> None:
    if options.audience == "user":
        for flag in ("heat", "versions", "image", "ledger"):
            if getattr(options, flag) is not None:
                raise UsageError(f"--{flag} is for the reviewer: the uploader must not learn what a policy looks for")
    _versions(options.versions)
    if options.top < 1:
        raise UsageError("--top counts sentences; give 1 or more")
    if is_image(options.target):
        for flag in ("image", "ledger"):
            if getattr(options, flag) is not None:
                raise UsageError(f"--{flag} belongs to a job or a verdict; {options.target} is an image")
    elif options.setting_policy is not None:
        raise UsageError(
            f"{printable(options.target)} is no file, so it is taken for a job or a verdict, whose policy is known; "
            "--policy is for an image (compare with --versions)"
        )


def is_image(target: str) -> bool:
    """Whether an image is named: a file that is there, or a URL."""
    try:
        return target.lower().startswith(("http://", "https://")) or Path(target).expanduser().exists()
    except (OSError, RuntimeError):
        # Too long for a file, or in the home of nobody.
        return False


@contextmanager
def _evidence(options: argparse.Namespace, settings: Settings) -> Iterator[Evidence]:
    if is_image(options.target):
        with judge_here(options.target, settings) as evidence:
            yield evidence
    else:
        needs = options.audience == "reviewer"
        yield look_up(options.target, settings, options.image, options.ledger, needs_embeddings=needs)


def _tell_user(evidence: Evidence, options: argparse.Namespace, settings: Settings) -> None:
    from worker.workbench.explain.statement import state

    statement = state(evidence.verdict, evidence.policy, settings.appeal)
    if options.report is not None:
        _write_page(options.report, "statement", statement=statement)
    if options.json:
        print_json(statement.model_dump(mode="json"))
    else:
        from worker.cli.explained import print_statement

        print_statement(statement)


def _tell_reviewer(evidence: Evidence, options: argparse.Namespace) -> None:
    from worker.workbench.explain.told import explain

    others = evidence.others(_versions(options.versions))
    explanation = explain(evidence.verdict, evidence.policy, tuple(evidence.notes))
    explanation = _judge_again(explanation, evidence, others, options.top)
    drawn: dict[str, str | None] = {"view": None, "map": None}
    if options.heat is not None or options.report is not None:
        explanation, drawn = _draw(explanation, evidence, options.heat)
    if options.report is not None:
        _write_page(options.report, "explain", explanation=explanation, **drawn)
    if options.json:
        print_json(explanation.model_dump(mode="json"))
    else:
        from worker.cli.explained import print_explanation

        print_explanation(explanation)


def _versions(given: str | None) -> list[int] | None:
    if given is None:
        return None
    parts = [part.strip() for part in given.split(",")]
    if not all(part.isascii() and part.isdecimal() for part in parts):
        raise UsageError(f"--versions {given}: write numbers with commas, as in 1,3")
    return [int(part) for part in parts]


def _judge_again(told: Explanation, evidence: Evidence, others: Sequence[Policy], top: int) -> Explanation:
    from worker.workbench.explain.again import judge_again

    policy, embeddings, compiled = evidence.policy, evidence.embeddings, evidence.compile
    if policy is None or embeddings is None or compiled is None:
        return told
    versions = [compiled(version) for version in others]
    return judge_again(told, evidence.verdict, compiled(policy), embeddings, versions, basis=evidence.basis, top=top)


def _draw(explanation: Explanation, evidence: Evidence, file: Path | None) -> tuple[Explanation, dict[str, str | None]]:
    """Draw the deciding view, and the map over it; to a file where one is wanted.

    Raises:
        UsageError: A file is wanted, and there is nothing to draw, or it cannot be written.
    """
    from worker.encoder.memo import rounded
    from worker.intake.overlay import SIDE, overlay_png, png_uri
    from worker.intake.thumbnail import data_uri
    from worker.workbench.explain.occlusion import occlude

    policy, encoder, compiled, category = evidence.policy, evidence.encoder, evidence.compile, explanation.category
    can = category is not None and explanation.recomputed == "equal" and len(evidence.views) > 0
    if not can or policy is None or encoder is None or compiled is None:
        if file is None:
            return explanation, {"view": None, "map": None}
        raise UsageError(f"--heat: {_why_none(explanation, evidence)}")
    index = evidence.verdict.categories[str(category)].view
    view = evidence.views[index]
    found = occlude(view, compiled(policy), str(category), lambda views: rounded(encoder.embed_images(views)))
    png = overlay_png(view, found.weights)
    if file is not None:
        _write(file, png)
    heat = found.said(str(category), index)
    return explanation.model_copy(update={"heat": heat}), {"view": data_uri(view, SIDE), "map": png_uri(png)}


def _why_none(explanation: Explanation, evidence: Evidence) -> str:
    if explanation.reason is not None:
        return f"the image was not judged ({explanation.reason}), so there is nothing to draw"
    if evidence.policy is not None and not evidence.views:
        return "the picture is not at hand; name the upload's file with --image"
    return explanation.notes[-1]


def _write(file: Path, data: bytes) -> None:
    try:
        file.write_bytes(data)
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}; name a file that can be written with --heat") from error


def _write_page(file: Path, template: str, **values: Any) -> None:
    from worker.workbench.report.page import render, write_report

    write_report(file, render(template, **values))
