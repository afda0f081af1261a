"""A picture → the same picture changed, as people change pictures before they upload them again.

In: RGB pixels that are ours (`copies`), never a stranger's file. Out: the bytes of a file. The same picture, change and
text make the same bytes.
"""

from __future__ import annotations

import difflib
import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

from worker.errors import UsageError
from worker.intake.square import View

#: What is written over pictures where nobody says otherwise.
TEXT = "a photo of a puppy"
#: Characters of such a text at most.
_MAX_TEXT = 100
#: How much of each side a crop keeps.
_KEPT = 0.8
#: How much of a picture's height each black bar adds.
_BAR = 0.25
#: Degrees of a slight turn.
_TILT = 5
#: Radius of the blur, as a share of the longer side.
_BLUR = 0.01
#: Standard deviation of the noise, in levels of 255.
_NOISE = 25
#: How far hues are turned, in levels of 256: a sixth of the circle.
_HUE = 43
#: How much larger, a side, the plain picture is than the one in its corner.
_PLAIN = 2
#: Longer side of what is made small, in pixels.
_SMALL = 96
_PLAIN_COLOUR = (225, 225, 225)
#: How much of the picture's width and, at most, of its height a text takes.
_TEXT_WIDTHS = {"small": 0.5, "large": 0.95}
_TEXT_HEIGHT = 0.3
#: What the text's width is measured at, in pixels of the font's size.
_FONT_SIZE = 100


@dataclass(frozen=True, slots=True)
class _Picture:
    """What a change is made from."""

    image: Image.Image
    #: For what happens by chance: the same for the same picture and change.
    seed: int
    text: str


@dataclass(frozen=True, slots=True)
class Change:
    """One way to change a picture."""

    name: str
    #: Ends the sentence "blocked pictures are allowed once they are …".
    words: str
    make: Callable[[_Picture], Image.Image | bytes]

    def apply(self, pixels: View, digest: str, text: str = TEXT) -> bytes:
        """Change a picture.

        Args:
            pixels: `(height, width, 3)` uint8.
            digest: Names the picture; what happens by chance follows from it and from the change's name.
            text: What is written over it, by those changes that write.

        Returns:
            A file: PNG, or JPEG where the change is that it was saved as one.
        """
        seed = hashlib.sha256(f"{digest} {self.name}".encode()).digest()[:8]
        made = self.make(_Picture(Image.fromarray(pixels), int.from_bytes(seed), text))
        return made if isinstance(made, bytes) else _png(made)


def choose(names: Sequence[str] | None) -> tuple[Change, ...]:
    """Return the changes of some names, in the order of `CHANGES`.

    Args:
        names: Of changes, or what the names of several begin with (`crop`: all crops); None: all.

    Raises:
        UsageError: There is none of a name.
    """
    if names is None:
        return CHANGES
    chosen = set()
    for name in names:
        found = [change for change in CHANGES if change.name == name or change.name.startswith(f"{name}-")]
        if not found:
            known = [change.name for change in CHANGES]
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
            raise UsageError(f"there is no change {name!r}; {hint}")
        chosen |= {change.name for change in found}
    return tuple(change for change in CHANGES if change.name in chosen)


def check_text(text: str) -> str:
    """Return a text that can be written over pictures.

    Raises:
        UsageError: It is empty or long, or holds what the font that comes with Pillow has no sign for.
    """
    if not text.strip() or len(text) > _MAX_TEXT:
        raise UsageError(f"a text to write over pictures has 1 to {_MAX_TEXT} characters; this one has {len(text)}")
    font = ImageFont.load_default(_FONT_SIZE)
    # What a font draws for a character that it lacks: all of them look the same.
    lacking = bytes(font.getmask("\N{REPLACEMENT CHARACTER}")), bytes(font.getmask("\U0010ffff"))
    wrong = [sign for sign in text if not sign.isprintable() or (sign != " " and bytes(font.getmask(sign)) in lacking)]
    if wrong:
        raise UsageError(f"{wrong[0]!r} cannot be written over pictures; use letters and signs of English")
    return text


def as_file(pixels: View) -> bytes:
    """Return pixels, unchanged, as the bytes of a file."""
    return _png(Image.fromarray(pixels))


def pixels_of(file: bytes) -> View:
    """Return the pixels of a file that was made here."""
    with Image.open(io.BytesIO(file), formats=("PNG", "JPEG")) as image:
        return np.asarray(image.convert("RGB"))


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    # Lossless, and fast: the file is read once.
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def _as_jpeg(picture: _Picture, quality: int) -> bytes:
    file = io.BytesIO()
    picture.image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def _cropped(picture: _Picture, across: float, down: float) -> Image.Image:
    """Keep a part; `across` and `down` say where it lies: 0 at the left and at the top, 1 at the right and below."""
    width, height = picture.image.size
    kept = (max(1, round(width * _KEPT)), max(1, round(height * _KEPT)))
    left, top = round((width - kept[0]) * across), round((height - kept[1]) * down)
    return picture.image.crop((left, top, left + kept[0], top + kept[1]))


def _between_bars(picture: _Picture) -> Image.Image:
    bar = max(1, round(picture.image.height * _BAR))
    return ImageOps.expand(picture.image, (0, bar, 0, bar), "black")


def _greyed(picture: _Picture) -> Image.Image:
    return picture.image.convert("L").convert("RGB")


