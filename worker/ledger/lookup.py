"""One upload in the ledger: its newest embeddings under a model.

In: a reader and a content id. Out: the newest entry, or of which models there are any. Never another upload's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from worker.ledger.batch import Halves, LedgerBatch
from worker.ledger.reader import LedgerReader
from worker.records import ModelStamp


@dataclass(frozen=True, slots=True)
class Found:
    """What the ledger knows of an upload."""

    #: Of the newest verdict.
    model: ModelStamp
    #: `(views, dim)`, as the ledger keeps them.
    embeddings: Halves
    time: np.datetime64


def look_up(reader: LedgerReader, content_id: str) -> dict[str, Found]:
    """Return the newest entry of an upload for each model.

    Args:
        reader: Of the ledger.
        content_id: The platform's id of the upload.

    Returns:
        By `id@revision`; nothing where the ledger does not know the upload.

    Raises:
        Missing: The extra `report` is not installed, or a place cannot be read.
        LedgerUnusable: A file is none of the ledger's.
        redis.RedisError: Redis does not answer.
    """
    newest: dict[str, Found] = {}
    for batch in reader.batches():
        for place, name in enumerate(batch.content_ids):
            if name == content_id:
                found = _entry(batch, place)
                model = f"{found.model.id}@{found.model.revision}"
                if model not in newest or newest[model].time < found.time:
                    newest[model] = found
    return newest


def _entry(batch: LedgerBatch, place: int) -> Found:
    rows = batch.embeddings[batch.starts[place] : batch.starts[place + 1]]
    return Found(batch.model, rows, batch.times[place])
