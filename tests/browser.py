"""A report as a browser sees it: headless Chromium."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

_QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--force-device-scale-factor=1",
    "--enable-logging=stderr",
)  # fmt: skip


@dataclass(frozen=True)
class Seen:
    """What became of a page."""

    #: The document after it was laid out.
    dom: str
    #: What the page complained about.
    complaints: list[str]


def open_page(file: Path, scratch: Path, picture: Path | None = None, size: tuple[int, int] = (1200, 2400)) -> Seen:
    """Open a file, and draw it where a picture is wanted; skips where there is no Chromium.

    Args:
        file: The page.
        scratch: An empty directory for the browser.
        picture: A PNG to write.
        size: Of the window, in pixels.
    """
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    command = [chromium, *_QUIET, f"--user-data-dir={scratch}", f"--window-size={size[0]},{size[1]}"]
    if picture is not None:
        subprocess.run(
            [*command, f"--screenshot={picture}", file.as_uri()], check=True, capture_output=True, timeout=90
        )
    done = subprocess.run([*command, "--dump-dom", file.as_uri()], check=True, capture_output=True, timeout=90)
    said = [line for line in done.stderr.decode(errors="replace").splitlines() if re.search(r"CONSOLE|Refused", line)]
    return Seen(done.stdout.decode(), said)
