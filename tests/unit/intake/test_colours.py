"""Colours as viewers show them: where some show another picture than others, both are looked at."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from fuzz.parts import IEND, PNG, RED, WHITE, apng, chunk, encode, header, picture, plain, png, rows
from PIL import Image, ImageCms

from worker.errors import ImageUndecodable
from worker.intake.colours import MAX_PROFILE_BYTES
from worker.intake.decode import DecodedImage, Limits, decode
from worker.intake.square import ViewSpec

LIMITS = Limits(20 * 1024 * 1024, 50_000_000, ("JPEG", "PNG", "WEBP", "GIF", "AVIF"))
WHOLE = ViewSpec(32, 32, Image.Resampling.BICUBIC.value, mode="whole")


def look(data: bytes) -> DecodedImage:
    return decode(data, LIMITS, WHOLE)


def middles(data: bytes) -> list[tuple[int, ...]]:
    """Return the colour in the middle of each view."""
    return [tuple(view[16, 16].tolist()) for view in look(data).views]


def gamma(value: float) -> bytes:
    return chunk(b"gAMA", struct.pack(">I", round(value * 100_000)))


def grey_profile(exponent: float) -> bytes:
    """Return a profile of greys.

    Source:
        ICC.1:2001-04, sections 6.1 and 6.5.
    """
    white = struct.pack(">3i", 63_190, 65_536, 54_061)
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", 5) + b"grey\0" + bytes(79),
        b"wtpt": b"XYZ \0\0\0\0" + white,
        b"kTRC": b"curv\0\0\0\0" + struct.pack(">IH", 1, round(exponent * 256)) + bytes(2),
    }
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(data))
        body += data + b"\0" * (-len(data) % 4)
    size = 128 + len(table) + len(body)
    head = struct.pack(">I4xI4s4s4s", size, 0x02400000, b"mntr", b"GRAY", b"XYZ ") + bytes(12) + b"acsp" + bytes(28)
    return (head + white).ljust(128, b"\0") + table + body


def test_a_picture_that_only_its_gamma_shows_is_looked_at_both_ways() -> None:
    # The well-known trick: thumbnails show one picture, browsers another.
    pixels = np.full((256, 256, 3), 180, np.uint8)
    pixels[::2, ::2] = WHITE
    pixels[64:192:2, 64:192:2] = RED
    lines = b"".join(b"\0" + row.tobytes() for row in pixels)
    plainly = look(png(head=header(256, 256), pixels=lines)).views[0]
    as_it_is, as_shown, *_ = look(png(gamma(0.02272), head=header(256, 256), pixels=lines)).views
    assert (plainly == as_it_is).all()
    assert plainly[16, 16].min() > 100
    # Of four pixels three are black there.
    assert as_shown[16, 16].tolist() == pytest.approx([64, 0, 0], abs=3)


@pytest.mark.parametrize("value", [0.45455, 0.45, 0.0])
def test_the_usual_gamma_and_none_at_all_change_nothing(value: float) -> None:
    lines = b"".join(b"\0" + row.tobytes() for row in np.asarray(picture(64, 64)))
    (view,) = look(png(gamma(value), head=header(64, 64), pixels=lines)).views
    assert (view == look(encode(picture(64, 64))).views[0]).all()


def test_srgb_is_heeded_before_gamma_and_a_mild_gamma_costs_no_view() -> None:
    srgb, square = chunk(b"sRGB", b"\0"), {"head": header(64, 64), "pixels": rows(64, 64, b"\x08\x08\x08")}
    assert middles(png(srgb, gamma(10.0), **square)) == [(8, 8, 8)]
    assert middles(png(gamma(0.7), head=header(64, 64), pixels=rows(64, 64, b"\x80\x80\x80"))) == [(163, 163, 163)]


def test_alpha_is_kept_where_colours_are_steep() -> None:
    data = png(gamma(10.0), head=header(64, 64, colour=6), pixels=rows(64, 64, b"\x08\0\0\x80"))
    assert [colour[0] for colour in middles(data)] == [131, 4, 236, 109]


def test_a_frame_that_only_its_gamma_shows_is_a_frame_that_differs() -> None:
    frames = [(pixel, (0, 0, 48, 40), 0, 0) for pixel in (b"\0\0\0", b"\x08\0\0")]
    assert {box.frame for box in look(apng(frames)).facts.view_boxes} == {0}
    assert (218, 0, 0) in middles(apng(frames, extra=gamma(10.0)))


@pytest.mark.parametrize(("mode", "pixel"), [("L", 8), ("LA", (8, 255)), ("I;16", 8 * 257)])
def test_a_profile_of_greys_is_heeded_in_every_kind_of_grey(mode: str, pixel: int | tuple[int, int]) -> None:
    as_it_is, as_shown = middles(encode(plain(pixel, mode), icc_profile=grey_profile(0.2)))
    assert as_it_is == (8, 8, 8)
    assert min(as_shown) > 150


def test_a_jpeg_with_steep_colours_is_not_decoded_small() -> None:
    # Made smaller first, dark and white pixels would be one grey, and turned into another.
    pixels = np.full((2_000, 2_000), 8, np.uint8)
    pixels[::2] = 0
    data = encode(Image.fromarray(pixels), "JPEG", quality=100, icc_profile=grey_profile(0.2))
    _, as_shown = middles(data)
    assert as_shown[0] < 150


def test_a_profile_of_other_colours_is_passed_over() -> None:
    assert middles(encode(plain((8, 8, 8)), icc_profile=grey_profile(0.2))) == [(8, 8, 8)]
    usual = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert middles(encode(plain(8, "L"), icc_profile=usual)) == [(8, 8, 8)]


def test_a_profile_of_megabytes_is_refused_and_not_passed_over() -> None:
    data = encode(plain(8, "L"), "WEBP", icc_profile=grey_profile(0.2) + bytes(MAX_PROFILE_BYTES))
    with pytest.raises(ImageUndecodable, match="profile"):
        look(data)
    packed = chunk(b"iCCP", b"k\0\0" + zlib.compress(grey_profile(0.2)))
    data = PNG + header(64, 64) + packed + chunk(b"IDAT", zlib.compress(rows(64, 64))) + IEND
    assert middles(data) == [RED], "greys' profile on colours"
