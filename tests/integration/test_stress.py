"""Pictures changed and looked at by real decoder processes and the packaged checkpoint, and the page that shows it."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import support
from browser import open_page
from PIL import Image

from worker.changed import Copier, Look
from worker.cli import demo, main
from worker.encoder.clip import ClipEncoder, load_encoder
from worker.errors import JobError
from worker.gallery import Gallery, Picture, Unseen
from worker.intake.changes import CHANGES, TEXT, choose
from worker.policy.compiled import CompiledPolicy, compile_policy
from worker.policy.files import find_policy
from worker.policy.groups import lint_groups
from worker.policy.registry import shipped_directory
from worker.settings import Settings, load_settings
from worker.workbench.report.page import require_writable, write_report
from worker.workbench.stress.drift import COPY, Tally, drifts
from worker.workbench.stress.examples import strongest_examples
from worker.workbench.stress.groups import shifts
from worker.workbench.stress.page import Found, stress_page
from worker.workbench.stress.words import remarks_on_changes, remarks_on_groups, too_few

pytestmark = pytest.mark.thorough

DRAWINGS = Path(demo.__file__).parent / "demo_images"
CAUGHT = ("revolver-noto", "bomb-fluent", "cigarette-twemoji", "skull-fluent", "slot-machine-noto", "syringe-twemoji")
HARMLESS = ("cat-face-noto", "house-twemoji", "car-twemoji")
GROUPS = """\
sentences: ["a photo of a {group} person", "a {group} person at work"]
groups:
  ages: [young, old]
