"""What scores promise to a policy author, whatever the sentences, the images and their order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worker.policy.compiled import CompiledPolicy, Scores, compile_policy
from worker.policy.schema import Policy
from worker.scoring import pool, score

DIM = 16
SCALE = 100.0
#: float32 similarities times 100: logits are good to about 1e-5.
LOGITS = 1e-4
SCORES = 1e-5

#: A busy machine is no failure.
unhurried = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
seeds = st.integers(0, 2**32 - 1)


def unit(rows: Any) -> np.ndarray:
    rows = np.asarray(rows, dtype=np.float64)
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


@dataclass
class World:
    """Sentences and images as directions, and policies made of those sentences."""

    random: np.random.Generator
    vectors: dict[str, np.ndarray] = field(default_factory=dict)

    def sentence(self, name: str, vector: np.ndarray | None = None) -> str:
        self.vectors[name] = unit(self.random.normal(size=DIM)) if vector is None else vector
        return name

    def sentences(self, name: str, count: int) -> list[str]:
        return [self.sentence(f"{name} {number}") for number in range(count)]

    def images(self, count: int) -> np.ndarray:
        """Give images near the sentences, so that scores are not all at an end."""
        known = np.stack(list(self.vectors.values()))
        weights = self.random.dirichlet(np.ones(len(known)), size=count)
        return unit(weights @ known + 0.1 * self.random.normal(size=(count, DIM)))

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        return np.stack([self.vectors[text] for text in texts])

    def compile(
        self,
        contrast: Sequence[str],
        categories: Mapping[str, tuple[Sequence[str], Sequence[str]]],
        calibration: Mapping[str, Mapping[str, Any]] | None = None,
        scale: float = SCALE,
    ) -> CompiledPolicy:
        """Compile categories of (prompts, look-alikes)."""
        policy = Policy.model_validate(
            {
                "policy": "world",
                "version": 1,
                "contrast": list(contrast),
                "categories": {
                    name: {"prompts": list(prompts), "thresholds": {"review": 0.5}}
                    | ({"look_alikes": list(look_alikes)} if look_alikes else {})
                    for name, (prompts, look_alikes) in categories.items()
                },
                "calibration": {"m@r": calibration or {}},
            }
        )
        return compile_policy(policy, self.embed_texts, scale, "m@r")

    def some(self) -> tuple[list[str], dict[str, tuple[list[str], list[str]]]]:
        """Give contrast and categories of changing size."""
        contrast = self.sentences("contrast", int(self.random.integers(1, 6)))
        categories = {
            f"c{number}": (
                self.sentences(f"c{number} prompt", int(self.random.integers(1, 5))),
                self.sentences(f"c{number} look-alike", int(self.random.integers(0, 4))),
            )
            for number in range(int(self.random.integers(1, 5)))
        }
        return contrast, categories


def world(seed: int) -> World:
    return World(np.random.default_rng(seed))


def softmax_mass(world: World, image: np.ndarray, prompts: Sequence[str], others: Sequence[str]) -> float:
    """Compute a grouped softmax in plain Python: the share that falls on `prompts`."""

    def logit(sentence: str) -> float:
        pairs = zip(image.tolist(), world.vectors[sentence].tolist(), strict=True)
        return SCALE * math.fsum(a * b for a, b in pairs)

    highest = max(logit(sentence) for sentence in [*prompts, *others])
    mass = math.fsum(math.exp(logit(sentence) - highest) for sentence in prompts)
    return mass / (mass + math.fsum(math.exp(logit(sentence) - highest) for sentence in others))


@unhurried
@given(seeds)
def test_uncalibrated_scores_are_the_grouped_softmax(seed: int) -> None:
    w = world(seed)
    contrast, categories = w.some()
    images = w.images(3)

    found = score(images, w.compile(contrast, categories))

    expected = [
        [softmax_mass(w, image, prompts, [*contrast, *look_alikes]) for prompts, look_alikes in categories.values()]
        for image in images
    ]
    np.testing.assert_allclose(found.score, expected, atol=SCORES)
    np.testing.assert_allclose(1 / (1 + np.exp(-np.clip(found.margin, -700, 700))), expected, atol=SCORES)


@unhurried
@given(seeds)
def test_a_copy_of_a_prompt_moves_a_margin_by_at_most_log_2(seed: int) -> None:
    w = world(seed)
    contrast, categories = w.some()
    images = w.images(3)
    prompts, look_alikes = categories["c0"]
    before = score(images, w.compile(contrast, categories)).margin

    for index, prompt in enumerate(prompts):
        copy = w.sentence("copy", w.vectors[prompt])
        after = score(images, w.compile(contrast, categories | {"c0": ([*prompts, copy], look_alikes)})).margin
        moved = after - before
        assert np.all(moved[:, 0] >= -LOGITS), index
        assert np.all(moved[:, 0] <= math.log(2) + LOGITS), index
        np.testing.assert_allclose(moved[:, 1:], 0, atol=LOGITS)


@unhurried
@given(seeds, st.floats(10, 60), st.sampled_from(["prompt", "look-alike", "contrast"]))
def test_a_sentence_ten_logits_below_the_best_moves_a_margin_by_less_than_a_thousandth(
    seed: int, below: float, pool: str
) -> None:
    w = world(seed)
    image, best, unrelated = np.eye(3, DIM)
    prompts = [w.sentence("prompt", unit(best + 0.6 * image)), *w.sentences("prompt", 2)]
    contrast = [w.sentence("contrast", unit(best - 0.2 * image + 0.4 * image))]
    look_alikes = [w.sentence("look-alike", unit(unrelated + 0.3 * image))]
    images = image[None].astype(np.float32)

    def highest(sentences: Sequence[str]) -> float:
        return max(float(SCALE * w.vectors[sentence] @ images[0]) for sentence in sentences)

    pools = {"prompt": prompts, "look-alike": [*look_alikes, *contrast], "contrast": [*look_alikes, *contrast]}
    cosine = (highest(pools[pool]) - below) / SCALE
    w.sentence("far", (cosine * image + math.sqrt(1 - cosine**2) * np.eye(1, DIM, 5)[0]).astype(np.float32))
    before = score(images, w.compile(contrast, {"c": (prompts, look_alikes)}))
    grown = {
        "prompt": (contrast, {"c": ([*prompts, "far"], look_alikes)}),
        "look-alike": (contrast, {"c": (prompts, [*look_alikes, "far"])}),
        "contrast": ([*contrast, "far"], {"c": (prompts, look_alikes)}),
    }[pool]
    after = score(images, w.compile(*grown))

    assert abs(after.margin - before.margin).max() < 0.001
    assert abs(after.score - before.score).max() < 0.001


@unhurried
@given(seeds)
def test_more_prompts_never_lower_and_more_contrast_never_raises(seed: int) -> None:
    w = world(seed)
    contrast, categories = w.some()
    prompts, look_alikes = categories["c0"]
    extra = w.sentence("extra")
    images = w.images(4)
    before = score(images, w.compile(contrast, categories))

    with_prompt = score(images, w.compile(contrast, categories | {"c0": ([*prompts, extra], look_alikes)}))
    with_look_alike = score(images, w.compile(contrast, categories | {"c0": (prompts, [*look_alikes, extra])}))
    with_contrast = score(images, w.compile([*contrast, extra], categories))

    assert np.all(with_prompt.margin[:, 0] >= before.margin[:, 0] - LOGITS)
    assert np.all(with_prompt.score[:, 0] >= before.score[:, 0] - SCORES)
    assert np.all(with_look_alike.margin[:, 0] <= before.margin[:, 0] + LOGITS)
    assert np.all(with_contrast.margin <= before.margin + LOGITS)
    assert np.all(with_contrast.score <= before.score + SCORES)
    np.testing.assert_allclose(with_prompt.margin[:, 1:], before.margin[:, 1:], atol=LOGITS)
    np.testing.assert_allclose(with_look_alike.margin[:, 1:], before.margin[:, 1:], atol=LOGITS)


@unhurried
@given(seeds)
def test_the_order_of_categories_sentences_and_images_does_not_matter(seed: int) -> None:
    w = world(seed)
    contrast, categories = w.some()
    images = w.images(5)
    straight = score(images, w.compile(contrast, categories))

    turned = {name: (prompts[::-1], look_alikes[::-1]) for name, (prompts, look_alikes) in reversed(categories.items())}
    compiled = w.compile(contrast[::-1], turned)
    back = score(images[::-1].copy(), compiled)

    np.testing.assert_allclose(back.margin[::-1, ::-1], straight.margin, atol=LOGITS)
    np.testing.assert_allclose(back.score[::-1, ::-1], straight.score, atol=SCORES)
    assert [category.name for category in compiled.categories] == list(turned)


@unhurried
@given(seeds, st.integers(1, 40))
def test_a_batch_is_the_same_as_its_images_one_by_one(seed: int, count: int) -> None:
    w = world(seed)
    contrast, categories = w.some()
    images = w.images(count)
    compiled = w.compile(contrast, categories)

    together = score(images, compiled)
    alone = [score(images[at : at + 1], compiled) for at in range(count)]

    assert together.score.shape == (count, len(categories))
    np.testing.assert_allclose(together.score, np.concatenate([one.score for one in alone]), atol=SCORES)
    np.testing.assert_allclose(together.margin, np.concatenate([one.margin for one in alone]), atol=LOGITS)


@unhurried
@given(seeds, st.floats(-20, 20), st.floats(0.05, 20), st.floats(0, 1))
def test_a_calibration_weighs_the_contrast_and_shifts_and_stretches_the_margin(
    seed: int, bias: float, temperature: float, weight: float
) -> None:
    w = world(seed)
    contrast, categories = w.some()
    images = w.images(3)
    calibration = {"c0": {"bias": bias, "temperature": temperature, "contrast_weight": weight}}

    plain = score(images, w.compile(contrast, categories))
    found = score(images, w.compile(contrast, categories, calibration))

    def pooled(sentences: Sequence[str]) -> np.ndarray:
        logits = SCALE * images.astype(np.float64) @ w.embed_texts(sentences).T.astype(np.float64)
        return np.log(np.exp(logits).sum(axis=1))

    prompts, look_alikes = categories["c0"]
    margin = pooled(prompts) - weight * pooled([*contrast, *look_alikes])
    np.testing.assert_allclose(found.margin[:, 0], margin, atol=LOGITS)
    stretched = np.clip((margin - bias) / temperature, -700, 700)
    np.testing.assert_allclose(found.score[:, 0], 1 / (1 + np.exp(-stretched)), atol=SCORES / temperature)
    np.testing.assert_array_equal(found.margin[:, 1:], plain.margin[:, 1:])
    np.testing.assert_array_equal(found.score[:, 1:], plain.score[:, 1:])


def test_a_score_at_its_bias_is_one_half() -> None:
    w = world(1)
    prompt, other = w.sentences("s", 2)
    image = w.images(1)
    margin = float(score(image, w.compile([other], {"c": ([prompt], [])})).margin[0, 0])

    calibration = {"c": {"bias": margin, "temperature": 0.3}}

    assert score(image, w.compile([other], {"c": ([prompt], [])}, calibration)).score[0, 0] == 0.5


def test_without_weight_the_contrast_does_not_count() -> None:
    w = world(2)
    contrast, other = w.sentences("contrast", 3), w.sentences("other", 3)
    prompts, look_alikes = w.sentences("prompt", 2), w.sentences("look-alike", 2)
    images = w.images(4)
    calibration = {"c": {"contrast_weight": 0.0, "bias": 20.0}}

    one = score(images, w.compile(contrast, {"c": (prompts, look_alikes)}, calibration))
    another = score(images, w.compile(other, {"c": (prompts, [])}, calibration))

    np.testing.assert_allclose(one.margin, another.margin, atol=LOGITS)
    np.testing.assert_allclose(one.score, another.score, atol=SCORES)
    expected = np.logaddexp(*(SCALE * w.embed_texts(prompts).astype(np.float64) @ images.T.astype(np.float64)))
    np.testing.assert_allclose(one.margin[:, 0], expected, atol=LOGITS)


@unhurried
@given(seeds)
def test_the_winning_sentences_are_those_nearest_to_the_image(seed: int) -> None:
    w = world(seed)
    contrast, categories = w.some()
    images = w.images(6)
    compiled = w.compile(contrast, categories)

    found = score(images, compiled)

    for row, image in enumerate(images):
        for column, (prompts, look_alikes) in enumerate(categories.values()):
            nearest_prompt = max(prompts, key=lambda text: float(w.vectors[text] @ image))
            nearest_other = max([*contrast, *look_alikes], key=lambda text: float(w.vectors[text] @ image))
            assert compiled.texts[found.prompt[row, column]] == nearest_prompt
            assert compiled.texts[found.contrast[row, column]] == nearest_other


def test_a_look_alike_wins_in_its_own_category_only() -> None:
    w = world(3)
    east, north, up = np.eye(3, DIM, dtype=np.float32)
    w.sentence("a gun", east)
    w.sentence("a plate", north)
    w.sentence("a toy gun", unit(east + 0.1 * up))
    w.sentence("pills", up)
    compiled = w.compile(["a plate"], {"weapons": (["a gun"], ["a toy gun"]), "drugs": (["pills"], [])})

    found = score(unit([east + 0.2 * up, north]), compiled)

    assert [[compiled.texts[place] for place in row] for row in found.contrast] == [
        ["a toy gun", "a plate"],
        ["a plate", "a plate"],
    ]
    assert [compiled.texts[place] for place in found.prompt[0]] == ["a gun", "pills"]


@pytest.mark.parametrize("scale", [1e4, 1e8, 1e30])
@pytest.mark.filterwarnings("error")
def test_extreme_logits_do_not_overflow(scale: float) -> None:
    w = world(4)
    here = np.eye(1, DIM, dtype=np.float32)[0]
    w.sentence("near", here)
    w.sentence("far", -here)
    w.sentence("aside", np.eye(2, DIM, dtype=np.float32)[1])
    categories = {"near": (["near"], ["aside"]), "far": (["far"], []), "aside": (["aside"], ["near"])}
    calibration = {"near": {"temperature": 1e-3}}
    compiled = w.compile(["far", "aside"], categories, calibration, scale)

    found = score(unit([here]), compiled)

    assert np.all(np.isfinite(found.margin))
    assert found.score[0].tolist() == [1.0, 0.0, 0.0]


def test_scores_stay_between_0_and_1_at_every_temperature() -> None:
    w = world(5)
    contrast, categories = w.some()
    images = w.images(50)
    for temperature in (1e-6, 1e-3, 1.0, 1e3, 1e6):
        calibration = {name: {"temperature": temperature} for name in categories}
        found = score(images, w.compile(contrast, categories, calibration)).score
        assert found.min() >= 0.0
        assert found.max() <= 1.0


def test_the_scores_of_some_views_are_their_rows() -> None:
    w = world(6)
    compiled = w.compile(*w.some())
    images = w.images(5)
    found = score(images, compiled)

    part = found.rows(slice(1, 3))

    assert isinstance(part, Scores)
    for name in ("score", "margin", "prompt", "contrast"):
        np.testing.assert_array_equal(getattr(part, name), getattr(found, name)[1:3])


def test_templates_are_averaged_and_made_unit_again() -> None:
    w = world(7)
    policy = Policy.model_validate(
        {
            "policy": "p",
            "version": 1,
            "templates": ["{}", "a photo of {}"],
            "contrast": ["food"],
            "categories": {"c": {"prompts": ["a gun"], "thresholds": {"review": 0.5}}},
        }
    )
    asked: list[str] = []

    def embed_texts(texts: Sequence[str]) -> np.ndarray:
        asked.extend(texts)
        for text in texts:
            w.sentence(text)
        return w.embed_texts(texts)

    compiled = compile_policy(policy, embed_texts, SCALE, "m@r")

    assert asked == ["food", "a photo of food", "a gun", "a photo of a gun"]
    assert compiled.texts == ("food", "a gun")
    for row, text in zip(compiled.sentences, compiled.texts, strict=True):
        np.testing.assert_allclose(row, unit(w.vectors[text] + w.vectors[f"a photo of {text}"]), atol=1e-6)


def test_a_policy_is_calibrated_only_by_its_own_model() -> None:
    w = world(8)
    contrast, categories = w.sentences("contrast", 1), {"c": (w.sentences("prompt", 1), [])}
    calibrated = w.compile(contrast, categories, {"c": {"bias": 3.0}})

    assert calibrated.calibrated
    assert calibrated.categories[0].calibration.bias == 3.0
    other = compile_policy(calibrated.policy, w.embed_texts, SCALE, "m@another")
    assert not other.calibrated
    assert other.categories[0].calibration.bias == 0.0


@unhurried
@given(seeds, st.floats(0, 1), st.floats(-20, 20))
def test_margins_are_what_the_pools_weigh_against_each_other(seed: int, weight: float, bias: float) -> None:
    w = world(seed)
    contrast, categories = w.some()
    images = w.images(5)
    compiled = w.compile(contrast, categories, {"c0": {"contrast_weight": weight, "bias": bias}})

    pooled, found = pool(images, compiled), score(images, compiled)

    weights = np.array([weight] + [1.0] * (len(categories) - 1))
    np.testing.assert_array_equal(pooled.prompts - weights * pooled.contrast, found.margin)


def test_a_calibration_for_other_sentences_leaves_the_plain_softmax() -> None:
    w = world(1)
    contrast, categories = w.some()
    digest = w.compile(contrast, categories).policy.sentence_digests["c0"]
    made: dict[str, dict[str, Any]] = {name: {"bias": 3.0} for name in categories}

    kept = w.compile(contrast, categories, made | {"c0": {"bias": 3.0, "sentences": digest}})
    stale = w.compile([*contrast, w.sentence("more")], categories, made | {"c0": {"bias": 3.0, "sentences": digest}})

    assert (kept.calibrated, kept.categories[0].calibration.bias) == (True, 3.0)
    assert (stale.calibrated, stale.categories[0].calibration.bias) == (False, 0.0)
