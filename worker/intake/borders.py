"""Uniform borders around an image, and what they enclose: a picture between bars, or a thing on a plain background.

In: a sketch and the pixels that it was made of. Out: a box. What is taken for border is never more than a shade off.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from worker.intake.paper import CELLS, HARDLY, Sketch
from worker.intake.views import Box, Size

#: Levels by which pixels of a border may differ: twice what cells may, for JPEGs ring along edges.
_PIXELS_HARDLY = 2 * HARDLY
#: A picture's edge differs from the bar beside it over most of its length; a thing touches its box in a few places.
_EDGE_SHARE = 0.5
#: Lines behind the border in which a picture's edge is looked for: the first may be a blend of both.
_EDGE_LINES = 3


@dataclass(frozen=True, slots=True)
class Inside:
    """What uniform borders enclose."""

    box: Box
    #: Whether it ends in straight edges on all sides that have a border.
    is_picture: bool


def inside(cells: Sketch, pixels: Image.Image, size: Size) -> Inside:
    """Return what is left when uniform borders are trimmed: everything where all is one colour.

    What is enclosed may have borders of another colour: a drawing on white between black bars. Ask again for those.

    Args:
        cells: A sketch of the image.
        pixels: What it was made of, perhaps a smaller copy.
        size: Of the image.
    """
    left, top, right, bottom = rough = _inside(cells, size)
    if rough == (0, 0, *size):
        return Inside(rough, is_picture=True)
    edges: list[int] = []
    are_straight = True
    for side, (edge, is_end) in enumerate(((left, False), (top, False), (right, True), (bottom, True))):
        length = size[side % 2]
        if edge == (length if is_end else 0):
            edges.append(edge)
            continue
        found, is_straight = _refine(_strip(pixels, rough, size, side), edge, length)
        edges.append(found)
        are_straight &= is_straight
    return Inside((edges[0], edges[1], max(edges[2], edges[0] + 1), max(edges[3], edges[1] + 1)), are_straight)


@dataclass(frozen=True, slots=True)
class _Strip:
    """The lines about one edge, from the border inwards."""

    lines: npt.NDArray[np.int16]
    #: Where the first line begins, and how far the next is, in pixels of the image.
    start: float
    step: float


def _strip(pixels: Image.Image, box: Box, size: Size, side: int) -> _Strip:
    axis, is_end = side % 2, side > 1
    scale = (pixels.size[0] / size[0], pixels.size[1] / size[1])
    cell = size[axis] / CELLS
    edge = box[side]
    span = [box[0] * scale[0], box[1] * scale[1], box[2] * scale[0], box[3] * scale[1]]
    span[axis], span[axis + 2] = ((edge + at * cell) * scale[axis] for at in ((-2, 1) if is_end else (-1, 2)))
    span[axis], span[axis + 2] = max(0.0, span[axis]), min(float(pixels.size[axis]), span[axis + 2])
    left, top, right, bottom = (int(span[0]), int(span[1]), max(int(span[2]), int(span[0]) + 1), int(np.ceil(span[3])))
    part = pixels.crop((left, top, right, bottom))
    lines = np.asarray(part if part.mode == "RGBa" else part.convert("RGB")).astype(np.int16)
    lines = lines if axis else lines.swapaxes(0, 1)
    first = (left, top, right, bottom)[side]
    step = 1 / scale[axis]
    return _Strip(lines[::-1] if is_end else lines, first * step, -step if is_end else step)


def _refine(strip: _Strip, edge: int, length: int) -> tuple[int, bool]:
    """Find the first line that is not border; returns where it begins, and whether a straight edge does."""
    is_other = (np.abs(strip.lines - strip.lines[0, 0]) > _PIXELS_HARDLY).any(axis=2)
    border = int(is_other.any(axis=1).argmax())
    if border == 0:
        # The border ends where the strip begins, or nowhere in it: the cells know best.
        return edge, False
    behind = is_other[border : border + _EDGE_LINES].mean(axis=1)
    exact = strip.start + border * strip.step
    found = int(np.ceil(exact)) if strip.step < 0 else int(np.floor(exact))
    return min(max(found, 0), length), bool(behind.max() >= _EDGE_SHARE)


def _inside(cells: Sketch, size: Size) -> Box:
    """Trim rows, then columns of the same colour; columns of any where no row is border."""
    levels = cells.astype(np.int16)
    top, bottom = _trim(levels)
    bars = [levels[row, 0] for row, is_bar in ((0, top > 0), (-1, bottom < CELLS)) if is_bar]
    left, right = _trim(levels[top:bottom].swapaxes(0, 1), bars)
    (start, stop), (above, below) = _pixels(left, right, size[0]), _pixels(top, bottom, size[1])
    return (start, above, stop, below)


def _trim(rows: npt.NDArray[np.int16], colours: list[npt.NDArray[np.int16]] | None = None) -> tuple[int, int]:
    """Return the first and the end of the rows that are not border; all where there is nothing else."""
    before, after = (
        _leading(way) if not colours or any(np.abs(way[0, 0] - colour).max() <= HARDLY for colour in colours) else 0
        for way in (rows, rows[::-1])
    )
    # Two halves of one colour each enclose nothing either.
    return (before, len(rows) - after) if before + after < len(rows) else (0, len(rows))


def _leading(rows: npt.NDArray[np.int16]) -> int:
    """Count the rows from the first on that have one colour, all the same."""
    is_other = (np.abs(rows - rows[0, 0]) > HARDLY).any(axis=(1, 2))
    return int(is_other.argmax()) if is_other.any() else len(rows)


def _pixels(first: int, end: int, length: int) -> tuple[int, int]:
    """Turn cells into pixels, all that any part of them shows."""
    return first * length // CELLS, -(-end * length // CELLS)
