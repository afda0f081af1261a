"""The command `python -m tools.conformance`.

In: arguments. Out: findings on stdout and an exit code: 0 nothing lost, 1 something was found, 2 wrong usage, 3 RQ's
tests or a Redis cannot be had.
"""

from __future__ import annotations

import argparse
import json
import platform
import signal
import sys
import tempfile
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import tools.conformance
from tools.conformance.comparison import BadList, Comparison, read_list
from tools.conformance.plugin import BadWorker, load
from tools.conformance.source import NoSource, unpack_tests
from tools.conformance.suite import Limits, Run, run_suite
from worker.errors import SluiceError

_HERE = Path(__file__).parent
_CACHE = _HERE.parents[1] / ".work" / "conformance"
_TESTS = _HERE.parents[1] / "tests"
#: In that directory, which is on the path of a run.
_WORKER = "conformance_worker.AnyFunctionWorker"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.conformance", description=tools.conformance.__doc__)
    parser.add_argument("--worker", default=_WORKER, help="dotted path of the worker class (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one object instead of tables")
    parser.add_argument("--keep-baseline", action="store_true", help="do not run RQ's own classes again")
    parser.add_argument("--test-seconds", type=float, default=120, help="for one test (default: %(default)s)")
    parser.add_argument("--total-seconds", type=float, default=1500, help="for one run (default: %(default)s)")
    parser.add_argument("--cannot-apply", type=Path, default=_HERE / "cannot_apply.yaml", help="the list to hold to")
    parser.add_argument("select", nargs="*", help="such as tests/test_worker.py; everything without")
    return parser


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _run(worker: str, limits: Limits, select: list[str]) -> Run:
    _say(f"running RQ {version('rq')}'s tests with {worker or 'its own classes'}")
    with tempfile.TemporaryDirectory(prefix="conformance-", ignore_cleanup_errors=True) as directory:
        unpack_tests(_CACHE, Path(directory))
        run = run_suite(Path(directory), worker, limits, select)
        if not run.ends:
            _say((Path(directory) / "log").read_text()[-2000:])
        return run


def _baseline(limits: Limits, select: list[str], keep: bool) -> Run:
    """Run RQ's own classes, or take what they did last time under the same versions."""
    versions = (version("rq"), version("redis"), version("pytest"), platform.python_version())
    kept = _CACHE / f"baseline-{'-'.join(versions)}.json"
    if keep and kept.exists():
        run = Run(**json.loads(kept.read_text()))
        run.ends = {test: end for test, end in run.ends.items() if not select or test.startswith(tuple(select))}
        return run
    run = _run("", limits, select)
    if run.complete and not select:
        kept.write_text(json.dumps(asdict(run)))
    return run


def main(arguments: list[str] | None = None) -> int:
    """Compare, print, and return the exit code."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    limits = Limits(options.test_seconds, options.total_seconds)
    try:
        listed = read_list(options.cannot_apply)
        sys.path.append(str(_TESTS))
        load(options.worker)
        stock = _baseline(limits, options.select, options.keep_baseline)
        ours = _run(options.worker, limits.beside(stock), options.select)
    except (BadList, BadWorker) as error:
        _say(str(error))
        return 2
    except (NoSource, SluiceError) as error:
        _say(str(error))
        return 3
    if options.select:
        listed = {test: reason for test, reason in listed.items() if test.startswith(tuple(options.select))}
    comparison = Comparison(stock, ours, listed)
    if options.json:
        print(json.dumps(comparison.as_json()))
    else:
        print("\n".join(comparison.lines()))
    return 0 if comparison.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
