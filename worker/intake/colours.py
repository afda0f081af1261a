"""Colours as viewers show them: profiles and gammas, and whether they change so much that both are to be looked at.

In: an opened image. Out: a `Turn`. Never a picture that only those see who heed its profile, or only those who do not.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from worker.errors import ImageUndecodable

#: Larger than any that is in use: those of printers, in CMYK, are 3 MB.
MAX_PROFILE_BYTES = 4 << 20
#: Levels of 255 by which a grey changes where what is dark for one viewer may be a picture for another; any colour:
#: the widest gamut in use, ProPhoto, moves none by more than 159.
_STEEP, _STEEP_COLOUR = 48, 176
#: Levels of each channel at which colours are tried.
_TRIED = np.linspace(0, 255, 17).round().astype(np.uint8)
_GREYS = ("1", "L", "LA", "I;16", "I;16B", "I")
#: The colours that a profile is for, as it names them, → the mode in which its pixels are.
_SPACES = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}
#: Exponent of the usual screen, and how far from 1 another one is heeded: libpng's own threshold.
_SCREEN_GAMMA, _SAME_GAMMA = 2.2, 0.05


@dataclass(frozen=True, slots=True)
class Turn:
    """What makes RGB or, with a profile for that, CMYK, sRGB."""

    apply: Callable[[Image.Image], Image.Image]
    #: The mode in which it takes pixels.
    mode: str
    #: Whether it has to be applied before anything is made smaller, and viewers without it show something else.
    is_steep: bool


def turn_of(image: Image.Image) -> Turn | None:
    """Return what turns an image's colours into sRGB; None where nothing is to be turned.

    A profile that cannot be read, or belongs to other channels, is passed over, as in every viewer.

    Args:
        image: Opened, not loaded: what a file says behind its pixels is heeded by nobody else.

    Raises:
        ImageUndecodable: Its profile is too large to be looked at.
    """
    profile = image.info.get("icc_profile")
    if isinstance(profile, bytes) and len(profile) > MAX_PROFILE_BYTES:
        raise ImageUndecodable(f"a colour profile of more than {MAX_PROFILE_BYTES} bytes")
    if isinstance(profile, bytes) and profile:
        mode = image.mode if image.mode == "CMYK" else "L" if image.mode in _GREYS else "RGB"
        return _profiled(profile, mode)
    gamma = image.info.get("gamma")
    if image.format != "PNG" or "srgb" in image.info or not isinstance(gamma, float) or gamma <= 0:
        return None
    return _gamma(1 / (gamma * _SCREEN_GAMMA))


def repainted(image: Image.Image, turn: Turn) -> Image.Image:
    """Turn the colours of RGB or RGBA in its own size."""
    turned = turn.apply(image)
    if image.mode == "RGBA":
        turned.putalpha(image.getchannel("A"))
    return turned


# The same few profiles are in all files of a camera.
@lru_cache(maxsize=16)
def _profiled(profile: bytes, mode: str) -> Turn | None:
    try:
        read = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if _SPACES.get(read.profile.xcolor_space.strip()) != mode:
            return None
        transform: Any = ImageCms.buildTransform(read, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None

    def apply(pixels: Image.Image) -> Image.Image:
        own = pixels if pixels.mode == mode else pixels.convert(mode)
        turned: Image.Image | None = ImageCms.applyTransform(own, transform)
        if turned is None:
            raise ImageUndecodable("a colour profile that turns nothing")
        return turned

    return Turn(apply, mode, mode != "CMYK" and _is_steep(apply))


def _gamma(exponent: float) -> Turn | None:
    if abs(exponent - 1) < _SAME_GAMMA:
        return None
    # As a logarithm: a gamma of 0.00001 has an exponent that no power survives.
    levels = np.arange(256) / 255
    table = [round(255 * float(level)) for level in levels**exponent] * 3

    def apply(pixels: Image.Image) -> Image.Image:
        return pixels.convert("RGB").point(table)

    return Turn(apply, "RGB", _is_steep(apply))


def _is_steep(apply: Callable[[Image.Image], Image.Image]) -> bool:
    greys = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    colours = np.stack(np.meshgrid(_TRIED, _TRIED, _TRIED), axis=-1).reshape(1, -1, 3)
    return _most(apply, greys) > _STEEP or _most(apply, colours) > _STEEP_COLOUR


def _most(apply: Callable[[Image.Image], Image.Image], colours: npt.NDArray[np.uint8]) -> int:
    turned = np.asarray(apply(Image.fromarray(colours))).astype(np.int16)
    return int(np.abs(turned - colours).max())
