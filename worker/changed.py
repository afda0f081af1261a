"""Pictures of a gallery, changed: each is copied, changed in many ways, and looked at as the worker looks at uploads.

In: a gallery, changes, an encoder, settings. Out: embeddings of each picture, of its copy and of each changed copy, or
why the picture cannot be judged. Never a stranger's file decoded in this process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

import numpy as np

from worker.app import decode_limits, view_spec
from worker.cores import usable_cores
from worker.encoder.clip import ClipEncoder
from worker.encoder.memo import rounded
from worker.errors import JobError
from worker.gallery import Gallery, Unseen
from worker.intake.cell import Bounds
from worker.intake.changes import Change, as_file, pixels_of
from worker.intake.copies import COPY_SPEC, MAX_COPY_BYTES, MAX_COPY_PIXELS, copy_of
from worker.intake.decode import DecodedImage
from worker.intake.sandbox import Decoded, Decoder
from worker.intake.square import View
from worker.policy.compiled import Matrix
from worker.settings import Settings

#: Formats that copies are written in, whatever a worker takes from others.
_OWN_FORMATS = ("PNG", "JPEG")


@dataclass(frozen=True, slots=True)
class Look:
    """One look at a picture."""

    content_id: str
    #: None: the file itself; `copy`: its copy; else the name of the change.
    change: str | None
    #: `(views, dim)`, rounded as the worker's are.
    embeddings: Matrix


@dataclass(frozen=True, slots=True)
class _Copied:
    """A picture that can be changed."""

    content_id: str
    data: bytes
    sha256: str
    pixels: View


class Copier:
    """Copies pictures, changes the copies, and looks at both; close it, or use it as a context.

    Args:
        gallery: Where the pictures are.
        encoder: Embeds them.
        settings: What is refused of a stranger's file, and which views are made.
        text: What is written over pictures.
    """

    def __init__(self, gallery: Gallery, encoder: ClipEncoder, settings: Settings, text: str) -> None:
        self._gallery, self._encoder, self._settings, self._text = gallery, encoder, settings, text
        limits = decode_limits(settings)
        bounds = Bounds(settings.decode_timeout_seconds, settings.decode_memory_bytes)
        processes = settings.threads or usable_cores()
        # What a worker refuses is refused here; what is made of the rest passes whatever its limits.
        own = replace(
            limits,
            max_bytes=max(limits.max_bytes, MAX_COPY_BYTES),
            max_pixels=max(limits.max_pixels, MAX_COPY_PIXELS),
            formats=tuple(dict.fromkeys((*limits.formats, *_OWN_FORMATS))),
        )
        self._copy = Decoder(limits, COPY_SPEC, bounds, processes)
        self._look = Decoder(own, view_spec(encoder, settings), bounds, processes)
        # Pillow and numpy let other threads run while they work on pixels.
        self._hands = ThreadPoolExecutor(processes, "change")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the decoder processes; what is not begun is not done any more."""
        self._hands.shutdown(cancel_futures=True)
        self._copy.close()
        self._look.close()

    def look(self, content_ids: Sequence[str], changes: Sequence[Change]) -> Iterator[Look | Unseen]:
        """Look at pictures, at each unchanged and changed.

        Args:
            content_ids: Which pictures.
            changes: What is done to each.

        Yields:
            Of each picture, in order: the look at its file, at its copy, and at each change; or why there are none.
        """
        # About two batches of the encoder, whatever the number of changes.
        at_once = max(1, 2 * self._settings.batch_size // (len(changes) + 2))
        for start in range(0, len(content_ids), at_once):
            yield from self._look_at(content_ids[start : start + at_once], changes)

    def show(self, content_id: str, change: Change) -> tuple[View, View] | JobError:
        """Return a picture's copy before and after a change, to be looked at by people.

        Args:
            content_id: The picture.
            change: What is done to it.
        """
        (copied,) = self._copied([content_id])
        if isinstance(copied, Unseen):
            return copied.why
        return copied.pixels, pixels_of(change.apply(copied.pixels, copied.sha256, self._text))

    def _copied(self, content_ids: Sequence[str]) -> list[_Copied | Unseen]:
        files = [self._gallery.read(name, self._settings.image_max_bytes) for name in content_ids]
        seen = iter(self._copy([data for data in files if isinstance(data, bytes)]))
        copied: list[_Copied | Unseen] = []
        for name, data in zip(content_ids, files, strict=True):
            image: Decoded = next(seen) if isinstance(data, bytes) else data
            if isinstance(image, DecodedImage) and isinstance(data, bytes):
                copied.append(_Copied(name, data, image.facts.sha256, copy_of(image)))
            elif isinstance(image, JobError):
                copied.append(Unseen(name, image))
        return copied

    def _look_at(self, content_ids: Sequence[str], changes: Sequence[Change]) -> Iterator[Look | Unseen]:
        copied = self._copied(content_ids)
        decoded = self._look(self._files([one for one in copied if isinstance(one, _Copied)], changes))
        views = [view for image in decoded if isinstance(image, DecodedImage) for view in image.views]
        rows = iter(rounded(self._encoder.embed_images(views)))
        embedded = iter(
            [image if isinstance(image, JobError) else np.stack([next(rows) for _ in image.views]) for image in decoded]
        )
        names = [None, "copy", *(change.name for change in changes)]
        for one in copied:
            if isinstance(one, Unseen):
                yield one
                continue
            looks = [(name, next(embedded)) for name in names]
            refused = [found for _, found in looks if isinstance(found, JobError)]
            if refused:
                yield Unseen(one.content_id, refused[0])
                continue
            for name, found in looks:
                if not isinstance(found, JobError):
                    yield Look(one.content_id, name, found)

    def _files(self, copied: Sequence[_Copied], changes: Sequence[Change]) -> list[bytes]:
        """Return what is looked at of each picture: its file, its copy, and the copy changed."""
        making = [
            [self._hands.submit(change.apply, one.pixels, one.sha256, self._text) for change in changes]
            for one in copied
        ]
        return [
            data
            for one, changed in zip(copied, making, strict=True)
            for data in (one.data, as_file(one.pixels), *(made.result() for made in changed))
        ]
