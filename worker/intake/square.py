"""An open image → the RGB square that the encoder sees: loaded no larger than needed, upright, resized, cropped.

In: an image that passed the limits. Out: `(crop, crop, 3)`, as the checkpoint's processor makes it.
Never an image without its edges: what is cropped away is the checkpoint's own choice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image

from worker.intake.paper import View
from worker.intake.views import Mode, plan, resized

__all__ = ["Upright", "View", "ViewSpec", "load_upright", "square"]

Box = tuple[float, float, float, float]

#: Beyond this aspect ratio the resized image is never built whole: 1 × 16,383 pixels would become 224 × 3.6 million.
_MAX_WHOLE_RESIZE_ASPECT = 8
#: A JPEG's copy is at least so many times as large as the resized image; at 2 a view is off by up to 19 of 255 levels.
_COPY_FACTOR = 3
#: The same for a part of the image that is a view of its own.
_PART_FACTOR = 2

#: What undoes each EXIF orientation.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
#: Where each turn moves a point of an image of w x h.
_MOVES: dict[Image.Transpose, Callable[[float, float, float, float], tuple[float, float]]] = {
    Image.Transpose.FLIP_LEFT_RIGHT: lambda x, y, w, h: (w - x, y),
    Image.Transpose.ROTATE_180: lambda x, y, w, h: (w - x, h - y),
    Image.Transpose.FLIP_TOP_BOTTOM: lambda x, y, w, h: (x, h - y),
    Image.Transpose.TRANSPOSE: lambda x, y, w, h: (y, x),
    Image.Transpose.ROTATE_270: lambda x, y, w, h: (h - y, x),
    Image.Transpose.TRANSVERSE: lambda x, y, w, h: (h - y, w - x),
    Image.Transpose.ROTATE_90: lambda x, y, w, h: (y, w - x),
}
#: Turns after which width is height.
_SIDEWAYS = {
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True)
class ViewSpec:
    """The square that an encoder sees, as its checkpoint's processor makes it, and how many of an image."""

    #: Pixels of the shorter side after resizing.
    shortest_edge: int
    #: Pixels of the side of the centre crop.
    crop: int
    #: PIL's number of the resampling filter.
    resample: int
    mode: Mode = "single"
    #: Views of one still image.
    max_views: int = 12
    #: Frames of an animation that are looked at.
    max_frames: int = 16


@dataclass(frozen=True, slots=True)
class Upright:
    """A copy of an image, upright, perhaps in a smaller size."""

    image: Image.Image
    #: Width and height of the original, upright.
    size: tuple[int, int]
    #: The part of the copy that is the original: the last row and column of a smaller copy may be less than a pixel.
    box: Box


def load_upright(image: Image.Image, spec: ViewSpec, smallest: int | None = None, *, is_whole: bool = False) -> Upright:
    """Load an image's pixels and turn it as EXIF says; EXIF that cannot be read turns nothing, as in every viewer.

    Of a JPEG whose shorter side is six times the view's or more (3 times and twice), the decoder is asked for a half, a
    quarter or an eighth, which saves most of the time and memory. The view then differs by less than 1 of 255 levels on
    average; at most by 6 in what a camera takes, by 8 in pure noise, by 12 along hard edges between colours.

    Args:
        image: Opened, not loaded.
        spec: What will be made of it.
        smallest: Pixels of the shortest side of the parts that views will be made of, where there are several.
        is_whole: Whether all its pixels are needed.

    Source:
        libjpeg-turbo, `scale_num`; Pillow's documentation of `Image.draft`.
    """
    whole = image.size
    scale = 1 if is_whole else _ask_for_less(image, spec, smallest or _smallest_part(image.size, spec))
    image.load()
    # Some formats know their size only now; none of them is a JPEG.
    width, height = whole if scale > 1 else image.size
    box = (0.0, 0.0, width / scale, height / scale)
    turn = _turn_of(image)
    if turn is None:
        return Upright(image, (width, height), box)
    size = (height, width) if turn in _SIDEWAYS else (width, height)
    return Upright(image.transpose(turn), size, _turn_box(box, turn, image.size))


