"""Each change does to the pixels what its name says, and does the same every time."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from worker.errors import UsageError
from worker.intake.changes import CHANGES, as_file, check_text, choose, pixels_of
from worker.intake.copies import MAX_COPY_BYTES, MAX_COPY_PIXELS, SIDE

Pixels = npt.NDArray[np.uint8]


def quarters(height: int = 100, width: int = 160) -> Pixels:
    """Paint the four quarters: red, green, blue, and a dark yellow."""
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2], pixels[: height // 2, width // 2 :] = (220, 30, 30), (30, 180, 40)
    pixels[height // 2 :, : width // 2], pixels[height // 2 :, width // 2 :] = (40, 50, 200), (120, 110, 20)
    return pixels


def texture(height: int = 100, width: int = 160) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def changed(name: str, pixels: Pixels, digest: str = "a", text: str = "a photo of a puppy") -> npt.NDArray[np.int64]:
    (change,) = [change for change in CHANGES if change.name == name]
    return pixels_of(change.apply(pixels, digest, text)).astype(np.int64)


def test_every_change_makes_the_same_bytes_again_and_other_pixels() -> None:
    pixels = texture()
    for change in CHANGES:
        first = change.apply(pixels, "a")
        assert first == change.apply(pixels, "a"), change.name
        assert first != as_file(pixels), change.name
        after = pixels_of(first)
        assert after.shape != pixels.shape or (after != pixels).any(), change.name


def test_what_is_saved_without_a_change_is_the_same_to_the_last_bit() -> None:
    assert (pixels_of(as_file(texture())) == texture()).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, SIDE), (SIDE, 1), (2, 3), (SIDE, SIDE)])
def test_every_change_takes_every_shape_and_stays_within_bounds(shape: tuple[int, int]) -> None:
    pixels = texture(*shape)
    for change in CHANGES:
        file = change.apply(pixels, "a")
        height, width, _ = pixels_of(file).shape
        assert 0 < height * width <= MAX_COPY_PIXELS, change.name
        assert len(file) <= MAX_COPY_BYTES, change.name


def test_a_jpeg_is_a_jpeg_and_loses_more_at_the_lower_quality() -> None:
    pixels = texture()
    for name in ("jpeg-75", "jpeg-40"):
        (change,) = choose([name])
        with Image.open(io.BytesIO(change.apply(pixels, "a"))) as image:
            assert image.format == "JPEG"
    lost = [np.abs(changed(name, pixels) - pixels).mean() for name in ("jpeg-75", "jpeg-40")]
    assert 0 < lost[0] < lost[1]


@pytest.mark.parametrize(
    ("name", "top", "left"),
    [
        ("crop-centre", 10, 16), ("crop-top-left", 0, 0), ("crop-top-right", 0, 32), ("crop-bottom-left", 20, 0),
        ("crop-bottom-right", 20, 32),
    ],
)  # fmt: skip
def test_a_crop_keeps_four_fifths_of_each_side_from_where_it_says(name: str, top: int, left: int) -> None:
    pixels = texture()
    assert (changed(name, pixels) == pixels[top : top + 80, left : left + 128]).all()


def test_a_letterbox_adds_black_above_and_below_and_nothing_else() -> None:
    pixels = texture()
    after = changed("letterbox", pixels)
    assert after.shape == (150, 160, 3)
    assert (after[25:125] == pixels).all()
    assert after[:25].max() == after[125:].max() == 0


def test_a_flip_mirrors_left_and_right() -> None:
    pixels = texture()
    assert (changed("flip", pixels) == pixels[:, ::-1]).all()


def test_a_quarter_turn_loses_nothing() -> None:
    pixels = texture()
    assert (changed("rotate-90", pixels) == np.rot90(pixels)).all()


def test_slight_turns_go_opposite_ways_around_the_middle_and_show_white_beside() -> None:
    pixels = quarters(200, 200)
    left, right = changed("rotate-left-5", pixels), changed("rotate-right-5", pixels)
    assert left.shape == right.shape
    assert left.shape[0] > 200
    for after in (left, right):
        assert (after[0, 0] == 255).all()
    # The border between red and green, near the top, leans to the left in one and to the right in the other.
    row, middle = left.shape[0] // 4, left.shape[1] // 2
    assert np.abs(left[row, middle] - (30, 180, 40)).max() < 12
    assert np.abs(right[row, middle] - (220, 30, 30)).max() < 12


def test_a_greyed_picture_has_one_level_in_all_channels_and_keeps_its_brightness() -> None:
    after = changed("grey", quarters())
    assert (after[..., 0] == after[..., 1]).all()
    assert (after[..., 1] == after[..., 2]).all()
    red = 0.299 * 220 + 0.587 * 30 + 0.114 * 30
    assert abs(after[10, 10, 0] - red) <= 1


def test_hues_turn_by_a_sixth_of_the_circle_and_greys_stay() -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[:2] = (255, 0, 0)
    pixels[2:] = 90
    after = changed("hue", pixels)
    assert np.abs(after[0, 0] - (255, 255, 0)).max() <= 6  # yellow
    assert (after[3, 3] == 90).all()


def test_contrast_moves_levels_towards_or_away_from_the_mean() -> None:
    pixels = np.full((10, 10, 3), 80, np.uint8)
    pixels[5:] = 160
    assert sorted({*changed("contrast-low", pixels).flat}) == [100, 140]
    assert sorted({*changed("contrast-high", pixels).flat}) == [40, 200]


def test_light_is_a_factor() -> None:
    pixels = np.full((4, 4, 3), 100, np.uint8)
    assert {*changed("dark", pixels).flat} == {50}
    assert {*changed("bright", pixels).flat} == {150}


def test_a_blur_evens_neighbours_out_and_keeps_the_mean() -> None:
    pixels = texture(300, 300)
    after = changed("blur", pixels)
    assert after.std() < pixels.std() / 3
    assert abs(after.mean() - pixels.mean()) < 2


def test_noise_is_of_the_said_strength_and_follows_the_picture_and_nothing_else() -> None:
    pixels = np.full((200, 200, 3), 128, np.uint8)
    after = changed("noise", pixels)
    assert abs((after - 128).std() - 25) < 0.5
    assert abs((after - 128).mean()) < 0.5
    assert (after == changed("noise", pixels)).all()
    assert (after != changed("noise", pixels, digest="b")).any()


def test_a_thumbnail_has_96_pixels_or_half_of_what_there_was() -> None:
    assert changed("small", texture(640, 320)).shape == (96, 48, 3)
    assert changed("small", texture(100, 100)).shape == (50, 50, 3)


def test_a_corner_holds_the_picture_at_a_quarter_of_the_sides_and_the_rest_is_plain() -> None:
    after = changed("corner", quarters())
    assert after.shape == (200, 320, 3)
    assert (after[:150] == 225).all()
    assert (after[:, :240] == 225).all()
    inner = after[150:, 240:]
    assert np.abs(inner[5, 5] - (220, 30, 30)).max() <= 2
    assert np.abs(inner[-5, -5] - (120, 110, 20)).max() <= 2


@pytest.mark.parametrize(("name", "share", "place"), [("text-small", 0.5, 0.9), ("text-large", 0.95, 0.5)])
def test_text_is_black_on_a_white_label_of_the_said_width(name: str, share: float, place: float) -> None:
    pixels = np.full((400, 400, 3), 120, np.uint8)
    after = changed(name, pixels)
    rows, columns = np.nonzero((after != 120).any(axis=2))
    label = after[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert abs(label.shape[1] / 400 - share) < 0.06
    assert abs((rows.min() + rows.max()) / 2 / 400 - place) < 0.06
    assert ((label > 250).mean(), (label < 60).mean()) > (0.5, 0.05)
    assert (after == changed(name, pixels)).all()
    assert (after != changed(name, pixels, text="a photo of a house")).any()


def test_changes_are_chosen_by_name_or_by_what_several_names_begin_with() -> None:
    assert choose(None) == CHANGES
    assert [change.name for change in choose(["grey", "flip"])] == ["flip", "grey"]
    assert len(choose(["crop"])) == 5
    assert [change.name for change in choose(["text", "text-large"])] == ["text-small", "text-large"]
    with pytest.raises(UsageError, match="no change 'gray'; did you mean grey"):
        choose(["gray"])
    with pytest.raises(UsageError, match="no change 'xyz'; there are jpeg-75, jpeg-40"):
        choose(["xyz"])


def test_names_are_unique_and_end_the_sentence() -> None:
    assert len({change.name for change in CHANGES}) == len({change.words for change in CHANGES}) == len(CHANGES) == 24


@pytest.mark.parametrize("text", ["", "  ", "x" * 101, "two\nlines", "\u65e5\u672c", "a\u202eb"])
def test_a_text_that_cannot_be_written_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="over pictures"):
        check_text(text)


@pytest.mark.parametrize("text", ["a", "iPod", "50 % off! (today)", "x" * 100])
def test_a_text_of_letters_and_signs_is_written(text: str) -> None:
    assert check_text(text) == text
    pixels = np.full((120, 300, 3), 120, np.uint8)
    assert changed("text-large", pixels, text=text).min() < 60
