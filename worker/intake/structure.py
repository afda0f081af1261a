"""What a file's own headers say, read before anything is decoded: its format, its end, and what it will cost.

In: the bytes of one file, hostile. Out: its format by signature; an `ImageRejected` for a file that was cut short
(Pillow decodes some of those without a word) or is built to burn time. Never a pixel.
"""

from __future__ import annotations

import re

from worker.errors import ImageTooLarge, ImageTruncated, ImageUndecodable

#: Scans of a JPEG: each costs a pass over all its pixels, and encoders write a dozen.
MAX_SCANS = 64
#: Chunks of a PNG, segments of a JPEG: 20 MiB in chunks of 8 KiB are 2,560.
MAX_PARTS = 20_000
#: Frames of an animation: all are decoded, to find those that differ.
MAX_FRAMES = 1_000

_FIRST_BYTES = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"GIF8": "GIF", b"BM": "BMP", b"II*\0": "TIFF",
                b"MM\0*": "TIFF", b"%!PS": "EPS", b"8BPS": "PSD", b"\0\0\1\0": "ICO"}  # fmt: skip
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC"}
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_JPEG_NO_LENGTH, _JPEG_END, _JPEG_SCAN = (0x01, 0xD8), 0xD9, 0xDA
_GIF_TRAILER, _GIF_EXTENSION, _GIF_IMAGE = b";"[0], b"!"[0], b","[0]
_CUT = "the file ends before the image does"


def format_by_signature(data: bytes) -> str | None:
    """Return the name of the format that the first bytes announce; None when they announce none."""
    if data.startswith(b"RIFF"):
        return "WEBP" if data[8:12] == b"WEBP" else None
    if data[4:8] == b"ftyp":
        return _BRANDS.get(data[8:12])
    return next((name for start, name in _FIRST_BYTES.items() if data.startswith(start)), None)


def check_structure(data: bytes) -> None:
    """Refuse what was cut short, and what would keep a decoder busy.

    JPEG and AVIF are not looked at for their end: their decoders insist on it.

    Raises:
        ImageTooLarge: It is a GIF of too many frames; the other formats say in their headers how many they have.
        ImageTruncated: The file ends before its format says that it does.
        ImageUndecodable: It has more scans or parts than any honest encoder writes.
    """
    match format_by_signature(data):
        case "JPEG":
            _walk_jpeg(data)
        case "PNG":
            _walk_png(data)
        case "GIF":
            _walk_gif(data)
        case "WEBP" if int.from_bytes(data[4:8], "little") + 8 > len(data):
            raise ImageTruncated(_CUT)


def _walk_jpeg(data: bytes) -> None:
    """Count the scans up to the first end of image; phones put whole videos behind it.

    Source:
        ITU-T T.81, annex B: markers, most with a length; in a scan's data 0xFF is stuffed or a restart.
    """
    at = scans = 0
    for _ in range(MAX_PARTS):
        marker = _JPEG_MARKER.search(data, at)
        if marker is None or data[marker.start() + 1] == _JPEG_END:
            return
        at, kind = marker.end(), data[marker.start() + 1]
        if kind in _JPEG_NO_LENGTH:
            continue
        at += int.from_bytes(data[at : at + 2], "big")
        scans += kind == _JPEG_SCAN
        if scans > MAX_SCANS:
            raise ImageUndecodable(f"a JPEG of more than {MAX_SCANS} scans")
    raise ImageUndecodable(f"a JPEG of more than {MAX_PARTS} segments")


def _walk_png(data: bytes) -> None:
    """Follow the chunks to IEND.

    Source:
        PNG specification, third edition, section 5: signature, then length, type, data and CRC of each chunk.
    """
    at = 8
    for _ in range(MAX_PARTS):
        kind = data[at + 4 : at + 8]
        at += 12 + int.from_bytes(data[at : at + 4], "big")
        if at > len(data):
            raise ImageTruncated(_CUT)
        if kind == b"IEND":
            return
    raise ImageUndecodable(f"a PNG of more than {MAX_PARTS} chunks")


def _walk_gif(data: bytes) -> None:
    """Follow the blocks to the trailer.

    Source:
        GIF89a specification, sections 17 to 27: a screen, then images and extensions, each a chain of sub-blocks.
    """
    end, frames = len(data), 0
    at = 13 + _palette_bytes(data, 10)
    while at < end and data[at] != _GIF_TRAILER:
        if data[at] == _GIF_EXTENSION:
            at += 2
        elif data[at] == _GIF_IMAGE:
            at += 11 + _palette_bytes(data, at + 9)
            frames += 1
            if frames > MAX_FRAMES:
                raise ImageTooLarge(f"a GIF of more than {MAX_FRAMES} frames")
        else:
            # Decoders skip what they do not know between blocks.
            at += 1
            continue
        while at < end and data[at]:
            at += 1 + data[at]
        at += 1
    if at >= end:
        raise ImageTruncated(_CUT)


def _palette_bytes(data: bytes, flags_at: int) -> int:
    flags = data[flags_at] if flags_at < len(data) else 0
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0
