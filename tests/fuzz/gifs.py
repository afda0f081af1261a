"""GIFs: frames outside, of no size, behind blocks that desynchronise readers, disposals that hide.

In: nothing. Out: uploads. Never one that is not made here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from fuzz.parts import (
    BLACK,
    BLUE,
    BROKEN,
    GREEN,
    HUNGRY,
    LARGE,
    RED,
    SLOW,
    TRUNCATED,
    VERDICT,
    WHITE,
    Upload,
    animate,
    blocks,
    control,
    damaged,
    encode,
    gif_frame,
    lzw,
    picture,
    plain,
    screen,
    upload,
)

_PALETTE = (BLACK, RED, GREEN, BLUE, WHITE)
#: A palette whose first colour, which shows where a reader knows no better, is what is drawn.
_REDS = (RED, RED, GREEN)
_SIDE = 32
_BEGIN = screen(_SIDE, _SIDE, _PALETTE)
_RED, _GREEN = gif_frame(0, 0, _SIDE, _SIDE, 1), gif_frame(0, 0, _SIDE, _SIDE, 2)


def gifs() -> Iterator[Upload]:
    """Yield all."""
    yield from _whole()
    yield from _strange_frames()
    yield from _many()
    yield from _cut()
    yield from _out_of_step()
    yield from _paper()


def _whole() -> Iterator[Upload]:
    yield upload("gif", _BEGIN + _RED + b";", VERDICT, shows=RED)
    yield upload("gif of 87", b"GIF87a" + (_BEGIN + _RED + b";")[6:], VERDICT, shows=RED)
    yield upload("gif of 99", b"GIF99a" + (_BEGIN + _RED + b";")[6:], BROKEN, "image_format_refused")
    for interlace in (False, True):
        yield upload(f"gif, interlace {interlace}", encode(picture(), "GIF", interlace=interlace), VERDICT)
    yield upload("gif in grey", encode(picture().convert("L"), "GIF"), VERDICT)
    yield upload("gif without a palette", screen(_SIDE, _SIDE) + _RED + b";", VERDICT)
    for delay in (0, 1, 65_535):
        data = _BEGIN + _RED + control(delay=delay) + _GREEN + b";"
        yield upload(f"gif with a delay of {delay}", data, VERDICT, shows=GREEN)
    for disposal in range(8):
        data = _BEGIN + control(disposal) + _RED + control(disposal) + gif_frame(8, 8, 16, 16, 2) + b";"
        yield upload(f"gif of disposal {disposal}", data, VERDICT, shows=GREEN)
    for transparent in (0, 1, 2, 255):
        data = _BEGIN + control(0, transparent) + _RED + b";"
        yield upload(
            f"gif with index {transparent} transparent", data, VERDICT, shows=WHITE if transparent == 1 else RED
        )
    yield upload("gif with its transparent background named", screen(9, 9, _PALETTE, 255) + _RED + b";")
    yield upload("gif with a zip behind it", _BEGIN + _RED + b";PK\x03\x04" + bytes(1_000), VERDICT, shows=RED)
    yield upload("gif with frames behind its end", _BEGIN + _RED + b";" + _GREEN + b";", VERDICT, shows=RED)
    yield upload("gif with a script in a comment", _BEGIN + b"!\xfe" + blocks(b"*/=1;/*") + _RED + b";", VERDICT)


def _strange_frames() -> Iterator[Upload]:
    yield upload("gif of no frames", _BEGIN + b";", BROKEN)
    yield upload("gif with a screen of 0", screen(0, 0, _PALETTE) + _RED + b";", VERDICT, shows=RED)
    yield upload("gif with a screen of 65535", screen(65_535, 65_535, _PALETTE) + _RED + b";", LARGE)
    yield upload("gif with a screen of 16384 x 1", screen(16_384, 1, _PALETTE) + gif_frame(0, 0, 9, 1) + b";", LARGE)
    wide = screen(7_000, 7_000, _PALETTE) + _RED + b";"
    yield upload("gif with a screen of 49 megapixels", wide, VERDICT, SLOW, HUNGRY, shows=RED)
    empty = {"no size": (0, 0, 0, 0), "no width": (0, 0, 0, 9), "no height": (0, 0, 9, 0)}
    for name, place in empty.items():
        frame = gif_frame(*place, data=lzw([]))
        yield upload(f"gif whose first frame has {name}", _BEGIN + frame + _GREEN + b";")
        yield upload(f"gif whose second frame has {name}", _BEGIN + _RED + frame + _GREEN + b";")
    for left, top in ((_SIDE, 0), (0, _SIDE), (60_000, 60_000), (65_535, 65_535)):
        frame = gif_frame(left, top, 8, 8, 2)
        yield upload(f"gif with a frame at {left}, {top}", _BEGIN + _RED + frame + b";")
        yield upload(f"gif with its first frame at {left}, {top}", _BEGIN + frame + b";")
    for side in (64, 1_000, 20_000, 65_535):
        frame = gif_frame(0, 0, side, side, 2, data=lzw([2] * 1_000))
        ends = (LARGE,) if side > 16_383 else ()
        yield upload(f"gif whose second frame is {side} x {side}", _BEGIN + _RED + frame + b";", *ends)
    yield upload("gif with an 11-bit code", _BEGIN + _RED.replace(b"\0\x08", b"\0\x0b", 1) + b";")
    yield upload("gif with a 0-bit code", _BEGIN + _RED.replace(b"\0\x08", b"\0\0", 1) + b";")
    yield upload("gif with noise for pixels", _BEGIN + gif_frame(0, 0, _SIDE, _SIDE, data=picture().tobytes()) + b";")
    late = gif_frame(0, 0, _SIDE, _SIDE, data=bytes([0xFF]) * 500)
    yield upload("gif whose second frame is broken", _BEGIN + _RED + late + b";")
    yield upload("gif whose second frame has no pixels", _BEGIN + _RED + _GREEN[:11] + b"\0;", BROKEN, TRUNCATED)
    half = gif_frame(0, 0, _SIDE, _SIDE, data=lzw([2] * (_SIDE * _SIDE // 2)))
    yield upload("gif whose second frame has half its pixels", _BEGIN + _RED + half + b";", TRUNCATED)
    over = gif_frame(0, 0, _SIDE, _SIDE, data=lzw([2] * 100_000))
    yield upload("gif of more pixels than it has room for", _BEGIN + over + b";", VERDICT, shows=GREEN)


def _many() -> Iterator[Upload]:
    dot = gif_frame(0, 0, 1, 1, 2)
    yield upload("gif of 900 frames of a pixel", _BEGIN + _RED + dot * 899 + b";", VERDICT, shows=RED)
    yield upload("gif of 1,001 frames", _BEGIN + _RED + dot * 1_000 + b";", LARGE)
    yield upload("gif of 100,000 frames", _BEGIN + _RED + dot * 99_999 + b";", LARGE)
    vast = screen(2_000, 2_000, _PALETTE)
    yield upload("gif of 51 frames of 4 megapixels", vast + dot * 51 + b";", LARGE)
    yield upload("gif of 49 frames of 4 megapixels", vast + dot * 49 + b";", VERDICT, SLOW, HUNGRY)
    hidden = [plain(BLACK, size=(_SIDE, _SIDE))] * 20 + [plain(RED, size=(_SIDE, _SIDE))]
    for at in (0, 7, 20):
        frames = [*hidden[: at or 0], hidden[-1], *hidden[at or 0 : -1]]
        yield upload(f"gif with one other frame at {at}", animate(frames, "GIF"), VERDICT, shows=RED)
    many = [picture(16, 16, seed) for seed in range(60)]
    yield upload("gif of 60 frames that all differ", animate(many, "GIF"), VERDICT)
    yield upload("gif of 20,000 comments", _BEGIN + b"!\xfe\1a\0" * 20_000 + _RED + b";", VERDICT, shows=RED)
    long = b"!\xfe" + blocks(b"a" * 5_000_000)
    yield upload("gif of 5 megabytes of comment", _BEGIN + long + _RED + b";", VERDICT, shows=RED)
    loops = b"!\xff\x0bNETSCAPE2.0" + blocks(b"\1\xff\xff")
    yield upload("gif of 5,000 loops", _BEGIN + loops * 5_000 + _RED + b";", VERDICT, shows=RED)
    yield upload("gif with 100 kB of nothing between blocks", _BEGIN + bytes(100_000) + _RED + b";", VERDICT, BROKEN)


def _cut() -> Iterator[Upload]:
    files = {
        "gif": encode(picture(), "GIF"),
        "animated gif": animate([picture(seed=seed) for seed in range(3)], "GIF"),
    }
    for name, data in files.items():
        for share in (1, 5, 25, 50, 75, 90, 99):
            yield upload(f"{name} cut at {share} %", data[: len(data) * share // 100], TRUNCATED, BROKEN)
        yield upload(f"{name} without its last byte", data[:-1], TRUNCATED)
    yield upload("gif with its end in its pixels", files["gif"][: len(files["gif"]) // 2] + b";", TRUNCATED, BROKEN)
    yield upload("gif with a palette only", _BEGIN, TRUNCATED, BROKEN)


def _out_of_step() -> Iterator[Upload]:
    """Blocks that some readers take for the beginning of others: what follows must be seen, or nothing."""
    for kind in (0xF9, 0xFE, 0xFF, 0x01, 0x00):
        block = bytes([0x21, kind, 0])
        yield upload(f"gif with an empty block {kind:X}", _BEGIN + _RED + block + _GREEN + b";", VERDICT, shows=GREEN)
        yield upload(f"gif that begins with an empty block {kind:X}", _BEGIN + block + _GREEN + b";")
    for name, block in {
        "zeros": bytes(5),
        "other letters": b"abc",
        "a control of 1 byte": b"!\xf9\1\0\0",
        "a control of 200 bytes": b"!\xf9" + blocks(bytes(200)),
        "a text of nothing": b"!\x01\x0c" + bytes(12) + b"\0",
    }.items():
        data = _BEGIN + _RED + block + _GREEN + b";"
        yield upload(f"gif with {name} between its frames", data, VERDICT, BROKEN, shows=GREEN)
    ends = damaged(_RED, len(_RED) - 1, 1, 0, 0)
    yield upload("gif with a longer end of its pixels", _BEGIN + ends + _GREEN + b";", VERDICT, shows=GREEN)
    own = b"," + struct.pack("<HHHHB", 0, 0, _SIDE, _SIDE, 0x87) + bytes(GREEN) * 256 + b"\x08"
    data = _BEGIN + _RED + own + blocks(lzw([2] * _SIDE * _SIDE)) + b";"
    yield upload("gif with a palette of its second frame", data, VERDICT, shows=GREEN)


def _paper() -> Iterator[Upload]:
    """Browsers show paper where nothing was drawn, or where it was disposed of: there other colours may hide."""
    begin = screen(_SIDE, _SIDE, _REDS)
    part = gif_frame(8, 8, 16, 16, 1)
    yield upload("gif that draws in the colour of nothing", begin + part + b";", VERDICT, shows=WHITE)
    gone = begin + control(2) + _RED + control(0) + part + b";"
    yield upload("gif that draws in the colour of what was disposed of", gone, VERDICT, shows=WHITE)
    back = begin + control(3) + _RED + control(0) + part + b";"
    yield upload("gif that draws where it goes back to nothing", back, VERDICT, shows=WHITE)
