"""What an entry is: written as fields, read back to the last bit, and nothing else is taken for one."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import ledgers
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledgers import DIM, MODEL, NEW_YEAR, OTHER, entry, fields, make_verdict, unit_rows

from worker.ledger.batch import ACTIONS, batches_of, sound
from worker.ledger.entry import LedgerEntry, fields_of, read_entry
from worker.sinks.ledger import LedgerStream


def as_redis_gives(flat: list[Any]) -> dict[bytes, bytes]:
    parts = [part if isinstance(part, bytes) else str(part).encode() for part in flat]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_an_entry_is_read_as_it_was_written() -> None:
    when = datetime(2026, 2, 3, 4, 5, 6, 789_000, tzinfo=UTC)
    found = read_entry(as_redis_gives(fields("upload ä", when, views=3)))
    assert found is not None
    assert found == LedgerEntry(
        verdict_id=make_verdict("upload ä").verdict_id, content_id="upload ä", action="review", policy="house",
        policy_version=3, model=MODEL, image_sha256=make_verdict("upload ä").image.sha256, created_at=when,  # type: ignore[union-attr]
        views=3, dim=DIM, embeddings=unit_rows("upload ä", 3).astype("<f2").tobytes(),
    )  # fmt: skip
    assert (found.policy_ref, found.day) == ("house@3", "2026-02-03")


def test_all_entries_have_the_same_names_in_the_same_order_so_that_redis_keeps_them_once() -> None:
    names = ["schema_version", "content_id", "about", "embeddings"]
    assert fields("a")[::2] == fields("b", views=9, dim=4, model=OTHER)[::2] == names


@pytest.mark.parametrize(
    "verdict",
    [
        make_verdict("a", image=None, reason="image_undecodable"),
        make_verdict("a", policy=make_verdict("a").policy.model_copy(update={"version": None})),
    ],
    ids=["no image", "no policy"],
)
def test_what_was_not_looked_at_or_not_judged_has_no_entry(verdict: Any) -> None:
    assert fields_of(verdict, b"xx") == []
    assert LedgerStream(10).commands(verdict, b"xx") == []


def test_a_ledger_that_is_off_or_has_no_embeddings_writes_nothing() -> None:
    assert LedgerStream(0).is_off
    assert LedgerStream(0).commands(make_verdict("a"), b"\0" * 16) == []
    assert LedgerStream(10).commands(make_verdict("a"), b"") == []
    assert len(LedgerStream(10).commands(make_verdict("a"), b"\0" * 16)) == 1


BROKEN = {
    "schema_version": [b"", b"0", b"2", b"one"], "content_id": [b"", b"\xff", b"x" * 513],
    "about": [b"", b"{}", b"[]", b"null", b'{"a":', b"\xff", b"[" * 4000, b" " * 5000, b'"text"', b"1e999"],
    "embeddings": [b"", b"\0" * 15, b"\0" * 17, b"\0" * 1024],
}  # fmt: skip
#: What `about` may say and no worker says.
UNTRUE: dict[str, list[Any]] = {
    "verdict_id": ["", "x" * 32, "A" * 32, "0" * 31, 7, None], "action": ["", "ban", "Allow", None, ["allow"], {}],
    "policy": ["", "../x", "x" * 65, 1], "policy_version": [0, -1, 1.0, 10**30, "3", True, None],
    "model": ["", "x" * 600, "\ud800", 1, None, ["x"]], "revision": ["", None], "precision": ["", None, {}],
    "image_sha256": ["", "0" * 63, "G" * 64, None],
    "created_at": ["", "now", "2026-01-01T00:00:00", "0001-01-01T00:00:00+23:00", "9999-12-31T23:59:59-23:00", 7],
    "views": [0, 2, -1, 99_999, 1e3, "1", None, True], "dim": [0, 7, 9, 99_999_999, "8", None],
}  # fmt: skip


def about(name: str = "a") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(as_redis_gives(fields(name))[b"about"])
    return found


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in UNTRUE.items() for value in values])
def test_an_entry_that_says_what_no_worker_says_is_none(name: str, value: Any) -> None:
    assert about().keys() == UNTRUE.keys()
    if (name, value) == ("views", True):
        assert about()["views"] == 1
    said = json.dumps(about() | {name: value}).encode()
    assert read_entry(as_redis_gives(fields("a")) | {b"about": said}) is None


@pytest.mark.parametrize("name", UNTRUE)
def test_an_entry_that_lacks_a_word_is_none_and_one_that_says_more_is_read(name: str) -> None:
    less = json.dumps({key: value for key, value in about().items() if key != name}).encode()
    assert read_entry(as_redis_gives(fields("a")) | {b"about": less}) is None
    more = json.dumps(about() | {"later": "word"}).encode()
    assert read_entry(as_redis_gives(fields("a")) | {b"about": more}) == entry("a")


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BROKEN.items() for value in values])
def test_an_entry_with_a_broken_field_is_none(name: str, value: bytes) -> None:
    assert read_entry(as_redis_gives(fields("a")) | {name.encode(): value}) is None


@pytest.mark.parametrize("name", BROKEN)
def test_an_entry_that_lacks_a_field_is_none_and_one_with_more_is_read(name: str) -> None:
    whole = as_redis_gives(fields("a"))
    assert read_entry({key: value for key, value in whole.items() if key != name.encode()}) is None
    assert read_entry(whole | {b"later": b"field"}) == entry("a")


@given(st.dictionaries(st.binary(max_size=20), st.binary(max_size=40), max_size=16))
def test_bytes_of_any_kind_are_no_entry_and_no_error(garbage: dict[bytes, bytes]) -> None:
    assert read_entry(garbage) is None


@given(st.sampled_from(sorted(BROKEN)), st.binary(max_size=64))
def test_bytes_of_any_kind_in_a_field_are_an_entry_or_none_and_no_error(name: str, value: bytes) -> None:
    found = read_entry(as_redis_gives(fields("a")) | {name.encode(): value})
    if found is not None:
        (batch,) = batches_of([found])
        assert len(batch) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.0, 7.0])
def test_rows_that_are_not_of_length_one_are_told(value: float) -> None:
    rows = unit_rows("a", 3).astype("<f2")
    rows[2, 5] = value
    rows[2] = rows[2] if value else 0
    broken = as_redis_gives(fields("a", views=3)) | {b"embeddings": rows.tobytes()}
    found = read_entry(broken)
    assert found is not None
    (batch,) = batches_of([entry("b", views=2), found, entry("c")])
    assert list(sound(batch)) == [True, False, True]


# -- arrays ----------------------------------------------------------------------------------------------------------


def test_entries_become_arrays_with_a_row_for_each_view() -> None:
    (batch,) = batches_of([entry("a", views=2), entry("b", day(3), action="block"), entry("c", views=3)])
    assert (batch.model, len(batch), list(batch.starts)) == (MODEL, 3, [0, 2, 3, 6])
    assert list(batch.entry_of_row) == [0, 0, 1, 2, 2, 2]
    assert batch.embeddings.dtype == np.float16
    assert np.array_equal(batch.embeddings[3:], unit_rows("c", 3).astype(np.float16))
    assert list(batch.content_ids) == batch.content_ids[:] == ["a", "b", "c"]
    assert [ACTIONS[code] for code in batch.actions] == ["review", "block", "review"]
    assert list(batch.verdict_ids) == [make_verdict(name).verdict_id.encode() for name in "abc"]
    assert batch.times[1] == np.datetime64(day(3).replace(tzinfo=None), "ms")
    assert [batch.policy_refs[place] for place in batch.policies] == ["house@3"] * 3
    highest = np.maximum.reduceat(np.arange(6), batch.starts[:-1])
    assert list(highest) == [1, 2, 5]


def day(number: int) -> datetime:
    return NEW_YEAR + timedelta(days=number)


def test_entries_of_several_models_and_sizes_are_parted() -> None:
    mixed = [entry("a"), entry("b", model=OTHER, dim=4), entry("c"), entry("d", dim=16), entry("e", model=OTHER, dim=4)]
    found = {(batch.model.id, batch.embeddings.shape): list(batch.content_ids) for batch in batches_of(mixed)}
    assert found == {
        ("openai/clip", (2, 8)): ["a", "c"],
        ("openai/clip", (1, 16)): ["d"],
        ("other", (2, 4)): ["b", "e"],
    }


def test_a_mask_takes_entries_with_all_their_rows() -> None:
    names = ledgers.names(20)
    (batch,) = batches_of([entry(name, views=place % 4 + 1) for place, name in enumerate(names)])
    mask = np.array([place % 3 == 0 for place in range(20)])
    some = batch.where(mask)
    assert list(some.content_ids) == names[::3]
    for place, name in enumerate(some.content_ids):
        rows = some.embeddings[some.starts[place] : some.starts[place + 1]]
        assert np.array_equal(rows, unit_rows(name, len(rows)).astype(np.float16))
    assert batch.where(np.ones(20, np.bool_)) is batch
    assert len(batch.where(np.zeros(20, np.bool_))) == 0
