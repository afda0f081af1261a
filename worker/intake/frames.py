"""A file's frames as browsers show them: each one's own pixels, on what is left of those before it, on nothing.

In: an opened image and the bytes of its file, hostile. Out: a `Film`. Never a colour where nothing was drawn: Pillow
shows one of the palette's there, or black, and what is drawn in the same colour would be hidden.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from worker.errors import ImageTooLarge, ImageUndecodable
from worker.intake.colours import Turn, turn_of
from worker.intake.paper import HARDLY, fingerprint, heed_depth, in_colours, readable
from worker.intake.rows import check_rows
from worker.intake.structure import AVIF_SEQUENCE, gif_blocks, palette_bytes, png_chunks

Disposal = Literal["keep", "clear", "restore"]

_GIF_DISPOSALS: dict[int, Disposal] = {2: "clear", 3: "restore", 4: "restore"}
_APNG_DISPOSALS: dict[int, Disposal] = {1: "clear", 2: "restore"}
_GIF_CONTROL, _GIF_CONTROL_FIELDS, _GIF_CONTROL_BYTES = b"!\xf9", 4, 7
#: What belongs to all frames of a PNG.
_SHARED = (b"PLTE", b"tRNS")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, slots=True)
class Part:
    """A frame's own pixels."""

    #: A file of its own.
    data: bytes
    #: Left and top.
    at: tuple[int, int]
    size: tuple[int, int]
    #: What becomes of its place afterwards.
    disposal: Disposal = "keep"
    #: Whether what was there shows through.
    is_over: bool = True
    #: Whether it is what readers show that know no animations, and no frame.
    is_alone: bool = False


@dataclass(frozen=True, slots=True)
class Film:
    """An image, its frames and its colours.

    Attributes:
        image: As it was opened.
        size: Its width and height, before it is turned.
        parts: What its frames are put together from; none where its decoder does that as browsers do.
        stills: What readers show that know no animations, where that is no frame of this one.
        count: Of its frames, stills among them.
        turn: What makes its colours those that viewers show.
    """

    image: Image.Image
    size: tuple[int, int]
    parts: tuple[Part, ...]
    stills: tuple[Image.Image, ...]
    count: int
    turn: Turn | None

    @property
    def is_animated(self) -> bool:
        """Whether it has frames that viewers show; the second picture of a phone's JPEG is a depth map, or another."""
        return self.count > 1 and self.image.format != "MPO"

    def play(self, numbers: Sequence[int]) -> Iterator[Image.Image]:
        """Yield frames; each is valid until the next one.

        Args:
            numbers: Ascending, from 0.
        """
        if self.parts:
            for number, frame in zip(range(numbers[-1] + 1), self._composed(), strict=False):
                if number in numbers:
                    yield frame
            return
        for number in numbers:
            place = number - len(self.stills)
            if place < 0:
                yield self.stills[number]
                continue
            if self.count > 1 and self.image.tell() != place:
                self.image.seek(place)
            yield self.image

    def _composed(self) -> Iterator[Image.Image]:
        """Yield RGBA or, from where on everything was drawn, RGB."""
        canvas = Image.new("RGBA", self.size)
        for part in self.parts:
            own = _own_pixels(part, str(self.image.format))
            before = canvas.copy() if part.disposal == "restore" or part.is_alone else None
            canvas = _laid_on(canvas, own, part)
            canvas.info = {name: value for name, value in self.image.info.items() if name != "transparency"}
            yield canvas
            canvas = canvas if before is None else before
            if part.disposal == "clear":
                canvas = canvas.convert("RGBA")
                canvas.paste((0, 0, 0, 0), (*part.at, part.at[0] + part.size[0], part.at[1] + part.size[1]))


def _own_pixels(part: Part, format: str) -> Image.Image:
    """Decode a frame's own pixels: RGBA, or RGB where all of them are opaque."""
    with Image.open(io.BytesIO(part.data), formats=(format,)) as image:
        own = in_colours(heed_depth(image, part.data))
        if format == "PNG":
            check_rows(image, part.data)
        return own


def _laid_on(canvas: Image.Image, own: Image.Image, part: Part) -> Image.Image:
    if own.mode == "RGB" and part.at == (0, 0) and own.size == canvas.size:
        return own
    if not part.is_over:
        canvas = canvas.convert("RGBA")
        canvas.paste(own, part.at)
    elif canvas.mode == "RGBA" and own.mode == "RGBA":
        canvas.alpha_composite(own, part.at)
    else:
        canvas.paste(own, part.at, own if own.mode == "RGBA" else None)
    return canvas


def open_film(image: Image.Image, data: bytes, max_pixels: int) -> Film:
    """Find an image's frames.

    Args:
        image: Opened, not loaded; its structure was checked.
        data: Its file.
        max_pixels: Of a frame's own.

    Raises:
        ImageTooLarge: A frame is larger.
        ImageUndecodable: Its frames cannot be put together.
    """
    parts: tuple[Part, ...] = ()
    stills: tuple[Image.Image, ...] = ()
    size, count = image.size, int(getattr(image, "n_frames", 1)) if image.format != "GIF" else 1
    turn = turn_of(image)
    if image.format == "GIF":
        size, parts = _gif_parts(data)
    elif image.format == "PNG":
        heed_depth(image, data)
        parts = tuple(_apng_parts(data, size))
    elif image.format == "AVIF":
        stills = _stills(image, data)
    for width, height in (size, *(part.size for part in parts), *(still.size for still in stills)):
        if width * height > max_pixels:
            raise ImageTooLarge(f"a frame of {width} x {height} pixels; at most {max_pixels}")
    count = len(parts) or count + len(stills)
    if image.format == "GIF" and count == 1 and (parts[0].at, parts[0].size) == ((0, 0), size):
        # Nothing is under it that would show. Of its file only this part is read: Pillow may find another image in it.
        image, parts = Image.open(io.BytesIO(parts[0].data), formats=("GIF",)), ()
    return Film(image, size, parts, stills, count, turn)


