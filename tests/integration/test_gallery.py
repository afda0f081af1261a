"""A directory of pictures, looked at by real decoder processes and the packaged checkpoint."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from worker import app as sluice
from worker.encoder.clip import ClipEncoder, load_encoder
from worker.errors import UsageError
from worker.gallery import Gallery, Picture, Unseen
from worker.intake.thumbnail import SIDE, data_uri
from worker.pipeline import QueuedJob
from worker.records import ImageRef, ModerationJob
from worker.settings import Settings, load_settings


@pytest.fixture(scope="module")
def encoder() -> ClipEncoder:
    return load_encoder("builtin", None, "cpu", "fp32", 32)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    directory = tmp_path / "pictures"
    (directory / "sub").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, shape in (("a.png", (80, 80, 3)), ("sub/wide.png", (40, 200, 3)), ("twice.png", (64, 64, 3))):
        Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(directory / name)
    Image.new("RGB", (50, 50), "red").save(directory / "twice.jpg")
    (directory / "broken.png").write_bytes(b"no picture")
    (directory / ".hidden").write_bytes(b"")
    return directory


@pytest.fixture
def settings() -> Settings:
    return load_settings({"batch_size": 2, "model": "builtin", "image_max_bytes": 100_000})


def test_every_file_is_found_by_its_path_with_and_without_its_ending(pictures: Path) -> None:
    gallery = Gallery(pictures)
    assert gallery.names() == ["a.png", "broken.png", "sub/wide.png", "twice.jpg", "twice.png"]
    assert gallery.find("sub/wide") == gallery.find("sub/wide.png") == pictures / "sub/wide.png"
    assert gallery.find("nobody") is None
    with pytest.raises(UsageError, match=r"'twice' may be twice\.jpg or twice\.png"):
        gallery.find("twice")


def test_pictures_are_seen_in_order_and_what_cannot_be_judged_says_why(
    pictures: Path, encoder: ClipEncoder, settings: Settings
) -> None:
    (pictures / "large.png").write_bytes(b"x" * 100_001)
    names = ["sub/wide", "broken", "a", "nobody", "large", "a.png"]
    seen = list(Gallery(pictures).look(names, encoder, settings))
    assert [one.content_id for one in seen] == names
    reasons = [one.why.reason if isinstance(one, Unseen) else None for one in seen]
    assert reasons == [None, "image_undecodable", None, "source_refused", "image_too_large", None]
    wide, a, again = seen[0], seen[2], seen[5]
    assert isinstance(wide, Picture)
    assert isinstance(a, Picture)
    assert isinstance(again, Picture)
    assert len(wide.views) == len(wide.embeddings) > 1
    assert (a.embeddings == again.embeddings).all()


def test_a_picture_scores_as_the_worker_scores_it(pictures: Path, encoder: ClipEncoder) -> None:
    own = {"model": "builtin", "policy": "demo", "path_root": "/", "memo_ttl_seconds": 0}
    settings = load_settings(own)
    app = sluice.build(settings, connection=None)
    try:
        jobs = [
            QueuedJob(ModerationJob(image=ImageRef(path=str(pictures / name)), content_id=name))
            for name in ("a.png", "sub/wide.png")
        ]
        judged = app.pipeline.judge(app.pipeline.prepare(jobs))
    finally:
        app.close()
    seen = Gallery(pictures).look(["a", "sub/wide"], encoder, settings)
    for worker, ours in zip(judged.embeddings, seen, strict=True):
        assert worker is not None
        assert isinstance(ours, Picture)
        assert np.abs(worker - ours.embeddings).max() < 1e-6


def test_a_thumbnail_is_a_small_picture_of_the_view(pictures: Path, encoder: ClipEncoder, settings: Settings) -> None:
    (red,) = Gallery(pictures).look(["twice.jpg"], encoder, settings)
    assert isinstance(red, Picture)
    kind, _, data = data_uri(red.views[0]).partition(",")
    assert kind in ("data:image/png;base64", "data:image/jpeg;base64")
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert max(image.size) <= SIDE
    assert np.abs(np.asarray(image.convert("RGB"), int)[10, 10] - (254, 0, 0)).max() < 8


@pytest.mark.parametrize("there", [True, False])
def test_a_directory_without_pictures_is_wrong_usage(tmp_path: Path, there: bool) -> None:
    directory = tmp_path / "empty"
    if there:
        directory.mkdir()
    with pytest.raises(UsageError, match=r"name the (one|directory) that holds the pictures"):
        Gallery(directory)
