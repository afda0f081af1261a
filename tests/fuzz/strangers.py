"""What is no image, none of ours, or two things at once.

In: nothing. Out: uploads. Never one that is not made here.
"""

from __future__ import annotations

import io
import random
import struct
import zipfile
from collections.abc import Iterator

from fuzz.parts import (
    BROKEN,
    IEND,
    LARGE,
    PNG,
    RED,
    REFUSED,
    TRUNCATED,
    VERDICT,
    Upload,
    encode,
    picture,
    plain,
    upload,
)

_SIGNATURES = {
    "jpeg": b"\xff\xd8\xff",
    "png": PNG,
    "gif": b"GIF89a",
    "webp": b"RIFF\xff\xff\0\0WEBPVP8 ",
    "avif": b"\0\0\0\x20ftypavif",
}
_REFUSED_SIGNATURES = {
    "bmp": b"BM",
    "tiff": b"II*\0",
    "big-endian tiff": b"MM\0*",
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n",
    "psd": b"8BPS\0\1",
    "ico": b"\0\0\1\0\1\0",
}
_TEXTS = {
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "html": b"<!DOCTYPE html><title>404</title><script>alert(1)</script>",
    "pdf": b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog >>\nendobj\n%%EOF",
    "xml of a billion laughs": b"<!DOCTYPE l [<!ENTITY a 'l'><!ENTITY b '&a;&a;'>]><l>&b;</l>",
    "pickle": b"\x80\x04\x95\x1a\0\0\0\0\0\0\0\x8c\x05posix\x8c\x06system\x93\x8c\x02id\x85R.",
    "elf": b"\x7fELF\2\1\1\0" + bytes(100),
    "script": b"#!/bin/sh\nid\n",
    "json": b'{"action": "allow"}',
    "gzip": b"\x1f\x8b\x08\0" + bytes(100),
    "mp4": b"\0\0\0\x18ftypmp42" + bytes(100),
    "jpeg 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100),
    "jpeg xl": b"\xff\x0a" + bytes(100),
    "x bitmap": b"#define a_width 8\n#define a_height 8\nstatic char a_bits[] = {0,0,0,0,0,0,0,0};",
}


def strangers() -> Iterator[Upload]:
    """Yield all."""
    yield from _nothing()
    yield from _refused()
    yield from _two_at_once()


def _nothing() -> Iterator[Upload]:
    yield upload("nothing", b"", BROKEN)
    for value in (0, 0x42, 0x89, 0xFF):
        yield upload(f"one byte, {value}", bytes([value]), BROKEN)
    yield upload("20 MiB of zeros", bytes(20 * 1024 * 1024), BROKEN)
    yield upload("a byte more than 20 MiB", bytes(20 * 1024 * 1024 + 1), LARGE)
    dice = random.Random(0)
    yield upload("noise", dice.randbytes(50_000), BROKEN)
    for name, start in _SIGNATURES.items():
        for size in (0, 1, 20, 50_000):
            ends = {BROKEN, TRUNCATED, LARGE}
            yield upload(f"{name} of {size} bytes of noise", start + dice.randbytes(size), *ends)
        yield upload(f"{name} of zeros", start + bytes(100_000), BROKEN, TRUNCATED)
    yield upload("jpeg of nothing but ends", b"\xff\xd8\xff\xd9" * 10_000, BROKEN, TRUNCATED)
    yield upload("png of nothing but its end", PNG + IEND, BROKEN)


def _refused() -> Iterator[Upload]:
    for format in ("BMP", "TIFF", "EPS", "ICO"):
        yield upload(f"a {format}", encode(picture(), format), REFUSED)
    for format in ("PPM", "TGA", "PCX", "SGI", "IM", "JPEG2000", "DDS", "ICNS", "XBM", "MSP", "SPIDER", "QOI"):
        image = picture(64, 64).convert({"XBM": "1", "MSP": "1", "SPIDER": "F"}.get(format, "RGB"))
        yield upload(f"a file of {format}", encode(image, format), BROKEN, REFUSED)
    for name, start in _REFUSED_SIGNATURES.items():
        yield upload(f"a signature of {name}", start + bytes(1_000), REFUSED)
        yield upload(f"a signature of {name} on a png", start + encode(picture()), REFUSED)
    for name, data in _TEXTS.items():
        yield upload(f"a file of {name}", data, BROKEN, REFUSED)
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n"
    yield upload("eps that reads a file", postscript, REFUSED)
    yield upload("tiff of 2**32 - 1 entries", b"II*\0" + struct.pack("<IH", 8, 65_535) + bytes(100), REFUSED)


def _two_at_once() -> Iterator[Upload]:
    files = {
        "png": encode(plain(RED)),
        "jpeg": encode(plain(RED), "JPEG", quality=95),
        "gif": encode(plain(RED), "GIF"),
        "webp": encode(plain(RED), "WEBP", lossless=True),
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(zipfile.ZipInfo("a.html"), _TEXTS["html"])
    for name, data in files.items():
        for other, tail in {"zip": packed.getvalue(), "html": _TEXTS["html"], "pdf": _TEXTS["pdf"]}.items():
            yield upload(f"a {name} that is a {other} too", data + tail, VERDICT, shows=RED)
            yield upload(f"a {other} that is a {name} too", tail + data, BROKEN, REFUSED)
        for other, more in files.items():
            yield upload(f"a {name} with a {other} behind it", data + more, VERDICT, shows=RED)
        yield upload(f"a {name} behind a byte", b"\0" + data, BROKEN, REFUSED)
        yield upload(f"a {name} in text", data.decode("latin-1").encode(), BROKEN, REFUSED)
        yield upload(f"a {name} with unix lines", data.replace(b"\r\n", b"\n").replace(b"\r", b"\n"))
