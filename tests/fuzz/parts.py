"""What files are made of: pictures, and the chunks, segments, blocks and boxes that formats are built from.

In: numbers. Out: bytes, the same in every run. Never a file from a disk.
"""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

Colour = tuple[int, int, int]

#: How an upload may end beside the reasons of `worker.errors`.
VERDICT = "verdict"
LARGE, TRUNCATED, BROKEN, REFUSED = "image_too_large", "image_truncated", "image_undecodable", "image_format_refused"
SLOW, HUNGRY, CRASHED = "decode_timeout", "decode_memory", "decode_crashed"
RED, GREEN, BLUE, BLACK, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0), (255, 255, 255)
WIDTH, HEIGHT = 48, 40


@dataclass(frozen=True, slots=True)
class Upload:
    """A hostile file.

    Attributes:
        name: What is wrong with it.
        data: It.
        ends: How it may end, where that is certain; empty: in a verdict or in any reason of decoding.
        shows: A colour that is in one of its views, where there are any: what the trick would hide.
    """

    name: str
    data: bytes
    ends: frozenset[str] = frozenset()
    shows: Colour | None = None


def upload(name: str, data: bytes, *ends: str, shows: Colour | None = None) -> Upload:
    """Name a file and how it may end."""
    return Upload(name, data, frozenset(ends), shows)


@cache
def picture(width: int = WIDTH, height: int = HEIGHT, seed: int = 0) -> Image.Image:
    """Draw gradients under noise: no two rows or columns alike."""
    down, across = np.mgrid[0:height, 0:width]
    planes = [255 * across / width, 255 * down / height, 255 * (across + down) / (width + height)]
    noise = np.random.default_rng(seed).normal(0, 25, (height, width, 3))
    return Image.fromarray((np.stack(planes, axis=-1) + noise).clip(0, 255).astype(np.uint8))


def plain(colour: Colour | tuple[int, ...] | int, mode: str = "RGB", size: tuple[int, int] = (64, 64)) -> Image.Image:
    """Paint one colour."""
    return Image.new(mode, size, colour)


