"""Files → views: limits before decoding, what a person would see, and never an image of less than the whole file."""

from __future__ import annotations

import io
import random
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageOps
from support import encode

from worker.errors import ImageFormatRefused, ImageRejected, ImageTooLarge, ImageTruncated, ImageUndecodable
from worker.intake.decode import MAX_SIDE, Limits, decode, decode_plain
from worker.intake.square import ViewSpec
from worker.intake.structure import MAX_PARTS, MAX_SCANS

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "AVIF")
LIMITS = Limits(max_bytes=20 * 1024 * 1024, max_pixels=50_000_000, formats=FORMATS)
BICUBIC = Image.Resampling.BICUBIC.value
#: Small, for speed; what is 32 pixels wide and high passes through it unchanged.
SPEC = ViewSpec(shortest_edge=32, crop=32, resample=BICUBIC)
RED, GREEN, BLUE, BLACK, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0), (255, 255, 255)

Pixels = npt.NDArray[np.uint8]


def picture(width: int = 48, height: int = 40, seed: int = 0) -> Image.Image:
    """Draw gradients under noise: no two rows or columns alike."""
    down, across = np.mgrid[0:height, 0:width]
    planes = [255 * across / width, 255 * down / height, 255 * (across + down) / (width + height)]
    noise = np.random.default_rng(seed).normal(0, 25, (height, width, 3))
    return Image.fromarray((np.stack(planes, axis=-1) + noise).clip(0, 255).astype(np.uint8))


def plain(mode: str, color: object) -> Image.Image:
    """Paint 32 x 32 pixels in one colour."""
    return Image.new(mode, (32, 32), color)


def view_of(data: bytes, spec: ViewSpec = SPEC) -> Pixels:
    """Return the one view of a file."""
    (view,) = decode(data, LIMITS, spec).views
    return view


def is_all(view: Pixels, color: tuple[int, int, int], within: int = 0) -> bool:
    """Whether every pixel has a colour."""
    return bool((np.abs(view.astype(int) - color) <= within).all())


def chunk(kind: bytes, body: bytes = b"") -> bytes:
    """Return one chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *chunks: bytes, pixels: bytes = b"", depth: int = 8, color: int = 2) -> bytes:
    """Return a PNG that claims a size, with whatever pixels it has."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(pixels))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + body + chunk(b"IEND")


def animation(format: str, **options: object) -> bytes:
    """Return red, then green, then blue."""
    frames = [plain("RGB", color) for color in (RED, GREEN, BLUE)]
    return encode(frames[0], format, save_all=True, append_images=frames[1:], duration=100, **options)


def boundless_webp() -> bytes:
    """Return 40 bytes that claim 16,383 x 16,383 pixels."""
    bits = (16_383 - 1) | (16_383 - 1) << 14
    body = b"\x2f" + struct.pack("<I", bits) + b"\0" * 15
    return b"RIFF" + struct.pack("<I", 12 + len(body)) + b"WEBPVP8L" + struct.pack("<I", len(body)) + body


# -- limits ----------------------------------------------------------------------------------------------------------


def test_a_file_of_one_byte_more_than_the_limit_is_too_large() -> None:
    data = encode(picture())
    assert decode(data, Limits(len(data), 10_000, FORMATS), SPEC)
    with pytest.raises(ImageTooLarge, match="SLUICE_IMAGE_MAX_BYTES"):
        decode(data, Limits(len(data) - 1, 10_000, FORMATS), SPEC)


@pytest.mark.parametrize("format", FORMATS)
def test_an_image_of_one_pixel_more_than_the_limit_is_too_large(format: str) -> None:
    data = encode(picture(48, 40), format)
    assert decode(data, Limits(10**6, 48 * 40, FORMATS), SPEC)
    with pytest.raises(ImageTooLarge, match="SLUICE_IMAGE_MAX_PIXELS"):
        decode(data, Limits(10**6, 48 * 40 - 1, FORMATS), SPEC)


