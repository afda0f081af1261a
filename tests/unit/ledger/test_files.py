"""Parquet files: what is written is read, without what is to be forgotten, and what is no such file is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ledgers import DIM, NEW_YEAR, OTHER, day, entry, names, unit_rows

from worker.errors import Missing, UsageError
from worker.ledger.batch import ACTIONS
from worker.ledger.files import SCHEMA, LedgerUnusable, read_batches, summary, without, write_entries
from worker.ledger.shelf import DirectoryShelf, LedgerUnreachable, StoredFile, open_shelf


def test_a_file_is_read_as_it_was_written() -> None:
    entries = [entry(name, day(1), views=place % 3 + 1) for place, name in enumerate(names(50))]
    (batch,) = read_batches(write_entries(entries), "it")
    assert batch.model == entries[0].model
    assert list(batch.content_ids) == [one.content_id for one in entries]
    assert list(batch.verdict_ids) == [one.verdict_id.encode() for one in entries]
    assert list(batch.image_sha256s) == [one.image_sha256.encode() for one in entries]
    assert list(np.diff(batch.starts)) == [one.views for one in entries]
    assert batch.embeddings.tobytes() == b"".join(one.embeddings for one in entries)
    assert {ACTIONS[code] for code in batch.actions} == {"review"}
    assert batch.policy_refs == ("house@3",)
    assert set(batch.times) == {np.datetime64(day(1).replace(tzinfo=None), "ms")}


def test_row_groups_are_bounded_by_views_and_not_by_entries() -> None:
    entries = [entry(f"many-{place}", views=1000) for place in range(20)] + [entry(name) for name in names(9000)]
    batches = list(read_batches(write_entries(entries), "it"))
    assert [len(batch) for batch in batches] == [8, 8, 4 + 4192, 4808]
    assert sum(len(batch) for batch in batches) == len(entries)


def test_models_and_policies_in_one_file_are_told_apart() -> None:
    versions = [entry("a").policy_version, 7]
    mixed = [
        entry("a"), entry("b", model=OTHER, dim=4), entry("c", action="allow"),
        entry("d", policy=entry_policy("other", 7)), entry("e", model=OTHER, dim=4, policy=entry_policy("house", 7)),
    ]  # fmt: skip
    found = {}
    for batch in read_batches(write_entries(mixed), "it"):
        for place, name in enumerate(batch.content_ids):
            row = batch.embeddings[batch.starts[place]]
            assert np.array_equal(row, unit_rows(name, 1, len(row))[0].astype(np.float16))
            found[name] = (batch.model.id, batch.policy_refs[batch.policies[place]], ACTIONS[batch.actions[place]])
    assert versions == [3, 7]
    assert found == {
        "a": ("openai/clip", "house@3", "review"), "b": ("other", "house@3", "review"),
        "c": ("openai/clip", "house@3", "allow"), "d": ("openai/clip", "other@7", "review"),
        "e": ("other", "house@7", "review"),
    }  # fmt: skip


def entry_policy(policy: str, version: int) -> Any:
    from worker.records import PolicyStamp

    return PolicyStamp(id=policy, version=version, digest="d")


def test_row_groups_outside_the_time_that_is_asked_for_are_not_read() -> None:
    entries = [entry(f"{number}-{place}", day(number), views=4096) for number in range(3) for place in range(2)]
    content = write_entries(entries)

    def days(**when: Any) -> list[str]:
        return [name for batch in read_batches(content, "it", **when) for name in batch.content_ids]

    assert days(since=day(1)) == ["1-0", "1-1", "2-0", "2-1"]
    assert days(until=day(1)) == ["0-0", "0-1"]
    assert days(since=day(1), until=day(2)) == ["1-0", "1-1"]


def test_content_ids_are_taken_out_and_the_rest_stays_as_it_was() -> None:
    entries = [entry(name, views=2) for name in names(30)]
    whole = write_entries(entries)
    gone = ["upload-3", "upload-17", "unknown"]
    content, taken = without(whole, "it", gone)
    assert sorted(taken) == ["upload-17", "upload-3"]
    assert content is not None
    assert content == write_entries([one for one in entries if one.content_id not in gone])
    assert without(content, "it", gone) == (None, [])
    assert without(whole, "it", names(30)) == (None, names(30))


def test_a_summary_counts_models_without_reading_embeddings() -> None:
    content = write_entries([entry("a", day(2)), entry("b", day(1)), entry("c", model=OTHER, dim=4)])
    found = {model: (entries, oldest, newest) for model, entries, oldest, newest in summary(content, "it")}
    assert found == {"openai/clip@abc": (2, day(1), day(2)), "other@1": (1, NEW_YEAR, NEW_YEAR)}


def _broken_files() -> dict[str, bytes]:
    whole = write_entries([entry(name) for name in names(20)])
    table = pq.read_table(pa.BufferReader(whole))

    def written(changed: pa.Table) -> bytes:
        target = pa.BufferOutputStream()
        pq.write_table(changed, target)
        return target.getvalue().to_pybytes()

    def changed(name: str, values: list[Any]) -> bytes:
        place = table.schema.get_field_index(name)
        kind = table.schema.field(name).with_nullable(True)
        return written(table.set_column(place, kind, pa.array(values, kind.type)))

    return {
        "empty": b"", "text": b"not parquet" * 10, "cut": whole[:-20], "footer alone": whole[-400:],
        "stranger": written(pa.table({"a": [1]})),
        "newer": written(table.replace_schema_metadata({"sluice_ledger": "2"})),
        "lacks a column": written(table.drop_columns(["embeddings"])),
        "other size": changed("dim", [DIM + 1] * 20), "short id": changed("verdict_id", ["x"] * 20),
        "no value": changed("content_id", [None] * 20), "unknown action": changed("action", ["ban"] * 20),
    }  # fmt: skip


@pytest.mark.parametrize("kind", list(_broken_files()))
def test_what_is_no_file_of_the_ledger_is_an_error_that_names_it(kind: str, tmp_path: Path) -> None:
    content = _broken_files()[kind]
    (tmp_path / "it").write_bytes(content)
    for source in (content, tmp_path / "it"):
        with pytest.raises(LedgerUnusable, match=r"^the file .* move it away$"):
            list(read_batches(source, "the file"))


def test_the_columns_of_a_file_are_those_of_the_document() -> None:
    document = (Path(__file__).parents[3] / "docs" / "ledger.md").read_text()
    rows = [line.split("|")[1:3] for line in document.splitlines() if line.startswith("| `")]
    columns = {name.strip().strip("`"): kind.strip() for name, kind in rows}
    assert columns == {field.name: str(field.type).replace("[ms, tz=UTC]", "") for field in SCHEMA}


# -- shelves ---------------------------------------------------------------------------------------------------------


def test_a_directory_holds_files_by_day_and_replaces_those_of_one_name(tmp_path: Path) -> None:
    shelf = DirectoryShelf(tmp_path / "ledger")
    assert shelf.files() == []
    for number, content in ((2, b"two"), (1, b"one"), (1, b"once more")):
        shelf.write(day(number).strftime("%Y-%m-%d"), "a.parquet", content)
    assert shelf.files() == [StoredFile("2026-01-02", "a.parquet", 9), StoredFile("2026-01-03", "a.parquet", 3)]
    path = shelf.read(shelf.files()[0])
    assert isinstance(path, Path)
    assert path.read_bytes() == b"once more"
    shelf.remove(shelf.files()[0])
    shelf.remove(StoredFile("2026-01-02", "a.parquet"))
    assert [file.day for file in shelf.files()] == ["2026-01-03"]
    shelf.clean()
    assert sorted(path.name for path in (tmp_path / "ledger").iterdir()) == ["day=2026-01-03"]


def test_what_is_half_written_or_a_strangers_is_no_file_and_what_is_stale_goes(tmp_path: Path) -> None:
    import os

    shelf = DirectoryShelf(tmp_path)
    shelf.write("2026-01-01", "a.parquet", b"x")
    for name in (".writing-1-1-b.parquet", ".writing-2-2-c.parquet", "_SUCCESS", "notes.txt", ".hidden.parquet"):
        (tmp_path / "day=2026-01-01" / name).write_bytes(b"y")
    (tmp_path / "day=today").mkdir()
    (tmp_path / "day=today" / "a.parquet").write_bytes(b"z")
    os.utime(tmp_path / "day=2026-01-01" / ".writing-1-1-b.parquet", (0, 0))
    shelf.clean()
    assert [file.name for file in shelf.files()] == ["a.parquet"]
    left = {path.name for path in (tmp_path / "day=2026-01-01").iterdir()}
    assert left == {".writing-2-2-c.parquet", "_SUCCESS", "notes.txt", ".hidden.parquet", "a.parquet"}


def test_a_directory_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerUnreachable, match=r"file: .*name a directory that can be used"):
        DirectoryShelf(tmp_path / "file").write("2026-01-01", "a.parquet", b"")


@pytest.mark.parametrize(
    "place", ["http://x/y", "s3://", "s3:///key", "s3://private/x", "s3://uploads?x=1", "gs://uploads/x"]
)
def test_a_place_that_is_no_directory_and_no_listed_bucket_is_refused(place: str) -> None:
    with pytest.raises(UsageError, match=r"neither a directory|SLUICE_S3_BUCKETS"):
        open_shelf(place, ("uploads",), None)


def test_without_the_extra_files_cannot_be_read_and_the_line_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from worker.ledger.reader import LedgerReader

    monkeypatch.delitem(sys.modules, "worker.ledger.files")
    monkeypatch.delattr("worker.ledger.files", raising=False)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(Missing, match=r"sluicegate\[report\]"):
        list(LedgerReader(None, DirectoryShelf(Path("/nowhere"))).batches())