def encode(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    """Return an image as the bytes of a file."""
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def animate(frames: Iterable[Image.Image], format: str, **options: Any) -> bytes:
    """Return an animation."""
    first, *others = frames
    return encode(first, format, save_all=True, append_images=others, **({"duration": 100} | options))


# -- PNG -------------------------------------------------------------------------------------------------------------

PNG = b"\x89PNG\r\n\x1a\n"
IEND = b"\0\0\0\0IEND\xaeB`\x82"


def chunk(kind: bytes, body: bytes = b"") -> bytes:
    """Return one chunk."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def header(width: int = WIDTH, height: int = HEIGHT, depth: int = 8, colour: int = 2, interlace: int = 0) -> bytes:
    """Return an IHDR."""
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace))


def rows(width: int, height: int, pixel: bytes = b"\xff\0\0") -> bytes:
    """Return unfiltered rows of one pixel."""
    return (b"\0" + pixel * width) * height


def png(*chunks: bytes, head: bytes | None = None, pixels: bytes | None = None) -> bytes:
    """Return a PNG: chunks between its header and its pixels."""
    body = zlib.compress(rows(WIDTH, HEIGHT) if pixels is None else pixels, 9)
    return PNG + (head or header()) + b"".join(chunks) + chunk(b"IDAT", body) + IEND


def frame_control(
    number: int, box: tuple[int, int, int, int] = (0, 0, WIDTH, HEIGHT), dispose: int = 0, blend: int = 0
) -> bytes:
    """Return the fcTL of a frame at left, top, of width, height."""
    left, top, width, height = box
    return chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, width, height, left, top, 1, 10, dispose, blend))


def apng(
    frames: Sequence[tuple[bytes, tuple[int, int, int, int], int, int]],
    announced: int | None = None,
    hidden: bytes | None = None,
    colour: int = 2,
    extra: bytes = b"",
) -> bytes:
    """Return an APNG.

    Args:
        frames: Pixel, box, disposal and blending of each.
        announced: How many frames it says that it has.
        hidden: The pixel of a first image that is no frame.
        colour: Type of all pixels.
        extra: Chunks before the pixels.
    """
    count = itertools.count()
    parts = [PNG, header(colour=colour), extra]
    parts.append(chunk(b"acTL", struct.pack(">II", len(frames) if announced is None else announced, 0)))
    if hidden is not None:
        parts.append(chunk(b"IDAT", zlib.compress(rows(WIDTH, HEIGHT, hidden))))
    for at, (pixel, box, dispose, blend) in enumerate(frames):
        parts.append(frame_control(next(count), box, dispose, blend))
        body = zlib.compress(rows(box[2], box[3], pixel))
        is_first = at == 0 and hidden is None
        parts.append(chunk(b"IDAT", body) if is_first else chunk(b"fdAT", struct.pack(">I", next(count)) + body))
    return b"".join([*parts, IEND])


def chunks_of(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Take a PNG apart: kind and body of each chunk."""
    at = len(PNG)
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        at += 12 + size


# -- GIF -------------------------------------------------------------------------------------------------------------


def lzw(indices: Sequence[int], bits: int = 8) -> bytes:
    """Pack palette indices as a GIF does, never longer than its first codes."""
    clear, end, width = 1 << bits, (1 << bits) + 1, bits + 1
    codes: list[int] = []
    for at, index in enumerate(indices):
        if at % (clear - 2) == 0:
            codes.append(clear)
        codes.append(index)
    stream = sum(code << (width * at) for at, code in enumerate([*codes, end]))
    return stream.to_bytes(-(-width * (len(codes) + 1) // 8), "little")


def blocks(data: bytes) -> bytes:
    """Cut data into sub-blocks, with the terminator."""
    parts = (data[at : at + 255] for at in range(0, len(data), 255))
    return b"".join(bytes([len(part)]) + part for part in parts) + b"\0"


def screen(width: int, height: int, palette: Sequence[Colour] = (), background: int = 0) -> bytes:
    """Return a GIF's beginning, with a palette of 256 where one is given."""
    table = b"".join(bytes(colour) for colour in palette).ljust(768, b"\0") if palette else b""
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0xF7 if palette else 0, background, 0) + table


def control(disposal: int = 0, transparent: int | None = None, delay: int = 10) -> bytes:
    """Return a graphic control extension."""
    flags = disposal << 2 | (transparent is not None)
    return b"!\xf9\x04" + struct.pack("<BHB", flags, delay, transparent or 0) + b"\0"


def gif_frame(left: int, top: int, width: int, height: int, index: int = 1, data: bytes | None = None) -> bytes:
    """Return an image of one index."""
    packed = lzw([index] * (width * height)) if data is None else data
    return b"," + struct.pack("<HHHHB", left, top, width, height, 0) + b"\x08" + blocks(packed)


# -- others ----------------------------------------------------------------------------------------------------------


def riff(*parts: tuple[bytes, bytes]) -> bytes:
    """Return a WebP of chunks."""
    body = b"WEBP" + b"".join(
        kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for kind, data in parts
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


def box(kind: bytes, body: bytes = b"") -> bytes:
    """Return a box of AVIF and its relatives."""
    return struct.pack(">I", 8 + len(body)) + kind + body


def with_still(sequence: bytes, still: bytes) -> bytes:
    """Let an AVIF sequence have another file's picture for those who do not play it."""
    mdat = still.index(b"mdat")
    pixels = still[mdat + 4 : mdat - 4 + int.from_bytes(still[mdat - 4 : mdat], "big")]
    iloc = sequence.index(b"iloc")
    # Where its one item is, and how long: the last 8 bytes.
    end = iloc - 4 + int.from_bytes(sequence[iloc - 4 : iloc], "big")
    return damaged(sequence, end - 8, *struct.pack(">II", len(sequence) + 8, len(pixels))) + box(b"mdat", pixels)


def segment(marker: int, body: bytes = b"") -> bytes:
    """Return a segment of a JPEG."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def behind(jpeg: bytes, *segments: bytes) -> bytes:
    """Put segments behind a JPEG's first marker."""
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def exif(orientation: int, order: str = "<", type_: int = 3) -> bytes:
    """Return EXIF that says how to turn an image."""
    start = b"II*\0" if order == "<" else b"MM\0*"
    value = struct.pack(order + ("HH" if type_ == 3 else "I"), *((orientation, 0) if type_ == 3 else (orientation,)))
    entry = struct.pack(order + "HHI", 274, type_, 1) + value
    return b"Exif\0\0" + start + struct.pack(order + "IH", 8, 1) + entry + bytes(4)


def damaged(data: bytes, at: int, *values: int) -> bytes:
    """Put other bytes at a place."""
    return data[:at] + bytes(values) + data[at + len(values) :]
