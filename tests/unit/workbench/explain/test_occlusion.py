"""Patches cover a view, and the map is red where hiding costs margin."""

from __future__ import annotations

from collections.abc import Sequence

import judged
import numpy as np
import pytest
from judged import FOOD, REVOLVER

from worker.workbench.explain.occlusion import GRID, hidden, occlude, patches, spread


@pytest.mark.parametrize("side", [32, 72, 224, 336])
def test_patches_cover_every_pixel_and_overlap_half_of_their_neighbours(side: int) -> None:
    boxes = patches(side)
    assert len(boxes) == GRID**2
    count = np.zeros((side, side), int)
    for left, top, right, bottom in boxes:
        assert right - left == bottom - top
        count[top:bottom, left:right] += 1
    assert count.min() >= 1
    widths = {right - left for left, _, right, _ in boxes}
    steps = np.diff([left for left, *_ in boxes[:GRID]])
    assert len(widths) == 1
    assert np.abs(steps - widths.pop() / 2).max() <= 2


def test_what_is_hidden_has_the_mean_colour_of_the_view_and_the_rest_stays() -> None:
    view = np.zeros((20, 20, 3), np.uint8)
    view[:, 10:] = (100, 200, 40)
    (copy,) = hidden(view, [(2, 4, 12, 8)])
    assert (copy[4:8, 2:12] == (50, 100, 20)).all()
    copy[4:8, 2:12] = view[4:8, 2:12]
    assert (copy == view).all()
    assert (view[0, 0] == 0).all()


def test_a_part_that_speaks_for_the_category_costs_margin_when_it_is_hidden() -> None:
    view = np.full((72, 72, 3), 128, np.uint8)
    view[50:70, 4:24] = (255, 0, 0)  # a revolver, at the bottom left
    view[2:16, 56:70] = (0, 0, 255)  # food, at the top right

    def embed(views: Sequence[np.ndarray]) -> np.ndarray:
        pixels = [np.asarray(one, float) for one in views]
        red, blue = ([(one[..., a] - one[..., b] > 200).sum() for one in pixels] for a, b in ((0, 2), (2, 0)))
        return judged.image(*({REVOLVER: r / 40, FOOD: b / 40} for r, b in zip(red, blue, strict=True)))

    found = occlude(view, judged.compiled(), "weapons", embed)

    row, column = np.unravel_index(found.losses.argmax(), found.losses.shape)
    assert row >= 5
    assert column <= 2
    assert found.losses.min() < 0
    assert found.losses[0, 7] < 0
    assert found.losses[0, 0] == 0
    weights = found.weights
    assert np.abs(weights).max() == pytest.approx(1, abs=0.1)
    assert weights[60, 14] > 0.8
    assert weights[9, 63] < 0
    said = found.said("weapons", 3)
    left, top, right, bottom = said.strongest
    assert (said.view, said.view_pixels, said.patch_pixels, right - left) == (3, 72, 16, 16)
    assert top >= 40
    assert bottom <= 72
    assert left <= 20
    assert said.losses[row][column] == said.greatest == found.losses.max()


def test_a_view_whose_parts_do_not_count_has_an_empty_map() -> None:
    assert (spread(np.zeros((GRID, GRID)), 40) == 0).all()


def test_a_map_is_the_losses_at_the_centres_of_the_patches() -> None:
    losses = np.random.default_rng(0).normal(size=(GRID, GRID))
    side = 90
    weights = spread(losses, side)
    assert weights.shape == (side, side)
    for loss, (left, top, right, bottom) in zip(losses.ravel(), patches(side), strict=True):
        x, y = (left + right) // 2, (top + bottom) // 2
        around = weights[y - 1 : y + 1, x - 1 : x + 1].mean()
        assert around == pytest.approx(loss / np.abs(losses).max(), abs=0.1)
