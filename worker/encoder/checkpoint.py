"""Where a checkpoint comes from: `builtin`, a local directory, or the hub; safetensors only.

In: the settings' model id and revision. Out: the loaded parts of a CLIP, and the revision that verdicts quote.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPModel, CLIPProcessor
from transformers.utils import logging as transformers_logging
from transformers.utils.hub import cached_file

from worker.errors import ModelUnavailable

#: The name of the packaged checkpoint.
BUILTIN = "builtin"
_BUILTIN_DIRECTORY = Path(__file__).parent / "builtin"
_REVISION_DIGITS = 12
_TWO_SENTENCES = ["a photo of a cat", "a photo of a dog"]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A CLIP that was loaded, on the CPU, in fp32."""

    id: str
    revision: str
    model: CLIPModel
    processor: Any


def load_checkpoint(model: str, revision: str | None, *, download: bool = True) -> Checkpoint:
    """Load a CLIP checkpoint.

    Args:
        model: `builtin`, a local directory, or a hub id.
        revision: Branch, tag or commit on the hub; None for its main branch.
        download: Whether the hub is asked for what is not on this machine.

    Raises:
        ModelUnavailable: It cannot be loaded; the message names what to set.
    """
    directory = _BUILTIN_DIRECTORY if model == BUILTIN else Path(model)
    is_local = directory.is_dir()
    stays_here = is_local or not download
    source = str(directory) if is_local else model
    with _loading(model):
        if directory.is_file():
            raise ModelUnavailable("it is a file; name the directory that holds it")
        found: Any = CLIPModel.from_pretrained(
            source,
            revision=revision or "main",
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=stays_here,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
        loaded, report = found
        _check_weights(report)
        # The weights are there by now, so the processor must come from the same place: no second wait for the hub.
        processor = CLIPProcessor.from_pretrained(source, revision=revision or "main", local_files_only=stays_here)
        _check_tokenizer(processor.tokenizer)
        commit = checkpoint_revision(directory) if is_local else _commit(source, revision or "main")
    return Checkpoint(model, commit, loaded.eval(), processor)


def checkpoint_revision(directory: Path) -> str:
    """Return what names the weights in a directory: the first 12 digits of the SHA-256 of its safetensors files."""
    digest = hashlib.sha256()
    for file in sorted(directory.glob("*.safetensors")):
        with file.open("rb") as weights:
            digest.update(hashlib.file_digest(weights, "sha256").digest())
    return digest.hexdigest()[:_REVISION_DIGITS]


def _check_weights(report: dict[str, Any]) -> None:
    """Refuse what transformers would fill with random numbers."""
    absent = sorted([*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])])
    if absent:
        raise ModelUnavailable(f"it is not a whole CLIP: {len(absent)} weights are missing, for example {absent[0]}")


def _check_tokenizer(tokenizer: Any) -> None:
    """Refuse the empty vocabulary that transformers makes up where there is no tokenizer file."""
    first, second = tokenizer(_TWO_SENTENCES)["input_ids"]
    if first == second:
        raise ModelUnavailable("it has no tokenizer: all sentences read the same")


def _commit(model: str, revision: str) -> str:
    """Return the commit that was loaded: the name of its folder in the hub's cache; models no longer know it."""
    file: Any = cached_file(model, "config.json", revision=revision, local_files_only=True)
    return Path(file).parent.name


@contextmanager
def _loading(model: str) -> Iterator[None]:
    """Map whatever transformers, tokenizers and safetensors raise when there is no checkpoint that they can read.

    Their bars and reports are turned off meanwhile, but for the hub's own bar of a download: one line says it all.
    """
    mend = (
        "set SLUICE_MODEL=builtin to try the tool without a download, SLUICE_MODEL to a local directory, "
        "or HF_HOME to a cache that holds it"
    )
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    try:
        yield
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelUnavailable(f"cannot load the model {model}: {first} ({mend})") from error
    finally:
        transformers_logging.set_verbosity(verbosity)
