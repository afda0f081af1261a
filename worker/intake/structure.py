"""What a file's own headers say, read before anything is decoded: its format, its end, and what it will cost.

In: the bytes of one file, hostile. Out: its format by signature; an `ImageRejected` for a file that was cut short
(Pillow decodes some of those without a word) or is built to burn time. Never a pixel.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

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
_PNG_ONCE = (b"IHDR", b"PLTE", b"tRNS", b"acTL", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"cICP")
#: The brand of an AVIF that is animated.
AVIF_SEQUENCE = b"avis"
_BOX_BYTES = 8
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
        ImageTooLarge: It is a GIF or PNG of too many frames; the other formats' decoders count theirs.
        ImageTruncated: The file ends before its format says that it does.
        ImageUndecodable: It has more scans or parts than any honest encoder writes, or parts that readers understand
            in different ways.
    """
    match format_by_signature(data):
        case "JPEG":
            _walk_jpeg(data)
        case "PNG":
            _walk_png(data)
        case "GIF":
            _walk_gif(data)
        case "AVIF":
            _walk_avif(data)
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


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind and body of each chunk of a PNG, to IEND.

    Raises:
        ImageTruncated: The file ends before.
        ImageUndecodable: There are too many.

    Source:
        PNG specification, third edition, section 5: signature, then length, type, data and CRC of each chunk.
    """
    at = 8
    for _ in range(MAX_PARTS):
        kind, start = data[at + 4 : at + 8], at + 8
        at += 12 + int.from_bytes(data[at : at + 4], "big")
        if at > len(data):
            raise ImageTruncated(_CUT)
        yield kind, data[start : at - 4]
        if kind == b"IEND":
            return
    raise ImageUndecodable(f"a PNG of more than {MAX_PARTS} chunks")


def _walk_png(data: bytes) -> None:
    """Refuse what readers understand in different ways: what one of them shows, another one need not.

    Source:
        PNG specification, third edition, section 5.6: what is there once, and what stands before the pixels.
    """
    seen: set[bytes] = set()
    announced = frames = 0
    for kind, body in png_chunks(data):
        if kind in _PNG_ONCE and (kind in seen or b"IDAT" in seen):
            raise ImageUndecodable(f"a PNG with its {kind.decode()} twice, or behind its pixels")
        seen.add(kind)
        if kind == b"acTL":
            announced = int.from_bytes(body[:4], "big")
        frames += kind == b"fcTL"
    if max(announced, frames) > MAX_FRAMES:
        raise ImageTooLarge(f"a PNG of more than {MAX_FRAMES} frames")
    if announced != frames or (b"acTL" in seen) != (frames > 0):
        raise ImageUndecodable(f"a PNG of {frames} frames that says that it has {announced}")
    # Depth 16, colour 2: the decoder forgets the lower bits, which say what is transparent.
    if b"tRNS" in seen and data[24:26] == b"\x10\x02":
        raise ImageUndecodable("a PNG with a transparent colour of 16 bits")


def _walk_avif(data: bytes) -> None:
    """Refuse a sequence that calls itself an image: some readers play it, others do not.

    Source:
        AV1 Image File Format, sections 6.2 and 6.3; ISO/IEC 14496-12, section 4.2: length and kind of each box.
    """
    at = 0
    for _ in range(MAX_PARTS):
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if kind == b"moov" and data[8:12] != AVIF_SEQUENCE:
            raise ImageUndecodable("an AVIF that is an image for some and an animation for others")
        # 1: the length follows the kind, in 8 bytes. 0: to the end of the file.
        size = int.from_bytes(data[at + 8 : at + 16], "big") if size == 1 else size
        if size < _BOX_BYTES:
            return
        at += size
        if at >= len(data):
            return
    raise ImageUndecodable(f"an AVIF of more than {MAX_PARTS} boxes")


def gif_blocks(data: bytes) -> Iterator[bytes]:
    """Yield each block of a GIF, images and extensions, up to its trailer.

    Raises:
        ImageTruncated: The file ends before.

    Source:
        GIF89a specification, sections 17 to 27: a screen, then images and extensions, each a chain of sub-blocks.
    """
    end = len(data)
    at = 13 + palette_bytes(data, 10)
    while at < end and data[at] != _GIF_TRAILER:
        start = at
        if data[at] == _GIF_EXTENSION:
            at += 2
        elif data[at] == _GIF_IMAGE:
            at += 11 + palette_bytes(data, at + 9)
        else:
            # Decoders skip what they do not know between blocks.
            at += 1
            continue
        while at < end and data[at]:
            at += 1 + data[at]
        at += 1
        yield data[start:at]
    if at >= end:
        raise ImageTruncated(_CUT)


def _walk_gif(data: bytes) -> None:
    """Follow the blocks to the trailer."""
    frames = 0
    for block in gif_blocks(data):
        frames += block[0] == _GIF_IMAGE
        if frames > MAX_FRAMES:
            raise ImageTooLarge(f"a GIF of more than {MAX_FRAMES} frames")


def palette_bytes(data: bytes, flags_at: int) -> int:
    """Return how long the palette is that a byte of flags announces, in bytes."""
    flags = data[flags_at] if flags_at < len(data) else 0
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0
