"""Where in a view a category is seen: the margin that is lost while a patch hides one part after another.

In: a view, a compiled policy, who embeds. Out: `HeatMap`. Arithmetic only: what is drawn of it is drawn elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from worker.policy.compiled import CompiledPolicy, Floats, Matrix
from worker.scoring import score
from worker.workbench.explain.explanation import Heat

View = npt.NDArray[np.uint8]
#: Left, top, right, bottom in pixels of a view.
Box = tuple[int, int, int, int]

#: Patches along a side; each overlaps half of its neighbour.
GRID = 8


@dataclass(frozen=True, slots=True)
class HeatMap:
    """What hiding parts of a view takes from a category's margin."""

    boxes: tuple[Box, ...]
    #: `(GRID, GRID)` logits of margin: what is lost, from top and from left; negative where the margin grows.
    losses: Floats
    #: With nothing hidden.
    margin: float
    #: `(side, side)`: the loss around each pixel, divided by the greatest loss or gain; [-1, 1].
    weights: Floats

    def said(self, category: str, view: int) -> Heat:
        """Return the map as part of an explanation.

        Args:
            category: Whose margin it is.
            view: Index of the view.
        """
        left, top, right, bottom = self.boxes[int(self.losses.argmax())]
        return Heat(
            category=category,
            view=view,
            view_pixels=len(self.weights),
            patch_pixels=right - left,
            margin=self.margin,
            losses=[[float(value) for value in row] for row in self.losses],
            greatest=float(np.abs(self.losses).max()),
            strongest=(left, top, right, bottom),
        )


def occlude(view: View, compiled: CompiledPolicy, category: str, embed: Callable[[Sequence[View]], Matrix]) -> HeatMap:
    """Hide a view's parts one after another, and see what becomes of a category's margin.

    Args:
        view: `(side, side, 3)` uint8.
        compiled: The policy.
        category: Whose margin.
        embed: n views to `(n, dim)`, unit rows; called once, with the view and `GRID ** 2` copies of it.

    Source:
        Zeiler and Fergus 2014, "Visualizing and Understanding Convolutional Networks", section 4.2.
    """
    boxes = patches(len(view))
    column = [found.name for found in compiled.categories].index(category)
    margins = score(embed([view, *hidden(view, boxes)]), compiled).margin[:, column]
    losses = (margins[0] - margins[1:]).reshape(GRID, GRID)
    return HeatMap(tuple(boxes), losses, float(margins[0]), spread(losses, len(view)))


def patches(side: int, grid: int = GRID) -> list[Box]:
    """Return squares that cover a view, row by row, each overlapping half of its neighbour.

    Args:
        side: Pixels of the view's side, at least twice the grid.
        grid: How many along a side.
    """
    width = round(2 * side / (grid + 1))
    starts = [round(place * (side - width) / (grid - 1)) for place in range(grid)]
    return [(left, top, left + width, top + width) for top in starts for left in starts]


def hidden(view: View, boxes: Sequence[Box]) -> list[View]:
    """Return copies of a view, in each one box filled with the view's mean colour: it is no edge and no object."""
    colour = np.rint(view.mean(axis=(0, 1))).astype(np.uint8)
    copies = []
    for left, top, right, bottom in boxes:
        copy = view.copy()
        copy[top:bottom, left:right] = colour
        copies.append(copy)
    return copies


def spread(losses: Floats, side: int) -> Floats:
    """Spread losses over pixels: each stands at the centre of its patch, and what lies between is interpolated.

    Args:
        losses: `(grid, grid)`, of the patches that `patches` returns.
        side: Pixels of the view's side.

    Returns:
        `(side, side)` in [-1, 1], of the greatest loss or gain; all 0 where nothing changes the margin.
    """
    grid = len(losses)
    centres = np.array([(left + right) / 2 for left, _, right, _ in patches(side, grid)[:grid]])
    pixels = np.arange(side) + 0.5
    # `(side, grid)`: how much of each pixel belongs to each patch along one side.
    parts = np.stack([np.interp(pixels, centres, row) for row in np.eye(grid)], axis=1)
    greatest = np.abs(losses).max()
    spread_out: Floats = parts @ (losses / greatest if greatest > 0 else losses) @ parts.T
    return spread_out