"""


@pytest.fixture(scope="module")
def encoder() -> ClipEncoder:
    return load_encoder("builtin", None, "cpu", "fp32", 32)


@pytest.fixture(scope="module")
def compiled(encoder: ClipEncoder) -> CompiledPolicy:
    policy = find_policy("demo@1", Path(str(shipped_directory())))
    return compile_policy(policy, encoder.embed_texts, encoder.logit_scale, encoder.name)


@pytest.fixture
def settings() -> Settings:
    return load_settings({"model": "builtin", "threads": 1})


def look(
    names: Sequence[str], changes: Sequence[str], encoder: ClipEncoder, settings: Settings, directory: Path = DRAWINGS
) -> list[Look | Unseen]:
    with Copier(Gallery(directory), encoder, settings, TEXT) as copier:
        return list(copier.look(names, choose(changes)))


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Put a broken file, a huge header, an animation and a picture with a hole beside a drawing."""
    directory = tmp_path / "uploads"
    directory.mkdir()
    (directory / "a.png").write_bytes((DRAWINGS / "revolver-noto.png").read_bytes())
    (directory / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n no")
    Image.new("1", (16_000, 16_000)).save(directory / "huge.png")
    frames = [Image.new("RGB", (60, 60), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(directory / "moving.gif", save_all=True, append_images=frames[1:])
    clear = Image.new("RGBA", (80, 80), (0, 0, 0, 0))
    clear.paste((0, 0, 0, 255), (20, 20, 60, 60))
    clear.save(directory / "clear.png")
    return directory


def test_each_picture_is_looked_at_as_a_file_as_a_copy_and_once_for_each_change(
    encoder: ClipEncoder, settings: Settings
) -> None:
    seen = look(["revolver-noto", "cat-face-noto"], ["grey", "flip"], encoder, settings)
    assert [(one.content_id, one.change) for one in seen if isinstance(one, Look)] == [
        (name, change) for name in ("revolver-noto", "cat-face-noto") for change in (None, COPY, "flip", "grey")
    ]
    (picture,) = Gallery(DRAWINGS).look(["revolver-noto"], encoder, settings)
    assert isinstance(picture, Picture)
    assert isinstance(seen[0], Look)
    assert isinstance(seen[1], Look)
    # The file is seen exactly as a worker sees it, the copy of a small picture nearly so.
    assert np.abs(seen[0].embeddings - picture.embeddings).max() < 1e-6
    assert (seen[1].embeddings * picture.embeddings).sum(axis=1).min() > 0.99


def test_the_same_pictures_give_the_same_numbers_however_they_are_batched(
    encoder: ClipEncoder, settings: Settings
) -> None:
    names = ["revolver-noto", "wine-glass-noto", "dagger-twemoji"]
    changes = ["noise", "text-small", "corner"]
    first = look(names, changes, encoder, settings)
    again = look(names[::-1], changes, encoder, settings.model_copy(update={"batch_size": 2}))
    by_name = {(one.content_id, one.change): one.embeddings for one in again if isinstance(one, Look)}
    assert len(by_name) == len(first) == 15
    for one in first:
        assert isinstance(one, Look)
        # Rounding to 16 bits may fall either way where a product was summed in another order.
        assert np.abs(one.embeddings - by_name[one.content_id, one.change]).max() < 1e-3


def test_hostile_pictures_say_why_and_hold_nobody_up(encoder: ClipEncoder, settings: Settings, hostile: Path) -> None:
    names = Gallery(hostile).names()
    assert names == ["a.png", "broken.png", "clear.png", "huge.png", "moving.gif"]
    seen = look([*names, "gone.png"], ["grey"], encoder, settings, hostile)
    reasons = {one.content_id: one.why.reason for one in seen if isinstance(one, Unseen)}
    assert reasons == {
        "broken.png": "image_truncated", "huge.png": "image_too_large", "gone.png": "source_refused"
    }  # fmt: skip
    views = {(one.content_id, one.change): len(one.embeddings) for one in seen if isinstance(one, Look)}
    # Three frames that differ, and a paper of each colour; their copies are flat.
    assert (views["moving.gif", None], views["moving.gif", COPY]) == (3, 1)
    assert views["clear.png", None] > views["clear.png", COPY]


def test_what_is_made_passes_whatever_a_worker_refuses_of_others(encoder: ClipEncoder, tmp_path: Path) -> None:
    noisy = np.random.default_rng(0).integers(0, 256, (640, 640, 3), np.uint8)
    Image.fromarray(noisy).resize((900, 900)).save(tmp_path / "a.jpg", quality=30)
    Image.new("RGB", (50, 50)).save(tmp_path / "b.png")
    strict = load_settings(
        {"model": "builtin", "threads": 1, "image_formats": "JPEG", "image_max_bytes": 200_000,
         "image_max_pixels": 810_000}
    )  # fmt: skip
    seen = look(["a.jpg", "b.png"], ["noise", "corner"], encoder, strict, tmp_path)
    assert [one.change for one in seen if isinstance(one, Look)] == [None, COPY, "noise", "corner"]
    assert [one.why.reason for one in seen if isinstance(one, Unseen)] == ["image_format_refused"]


def test_before_and_after_are_shown_in_their_own_shapes(
    encoder: ClipEncoder, settings: Settings, hostile: Path
) -> None:
    with Copier(Gallery(hostile), encoder, settings, TEXT) as copier:
        (letterbox,) = choose(["letterbox"])
        shown = copier.show("a.png", letterbox)
        assert not isinstance(shown, JobError)
        before, after = shown
        assert (before.shape, after.shape) == ((256, 256, 3), (384, 256, 3))
        assert (after[64:320] == before).all()
        assert isinstance(copier.show("broken.png", letterbox), JobError)


@pytest.fixture(scope="module")
def found(encoder: ClipEncoder, compiled: CompiledPolicy) -> tuple[Found, list[tuple[object, str, str]]]:
    settings = load_settings({"model": "builtin", "threads": 1})
    changes = choose(["jpeg", "grey", "rotate-90", "dark", "text-large"])
    tally = Tally(compiled, [change.name for change in changes])
    with Copier(Gallery(DRAWINGS), encoder, settings, TEXT) as copier:
        for one in copier.look([*CAUGHT, *HARMLESS], changes):
            assert isinstance(one, Look)
            tally.add(one.content_id, one.change, one.embeddings)
    drifted = drifts(tally.looks())
    groups, _ = lint_groups(GROUPS, "g")
    assert groups is not None
    shifted = shifts(compiled, groups, encoder)
    words = {COPY: "copied"} | {change.name: change.words for change in CHANGES}
    said = Found(
        compiled, encoder.name, 9, [("<script>alert(1)</script>.png", "image_undecodable")], drifted, shifted,
        remarks_on_changes(drifted, words), remarks_on_groups(shifted), too_few(drifted), words, groups,
    )  # fmt: skip
    examples = [(one, "", "") for one in strongest_examples(tally.looks(), 5)]
    return said, examples


def test_what_is_measured_of_the_drawings_is_plausible(found: tuple[Found, list[object]]) -> None:
    whole = {one.change: one for one in found[0].drifts if one.category is None}
    assert whole[COPY].flips == 0
    assert whole["jpeg-75"].flips <= 1
    assert {one.could("weaker") for one in whole.values()} == {len(CAUGHT)}
    assert whole["text-large"].moved("weaker") > whole["jpeg-75"].moved("weaker")
    assert any(one.about == "text-large" for one in found[0].on_changes)
    weapons = {one.change: one for one in found[0].drifts if one.category == "weapons"}
    for name, one in weapons.items():
        assert one.caught_margin_shift is not None, name
    jpeg, text = weapons["jpeg-75"].score_drift, weapons["text-large"].score_drift
    assert jpeg is not None
    assert text is not None
    assert jpeg[0] < text[0]


def test_a_page_shows_it_and_a_browser_does_not_complain(
    found: tuple[Found, list[tuple[object, str, str]]], tmp_path: Path
) -> None:
    said, examples = found
    file = tmp_path / "stress.html"
    require_writable(file)
    assert not file.exists()
    write_report(file, stress_page(said, examples))  # type: ignore[arg-type]
    seen = open_page(file, tmp_path / "browser", tmp_path / "stress.png")
    assert seen.complaints == []
    assert "<h1>demo@1 under stress</h1>" in seen.dom
    assert "&lt;script&gt;alert(1)" in seen.dom
    assert "blocked pictures are allowed" in seen.dom
    for name in (*said.compiled.policy.categories, "text-large", "ages", "<svg"):
        assert name in seen.dom, name
    image = Image.open(io.BytesIO((tmp_path / "stress.png").read_bytes()))
    assert len(image.convert("RGB").getcolors(10_000_000) or []) > 500


def test_a_page_of_sentences_alone_has_no_matrix(found: tuple[Found, list[object]]) -> None:
    said = found[0]
    alone = Found(
        said.compiled, said.model, 0, [], [], said.shifts, [], said.on_groups, {}, {COPY: "copied"}, said.groups
    )
    page = stress_page(alone, [])
    assert "Category by change" not in page
    assert "Groups of people" in page


# -- the command, in this process: a subprocess would load torch for each line ---------------------------------------

OWN = ("--model", "builtin", "--policies", str(shipped_directory()), "--threads", "1")


@pytest.fixture
def groups(tmp_path: Path) -> str:
    file = tmp_path / "groups.yaml"
    file.write_text(GROUPS)
    return str(file)


def rows(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def test_where_no_picture_can_be_judged_there_are_only_words(
    tmp_path: Path, groups: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a\x1b[31m.png").write_bytes(b"")
    code = main(["stress", "demo", "--images", str(tmp_path / "p"), "--json", "--groups", groups, *OWN])
    out, err = capsys.readouterr()
    assert code == 1
    assert err == "sluice: a?[31m.png cannot be judged: image_undecodable\n"
    assert {row["kind"] for row in rows(out)} == {"group"}


def test_the_limit_is_spread_over_the_directory(
    tmp_path: Path, groups: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p").mkdir()
    for name in ("bomb-fluent", "cat-face-noto", "house-twemoji", "revolver-noto"):
        shutil.copy(DRAWINGS / f"{name}.png", tmp_path / "p")
    command = ["stress", "demo", "--images", str(tmp_path / "p"), "--limit", "2", "--only", "flip", "--json"]
    assert main([*command, "--groups", groups, *OWN]) == 0
    whole = rows(capsys.readouterr().out)[0]
    # The first and the third: a bomb, a house.
    assert (whole["pictures"], whole["weaker_of"]) == (2, 1)


def test_a_table_a_page_and_plain_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    (tmp_path / "p").mkdir()
    for name in ("bomb-fluent", "cat-face-noto"):
        shutil.copy(DRAWINGS / f"{name}.png", tmp_path / "p")
    command = ["stress", "demo", "--images", str(tmp_path / "p"), "--only", "text", "--text", "a photo of a kitten"]
    assert main([*command, "--report", str(tmp_path / "r.html"), *OWN]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert re.search(r"text-large +│ +\d/2 │ +\d/1 │ +\d/1", out)
    assert "What is fragile: groups" in out
    assert "Too few pictures are caught to say what slips through of: weapons (0), explosives (1)" in out
    assert "demo@1 under stress" in (tmp_path / "r.html").read_text()


def test_without_pictures_sentences_are_measured_under_any_policy(
    tmp_path: Path, tiny_clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    support.write_house_policies(tmp_path / "policies")
    own = ["--model", str(tiny_clip), "--policies", str(tmp_path / "policies")]
    assert main(["stress", "house@2", "--json", *own]) == 0
    out, err = capsys.readouterr()
    assert err.startswith("sluice: house@2 has no calibration for ")
    assert {row["kind"] for row in rows(out)} == {"group"}
    assert {row["category"] for row in rows(out)} == {"weapons", "drugs"}


@pytest.mark.parametrize(
    ("flags", "code", "says"),
    [
        (("nope@1",), 3, "no policy nope@1"),
        (("demo", "--images", "nowhere"), 2, "nowhere is no directory"),
        (("demo", "--images", "."), 2, "holds no files"),
        (("demo", "--only", "grey"), 2, "--only is about pictures; say where they are with --images"),
        (("demo", "--images", "full", "--only", "gray"), 2, "no change 'gray'; did you mean grey?"),
        (("demo", "--images", "full", "--limit", "0"), 2, "--limit 0"),
        (("demo", "--images", "full", "--text", ""), 2, "has 1 to 100 characters"),
        (("demo", "--groups", "nowhere.yaml"), 2, "nowhere.yaml: No such file"),
        (("demo", "--report", "no/r.html"), 2, "no/r.html: No such file or directory; name a file"),
        (("demo", "--report", "."), 2, "Is a directory"),
        (("demo", "--policies", "redis"), 2, "SLUICE_POLICIES is redis"),
        (("demo", "--model", "/no/model"), 3, "cannot load the model /no/model"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_wrong_is_said_in_one_line(
    flags: tuple[str, ...], code: int, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    if "full" in flags:
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "a.png").write_bytes(b"")
    assert main(["stress", *OWN, *flags]) == code
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("sluice: ")
    assert says in line
    assert not list(tmp_path.rglob("*.html"))
