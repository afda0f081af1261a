"""A copy is the whole picture, upright, in its own shape, flat and bounded."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import ExifTags, Image
from support import encode

from worker.intake.copies import COPY_SPEC, SIDE, copy_of
from worker.intake.decode import Limits, decode

LIMITS = Limits(20 * 1024 * 1024, 50_000_000, ("JPEG", "PNG", "GIF"))


def copied(data: bytes) -> np.ndarray:
    return copy_of(decode(data, LIMITS, COPY_SPEC)).astype(int)


@pytest.mark.parametrize(
    ("size", "shape"),
    [((300, 200), (200, 300)), ((1280, 320), (160, 640)), ((40, 4000), (640, 6)), ((1, 3000), (640, 1))],
)
def test_a_copy_keeps_its_shape_and_is_never_larger(size: tuple[int, int], shape: tuple[int, int]) -> None:
    assert copied(encode(Image.new("RGB", size, "red"))).shape == (*shape, 3)
    assert max(shape) <= SIDE


def test_a_small_picture_comes_back_nearly_as_it_was() -> None:
    down, across = np.mgrid[0:120, 0:256]
    pixels = np.stack([across, 2 * down, 128 + 100 * np.sin(across / 9)], axis=-1).astype(np.uint8)
    assert np.abs(copied(encode(Image.fromarray(pixels))) - pixels).max() <= 6


def test_edges_of_a_wide_picture_are_in_it() -> None:
    image = Image.new("RGB", (2000, 400), "white")
    image.paste("blue", (0, 0, 100, 400))
    image.paste("red", (1900, 0, 2000, 400))
    after = copied(encode(image))
    assert np.abs(after[60, 5] - (0, 0, 255)).max() < 5
    assert np.abs(after[60, -5] - (255, 0, 0)).max() < 5


def test_a_copy_is_upright_flat_and_the_first_frame() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    assert copied(encode(Image.new("RGB", (300, 100)), "JPEG", exif=exif)).shape == (300, 100, 3)
    assert (copied(encode(Image.new("RGBA", (50, 50), (0, 0, 0, 0)))) == 255).all()
    frames = [Image.new("RGB", (50, 50), colour) for colour in ("red", "green")]
    moving = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.abs(copied(moving) - (255, 0, 0)).max() < 5