def _mirrored(picture: _Picture) -> Image.Image:
    return ImageOps.mirror(picture.image)


def _turned(picture: _Picture, degrees: float) -> Image.Image:
    """Turn to the left; where nothing of the picture lies is white."""
    return picture.image.rotate(degrees, Image.Resampling.BICUBIC, expand=True, fillcolor="white")


def _blurred(picture: _Picture) -> Image.Image:
    return picture.image.filter(ImageFilter.GaussianBlur(_BLUR * max(picture.image.size)))


def _noised(picture: _Picture) -> Image.Image:
    pixels = np.asarray(picture.image)
    noise = np.random.default_rng(picture.seed).normal(0, _NOISE, pixels.shape)
    return Image.fromarray((pixels + noise).round().clip(0, 255).astype(np.uint8))


def _hue_turned(picture: _Picture) -> Image.Image:
    hue, *rest = picture.image.convert("HSV").split()
    turned = Image.fromarray(np.asarray(hue) + np.uint8(_HUE))
    return Image.merge("HSV", (turned, *rest)).convert("RGB")


def _contrasted(picture: _Picture, factor: float) -> Image.Image:
    return ImageEnhance.Contrast(picture.image).enhance(factor)


def _lit(picture: _Picture, factor: float) -> Image.Image:
    return ImageEnhance.Brightness(picture.image).enhance(factor)


def _in_a_corner(picture: _Picture) -> Image.Image:
    """Put it, half as large a side, into the lower right of a plain picture twice as large a side."""
    width, height = picture.image.size
    small = picture.image.resize((max(1, width // 2), max(1, height // 2)), Image.Resampling.BICUBIC)
    plain = Image.new("RGB", (width * _PLAIN, height * _PLAIN), _PLAIN_COLOUR)
    plain.paste(small, (plain.width - small.width, plain.height - small.height))
    return plain


def _made_small(picture: _Picture) -> Image.Image:
    long = max(picture.image.size)
    share = min(_SMALL / long, 0.5)
    size = tuple(max(1, round(length * share)) for length in picture.image.size)
    return picture.image.resize((size[0], size[1]), Image.Resampling.BICUBIC)


def _overwritten(picture: _Picture, size: str) -> Image.Image:
    """Write black on a white label: a small one below, a large one across the middle.

    Source:
        Goh et al. 2021, "Multimodal Neurons in Artificial Neural Networks", section on typographic attacks.
    """
    image = picture.image.copy()
    font = _font_for(picture.text, image.size, _TEXT_WIDTHS[size])
    left, top, right, bottom = font.getbbox(picture.text)
    pad = max(1, round((bottom - top) / 4))
    width, height = right - left, bottom - top
    centre = image.height / 2 if size == "large" else image.height - height / 2 - 2 * pad
    x, y = (image.width - width) / 2, centre - height / 2
    draw = ImageDraw.Draw(image)
    draw.rectangle((x - pad, y - pad, x + width + pad, y + height + pad), fill="white")
    draw.text((x - left, y - top), picture.text, fill="black", font=font)
    return image


def _font_for(text: str, size: tuple[int, int], share: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    left, top, right, bottom = ImageFont.load_default(_FONT_SIZE).getbbox(text)
    fits = min(share * size[0] / (right - left), _TEXT_HEIGHT * size[1] / (bottom - top))
    return ImageFont.load_default(max(1.0, _FONT_SIZE * fits))


#: Every change, in the order in which they are shown.
CHANGES: tuple[Change, ...] = (
    Change("jpeg-75", "saved as JPEG of quality 75", partial(_as_jpeg, quality=75)),
    Change("jpeg-40", "saved as JPEG of quality 40", partial(_as_jpeg, quality=40)),
    Change("crop-centre", "cropped to the middle 80 %", partial(_cropped, across=0.5, down=0.5)),
    *(
        Change(f"crop-{row}-{side}", f"cropped to the {row} {side} 80 %", partial(_cropped, across=across, down=down))
        for (row, down), (side, across) in product((("top", 0), ("bottom", 1)), (("left", 0), ("right", 1)))
    ),
    Change("letterbox", "put between black bars", _between_bars),
    Change("flip", "mirrored", _mirrored),
    Change("rotate-left-5", "turned by 5° to the left", partial(_turned, degrees=_TILT)),
    Change("rotate-right-5", "turned by 5° to the right", partial(_turned, degrees=-_TILT)),
    Change("rotate-90", "turned by 90°", partial(_turned, degrees=90)),
    Change("grey", "greyed", _greyed),
    Change("hue", "given other hues", _hue_turned),
    Change("contrast-low", "given half the contrast", partial(_contrasted, factor=0.5)),
    Change("contrast-high", "given twice the contrast", partial(_contrasted, factor=2.0)),
    Change("dark", "darkened by half", partial(_lit, factor=0.5)),
    Change("bright", "brightened by half", partial(_lit, factor=1.5)),
    Change("blur", "blurred", _blurred),
    Change("noise", "covered with noise", _noised),
    Change("small", "made as small as a thumbnail", _made_small),
    Change("corner", "shrunk into a corner of a plain picture", _in_a_corner),
    Change("text-small", "overlaid with a small text", partial(_overwritten, size="small")),
    Change("text-large", "overlaid with a large text", partial(_overwritten, size="large")),
)