def _stills(image: Image.Image, data: bytes) -> tuple[Image.Image, ...]:
    """Find the image of an AVIF sequence that is none of its frames, but for those who do not play it.

    Source:
        AV1 Image File Format, section 6.3: a sequence has a primary item as well; encoders take the first frame.
    """
    if data[8:12] != AVIF_SEQUENCE:
        return ()
    try:
        still = Image.open(io.BytesIO(data[:8] + b"avif" + data[12:]), formats=("AVIF",))
        still.load()
    except (OSError, ValueError, RuntimeError, SyntaxError):
        # Nobody else can show it either.
        return ()
    image.load()
    if still.size == image.size:
        own, first = (fingerprint(readable(picture)) for picture in (still, image))
        if (np.maximum(own, first) - np.minimum(own, first)).max() <= HARDLY:
            return ()
    return (still,)


def _gif_parts(data: bytes) -> tuple[tuple[int, int], tuple[Part, ...]]:
    """Return the size of a GIF, and its images, each as a file of one image.

    Raises:
        ImageUndecodable: There are none.

    Source:
        GIF89a specification, sections 18, 20 and 23.
    """
    screen = struct.unpack("<HH", data[6:10])
    palette = data[10:13] + data[13 : 13 + palette_bytes(data, 10)]
    control = b""
    parts: list[Part] = []
    for block in gif_blocks(data):
        if block.startswith(_GIF_CONTROL) and len(block) > _GIF_CONTROL_BYTES and block[2] >= _GIF_CONTROL_FIELDS:
            control = block[3 : 3 + _GIF_CONTROL_FIELDS]
        if not block.startswith(b","):
            continue
        left, top, width, height = struct.unpack("<HHHH", block[1:9])
        # As browsers do: both of them, and what sticks out of its screen enlarges it, if it is the first.
        width, height = (width, height) if width and height else screen
        if not parts:
            screen = (max(screen[0], left + width), max(screen[1], top + height))
        size = struct.pack("<HH", width, height)
        # What becomes of its place is not the decoder's to do.
        shows = b"!\xf9\x04" + bytes([control[0] & 1]) + control[1:] + b"\0" if control else b""
        own = data[:6] + size + palette + shows + b",\0\0\0\0" + size + block[9:] + b";"
        disposal = _GIF_DISPOSALS.get(control[0] >> 2 & 7, "keep") if control else "keep"
        parts.append(Part(own, (left, top), (width, height), disposal))
        control = b""
    if not parts:
        raise ImageUndecodable("a GIF of no images")
    return (screen[0], screen[1]), tuple(parts)


def _apng_parts(data: bytes, canvas: tuple[int, int]) -> Iterator[Part]:
    """Yield the frames of an APNG, each as a PNG; none of a PNG that is not animated.

    Raises:
        ImageUndecodable: A frame lies outside, has no pixels, or is not the next one.

    Source:
        PNG specification, third edition, section 11.3.5.
    """
    chunks = list(png_chunks(data))
    kinds = [kind for kind, _ in chunks]
    if b"acTL" not in kinds:
        return
    first = kinds.index(b"IDAT") if b"IDAT" in kinds else len(kinds)
    shared = b"".join(_chunk(kind, body) for kind, body in chunks[:first] if kind in _SHARED)
    head = chunks[0][1]
    control, pixels, number = b"", b"", 0
    for kind, body in [*chunks, (b"fcTL", b"")]:
        if kind in (b"fcTL", b"fdAT") and body:
            if int.from_bytes(body[:4], "big") != number:
                raise ImageUndecodable("an APNG whose frames are out of order")
            number += 1
        if kind == b"fcTL":
            if control or pixels:
                yield _apng_part(head, shared, control, pixels, canvas)
            control, pixels = body, b""
        elif kind == b"IDAT":
            pixels += body
        elif kind == b"fdAT":
            pixels += body[4:]


def _apng_part(head: bytes, shared: bytes, control: bytes, pixels: bytes, canvas: tuple[int, int]) -> Part:
    if not control:
        control = struct.pack(">5IHHBB", 0, *canvas, 0, 0, 0, 1, 0, 0)
        is_alone = True
    else:
        is_alone = False
    if len(control) != struct.calcsize(">5IHHBB"):
        raise ImageUndecodable("an APNG with a frame of no size")
    _, width, height, left, top, *_, disposal, blend = struct.unpack(">5IHHBB", control)
    if not (0 < width <= canvas[0] - left and 0 < height <= canvas[1] - top and pixels):
        raise ImageUndecodable("an APNG with a frame that lies outside, or without pixels")
    own = _chunk(b"IHDR", struct.pack(">II", width, height) + head[8:13]) + shared + _chunk(b"IDAT", pixels)
    file = _PNG_SIGNATURE + own + _chunk(b"IEND", b"")
    return Part(file, (left, top), (width, height), _APNG_DISPOSALS.get(disposal, "keep"), blend == 1, is_alone)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
