"""Render the drawings of `sluice demo`: `python -m tools.packaged_clip.demo_images --help`.

In: the npm packages. Out: 256 px PNGs on white and `LICENCES.md`, in `worker/cli/demo_images/`.
Takes drawings from trained, openly licensed styles only.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from tools.packaged_clip.data import render
from tools.packaged_clip.names import REVOLVER, ConceptNames
from tools.packaged_clip.sources import SOURCES, drawings, licence_records

#: Side of a picture and of the drawing on it, in pixels.
PICTURE_PIXELS, DRAWING_PIXELS = 256, 224

#: File stem → style and concept: what a policy should catch, what is borderline, what is innocent.
PICTURES = {
    "revolver-noto": ("noto-v1", REVOLVER),
    "dagger-twemoji": ("twemoji", "1F5E1"),
    "bomb-fluent": ("fluent-emoji", "1F4A3"),
    "beer-mug-fluent": ("fluent-emoji", "1F37A"),
    "wine-glass-noto": ("noto", "1F377"),
    "cigarette-twemoji": ("twemoji", "1F6AC"),
    "slot-machine-noto": ("noto", "1F3B0"),
    "syringe-twemoji": ("twemoji", "1F489"),
    "skull-fluent": ("fluent-emoji", "1F480"),
    "coffin-noto": ("noto", "26B0"),
    "middle-finger-noto": ("noto", "1F595"),
    "kitchen-knife-noto": ("noto", "1F52A"),
    "water-pistol-fluent": ("fluent-emoji", "1F52B"),
    "juice-box-twemoji": ("twemoji", "1F9C3"),
    "ghost-noto": ("noto", "1F47B"),
    "birthday-cake-twemoji": ("twemoji", "1F382"),
    "cat-face-noto": ("noto", "1F431"),
    "dog-face-fluent": ("fluent-emoji", "1F436"),
    "hot-drink-noto": ("noto", "2615"),
    "car-twemoji": ("twemoji", "1F697"),
    "sunflower-noto": ("noto", "1F33B"),
    "red-apple-fluent": ("fluent-emoji", "1F34E"),
    "football-noto": ("noto", "26BD"),
    "house-twemoji": ("twemoji", "1F3E0"),
    "guitar-fluent": ("fluent-emoji", "1F3B8"),
}

#: Who made the drawings of a style, and where the licence's text is.
AUTHORS = {
    "noto": ("Noto Emoji, Google", "https://www.apache.org/licenses/LICENSE-2.0"),
    "noto-v1": ("Noto Emoji (version 1), Google", "https://www.apache.org/licenses/LICENSE-2.0"),
    "twemoji": (
        "Twemoji, Copyright Twitter, Inc and other contributors",
        "https://creativecommons.org/licenses/by/4.0/",
    ),
    "fluent-emoji": ("Fluent Emoji, Copyright Microsoft Corporation", "https://opensource.org/license/mit"),
}


def picture(drawing: str | bytes) -> Image.Image:
    """Render a drawing in the middle of a white square."""
    rgba = render(drawing, DRAWING_PIXELS).astype(np.int16)
    rgb = (rgba[..., :3] + 255 - rgba[..., 3:]).clip(0, 255).astype(np.uint8)
    square = Image.new("RGB", (PICTURE_PIXELS, PICTURE_PIXELS), "white")
    margin = (PICTURE_PIXELS - DRAWING_PIXELS) // 2
    square.paste(Image.fromarray(rgb), (margin, margin))
    return square


def licence_table(packages: Path) -> str:
    """Write the table of files, sources and licences."""
    records = {record["name"]: record for record in licence_records(packages)}
    lines = [
        "# Where these drawings come from",
        "",
        "Each drawing was rendered to a PNG on white and is otherwise unchanged. Written by "
        "`tools/packaged_clip/demo_images.py`.",
        "",
        "| file | author | upstream | package | licence |",
        "|---|---|---|---|---|",
    ]
    for stem, (style, _) in PICTURES.items():
        author, text = AUTHORS[style]
        record = records[style]
        lines.append(
            f"| {stem}.png | {author} | {record['upstream']} | {record['package']} {record['version']} "
            f"| [{record['licence']}]({text}) |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Render all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packages", type=Path, required=True, help="a node_modules directory")
    parser.add_argument("--out", type=Path, default=Path("worker/cli/demo_images"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    names = ConceptNames(arguments.packages)
    for style in {style for style, _ in PICTURES.values()}:
        source = next(s for s in SOURCES if s.name == style)
        wanted = {concept: stem for stem, (s, concept) in PICTURES.items() if s == style}
        for slug, drawing in drawings(arguments.packages, source):
            stem = wanted.pop(names.concept(style, slug) or "", None)
            if stem:
                picture(drawing).save(arguments.out / f"{stem}.png", optimize=True)
    (arguments.out / "LICENCES.md").write_text(licence_table(arguments.packages), encoding="utf-8")


if __name__ == "__main__":
    main()
