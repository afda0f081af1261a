"""Tell which concept a drawing shows: slug of a style → code point of an emoji.

In: the names in emojibase, CLDR shortcodes, emojilib and Unicode. Out: concept keys such as `1F37A`,
`REVOLVER` or `game:revolver`. Never guesses: a slug that no table knows is left out.
"""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path
from typing import Any

from tools.packaged_clip.sources import read_slug_to_hexcode

#: Sets draw the pistol as a gun or as a toy; those that draw a gun under the slug `pistol` share one concept.
REVOLVER = "REVOLVER"
#: Styles whose `pistol` is a real gun (looked at by eye).
REAL_GUN_STYLES = frozenset({"noto-v1", "fxemoji", "streamline", "emojione", "openmoji"})

#: Slugs that no table of names knows, by style (looked at by eye).
ALIASES = {
    "fxemoji": {
        "reversehandmiddlefinger": "1F595",
        "blackskullcrossbones": "2620",
        "forkknife": "1F374",
        "bride": "1F470",
        "bunny": "1F430",
        "catside": "1F408",
        "dogside": "1F415",
        "dragonhead": "1F432",
        "evergreen": "1F332",
        "bouquetofflowers": "1F490",
        "devilhorns": "1F608",
        "chilipepper": "1F336",
        "cellphone": "1F4F1",
    },
    "streamline": {"game-dice": "1F3B2", "red-wine-glass": "1F377"},
}

_SKIN_TONES = {f"{code:X}" for code in range(0x1F3FB, 0x1F400)}


def plain_hexcode(hexcode: str) -> str:
    """Normalise a code point sequence: upper case, no variation selectors.

    Args:
        hexcode: Code points joined by `-`, such as `2694-fe0f`.
    """
    return "-".join(p for p in hexcode.upper().split("-") if p != "FE0F").lstrip("0")


def compact(name: str) -> str:
    """Reduce a name to its letters and digits, so that `Alarm_clock` and `alarmclock` meet."""
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]", "", ascii_name.lower().replace("&", "and"))


def read_emoji(packages: Path) -> list[dict[str, Any]]:
    """Read the base emoji (no skin tones) in the order of Unicode."""
    entries = json.loads((packages / "emojibase-data/en/data.json").read_text(encoding="utf-8"))
    base = [dict(e, hexcode=plain_hexcode(e["hexcode"])) for e in entries if "group" in e and e["group"] != 2]
    return [e for e in base if not _SKIN_TONES & set(e["hexcode"].split("-"))]


class ConceptNames:
    """The table from a style's slugs to concept keys."""

    def __init__(self, packages: Path) -> None:
        self.emoji = {e["hexcode"]: e for e in read_emoji(packages)}
        self._by_name: dict[str, str] = {}
        for slug, hexcode in read_slug_to_hexcode(packages).items():
            self._add(slug, hexcode)
        for entry in self.emoji.values():
            self._add(entry["label"], entry["hexcode"])
        for table in ("cldr", "emojibase", "github", "joypixels", "iamcal"):
            path = packages / "emojibase-data/en/shortcodes" / f"{table}.json"
            for hexcode, names in json.loads(path.read_text(encoding="utf-8")).items():
                for name in [names] if isinstance(names, str) else names:
                    self._add(name, hexcode)
        for hexcode in self.emoji:
            if "-" not in hexcode:
                self._add(unicodedata.name(chr(int(hexcode, 16)), ""), hexcode)

    def _add(self, name: str, hexcode: str) -> None:
        hexcode = plain_hexcode(hexcode)
        if name and hexcode in self.emoji:
            self._by_name.setdefault(compact(name), hexcode)

    def concept(self, style: str, slug: str) -> str | None:
        """Find the concept that a drawing shows.

        Args:
            style: Name of the drawing's style, as in `sources.SOURCES`.
            slug: The drawing's name in its package.

        Returns:
            A concept key, or None when the name is unknown or names a variant (skin tone, low detail).
        """
        if style == "game-icons":
            return f"game:{slug}"
        if slug == "pistol" and style in REAL_GUN_STYLES:
            return REVOLVER
        if style == "fluent-3d":
            hexcode = plain_hexcode(slug)
            return hexcode if hexcode in self.emoji else None
        if "skin-tone" in slug:
            return None
        if slug in ALIASES.get(style, {}):
            return ALIASES[style][slug]
        if style == "streamline":
            slug = re.sub(r"-\d+$", "", slug)
        return self._by_name.get(compact(slug.replace("flag-for-", "flag-")))
