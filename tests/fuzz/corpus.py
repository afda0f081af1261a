"""All hostile uploads, made anew each time and the same in every run.

In: nothing. Out: uploads with names that differ. Never a file from a disk.
"""

from __future__ import annotations

import warnings

from fuzz.gifs import gifs
from fuzz.jpegs import jpegs
from fuzz.parts import VERDICT, Upload
from fuzz.pngs import pngs
from fuzz.strangers import strangers
from fuzz.webps_avifs import webps_and_avifs


def corpus() -> list[Upload]:
    """Make all uploads."""
    with warnings.catch_warnings():
        # Pillow's opinion of what it is asked to write.
        warnings.simplefilter("ignore")
        return [*jpegs(), *pngs(), *gifs(), *webps_and_avifs(), *strangers()]


def seeds(uploads: list[Upload], max_bytes: int = 20_000) -> list[Upload]:
    """Choose the small ones that are images for certain: what a fuzzer begins with."""
    return [upload for upload in uploads if upload.ends == {VERDICT} and len(upload.data) <= max_bytes]
