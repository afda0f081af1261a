"""Where a checkpoint comes from: `builtin`, a local directory, or the hub; safetensors only.

In: the settings' model id and revision. Out: the loaded parts of a CLIP, and the revision that verdicts quote.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPModel, CLIPProcessor
from transformers.utils import logging as transformers_logging

from worker.errors import ModelUnavailable

#: The name of the packaged checkpoint.
BUILTIN = "builtin"
_BUILTIN_DIRECTORY = Path(__file__).parent / "builtin"
_REVISION_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A CLIP that was loaded, on the CPU, in the dtype asked for."""

    id: str
    revision: str
    model: CLIPModel
    processor: Any


def load_checkpoint(model: str, revision: str | None, dtype: torch.dtype) -> Checkpoint:
    """Load a CLIP checkpoint.

    Args:
        model: `builtin`, a local directory, or a hub id.
        revision: Branch, tag or commit on the hub; None for its main branch.
        dtype: Of the weights.

    Raises:
        ModelUnavailable: It cannot be loaded; the message names what to set.
    """
    directory = _BUILTIN_DIRECTORY if model == BUILTIN else Path(model)
    is_local = directory.is_dir()
    source = str(directory) if is_local else model
    # The bar of a load that takes a second; a download keeps the hub's own.
    transformers_logging.disable_progress_bar()
    with _loading(model):
        loaded = CLIPModel.from_pretrained(
            source, revision=revision or "main", dtype=dtype, use_safetensors=True, local_files_only=is_local
        )
        # The weights are there by now, so the processor must come from the same place: no second wait for the hub.
        processor = CLIPProcessor.from_pretrained(source, revision=revision or "main", local_files_only=is_local)
    return Checkpoint(model, checkpoint_revision(directory) if is_local else _commit(loaded), loaded.eval(), processor)


def checkpoint_revision(directory: Path) -> str:
    """Return what names the weights in a directory: the first 12 digits of the SHA-256 of its safetensors files."""
    digest = hashlib.sha256()
    for file in sorted(directory.glob("*.safetensors")):
        digest.update(hashlib.file_digest(file.open("rb"), "sha256").digest())
    return digest.hexdigest()[:_REVISION_DIGITS]


def _commit(model: CLIPModel) -> str:
    return str(getattr(model.config, "_commit_hash", None) or "main")


@contextmanager
def _loading(model: str) -> Iterator[None]:
    """Map what transformers raises when there is no such checkpoint, or none that it can read."""
    mend = (
        "set SLUICE_MODEL=builtin to try the tool without a download, SLUICE_MODEL to a local directory, "
        "or HF_HOME to a cache that holds it"
    )
    try:
        yield
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelUnavailable(f"cannot load the model {model}: {first} ({mend})") from error
