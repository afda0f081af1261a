"""A view with a map over it → a PNG: red where something speaks for a category, blue where it speaks against it.

In: an RGB square that a decoder process made, and weights. Out: a file's bytes. Never a file of a stranger.
"""

from __future__ import annotations

import base64
import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from worker.intake.square import View

#: Pixels of a side of what is drawn.
SIDE = 432
#: Of what speaks for the category, and against it; told apart by the colour-blind too.
FOR, AGAINST = (214, 39, 40), (31, 84, 214)
#: How much of the view the strongest colour hides.
_OPACITY = 0.65


def overlay_png(view: View, weights: npt.NDArray[np.floating], side: int = SIDE) -> bytes:
    """Draw a map over a view.

    Args:
        view: `(side, side, 3)` uint8.
        weights: `(side, side)` in [-1, 1]: how much each pixel speaks for (above 0) or against (below 0).
        side: Pixels of a side of the PNG.
    """
    size = (side, side)
    drawn = Image.fromarray(view).resize(size, Image.Resampling.LANCZOS).convert("RGB")
    smooth = np.asarray(Image.fromarray(weights.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))
    colours = np.where(smooth[..., None] > 0, np.array(FOR, np.uint8), np.array(AGAINST, np.uint8))
    opacity = np.clip(np.abs(smooth) * _OPACITY, 0, _OPACITY) * 255
    layer = Image.fromarray(np.dstack([colours, np.rint(opacity).astype(np.uint8)]), "RGBA")
    drawn.paste(layer, mask=layer)
    target = io.BytesIO()
    drawn.save(target, "png")
    return target.getvalue()


def png_uri(png: bytes) -> str:
    """Return a PNG in a `data:` URI."""
    return "data:image/png;base64," + base64.b64encode(png).decode()
