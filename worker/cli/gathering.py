"""Where a policy's numbers come from: pictures of a directory, or what workers remembered, as pooled logits.

In: options, settings, an encoder. Out: `Pools`, with a bar on stderr meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from worker.cli.progress import track
from worker.errors import Missing, UsageError

if TYPE_CHECKING:
    import redis

    from worker.encoder.clip import ClipEncoder
    from worker.gallery import Gallery, Unseen
    from worker.ledger.shelf import Shelf
    from worker.policy.compiled import CompiledPolicy
    from worker.settings import Settings
    from worker.workbench.calibration.pools import Pools

    #: The stream in Redis and an archive, where they are wanted.
    Sources = tuple[redis.Redis | None, Shelf | None]

#: Settings of commands that look at pictures of a directory.
LOOKING = (
    "policies", "model", "model_revision", "device", "precision", "batch_size", "threads", "views", "image_max_bytes",
    "image_max_pixels", "image_max_views", "image_max_frames", "image_formats",
)  # fmt: skip


def policies_directory(settings: Settings) -> Path:
    """Return where an author's policies are, which is never a registry.

    Raises:
        UsageError: The settings say a registry.
    """
    if settings.policies == "redis":
        raise UsageError(
            "SLUICE_POLICIES is redis, and this command writes files; name their directory with --policies"
        )
    return Path(settings.policies)


def load(settings: Settings) -> ClipEncoder:
    """Load the settings' model."""
    from worker.encoder.clip import load_encoder

    return load_encoder(
        settings.model, settings.model_revision, settings.device, settings.precision, settings.batch_size
    )


def look(
    gallery: Gallery, encoder: ClipEncoder, settings: Settings, compiled: CompiledPolicy
) -> tuple[Pools, list[Unseen]]:
    """Look at all pictures of a directory.

    Returns:
        Those that can be judged, under their names with endings; and those that cannot.

    Raises:
        UsageError: None can.
    """
    import numpy as np

    from worker.gallery import Unseen
    from worker.workbench.calibration.pools import Gathering

    gathering = Gathering(compiled)
    unseen = []
    seen = gallery.look(gallery.names(), encoder, settings)
    for picture in track(seen, len(gallery), f"looking with {encoder.id}"):
        if isinstance(picture, Unseen):
            unseen.append(picture)
        else:
            gathering.add([picture.content_id], picture.embeddings, np.array([len(picture.views)]))
    if not len(gathering):
        raise UsageError(
            f"none of the {len(unseen)} files in {gallery.directory} can be judged ({unseen[0].content_id}: "
            f"{unseen[0].why}); name the directory that holds the pictures"
        )
    return gathering.pools(), unseen


def remember(sources: Sources, encoder: ClipEncoder, compiled: CompiledPolicy) -> Pools:
    """Read the ledger: the stream in Redis, an archive, or both.

    Raises:
        Missing: It holds nothing that the model made, or cannot be read.
    """
    import numpy as np

    from worker.encoder.memo import rounded
    from worker.ledger.reader import LedgerReader, Wanted
    from worker.workbench.calibration.pools import Gathering

    gathering = Gathering(compiled)
    batches = LedgerReader(*sources, Wanted(model=encoder.name)).batches()
    for batch in track(batches, None, "reading the ledger"):
        gathering.add(list(batch.content_ids), rounded(batch.embeddings), np.diff(batch.starts), batch.times)
    if not len(gathering):
        raise Missing(
            f"the ledger holds nothing that {encoder.name} embedded; `sluice ledger show` names its models, "
            "--model takes one"
        )
    return gathering.pools()


def thumbnails(gallery: Gallery, names: Sequence[str], encoder: ClipEncoder, settings: Settings) -> dict[str, str]:
    """Draw some pictures small; `data:` URIs by name."""
    from worker.gallery import Picture
    from worker.intake.thumbnail import data_uri

    seen = gallery.look(list(names), encoder, settings)
    return {picture.content_id: data_uri(picture.views[0]) for picture in seen if isinstance(picture, Picture)}
