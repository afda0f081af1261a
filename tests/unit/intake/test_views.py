"""Sizes → boxes and frame numbers: every pixel in a view, exactly, and never more views than allowed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from worker.intake.views import (
    MAX_SQUASH,
    OVERLAP,
    TILE_SIDES,
    Box,
    Mode,
    centre_box,
    crop_loses_nothing,
    frame_numbers,
    inner_view,
    plan,
)

MODES: tuple[Mode, ...] = ("whole", "tiles")
SIDES = st.integers(1, 16_383)
SIZES = st.tuples(SIDES, SIDES)


def covers(boxes: Sequence[Box], region: Box) -> bool:
    """Whether every pixel of a region lies in a box: on the grid of all edges, by cells, exactly."""
    left, top, right, bottom = region
    columns = sorted({left, right, *(x for box in boxes for x in (box[0], box[2]) if left < x < right)})
    rows = sorted({top, bottom, *(y for box in boxes for y in (box[1], box[3]) if top < y < bottom)})
    return all(
        any(box[0] <= x < box[2] and box[1] <= y < box[3] for box in boxes) for x in columns[:-1] for y in rows[:-1]
    )


@given(size=SIZES, mode=st.sampled_from(MODES), crop=st.sampled_from([32, 72, 224, 336]), most=st.integers(1, 64))
@example(size=(1, 16_383), mode="whole", crop=224, most=1)
@example(size=(16_383, 1), mode="tiles", crop=224, most=12)
@example(size=(2, 1), mode="whole", crop=224, most=12)
def test_every_pixel_lies_in_a_view_and_no_view_lies_outside(
    size: tuple[int, int], mode: Mode, crop: int, most: int
) -> None:
    planned = plan(size, mode, crop, most)
    everything = (0, 0, *size)
    assert covers(planned.boxes, everything)
    assert 1 <= len(planned.boxes) <= most
    assert len(set(planned.boxes)) == len(planned.boxes) <= planned.wanted
    for left, top, right, bottom in planned.boxes:
        assert 0 <= left < right <= size[0]
        assert 0 <= top < bottom <= size[1]


@given(size=st.tuples(st.integers(500, 9_000), st.integers(500, 9_000)), most=st.integers(1, 64))
def test_the_tiles_of_a_large_image_show_every_pixel_too_where_there_are_any(size: tuple[int, int], most: int) -> None:
    whole, tiles = (plan(size, mode, 224, most).boxes for mode in MODES)
    assert tiles[: len(whole)] == whole
    added = tiles[len(whole) :]
    assert not added or covers(added, (0, 0, *size))


@given(size=SIZES, mode=st.sampled_from(MODES))
def test_where_there_are_views_enough_no_view_x(size: tuple[int, int], mode: Mode) -> None:
    planned = plan(size, mode, 72, 50_000)
    assert len(planned.boxes) <= planned.wanted
    for left, top, right, bottom in planned.boxes:
        short, long = sorted((right - left, bottom - top))
        assert long <= MAX_SQUASH * short


@pytest.mark.parametrize("size", [(400, 300), (1_200, 800), (1_920, 1_080), (1_080, 1_920)])
def test_photographs_of_the_usual_shapes_are_two_squares_that_overlap(size: tuple[int, int]) -> None:
    first, second = plan(size, "whole", 224, 12).boxes
    short = min(size)
    assert first == (0, 0, short, short)
    assert second == (size[0] - short, size[1] - short, *size)


@given(long=st.integers(2, 5_000), short=st.integers(1, 5_000))
def test_an_image_on_its_side_is_looked_at_in_the_same_way(long: int, short: int) -> None:
    flat, tall = (plan(size, "whole", 224, 12).boxes for size in ((long, short), (short, long)))
    if long != short:
        assert [(top, left, bottom, right) for left, top, right, bottom in flat] == list(tall)


@pytest.mark.parametrize("size", [(500, 500), (550, 500), (500, 455), (1, 1)])
def test_what_is_nearly_square_is_one_view(size: tuple[int, int]) -> None:
    assert plan(size, "whole", 224, 12).boxes == ((0, 0, *size),)


def test_what_is_longer_is_cut_into_squares_that_overlap() -> None:
    boxes = plan((900, 300), "whole", 224, 12).boxes
    assert boxes == ((0, 0, 300, 300), (200, 0, 500, 300), (400, 0, 700, 300), (600, 0, 900, 300))
    for one, other in pairwise(boxes):
        assert one[2] - other[0] >= OVERLAP * 300


@pytest.mark.parametrize("size", [(900, 300), (5_000, 100), (100, 16_000)])
@pytest.mark.parametrize("most", [1, 2, 3, 5])
def test_where_there_are_too_few_views_they_are_longer_and_the_plan_says_how_many_are_wanted(
    size: tuple[int, int], most: int
) -> None:
    enough, few = plan(size, "whole", 224, 1_000), plan(size, "whole", 224, most)
    assert few.wanted == enough.wanted == len(enough.boxes)
    assert len(few.boxes) == min(most, few.wanted)


@pytest.mark.parametrize("size", [(448, 448), (4_000, 448), (72, 72)])
def test_an_image_that_is_no_larger_than_a_tile_has_none(size: tuple[int, int]) -> None:
    assert plan(size, "tiles", 224, 12) == plan(size, "whole", 224, 12)


def test_a_large_image_is_tiled_as_finely_as_there_are_views_for_it() -> None:
    photograph = plan((4_000, 3_000), "tiles", 224, 12)
    assert 8 <= len(photograph.boxes) <= 12
    assert photograph.wanted > 12
    fine = plan((4_000, 3_000), "tiles", 224, photograph.wanted)
    assert len(fine.boxes) == fine.wanted
    assert {right - left for left, _, right, _ in fine.boxes[2:]} == {TILE_SIDES * 224}


def test_a_thing_on_a_plain_background_is_looked_at_in_a_square_with_a_margin() -> None:
    assert inner_view((400, 300, 600, 400), (1_000, 1_000), 50, has_margin=True) == (390, 240, 610, 460)
    assert inner_view((900, 950, 1_000, 1_000), (1_000, 1_000), 50, has_margin=True) == (890, 890, 1_000, 1_000)
    assert inner_view((500, 500, 502, 502), (1_000, 1_000), 50, has_margin=True) == (476, 476, 526, 526)


def test_a_picture_between_bars_is_looked_at_as_it_is() -> None:
    for has_margin in (False, True):
        assert inner_view((0, 250, 1_000, 750), (1_000, 1_000), 50, has_margin=has_margin) == (0, 250, 1_000, 750)
        assert inner_view((0, 40, 1_000, 960), (1_000, 1_000), 50, has_margin=has_margin) is None
    assert inner_view((0, 100, 1_000, 900), (1_000, 1_000), 50, has_margin=False) == (0, 100, 1_000, 900)
    assert inner_view((200, 200, 700, 600), (1_000, 1_000), 50, has_margin=False) == (200, 200, 700, 600)


@given(st.data())
def test_the_inner_view_holds_all_that_is_not_border(data: st.DataObject) -> None:
    size = data.draw(SIZES)
    (left, right), (top, bottom) = (
        sorted(data.draw(st.lists(st.integers(0, length), min_size=2, max_size=2, unique=True))) for length in size
    )
    box = inner_view((left, top, right, bottom), size, 18, has_margin=data.draw(st.booleans()))
    assert box is None or (
        0 <= box[0] <= left < right <= box[2] <= size[0] and 0 <= box[1] <= top < bottom <= box[3] <= size[1]
    )


def test_the_inner_part_of_a_frame_follows_the_whole() -> None:
    inner = (100, 100, 700, 700)
    assert plan((1_000, 1_000), "whole", 224, 12, [inner]).boxes == ((0, 0, 1_000, 1_000), inner)
    assert plan((1_000, 1_000), "whole", 224, 1, [inner]).boxes == ((0, 0, 1_000, 1_000),)
    assert plan((1_000, 1_000), "whole", 224, 1, [inner]).wanted == 2


@given(size=SIZES, edge=st.sampled_from([32, 72, 224, 256]), crop=st.sampled_from([32, 72, 224]))
def test_the_checkpoints_own_crop_is_called_whole_only_where_its_box_is(
    size: tuple[int, int], edge: int, crop: int
) -> None:
    if crop > edge:
        return
    box = centre_box(size, edge, crop)
    assert 0 <= box[0] <= box[2] <= size[0]
    assert 0 <= box[1] <= box[3] <= size[1]
    if crop_loses_nothing(size, edge, crop):
        assert edge == crop
        assert box == (0, 0, *size)


def test_a_photograph_of_4_to_3_loses_a_quarter_in_the_centre_crop() -> None:
    assert centre_box((400, 300), 224, 224) == (50, 0, 350, 300)
    assert not crop_loses_nothing((400, 300), 224, 224)
    assert crop_loses_nothing((300, 300), 224, 224)
    assert not crop_loses_nothing((300, 300), 256, 224)


@given(count=st.integers(1, 1_000), most=st.integers(1, 64))
def test_frames_are_spread_evenly_the_first_and_the_last_among_them(count: int, most: int) -> None:
    numbers = frame_numbers(count, most)
    assert numbers[0] == 0
    assert len(numbers) == (1 if most == 1 else min(count, most))
    assert most == 1 or numbers[-1] == count - 1
    gaps = [after - before for before, after in pairwise(numbers)]
    assert all(gap >= 1 for gap in gaps)
    assert not gaps or max(gaps) - min(gaps) <= 1
