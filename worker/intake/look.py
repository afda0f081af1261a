"""An open image → every view of it: each frame that shows something new, all of its pixels, on white and on black.

In: an image that passed the limits, not loaded. Out: `Looked`: squares, what each shows, and what was left out.
Never more views than `ViewSpec` allows; where that is too few, `wanted` and `unseen` say so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product

import numpy as np
import numpy.typing as npt
from PIL import Image

from worker.errors import ImageTooLarge
from worker.intake.borders import inside
from worker.intake.colours import Turn, repainted
from worker.intake.frames import Film
from worker.intake.paper import (
    HARDLY,
    Paper,
    Sketch,
    View,
    alpha_matters,
    fingerprint,
    flatten,
    in_colours,
    on_paper,
    readable,
    sketch,
)
from worker.intake.square import Upright, ViewSpec, load_upright, square
from worker.intake.structure import MAX_FRAMES
from worker.intake.views import Box, Size, centre_box, crop_loses_nothing, frame_numbers, inner_view, plan
from worker.records import Unseen, ViewBox

#: Pixels of all frames of an animation together: all are decoded, to find those that differ.
MAX_FRAME_PIXELS = 200_000_000
#: An animation has at most so many times the views of a still image.
_ANIMATION_SHARE = 4
#: A part of a smaller copy has at least so many times the encoder's pixels; else the file is decoded larger.
_PART_FACTOR = 2
#: Papers, and pictures where their colours are steep.
_BOTH: tuple[Paper, ...] = ("white", "black")
#: Borders within borders that are trimmed: bars around a drawing on white.
_BORDERS = 2
#: A part of this share of the encoder's side shows nothing that could be told apart; smaller ones are grown.
_LEAST_SHARE = 4


@dataclass(slots=True)
class Looked:
    """What was looked at."""

    #: Width and height, upright.
    size: Size = (0, 0)
    frames: int = 1
    views: list[View] = field(default_factory=list)
    boxes: list[ViewBox] = field(default_factory=list)
    #: Views that there would be if their number were not limited.
    wanted: int = 0
    unseen: list[Unseen] = field(default_factory=list)

    def add(self, view: View, box: ViewBox) -> None:
        """Add a view and what it shows."""
        self.views.append(view)
        self.boxes.append(box)


def look(film: Film, spec: ViewSpec, reopen: Callable[[], Image.Image]) -> Looked:
    """Look at an image as `spec.mode` says.

    Args:
        film: Opened, not loaded.
        spec: The squares to make, and how many.
        reopen: Opens the same file again: a JPEG that was decoded small for a part that turns out to be tiny.

    Raises:
        ImageTooLarge: More frames, or more pixels in them, than are decoded.
    """
    if spec.mode == "single":
        return _look_once(film, spec)
    looked = Looked(frames=film.count)
    numbers: tuple[int, ...] = (0,)
    all_seen = True
    if film.is_animated:
        numbers, all_seen = _choose_frames(film, spec)
    most = spec.max_views
    if len(numbers) > 1:
        most = max(1, min(most, max(spec.max_frames, _ANIMATION_SHARE * most) // len(numbers)))
    for number, image in zip(numbers, film.play(numbers), strict=True):
        _look_at(_Frame(image, number, film.turn, reopen), spec, most, looked)
    if not all_seen:
        looked.unseen.append("frames")
    return looked


def _look_once(film: Film, spec: ViewSpec) -> Looked:
    """Look as the checkpoint's own preprocessing does: at the centre of the first frame, on white."""
    copy = load_upright(next(film.play((len(film.stills),))), spec)
    box = centre_box(copy.size, spec.shortest_edge, spec.crop)
    looked = Looked(copy.size, film.count, wanted=1)
    looked.add(square(flatten(copy.image), spec, copy), ViewBox(box=box))
    if box != (0, 0, *copy.size):
        looked.unseen.append("edges")
    if film.is_animated:
        looked.unseen.append("frames")
    return looked


@dataclass(frozen=True, slots=True)
class _Frame:
    """One frame, and what is needed to look at it."""

    image: Image.Image
    number: int
    turn: Turn | None
    reopen: Callable[[], Image.Image]

    @property
    def is_steep(self) -> bool:
        """Whether viewers that heed its colours show another picture than those that do not."""
        return self.turn is not None and self.turn.is_steep

    def pictures(self, copy: Upright, most: int) -> list[Image.Image]:
        """Return what viewers show: one picture or, where its colours are steep and there is room, both."""
        pixels = readable(copy.image, keeps_cmyk=self.turn is not None)
        if self.turn is None or not self.turn.is_steep or most < len(_BOTH):
            return [pixels]
        turned = repainted(in_colours(copy.image), self.turn)
        return [pixels, turned.convert("RGBa") if turned.mode == "RGBA" else turned]


