"""PNGs and APNGs: bombs, wrong sums and lengths, all kinds of pixels, transparency, gamma, frames that hide.

In: nothing. Out: uploads. Never one that is not made here.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from fuzz.parts import (
    BLACK,
    BLUE,
    BROKEN,
    GREEN,
    HEIGHT,
    IEND,
    LARGE,
    PNG,
    RED,
    TRUNCATED,
    VERDICT,
    WHITE,
    WIDTH,
    Upload,
    animate,
    apng,
    chunk,
    damaged,
    encode,
    exif,
    frame_control,
    header,
    picture,
    plain,
    png,
    rows,
    upload,
)
from PIL import Image

_ALL = (0, 0, WIDTH, HEIGHT)
_R, _G, _B = bytes(RED), bytes(GREEN), bytes(BLUE)


def pngs() -> Iterator[Upload]:
    """Yield all."""
    yield from _whole()
    yield from _bombs()
    yield from _cut()
    yield from _wrong()
    yield from _transparent()
    yield from _animated()
    yield from _frames_that_hide()


def _whole() -> Iterator[Upload]:
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        image = picture().convert("L").convert(mode) if mode == "I;16" else picture().convert(mode)
        yield upload(f"png in {mode}", encode(image), VERDICT)
    planes = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
    palette = chunk(b"PLTE", bytes(range(256)) * 3)
    for colour, depths in {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}.items():
        for depth in depths:
            for interlace in (0, 1):
                size = -(-WIDTH * planes[colour] * depth // 8)
                lines = picture().tobytes()[:size] if size <= WIDTH * HEIGHT * 3 else b""
                table = (chunk(b"PLTE", bytes(range(256))[: 3 << depth] * (3 if depth == 8 else 1)),)
                data = png(
                    *(table if colour == 3 else ()),
                    head=header(depth=depth, colour=colour, interlace=interlace),
                    pixels=(b"\0" + lines) * (HEIGHT * 2),
                )
                ends = (VERDICT,) if not interlace else ()
                yield upload(f"png of colour {colour}, {depth} bits, interlace {interlace}", data, *ends)
    yield upload("png of kind 1", png(head=header(colour=1)), BROKEN)
    yield upload("png of 3 bits", png(head=header(depth=3, colour=0)), BROKEN)
    yield upload("png of interlace 7", png(head=header(interlace=7)))
    yield upload("png with a palette it has no use for", png(palette), VERDICT, shows=RED)
    yield upload("png with no palette", png(head=header(colour=3), pixels=rows(WIDTH, HEIGHT, b"\1")))
    short = png(chunk(b"PLTE", _R), head=header(colour=3), pixels=rows(WIDTH, HEIGHT, b"\xfa"))
    yield upload("png of indices beyond its palette", short)
    yield upload("png of 1 x 16383", encode(picture(1, 16_383)), VERDICT)
    yield upload("png of 16384 x 1", encode(picture(16_384, 1)), LARGE)
    for orientation in (0, 1, 6, 9):
        body = exif(orientation)[6:]
        yield upload(f"png of orientation {orientation}", png(chunk(b"eXIf", body)), VERDICT, shows=RED)


def _bombs() -> Iterator[Upload]:
    zeros = zlib.compress(bytes(100_000_000), 9)
    for kind, start in ((b"zTXt", b"k\0\0"), (b"iCCP", b"k\0\0"), (b"iTXt", b"k\0\1\0\0\0")):
        yield upload(f"png with 100 megabytes in {kind.decode()}", png(chunk(kind, start + zeros)), VERDICT, BROKEN)
    for count in (10, 100):
        text = b"k\0\0" + zlib.compress(bytes(900_000), 9)
        yield upload(f"png with {count} texts of 900 kB", png(chunk(b"zTXt", text) * count), VERDICT, BROKEN)
    yield upload("png with 100 megabytes behind its pixels", png(pixels=rows(WIDTH, HEIGHT) + bytes(10**8)), VERDICT)
    for width, height in ((2**31 - 1, 2**31 - 1), (8_000, 7_500), (40_000, 1), (1, 2**31 - 1)):
        yield upload(f"png of {width} x {height}", png(head=header(width, height), pixels=b""), LARGE)
    yield upload("png of 49 megapixels without them", png(head=header(7_000, 7_000), pixels=b""), TRUNCATED, BROKEN)
    yield upload("png of width 0", png(head=header(0, 40)), BROKEN)
    yield upload("png of height 0", png(head=header(48, 0)), BROKEN)
    yield upload("png of width 2**32 - 1", png(head=header(2**32 - 1, 1)), LARGE)
    yield upload("png of 30,000 chunks", png(chunk(b"tIME", bytes(7)) * 30_000), BROKEN)
    yield upload("png of 15,000 chunks", png(chunk(b"tEXt", b"a\0b") * 15_000), VERDICT, BROKEN, shows=RED)
    body = zlib.compress(rows(WIDTH, HEIGHT), 0)
    single = b"".join(chunk(b"IDAT", body[at : at + 1]) for at in range(len(body)))
    yield upload("png of a byte a chunk", PNG + header() + single + IEND, VERDICT, shows=RED)
    yield upload("png of empty chunks", png(chunk(b"IDAT") * 10_000), VERDICT, BROKEN, shows=RED)


def _cut() -> Iterator[Upload]:
    files = {
        "png": encode(picture()),
        "png with a palette": encode(picture().convert("P")),
        "apng": animate([picture(seed=seed) for seed in range(3)], "PNG"),
    }
    for name, data in files.items():
        for share in (1, 10, 50, 90, 99):
            yield upload(f"{name} cut at {share} %", data[: len(data) * share // 100], TRUNCATED, BROKEN)
        yield upload(f"{name} without its last byte", data[:-1], TRUNCATED)
        yield upload(f"{name} without its end", data[:-12], TRUNCATED)
    half = rows(WIDTH, HEIGHT // 2)
    yield upload("png of half its rows, well packed", png(pixels=half), TRUNCATED)
    yield upload("png of no rows, well packed", png(pixels=b""), TRUNCATED)
    yield upload("png that lacks its last byte, well packed", png(pixels=rows(WIDTH, HEIGHT)[:-1]), TRUNCATED)
    two = png(head=header(interlace=1), pixels=half)
    yield upload("interlaced png of half its rows, well packed", two, TRUNCATED, BROKEN)
    unfinished = zlib.compress(rows(WIDTH, HEIGHT))[:-8]
    yield upload("png whose pixels stop", PNG + header() + chunk(b"IDAT", unfinished) + IEND, TRUNCATED, BROKEN)


def _wrong() -> Iterator[Upload]:
    data = encode(picture())
    yield upload("png with a wrong sum of its header", damaged(data, 29, 0, 0, 0, 0), BROKEN)
    at = data.index(b"IDAT")
    size = int.from_bytes(data[at - 4 : at], "big")
    yield upload("png with a wrong sum of its pixels", damaged(data, at + 4 + size, 0, 0, 0, 0))
    for length in (0, 1, size - 1, size + 1, 2**31 - 1, 2**32 - 1):
        wrong = damaged(data, at - 4, *struct.pack(">I", length))
        yield upload(f"png with {length} for the length of its pixels", wrong, BROKEN, TRUNCATED)
    yield upload("png with a short header", PNG + chunk(b"IHDR", bytes(5)) + IEND, BROKEN, TRUNCATED)
    yield upload("png with no header", PNG + chunk(b"IDAT", zlib.compress(rows(9, 9))) + IEND, BROKEN)
    yield upload("png with two headers", PNG + header(9, 9) + png()[8:], BROKEN)
    yield upload("png with no pixels", PNG + header() + IEND, BROKEN, TRUNCATED)
    yield upload("png with noise for pixels", PNG + header() + chunk(b"IDAT", picture().tobytes()) + IEND, BROKEN)
    yield upload("png of filter 9", png(pixels=rows(WIDTH, HEIGHT).replace(b"\0\xff", b"\x09\xff")), BROKEN)
    yield upload("png with a chunk between its pixels", _parted(chunk(b"tEXt", b"a\0b")), BROKEN, TRUNCATED)
    yield upload("png in a text signature", data[:4] + b"\n\x1a\n" + data[7:], BROKEN)
    yield upload("png with zeros behind it", data + bytes(100_000), VERDICT)
    yield upload("png with another behind it", png() + data, VERDICT, shows=RED)


def _parted(between: bytes) -> bytes:
    body = zlib.compress(rows(WIDTH, HEIGHT))
    return PNG + header() + chunk(b"IDAT", body[:10]) + between + chunk(b"IDAT", body[10:]) + IEND


def _transparent() -> Iterator[Upload]:
    for mode, colour in (("RGBA", (255, 0, 0, 0)), ("LA", (40, 0)), ("RGBA", (255, 0, 0, 1))):
        yield upload(f"png of nothing in {mode}, alpha {colour[-1]}", encode(plain(colour, mode)), VERDICT, shows=WHITE)
    alpha = picture().convert("RGBA")
    alpha.putalpha(Image.linear_gradient("L").resize(alpha.size))
    yield upload("png with a gradient of alpha", encode(alpha), VERDICT)
    yield upload("png of 16 bits with alpha", _sixteen(6, (65_535, 0, 0, 65_535)), VERDICT, shows=RED)
    yield upload("png of 16 bits, grey, with alpha", _sixteen(4, (30_000, 65_535)), VERDICT, shows=(116, 116, 116))
    yield upload("png of 16 bits, nearly black", encode(_grey_16(300)), VERDICT)
    yield upload("png with more alphas than colours", _palette(chunk(b"tRNS", bytes(300))))
    yield upload("png with the alphas before the palette", _palette(b"", chunk(b"tRNS", b"\xff\0")))
    yield upload("png with a transparent colour of 3 bytes", png(chunk(b"tRNS", b"\0\xff\0")), BROKEN, TRUNCATED)
    yield upload("png with all its one colour transparent", png(chunk(b"tRNS", b"\0\xff\0\0\0\0")), shows=WHITE)
    nothing = png(chunk(b"tRNS", b"\0\1\0\0\0\0"))
    yield upload("png with another colour transparent", nothing, VERDICT, shows=RED)
    # Where viewers show paper, black is written on it; what is transparent is as dark as what is not.
    for depth in (2, 4):
        level = 8 // depth
        lines = (b"\0" + bytes([0x11 if depth == 4 else 0x55]) * (WIDTH * depth // 8)) * HEIGHT
        clear = chunk(b"tRNS", struct.pack(">H", 1))
        data = png(clear, head=header(depth=depth, colour=0), pixels=lines)
        yield upload(f"png of {depth} bits with a transparent level ({level} a byte)", data, VERDICT, shows=WHITE)
    pixel = struct.pack(">HHH", 0, 0, 1)
    clear = chunk(b"tRNS", pixel)
    data = png(clear, head=header(depth=16), pixels=rows(WIDTH, HEIGHT, pixel))
    yield upload("png of 16 bits with a transparent colour", data, VERDICT, BROKEN, shows=WHITE)
    yield upload("png with its transparent colour behind its pixels", _late(chunk(b"tRNS", b"\0\xff\0\0\0\0")), BROKEN)
    yield upload("png with its gamma behind its pixels", _late(chunk(b"gAMA", struct.pack(">I", 1_000))), BROKEN)
    profile = chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(3_000)))
    yield upload("png with its profile behind its pixels", _late(profile), BROKEN)
    yield upload("png with two transparent colours", png(chunk(b"tRNS", bytes(6)) * 2), BROKEN)
    yield upload("png with two palettes", _palette(b"", chunk(b"PLTE", bytes(RED + GREEN))), BROKEN)
    # Without its gamma nearly all black, with it red: what browsers show.
    for gamma in (0, 1, 2_000, 20_000, 45_455, 100_000, 2**32 - 1):
        yield upload(f"png of gamma {gamma}", png(chunk(b"gAMA", struct.pack(">I", gamma))), VERDICT)
    dark = png(chunk(b"gAMA", struct.pack(">I", 1_000_000)), pixels=rows(WIDTH, HEIGHT, b"\x08\0\0"))
    yield upload("png that its gamma makes red", dark, VERDICT, shows=(218, 0, 0))


def _late(extra: bytes) -> bytes:
    data = png()
    return data[: -len(IEND)] + extra + IEND


def _palette(extra: bytes = b"", before: bytes = b"") -> bytes:
    table = chunk(b"PLTE", bytes(GREEN + RED))
    return png(before, table, extra, head=header(colour=3), pixels=rows(WIDTH, HEIGHT, b"\1"))


def _sixteen(colour: int, pixel: tuple[int, ...]) -> bytes:
    body = struct.pack(f">{len(pixel)}H", *pixel)
    return png(head=header(depth=16, colour=colour), pixels=rows(WIDTH, HEIGHT, body))


def _grey_16(level: int) -> Image.Image:
    return Image.fromarray(np.full((HEIGHT, WIDTH), level, np.uint16))


def _animated() -> Iterator[Upload]:
    three = [(_R, _ALL, 0, 0), (_G, _ALL, 0, 0), (_B, _ALL, 0, 0)]
    whole = apng(three)
    yield upload("apng", whole, VERDICT, shows=BLUE)
    for mode in ("L", "LA", "P", "RGBA"):
        frames = [plain(colour).convert(mode) for colour in (RED, GREEN, BLUE)]
        yield upload(f"apng in {mode}", animate(frames, "PNG"), VERDICT)
    for dispose in range(3):
        for blend in range(2):
            small = [(_R, _ALL, 0, 0), (_G, (4, 4, 30, 30), dispose, blend), (_B, (20, 10, 20, 20), dispose, blend)]
            yield upload(f"apng of disposal {dispose}, blend {blend}", apng(small), VERDICT, shows=BLUE)
    yield upload("apng of disposal 9, blend 9", apng([*three[:2], (_B, _ALL, 9, 9)]))
    yield upload("apng of 1 frame", apng(three[:1]), VERDICT, shows=RED)
    for announced in (0, 1, 2, 4, 1_000, 2**31, 2**32 - 1):
        yield upload(f"apng of 3 frames that says {announced}", apng(three, announced), BROKEN, LARGE, TRUNCATED)
    yield upload("apng of 1,001 frames", apng([*three[:1], *[(_G, (0, 0, 1, 1), 0, 0)] * 1_000]), LARGE)
    yield upload("apng of 900 frames", apng([*three[:1], *[(_G, (0, 0, 1, 1), 0, 0)] * 899]), VERDICT)
    for name, region in {
        "of no size": (0, 0, 0, 0),
        "outside": (WIDTH, 0, 5, 5),
        "that sticks out": (WIDTH - 5, 0, 10, 10),
        "of 4 gigapixels": (0, 0, 65_535, 65_535),
        "at 2**31": (2**31 - 1, 0, 5, 5),
    }.items():
        other = (b"\0\xff\0", (*region[:2], min(region[2], 50), min(region[3], 50)), 0, 0)
        data = apng([three[0], other]).replace(frame_control(1, other[1]), frame_control(1, region))
        yield upload(f"apng with a frame {name}", data, BROKEN, TRUNCATED)
    yield upload("apng with numbers out of order", whole.replace(frame_control(1), frame_control(5)), BROKEN)
    twice = chunk(b"acTL", struct.pack(">II", 3, 0))
    yield upload("apng that says twice how many frames", apng(three, extra=twice), BROKEN)
    control, data = frame_control(0), apng(three)
    yield upload("apng with a frame without pixels", data.replace(control, control + frame_control(1)), BROKEN)
    late = PNG + header() + chunk(b"IDAT", zlib.compress(rows(WIDTH, HEIGHT))) + twice + IEND
    yield upload("png that turns out to be an animation", late, BROKEN)


def _frames_that_hide() -> Iterator[Upload]:
    hidden = apng([(_G, _ALL, 0, 0), (_B, _ALL, 0, 0)], hidden=_R)
    yield upload("apng with an image that is no frame", hidden, VERDICT, shows=RED)
    yield upload("apng with an image that is no frame, and frames", hidden, VERDICT, shows=BLUE)
    one = apng([(_G, _ALL, 0, 0)], hidden=_R)
    yield upload("apng of one frame behind an image", one, VERDICT, shows=GREEN)
    # Browsers begin an animation on nothing, not on the image that is no frame.
    clear, red = b"\xff\0\0\0", b"\xff\0\0\xff"
    over = apng([(clear, _ALL, 0, 1)], hidden=red, colour=6)
    yield upload("apng that shows paper where a hidden image was", over, VERDICT, shows=WHITE)
    # What is disposed of shows paper, also where no pixel of the file is transparent.
    bare = [(bytes(BLACK), _ALL, 1, 0), (bytes(BLACK), (0, 0, 4, 4), 0, 0)]
    yield upload("apng that writes black where black was", apng(bare), VERDICT, shows=WHITE)
