"""`sluice bench fleet`: how many workers one Redis carries."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from worker.cli.console import Commands, add_command, print_json
from worker.cli.embedded_redis import embedded_redis
from worker.cli.rows import rounded, say
from worker.connection import open_redis, require_redis
from worker.errors import UsageError
from worker.settings import mask_url

_FLEETS = (1, 2, 4, 8, 16, 32, 64)


def add_verb(verbs: Commands) -> None:
    """Add the command to the group `bench`."""
    fleet = add_command(
        verbs,
        "fleet",
        _fleet,
        "how many workers one Redis carries: worker processes whose model is a sleep of its length",
        (),
        "  sluice bench fleet\n"
        "  sluice bench fleet --workers 1 8 64 --images-per-second 3000 --json\n"
        "  sluice bench fleet --redis-url redis://big-redis:6379/0 --empty-that-redis",
    )
    fleet.add_argument("--workers", type=int, nargs="+", default=_FLEETS, metavar="N", help="1 2 4 8 16 32 64")
    fleet.add_argument(
        "--images-per-second", type=float, default=700.0, metavar="X", help="that each worker's model does (700)"
    )
    fleet.add_argument("--batch", type=int, default=32, metavar="N", help="jobs of a batch (32)")
    fleet.add_argument("--seconds", type=float, default=5.0, metavar="S", help="for which each fleet is measured (5)")
    fleet.add_argument("--no-ledger", action="store_true", help="keep no embeddings")
    fleet.add_argument("--redis-url", metavar="URL", help="measure that Redis; without, one of the bench's own")
    fleet.add_argument("--empty-that-redis", action="store_true", help="yes, all that is in --redis-url may go")
    fleet.add_argument("--json", action="store_true", help="print one JSON object a row, each as it is measured")


def _fleet(options: argparse.Namespace) -> int:
    if min([*options.workers, options.batch, options.images_per_second, options.seconds]) <= 0:
        raise UsageError("--workers, --batch, --images-per-second and --seconds are above 0")
    if options.redis_url and not options.empty_that_redis:
        raise UsageError("the bench empties the Redis that it measures; add --empty-that-redis where that may be")
    if options.redis_url:
        require_redis(open_redis(options.redis_url), mask_url(options.redis_url))
    from worker.bench.fleet import bench_fleet

    table = Table("fleet", "jobs/s", "of models", "Redis", "µs a job", "workers", "µs a job", "ceiling")
    with nullcontext((options.redis_url, None)) if options.redis_url else embedded_redis() as (url, _):
        for row in bench_fleet(
            url, options.workers, options.images_per_second, options.batch, options.seconds,
            not options.no_ledger, say,
        ):  # fmt: skip
            if options.json:
                print_json(rounded(asdict(row)))
            table.add_row(
                str(row.workers), f"{row.jobs_per_second:,.0f}", f"{row.of_models:.0%}", f"{row.redis_cores:.2f}",
                f"{row.redis_microseconds_per_job:.0f}", f"{row.worker_cores:.2f}",
                f"{row.worker_microseconds_per_job:.0f}", f"{row.redis_ceiling:,.0f}",
            )  # fmt: skip
            say(f"{row.workers} workers: Redis spent its commands' time on {row.commands}")
    if not options.json:
        Console().print(table)
        print("of models: of what the workers' models alone could do; Redis, workers: cores that they filled")
        print("ceiling: jobs/s that would fill a core of Redis")
    return 0
