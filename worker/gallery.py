"""A directory of pictures, looked at as the worker looks at uploads: what the policy author's commands judge.

In: a directory, settings, an encoder. Out: by content id, views and embeddings, or why a picture cannot be judged.
Never more than one batch in memory.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from worker.app import open_decoder
from worker.cores import usable_cores
from worker.encoder.clip import ClipEncoder
from worker.encoder.memo import rounded
from worker.errors import ImageTooLarge, JobError, SourceRefused, UsageError
from worker.intake.square import View
from worker.policy.compiled import Matrix
from worker.settings import Settings


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture that was looked at."""

    content_id: str
    #: RGB squares of the encoder's size, as the worker's.
    views: tuple[View, ...]
    #: `(views, dim)`, rounded as the worker's are.
    embeddings: Matrix
    sha256: str


@dataclass(frozen=True, slots=True)
class Unseen:
    """One picture that cannot be judged."""

    content_id: str
    why: JobError


class Gallery:
    """The pictures of a directory.

    A picture's content id is its path inside the directory, with or without the file's ending.

    Args:
        directory: Looked through with all directories in it; hidden files are left out.

    Raises:
        UsageError: It is no directory, or holds no files.
    """

    def __init__(self, directory: Path) -> None:
        if not directory.is_dir():
            raise UsageError(f"{directory} is no directory; name the one that holds the pictures")
        self.directory = directory
        self._files: dict[str, Path] = {}
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        for file in sorted(directory.rglob("*")):
            inside = file.relative_to(directory)
            if file.is_file() and not any(part.startswith(".") for part in inside.parts):
                self._files[inside.as_posix()] = file
                self._by_stem[inside.with_suffix("").as_posix()].append(inside.as_posix())
        if not self._files:
            raise UsageError(f"{directory} holds no files; name the directory that holds the pictures")

    def __len__(self) -> int:
        return len(self._files)

    def names(self) -> list[str]:
        """Return all content ids, endings included, in order."""
        return list(self._files)

    def find(self, content_id: str) -> Path | None:
        """Return the file of a content id; None where there is none.

        Raises:
            UsageError: Several files answer to it.
        """
        if content_id in self._files:
            return self._files[content_id]
        found = self._by_stem.get(content_id, [])
        if len(found) > 1:
            raise UsageError(f"{content_id!r} may be {' or '.join(found)} in {self.directory}; give the file's ending")
        return self._files[found[0]] if found else None

    def look(self, content_ids: Sequence[str], encoder: ClipEncoder, settings: Settings) -> Iterator[Picture | Unseen]:
        """Look at pictures, a batch at a time.

        Args:
            content_ids: Which; one that has no file is `Unseen`.
            encoder: Embeds them.
            settings: What is refused, which views are made, and how many pictures make a batch.

        Yields:
            One for each, in order.
        """
        decoder = open_decoder(settings, encoder, settings.threads or usable_cores())
        try:
            for start in range(0, len(content_ids), settings.batch_size):
                batch = content_ids[start : start + settings.batch_size]
                files = [self.read(name, settings.image_max_bytes) for name in batch]
                seen = iter(decoder([data for data in files if isinstance(data, bytes)]))
                decoded = [next(seen) if isinstance(data, bytes) else data for data in files]
                views = [view for image in decoded if not isinstance(image, JobError) for view in image.views]
                rows = iter(rounded(encoder.embed_images(views))) if views else iter(())
                for name, image in zip(batch, decoded, strict=True):
                    if isinstance(image, JobError):
                        yield Unseen(name, image)
                    else:
                        embeddings = np.stack([next(rows) for _ in image.views])
                        yield Picture(name, image.views, embeddings, image.facts.sha256)
        finally:
            decoder.close()

    def read(self, content_id: str, max_bytes: int) -> bytes | JobError:
        """Return the bytes of a picture's file, or why it cannot be judged."""
        file = self.find(content_id)
        if file is None:
            return SourceRefused(f"no file for {content_id!r} in {self.directory}")
        try:
            with file.open("rb") as source:
                data = source.read(max_bytes + 1)
        except OSError as error:
            return SourceRefused(f"{file}: {error.strerror}")
        return data if len(data) <= max_bytes else ImageTooLarge(f"{file} has more than {max_bytes} bytes")
