"""A map over a view: red for, blue against, nothing where nothing counts."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from worker.intake.overlay import SIDE, overlay_png, png_uri


def test_red_is_for_blue_is_against_and_the_rest_stays() -> None:
    view = np.full((24, 24, 3), 180, np.uint8)
    weights = np.zeros((24, 24))
    weights[:8, :8], weights[16:, 16:] = 1.0, -1.0
    drawn = np.asarray(Image.open(io.BytesIO(overlay_png(view, weights))), int)
    assert drawn.shape == (SIDE, SIDE, 3)
    red, blue, plain = drawn[40, 40], drawn[-40, -40], drawn[40, -40]
    assert red[0] > red[2] + 80
    assert blue[2] > blue[0] + 80
    assert (plain == 180).all()


def test_it_stands_in_a_page() -> None:
    kind, _, data = png_uri(overlay_png(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8)), side=16)).partition(",")
    assert kind == "data:image/png;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (16, 16)
