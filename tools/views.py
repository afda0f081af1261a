"""Measure what views find and cost, on the packaged model: `python -m tools.views`.

In: the demo's drawings and policy, made photographs. Out: tables of recall, false alarms, views and images a second.
The drawings are the ones that the limits in `worker.intake.views` were chosen on.
"""

from __future__ import annotations

import io
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops

from worker import app as sluice
from worker.bench.pipeline import photographs
from worker.cli import demo
from worker.intake.decode import decode
from worker.intake.square import View, square
from worker.records import ACTION_ORDER, Action
from worker.scoring import score
from worker.settings import Settings
from worker.verdict import decide

MODES = ("single", "whole", "tiles")
SIDE, PLACES = 256, 9
BACKGROUNDS = ("white", "soft")
#: Of the demo's drawings, what its policy means to catch.
OFFENDING = (
    "beer-mug-fluent", "bomb-fluent", "cigarette-twemoji", "coffin-noto", "dagger-twemoji", "middle-finger-noto",
    "revolver-noto", "skull-fluent", "slot-machine-noto", "syringe-twemoji", "wine-glass-noto",
)  # fmt: skip


class Bench:
    """The packaged model under the demo policy."""

    def __init__(self) -> None:
        self.settings = Settings(model="builtin", policies="policies", policy="demo")
        self.app = sluice.build(self.settings, None)
        self.spec = sluice.view_spec(self.app.encoder, self.settings)
        self.compiled = self.app.pipeline.compile(self.app.policies.deciding("demo", ""))

    def act(self, views: Sequence[View]) -> Action:
        """Judge one image's views."""
        return decide(self.compiled, score(self.app.encoder.embed_images(views), self.compiled)).action

    def look(self, data: bytes, mode: str) -> tuple[View, ...]:
        """Decode in a mode."""
        return decode(data, sluice.decode_limits(self.settings), replace(self.spec, mode=mode)).views


def drawings(side: int) -> dict[str, Image.Image]:
    """Read the demo's drawings."""
    files = sorted((Path(demo.__file__).parent / "demo_images").glob("*.png"))
    return {file.stem: Image.open(file).convert("RGB").resize((side, side), Image.Resampling.LANCZOS) for file in files}


def hidden(drawing: Image.Image, aspect: float, background: str) -> Iterator[Image.Image]:
    """Put a drawing at places of flat and tall images."""
    long = round(SIDE * aspect)
    for size in ((long, SIDE), (SIDE, long)):
        for place in range(PLACES):
            at = [round(place * (size[0] - drawing.width) / (PLACES - 1)),
                  round((place * 2 % PLACES) * (size[1] - drawing.height) / (PLACES - 1))]  # fmt: skip
            if size[0] < size[1]:
                at = [round((place * 2 % PLACES) * (size[0] - drawing.width) / (PLACES - 1)),
                      round(place * (size[1] - drawing.height) / (PLACES - 1))]  # fmt: skip
            image = Image.new("RGB", size, "white")
            image.paste(drawing, (at[0], at[1]))
            if background == "soft":
                colours = np.random.default_rng(0).integers(150, 256, (3, 4, 3), dtype=np.uint8)
                image = ImageChops.multiply(image, Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC))
            yield image


def recall(
    bench: Bench, aspects: Sequence[float], side: int, ways: Callable[[Image.Image], dict[str, Sequence[View]]]
) -> None:
    """Print for each background, aspect and way: recall / false alarms (views an image)."""
    plain = {name: bench.act(bench.look(_png(drawing), "single")) for name, drawing in drawings(SIDE).items()}
    for background in BACKGROUNDS:
        for aspect in aspects:
            kept, alarms, views, asked = Counter[str](), Counter[str](), Counter[str](), Counter[bool]()
            for name, drawing in drawings(side).items():
                for image in hidden(drawing, aspect, background):
                    asked[name in OFFENDING] += 1
                    for way, seen in ways(image).items():
                        change = ACTION_ORDER[bench.act(seen)] - ACTION_ORDER[plain[name]]
                        views[way] += len(seen)
                        kept[way] += name in OFFENDING and change >= 0
                        alarms[way] += name not in OFFENDING and change > 0
            cells = (
                f"{way} {kept[way] / asked[True]:.2f} / {alarms[way] / asked[False]:.2f} "
                f"({views[way] / asked.total():.1f})"
                for way in views
            )
            print(f"{background:6} {side} {aspect:4.2f}  " + "   ".join(cells), flush=True)


def squares(bench: Bench) -> Callable[[Image.Image], dict[str, Sequence[View]]]:
    """Compare the centre, one squashed view, and two squares at the ends."""
    crop = (bench.spec.crop, bench.spec.crop)

    def ways(image: Image.Image) -> dict[str, Sequence[View]]:
        short = min(image.size)
        ends = ((0, 0, short, short), (image.width - short, image.height - short, *image.size))
        return {
            "centre": [square(image, bench.spec)],
            "squashed": [np.asarray(image.resize(crop, Image.Resampling.BICUBIC))],
            "two squares": [np.asarray(image.resize(crop, Image.Resampling.BICUBIC, box)) for box in ends],
        }

    return ways


def cost(bench: Bench) -> None:
    """Print views and images a second of photographs, in one thread of decoding, each mode in turns."""
    for width, height, count in ((500, 375, 64), (1200, 1200, 16), (1920, 1080, 16), (4000, 3000, 8)):
        files = photographs(count, width, height)
        best: dict[str, tuple[float, float, float]] = {}
        for _ in range(3):
            for mode in MODES:
                started = time.perf_counter()
                images = [bench.look(data, mode) for data in files]
                decoded = time.perf_counter()
                bench.app.encoder.embed_images([view for views in images for view in views])
                ended = time.perf_counter()
                found = (count / (ended - started), sum(map(len, images)) / count, (decoded - started) / count)
                best[mode] = max(best.get(mode, found), found)
        for mode, (rate, views, seconds) in best.items():
            print(
                f"{width}x{height} {mode:6} {views:5.1f} views {rate:7.1f} images/s, decoding {1e3 * seconds:5.1f} ms"
            )


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def main() -> None:
    """Measure what is named: squares, modes, cost."""
    bench = Bench()
    wanted = sys.argv[1:] or ["squares", "modes", "cost"]
    if "squares" in wanted:
        recall(bench, (1.0, 1.1, 1.2, 4 / 3, 1.5, 16 / 9, 2.0), round(0.95 * SIDE), squares(bench))
    if "modes" in wanted:
        for side in (SIDE, SIDE // 2):
            recall(
                bench, (1.0, 4 / 3, 16 / 9, 3.0), side,
                lambda image: {mode: bench.look(_png(image), mode) for mode in MODES},
            )  # fmt: skip
    if "cost" in wanted:
        cost(bench)


if __name__ == "__main__":
    main()