# None of these files has pixels: to decode one first would end in another reason.
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(png(8_000, 7_500), id="60 megapixels"),
        pytest.param(png(40_000, 1), id="40,000 pixels wide"),
        pytest.param(png(1, 40_000), id="40,000 pixels high"),
        pytest.param(png(2**31 - 1, 2**31 - 1), id="the largest PNG"),
        pytest.param(boundless_webp(), id="the largest WebP, in 40 bytes"),
    ],
)
def test_a_claimed_size_is_refused_before_a_pixel_is_decoded(data: bytes) -> None:
    with pytest.raises(ImageTooLarge):
        decode(data, LIMITS, SPEC)


def test_a_side_may_be_16383_pixels_long_and_no_longer() -> None:
    assert MAX_SIDE == 16_383
    assert decode(encode(Image.new("L", (MAX_SIDE, 2))), LIMITS, SPEC).facts.width == MAX_SIDE
    with pytest.raises(ImageTooLarge, match="a side"):
        decode(encode(Image.new("L", (MAX_SIDE + 1, 2))), LIMITS, SPEC)


def test_a_gif_frame_larger_than_its_screen_counts_with_its_own_size() -> None:
    screen = b"GIF89a" + struct.pack("<HH", 8, 8) + b"\x80\0\0" + b"\0\0\0\xff\xff\xff"
    frame = b"," + struct.pack("<HHHH", 0, 0, 8_000, 7_500) + b"\0\x02\x02\x44\x01\0"
    with pytest.raises(ImageTooLarge):
        decode(screen + frame + b";", LIMITS, SPEC)


@pytest.mark.parametrize(
    "bomb",
    [
        pytest.param(chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(100_000_000), 9)), id="text"),
        pytest.param(chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(100_000_000), 9)), id="colour profile"),
    ],
)
def test_a_png_that_unpacks_100_megabytes_beside_its_pixels_costs_nothing_of_the_kind(bomb: bytes) -> None:
    size = decoded_within_memory(png(1, 1, bomb, pixels=b"\0\xff\xff\xff"), megabytes=60)
    assert size in {"ImageUndecodable", "1 x 1"}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("size", [(1, 16_000), (16_000, 1), (2, 16_383)])
def test_an_extreme_aspect_ratio_is_decoded_in_bounded_memory(size: tuple[int, int]) -> None:
    # Resized as a whole, 1 x 16,000 would be 224 x 3.6 million pixels: 3 GB.
    assert decoded_within_memory(encode(picture(*size)), megabytes=60) == f"{size[0]} x {size[1]}"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_largest_webp_in_40_bytes_is_refused_in_bounded_memory() -> None:
    assert decoded_within_memory(boundless_webp(), megabytes=60) in {"ImageTooLarge", "ImageUndecodable"}


_DECODE_WITHIN = """
import resource, sys
from pathlib import Path
from worker.errors import ImageRejected
from worker.intake.decode import Limits, decode
from worker.intake.square import ViewSpec
from PIL import Image
Image.init()
data = sys.stdin.buffer.read()
now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
most = now + int(sys.argv[1]) * 1024 * 1024
resource.setrlimit(resource.RLIMIT_AS, (most, most))
try:
    facts = decode(data, Limits(2**25, 50_000_000, ("JPEG", "PNG", "WEBP", "GIF", "AVIF")), ViewSpec(224, 224, 3)).facts
    print(facts.width, "x", facts.height)
except ImageRejected as error:
    print(type(error).__name__)
"""


def decoded_within_memory(data: bytes, megabytes: int) -> str:
    """Decode in a process that may take so much more memory; `width x height`, or the error's name."""
    command = [sys.executable, "-W", "ignore", "-c", _DECODE_WITHIN, str(megabytes)]
    return subprocess.run(command, input=data, capture_output=True, check=True, timeout=30).stdout.decode().strip()


