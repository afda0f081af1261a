"""Pixels as people see them: 16 bits scaled, palettes looked up, alpha kept until it is laid on paper.

In: one loaded frame. Out: RGB, RGBa (premultiplied) or CMYK, small copies for comparing, views on white or black.
Never a hidden colour: what is transparent shows the paper.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

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
#: Where a PNG says how deep it is, and up to what depth its pixels are scaled to 8 bits.
_DEPTH_AT, _DEPTH_BITS = 24, 8
#: Levels of 16 bits for each of 8.
_DEPTH_LEVELS = 257
_OPAQUE = 255
#: Level → its square, in levels.
_SQUARES = [round(level * level / 255) for level in range(256)]


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


def readable(image: Image.Image, *, keeps_cmyk: bool = False) -> Image.Image:
    """Return RGB or, where something is transparent, RGBa; CMYK stays where its profile is needed."""
    if image.mode == "CMYK" and keeps_cmyk:
        return image
    shown = in_colours(image)
    return shown.convert("RGBa") if shown.mode == "RGBA" else shown


def in_colours(image: Image.Image) -> Image.Image:
    """Return RGB or, where something is transparent, RGBA."""
    if image.mode.startswith("I"):
        levels = np.asarray(image).astype(np.float64)
        grey = _eight_bits(levels)
        clear = image.info.get("transparency")
        if not isinstance(clear, int):
            return grey.convert("RGB")
        grey.putalpha(Image.fromarray(np.where(levels == clear, 0, 255).astype(np.uint8)))
        return grey.convert("RGBA")
    if image.has_transparency_data:
        upper = image if image.mode == "RGBA" else image.convert("RGBA")
        is_opaque = upper.getchannel("A").getextrema() == (_OPAQUE, _OPAQUE)
        return upper.convert("RGB") if is_opaque else upper
    return image.convert("RGB")


def heed_depth(image: Image.Image, data: bytes) -> Image.Image:
    """Let a PNG's transparent level or colour count in 8 bits, as its pixels do once they are decoded.

    Args:
        image: Opened, not loaded.
        data: Its file.

    Source:
        PNG specification, third edition, section 11.3.1.1: levels are in the depth of the image, higher bits are void.
    """
    clear, depth = image.info.get("transparency"), data[_DEPTH_AT : _DEPTH_AT + 1]
    if image.format != "PNG" or not depth or not 1 < depth[0] <= _DEPTH_BITS:
        return image
    most = (1 << depth[0]) - 1
    if image.mode == "L" and isinstance(clear, int):
        image.info["transparency"] = (clear & most) * _OPAQUE // most
    elif image.mode == "RGB" and isinstance(clear, tuple):
        image.info["transparency"] = tuple(level & most for level in clear)
    return image


def _eight_bits(levels: npt.NDArray[np.float64]) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(levels / _DEPTH_LEVELS), 0, 255).astype(np.uint8))


def sketch(image: Image.Image, box: tuple[float, float, float, float] | None = None, cells: int = CELLS) -> Sketch:
    """Shrink what `readable` returned to cells, each the mean of its pixels.

    Args:
        image: RGB, RGBa or CMYK.
        box: The part of it that is the image.
        cells: Rows and columns.
    """
    small = image.resize((cells, cells), Image.Resampling.BOX, box, reducing_gap=2.0)
    if small.mode == "RGBa":
        return np.array(small)
    return np.array(small.convert("RGB").convert("RGBA"))


def fingerprint(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Shrink what `readable` returned to numbers by which frames are told apart.

    Beside the cells of a sketch, finer ones at half their weight: patterns that a sketch takes for one grey; and the
    mean of the squares in each cell, for lines so fine that the finer cells are one grey as well.

    Args:
        image: RGB or RGBa.
    """
    fine = sketch(image, cells=2 * CELLS)
    wide = fine.astype(np.uint16)
    coarse = (wide[::2, ::2] + wide[1::2, ::2] + wide[::2, 1::2] + wide[1::2, 1::2] + 2 >> 2).astype(np.uint8)
    squares = sketch(image.point(_SQUARES * len(image.getbands())))
    return np.concatenate([coarse.ravel(), (fine >> 1).ravel(), squares.ravel()])


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
