"""Which parts of an image, and which frames of an animation, are looked at: geometry and nothing else.

In: sizes in pixels and counts. Out: boxes in the upright image, frame numbers. Never a pixel, never a file.
In `whole` and in `tiles` every pixel lies in a box, however few views there may be: then boxes are squashed more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

#: How much of an image is looked at.
Mode = Literal["single", "whole", "tiles"]
#: Left, top, right, bottom, in whole pixels.
Box = tuple[int, int, int, int]
Size = tuple[int, int]

#: Up to this aspect ratio an image is squashed into one square; what is longer is cut into squares. Measured: squashing
#: more loses more than the centre crop does (docs/decisions/0009).
MAX_SQUASH = 1.1
#: Neighbouring tiles share this much of a tile, so that what one cuts through is whole in the other.
OVERLAP = 0.2
#: A picture between bars is looked at when it is at most this share of the image,
WORTH_UNBARRING = 0.9
#: a thing on a plain background when it is at most this share,
WORTH_TRIMMING = 0.6
#: and with so much of the background on each side, for things are drawn and photographed with a margin.
_MARGIN = 0.05
#: In `tiles`, sides of the encoder's square that a tile is wide: things of a tenth of that are still seen.
TILE_SIDES = 2


@dataclass(frozen=True, slots=True)
class Plan:
    """What to look at."""

    boxes: tuple[Box, ...]
    #: Boxes that there would be if their number were not limited.
    wanted: int


def resized(size: Size, shortest_edge: int) -> Size:
    """Return the size to which a checkpoint's processor resizes, before it crops.

    Args:
        size: Width and height of the image.
        shortest_edge: What its shorter side becomes.

    Source:
        transformers, `get_resize_output_image_size` with `default_to_square=False`.
    """
    short, long = sorted(size)
    scaled_long = int(shortest_edge * long / short)
    return (scaled_long, shortest_edge) if size[0] > size[1] else (shortest_edge, scaled_long)


def crop_loses_nothing(size: Size, shortest_edge: int, crop: int) -> bool:
    """Whether the checkpoint's own preprocessing shows every pixel."""
    return resized(size, shortest_edge) == (crop, crop)


def centre_box(size: Size, shortest_edge: int, crop: int) -> Box:
    """Return the part that the checkpoint's own preprocessing shows, rounded to whole pixels.

    Args:
        size: Width and height of the image.
        shortest_edge: What its shorter side is resized to.
        crop: Side of the square that is cropped from the centre.
    """
    spans = []
    for length, scaled in zip(size, resized(size, shortest_edge), strict=True):
        start = (scaled - crop) // 2
        pixels = length / scaled
        spans.append((max(0, round(start * pixels)), min(length, round((start + crop) * pixels))))
    (left, right), (top, bottom) = spans
    return (left, top, right, bottom)


def plan(size: Size, mode: Mode, crop: int, max_views: int, inner: Sequence[Box] = ()) -> Plan:
    """Plan the views of one image, or of one frame, for `whole` or `tiles`.

    Args:
        size: Width and height of the image.
        mode: `whole`, or `tiles`.
        crop: Side of the encoder's square.
        max_views: At most so many boxes, 1 or more.
        inner: What uniform borders enclose, where that is worth an extra look.

    Returns:
        Boxes, every pixel in one of them: the whole image, then the inner parts, then tiles.
    """
    everything = (0, 0, *size)
    boxes, wanted = _show(everything, max_views)
    for part in inner:
        extra, more = _show(part, max_views - len(boxes))
        boxes, wanted = boxes + extra, wanted + more
    if mode == "tiles" and min(size) > TILE_SIDES * crop:
        wanted += _grid_count(size, TILE_SIDES * crop)
        boxes += _grid(size, TILE_SIDES * crop, max_views - len(boxes))
    return Plan(tuple(dict.fromkeys(boxes)), max(wanted, len(boxes)))


def frame_numbers(count: int, most: int) -> tuple[int, ...]:
    """Spread looks evenly over an animation, its first and last frame always among them.

    Args:
        count: Frames of the animation, 1 or more.
        most: At most so many numbers; 1 is the first frame only.

    Returns:
        Ascending, from 0.
    """
    if most == 1 or count == 1:
        return (0,)
    looks = min(count, most)
    return tuple(round(look * (count - 1) / (looks - 1)) for look in range(looks))


def inner_view(inner: Box, size: Size, least: int, *, has_margin: bool) -> Box | None:
    """Return the part to look at of an image that has uniform borders.

    Args:
        inner: What is not border.
        size: Width and height of the image.
        least: Pixels that a side has at least, where the image has them.
        has_margin: Whether it is a thing on a plain background, which is looked at in a square with a margin where
            there is room for one; a picture between bars is looked at as it is.

    Returns:
        A box with all of `inner`; None where it is not much smaller than the image.
    """
    long = max(inner[2] - inner[0], inner[3] - inner[1])
    # No wider than the image allows it to stay a square.
    side = max(long, least, min(round(long * (1 + 2 * _MARGIN)), *size))
    own = (inner[2] - inner[0], inner[3] - inner[1])
    most = (WORTH_TRIMMING if has_margin else WORTH_UNBARRING) * size[0] * size[1]
    for wanted in ((side, side), own) if has_margin else (own,):
        left, right = _grown(inner[0], inner[2], max(least, wanted[0]), size[0])
        top, bottom = _grown(inner[1], inner[3], max(least, wanted[1]), size[1])
        if (right - left) * (bottom - top) <= most:
            return (left, top, right, bottom)
    return None


def _grown(start: int, end: int, wanted: int, length: int) -> tuple[int, int]:
    """Grow a span on both sides, and move it inside."""
    wanted = min(length, max(wanted, end - start))
    start = max(0, min(start - (wanted - (end - start)) // 2, length - wanted))
    return start, start + wanted


def _show(box: Box, most: int) -> tuple[list[Box], int]:
    """Show all of a box in one view, or in squares along its longer side; returns them, and how many were wanted."""
    left, top, right, bottom = box
    short, long = sorted((right - left, bottom - top))
    wanted = 1 if long <= MAX_SQUASH * short else _count(long, short)
    spans = _spans(long, short, min(wanted, most)) if most > 0 else []
    if right - left >= bottom - top:
        return [(left + start, top, left + end, bottom) for start, end in spans], wanted
    return [(left, top + start, right, top + end) for start, end in spans], wanted


def _grid(size: Size, side: int, most: int) -> list[Box]:
    """Cover an image with the smallest squares, no smaller than `side`, that number at most `most`."""
    low, high = side, max(size)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _grid_count(size, middle) <= most else (middle + 1, high)
    if low >= max(size) or _grid_count(size, low) > most:
        return []
    across, down = (_spans(length, low, _count(length, low)) for length in size)
    return [(left, top, right, bottom) for (top, bottom), (left, right) in product(down, across)]


def _grid_count(size: Size, side: int) -> int:
    return _count(size[0], side) * _count(size[1], side)


def _count(length: int, side: int) -> int:
    """Return how many spans of `side` cover `length` and overlap their neighbours."""
    if length <= side:
        return 1
    step = side * (1 - OVERLAP)
    return 1 + -int(-(length - side) // step)


def _spans(length: int, side: int, count: int) -> list[tuple[int, int]]:
    """Cover `length` with `count` spans of `side` pixels, or of more where those would not overlap enough."""
    if count == 1:
        return [(0, length)]
    least = -int(-length // (count - (count - 1) * OVERLAP))
    side = min(length, max(side, least))
    starts = [round(place * (length - side) / (count - 1)) for place in range(count)]
    return [(start, start + side) for start in starts]
