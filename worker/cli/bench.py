"""`sluice bench …`: figures of this machine, each beside the limit that it is compared with."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from worker.cli import bench_fleet
from worker.cli.console import Commands, add_command, add_group, print_json, settings_of
from worker.cli.embedded_redis import embedded_redis
from worker.cli.rows import print_rows, rounded, say
from worker.connection import open_redis
from worker.errors import Missing, UsageError

if TYPE_CHECKING:
    from worker.bench.encoder import EncoderRow
    from worker.bench.precision import DriftRow
    from worker.settings import Settings

#: Photographs that are made where there are none: as many as a batch of the default size.
_PHOTOGRAPHS = 32
#: What makes a faster precision fit for a policy, unless --max-drift says otherwise.
_MAX_DRIFT = 0.05
_LEGEND = (
    "limit: the image tower's products alone, in fp32, as fast as this machine multiplies · transformers: "
    "get_image_features on ready tensors · tutorial: processor and whole model with 80 sentences for each file"
)


def add_commands(commands: Commands) -> None:
    """Add the group's commands."""
    verbs = add_group(commands, "bench", "measure this machine", "  sluice bench encoder\n  sluice bench queue")
    for add in (_add_encoder, _add_precision, _add_queue, _add_pipeline, _add_backtest, bench_fleet.add_verb):
        add(verbs)


def _add_encoder(verbs: Commands) -> None:
    encoder = add_command(
        verbs,
        "encoder",
        _encoder,
        "images a second of the encoder, beside transformers' own and the tutorial's way",
        ("threads",),
        "  sluice bench encoder\n"
        "  sluice bench encoder --model openai/clip-vit-base-patch32 --precision fp32 int8 --json",
    )
    encoder.add_argument("--model", help="a local directory or `builtin`; without, a ViT-B/32 of random weights")
    encoder.add_argument("--images", type=Path, metavar="DIR", help="files to judge; without, photographs are made up")
    encoder.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32], metavar="N", help="1 8 32")
    encoder.add_argument("--precision", nargs="+", default=["fp32", "int8"], metavar="P", help="fp32 int8")
    encoder.add_argument("--rounds", type=int, default=3, metavar="N", help="turns of each way; the best counts (3)")
    encoder.add_argument("--json", action="store_true", help="print one JSON object a row")


def _add_precision(verbs: Commands) -> None:
    precision = add_command(
        verbs,
        "precision",
        _precision,
        "how far a faster precision moves a policy's scores on your images, and which actions change",
        (
            "model", "model_revision", "precision", "policies", "policy", "batch_size", "threads",
            "image_max_bytes", "image_max_pixels", "image_formats",
        ),
        "  sluice bench precision --images uploads/ --policy default --precision int8",
    )  # fmt: skip
    precision.add_argument("--images", type=Path, required=True, metavar="DIR", help="files, in it and below")
    precision.add_argument(
        "--max-drift", type=float, default=_MAX_DRIFT, metavar="SCORE", help=f"exit code 1 above ({_MAX_DRIFT:g})"
    )
    precision.add_argument("--json", action="store_true", help="print one JSON object a row")


def _add_queue(verbs: Commands) -> None:
    queue = add_command(
        verbs,
        "queue",
        _queue,
        "jobs a second of the batch worker with an empty handler, beside RQ's own workers, on a Redis of its own",
        (),
        "  sluice bench queue\n  sluice bench queue --jobs 2000 --rounds 1 --json",
    )
    queue.add_argument("--jobs", type=int, default=4000, metavar="N", help="for each run of a batch worker (4000)")
    queue.add_argument("--rounds", type=int, default=3, metavar="N", help="turns of each (3)")
    queue.add_argument("--json", action="store_true", help="print one JSON object a row")


def _add_pipeline(verbs: Commands) -> None:
    pipeline = add_command(
        verbs,
        "pipeline",
        _pipeline,
        "images a second of one worker from queue to verdict, beside the bare encoder, on a Redis of its own",
        ("device", "precision", "batch_size", "threads"),
        "  sluice bench pipeline\n  sluice bench pipeline --model builtin --images 512 --json",
    )
    pipeline.add_argument("--model", help="a local directory or `builtin`; without, a ViT-B/32 of random weights")
    pipeline.add_argument("--images", type=int, default=192, metavar="N", help="different images in a stream (192)")
    pipeline.add_argument("--rounds", type=int, default=3, metavar="N", help="turns of each (3)")
    pipeline.add_argument("--json", action="store_true", help="print one JSON object a row")


def _add_backtest(verbs: Commands) -> None:
    backtest = add_command(
        verbs,
        "backtest",
        _backtest,
        "embeddings a second that `sluice backtest` judges under two versions, beside the bare matrix products",
        (),
        "  sluice bench backtest\n  sluice bench backtest --embeddings 100000 --rounds 1 --json",
    )
    backtest.add_argument("--embeddings", type=int, default=1_000_000, metavar="N", help="made up (1000000)")
    backtest.add_argument("--rounds", type=int, default=3, metavar="N", help="turns of each way; the best counts (3)")
    backtest.add_argument("--json", action="store_true", help="print one JSON object a row")


