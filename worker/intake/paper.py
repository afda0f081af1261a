"""Pixels as people see them: 16 bits scaled, palettes looked up, profiles heeded, alpha kept until it is laid on paper.

In: one loaded frame. Out: RGB, RGBa (premultiplied) or CMYK, small copies for comparing, views on white or black.
Never a hidden colour: what is transparent shows the paper.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

#: `(height, width, 3)` RGB.
View = npt.NDArray[np.uint8]
#: `(CELLS, CELLS, 4)`: red, green, blue, premultiplied, and alpha; of an image of any shape.
Sketch = npt.NDArray[np.uint8]
Paper = Literal["white", "black"]

#: Rows and columns of a sketch.
CELLS = 64
#: Levels of 255: no cell of a sketch changes by more where a frame hardly differs, alpha hardly matters, or a border
#: is uniform.
HARDLY = 12
#: Larger colour profiles are left alone.
_MAX_PROFILE_BYTES = 1 << 20
_PROFILED = ("RGB", "L", "CMYK")
#: Levels of 16 bits for each of 8.
_DEPTH_LEVELS = 257
_OPAQUE = 255


def flatten(image: Image.Image) -> Image.Image:
    """Return RGB: 16-bit grey scaled instead of clipped, transparency laid on white instead of dropped."""
    if image.mode.startswith("I"):
        levels = np.asarray(image).astype(np.float64)
        levels[levels == image.info.get("transparency", -1)] = 65_535
        return _eight_bits(levels).convert("RGB")
    if image.has_transparency_data:
        upper = image.convert("RGBA")
        paper = Image.new("RGBA", upper.size, "white")
        return Image.alpha_composite(paper, upper).convert("RGB")
    return image.convert("RGB")


def readable(image: Image.Image) -> Image.Image:
    """Return RGB or, where something is transparent, RGBa; CMYK stays where its profile is needed."""
    if image.mode.startswith("I"):
        levels = np.asarray(image).astype(np.float64)
        grey = _eight_bits(levels)
        clear = image.info.get("transparency")
        if not isinstance(clear, int):
            return grey.convert("RGB")
        grey.putalpha(Image.fromarray(np.where(levels == clear, 0, 255).astype(np.uint8)))
        return grey.convert("RGBA").convert("RGBa")
    if image.has_transparency_data:
        upper = image.convert("RGBA")
        is_opaque = upper.getchannel("A").getextrema() == (_OPAQUE, _OPAQUE)
        return upper.convert("RGB" if is_opaque else "RGBa")
    if image.mode == "CMYK" and colours_of(image) is not None:
        return image
    return image.convert("RGB")


def _eight_bits(levels: npt.NDArray[np.float64]) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(levels / _DEPTH_LEVELS), 0, 255).astype(np.uint8))


def sketch(image: Image.Image, box: tuple[float, float, float, float] | None = None) -> Sketch:
    """Shrink what `readable` returned to cells, each the mean of its pixels.

    Args:
        image: RGB, RGBa or CMYK.
        box: The part of it that is the image.
    """
    small = image.resize((CELLS, CELLS), Image.Resampling.BOX, box, reducing_gap=2.0)
    if small.mode == "RGBa":
        return np.array(small)
    return np.array(small.convert("RGB").convert("RGBA"))


def alpha_matters(cells: Sketch) -> bool:
    """Whether an image looks different on white and on black."""
    return bool(cells[..., 3].min() < _OPAQUE - HARDLY)


def on_paper(image: Image.Image, paper: Paper) -> Image.Image:
    """Lay what `readable` returned, in any size, on a colour."""
    if image.mode != "RGBa":
        return image
    pixels = np.array(image).astype(np.uint16)
    shown = pixels[..., :3] + (_OPAQUE - pixels[..., 3:] if paper == "white" else 0)
    return Image.fromarray(np.minimum(shown, _OPAQUE).astype(np.uint8))


def colours_of(image: Image.Image) -> Callable[[Image.Image], Image.Image] | None:
    """Return what turns the image's colours into sRGB; None where nothing is to be turned.

    A profile that cannot be read, or belongs to other channels, is passed over, as in every viewer.
    """
    profile = image.info.get("icc_profile")
    mode = image.mode if image.mode in _PROFILED else "RGB"
    if not isinstance(profile, bytes) or not 0 < len(profile) <= _MAX_PROFILE_BYTES:
        return None
    transform = _transform(profile, mode)
    if transform is None:
        return None
    return lambda pixels: ImageCms.applyTransform(pixels if pixels.mode == mode else pixels.convert(mode), transform)  # type: ignore[return-value]


# The same few profiles are in all files of a camera.
@lru_cache(maxsize=32)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    try:
        return ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"), mode, "RGB"
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