def _jpeg_of_scans(count: int) -> bytes:
    data = encode(picture(), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * (count - data.count(b"\xff\xda")) + data[-2:]


def test_a_jpeg_of_more_scans_than_any_encoder_writes_is_refused() -> None:
    assert decode(_jpeg_of_scans(MAX_SCANS), LIMITS, SPEC)
    with pytest.raises(ImageUndecodable, match="scans"):
        decode(_jpeg_of_scans(MAX_SCANS + 1), LIMITS, SPEC)


def test_a_video_behind_a_jpeg_does_not_count_as_scans() -> None:
    data = encode(picture(), "JPEG")
    assert (view_of(data + b"\xff\xda\0\x08" * 50_000) == view_of(data)).all()


def test_a_file_in_tens_of_thousands_of_parts_is_refused() -> None:
    pixel = b"\0\xff\xff\xff"
    parts = MAX_PARTS - 3  # beside IHDR, IDAT and IEND
    assert decode(png(1, 1, chunk(b"tIME", bytes(7)) * parts, pixels=pixel), LIMITS, SPEC)
    with pytest.raises(ImageUndecodable, match="chunks"):
        decode(png(1, 1, chunk(b"tIME", bytes(7)) * (parts + 1), pixels=pixel), LIMITS, SPEC)
    jpeg = encode(picture(), "JPEG")
    with pytest.raises(ImageUndecodable, match="segments"):
        decode(jpeg[:2] + b"\xff\xe5\0\x02" * MAX_PARTS + jpeg[2:], LIMITS, SPEC)


# -- formats ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_of_the_allow_list_is_decoded_and_named(format: str) -> None:
    data = encode(picture(), format)
    decoded = decode(data, LIMITS, SPEC)
    facts = decoded.facts
    assert (facts.format, facts.width, facts.height) == (format, 48, 40)
    assert (facts.frames, facts.views, facts.bytes) == (1, 1, len(data))
    (view,) = decoded.views
    assert view.shape == (32, 32, 3)
    assert view.dtype == np.uint8


@pytest.mark.parametrize("format", FORMATS)
def test_a_format_that_the_settings_leave_out_is_refused_by_name(format: str) -> None:
    others = tuple(name for name in FORMATS if name != format)
    with pytest.raises(ImageFormatRefused, match=f"^{format} is not among .*SLUICE_IMAGE_FORMATS"):
        decode(encode(picture(), format), Limits(10**6, 10**6, others), SPEC)


@pytest.mark.parametrize(
    ("named", "data"),
    [
        ("BMP", encode(picture(), "BMP")),
        ("TIFF", encode(picture(), "TIFF")),
        ("TIFF", b"MM\0*" + bytes(100)),
        ("EPS", encode(picture(), "EPS")),
        ("ICO", encode(picture(), "ICO")),
        ("PSD", b"8BPS\0\x01" + bytes(100)),
        ("HEIC", struct.pack(">I", 24) + b"ftypheic" + bytes(100)),
    ],
)
def test_other_image_formats_are_refused_by_name_and_never_opened(named: str, data: bytes) -> None:
    with pytest.raises(ImageFormatRefused, match=f"^{named} "):
        decode(data, LIMITS, SPEC)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\0", id="a byte"),
        pytest.param("Grüße".encode() * 100, id="text"),
        pytest.param(b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', id="SVG"),
        pytest.param(b"<!DOCTYPE html><title>404</title>", id="HTML"),
        pytest.param(b"%PDF-1.7\n", id="PDF"),
        pytest.param(encode(picture(), "PPM"), id="PPM"),
        pytest.param(encode(picture(), "TGA"), id="TGA"),
        pytest.param(b"RIFF\x24\0\0\0WAVEfmt " + bytes(40), id="WAV"),
        pytest.param(random.Random(0).randbytes(5_000), id="noise"),
    ],
)
def test_what_is_no_image_is_undecodable(data: bytes) -> None:
    with pytest.raises(ImageUndecodable):
        decode(data, LIMITS, SPEC)


