"""`make fuzz`: mutants of the corpus through decoder processes, for as long as it is given.

In: --seconds, --seed, --processes. Out: how they ended, what took longest; files that crash or hang in .work/fuzz.
Ends with 1 where a decoder has a defect, gives an answer that is none, or this process grows.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from fuzz.corpus import corpus, seeds
from fuzz.mutants import Mutator
from fuzz.parts import CRASHED, SLOW, VERDICT
from PIL import Image

from worker.cores import usable_cores
from worker.errors import JobError
from worker.intake.cell import Bounds
from worker.intake.decode import Limits
from worker.intake.sandbox import Decoded, Decoder
from worker.intake.square import ViewSpec
from worker.intake.structure import format_by_signature

_MIB = 1024 * 1024
_LIMITS = Limits(20 * _MIB, 50_000_000, ("JPEG", "PNG", "WEBP", "GIF", "AVIF"))
_SPEC = ViewSpec(32, 32, Image.Resampling.BICUBIC.value, mode="whole")
_BOUNDS = Bounds(timeout_seconds=5, memory_bytes=640 * _MIB)
_KEPT = Path(".work/fuzz")
#: After so many files what is loaded once is loaded; after that the process stays as large, but for so much.
_WARM_FILES, _GROWTH_BYTES = 500, 64 * _MIB


@dataclass
class Found:
    """What became of all mutants."""

    ends: Counter[tuple[str, str]] = field(default_factory=Counter)
    slowest: tuple[float, str] = (0.0, "")
    findings: list[str] = field(default_factory=list)
    files: int = 0
    warm_bytes: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, data: bytes, end: str, seconds: float, text: str = "") -> None:
        """Count a file; keep it where that is worth a look."""
        is_finding = end == "defect" or (end == CRASHED and "not one" in text)
        kept = keep(data, end) if is_finding or end in (CRASHED, SLOW) else ""
        with self.lock:
            self.files += 1
            self.ends[str(format_by_signature(data)), end] += 1
            if seconds > self.slowest[0]:
                self.slowest = (seconds, keep(data, "slowest"))
            if is_finding:
                self.findings.append(f"{end}: {kept}: {text.strip().splitlines()[-1]}")
            elif kept:
                print(f"{end}: {kept}: {text}")
            if self.files == _WARM_FILES:
                self.warm_bytes = psutil.Process().memory_info().rss


def keep(data: bytes, end: str) -> str:
    """Write a file for whoever wants to see it again."""
    _KEPT.mkdir(parents=True, exist_ok=True)
    path = _KEPT / ("slowest" if end == "slowest" else f"{end}-{hashlib.sha256(data).hexdigest()[:16]}")
    path.write_bytes(data)
    return str(path)


def fuzz(decoder: Decoder, mutator: Mutator, until: float, found: Found) -> None:
    """Decode mutants until a time on the monotonic clock."""
    while (start := time.monotonic()) < until:
        data = mutator.throw()
        try:
            (image,) = decoder([data])
        except RuntimeError as error:
            found.add(data, "defect", time.monotonic() - start, str(error))
        else:
            found.add(data, end_of(image), time.monotonic() - start, str(image) if isinstance(image, JobError) else "")


def end_of(image: Decoded) -> str:
    """Name how a file ended; a verdict on what has no view would be a defect."""
    if isinstance(image, JobError):
        return image.reason
    is_whole = image.views and all(view.shape == (_SPEC.crop, _SPEC.crop, 3) for view in image.views)
    return VERDICT if is_whole else "defect"


def report(found: Found, seed: int, seconds: float) -> int:
    """Print what was found; the exit code."""
    print(f"{found.files} mutants in {seconds:.0f} s, seed {seed}")
    for (format, end), count in sorted(found.ends.items()):
        print(f"{format:>6} {end:<22} {count:>8}")
    print(f"slowest: {found.slowest[0]:.2f} s, {found.slowest[1]}")
    grown = psutil.Process().memory_info().rss - (found.warm_bytes or psutil.Process().memory_info().rss)
    print(f"grown by {grown // _MIB} MiB")
    if grown > _GROWTH_BYTES:
        found.findings.append(f"this process grew by {grown // _MIB} MiB")
    for finding in found.findings:
        print(finding, file=sys.stderr)
    return 1 if found.findings else 0


def main() -> int:
    """Fuzz."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=random.randrange(10**9), help="repeats a run, in one process")
    parser.add_argument("--processes", type=int, default=usable_cores())
    asked = parser.parse_args()
    files = [upload.data for upload in seeds(corpus())]
    decoder = Decoder(_LIMITS, _SPEC, _BOUNDS, asked.processes)
    found, begin = Found(), time.monotonic()
    with ThreadPoolExecutor(asked.processes) as threads:
        runs = [
            threads.submit(fuzz, decoder, Mutator(files, random.Random(asked.seed + at)), begin + asked.seconds, found)
            for at in range(asked.processes)
        ]
    decoder.close()
    for run in runs:
        run.result()
    return report(found, asked.seed, time.monotonic() - begin)


if __name__ == "__main__":
    sys.exit(main())
