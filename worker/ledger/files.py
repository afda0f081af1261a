"""The ledger's Parquet files: one row for a verdict.

In: entries. Out: a file's bytes; or a file read back as arrays, a row group at a time. A file that is not one of ours
is an error that names it, never a guess.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from worker.errors import SluiceError
from worker.ledger.batch import LedgerBatch, Texts
from worker.ledger.entry import HALF_BYTES, VERSION, LedgerEntry
from worker.records import ACTION_ORDER, ModelStamp

_VERSION_KEY = b"sluice_ledger"
SCHEMA = pa.schema(
    [
        pa.field(name, kind, nullable=False)
        for name, kind in {
            "verdict_id": pa.string(), "content_id": pa.string(), "action": pa.string(), "policy": pa.string(),
            "policy_version": pa.int32(), "model": pa.string(), "revision": pa.string(), "precision": pa.string(),
            "image_sha256": pa.string(), "created_at": pa.timestamp("ms", "UTC"), "views": pa.int32(),
            "dim": pa.int32(), "embeddings": pa.binary(),
        }.items()
    ],
    metadata={_VERSION_KEY: str(VERSION)},
)  # fmt: skip
#: Columns of few different values.
_REPEATING = ("action", "policy", "model", "revision", "precision")
#: Row groups hold about so many embeddings: what a reader has in memory at once.
_GROUP_ROWS = 8192
#: Zstandard takes 8 % off embeddings and makes reading them four times as slow, so they are stored as they are.
_COMPRESSION = {name: "none" if name == "embeddings" else "zstd" for name in SCHEMA.names}

#: Where a file is, or what is in it.
Source = Path | bytes


class LedgerUnusable(SluiceError):
    """A file is none of the ledger's, or of a newer version."""


def write_entries(entries: Sequence[LedgerEntry]) -> bytes:
    """Return a file that holds some entries.

    Args:
        entries: Of one model, so that a reader need not part them.
    """
    columns: dict[str, list[Any]] = {
        "model": [entry.model.id for entry in entries],
        "revision": [entry.model.revision for entry in entries],
        "precision": [entry.model.precision for entry in entries],
    }
    own = [name for name in SCHEMA.names if name not in columns]
    columns |= {name: [getattr(entry, name) for entry in entries] for name in own}
    return _write(pa.table(columns, schema=SCHEMA))


def without(source: Source, name: str, content_ids: Collection[str]) -> tuple[bytes | None, list[str]]:
    """Take content ids out of a file.

    Args:
        source: The file.
        name: How it is called in an error.
        content_ids: Those that are to be forgotten.

    Returns:
        The file without them (None: nothing is left), and the content id of each row that went; where none did, the
        file is not to be written again.

    Raises:
        LedgerUnusable: It is no file of the ledger.
    """
    with _opened(source, name) as file:
        found = file.read(columns=["content_id"]).column("content_id")
        gone = pc.is_in(found, value_set=pa.array(list(content_ids), pa.string()))
        taken: list[str] = found.filter(gone).to_pylist()
        if not taken:
            return None, []
        left = file.read().filter(pc.invert(gone)).cast(SCHEMA)
    return _write(left) if left.num_rows else None, taken


def summary(source: Source, name: str) -> Iterator[tuple[str, int, datetime, datetime]]:
    """Yield for each model of a file `id@revision`, how many entries it has, and the oldest and the newest.

    Raises:
        LedgerUnusable: It is no file of the ledger.
    """
    with _opened(source, name) as file:
        table = file.read(columns=["model", "revision", "created_at"]).unify_dictionaries()
        moments = [("created_at", "count"), ("created_at", "min"), ("created_at", "max")]
        for row in table.group_by(["model", "revision"]).aggregate(moments).to_pylist():
            model = f"{row['model']}@{row['revision']}"
            yield model, row["created_at_count"], row["created_at_min"], row["created_at_max"]


def read_batches(
    source: Source, name: str, since: datetime | None = None, until: datetime | None = None
) -> Iterator[LedgerBatch]:
    """Yield a file's entries, each row group by itself, each model by itself.

    Args:
        source: The file.
        name: How it is called in an error.
        since: Row groups that are wholly older are not read; some older entries may remain.
        until: The same for those that are wholly newer, or of this very moment.

    Raises:
        LedgerUnusable: It is no file of the ledger.
    """
    with _opened(source, name) as file:
        for group in range(file.num_row_groups):
            if _may_hold(file.metadata.row_group(group), since, until):
                yield from _batches_in(file.read_row_group(group, use_threads=False), name)


@contextmanager
def _opened(source: Source, name: str) -> Iterator[pq.ParquetFile]:
    try:
        where = pa.memory_map(str(source)) if isinstance(source, Path) else pa.BufferReader(source)
        with where, pq.ParquetFile(where, read_dictionary=list(_REPEATING), pre_buffer=False) as file:
            version = (file.schema_arrow.metadata or {}).get(_VERSION_KEY, b"").decode(errors="replace")
            if version != str(VERSION) or not set(SCHEMA.names) <= set(file.schema_arrow.names):
                raise LedgerUnusable(f"{name} is no file of the ledger of version {VERSION}; move it away")
            yield file
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise LedgerUnusable(f"{name} is no file of the ledger ({error}); move it away") from error


