"""Whether a PNG has all its rows: a decoder is content with fewer, where they are packed well, and adds black ones.

In: a loaded PNG and its file. Out: nothing, or `ImageTruncated`. Never more unpacked than there should be, or kept.
"""

from __future__ import annotations

import zlib

from PIL import Image

from worker.errors import ImageTruncated
from worker.intake.structure import png_chunks

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
#: Left, top, and steps right and down of each pass of an interlaced image.
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_STEP_BYTES = 1 << 20


def check_rows(image: Image.Image, data: bytes) -> None:
    """Refuse a PNG that lacks rows.

    Its pixels are unpacked again only where its last row is as a decoder leaves it, for this takes time.

    Args:
        image: Loaded, one frame.
        data: Its file.

    Raises:
        ImageTruncated: It does.

    Source:
        PNG specification, third edition, sections 7.2, 8.1 and 10.2.
    """
    is_interlaced = data[28] == 1
    last = image.crop((0, image.height - 1, *image.size))
    if not is_interlaced and any(last.tobytes()):
        return
    bits = data[24] * _CHANNELS[data[25]]
    passes = _PASSES if is_interlaced else ((0, 0, 1, 1),)
    missing = 0
    for left, top, right, down in passes:
        width, height = -(-(image.width - left) // right), -(-(image.height - top) // down)
        missing += height * (1 + -(-width * bits // 8)) if width > 0 else 0
    pixels = zlib.decompressobj()
    for kind, body in png_chunks(data):
        packed = body if kind == b"IDAT" else b""
        while packed and missing > 0:
            missing -= len(pixels.decompress(packed, _STEP_BYTES))
            packed = pixels.unconsumed_tail
    if missing > 0:
        raise ImageTruncated("the file has fewer rows than the image")
