"""A stranger's picture → an upright RGB copy of bounded size, for whoever wants to change it.

In: what a decoder process said of the file under `COPY_SPEC`. Out: pixels. Never the file itself: this process decodes
none, for a small file may ask for all memory, or for the decoder's next hole.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from worker.intake.decode import DecodedImage
from worker.intake.square import View, ViewSpec

#: Pixels of a copy's longer side at most: three times what CLIP sees of a picture.
SIDE = 640
#: What becomes of a copy has at most so many pixels and bytes: one is put into a plain picture of twice its sides.
MAX_COPY_PIXELS = (2 * SIDE) ** 2
MAX_COPY_BYTES = 4 * MAX_COPY_PIXELS
#: What the copy is, as a page says it.
WORDS = f"copied flat, at most {SIDE} pixels a side"
#: Makes a decoder process answer with one square that holds all of the first frame, squashed, on white.
COPY_SPEC = ViewSpec(SIDE, SIDE, Image.Resampling.BICUBIC.value, mode="whole", max_views=1, max_frames=1)


def copy_of(image: DecodedImage) -> View:
    """Return the picture in its own shape: no larger than it was, and `SIDE` a side at most.

    Args:
        image: Decoded under `COPY_SPEC`.

    Returns:
        `(height, width, 3)` uint8.
    """
    long = max(image.facts.width, image.facts.height)
    share = min(1.0, SIDE / long)
    size = (max(1, round(image.facts.width * share)), max(1, round(image.facts.height * share)))
    return np.asarray(Image.fromarray(image.views[0]).resize(size, Image.Resampling.BICUBIC))
