"""What is played with: drawings that look like something, policies for them, and files that do harm."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import support
import yaml
from PIL import Image

_SHIPPED = Path(__file__).parents[2]
#: File name → bytes of the drawings that `sluice demo` judges.
DRAWINGS = {
    path.name: path.read_bytes() for path in sorted((_SHIPPED / "worker" / "cli" / "demo_images").glob("*.png"))
}
#: The policy of these drawings; calibrated for the packaged checkpoint, as the shipped `demo` is.
CALIBRATED = "demo"
#: Another policy; nobody has calibrated it.
UNCALIBRATED = "house"

#: (review, block) of each category: the drawings have all three actions in each of them.
_THRESHOLDS = {
    "weapons": (0.4, 0.9), "explosives": (0.01, 0.9), "alcohol": (0.3, 0.9), "tobacco": (0.005, 0.9),
    "gambling": (0.15, 0.8), "drugs": (0.4, 0.9), "death": (0.2, 0.9), "obscene_gestures": (0.00005, 0.9),
}  # fmt: skip
#: What the thresholds are raised to the power of: version 2 is stricter, version 3 milder.
_POWERS = {1: 1.0, 2: 1.6, 3: 0.4}

IMAGE_MAX_BYTES = 4 * 1024 * 1024
IMAGE_MAX_PIXELS = 100_000_000
#: Enough for the largest canvas, not for it and its square; less would be taken for the reason of every broken file.
DECODE_MEMORY_BYTES = 640 * 1024 * 1024
#: More than anything takes that is not held up, on a busy machine too.
DECODE_TIMEOUT_SECONDS = 8.0


def write_policies(directory: Path) -> Path:
    """Write three versions of two policies, of which the first are live; the directory."""
    support.write_house_policies(directory)
    shipped = yaml.safe_load((_SHIPPED / "policies" / "demo" / "v1.yaml").read_text())
    (directory / CALIBRATED).mkdir()
    for version, power in _POWERS.items():
        text = yaml.safe_dump(_version(shipped, version, power), sort_keys=False)
        (directory / CALIBRATED / f"v{version}.yaml").write_text(text)
    write_rollout(directory, demo={"live": 1, "shadow": [2, 3]}, house={"live": 1, "shadow": [2]})
    return directory


def _version(shipped: dict[str, Any], version: int, power: float) -> dict[str, Any]:
    categories = {
        name: category
        | {"thresholds": {"review": _THRESHOLDS[name][0] ** power, "block": _THRESHOLDS[name][1] ** power}}
        for name, category in shipped["categories"].items()
    }
    return shipped | {"version": version, "categories": categories}


def write_rollout(directory: Path, **rollouts: dict[str, Any]) -> None:
    """Say which versions are at work."""
    (directory / "rollout.yaml").write_text(yaml.safe_dump(rollouts))


# -- files -----------------------------------------------------------------------------------------------------------


def slow_file() -> bytes:
    """Return a progressive JPEG with as many scans as are let through: long enough to be met at work."""
    data = support.encode(Image.new("RGB", (7_000, 6_500), "teal"), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * (64 - data.count(b"\xff\xda")) + data[-2:]


def huge_file() -> bytes:
    """Return a PNG with nearly as many pixels as are allowed."""
    return support.encode(Image.new("RGB", (9_990, 9_990), "teal"), "PNG", compress_level=1)


def digest(data: bytes) -> str:
    """Return what a blob's key ends with."""
    return hashlib.sha256(data).hexdigest()
