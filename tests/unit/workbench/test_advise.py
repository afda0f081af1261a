"""What the text tower says against a policy's sentences, on a tower whose geometry is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from worker.encoder.clip import Reading
from worker.policy.findings import Finding
from worker.policy.lint import lint_policy
from worker.policy.wording import Page, Seen
from worker.workbench.advise import UNRELATED, advise, typical_distance

_WIDTH = 256


class Tower:
    """Gives each sentence an axis of its own, but for those that are set beside another."""

    name = "tower@1"
    max_tokens = 8
    logit_scale = 20.0

    def __init__(self, beside: dict[str, tuple[str, float]] | None = None) -> None:
        #: Sentence → the one that it lies beside, and their cosine.
        self.beside = beside or {}
        self._axes: dict[str, int] = {}

    def _axis(self, sentence: str) -> np.ndarray:
        at = self._axes.setdefault(sentence, len(self._axes))
        return np.eye(_WIDTH, dtype=np.float32)[at]

    def embed_texts(self, sentences: Sequence[str]) -> np.ndarray:
        rows = []
        for sentence in sentences:
            other, cosine = self.beside.get(sentence, (sentence, 1.0))
            rows.append(cosine * self._axis(other) + np.sqrt(1 - cosine**2) * self._axis(sentence + "'"))
        return np.array(rows, np.float32)

    def read(self, sentences: Sequence[str]) -> list[Reading]:
        return [Reading(len(text.split()) + 2, len(" ".join(text.split()[:6]))) for text in sentences]


POLICY = """\
policy: house
version: 1
contrast: [food, people at work]
categories:
  weapons:
    prompts: [gun, rifle, sword]
    look_alikes: [toy]
    thresholds: {review: 0.5, block: 0.9}
  drugs:
    prompts: [pills, powder]
    thresholds: {review: 0.5}
"""
#: Siblings lie halfway between a copy and a stranger.
SIBLINGS = {"rifle": ("gun", 0.5), "sword": ("gun", 0.5), "powder": ("pills", 0.5)}


def advice(tower: Tower, text: str = POLICY, seen: Seen | None = None) -> list[Finding]:
    policy, findings = lint_policy(text, "v")
    assert policy is not None, findings
    return list(advise(policy, Page.of("v", text), tower, seen))


def test_a_policy_whose_sentences_lie_well_has_no_warnings() -> None:
    assert advice(Tower(SIBLINGS)) == []


def test_the_typical_distance_is_that_of_unrelated_things() -> None:
    assert typical_distance(("{}",), Tower()) == pytest.approx(1.0)
    assert len(set(UNRELATED)) == len(UNRELATED) >= 20
    assert typical_distance(("{}",), Tower(dict.fromkeys(UNRELATED, ("a cat", 0.99)))) < 0.05


def test_a_cut_sentence_says_after_which_words() -> None:
    (found,) = advice(Tower(SIBLINGS), POLICY.replace("food,", "one two three four five six seven eight,"))

    assert (found.line, found.column, found.code) == (3, 12, "cut")
    assert found.message == (
        "10 tokens, and tower@1 reads 8: what comes after 'one two three four five six' is ignored; shorten it"
    )


def test_the_longest_template_counts_for_what_is_cut() -> None:
    text = 'templates: ["{}", "a photo of a {}"]\n' + POLICY.replace("food,", "one two three four,")
    found = [item for item in advice(Tower(), text) if item.code == "cut"]

    assert [item.key for item in found] == ["contrast.0", "contrast.1"]
    assert found[0].message.startswith("10 tokens in its longest template, and tower@1 reads 8: ")
    assert "after 'a photo of a one two'" in found[0].message


@pytest.mark.parametrize(
    ("sentence", "other", "key", "says"),
    [
        ("rifle", "gun", "categories.weapons.prompts.1", "'gun' (line 6), so it adds next to nothing"),
        ("pills", "gun", "categories.drugs.prompts.0", "'gun' (line 6) of weapons, so both categories answer alike"),
        ("toy", "gun", "categories.weapons.prompts.0", "'toy' (line 7), which counts against it"),
        ("food", "gun", "categories.weapons.prompts.0", "'food' (line 3), which counts against it"),
    ],
)
def test_a_near_copy_is_found_where_it_counts(sentence: str, other: str, key: str, says: str) -> None:
    found = [item for item in advice(Tower(SIBLINGS | {sentence: (other, 0.96)})) if item.code == "near-copy"]

    assert [item.key for item in found] == [key]
    assert says in found[0].message


def test_a_look_alike_of_one_category_may_be_the_prompt_of_another() -> None:
    found = advice(Tower(SIBLINGS | {"toy": ("pills", 0.96)}))
    assert [item for item in found if item.code == "near-copy"] == []


def test_sentences_are_copies_up_to_a_share_of_the_typical_distance_whatever_the_model() -> None:
    # A tower that holds everything close together: half of the typical distance is no copy there, though it is 0.05.
    close = Tower(dict.fromkeys([*UNRELATED, "gun", "rifle", "sword", "pills", "powder", "food"], ("anything", 0.95)))
    assert [item for item in advice(close) if item.code == "near-copy"] == []


@pytest.mark.parametrize(("other", "code"), [("toy", "near-look-alike"), ("food", "near-contrast")])
def test_a_prompt_nearer_to_what_counts_against_it_than_to_its_siblings_is_named_with_both(
    other: str, code: str
) -> None:
    found = [item for item in advice(Tower(SIBLINGS | {"sword": (other, 0.7)})) if item.code.startswith("near")]

    assert [(item.code, item.key) for item in found] == [(code, "categories.weapons.prompts.2")]
    assert f"{other!r} (0.70)" in found[0].message


def test_a_look_alike_does_its_work_a_little_nearer_than_the_siblings() -> None:
    assert (
        advice(Tower({"rifle": ("gun", 0.5), "sword": ("gun", 0.5), "powder": ("pills", 0.5), "toy": ("gun", 0.6)}))
        == []
    )


def test_a_prompt_that_its_contrast_outweighs_can_never_win() -> None:
    text = POLICY + 'calibration: {"tower@1": {weapons: {bias: 30}, drugs: {}}}\n'
    found = [item for item in advice(Tower(SIBLINGS), text) if item.code == "never-wins"]

    assert [item.key for item in found] == [f"categories.weapons.prompts.{index}" for index in range(3)]
    assert "scores 0.00 and stays below 0.5; most against it counts 'food'" in found[0].message


def test_thresholds_are_held_against_the_prompts_until_images_were_seen() -> None:
    text = POLICY + 'calibration: {"tower@1": {weapons: {bias: 18, temperature: 3}, drugs: {}}}\n'
    (found,) = [item for item in advice(Tower(SIBLINGS), text) if item.code == "threshold-unreached"]
    assert found.key == "categories.weapons.thresholds.block"
    assert found.message.startswith("the category's own prompts, taken for images: score 0.")

    seen = Seen({"weapons": 0.95}, "the 9 images of t.npz")
    assert [item for item in advice(Tower(SIBLINGS), text, seen) if item.code == "threshold-unreached"] == []

    seen = Seen({"drugs": 0.1}, "the 9 images of t.npz")
    both = [item for item in advice(Tower(SIBLINGS), text, seen) if item.code == "threshold-unreached"]
    assert [item.message.split(": score ")[0] for item in both] == [
        "the 9 images of t.npz", "the category's own prompts, taken for images",
    ]  # fmt: skip
