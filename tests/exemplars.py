"""Embeddings made up, and policies with exemplars of them, for several tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from worker.policy.beside import file_name
from worker.policy.stored import StoredEmbeddings

MODEL = "m@r"

PAGE = """\
policy: house
version: {version}
contrast: [food, people]
categories:
  weapons:
    prompts: [gun, rifle]
    thresholds: {{review: 0.5, block: 0.9}}
{exemplars}"""


def unit(seed: int, rows: int = 1, dim: int = 8) -> np.ndarray:
    """Make unit rows up: `(rows, dim)` float32, the same for the same seed."""
    drawn = np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def put(directory: Path, images: Mapping[str, np.ndarray], model: str = MODEL, name: str | None = None) -> str:
    """Write a file of embeddings; its name."""
    directory.mkdir(parents=True, exist_ok=True)
    content = StoredEmbeddings(model, "fp32", images).to_bytes()
    name = name or file_name(content)
    (directory / name).write_bytes(content)
    return name


def page(*lines: str, version: int = 1) -> str:
    """Return a policy whose weapons have these lines under `exemplars`."""
    block = "".join(f"      {line}\n" for line in lines)
    return PAGE.format(version=version, exemplars=f"    exemplars:\n{block}" if lines else "")


def write(directory: Path, *lines: str, version: int = 1) -> Path:
    """Write such a policy into `directory/house`; its file."""
    file = directory / "house" / f"v{version}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(page(*lines, version=version))
    return file
