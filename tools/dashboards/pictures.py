"""Takes pictures of the preview for the documentation: `python -m tools.dashboards.pictures --prometheus URL`.

In: what the preview takes, and Chromium on PATH. Out: docs/images/dashboard-*.webp, which a person looks at.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from tools.dashboards import preview, read

IMAGES = Path(__file__).parents[2] / "docs" / "images"
_WIDTH = 1600
#: Pixels of a row of the grid with its gap, and of what stands above the grid.
_ROW, _ABOVE = 38, 116


def photograph(page: Path, height: int, picture: Path) -> None:
    """Open a page in Chromium and keep what is seen.

    Args:
        page: HTML.
        height: Of the window, in pixels.
        picture: Where the WebP goes.

    Raises:
        CalledProcessError: Chromium failed.
    """
    browser = shutil.which("chromium") or shutil.which("google-chrome") or sys.exit("needs chromium on PATH")
    with tempfile.TemporaryDirectory() as directory:
        shot = Path(directory) / "shot.png"
        flags = ["--headless=new", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={directory}/profile"]
        # The sandbox of Chromium refuses root; the page is our own.
        flags += ["--no-sandbox"] if os.geteuid() == 0 else []
        size = [f"--window-size={_WIDTH},{height}", "--virtual-time-budget=8000", f"--screenshot={shot}"]
        command = [browser, *flags, *size, page.resolve().as_uri()]
        subprocess.run(command, check=True, timeout=120, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with Image.open(shot) as seen:
            seen.convert("RGB").save(picture, quality=80, method=6)


def main() -> None:
    """Take a picture of each dashboard."""
    parser = preview.arguments()
    parser.add_argument("--directory", type=Path, default=IMAGES)
    chosen = parser.parse_args()
    asking = preview.asking_of(chosen)
    chosen.directory.mkdir(parents=True, exist_ok=True)
    for path in read.paths():
        dashboard = read.load(path)
        chosen.output.parent.mkdir(parents=True, exist_ok=True)
        chosen.output.write_text(preview.page([dashboard], asking))
        rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel, _ in preview.repeated(dashboard, asking))
        photograph(chosen.output, _ABOVE + _ROW * rows, chosen.directory / f"dashboard-{path.stem}.webp")


if __name__ == "__main__":
    main()
