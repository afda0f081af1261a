"""JPEGs: bombs, cut ones, strange colours, several pictures in one, EXIF of all kinds.

In: nothing. Out: uploads. Never one that is not made here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache

from fuzz.parts import (
    BROKEN,
    LARGE,
    RED,
    SLOW,
    TRUNCATED,
    VERDICT,
    Upload,
    animate,
    behind,
    damaged,
    encode,
    exif,
    picture,
    plain,
    segment,
    upload,
)

#: The upload that takes longest to decode.
SLOWEST = "jpeg of as many scans as are let through, 45 megapixels"


def jpegs() -> Iterator[Upload]:
    """Yield all."""
    yield from _whole()
    yield from _bombs()
    yield from _cut()
    yield from _exif()
    yield from _damaged()


@cache
def _jpeg(progressive: bool = False) -> bytes:
    return encode(picture(), "JPEG", progressive=progressive)


def _whole() -> Iterator[Upload]:
    for quality in (1, 30, 100):
        for subsampling in (0, 1, 2):
            data = encode(picture(), "JPEG", quality=quality, subsampling=subsampling)
            yield upload(f"jpeg of quality {quality}, subsampling {subsampling}", data, VERDICT)
    for mode in ("L", "CMYK", "YCbCr"):
        yield upload(f"jpeg in {mode}", encode(picture().convert(mode), "JPEG"), VERDICT)
    yield upload("jpeg, progressive", _jpeg(progressive=True), VERDICT)
    yield upload("jpeg with restarts", encode(picture(), "JPEG", restart_marker_blocks=1), VERDICT)
    red = encode(plain(RED), "JPEG", quality=95)
    yield upload("jpeg with a second picture", animate([plain(RED), picture()], "MPO"), VERDICT, shows=RED)
    yield upload("jpeg behind a jpeg", red + _jpeg(), VERDICT, shows=RED)
    yield upload("jpeg with a jpeg in a segment", behind(red, segment(0xE7, _jpeg())), VERDICT, shows=RED)
    yield upload("jpeg with a script behind it", red + b"<script>alert(1)</script>" * 100, VERDICT, shows=RED)
    yield upload("jpeg with a script in a comment", behind(red, segment(0xFE, b"*/=1;/*")), VERDICT, shows=RED)
    yield upload("jpeg with fill bytes", red[:2] + b"\xff" * 1000 + red[2:], VERDICT, BROKEN, shows=RED)
    yield upload("jpeg with zeros between markers", red[:2] + bytes(1000) + red[2:], BROKEN)
    for transform in range(4):
        # What it says of its colours, and what they are, need not agree.
        adobe = segment(0xEE, b"Adobe" + struct.pack(">HHHB", 100, 0, 0, transform))
        for mode in ("RGB", "CMYK", "L"):
            plane = encode(picture().convert(mode), "JPEG")
            yield upload(f"jpeg in {mode} with Adobe transform {transform}", behind(plane, adobe), VERDICT)
    yield upload("jpeg of 1 x 16383", encode(picture(1, 16_383), "JPEG"), VERDICT)
    yield upload("jpeg of 16383 x 1", encode(picture(16_383, 1), "JPEG"), VERDICT)
    yield upload("jpeg of 16384 x 1", encode(picture(16_384, 1), "JPEG"), LARGE)


def _bombs() -> Iterator[Upload]:
    whole = _jpeg()
    yield upload("jpeg of 65500 x 65500 in its header", _resized(whole, 65_500, 65_500), LARGE)
    yield upload("jpeg of 60 megapixels", _resized(whole, 8_000, 7_500), LARGE)
    yield upload("jpeg of more than it has", _resized(whole, 4_000, 4_000), VERDICT, TRUNCATED, BROKEN)
    yield upload("jpeg of width 0", _resized(whole, 0, 40), BROKEN)
    yield upload("jpeg of height 0", _resized(whole, 48, 0), BROKEN)
    large = encode(plain((0, 128, 128), size=(7_000, 6_500)), "JPEG", progressive=True)
    # A second or two of work: how it ends is the machine's to say.
    yield upload(SLOWEST, _scans(large, 64), VERDICT, SLOW)
    progressive = _jpeg(progressive=True)
    yield upload("jpeg of 64 scans", _scans(progressive, 64), VERDICT)
    yield upload("jpeg of 65 scans", _scans(progressive, 65), BROKEN)
    yield upload("jpeg of 5,000 scans", _scans(progressive, 5_000), BROKEN)
    yield upload("jpeg of 30,000 segments", behind(whole, segment(0xE5) * 30_000), BROKEN)
    yield upload("jpeg of 10,000 comments", behind(whole, segment(0xFE, b"x" * 100) * 10_000), VERDICT)
    profile = b"ICC_PROFILE\0"
    parts = [segment(0xE2, profile + bytes([at, 255]) + bytes(65_000)) for at in range(1, 256)]
    yield upload("jpeg with 16 megabytes of colour profile", behind(whole, *parts), VERDICT, BROKEN)
    yield upload("jpeg with 255 parts of a profile, one there", behind(whole, parts[0]), VERDICT)
    yield upload("jpeg with a profile of no parts", behind(whole, segment(0xE2, profile)), VERDICT, BROKEN)
    yield upload("jpeg with 10 megabytes of comments", behind(whole, segment(0xFE, bytes(65_000)) * 160), VERDICT)
    tables = segment(0xDB, b"\0" + bytes(range(1, 65)))
    yield upload("jpeg of 10,000 tables", behind(whole, tables * 10_000), VERDICT)


def _resized(data: bytes, width: int, height: int) -> bytes:
    """Let a JPEG's header say another size."""
    frame = next(at for at in range(len(data)) if data[at] == 0xFF and data[at + 1] in (0xC0, 0xC2))
    return damaged(data, frame + 5, *struct.pack(">HH", height, width))


