"""Embeddings of known images in one `.npz` file, so that the pictures themselves need not be kept.

In: names and embeddings, or such a file, hostile. Out: the same, bound to the model that made them. Never a pickle.
"""

from __future__ import annotations

import io
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from worker.errors import SluiceError
from worker.policy.compiled import Matrix

#: Larger files are refused, in bytes once unpacked: 80,000 views of 768 dimensions.
MAX_BYTES = 256 * 1024 * 1024
#: How far a row may be from unit length: it was float32 when it was written.
_UNIT_TOLERANCE = 1e-3
#: What zipfile and numpy raise of bytes that nobody wrote: packed wrongly, encrypted, with a header of another kind.
_BROKEN = (
    ValueError, KeyError, EOFError, MemoryError, RuntimeError, TypeError, SyntaxError, OverflowError, OSError,
    zipfile.BadZipFile, zlib.error, tokenize.TokenError,
)  # fmt: skip


class EmbeddingsUnusable(SluiceError):
    """A file of embeddings is not there, is none, or belongs to another model."""


@dataclass(frozen=True, slots=True)
class StoredEmbeddings:
    """Embeddings of images by name."""

    #: `id@revision`.
    model: str
    #: fp32, bf16, fp16 or int8.
    precision: str
    #: `(views, dim)` float32 each, unit rows.
    images: Mapping[str, Matrix]

    def to_bytes(self) -> bytes:
        """Return them as a file holds them; the same embeddings make the same bytes."""
        names = sorted(self.images)
        target = io.BytesIO()
        np.savez(
            target,
            model=np.array(self.model),
            precision=np.array(self.precision),
            names=np.array(names),
            views=np.array([len(self.images[name]) for name in names], np.int64),
            embeddings=np.concatenate([self.images[name] for name in names]).astype(np.float32),
        )
        return target.getvalue()

    def write(self, file: Path) -> None:
        """Write them.

        Raises:
            EmbeddingsUnusable: The file cannot be written.
        """
        try:
            file.write_bytes(self.to_bytes())
        except OSError as error:
            raise EmbeddingsUnusable(f"{file}: {error.strerror}; name a file that can be written") from error

    def require(self, model: str, dim: int, file: Path) -> None:
        """Make sure that they were made by a model whose embeddings have `dim` numbers.

        Raises:
            EmbeddingsUnusable: They were made by another.
        """
        if self.model == model and any(rows.shape[1] != dim for rows in self.images.values()):
            raise EmbeddingsUnusable(f"{file} does not hold embeddings of {dim} numbers; record it again")
        if self.model != model:
            raise EmbeddingsUnusable(
                f"{file} was recorded with {self.model}, and the model is {model}; record it again "
                f"(`sluice policy test --record`), or name that model with --model"
            )


def read_embeddings(file: Path) -> StoredEmbeddings:
    """Read a file that `write` wrote.

    Raises:
        EmbeddingsUnusable: It is not there, or no such file.
    """
    try:
        with file.open("rb") as source:
            return parse_embeddings(source, str(file))
    except FileNotFoundError as error:
        raise EmbeddingsUnusable(f"{file} is not there; write it with `sluice policy test --record`") from error
    except OSError as error:
        raise EmbeddingsUnusable(f"{file} cannot be read ({error.strerror}); make it a readable file") from error


def parse_embeddings(source: IO[bytes], name: str, max_bytes: int = MAX_BYTES) -> StoredEmbeddings:
    """Read what `to_bytes` gave.

    Args:
        source: Of the bytes; hostile.
        name: Of the file, for messages.
        max_bytes: Larger ones are refused, in bytes once unpacked.

    Raises:
        EmbeddingsUnusable: They are something else.
    """
    try:
        with zipfile.ZipFile(source) as packed:
            if sum(entry.file_size for entry in packed.infolist()) > max_bytes:
                raise EmbeddingsUnusable(f"{name} is larger than {max_bytes} bytes; split it")
        source.seek(0)
        with np.load(source, allow_pickle=False) as arrays:
            found = {key: arrays[key] for key in ("model", "precision", "names", "views", "embeddings")}
    except _BROKEN as error:
        raise EmbeddingsUnusable(f"{name} is no file of embeddings ({error}); record it again") from error
    names, views, rows = found["names"], found["views"], found["embeddings"]
    if not _is_sound(names, views, rows):
        raise EmbeddingsUnusable(f"{name} does not hold one unit vector for each view; record it again")
    parts = np.split(rows, np.cumsum(views)[:-1])
    images = {str(name): part for name, part in zip(names, parts, strict=True)}
    return StoredEmbeddings(str(found["model"]), str(found["precision"]), images)


def _is_sound(names: np.ndarray, views: np.ndarray, rows: np.ndarray) -> bool:
    shapes = rows.ndim == 2 and names.ndim == views.ndim == 1 and len(names) == len(views) > 0  # noqa: PLR2004
    kinds = rows.dtype == np.float32 and views.dtype.kind == "i" and names.dtype.kind == "U"
    if not (shapes and kinds) or views.min() < 1 or views.sum() != len(rows):
        return False
    is_unit = np.all(np.abs(np.linalg.norm(rows, axis=1) - 1) <= _UNIT_TOLERANCE)
    return bool(is_unit) and len(set(names.tolist())) == len(names)
