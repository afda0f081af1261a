"""Many pictures from the few of the demonstration: turned, resized and moved on backgrounds of other colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from worker.cli import demo

DRAWINGS = Path(demo.__file__).parent / "demo_images"
#: What the first words of a drawing's name say of it.
SHOWN = {"weapons": ("revolver", "dagger"), "alcohol": ("beer-mug", "wine-glass"), "death": ("coffin", "skull")}
_SIDE = 160


def write_drawings(directory: Path, each: int, seed: int = 0) -> list[str]:
    """Write so many variations of each drawing; their names without endings."""
    random = np.random.default_rng(seed)
    directory.mkdir()
    names = []
    for file in sorted(DRAWINGS.glob("*.png")):
        drawing = Image.open(file).convert("RGBA")
        for number in range(each):
            names.append(f"{file.stem}-{number}")
            _vary(drawing, random).save(directory / f"{names[-1]}.png")
    return names


def _vary(drawing: Image.Image, random: np.random.Generator) -> Image.Image:
    picture = Image.new("RGBA", (_SIDE, _SIDE), (*random.integers(200, 256, 3).tolist(), 255))
    side = int(random.integers(100, 150))
    turned = drawing.resize((side, side)).rotate(float(random.uniform(-12, 12)), Image.Resampling.BICUBIC)
    picture.alpha_composite(turned, tuple(int(random.integers(0, _SIDE - side + 1)) for _ in range(2)))
    return picture.convert("RGB")


def write_labels(file: Path, names: list[str]) -> Path:
    """Write what each drawing shows, of all categories in `SHOWN`."""
    lines = ["content_id,category,label"]
    for name in names:
        for category, first in SHOWN.items():
            lines.append(f"{name},{category},{int(name.startswith(first))}")
    file.write_text("\n".join(lines) + "\n")
    return file
