"""Open images → views: every frame that differs, every pixel, on white and on black, in the colours a viewer shows."""

from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageDraw, PngImagePlugin
from support import encode

from worker.errors import ImageTooLarge, ImageTruncated
from worker.intake.decode import DecodedImage, Limits, decode
from worker.intake.look import MAX_FRAME_PIXELS
from worker.intake.square import ViewSpec
from worker.intake.structure import MAX_FRAMES

LIMITS = Limits(20 * 1024 * 1024, 50_000_000, ("JPEG", "PNG", "WEBP", "GIF", "AVIF"))
SINGLE = ViewSpec(32, 32, Image.Resampling.BICUBIC.value)
WHOLE = replace(SINGLE, mode="whole")
TILES = replace(SINGLE, mode="tiles")
LOSSLESS = {"GIF": {}, "PNG": {}, "WEBP": {"lossless": True}, "AVIF": {"quality": 90}}


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """Draw something without a uniform border."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def look(data: bytes, spec: ViewSpec = WHOLE) -> DecodedImage:
    decoded = decode(data, LIMITS, spec)
    assert decoded.facts.views == len(decoded.views) == len(decoded.facts.view_boxes)
    assert all(view.shape == (32, 32, 3) and view.dtype == np.uint8 for view in decoded.views)
    return decoded


def frames(*pictures: Image.Image, format: str = "GIF") -> bytes:
    options = LOSSLESS[format]
    return encode(pictures[0], format, save_all=True, append_images=pictures[1:], duration=50, **options)


def numbers(decoded: DecodedImage) -> list[int]:
    return [box.frame for box in decoded.facts.view_boxes]


# -- still images ----------------------------------------------------------------------------------------------------


def test_a_square_image_is_seen_as_the_checkpoint_sees_it_in_every_mode() -> None:
    data = encode(noise(60, 60))
    (single,), (whole,) = look(data, SINGLE).views, look(data).views
    assert (single == whole).all()
    assert (look(data, TILES).views[0] == single).all()


def test_a_single_view_says_that_it_is_blind_at_the_edges_and_a_whole_one_is_not() -> None:
    data = encode(noise(120, 80))
    single, whole = look(data, SINGLE).facts, look(data).facts
    assert (single.unseen, single.views) == (["edges"], 1)
    assert single.view_boxes[0].box == (20, 0, 100, 80)
    assert (whole.unseen, [box.box for box in whole.view_boxes]) == ([], [(0, 0, 80, 80), (40, 0, 120, 80)])


def test_a_view_shows_its_box() -> None:
    image = noise(120, 80)
    decoded = look(encode(image))
    for view, box in zip(decoded.views, decoded.facts.view_boxes, strict=True):
        own = np.asarray(image.crop(box.box).resize((32, 32), Image.Resampling.BICUBIC, reducing_gap=3.0)).astype(int)
        assert np.abs(own - view).max() <= 24
        assert np.abs(own - view).mean() <= 3


def test_tiles_that_are_wanted_and_not_allowed_are_told() -> None:
    facts = look(encode(noise(800, 600)), TILES).facts
    assert facts.views <= 12 < facts.views_wanted
    facts = look(encode(noise(80, 60)), TILES).facts
    assert facts.views == facts.views_wanted


def test_a_jpeg_is_decoded_large_enough_for_its_tiles() -> None:
    # Stripes of the width of a tile's pixel vanish in a copy that is made for one view.
    stripes = np.zeros((640, 640, 3), np.uint8)
    stripes[:, ::16] = stripes[:, 1::16] = stripes[:, 2::16] = stripes[:, 3::16] = 255
    data = encode(Image.fromarray(stripes), "JPEG", quality=95)
    decoded = look(data, replace(TILES, max_views=64))
    assert decoded.views[-1].std() > 3 * decoded.views[0].std()


def test_a_small_thing_in_a_large_plain_jpeg_is_as_sharp_as_in_a_png() -> None:
    image = Image.new("RGB", (1_600, 1_600), "white")
    image.paste(noise(10, 10).resize((100, 100), Image.Resampling.NEAREST), (700, 900))
    by_png, by_jpeg = (
        look(encode(image, format, **options)) for format, options in [("PNG", {}), ("JPEG", {"quality": 95})]
    )
    assert len(by_png.views) == len(by_jpeg.views) == 2
    assert by_jpeg.views[1].std() > 0.9 * by_png.views[1].std() > 3 * by_png.views[0].std()


@pytest.mark.parametrize("bars", [(0, 200), (200, 0)], ids=["above and below", "at the sides"])
@pytest.mark.parametrize("colour", ["black", "white", (90, 10, 160)])
def test_bars_around_a_picture_are_trimmed_for_a_view(bars: tuple[int, int], colour: str) -> None:
    image = Image.new("RGB", (256 + 2 * bars[0], 256 + 2 * bars[1]), colour)
    image.paste(noise(256, 256), bars)
    # Where the picture is one of the tiles of the whole, it is not looked at twice.
    boxes = [box.box for box in look(encode(image)).facts.view_boxes]
    assert boxes.count((*bars, bars[0] + 256, bars[1] + 256)) == 1


def test_bars_of_two_colours_are_trimmed_one_after_the_other() -> None:
    image = Image.new("RGB", (640, 640), "black")
    image.paste(Image.new("RGB", (640, 320), "white"), (0, 160))
    image.paste(noise(320, 320), (160, 160))
    assert (160, 160, 480, 480) in [box.box for box in look(encode(image)).facts.view_boxes]


def test_the_bars_of_a_jpeg_are_trimmed_within_a_few_pixels() -> None:
    image = Image.new("RGB", (1_000, 1_700), "black")
    image.paste(noise(100, 70).resize((1_000, 700)), (0, 503))
    boxes = [box.box for box in look(encode(image, "JPEG", quality=80)).facts.view_boxes]
    top, bottom = boxes[-1][1], boxes[-1][3]
    assert 490 <= top <= 508
    assert 1_198 <= bottom <= 1_215


def test_a_thing_on_a_plain_background_is_seen_with_a_margin() -> None:
    image = Image.new("RGB", (600, 600), "white")
    ImageDraw.Draw(image).ellipse((100, 300, 199, 399), fill="red")
    assert look(encode(image)).facts.view_boxes[-1].box == (95, 295, 205, 405)


def test_an_image_of_one_colour_is_one_view() -> None:
    assert look(encode(Image.new("RGB", (50, 50), "red"))).facts.views == 1


# -- alpha -----------------------------------------------------------------------------------------------------------


def test_what_is_white_on_nothing_is_seen_on_black_and_what_is_black_on_nothing_on_white() -> None:
    for level, paper in ((255, "black"), (0, "white")):
        image = Image.new("LA", (60, 60), (level, 0))
        image.paste((level, 255), (10, 10, 50, 50))
        decoded = look(encode(image))
        contrast = {
            box.on: int(view.max()) - int(view.min())
            for view, box in zip(decoded.views, decoded.facts.view_boxes, strict=True)
        }
        assert set(contrast) == {"white", "black"}
        assert contrast[paper] == 255
        assert sorted(contrast.values()) == [0, 255]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_that_hides_nothing_costs_no_view(mode: str) -> None:
    assert look(encode(noise(60, 60).convert(mode))).facts.views == 1


def test_colours_that_hide_in_transparent_pixels_are_on_no_view() -> None:
    image = noise(60, 60).convert("RGBA")
    image.putalpha(0)
    white, black = look(encode(image)).views
    assert (white == 255).all()
    assert (black == 0).all()


def test_with_one_view_allowed_alpha_is_judged_on_white_and_the_verdict_says_that_more_are_wanted() -> None:
    image = noise(60, 60).convert("RGBA")
    image.putalpha(100)
    facts = look(encode(image), replace(WHOLE, max_views=1)).facts
    assert [box.on for box in facts.view_boxes] == ["white"]
    assert facts.views_wanted == 2


def test_a_transparent_level_of_16_bits_is_seen_on_both_papers() -> None:
    levels = np.repeat(np.array([[0], [5]], np.uint16), 16, axis=0).repeat(32, axis=1)
    white, black = look(encode(Image.fromarray(levels), transparency=5)).views
    assert (white[20:] == 255).all()
    assert (black == 0).all()


# -- colours ---------------------------------------------------------------------------------------------------------


def _swapped_profile() -> bytes:
    """Return sRGB with red and green swapped: what a viewer shows is not what is stored."""
    whole = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack(">I", whole[128:132])[0]
    tags = {bytes(whole[132 + 12 * n : 136 + 12 * n]): 132 + 12 * n for n in range(count)}
    one, two = (bytes(whole[tags[name] + 4 : tags[name] + 12]) for name in (b"rXYZ", b"gXYZ"))
    whole[tags[b"rXYZ"] + 4 : tags[b"rXYZ"] + 12], whole[tags[b"gXYZ"] + 4 : tags[b"gXYZ"] + 12] = two, one
    return bytes(whole)


def test_a_colour_profile_is_heeded_as_viewers_do() -> None:
    data = encode(Image.new("RGB", (40, 40), "red"), icc_profile=_swapped_profile())
    # Red becomes green, and whoever heeds no profile sees red: both are looked at.
    as_it_is, as_shown = (view[0, 0] for view in look(data).views)
    assert tuple(as_it_is) == (255, 0, 0)
    assert as_shown[1] > 200
    assert as_shown[0] < 60
    (single,) = look(data, SINGLE).views
    assert tuple(single[0, 0]) == (255, 0, 0)


def _profile_of(*columns: tuple[float, float, float]) -> bytes:
    """Return sRGB with other primaries."""
    whole = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack(">I", whole[128:132])[0]
    for entry in range(132, 132 + 12 * count, 12):
        place = (b"rXYZ", b"gXYZ", b"bXYZ")
        if bytes(whole[entry : entry + 4]) in place:
            at = struct.unpack(">I", whole[entry + 4 : entry + 8])[0]
            column = columns[place.index(bytes(whole[entry : entry + 4]))]
            whole[at + 8 : at + 20] = struct.pack(">iii", *(round(value * 65_536) for value in column))
    return bytes(whole)


def test_a_profile_that_takes_all_colour_away_is_not_the_only_way_to_look() -> None:
    grey = _profile_of(*[(0.3214, 0.3333, 0.2750)] * 3)
    as_it_is, as_shown = (
        view[0, 0].astype(int) for view in look(encode(Image.new("RGB", (40, 40), "red"), icc_profile=grey)).views
    )
    assert as_it_is.tolist() == [255, 0, 0]
    assert np.ptp(as_shown) < 12


@pytest.mark.parametrize(
    "columns",
    [
        pytest.param(((0.5151, 0.2412, -0.0011), (0.2920, 0.6923, 0.0419), (0.1571, 0.0666, 0.7841)), id="Display P3"),
        pytest.param(((0.7977, 0.2880, 0.0), (0.1352, 0.7119, 0.0), (0.0314, 0.0001, 0.8252)), id="ProPhoto"),
    ],
)
def test_the_wide_profiles_of_cameras_cost_no_view(columns: tuple[tuple[float, float, float], ...]) -> None:
    assert look(encode(noise(60, 60), icc_profile=_profile_of(*columns))).facts.views == 1


def test_the_usual_profile_changes_nothing() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = encode(noise(60, 60), icc_profile=profile)
    assert (look(data).views[0] == look(data, SINGLE).views[0]).all()


@pytest.mark.parametrize("profile", [b"no profile", b"\0" * 200, b""])
def test_a_profile_that_cannot_be_read_is_passed_over(profile: bytes) -> None:
    assert (look(encode(noise(60, 60), icc_profile=profile)).views[0] == look(encode(noise(60, 60))).views[0]).all()


def test_a_phones_jpeg_with_a_second_picture_inside_shows_the_first() -> None:
    data = encode(noise(60, 60), "MPO", save_all=True, append_images=[noise(60, 60, seed=1)])
    decoded = look(data)
    assert decoded.facts.format == "JPEG"
    assert (numbers(decoded), decoded.facts.unseen) == ([0], [])


# -- animations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", LOSSLESS)
def test_a_frame_that_differs_is_looked_at_wherever_it_stands(format: str) -> None:
    plain, other = Image.new("RGB", (40, 40), "white"), noise(4, 4).resize((40, 40))
    for place in range(0, 40, 13):
        pictures = [other if at == place else plain.copy() for at in range(40)]
        # Encoders join equal neighbours: a pixel that moves keeps them apart.
        for at, picture in enumerate(pictures):
            picture.putpixel((at, 39), (250, 250, 250))
        decoded = look(frames(*pictures, format=format))
        seen = [abs(view.astype(int) - np.asarray(other.resize((32, 32), 3))).mean() < 12 for view in decoded.views]
        assert any(seen), (format, place, decoded.facts)
        assert decoded.facts.unseen == []
        assert decoded.facts.frames == 40


def test_frames_that_hardly_differ_are_not_looked_at_again() -> None:
    pictures = [Image.new("RGB", (40, 40), (100 + at % 3, 100, 100)) for at in range(30)]
    assert numbers(look(frames(*pictures, format="PNG"))) == [0]


def test_of_an_animation_the_first_and_the_last_frame_are_always_looked_at() -> None:
    decoded = look(frames(*(noise(40, 40, seed) for seed in range(40)), format="PNG"))
    assert len(numbers(decoded)) == 16
    assert {0, 39} <= set(numbers(decoded))
    assert numbers(decoded) == sorted(numbers(decoded))
    assert decoded.facts.unseen == ["frames"]
    gaps = np.diff(numbers(decoded))
    assert gaps.max() <= 8


def test_what_stands_out_is_among_the_frames_though_all_of_them_differ() -> None:
    ordinary = [Image.blend(noise(40, 40, seed), Image.new("RGB", (40, 40), "green"), 0.6) for seed in range(40)]
    for place in (3, 17, 38):
        pictures = [*ordinary]
        pictures[place] = Image.new("RGB", (40, 40), "red")
        assert place in numbers(look(frames(*pictures, format="PNG")))


def test_long_frames_share_the_views_of_an_animation() -> None:
    decoded = look(frames(*(noise(150, 50, seed) for seed in range(20)), format="PNG"))
    assert len(set(numbers(decoded))) == 16
    assert decoded.facts.views == 48
    assert decoded.facts.views_wanted == 64
    covered = {box.box for box in decoded.facts.view_boxes}
    assert min(left for left, *_ in covered) == 0
    assert max(right for _, _, right, _ in covered) == 150


def test_a_single_view_of_an_animation_says_that_frames_were_not_seen() -> None:
    facts = look(frames(noise(40, 40), noise(40, 40, 1)), SINGLE).facts
    assert (facts.frames, facts.views, facts.unseen) == (2, 1, ["frames"])


def test_an_animation_that_is_cut_in_a_late_frame_is_no_image() -> None:
    data = frames(*(noise(40, 40, seed) for seed in range(5)), format="PNG")
    with pytest.raises(ImageTruncated):
        look(data[:-200])


def _gif(side: int, count: int) -> bytes:
    screen = b"GIF89a" + struct.pack("<HH", side, side) + b"\x80\0\0" + b"\0\0\0\xff\xff\xff"
    return screen + (b"," + struct.pack("<HHHH", 0, 0, 1, 1) + b"\0\x02\x02\x44\x01\0") * count + b";"


def test_an_animation_of_more_frames_than_are_counted_is_too_large() -> None:
    assert look(_gif(1, MAX_FRAMES)).facts.frames == MAX_FRAMES
    with pytest.raises(ImageTooLarge, match="frames"):
        look(_gif(1, MAX_FRAMES + 1))


def test_an_animation_of_more_pixels_than_are_decoded_is_too_large_before_it_is_decoded() -> None:
    with pytest.raises(ImageTooLarge, match=str(MAX_FRAME_PIXELS)):
        look(_gif(5_000, 9))


def test_exif_turns_every_view() -> None:
    exif = Image.Exif()
    exif[274] = 6
    image = noise(120, 40)
    turned = look(encode(image.transpose(Image.Transpose.ROTATE_90), exif=exif))
    upright = look(encode(image))
    assert turned.facts.view_boxes == upright.facts.view_boxes
    assert all((one == other).all() for one, other in zip(turned.views, upright.views, strict=True))


def test_an_orientation_that_only_xmp_names_turns_nothing_as_in_browsers() -> None:
    xmp = b'<x:xmpmeta tiff:Orientation="3"/>'
    for format, options in (("PNG", {"pnginfo": _xmp_of(xmp)}), ("WEBP", {"xmp": xmp, "lossless": True})):
        turned = look(encode(noise(60, 60), format, **options)).views[0]
        assert (turned == look(encode(noise(60, 60))).views[0]).all()


def _xmp_of(text: bytes) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", text.decode())
    return info


@pytest.mark.parametrize(("side", "period"), [(224, 14), (640, 5), (640, 8), (640, 10)])
def test_lines_so_fine_that_every_cell_is_the_same_grey_are_a_frame_that_differs(side: int, period: int) -> None:
    lines = np.full((side, side), 128, np.uint8)
    lines[::period], lines[1::period] = 255, 1
    data = frames(Image.new("L", (side, side), 128), Image.fromarray(lines), format="PNG")
    assert numbers(look(data)) == [0, 1]
