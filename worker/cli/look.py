"""`sluice score` and `sluice classify`: images judged here and now, without a queue."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from worker.cli.console import JUDGING, MODEL, Commands, add_command, print_json, settings_of
from worker.cli.tables import add_verdict, print_scores, verdict_table
from worker.errors import ImageRejected, SluiceError, Uncalibrated, UsageError
from worker.logs import configure_logging
from worker.records import ImageRef, ModelStamp, ModerationJob, Verdict

if TYPE_CHECKING:
    from worker.pipeline import QueuedJob
    from worker.settings import Settings


def add_commands(commands: Commands) -> None:
    """Add the group's commands."""
    score = add_command(
        commands,
        "score",
        _score,
        "judge images under a policy, without Redis: one verdict a line",
        JUDGING,
        "  sluice score photo.jpg https://example.org/cat.png\n"
        "  sluice score drawings/*.png --model builtin --policy demo --json",
    )
    score.add_argument("images", nargs="+", metavar="IMAGE|URL", help="files and URLs")
    score.add_argument("--json", action="store_true", help="print verdicts as JSON, one a line")

    classify = add_command(
        commands,
        "classify",
        _classify,
        "plain CLIP zero-shot: which of some sentences fits an image best",
        MODEL,
        '  sluice classify photo.jpg --labels "a photo of a dog" "a photo of a cat"',
    )
    classify.add_argument("image", metavar="IMAGE", help="a file")
    classify.add_argument("--labels", nargs="+", required=True, metavar="SENTENCE", help="sentences to choose from")
    classify.add_argument("--json", action="store_true", help="print one JSON object")


def _score(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    configure_logging(settings)
    verdicts = _judge(settings, [job_for(image) for image in options.images])
    table = verdict_table()
    unjudged = 0
    for verdict in verdicts:
        unjudged += verdict.reason is not None
        if options.json:
            print_json(verdict.model_dump(mode="json"))
        else:
            add_verdict(table, verdict)
    if not options.json:
        Console().print(table)
    return 1 if unjudged else 0


def _judge(settings: Settings, jobs: Sequence[QueuedJob[ModerationJob]]) -> Iterator[Verdict]:
    from worker import app as sluice

    app = sluice.build(own_files(settings), connection=None)
    try:
        for start in range(0, len(jobs), settings.batch_size):
            batch = jobs[start : start + settings.batch_size]
            for queued, outcome in zip(batch, app.judge(batch), strict=True):
                if isinstance(outcome, Uncalibrated):
                    raise outcome
                yield outcome if isinstance(outcome, Verdict) else app.pipeline.unjudged(queued, outcome.reason)
    finally:
        app.close()


def own_files(settings: Settings) -> Settings:
    """Return the settings for files that the caller names: they are the caller's own, under no root."""
    return settings.model_copy(update={"path_root": Path("/"), "on_unreadable": "review"})


def job_for(image: str) -> QueuedJob[ModerationJob]:
    """Return a job on a file or a URL, which comes by no queue."""
    from worker.pipeline import QueuedJob

    if image.lower().startswith(("http://", "https://")):
        ref = ImageRef(url=image)
    else:
        ref = ImageRef(path=str(Path(image).expanduser().absolute()))
    content_id = "".join(character for character in image if character.isprintable())[-512:] or "image"
    return QueuedJob(ModerationJob(image=ref, content_id=content_id))


def _classify(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    if len(set(options.labels)) < len(options.labels):
        raise UsageError("--labels holds the same sentence twice; name each once")
    if not all(label.strip() for label in options.labels):
        raise UsageError("--labels holds an empty sentence; write what is to be seen")
    data = _read(Path(options.image))

    from worker.app import decode_limits, view_spec
    from worker.encoder.clip import load_encoder
    from worker.intake.decode import decode_plain

    encoder = load_encoder(
        settings.model, settings.model_revision, settings.device, settings.precision, settings.batch_size
    )
    try:
        view = decode_plain(data, decode_limits(settings), view_spec(encoder))
    except ImageRejected as error:
        print(f"sluice: {options.image}: {error}", file=sys.stderr)
        return 1
    shares = encoder.classify(view, options.labels)
    scores = dict(zip(options.labels, shares, strict=True))
    best = max(scores, key=scores.__getitem__)
    model = ModelStamp(id=encoder.id, revision=encoder.revision, precision=encoder.precision)
    if options.json:
        print_json({"image": options.image, "scores": scores, "best": best, "model": model.model_dump()})
    else:
        print_scores(scores, f"{model.id} ({model.precision})")
    return 0


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnreadableFile(f"{path}: {error.strerror}; name an image file") from error


class UnreadableFile(SluiceError):
    """A file that was named is not there."""
