"""The author's desk with the packaged model: its own tokenizer, its own text tower, and the drawings of the demo."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from worker.cli import main
from worker.encoder.clip import ClipEncoder, load_encoder
from worker.policy.files import check_files, valid_policy
from worker.policy.findings import Finding
from worker.policy.lint import lint_policy
from worker.policy.scaffold import first_version
from worker.policy.stored import read_embeddings
from worker.policy.wording import Page, warn_of_wording
from worker.workbench.advise import COPY_WITHIN, NEARER_BY, advise, typical_distance

POLICIES = Path(__file__).parents[2] / "policies"
DRAWINGS = Path(__file__).parents[2] / "worker" / "cli" / "demo_images"


@pytest.fixture(scope="module")
def encoder() -> ClipEncoder:
    return load_encoder("builtin", None, "cpu", "fp32", 32)


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """Copy the demo policy, its tests and the drawings that they name."""
    shutil.copytree(POLICIES / "demo", tmp_path / "policies" / "demo")
    shutil.copytree(DRAWINGS, tmp_path / "worker" / "cli" / "demo_images")
    return tmp_path / "policies" / "demo"


def warnings(text: str, encoder: ClipEncoder, *, allowed: bool = True) -> list[Finding]:
    policy, findings = lint_policy(text, "v1.yaml")
    assert policy is not None, findings
    page = Page.of("v1.yaml", text)
    found = [*warn_of_wording(policy, page), *advise(policy, page, encoder)]
    return page.less_allowed(found) if allowed else found


def demo(*edits: tuple[str, str]) -> str:
    text = (POLICIES / "demo" / "v1.yaml").read_text()
    for old, new in edits:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


# -- what the model says ---------------------------------------------------------------------------------------------


def test_the_demo_policy_is_clean_and_allows_three_warnings_by_name(encoder: ClipEncoder) -> None:
    assert [str(finding) for finding in warnings(demo(), encoder)] == []
    codes = [finding.code for finding in warnings(demo(), encoder, allowed=False)]
    assert sorted(codes) == ["near-look-alike", "negation", "negation"]


def test_a_policy_from_the_scaffold_has_no_warnings(encoder: ClipEncoder) -> None:
    assert [str(finding) for finding in warnings(first_version("house", "policies"), encoder)] == []


def test_the_tokenizer_says_where_the_model_stops_reading(encoder: ClipEncoder) -> None:
    long = "a gun on a table " * 8 + "beside a cat"
    (reading,) = encoder.read([long])

    assert reading.tokens > encoder.max_tokens == 32
    kept, whole, other = encoder.embed_texts([long[: reading.characters], long, long.replace("a cat", "an elephant")])
    assert np.allclose(whole, other), "what is cut changes nothing"
    assert np.allclose(kept, whole, atol=1e-5), "what is kept is all that counts"
    assert encoder.read(["a gun"])[0].characters == len("a gun")


def test_each_kind_of_trouble_is_found_at_its_sentence(encoder: ClipEncoder) -> None:
    text = demo(
        ("      - a pistol\n", "      - a pistol\n      - " + "a pistol on a table " * 8 + "\n"),
        ("      - a casino\n", "      - a house where people live\n      - a gambling casino\n"),
        ("      - a skull\n", "      - a skull\n      - a human skull\n"),
        ("      - a rude hand\n", "      - a hand without rings\n"),
    )
    found = {(finding.code, finding.key.split(".")[1]) for finding in warnings(text, encoder)}
    assert found >= {
        ("cut", "weapons"),
        ("near-contrast", "gambling"),
        ("near-copy", "death"),
        ("negation", "obscene_gestures"),
    }


def test_the_limits_part_rewordings_from_siblings_and_strangers_from_prompts(encoder: ClipEncoder) -> None:
    # How the limits were chosen; a new packaged checkpoint may ask for new ones.
    rewordings = [
        ("a gun", "a photo of a gun"), ("a glass of beer", "a beer in a glass"), ("a bottle of wine", "wine bottle"),
        ("a person smoking", "a smoking person"), ("a dead person", "dead people"), ("a rifle", "a big rifle"),
        ("a skull", "a human skull"), ("playing cards", "a deck of playing cards"), ("a gun", "one gun"),
    ]  # fmt: skip
    siblings = [("a bomb", "an explosive"), ("a gun", "a pistol"), ("a sword", "a dagger"), ("a gun", "guns"),
                ("the middle finger", "an obscene gesture"), ("a glass of beer", "a glass of wine")]  # fmt: skip
    typical = typical_distance(("{}",), encoder)

    def distance(pair: tuple[str, str]) -> float:
        one, other = encoder.embed_texts(pair)
        return (1 - float(one @ other)) / typical

    assert max(map(distance, rewordings)) < COPY_WITHIN < min(map(distance, siblings))
    assert 0 < NEARER_BY < 1


def test_the_shipped_demo_policy_passes_strict(capsys: pytest.CaptureFixture[str]) -> None:
    said = run(capsys, "policy", "lint", POLICIES / "demo", "--model", "builtin", "--strict")
    assert said == (0, "2 files checked, 0 errors\n", "")


# -- tests.yaml ------------------------------------------------------------------------------------------------------


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_demo_policy_passes_its_tests(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "policy", "test", POLICIES / "demo", "--model", "builtin")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1].endswith("43 hold, 0 failed")


def test_recording_makes_the_embeddings_that_are_shipped(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shipped = read_embeddings(house / "tests.npz")
    (house / "tests.npz").unlink()

    assert run(capsys, "policy", "test", house, "--model", "builtin", "--record")[0] == 0

    again = read_embeddings(house / "tests.npz")
    assert (again.model, set(again.images)) == (shipped.model, set(shipped.images))
    for name, rows in shipped.images.items():
        # Another CPU may differ in the last bits.
        assert np.allclose(again.images[name], rows, atol=1e-4), name


def test_recorded_cases_need_no_pictures_and_recording_does(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = house.parents[1] / "worker" / "cli" / "demo_images"
    elsewhere = house.parents[1] / "evidence"
    pictures.rename(elsewhere)
    assert run(capsys, "policy", "test", house, "--model", "builtin")[0] == 0

    code, _, err = run(capsys, "policy", "test", house, "--model", "builtin", "--record")
    assert code == 2
    assert "case 'revolver'" in err
    assert "--images" in err

    cases = house / "tests.yaml"
    cases.write_text(cases.read_text().replace("../../worker/cli/demo_images/", ""))
    assert run(capsys, "policy", "test", house, "--model", "builtin", "--record", "--images", elsewhere)[0] == 0


def test_embeddings_of_another_model_are_refused_with_the_mend(
    tiny_clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "policy", "test", POLICIES / "demo", "--model", tiny_clip)
    assert (code, out) == (1, "")
    assert "was recorded with builtin@" in err
    assert "record it again" in err
    assert err.count("\n") == 1


def test_a_failed_expectation_ends_with_one(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (house / "tests.yaml").write_text(
        "cases:\n"
        f"  - {{name: cat, image: {DRAWINGS / 'cat-face-noto.png'}, action: block}}\n"
        f"  - {{name: gun, image: {DRAWINGS / 'revolver-noto.png'}, expect: {{weapons: block, death: allow}}}}\n"
        f"  - {{name: text, image: {__file__}, action: review}}\n"
    )
    code, out, _ = run(capsys, "policy", "test", house, "--model", "builtin")
    assert code == 1
    assert out.count("FAILED") == 2
    assert "4 expectations under builtin@852698c8a431: 2 hold, 2 failed" in out
    _, out, _ = run(capsys, "policy", "test", house, "--model", "builtin", "--json")
    assert '"reason": "image_undecodable"' in out.splitlines()[-1]


@pytest.fixture
def _policies_here(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(house.parents[1])


@pytest.mark.usefixtures("_policies_here")
def test_the_newest_version_is_tried_and_the_named_one_if_one_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "policy", "new", "demo")[0] == 0
    Path("policies/demo/v2.yaml").write_text(
        Path("policies/demo/v2.yaml").read_text().replace("review: 0.69, block: 0.95", "review: 0.69, block: 0.999")
    )
    code, out, _ = run(capsys, "policy", "test", "policies", "--model", "builtin", "--json")
    failed = [line for line in out.splitlines() if '"passed": false' in line]
    assert code == 1
    assert failed
    assert all('"policy": "demo@2"' in line for line in failed)
    assert run(capsys, "policy", "test", "policies/demo/v1.yaml", "--model", "builtin")[0] == 0


# -- thresholds against what was seen --------------------------------------------------------------------------------


def test_thresholds_are_held_against_images_or_verdicts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ("policy", "lint", POLICIES / "demo" / "v1.yaml", "--model", "builtin")
    code, out, err = run(capsys, *base, "--embeddings", POLICIES / "demo" / "tests.npz")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "1 file checked, 0 errors"

    cat = tmp_path / "cat.jsonl"
    judged = ("--policies", POLICIES, "--policy", "demo", "--model", "builtin", "--json")
    cat.write_text(run(capsys, "score", DRAWINGS / "cat-face-noto.png", *judged)[1])
    base = ("policy", "lint", POLICIES / "demo" / "v1.yaml", "--no-model", "--scores", cat)
    code, out, _ = run(capsys, *base)
    assert code == 0
    assert out.count("[threshold-unreached]") == 16
    assert f"1 verdict of {cat}: score" in out
    assert run(capsys, *base, "--strict")[0] == 1


def test_checked_files_are_counted_with_their_tests_and_tests_are_no_policies() -> None:
    checked = check_files([POLICIES])
    assert checked.files == 4
    assert checked.findings == []
    assert sorted(policy.ref for policy, _ in checked.policies) == ["default@1", "demo@1"]
    assert check_files([POLICIES / "demo" / "tests.yaml"]).files == 1
    assert valid_policy(POLICIES / "demo" / "v1.yaml").ref == "demo@1"