def _smallest_part(size: tuple[int, int], spec: ViewSpec) -> int:
    """Return the shorter side of the smallest part that is certain to be looked at."""
    if spec.mode != "tiles":
        return min(size)
    return min(min(right - left, bottom - top) for left, top, right, bottom in _plan(size, spec))


def _plan(size: tuple[int, int], spec: ViewSpec) -> tuple[tuple[int, int, int, int], ...]:
    return plan(size, spec.mode, spec.crop, spec.max_views).boxes


def _ask_for_less(image: Image.Image, spec: ViewSpec, smallest: int) -> int:
    """Ask a JPEG's decoder for a smaller copy; returns how many times smaller."""
    if image.format not in {"JPEG", "MPO"} or image.mode not in {"RGB", "L"} or _is_extreme(image.size):
        return 1
    width = image.width
    across, down = resized(image.size, spec.shortest_edge)
    short = min(image.size)
    # A part needs as many pixels in the copy as the whole would; a little less does, where it is no checkpoint's own.
    factor = _COPY_FACTOR if smallest == short else _PART_FACTOR * short / smallest
    image.draft(None, (round(across * factor), round(down * factor)))
    return round(width / image.width)


def _turn_of(image: Image.Image) -> Image.Transpose | None:
    # Pillow's `getexif` also heeds XMP and text, which browsers do not: they would see upright what was judged turned.
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif", b""))
        return _TURNS.get(exif.get(ExifTags.Base.Orientation, 1))
    except Exception:
        return None


def _turn_box(box: Box, turn: Image.Transpose, size: tuple[int, int]) -> Box:
    first, second = (_MOVES[turn](x, y, *size) for x, y in (box[:2], box[2:]))
    left, right = sorted((first[0], second[0]))
    top, bottom = sorted((first[1], second[1]))
    return (left, top, right, bottom)


def square(image: Image.Image, spec: ViewSpec, copy: Upright | None = None) -> View:
    """Resize the shorter side and crop the centre, equal to CLIPImageProcessor's PIL path to the last bit.

    Args:
        image: RGB, upright.
        spec: The square to make.
        copy: What `image` is a copy of, where it is not the whole image in its own size.
    """
    size = resized(copy.size if copy else image.size, spec.shortest_edge)
    left, top = (size[0] - spec.crop) // 2, (size[1] - spec.crop) // 2
    box = (left, top, left + spec.crop, top + spec.crop)
    resample = Image.Resampling(spec.resample)
    if _is_extreme(image.size):
        return np.asarray(_resize_part(image, size, box, resample))
    return np.asarray(image.resize(size, resample, copy.box if copy else None).crop(box))


def _is_extreme(size: tuple[int, int]) -> bool:
    return max(size) > min(size) * _MAX_WHOLE_RESIZE_ASPECT


def _resize_part(
    image: Image.Image, size: tuple[int, int], box: tuple[int, int, int, int], resample: Image.Resampling
) -> Image.Image:
    """Return `image.resize(size).crop(box)` within 2 levels, without ever holding the whole.

    Pillow resizes in two passes, rounds to 8 bits in between, and picks their order by cost; the part keeps the order
    that the whole would have, for in the other one it differs by up to 9 levels.
    """
    across, down = image.width / size[0], image.height / size[1]
    left, right, top, bottom = box[0] * across, box[2] * across, box[1] * down, box[3] * down
    part = (box[2] - box[0], box[3] - box[1])
    if image.height > image.width and down > 1:
        rows = image.resize((image.width, part[1]), resample, (0, top, image.width, bottom))
        return rows.resize(part, resample, (left, 0, right, part[1]))
    columns = image.resize((part[0], image.height), resample, (left, 0, right, image.height))
    return columns.resize(part, resample, (0, top, part[0], bottom))
