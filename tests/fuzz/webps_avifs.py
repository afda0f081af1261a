"""WebPs and AVIFs: files of a few bytes that claim much, cut ones, sequences, grids.

In: nothing. Out: uploads. Never one that is not made here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache

from fuzz.parts import (
    BLUE,
    BROKEN,
    GREEN,
    HUNGRY,
    LARGE,
    RED,
    REFUSED,
    SLOW,
    TRUNCATED,
    VERDICT,
    WHITE,
    Upload,
    animate,
    box,
    damaged,
    encode,
    exif,
    picture,
    plain,
    riff,
    upload,
    with_still,
)
from PIL import Image

_TEAL = (0, 128, 128)


def webps_and_avifs() -> Iterator[Upload]:
    """Yield all."""
    yield from _webps()
    yield from _webps_of_parts()
    yield from _avifs()
    for format, files in (("webp", _webp_files()), ("avif", _avif_files())):
        for name, data in files.items():
            yield from _cut(f"{format}, {name}", data, format)


def _cut(name: str, data: bytes, format: str) -> Iterator[Upload]:
    for share in (1, 5, 25, 50, 75, 90, 99):
        ends = (TRUNCATED,) if format == "webp" and share > 20 else (TRUNCATED, BROKEN)
        yield upload(f"{name} cut at {share} %", data[: len(data) * share // 100], *ends)
    yield upload(f"{name} without its last byte", data[:-1], TRUNCATED, BROKEN)
    if format == "webp":
        short = data[: len(data) * 3 // 4]
        mended = damaged(short, 4, *struct.pack("<I", len(short) - 8))
        yield upload(f"{name} cut, with its length mended", mended, TRUNCATED, BROKEN)


@cache
def _webp_files() -> dict[str, bytes]:
    three = [plain(colour) for colour in (RED, GREEN, BLUE)]
    return {
        "lossy": encode(picture(), "WEBP"),
        "lossless": encode(picture(), "WEBP", lossless=True),
        "with alpha": encode(picture().convert("RGBA"), "WEBP", exif=exif(6)),
        "animated": animate(three, "WEBP", lossless=True),
    }


def _webps() -> Iterator[Upload]:
    for name, data in _webp_files().items():
        yield upload(f"webp, {name}", data, VERDICT, shows=BLUE if name == "animated" else None)
    for orientation in range(10):
        data = encode(plain(RED), "WEBP", exif=exif(orientation))
        yield upload(f"webp of orientation {orientation}", data, VERDICT, shows=RED)
    turned = animate([plain(RED), plain(GREEN)], "WEBP", exif=exif(6), lossless=True)
    yield upload("animated webp of orientation 6", turned, VERDICT, shows=GREEN)
    clear = encode(plain((255, 0, 0, 0), "RGBA"), "WEBP", lossless=True, exact=True)
    yield upload("webp of nothing", clear, VERDICT, shows=WHITE)
    yield upload("webp of 1 x 16383", encode(picture(1, 16_383), "WEBP"), VERDICT)
    red = encode(plain(RED), "WEBP", lossless=True)
    yield upload("webp with a script behind it", red + b"<script>" * 100, VERDICT, shows=RED)
    large = encode(plain((0, 128, 128), size=(7_000, 7_000)), "WEBP", lossless=True, method=0, quality=0)
    yield upload("webp of 49 megapixels in a few bytes", large, HUNGRY, SLOW)
    many = animate([picture(16, 16, seed) for seed in range(80)], "WEBP")
    yield upload("webp of 80 frames", many, VERDICT)
    last = animate([plain(GREEN)] * 9 + [plain(RED)], "WEBP", lossless=True)
    yield upload("webp whose last frame differs", last, VERDICT, shows=RED)


def _vp8l(width: int, height: int, body: bytes = bytes(15)) -> bytes:
    return b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14) + body


def _webps_of_parts() -> Iterator[Upload]:
    yield upload("webp of 16383 x 16383 in 40 bytes", riff((b"VP8L", _vp8l(16_383, 16_383))), LARGE, BROKEN)
    for width, height in ((7_000, 7_000), (16_383, 3_000), (64, 64)):
        data = riff((b"VP8L", _vp8l(width, height)))
        yield upload(f"webp of {width} x {height} in 40 bytes", data, BROKEN, HUNGRY, TRUNCATED)
    frame = _webp_files()["lossless"][12:]
    for width, height in ((2**24, 2**24), (2**24, 1), (0x1000, 0x1000), (1, 1)):
        size = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
        data = riff((b"VP8X", bytes(4) + size), (b"VP8L", frame[8:]))
        yield upload(f"webp with a canvas of {width} x {height}", data, BROKEN, LARGE, TRUNCATED)
    yield upload("webp of nothing but its name", riff(), BROKEN)
    yield upload("webp with an unknown part", riff((b"ABCD", bytes(100))), BROKEN)
    yield upload("webp with a wave", b"RIFF\x24\0\0\0WAVEfmt " + bytes(40), BROKEN)
    animated = _webp_files()["animated"]
    for length in (0, 4, 2**31, 2**32 - 1):
        wrong = damaged(animated, 4, *struct.pack("<I", length))
        yield upload(f"webp with {length} for its length", wrong, BROKEN, TRUNCATED)
    at = animated.index(b"ANMF")
    for name, values in {"outside": (255, 255, 255), "in the middle": (20, 0, 0)}.items():
        yield upload(f"webp with a frame {name}", damaged(animated, at + 8, *values), BROKEN, TRUNCATED)
    broken = damaged(animated, animated.rindex(b"VP8L") + 8, *bytes(10))
    yield upload("webp whose last frame is broken", broken, BROKEN, TRUNCATED)
    still = damaged(animated, animated.index(b"VP8X") + 8, 0)
    yield upload("animated webp that says it is not", still, BROKEN, TRUNCATED, VERDICT)
    begin, end = animated[:at], animated[at:]
    one = end[: 8 + int.from_bytes(end[4:8], "little")]
    much = begin + one * 1_500
    yield upload("webp of 1,500 frames", damaged(much, 4, *struct.pack("<I", len(much) - 8)), LARGE)
    for kind in (b"ICCP", b"EXIF", b"XMP "):
        data = riff((b"VP8X", b"\x2c\0\0\0" + b"\x2f\0\0\x27\0\0"), (kind, bytes(5_000_000)), (b"VP8L", frame[8:]))
        yield upload(f"webp with 5 megabytes of {kind.decode()}", data)


@cache
def _avif_files() -> dict[str, bytes]:
    three = [plain(colour) for colour in (RED, GREEN, BLUE)]
    return {
        "still": encode(picture(), "AVIF", speed=10),
        "with alpha": encode(_faded(), "AVIF", speed=10),
        "sequence": animate(three, "AVIF", speed=10),
    }


def _faded() -> Image.Image:
    image = picture().convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


def _avifs() -> Iterator[Upload]:
    for name, data in _avif_files().items():
        yield upload(f"avif, {name}", data, VERDICT)
    for subsampling in ("4:4:4", "4:2:2", "4:2:0", "4:0:0"):
        data = encode(picture(), "AVIF", subsampling=subsampling, speed=10)
        yield upload(f"avif of {subsampling}", data, VERDICT)
    for orientation in range(10):
        data = encode(plain(RED), "AVIF", exif=exif(orientation), speed=10)
        yield upload(f"avif of orientation {orientation}", data, VERDICT, shows=RED)
    grid = encode(picture(256, 256), "AVIF", speed=10, tile_rows=1, tile_cols=1)
    yield upload("avif in tiles", grid, VERDICT)
    last = animate([plain(GREEN, size=(32, 32))] * 5 + [plain(RED, size=(32, 32))], "AVIF", speed=10)
    yield upload("avif whose last frame differs", last, VERDICT, shows=RED)
    hidden = with_still(_avif_files()["sequence"], encode(plain(_TEAL), "AVIF", speed=10))
    yield upload("avif sequence with another still", hidden, VERDICT, shows=_TEAL)
    yield upload("avif sequence that calls itself an image", damaged(hidden, 8, *b"avif"), BROKEN)
    data = _avif_files()["still"]
    size = data.index(b"ispe") + 8
    for width, height in ((0, 0), (1, 1), (16_384, 1), (65_536, 65_536), (7_000, 7_000)):
        wrong = damaged(data, size, *struct.pack(">II", width, height))
        yield upload(f"avif of {width} x {height} in its header", wrong)
    for kind in (b"meta", b"iloc", b"iinf", b"iprp", b"av1C", b"pitm", b"mdat"):
        at = data.index(kind) - 4
        for length in (0, 7, 2**32 - 1):
            yield upload(f"avif with {length} for its {kind.decode()}", damaged(data, at, *struct.pack(">I", length)))
    yield upload("avif of its brand only", box(b"ftyp", b"avif\0\0\0\0avifmif1"), BROKEN, TRUNCATED)
    yield upload(
        "avif nested a thousand times", box(b"ftyp", b"avif\0\0\0\0avifmif1") + _nested(1_000), BROKEN, TRUNCATED
    )
    yield upload("avif with zeros behind it", data + bytes(1_000))
    for brand, ends in {b"heic": (REFUSED,), b"heix": (REFUSED,), b"mif1": (), b"msf1": (), b"mp42": (BROKEN,)}.items():
        named = damaged(data, 8, *brand)
        yield upload(f"avif that calls itself {brand.decode()}", named, *ends)


def _nested(depth: int) -> bytes:
    data = b""
    for _ in range(depth):
        data = box(b"meta", bytes(4) + data)
    return data