def _look_at(frame: _Frame, spec: ViewSpec, most: int, looked: Looked) -> None:
    """Look at all of one frame."""
    copy = load_upright(frame.image, spec, is_whole=frame.is_steep)
    pictures = frame.pictures(copy, most)
    cells = sketch(pictures[0], copy.box)
    papers: tuple[Paper, ...] = ("white",)
    if alpha_matters(cells) and most >= len(pictures) * len(_BOTH):
        papers = _BOTH
    inner = _inner_views(cells, pictures[0], copy, spec.crop // _LEAST_SHARE)
    planned = plan(copy.size, spec.mode, spec.crop, most // (len(papers) * len(pictures)), inner)
    if _is_too_small(copy, planned.boxes, spec):
        with frame.reopen() as again:
            copy = load_upright(again, spec, smallest=_smallest(planned.boxes))
            pictures = frame.pictures(copy, most)
    convert = _colours(frame, pictures[0], cells)
    looked.size = copy.size
    ways = len(_BOTH) if alpha_matters(cells) else 1
    looked.wanted += planned.wanted * ways * (len(_BOTH) if frame.is_steep else 1)
    for box, pixels in product(planned.boxes, pictures):
        part = _part(pixels, copy, box, spec)
        before: View | None = None
        for paper in papers:
            view = np.asarray(convert(on_paper(part, paper)))
            if before is None or not np.array_equal(view, before):
                looked.add(view, ViewBox(box=box, frame=frame.number, on=paper))
            else:
                looked.wanted -= 1
            before = view


def _inner_views(cells: Sketch, pixels: Image.Image, copy: Upright, least: int) -> list[Box]:
    """Return what uniform borders enclose, and what the borders of another colour in that enclose."""
    region: Box = (0, 0, *copy.size)
    found: list[Box] = []
    for _ in range(_BORDERS):
        size = (region[2] - region[0], region[3] - region[1])
        enclosed = inside(cells, pixels, size)
        view = inner_view(enclosed.box, size, least, has_margin=not enclosed.is_picture)
        if view is None:
            break
        found.append(_moved(view, region))
        region = _moved(enclosed.box, region)
        across, down = pixels.width / size[0], pixels.height / size[1]
        left, top, right, bottom = enclosed.box
        pixels = pixels.crop((int(left * across), int(top * down), -int(-right * across), -int(-bottom * down)))
        if min(pixels.size) < 1:
            break
        cells = sketch(pixels)
    return found


def _moved(box: Box, region: Box) -> Box:
    return (box[0] + region[0], box[1] + region[1], box[2] + region[0], box[3] + region[1])


def _part(pixels: Image.Image, copy: Upright, box: Box, spec: ViewSpec) -> Image.Image:
    """Resize a part of the image to the encoder's square."""
    left, top, right, bottom = copy.box
    across, down = (right - left) / copy.size[0], (bottom - top) / copy.size[1]
    where = (left + box[0] * across, top + box[1] * down, left + box[2] * across, top + box[3] * down)
    is_own = box == (0, 0, *copy.size) and crop_loses_nothing(copy.size, spec.shortest_edge, spec.crop)
    # The checkpoint's own square is equal to transformers' to the last bit; all others may be made faster.
    gap = None if is_own else 3.0
    return pixels.resize((spec.crop, spec.crop), Image.Resampling(spec.resample), where, reducing_gap=gap)


def _colours(frame: _Frame, pixels: Image.Image, cells: Sketch) -> Callable[[Image.Image], Image.Image]:
    """Return what makes a square RGB as a viewer shows it; nothing where the profile hardly changes anything."""
    turn = frame.turn
    # What is steep was turned before it was made smaller.
    if turn is None or turn.is_steep:
        return lambda square: square
    if pixels.mode != "CMYK":
        raw = Image.fromarray(np.ascontiguousarray(cells[..., :3]))
        change = np.abs(np.asarray(turn.apply(raw)).astype(np.int16) - np.asarray(raw))
        if change.max() <= HARDLY:
            return lambda square: square
    return turn.apply


def _smallest(boxes: tuple[Box, ...]) -> int:
    return min(min(right - left, bottom - top) for left, top, right, bottom in boxes)


def _is_too_small(copy: Upright, boxes: tuple[Box, ...], spec: ViewSpec) -> bool:
    share = (copy.box[2] - copy.box[0]) / copy.size[0]
    return share < 1 and _smallest(boxes) * share < _PART_FACTOR * spec.crop


def _choose_frames(film: Film, spec: ViewSpec) -> tuple[tuple[int, ...], bool]:
    """Choose what to look at: half of the looks evenly spaced, the others at what differs most from all of those.

    A frame that hardly differs from one that is looked at is passed over.

    Returns:
        Numbers, ascending, the first frame's always among them; and whether no frame was left out that differs.

    Raises:
        ImageTooLarge: There are too many.
    """
    count, (width, height) = film.count, film.size
    # A frame's own pixels may lie outside; they cost as much.
    own = sum(part.size[0] * part.size[1] for part in film.parts)
    if count > MAX_FRAMES or max(count * width * height, own) > MAX_FRAME_PIXELS:
        raise ImageTooLarge(f"{count} frames of {width} x {height}; at most {MAX_FRAMES} and {MAX_FRAME_PIXELS} pixels")
    cells = np.stack(list(_fingerprints(film)))
    spread = frame_numbers(count, spec.max_frames)
    # First and last, then every other of the evenly spaced: the other half is left for what stands out.
    queue = [*dict.fromkeys((spread[0], spread[-1], *spread[::2]))]
    chosen: list[int] = []
    mean = np.full(count, np.inf)
    most = np.full(count, np.iinfo(np.uint8).max, np.uint8)
    while len(chosen) < spec.max_frames and (most > HARDLY).any():
        number = queue.pop(0) if queue else int(np.where(most > HARDLY, mean, -1).argmax())
        if most[number] <= HARDLY:
            continue
        chosen.append(number)
        change = np.maximum(cells, cells[number]) - np.minimum(cells, cells[number])
        most = np.minimum(most, change.max(axis=1))
        mean = np.minimum(mean, change.mean(axis=1))
    return tuple(sorted(chosen)), not (most > HARDLY).any()


def _fingerprints(film: Film) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield one of every frame, as it is and, where its colours are steep, as it is shown."""
    for image in film.play(range(film.count)):
        image.load()
        shown = in_colours(image)
        cells = [fingerprint(readable(shown))]
        if film.turn is not None and film.turn.is_steep:
            # What hardly differs as it is may differ as it is shown.
            cells.append(fingerprint(readable(repainted(shown, film.turn))))
        yield np.concatenate(cells)
