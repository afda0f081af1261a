"""Views → small pictures that stand in a page.

In: an RGB square that a decoder process made. Out: a data URI. Never a file of a stranger: what is drawn here was
decoded elsewhere.
"""

from __future__ import annotations

import base64
import io

from PIL import Image

from worker.intake.square import View

#: Pixels of a side of what a report shows.
SIDE = 144


def data_uri(view: View, side: int = SIDE) -> str:
    """Return a view as a PNG or JPEG, whichever is smaller, in a `data:` URI.

    Args:
        view: `(height, width, 3)` uint8.
        side: Pixels of its longer side at most.
    """
    image = Image.fromarray(view)
    image.thumbnail((side, side))
    packed = {}
    for kind in ("png", "jpeg"):
        target = io.BytesIO()
        image.save(target, kind, quality=85)
        packed[kind] = target.getvalue()
    kind, data = min(packed.items(), key=lambda item: len(item[1]))
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
