"""Bytes → RGB views that the encoder sees; the only module that knows PIL.

In: the bytes of one file, hostile. Out: `DecodedImage`, or an `ImageRejected` with its reason.
Size and format are checked from the header, before a pixel is decoded.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import PIL
from PIL import Image, ImageOps, UnidentifiedImageError

from worker.errors import (
    DecodeMemory,
    ImageFormatRefused,
    ImageRejected,
    ImageTooLarge,
    ImageTruncated,
    ImageUndecodable,
)
from worker.intake.frames import open_film
from worker.intake.look import look
from worker.intake.rows import check_rows
from worker.intake.square import View, ViewSpec, square
from worker.intake.structure import check_structure, format_by_signature
from worker.records import ImageFacts

#: Longest side in pixels: what JPEG and WebP can hold, and no strip of 1 × 2³¹ pixels.
MAX_SIDE = 16_383
#: Names how files become views: the next number when the same file becomes another view.
DECODING = f"3, Pillow {PIL.__version__}"
# Pixels are limited below, per call and by settings; Pillow's own limit is a warning, global, and later.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What is decoded at all."""

    max_bytes: int
    max_pixels: int
    formats: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """An image that was looked at: what it is, and its views, all of one size."""

    facts: ImageFacts
    views: tuple[View, ...]


def decode(data: bytes, limits: Limits, spec: ViewSpec) -> DecodedImage:
    """Decode one image as a person would see it: upright, and where it is transparent on white and on black.

    Args:
        data: The file.
        limits: What is refused.
        spec: The squares to make.

    Returns:
        The image's facts (width and height upright) and its views. Of a JPEG whose shorter side is six times the
        view's or more, views within a few levels: see `load_upright`.

    Raises:
        ImageRejected: With the reason.
    """
    with _reading(data, limits) as image:
        film = open_film(image, data, limits.max_pixels)
        _check_size(*film.size, limits)
        seen = look(film, spec, lambda: Image.open(io.BytesIO(data), formats=limits.formats))
        if image.format == "PNG" and not film.parts:
            check_rows(image, data)
        facts = ImageFacts(
            sha256=hashlib.sha256(data).hexdigest(),
            format=_format_of(image),
            width=seen.size[0],
            height=seen.size[1],
            frames=seen.frames,
            views=len(seen.views),
            bytes=len(data),
            view_boxes=seen.boxes,
            views_wanted=seen.wanted,
            unseen=seen.unseen,
        )
        return DecodedImage(facts, tuple(seen.views))


def decode_plain(data: bytes, limits: Limits, spec: ViewSpec) -> View:
    """Decode one image as transformers does: upright, `convert("RGB")` and nothing else.

    Args:
        data: The file.
        limits: What is refused.
        spec: The square to make.

    Raises:
        ImageRejected: With the reason.

    Source:
        `transformers.image_utils.load_image`, on which `sluice classify` must agree.
    """
    with _reading(data, limits) as image:
        image.load()
        return square(ImageOps.exif_transpose(image).convert("RGB"), spec)


@contextmanager
def _reading(data: bytes, limits: Limits) -> Iterator[Image.Image]:
    """Open an image within limits, and map whatever Pillow raises.

    Pillow's decoders raise SyntaxError, ValueError, RuntimeError, EOFError, OSError and more: this is the one
    edge where everything is caught, and nothing is swallowed.
    """
    if len(data) > limits.max_bytes:
        raise ImageTooLarge(f"{len(data)} bytes; at most {limits.max_bytes} (SLUICE_IMAGE_MAX_BYTES)")
    _check_format(data, limits)
    check_structure(data)
    try:
        with Image.open(io.BytesIO(data), formats=limits.formats) as image:
            _check_size(image.width, image.height, limits)
            yield image
    except ImageRejected:
        raise
    except MemoryError as error:
        raise DecodeMemory("decoding takes more memory than SLUICE_DECODE_MEMORY_BYTES") from error
    except UnidentifiedImageError as error:
        raise ImageUndecodable(f"not an image in {', '.join(limits.formats)}") from error
    except Exception as error:
        if "truncated" in str(error).lower() or isinstance(error, EOFError):
            raise ImageTruncated("the file ends before the image does") from error
        raise ImageUndecodable(f"cannot be decoded: {str(error) or type(error).__name__}") from error


def _check_size(width: int, height: int, limits: Limits) -> None:
    if width * height > limits.max_pixels:
        mend = "SLUICE_IMAGE_MAX_PIXELS"
        raise ImageTooLarge(f"{width} x {height} pixels; at most {limits.max_pixels} ({mend})")
    if max(width, height) > MAX_SIDE:
        raise ImageTooLarge(f"{width} x {height} pixels; at most {MAX_SIDE} a side")
    if min(width, height) < 1:
        raise ImageUndecodable(f"{width} x {height} pixels")


def _check_format(data: bytes, limits: Limits) -> None:
    if not data:
        raise ImageUndecodable("the file is empty")
    # A signature is enough to name the format; nothing outside the allow-list is ever opened.
    named = format_by_signature(data)
    if named and named not in limits.formats:
        raise ImageFormatRefused(f"{named} is not among {', '.join(limits.formats)} (SLUICE_IMAGE_FORMATS)")


def _format_of(image: Image.Image) -> str:
    # Phones write a JPEG with a second picture inside (MPO); its first frame is the JPEG that everybody sees.
    return "JPEG" if image.format == "MPO" else str(image.format)
