"""Embeddings are stored with the model that made them, and whatever else is in such a file is refused."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worker.policy.stored import EmbeddingsUnusable, StoredEmbeddings, read_embeddings


def unit(rows: int, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=(rows, 8)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


STORED = StoredEmbeddings("m@r", "fp32", {"a revolver": unit(1), "ein Bär 🐻": unit(3, 1)})


def test_what_is_written_is_read_again_to_the_last_bit(tmp_path: Path) -> None:
    STORED.write(tmp_path / "t.npz")
    again = read_embeddings(tmp_path / "t.npz")

    assert (again.model, again.precision) == ("m@r", "fp32")
    assert set(again.images) == set(STORED.images)
    for name, rows in STORED.images.items():
        assert np.array_equal(again.images[name], rows)


def test_the_same_embeddings_make_the_same_bytes_so_that_git_sees_no_change(tmp_path: Path) -> None:
    STORED.write(tmp_path / "one.npz")
    StoredEmbeddings("m@r", "fp32", dict(reversed(STORED.images.items()))).write(tmp_path / "two.npz")

    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_another_model_is_told_to_record_again() -> None:
    STORED.require("m@r", 8, Path("t.npz"))
    with pytest.raises(EmbeddingsUnusable, match=r"t.npz was recorded with m@r, and the model is m@s; record it again"):
        STORED.require("m@s", 8, Path("t.npz"))


def test_embeddings_of_another_width_are_refused_though_they_say_the_same_model() -> None:
    with pytest.raises(EmbeddingsUnusable, match="embeddings of 512 numbers"):
        STORED.require("m@r", 512, Path("t.npz"))


def arrays(**changed: Any) -> dict[str, Any]:
    right = {
        "model": np.array("m@r"), "precision": np.array("fp32"), "names": np.array(["a", "b"]),
        "views": np.array([1, 2]), "embeddings": unit(3),
    }  # fmt: skip
    return right | changed


@pytest.mark.parametrize(
    "changed",
    [
        {"embeddings": unit(3) * 2},
        {"embeddings": unit(3) * np.float32("nan")},
        {"embeddings": unit(4)},
        {"embeddings": unit(3).astype(np.float64)},
        {"embeddings": unit(3)[0]},
        {"views": np.array([0, 3])},
        {"views": np.array([-1, 4])},
        {"views": np.array([1.0, 2.0])},
        {"views": np.array([3])},
        {"names": np.array([1, 2])},
        {"names": np.array([], "U1"), "views": np.array([], int), "embeddings": unit(0)},
        {"names": np.array(["a", {"b": 1}], object)},
    ],
)
def test_arrays_that_are_no_unit_vectors_by_name_are_refused(changed: dict[str, Any], tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", **arrays())
    assert set(read_embeddings(tmp_path / "t.npz").images) == {"a", "b"}

    np.savez(tmp_path / "t.npz", **arrays(**changed))
    with pytest.raises(EmbeddingsUnusable, match="record it again"):
        read_embeddings(tmp_path / "t.npz")


class _Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a pickle was run",))


def _zipped(name: str, data: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    return packed.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x03\x04",
        b"not a zip",
        pickle.dumps(_Trap()),
        _zipped("model.npy", pickle.dumps(_Trap())),
        _zipped("x", b""),
    ],
    ids=["empty", "torn", "text", "pickle", "pickle inside", "other zip"],
)
def test_what_is_no_such_file_is_refused_and_nothing_in_it_is_run(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "t.npz").write_bytes(data)
    with pytest.raises(EmbeddingsUnusable, match=r"t.npz is no file of embeddings"):
        read_embeddings(tmp_path / "t.npz")


def test_a_file_that_is_small_only_while_it_is_packed_is_not_unpacked(tmp_path: Path) -> None:
    (tmp_path / "t.npz").write_bytes(_zipped("model.npy", bytes(257 * 1024 * 1024)))
    with pytest.raises(EmbeddingsUnusable, match="is larger than"):
        read_embeddings(tmp_path / "t.npz")


def test_a_file_that_is_not_there_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(EmbeddingsUnusable, match="sluice policy test --record"):
        read_embeddings(tmp_path / "t.npz")
