"""Frames as browsers show them: on nothing, not on what Pillow takes for it."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import numpy.typing as npt
import pytest
from fuzz.parts import (
    BLACK,
    BLUE,
    GREEN,
    HEIGHT,
    IEND,
    RED,
    WHITE,
    WIDTH,
    animate,
    apng,
    chunk,
    control,
    encode,
    gif_frame,
    header,
    lzw,
    picture,
    plain,
    png,
    rows,
    screen,
    with_still,
)
from PIL import Image

from worker.errors import ImageTooLarge, ImageTruncated, ImageUndecodable
from worker.intake.decode import DecodedImage, Limits, decode
from worker.intake.frames import open_film
from worker.intake.square import ViewSpec
from worker.intake.structure import MAX_FRAMES

LIMITS = Limits(20 * 1024 * 1024, 50_000_000, ("JPEG", "PNG", "WEBP", "GIF", "AVIF"))
WHOLE = ViewSpec(32, 32, Image.Resampling.BICUBIC.value, mode="whole")
SIDE = 32
ALL = (0, 0, WIDTH, HEIGHT)


def look(data: bytes) -> DecodedImage:
    return decode(data, LIMITS, WHOLE)


def play(data: bytes) -> list[npt.NDArray[np.uint8]]:
    """Return every frame of a file, RGBA."""
    with Image.open(io.BytesIO(data)) as image:
        film = open_film(image, data, LIMITS.max_pixels)
        return [np.array(frame.convert("RGBA")) for frame in film.play(range(film.count))]


def colours(frame: npt.NDArray[np.uint8]) -> set[tuple[int, ...]]:
    """Return the colours of a frame; what is transparent has none."""
    return {tuple(pixel) if pixel[3] else (0, 0, 0, 0) for pixel in frame.reshape(-1, 4).tolist()}


# -- GIF -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["GIF", "PNG"])
def test_frames_that_cover_everything_are_those_of_pillow(format: str) -> None:
    data = animate([picture(seed=seed) for seed in range(5)], format, disposal=0 if format == "PNG" else 1)
    with Image.open(io.BytesIO(data)) as image:
        for number, frame in enumerate(play(data)):
            image.seek(number)
            assert (frame == np.array(image.convert("RGBA"))).all()


def test_what_a_gif_does_not_draw_is_nothing_and_no_colour_of_its_palette() -> None:
    data = screen(SIDE, SIDE, (RED, RED)) + gif_frame(8, 8, 16, 16, 1) + b";"
    (frame,) = play(data)
    assert frame[0, 0, 3] == 0
    assert tuple(frame[16, 16]) == (*RED, 255)


@pytest.mark.parametrize(("disposal", "left"), [(0, RED), (1, RED), (2, None), (3, None), (4, None), (7, RED)])
def test_what_a_gif_disposes_of_is_nothing_again(disposal: int, left: tuple[int, int, int] | None) -> None:
    begin = screen(SIDE, SIDE, (RED, RED, GREEN)) + control(disposal)
    data = begin + gif_frame(0, 0, SIDE, SIDE, 1) + control() + gif_frame(8, 8, 16, 16, 2) + b";"
    first, second = play(data)
    assert colours(first) == {(*RED, 255)}
    assert colours(second) == {(*GREEN, 255), (*left, 255) if left else (0, 0, 0, 0)}


def test_a_disposal_holds_for_its_own_frame_only() -> None:
    begin = screen(SIDE, SIDE, (RED, RED, GREEN, BLUE)) + gif_frame(0, 0, SIDE, SIDE, 1)
    data = begin + control(2) + gif_frame(0, 0, 8, 8, 2) + gif_frame(8, 8, 8, 8, 3) + gif_frame(9, 9, 1, 1, 2) + b";"
    last = play(data)[-1]
    assert tuple(last[8, 8]) == (*BLUE, 255)
    assert last[0, 0, 3] == 0


@pytest.mark.parametrize("kind", [0xF9, 0xFE, 0xFF, 0x01])
def test_a_frame_behind_an_empty_block_is_a_frame(kind: int) -> None:
    # Pillow takes what follows such a block for a part of it.
    frames = [gif_frame(0, 0, SIDE, SIDE, index) for index in (1, 2)]
    data = screen(SIDE, SIDE, (BLACK, RED, GREEN)) + frames[0] + bytes([0x21, kind, 0]) + frames[1] + b";"
    assert [colours(frame) for frame in play(data)] == [{(*RED, 255)}, {(*GREEN, 255)}]
    assert look(data).facts.frames == 2


@pytest.mark.parametrize("kind", [0xF9, 0xFF])
def test_an_image_within_another_ones_pixels_is_not_taken_for_it(kind: int) -> None:
    # Pillow takes the comma for the length of a block, 44, the byte behind that for its end, and what follows for the
    # image; for all others it lies behind the end of the green one's pixels.
    begin = screen(4, 4, (BLACK, RED, GREEN)) + bytes([0x21, kind, 0])
    pixels = lzw([2] * 16)
    data = begin + gif_frame(0, 0, 4, 4, data=pixels.ljust(33, b"\0") + b"\0" + gif_frame(0, 0, 4, 4, 1)) + b";"
    with Image.open(io.BytesIO(data)) as image:
        assert image.convert("RGB").getpixel((1, 1)) == RED
    assert [colours(frame) for frame in play(data)] == [{(*GREEN, 255)}]


def test_a_control_that_is_longer_than_it_needs_to_be_is_heeded() -> None:
    data = screen(SIDE, SIDE, (BLACK, RED)) + b"!\xf9\x05\1\0\0\1\0\0" + gif_frame(0, 0, SIDE, SIDE, 1) + b";"
    assert [colours(frame) for frame in play(data)] == [{(0, 0, 0, 0)}]


def test_a_frame_of_no_size_is_as_large_as_the_screen() -> None:
    frame = gif_frame(0, 0, SIDE, SIDE, 2)
    data = screen(SIDE, SIDE, (BLACK, RED, GREEN)) + gif_frame(0, 0, SIDE, SIDE, 1)
    assert colours(play(data + frame[:5] + b"\0\0" + frame[7:] + b";")[1]) == {(*GREEN, 255)}


def test_a_later_frame_does_not_make_a_screen_larger_and_none_may_be_larger_than_an_image() -> None:
    begin = screen(SIDE, SIDE, (BLACK, RED, GREEN)) + gif_frame(0, 0, SIDE, SIDE, 1)
    assert play(begin + gif_frame(16, 16, 64, 64, 2) + b";")[1].shape == (SIDE, SIDE, 4)
    assert colours(play(begin + gif_frame(600, 600, 4, 4, 2) + b";")[1]) == {(*RED, 255)}
    with pytest.raises(ImageTooLarge):
        look(begin + gif_frame(0, 0, 60_000, 60_000, 2, data=b"") + b";")


def test_frames_that_lie_outside_count_with_their_pixels() -> None:
    begin = screen(SIDE, SIDE, (BLACK, RED, GREEN)) + gif_frame(0, 0, SIDE, SIDE, 1)
    with pytest.raises(ImageTooLarge):
        look(begin + gif_frame(SIDE, 0, 7_000, 7_000, data=b"") * 5 + b";")


def test_a_gif_whose_later_frame_lacks_pixels_is_no_image() -> None:
    begin = screen(SIDE, SIDE, (BLACK, RED, GREEN)) + gif_frame(0, 0, SIDE, SIDE, 1)
    with pytest.raises((ImageTruncated, ImageUndecodable)):
        look(begin + gif_frame(0, 0, SIDE, SIDE, data=b"\0\1\2") + b";")


# -- PNG -------------------------------------------------------------------------------------------------------------


def test_an_animation_begins_on_nothing_and_not_on_an_image_that_is_no_frame() -> None:
    clear, red = b"\xff\0\0\0", b"\xff\0\0\xff"
    hidden, frame = play(apng([(clear, ALL, 0, 1)], hidden=red, colour=6))
    assert colours(hidden) == {(*RED, 255)}
    assert colours(frame) == {(0, 0, 0, 0)}


@pytest.mark.parametrize(("dispose", "left"), [(0, BLACK), (1, None), (2, None)])
def test_what_an_apng_without_alpha_disposes_of_is_nothing_and_not_black(
    dispose: int, left: tuple[int, int, int] | None
) -> None:
    data = apng([(bytes(BLACK), ALL, dispose, 0), (bytes(RED), (0, 0, 4, 4), 0, 0)])
    assert colours(play(data)[1]) == {(*RED, 255), (*left, 255) if left else (0, 0, 0, 0)}


def test_the_image_that_is_no_frame_is_looked_at_as_the_frames_are() -> None:
    decoded = look(apng([(bytes(GREEN), ALL, 0, 0)], hidden=bytes(RED)))
    assert decoded.facts.frames == 2
    assert {tuple(view[9, 9]) for view in decoded.views} == {RED, GREEN}


@pytest.mark.parametrize("announced", [0, 1, 2, 4])
def test_an_apng_that_says_another_number_of_frames_is_refused(announced: int) -> None:
    frames = [(bytes(colour), ALL, 0, 0) for colour in (RED, GREEN, BLUE)]
    assert look(apng(frames)).facts.frames == 3
    with pytest.raises(ImageUndecodable, match=f"3 frames that says that it has {announced}"):
        look(apng(frames, announced))
    with pytest.raises(ImageTooLarge):
        look(apng(frames, MAX_FRAMES + 1))


@pytest.mark.parametrize("kind", [b"tRNS", b"gAMA", b"iCCP", b"PLTE", b"cHRM", b"acTL", b"cICP"])
def test_a_chunk_that_readers_heed_or_not_is_refused_behind_the_pixels_and_where_there_are_two(kind: bytes) -> None:
    data, extra = png(), chunk(kind, bytes(6))
    for wrong in (data[: -len(IEND)] + extra + IEND, png(extra, extra)):
        with pytest.raises(ImageUndecodable, match=kind.decode()):
            look(wrong)


def test_a_png_that_lacks_rows_is_truncated_though_what_it_has_is_packed_well() -> None:
    for lines in (0, 8, 15):
        with pytest.raises(ImageTruncated):
            look(png(head=header(16, 16), pixels=rows(16, lines)))
    # The first passes of an interlaced image, and no others.
    with pytest.raises(ImageTruncated):
        look(png(head=header(16, 16, interlace=1), pixels=rows(2, 2) * 2))
    frames = apng([(bytes(RED), ALL, 0, 0)])
    half = chunk(b"IDAT", zlib.compress(rows(WIDTH, HEIGHT // 2)))
    with pytest.raises(ImageTruncated):
        look(frames[: frames.index(b"IDAT") - 4] + half + IEND)


def test_a_black_png_has_all_its_rows() -> None:
    assert look(encode(plain(BLACK))).facts.height == 64


def test_interlaced_pngs_of_every_size_have_all_their_rows() -> None:
    # Pillow writes none, so these are black; the passes are what counts.
    for width in range(1, 10):
        for height in range(1, 10):
            passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
            pixels = b""
            for left, top, right, down in passes:
                across, lines = -(-(width - left) // right), -(-(height - top) // down)
                pixels += (b"\0" * (1 + 3 * across)) * lines if across > 0 and lines > 0 else b""
            assert look(png(head=header(width, height, interlace=1), pixels=pixels)).facts.width == width


@pytest.mark.parametrize("depth", [2, 4, 8])
def test_a_transparent_level_counts_in_the_depth_of_its_image(depth: int) -> None:
    lines = (b"\0" + {2: b"\x55", 4: b"\x11", 8: b"\x01"}[depth] * (WIDTH * depth // 8)) * HEIGHT
    # What is above the depth is void.
    data = png(
        chunk(b"tRNS", b"\xff" + bytes([1 | 0x100 - (1 << depth) & 0xFF])),
        head=header(depth=depth, colour=0),
        pixels=lines,
    )
    assert [tuple(view[9, 9]) for view in look(data).views] == [WHITE, BLACK] * 2


def test_a_transparent_colour_of_16_bits_is_refused() -> None:
    pixel = struct.pack(">HHH", 0, 0, 1)
    pixels = rows(WIDTH, HEIGHT, pixel)
    assert look(png(head=header(depth=16), pixels=pixels))
    with pytest.raises(ImageUndecodable, match="16 bits"):
        look(png(chunk(b"tRNS", pixel), head=header(depth=16), pixels=pixels))


def test_a_pattern_that_a_sketch_takes_for_one_grey_is_a_frame_that_differs() -> None:
    grey = np.full((512, 512), 128, np.uint8)
    down, across = np.mgrid[0:512, 0:512] // 4
    shape = grey + np.where((down + across) % 2, 90, -90).astype(np.int16)
    shape[:128] = shape[384:] = 128
    frames = [Image.fromarray(pixels.astype(np.uint8)) for pixels in (grey, shape, grey)]
    assert {box.frame for box in look(animate(frames, "PNG")).facts.view_boxes} == {0, 1}


# -- AVIF ------------------------------------------------------------------------------------------------------------


def test_a_still_that_is_no_frame_of_its_sequence_is_looked_at_too() -> None:
    sequence = animate([plain(colour) for colour in (RED, GREEN)], "AVIF", speed=10)
    assert look(sequence).facts.frames == 2
    decoded = look(with_still(sequence, encode(plain(BLUE), "AVIF", speed=10)))
    assert decoded.facts.frames == 3
    assert [np.argmax(view[9, 9]) for view in decoded.views] == [2, 0, 1]


def test_a_sequence_that_calls_itself_an_image_is_refused() -> None:
    sequence = animate([plain(colour) for colour in (RED, GREEN)], "AVIF", speed=10)
    with pytest.raises(ImageUndecodable, match="animation for others"):
        look(sequence[:8] + b"avif" + sequence[12:])
