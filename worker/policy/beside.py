"""Exemplars in the files beside a policy's versions: read, and never anything outside of that directory.

In: a directory and `FILE.npz#NAME`. Out: the exemplar, or why there is none. A file whose name says what it holds, and
that holds something else, is refused: versions that name it are out and must mean what they meant.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from worker.policy.exemplars import REF_PATTERN, Exemplar

if TYPE_CHECKING:
    from worker.policy.stored import StoredEmbeddings

#: Larger files are refused, in bytes.
MAX_FILE_BYTES = 16 * 1024 * 1024
#: A file that is written once and for ever: named by the SHA-256 of its bytes.
_NAMED_BY_CONTENT = re.compile(r"exemplar-([0-9a-f]{16})\.npz")
_DIGITS = 16


def file_name(content: bytes) -> str:
    """Return what a file of exemplars with this content is called."""
    return f"exemplar-{hashlib.sha256(content).hexdigest()[:_DIGITS]}.npz"


class Beside:
    """Finds exemplars in the files of one directory; each file is read once.

    Args:
        directory: Of a policy's versions.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: dict[str, StoredEmbeddings] = {}

    def __call__(self, ref: str) -> Exemplar:
        """Return the exemplar of `FILE.npz#NAME`.

        Raises:
            ValueError: There is none; says why, and what to do.
        """
        file, _, name = ref.partition("#")
        if not re.fullmatch(REF_PATTERN, ref):
            where = "; the file must lie in the directory of the policy" if "/" in file or "\\" in file else ""
            raise ValueError(f"{ref[:100]!r} is not FILE.npz#NAME{where}")
        if file not in self._files:
            self._files[file] = self._read(file)
        found = self._files[file]
        if name not in found.images:
            raise ValueError(f"{file} holds no {name!r}; it holds {_listed(list(found.images))}")
        return Exemplar.of(ref, found.model, found.images[name])

    def _read(self, file: str) -> StoredEmbeddings:
        # Most policies name no exemplars, and need not wait for numpy.
        from worker.policy.stored import EmbeddingsUnusable, parse_embeddings  # noqa: PLC0415

        content = self._bytes(file)
        match = _NAMED_BY_CONTENT.fullmatch(file)
        if match and file_name(content) != file:
            raise ValueError(f"{file} is not what it was when it was written; restore it, it is never edited")
        try:
            return parse_embeddings(io.BytesIO(content), file, MAX_FILE_BYTES)
        except EmbeddingsUnusable as error:
            raise ValueError(str(error)) from error

    def _bytes(self, file: str) -> bytes:
        path = self._directory / file
        try:
            if path.is_symlink():
                raise ValueError(f"{file} is a symbolic link; put the file itself beside the policy")
            # Neither a link nor a pipe that took its place meanwhile is followed, or waited for.
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as source:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise ValueError(f"{file} is not a regular file; put the file itself beside the policy")
                content = source.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError as error:
            raise ValueError(f"there is no {file} beside this file; copy it there") from error
        except OSError as error:
            raise ValueError(f"{file} cannot be read ({error.strerror}); make it a readable file") from error
        if len(content) > MAX_FILE_BYTES:
            raise ValueError(f"{file} is larger than {MAX_FILE_BYTES} bytes; split it")
        return content


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:3])
    return shown if len(names) <= len(names[:3]) else f"{shown} and {len(names) - 3} more"