def _encoder(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    if min([*options.batch, options.rounds]) < 1:
        raise UsageError("--batch and --rounds count; give 1 or more")
    from worker.bench.encoder import bench_encoder, bench_policy, read_files
    from worker.bench.pipeline import photographs
    from worker.encoder.clip import use_threads

    use_threads(_threads(settings))
    if options.images:
        files = list(islice(read_files(options.images), _PHOTOGRAPHS))
    else:
        files = photographs(_PHOTOGRAPHS, 500, 375)
    if not files:
        raise Missing(f"no image in {options.images}; name a directory of JPEG, PNG, WebP, GIF or AVIF files")
    with _checkpoint(options.model) as directory:
        rows = bench_encoder(
            directory, settings, files, bench_policy(), options.precision, options.batch, options.rounds, say
        )
    _print_encoder(rows, options.json)
    return 0


def _print_encoder(rows: list[EncoderRow], as_json: bool) -> None:
    if as_json:
        for row in rows:
            print_json(rounded(asdict(row)))
        return
    table = Table("way", "precision", "batch", "images/s", "transformers", "tutorial", "limit", caption=_LEGEND)
    for row in rows:
        table.add_row(
            row.way, row.precision, str(row.batch), f"{row.images_per_second:.1f}",
            f"{row.times_transformers:.2f} x", f"{row.times_tutorial:.1f} x", f"{row.share_of_limit:.2f} x",
        )  # fmt: skip
    Console().print(table)


def _precision(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    if settings.precision in {"auto", "fp32"}:
        raise UsageError("name the precision to compare with fp32: --precision int8 or --precision bf16")
    from worker.app import open_decoder
    from worker.at_work import load_policies
    from worker.bench.encoder import read_files
    from worker.bench.precision import bench_precision
    from worker.encoder.clip import load_encoder, use_threads

    use_threads(_threads(settings))
    policy = load_policies(settings).deciding(settings.policy, "")
    exact, faster = (
        load_encoder(settings.model, settings.model_revision, settings.device, precision, settings.batch_size)
        for precision in ("fp32", settings.precision)
    )
    decoder = open_decoder(settings, exact, _threads(settings))
    rows = bench_precision(read_files(options.images), policy, decoder, exact, faster, say)
    decoder.close()
    if not rows:
        raise Missing(f"no image that can be judged in {options.images}; name a directory of images")
    is_within = rows[0].max_drift <= options.max_drift and rows[0].changed == 0
    _print_precision(rows, options, {"policy": policy.ref, "model": exact.name, "precision": faster.precision})
    return 0 if is_within else 1


def _print_precision(rows: list[DriftRow], options: argparse.Namespace, about: dict[str, Any]) -> None:
    if options.json:
        for row in rows:
            print_json(about | rounded(asdict(row)) | {"limit_drift": options.max_drift, "limit_changed": 0})
        return
    caption = "{policy} in {precision} beside fp32, {model}".format(**about)
    limit = f"limit: max drift {options.max_drift:g}, no action changed"
    table = Table("category", "max drift", "mean", "p99", "stricter", "milder", caption=f"{caption}\n{limit}")
    for row in rows:
        table.add_row(
            row.category, f"{row.max_drift:.4f}", f"{row.mean_drift:.5f}", f"{row.p99_drift:.4f}",
            f"{row.stricter} of {row.images}", f"{row.milder} of {row.images}",
        )  # fmt: skip
    Console().print(table)


def _queue(options: argparse.Namespace) -> int:
    if min(options.jobs, options.rounds) < 1:
        raise UsageError("--jobs and --rounds count; give 1 or more")
    from worker.bench.queue import bench_queue

    with embedded_redis() as (url, _):
        rows = bench_queue(url, options.jobs, options.rounds, say)
    print_rows([asdict(row) for row in rows], options.json, "the ratios are multiples of SimpleWorker's")
    return 0


def _pipeline(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    if min(options.images, options.rounds) < 1:
        raise UsageError("--images and --rounds count; give 1 or more")
    from worker.bench.pipeline import bench_pipeline
    from worker.encoder.clip import use_threads

    use_threads(_threads(settings))
    with _checkpoint(options.model) as directory, embedded_redis() as (url, _):
        chosen = settings.model_copy(update={"model": directory, "redis_url": url})
        rows = bench_pipeline(open_redis(url), chosen, options.images, options.rounds, say)
    print_rows([asdict(row) for row in rows], options.json, "limit: the bare encoder on views that are ready")
    return 0


def _backtest(options: argparse.Namespace) -> int:
    if min(options.embeddings, options.rounds) < 1:
        raise UsageError("--embeddings and --rounds count; give 1 or more")
    from worker.bench.backtest import bench_backtest

    rows = bench_backtest(options.embeddings, options.rounds, say)
    if options.json:
        print_rows([asdict(row) for row in rows], True, "")
        return 0
    caption = f"{rows[0].embeddings:,} embeddings × {rows[0].sentences} sentences, under two versions"
    table = Table("way", "seconds", "embeddings/s", "of the products", "grew by", caption=caption)
    for row in rows:
        table.add_row(
            row.way, f"{row.seconds:.2f}", f"{row.embeddings_per_second:,.0f}", f"{row.share_of_product:.2f} x",
            f"{row.grew_mebibytes:.0f} MiB",
        )  # fmt: skip
    Console().print(table)
    return 0


@contextmanager
def _checkpoint(model: str | None) -> Iterator[str]:
    """Give the model that was asked for; a random one for as long as the context lasts where none was."""
    if model is not None:
        yield model
        return
    from worker.bench.checkpoint import write_random_clip

    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as directory:
        say("writing a ViT-B/32 of random weights")
        yield str(write_random_clip(Path(directory)))


def _threads(settings: Settings) -> int:
    from worker.cores import usable_cores

    return settings.threads or usable_cores()
