"""The packaged model under the demo policy: a drawing keeps its action wherever it hides.

At least nine of ten places each; what misses is in the message of a failure.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import redis
from PIL import Image
from support import encode

from worker import app as sluice
from worker.cli import demo
from worker.pipeline import QueuedJob
from worker.records import ACTION_ORDER, ImageRef, ModerationJob, Verdict
from worker.settings import Settings

pytestmark = pytest.mark.thorough

DRAWINGS = Path(demo.__file__).parent / "demo_images"
POLICIES = Path(__file__).parents[2] / "policies"
#: What the demo policy blocks or sends to people, and means to.
OFFENDING = (
    "beer-mug-fluent", "bomb-fluent", "cigarette-twemoji", "coffin-noto", "dagger-twemoji", "middle-finger-noto",
    "revolver-noto", "skull-fluent", "slot-machine-noto", "syringe-twemoji", "wine-glass-noto",
)  # fmt: skip
SHARE = 0.9
SIDE = 256


def settings(**own: object) -> Settings:
    return Settings(model="builtin", policies=str(POLICIES), policy="demo", image_max_bytes=2**24, **own)


@pytest.fixture(scope="module")
def app() -> Iterator[sluice.App]:
    """Give the app with the packaged model, `VIEWS` as it comes."""
    app = sluice.build(settings(), None)
    yield app
    app.close()


def drawing(name: str, side: int = SIDE) -> Image.Image:
    with Image.open(DRAWINGS / f"{name}.png") as image:
        return image.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)


def judge(app: sluice.App, files: Iterable[bytes]) -> list[Verdict]:
    jobs = [
        QueuedJob(ModerationJob(image=ImageRef(base64=base64.b64encode(data).decode()), content_id=str(place)))
        for place, data in enumerate(files)
    ]
    verdicts = []
    for start in range(0, len(jobs), 32):
        for outcome in app.judge(jobs[start : start + 32]):
            assert isinstance(outcome, Verdict)
            assert outcome.reason is None
            verdicts.append(outcome)
    return verdicts


def keeps(app: sluice.App, hidden: dict[str, list[bytes]], plain: dict[str, bytes] | None = None) -> None:
    """Assert that nine of ten hidden drawings keep the action of the plain one."""
    shown = plain or {name: encode(drawing(name)) for name in hidden}
    actions = dict(zip(shown, (verdict.action for verdict in judge(app, shown.values())), strict=True))
    asked = [(name, place, data) for name, files in hidden.items() for place, data in enumerate(files)]
    verdicts = judge(app, (data for _, _, data in asked))
    missed = [
        (name, place, f"{verdict.action} instead of {actions[name]}")
        for (name, place, _), verdict in zip(asked, verdicts, strict=True)
        if ACTION_ORDER[verdict.action] < ACTION_ORDER[actions[name]]
    ]
    print(f"{len(asked) - len(missed)} of {len(asked)} kept; missed: {missed}")
    assert len(asked) - len(missed) >= SHARE * len(asked), missed


@pytest.mark.parametrize("turned", [False, True], ids=["3:1", "1:3"])
def test_a_drawing_keeps_its_action_at_25_places_of_a_long_image(app: sluice.App, turned: bool) -> None:
    hidden: dict[str, list[bytes]] = {}
    for name in OFFENDING:
        for place in range(25):
            along = round(place * 2 * SIDE / 24)
            image = Image.new("RGB", (SIDE, 3 * SIDE) if turned else (3 * SIDE, SIDE), "white")
            image.paste(drawing(name), (0, along) if turned else (along, 0))
            hidden.setdefault(name, []).append(encode(image))
    keeps(app, hidden)


def _gif(name: str, place: int) -> bytes:
    side = 128
    frames = [Image.new("RGB", (side, side), (255, 255 - at % 2 * 20, 255)) for at in range(40)]
    frames[place] = drawing(name, side)
    return encode(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=50)


@pytest.mark.parametrize("name", ["bomb-fluent", "cigarette-twemoji", "dagger-twemoji"])
def test_a_drawing_keeps_its_action_in_any_one_frame_of_forty(app: sluice.App, name: str) -> None:
    files = [_gif(name, place) for place in range(40)]
    keeps(app, {name: files})
    for place, verdict in enumerate(judge(app, files[::8])):
        assert verdict.image is not None
        assert verdict.image.frames == 40
        found = max(verdict.categories.values(), key=lambda category: category.score)
        assert verdict.image.view_boxes[found.view].frame == place * 8


@pytest.mark.parametrize("bars", ["above and below", "at the sides"])
@pytest.mark.parametrize("colour", ["black", "white", (40, 70, 200)], ids=str)
def test_a_drawing_keeps_its_action_between_bars(app: sluice.App, colour: str, bars: str) -> None:
    hidden: dict[str, list[bytes]] = {}
    for name in OFFENDING:
        for width in (40, 128, 256):
            size = (SIDE, SIDE + 2 * width) if bars == "above and below" else (SIDE + 2 * width, SIDE)
            image = Image.new("RGB", size, colour)
            image.paste(drawing(name), ((size[0] - SIDE) // 2, (size[1] - SIDE) // 2))
            hidden.setdefault(name, []).append(encode(image))
    keeps(app, hidden)


def _png_of_16_bits(image: Image.Image) -> bytes:
    def chunk(kind: bytes, body: bytes = b"") -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    levels = np.asarray(image).astype(">u2") * 257
    kind = 2 if levels.ndim == 3 else 0
    header = struct.pack(">IIBBBBB", image.width, image.height, 16, kind, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in levels.astype(">u2"))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND")


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_drawing_keeps_its_action_in_16_bits(app: sluice.App, mode: str) -> None:
    pictures = {name: drawing(name).convert(mode) for name in OFFENDING}
    plain = {name: encode(picture) for name, picture in pictures.items()}
    keeps(app, {name: [_png_of_16_bits(picture)] for name, picture in pictures.items()}, plain)


def test_a_drawing_keeps_its_action_where_only_one_paper_shows_it(app: sluice.App) -> None:
    pictures = {name: drawing(name).convert("L") for name in OFFENDING}
    plain = {name: encode(picture) for name, picture in pictures.items()}
    hidden = {}
    for name, picture in pictures.items():
        levels = np.asarray(picture)
        on_black = np.dstack([np.full((*levels.shape, 3), 255, np.uint8), levels])
        on_white = np.dstack([np.zeros((*levels.shape, 3), np.uint8), 255 - levels])
        hidden[name] = [encode(Image.fromarray(on_black)), encode(Image.fromarray(on_white))]
    keeps(app, hidden, plain)


def test_a_drawing_keeps_its_action_where_another_colour_hides_under_transparency(app: sluice.App) -> None:
    hidden = {}
    for name in OFFENDING:
        picture = drawing(name).convert("RGBA")
        is_paper = (np.asarray(picture)[..., :3] > 245).all(axis=-1)
        pixels = np.array(picture)
        pixels[is_paper] = (0, 160, 0, 0)
        hidden[name] = [encode(Image.fromarray(pixels))]
    keeps(app, hidden)


def test_a_verdict_says_which_part_won(app: sluice.App) -> None:
    image = Image.new("RGB", (3 * SIDE, SIDE), "white")
    image.paste(drawing("car-twemoji"), (0, 0))
    image.paste(drawing("bomb-fluent"), (2 * SIDE, 0))
    (verdict,) = judge(app, [encode(image)])
    assert verdict.image is not None
    assert verdict.action == "block"
    assert verdict.image.views == len(verdict.image.view_boxes) == verdict.image.views_wanted
    left, _, right, _ = verdict.image.view_boxes[verdict.categories["explosives"].view].box
    assert left >= SIDE
    assert right == 3 * SIDE


def test_an_image_that_was_seen_in_one_mode_is_looked_at_again_in_another(app: sluice.App, redis_url: str) -> None:
    image = Image.new("RGB", (3 * SIDE, SIDE), "white")
    image.paste(drawing("bomb-fluent"), (0, 0))
    data = encode(image)
    found = {}
    with redis.Redis.from_url(redis_url) as connection:
        for mode in ("single", "whole", "whole", "tiles"):
            other = sluice.build(settings(redis_url=redis_url, views=mode, memo_ttl_seconds=60), connection)
            (verdict,) = judge(other, [data])
            other.close()
            assert verdict.image is not None
            found.setdefault(mode, []).append((verdict.action, verdict.image, verdict.categories))
        assert len(list(connection.scan_iter("sluice:memo:image:*"))) == 3
    assert found["whole"][0] == found["whole"][1]
    assert found["single"][0][1].views == 1
    assert [found[mode][0][0] for mode in ("single", "whole", "tiles")] == ["allow", "block", "block"]