def test_an_empty_file_is_called_empty() -> None:
    with pytest.raises(ImageUndecodable, match="empty"):
        decode(b"", LIMITS, SPEC)


# -- what a person would see -----------------------------------------------------------------------------------------

_STORED_AS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
@pytest.mark.parametrize("orientation", _STORED_AS)
def test_an_image_is_turned_upright_as_its_exif_says(orientation: int, format: str) -> None:
    upright = picture(48, 40)
    turn = _STORED_AS[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    data = encode(upright.transpose(turn) if turn is not None else upright, format, lossless=True, exif=exif)
    decoded = decode(data, LIMITS, SPEC)
    assert (decoded.views[0] == view_of(encode(upright))).all()
    assert (decoded.facts.width, decoded.facts.height) == (48, 40)


def test_a_jpeg_is_turned_upright_too() -> None:
    exif = Image.Exif()
    exif[274] = 6
    data = encode(picture(48, 40), "JPEG", exif=exif)
    with Image.open(io.BytesIO(data)) as stored:
        upright = ImageOps.exif_transpose(stored)
    assert (view_of(data) == view_of(encode(upright))).all()
    assert decode(data, LIMITS, SPEC).facts.width == 40


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("exif", [b"Exif\0\0not a TIFF header", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
def test_exif_that_cannot_be_read_turns_nothing(exif: bytes, format: str) -> None:
    assert (view_of(encode(picture(), format, exif=exif)) == view_of(encode(picture(), format))).all()


def _half(upper: Image.Image, lower: Image.Image) -> Image.Image:
    upper.paste(lower.crop((0, 0, 32, 16)), (0, 16))
    return upper


def _palette_with_transparency(transparency: bytes | int) -> bytes:
    image = plain("P", 0)
    image.putpalette([0, 0, 0, 0, 0, 0])
    return encode(_half(image, plain("P", 1)), transparency=transparency)


_TRANSPARENT: dict[str, Callable[[], bytes]] = {
    "RGBA": lambda: encode(_half(plain("RGBA", (0, 0, 0, 255)), plain("RGBA", (0, 0, 0, 0)))),
    "LA": lambda: encode(_half(plain("LA", (0, 255)), plain("LA", (0, 0)))),
    "palette with an alpha each": lambda: _palette_with_transparency(b"\xff\0"),
    "palette with one transparent index": lambda: _palette_with_transparency(1),
    "RGB with a transparent colour": lambda: encode(
        _half(plain("RGB", BLACK), plain("RGB", (0, 0, 1))), transparency=(0, 0, 1)
    ),
    "grey with a transparent level": lambda: encode(_half(plain("L", 0), plain("L", 1)), transparency=1),
    "16-bit grey with a transparent level": lambda: encode(
        Image.fromarray(np.repeat(np.array([[0], [5]], np.uint16), 16, axis=0).repeat(32, axis=1)), transparency=5
    ),
    "WebP": lambda: encode(
        _half(plain("RGBA", (0, 0, 0, 255)), plain("RGBA", (0, 0, 0, 0))), "WEBP", lossless=True, exact=True
    ),
    "GIF": lambda: encode(_half(plain("P", 0), plain("P", 1)), "GIF", transparency=1),
}


@pytest.mark.parametrize("kind", _TRANSPARENT)
def test_what_is_transparent_is_laid_on_white_whatever_colour_hides_in_it(kind: str) -> None:
    view = view_of(_TRANSPARENT[kind]())
    assert is_all(view[:16], BLACK)
    assert is_all(view[16:], WHITE)


def test_a_transparent_level_of_one_bit_is_laid_on_white() -> None:
    assert is_all(view_of(encode(plain("1", 0), transparency=0)), WHITE)
    assert is_all(view_of(encode(plain("1", 0), transparency=1)), BLACK)


def test_what_is_half_transparent_is_half_white() -> None:
    assert is_all(view_of(encode(plain("RGBA", (255, 0, 0, 128)))), (255, 127, 127), within=1)


def test_a_cmyk_jpeg_keeps_its_colours() -> None:
    assert is_all(view_of(encode(plain("CMYK", (0, 255, 255, 0)), "JPEG", quality=95)), RED, within=3)
    assert is_all(view_of(encode(plain("CMYK", (0, 0, 0, 255)), "JPEG", quality=95)), BLACK, within=3)


@pytest.mark.parametrize("format", ["PNG", "GIF"])
def test_a_palette_is_looked_up(format: str) -> None:
    image = plain("P", 1)
    image.putpalette([*GREEN, 10, 20, 30])
    assert is_all(view_of(encode(image, format)), (10, 20, 30))


def test_one_bit_is_black_or_white() -> None:
    view = view_of(encode(_half(plain("1", 0), plain("1", 1))))
    assert is_all(view[:16], BLACK)
    assert is_all(view[16:], WHITE)


def test_16_bit_grey_is_scaled_and_not_clipped() -> None:
    levels = np.repeat(np.arange(0, 256, 8, dtype=np.uint16), 32).reshape(32, 32)
    view = view_of(encode(Image.fromarray(levels * 257)))
    assert (view == levels[..., None]).all()


def test_16_bit_colour_is_decoded() -> None:
    row = b"\0" + struct.pack(">HHH", 0xFF00, 0x8000, 0x0000) * 32
    assert is_all(view_of(png(32, 32, pixels=row * 32, depth=16)), (255, 128, 0))


def test_a_jpeg_with_a_second_picture_inside_is_a_jpeg_that_shows_the_first() -> None:
    first, second = picture(seed=1), picture(seed=2)
    decoded = decode(encode(first, "MPO", save_all=True, append_images=[second]), LIMITS, SPEC)
    assert decoded.facts.format == "JPEG"
    difference = decoded.views[0].astype(int) - view_of(encode(first, "JPEG"))
    assert np.abs(difference).max() <= 2


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_the_frames_of_an_animation_are_counted_and_the_first_is_looked_at(format: str) -> None:
    decoded = decode(animation(format, **{"lossless": True} if format == "WEBP" else {}), LIMITS, SPEC)
    assert decoded.facts.frames == 3
    assert decoded.facts.format == format
    assert is_all(decoded.views[0], RED)


def test_an_avif_sequence_is_an_animation() -> None:
    decoded = decode(animation("AVIF"), LIMITS, SPEC)
    assert decoded.facts.frames == 3
    assert is_all(decoded.views[0], RED, within=4)


# -- files that were cut or damaged ----------------------------------------------------------------------------------

_WHOLE: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: encode(picture(), "JPEG"),
    "JPEG, progressive": lambda: encode(picture(), "JPEG", progressive=True),
    "JPEG, CMYK": lambda: encode(picture().convert("CMYK"), "JPEG"),
    "JPEG with restarts": lambda: encode(picture(), "JPEG", restart_marker_blocks=2),
    "PNG": lambda: encode(picture()),
    "PNG with a palette": lambda: encode(picture().convert("P")),
    "PNG of 16 bits": lambda: encode(Image.fromarray(np.arange(48 * 40, dtype=np.uint16).reshape(40, 48) * 30)),
    "APNG": lambda: animation("PNG"),
    "GIF": lambda: encode(picture(), "GIF", interlace=False),
    "GIF, interlaced": lambda: encode(picture(), "GIF", interlace=True),
    "GIF, animated": lambda: animation("GIF"),
    "WebP": lambda: encode(picture(), "WEBP"),
    "WebP, lossless": lambda: encode(picture().convert("RGBA"), "WEBP", lossless=True),
    "WebP, animated": lambda: animation("WEBP"),
    "AVIF": lambda: encode(picture(), "AVIF"),
    "AVIF, animated": lambda: animation("AVIF"),
}


@pytest.mark.parametrize("kind", _WHOLE)
def test_a_file_that_was_cut_anywhere_is_never_an_image(kind: str) -> None:
    data = _WHOLE[kind]()
    assert decode(data, LIMITS, SPEC)
    cuts = {*range(0, len(data), max(1, len(data) // 150)), *range(len(data) - 30, len(data))}
    taken_for_whole = []
    for cut in sorted(cuts):
        try:
            decode(data[:cut], LIMITS, SPEC)
        except (ImageTruncated, ImageUndecodable):
            continue
        taken_for_whole.append(cut)
    assert taken_for_whole == []


@pytest.mark.parametrize("kind", ["JPEG", "JPEG, progressive", "PNG", "APNG", "GIF", "GIF, animated", "WebP"])
def test_a_file_cut_in_its_pixels_says_that_it_was_cut(kind: str) -> None:
    data = _WHOLE[kind]()
    for cut in (len(data) * 3 // 4, len(data) - 1):
        with pytest.raises(ImageTruncated):
            decode(data[:cut], LIMITS, SPEC)


def test_an_animation_that_lacks_its_last_frames_is_truncated_though_every_frame_in_it_is_whole() -> None:
    # A GIF of two frames is the beginning of a GIF of three, but for its last byte.
    frames = [plain("RGB", color) for color in (RED, GREEN, BLUE)]
    whole = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    shorter = encode(frames[0], "GIF", save_all=True, append_images=frames[1:2])
    assert whole.startswith(shorter[:-1])
    assert decode(shorter, LIMITS, SPEC).facts.frames == 2
    with pytest.raises(ImageTruncated):
        decode(shorter[:-1], LIMITS, SPEC)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "GIF, animated", "WebP"])
def test_bytes_behind_the_end_of_a_file_change_nothing(kind: str) -> None:
    data = _WHOLE[kind]()
    assert (view_of(data + b"\0trailing bytes" * 100) == view_of(data)).all()


def test_a_cut_in_the_second_picture_of_a_jpeg_leaves_the_first_whole() -> None:
    first, second = picture(seed=1), picture(seed=2)
    data = encode(first, "MPO", save_all=True, append_images=[second])
    start_of_second = data.rindex(b"\xff\xd8\xff")
    assert (view_of(data[: start_of_second + 200]) == view_of(data)).all()
    with pytest.raises(ImageTruncated):
        decode(data[: start_of_second - 200], LIMITS, SPEC)


# In production what Pillow warns of is only printed.
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", _WHOLE)
def test_a_damaged_file_ends_in_an_image_or_in_a_reason(kind: str) -> None:
    whole = _WHOLE[kind]()
    dice = random.Random(kind)
    ends = set()
    for _ in range(25):
        data = bytearray(whole)
        for _ in range(dice.randint(1, 8)):
            data[dice.randrange(len(data)) if dice.random() < 0.5 else dice.randrange(64)] = dice.randrange(256)
        try:
            (view,) = decode(bytes(data), LIMITS, SPEC).views
            assert view.shape == (32, 32, 3)
            assert view.dtype == np.uint8
            ends.add("image")
        except ImageRejected as error:
            ends.add(error.reason)
    assert ends <= {"image", "image_truncated", "image_undecodable", "image_too_large", "image_format_refused"}
    assert len(ends) > 1, "the dice must do damage, and not always"


# -- equal to transformers -------------------------------------------------------------------------------------------

_SPECS = [SPEC, ViewSpec(40, 32, BICUBIC), ViewSpec(33, 33, Image.Resampling.BILINEAR.value), ViewSpec(224, 224, 3)]


def by_transformers(image: Image.Image, spec: ViewSpec) -> Pixels:
    """Return the square that transformers' own processor makes, before it rescales and normalises."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    processor = CLIPImageProcessorPil(
        size={"shortest_edge": spec.shortest_edge},
        crop_size={"height": spec.crop, "width": spec.crop},
        resample=spec.resample,
        do_rescale=False,
        do_normalize=False,
    )
    square = processor(image, return_tensors="np")["pixel_values"][0]
    return square.transpose(1, 2, 0).astype(np.uint8)


def _sizes() -> Iterator[tuple[int, int]]:
    dice = random.Random(1)
    yield from [
        (1, 1),
        (1, 2),
        (2, 1),
        (3, 3),
        (1, 8),
        (31, 32),
        (32, 32),
        (33, 32),
        (224, 224),
        (225, 223),
        (500, 375),
    ]
    yield from [(dice.randint(1, 400), dice.randint(1, 400)) for _ in range(30)]


@pytest.mark.parametrize("spec", _SPECS, ids=lambda spec: f"{spec.shortest_edge}-{spec.crop}")
def test_a_view_is_the_square_of_clip_processor_to_the_last_bit(spec: ViewSpec) -> None:
    unequal = []
    for width, height in _sizes():
        if max(width, height) > 8 * min(width, height):
            continue
        image = picture(width, height)
        if not np.array_equal(view_of(encode(image), spec), by_transformers(image, spec)):
            unequal.append((width, height))
    assert unequal == []


@pytest.mark.parametrize("spec", _SPECS, ids=lambda spec: f"{spec.shortest_edge}-{spec.crop}")
@pytest.mark.parametrize(
    "size",
    [
        (9, 80),
        (180, 20),
        (20, 400),
        (1, 60),
        (1_000, 100),
        (3, 1_000),
        (37, 601),
        (2, 17),
        (46, 422),
        (44, 3_766),
        (422, 46),
    ],
)
def test_a_view_of_an_extreme_aspect_ratio_is_that_square_within_two_levels(
    size: tuple[int, int], spec: ViewSpec
) -> None:
    image = picture(*size)
    difference = view_of(encode(image), spec).astype(int) - by_transformers(image, spec)
    assert np.abs(difference).max() <= 2


# -- JPEGs that are much larger than their view ----------------------------------------------------------------------


def blocks(width: int, height: int) -> Image.Image:
    """Draw patches of random colours with hard edges: the worst that a smaller copy can be made of."""
    colours = np.random.default_rng(0).integers(0, 256, (max(2, height // 40), max(2, width // 40), 3), dtype=np.uint8)
    return Image.fromarray(colours).resize((width, height), Image.Resampling.NEAREST)


def difference_to_whole(data: bytes, spec: ViewSpec) -> npt.NDArray[np.int64]:
    """Compare a file's view with the one that is made of all its pixels."""
    return np.abs(view_of(data, spec).astype(int) - decode_plain(data, LIMITS, spec))


def photograph(width: int, height: int) -> Image.Image:
    """Draw soft shapes under a little grain, as a camera does."""
    dice = np.random.default_rng(0)
    shapes = dice.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
    soft = np.asarray(Image.fromarray(shapes).resize((width, height), Image.Resampling.BICUBIC))
    return Image.fromarray((soft + dice.normal(0, 4, (height, width, 1))).clip(0, 255).astype(np.uint8))


_LARGE = [(1_400, 1_344), (1_347, 2_001), (3_001, 2_003), (4_000, 3_000)]


@pytest.mark.parametrize(
    "options", [{"quality": 90}, {"quality": 75, "progressive": True}, {"subsampling": 0}], ids=str
)
@pytest.mark.parametrize("size", _LARGE)
@pytest.mark.parametrize(("draw", "levels"), [(photograph, 6), (picture, 8), (blocks, 12)])
def test_a_view_of_a_large_jpeg_is_within_a_few_levels_of_the_one_that_is_made_of_all_pixels(
    draw: Callable[[int, int], Image.Image], levels: int, size: tuple[int, int], options: dict[str, Any]
) -> None:
    difference = difference_to_whole(encode(draw(*size), "JPEG", **options), ViewSpec(224, 224, BICUBIC))
    assert 0 < difference.max() <= levels, "0: the copy was not smaller"
    assert difference.mean() < 1


@pytest.mark.parametrize("size", [(1_343, 1_343), (5_000, 1_343), (500, 375)])
def test_a_view_of_a_jpeg_below_six_times_its_size_is_made_of_all_pixels(size: tuple[int, int]) -> None:
    assert difference_to_whole(encode(picture(*size), "JPEG"), ViewSpec(224, 224, BICUBIC)).max() == 0


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(201, 202), (405, 203), (1_001, 1_003)])
def test_a_large_jpeg_is_turned_without_being_shifted(orientation: int, size: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    data = encode(blocks(*size), "JPEG", exif=exif, subsampling=0)
    facts = decode(data, LIMITS, SPEC).facts
    assert (facts.width, facts.height) == (size if orientation < 5 else size[::-1])
    difference = difference_to_whole(data, SPEC)
    assert difference.mean() < 1


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_a_large_jpeg_of_other_colours_is_close_to_its_whole_too(mode: str) -> None:
    assert difference_to_whole(encode(picture(700, 500).convert(mode), "JPEG"), SPEC).max() <= 4


def test_a_large_jpeg_with_a_second_picture_inside_is_close_to_its_whole_too() -> None:
    data = encode(picture(700, 500), "MPO", save_all=True, append_images=[picture(700, 500, seed=2)])
    assert decode(data, LIMITS, SPEC).facts.format == "JPEG"
    assert difference_to_whole(data, SPEC).max() <= 4


@pytest.mark.parametrize("progressive", [False, True])
def test_a_large_jpeg_that_was_cut_is_never_an_image(progressive: bool) -> None:
    data = encode(picture(700, 500), "JPEG", progressive=progressive)
    assert decode(data, LIMITS, SPEC)
    for cut in (len(data) // 2, len(data) * 9 // 10, len(data) - 200, len(data) - 20, len(data) - 1):
        with pytest.raises(ImageTruncated):
            decode(data[:cut], LIMITS, SPEC)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_large_jpeg_is_decoded_in_the_memory_of_its_copy() -> None:
    # All its pixels would be 108 MB.
    assert decoded_within_memory(encode(Image.new("RGB", (6_000, 6_000)), "JPEG"), megabytes=60) == "6000 x 6000"


_MODES = ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16"]


@pytest.mark.parametrize("mode", _MODES)
def test_a_plain_view_is_what_transformers_makes_of_the_file(mode: str) -> None:
    from transformers.image_utils import load_image

    image = picture().convert("L").convert("I;16") if mode == "I;16" else picture().convert(mode)
    if image.mode in {"RGBA", "LA"}:
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    exif = Image.Exif()
    exif[274] = 6
    data = encode(image, "JPEG" if mode == "CMYK" else "PNG", exif=exif)
    with Image.open(io.BytesIO(data)) as stored:
        loaded = load_image(stored)
    assert np.array_equal(decode_plain(data, LIMITS, SPEC), by_transformers(loaded, SPEC))


def test_a_plain_view_of_a_palette_shows_what_is_transparent_as_transformers_does() -> None:
    data = _palette_with_transparency(b"\xff\0")
    assert is_all(decode_plain(data, LIMITS, SPEC), BLACK)


def test_a_plain_view_is_refused_within_the_same_limits() -> None:
    data = encode(picture())
    with pytest.raises(ImageTooLarge):
        decode_plain(data, Limits(10**6, 100, FORMATS), SPEC)
    with pytest.raises(ImageTruncated):
        decode_plain(data[:-20], LIMITS, SPEC)