def _scans(data: bytes, count: int) -> bytes:
    """Repeat the last scan."""
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * (count - data.count(b"\xff\xda")) + data[-2:]


def _cut() -> Iterator[Upload]:
    for name, data in (("jpeg", _jpeg()), ("progressive jpeg", _jpeg(progressive=True))):
        for share in (1, 5, 25, 50, 75, 90, 99):
            in_pixels = len(data) * share // 100 > data.index(b"\xff\xda") + 20
            ends = (TRUNCATED,) if in_pixels else (TRUNCATED, BROKEN)
            yield upload(f"{name} cut at {share} %", data[: len(data) * share // 100], *ends)
        yield upload(f"{name} without its last byte", data[:-1], TRUNCATED)
        yield upload(f"{name} without its end", data[:-2], TRUNCATED)
        # What is left out is grey for everybody.
        yield upload(f"{name} with its end in the middle", data[: len(data) * 3 // 4] + b"\xff\xd9")


def _exif() -> Iterator[Upload]:
    red = encode(plain(RED), "JPEG", quality=95)
    for orientation in range(10):
        for order in "<>":
            data = behind(red, segment(0xE1, exif(orientation, order)))
            yield upload(f"jpeg of orientation {orientation} in order {order}", data, VERDICT, shows=RED)
    broken = {
        "a long for its orientation": exif(6, type_=4),
        "an orientation of 65535": exif(65_535),
        "no header": b"Exif\0\0nothing of the kind",
        "nothing": b"Exif\0\0",
        "an offset beyond its end": b"Exif\0\0II*\0" + b"\xff" * 4,
        "an offset to itself": b"Exif\0\0II*\0" + struct.pack("<IHI", 8, 0, 8),
        "65535 entries": b"Exif\0\0II*\0" + struct.pack("<IH", 8, 65_535) + bytes(60_000),
        "an entry of 4 gigabytes": b"Exif\0\0II*\0"
        + struct.pack("<IH", 8, 1)
        + struct.pack("<HHII", 274, 3, 2**32 - 1, 8),
        "5,000 orientations": b"Exif\0\0II*\0"
        + struct.pack("<IH", 8, 5_000)
        + struct.pack("<HHIHH", 274, 3, 1, 6, 0) * 5_000,
    }
    for name, body in broken.items():
        yield upload(f"jpeg with EXIF of {name}", behind(red, segment(0xE1, body)), VERDICT, shows=RED)
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta tiff:Orientation="6"/>'
    yield upload("jpeg turned by XMP", behind(red, segment(0xE1, xmp)), VERDICT, shows=RED)
    bomb = b"http://ns.adobe.com/xap/1.0/\0<!DOCTYPE x [<!ENTITY a 'aaaa'>" + b"<!ENTITY b '&a;&a;'>" * 1_000
    yield upload("jpeg with an XML bomb", behind(red, segment(0xE1, bomb)), VERDICT, shows=RED)


def _damaged() -> Iterator[Upload]:
    data = _jpeg()
    start = data.index(b"\xff\xda")
    yield upload("jpeg of 12 bits", damaged(data, data.index(b"\xff\xc0") + 4, 12), BROKEN)
    for kind in range(0xC1, 0xD0):
        if kind not in (0xC4, 0xC8, 0xCC):
            yield upload(f"jpeg of kind {kind:X}", damaged(data, data.index(b"\xff\xc0") + 1, kind))
    yield upload("jpeg with noise for pixels", data[: start + 14] + picture().tobytes() + b"\xff\xd9")
    yield upload("jpeg with zeros for pixels", data[: start + 14] + bytes(3_000) + b"\xff\xd9")
    yield upload("jpeg with no pixels", data[: start + 14] + b"\xff\xd9")
    yield upload("jpeg with no scan", data[:start] + b"\xff\xd9", BROKEN, TRUNCATED)
    yield upload("jpeg with no tables", data[:2] + data[data.index(b"\xff\xc0") :], BROKEN)
    yield upload("jpeg with two headers", behind(data, data[data.index(b"\xff\xc0") : data.index(b"\xff\xc4")]), BROKEN)
    yield upload("jpeg of 0 colours", damaged(data, data.index(b"\xff\xc0") + 9, 0), BROKEN)
    yield upload("jpeg of 255 colours", damaged(data, data.index(b"\xff\xc0") + 9, 255), BROKEN)
    yield upload("jpeg of sampling 15", damaged(data, data.index(b"\xff\xc0") + 11, 0xFF), BROKEN)
    yield upload("jpeg with a segment of length 0", behind(data, b"\xff\xe5\0\0"), VERDICT, BROKEN)
    yield upload("jpeg with a segment beyond its end", behind(data, b"\xff\xe5\xff\xff"), BROKEN, TRUNCATED)
    yield upload("jpeg with its height behind its pixels", data[:-2] + segment(0xDC, struct.pack(">H", 9)) + data[-2:])