def _write(table: pa.Table) -> bytes:
    ends = np.cumsum(table.column("views").to_numpy())
    target = io.BytesIO()
    with pq.ParquetWriter(
        target, SCHEMA, compression=_COMPRESSION, use_dictionary=list(_REPEATING),
        write_statistics=[name for name in SCHEMA.names if name != "embeddings"],
    ) as writer:  # fmt: skip
        start = 0
        while start < len(table):
            before = ends[start - 1] if start else 0
            end = max(start + 1, int(np.searchsorted(ends, before + _GROUP_ROWS, "right")))
            writer.write_table(table.slice(start, end - start), row_group_size=end - start)
            start = end
    return target.getvalue()


def _may_hold(group: Any, since: datetime | None, until: datetime | None) -> bool:
    statistics = group.column(SCHEMA.get_field_index("created_at")).statistics
    if statistics is None or not statistics.has_min_max:
        return True
    return (since is None or statistics.max >= since) and (until is None or statistics.min < until)


def _batches_in(table: pa.Table, name: str) -> Iterator[LedgerBatch]:
    columns = {column: _whole(table.column(column)) for column in SCHEMA.names}
    views, dims = (columns[column].to_numpy().astype(np.int64) for column in ("views", "dim"))
    lengths = np.diff(_buffers(columns["embeddings"])[1])
    if any(column.null_count for column in columns.values()) or (lengths != views * dims * HALF_BYTES).any():
        raise LedgerUnusable(f"{name} holds embeddings of another size than it says; move it away")
    stamps, kinds = _codes(*(columns[column] for column in ("model", "revision", "precision")), pa.array(dims))
    for place, (model, revision, precision, dim) in enumerate(stamps):
        alike = np.flatnonzero(kinds == place) if len(stamps) > 1 else slice(None)
        some = {
            column: values.take(pa.array(alike)) if len(stamps) > 1 else values for column, values in columns.items()
        }
        yield _batch(ModelStamp(id=model, revision=revision, precision=precision), dim, some)


def _batch(model: ModelStamp, dim: int, columns: dict[str, Any]) -> LedgerBatch:
    data, offsets = _buffers(columns["embeddings"])
    rows = np.frombuffer(data, "<f2", (offsets[-1] - offsets[0]) // HALF_BYTES, offsets[0]).reshape(-1, dim)
    refs, policies = _codes(columns["policy"], columns["policy_version"])
    actions, said = _codes(columns["action"])
    return LedgerBatch(
        model,
        rows,
        np.concatenate([[0], np.cumsum(columns["views"].to_numpy(), dtype=np.int64)]),
        _fixed(columns["verdict_id"], 32),
        Texts(*_buffers(columns["content_id"])),
        _fixed(columns["image_sha256"], 64),
        np.array([ACTION_ORDER[action] for (action,) in actions], np.int8)[said],
        policies,
        tuple(f"{policy}@{version}" for policy, version in refs),
        columns["created_at"].cast(pa.timestamp("ms")).to_numpy(),
    )


def _whole(column: Any) -> Any:
    # To combine one chunk copies it.
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _buffers(column: Any) -> tuple[memoryview, npt.NDArray[np.int32]]:
    """Return the bytes of a column of strings, and where each begins; nothing is copied."""
    _, offsets, data = column.buffers()
    return memoryview(data or b""), np.frombuffer(offsets, np.int32, len(column) + 1, column.offset * 4)


def _fixed(column: Any, width: int) -> npt.NDArray[np.bytes_]:
    """Return a column of strings of one width as an array; longer ones are an error, for they are none of ours."""
    data, offsets = _buffers(column)
    if (np.diff(offsets) != width).any():
        raise ValueError(f"an id is not {width} characters long")
    return np.frombuffer(data, f"S{width}", len(column), offsets[0])


def _codes(*columns: Any) -> tuple[list[tuple[Any, ...]], npt.NDArray[np.int64]]:
    """Return the different rows of some columns, and for each row which of them it is."""
    parts: list[tuple[Sequence[Any], npt.NDArray[np.int64]]] = []
    for column in columns:
        encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
        parts.append((encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)))
    combined = np.zeros(len(columns[0]), np.int64)
    for values, indices in parts:
        combined = combined * len(values) + indices
    different, where = np.unique(combined, return_inverse=True)
    return [_row(int(code), [values for values, _ in parts]) for code in different], where


def _row(code: int, values: Iterable[Sequence[Any]]) -> tuple[Any, ...]:
    row: list[Any] = []
    for column in reversed(list(values)):
        code, place = divmod(code, len(column))
        row.insert(0, column[place])
    return tuple(row)
