"""Render every drawing of the packages to 72 px RGBA and write one store per style.

In: `--packages node_modules`. Out: `<style>.npy` (uint8, premultiplied RGBA), `<style>.json` (concept keys),
`concepts.json`, `licences.json`. Never renders again what is already there.
"""

from __future__ import annotations

import argparse
import io
import json
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import resvg_py
from PIL import Image
from rich.progress import Progress

from tools.packaged_clip.names import ConceptNames
from tools.packaged_clip.sources import Source, drawings, licence_records, styles

#: Side of a stored drawing, in pixels; the model's image size.
STORED_PIXELS = 72
#: Side of the rendering before it is averaged down, in pixels.
RENDERED_PIXELS = 2 * STORED_PIXELS


def render(drawing: str | bytes, pixels: int = RENDERED_PIXELS) -> np.ndarray:
    """Draw an SVG or decode an image onto a transparent square.

    Args:
        drawing: SVG text, or the bytes of an image file.
        pixels: Side of the square in pixels.

    Returns:
        uint8 array of shape (pixels, pixels, 4), RGBA with the colours multiplied by alpha.
    """
    if isinstance(drawing, str):
        longest = {"height": pixels} if _is_tall(drawing) else {"width": pixels}
        drawing = bytes(resvg_py.svg_to_bytes(svg_string=drawing, skip_system_fonts=True, **longest))
    image = Image.open(io.BytesIO(drawing)).convert("RGBA")
    image.thumbnail((pixels, pixels), Image.Resampling.BOX)
    square = Image.new("RGBA", (pixels, pixels))
    square.paste(image, ((pixels - image.width) // 2, (pixels - image.height) // 2))
    rgba = np.asarray(square).astype(np.uint16)
    rgba[..., :3] = (rgba[..., :3] * rgba[..., 3:] + 127) // 255
    return rgba.astype(np.uint8)


def _is_tall(svg: str) -> bool:
    width, height = (float(x) for x in svg.split('viewBox="', 1)[1].split('"', 1)[0].split()[2:])
    return height > width


def _render_stored(drawing: str | bytes) -> np.ndarray | None:
    try:
        large = render(drawing).astype(np.uint16)
    except (ValueError, OSError):
        return None
    side = STORED_PIXELS
    small = large.reshape(side, 2, side, 2, 4).sum((1, 3))
    return ((small + 2) // 4).astype(np.uint8)


def build_style(packages: Path, source: Source, names: ConceptNames, out: Path, pool: ProcessPoolExecutor) -> int:
    """Render one style into its store, the first drawing of each concept only.

    Returns:
        How many drawings the store holds.
    """
    listing = out / f"{source.name}.json"
    if listing.exists():
        return len(json.loads(listing.read_text(encoding="utf-8")))
    chosen: dict[str, str | bytes] = {}
    for slug, drawing in drawings(packages, source):
        concept = names.concept(source.name, slug)
        if concept is not None:
            chosen.setdefault(concept, drawing)
    images = list(pool.map(_render_stored, chosen.values(), chunksize=16))
    kept = [(c, i) for c, i in zip(chosen, images, strict=True) if i is not None and i[..., 3].any()]
    np.save(out / f"{source.name}.npy", np.stack([i for _, i in kept]))
    listing.write_text(json.dumps([c for c, _ in kept]), encoding="utf-8")
    return len(kept)


def main() -> None:
    """Render all styles; see the module docstring for what is written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packages", type=Path, required=True, help="a node_modules directory")
    parser.add_argument("--out", type=Path, required=True, help="where the stores are written")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    names = ConceptNames(arguments.packages)
    with ProcessPoolExecutor(os.cpu_count()) as pool, Progress() as progress:
        for source in progress.track(styles(), description="rendering styles"):
            count = build_style(arguments.packages, source, names, arguments.out, pool)
            progress.console.print(f"{source.name}: {count} drawings")
    for name, record in (
        ("concepts.json", names.emoji),
        ("licences.json", licence_records(arguments.packages)),
    ):
        (arguments.out / name).write_text(json.dumps(record, indent=1, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
