"""An exemplar decides at its own image, falls off at the model's own slope, and says nothing far away."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from worker.errors import PolicyInvalid
from worker.policy.compiled import CompiledPolicy, Scores, compile_policy
from worker.policy.exemplars import Exemplar, Exemplars
from worker.policy.schema import Calibration, Category, Policy, Thresholds
from worker.scoring import score

MODEL = "m@r"
DIM = 32
#: Logits per unit of similarity, as the packaged checkpoint's.
SCALE = 30.0
CALIBRATIONS = [
    Calibration(),
    Calibration(bias=5.7, temperature=0.6, contrast_weight=0.25),
    Calibration(bias=-2.0, temperature=2.5, contrast_weight=0.5),
    Calibration(bias=1.0, temperature=0.3, contrast_weight=0.0),
]


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


class World:
    """Sentences and images in random directions.

    Sentences lie near each other and away from images, as CLIP's do: the gap between its modalities.

    Args:
        seed: Of the directions.
    """

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.sentences: dict[str, np.ndarray] = {}

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        for text in texts:
            drawn = self.random.normal(size=DIM) * 0.1
            drawn[0] += 1
            self.sentences.setdefault(text, unit(drawn))
        return np.stack([self.sentences[text] for text in texts])

    def image(self, near: np.ndarray | None = None, cosine: float = 0.0) -> np.ndarray:
        """Draw an image, `(1, dim)`; at this cosine from another, where one is given."""
        drawn = self.random.normal(size=DIM)
        drawn[0] = 0.2 * np.linalg.norm(drawn)
        if near is None:
            return unit(drawn)[None]
        away = unit(drawn - (drawn @ near[0]) * near[0])
        return unit(cosine * near[0] + np.sqrt(1 - cosine**2) * away)[None]

    def compile(self, calibration: Calibration, exemplars: Exemplars | None, model: str = MODEL) -> CompiledPolicy:
        """Compile a policy of two categories; the exemplars are the first one's."""
        policy = Policy(
            policy="house",
            version=1,
            contrast=("food", "people", "a tree"),
            categories={
                "weapons": Category(
                    prompts=("gun", "rifle"),
                    look_alikes=("toy",),
                    thresholds=Thresholds(review=0.5, block=0.9),
                    exemplars=exemplars,
                ),
                "drugs": Category(prompts=("pills",), thresholds=Thresholds(review=0.5)),
            },
            calibration={MODEL: {"weapons": calibration, "drugs": calibration}},
        )
        return compile_policy(policy, self.embed_texts, SCALE, model)


def told_by(
    match: Sequence[np.ndarray] = (), unlike: Sequence[np.ndarray] = (), model: str = MODEL, strength: float = 0.98
) -> Exemplars:
    """Return exemplars of images, named after their places."""
    pools = {
        kind: tuple(Exemplar.of(f"a.npz#{kind} {at}", model, rows) for at, rows in enumerate(pool))
        for kind, pool in (("match", match), ("unlike", unlike))
    }
    return Exemplars(match=pools["match"], unlike=pools["unlike"], strength=strength)


def weapons(images: np.ndarray, compiled: CompiledPolicy) -> np.ndarray:
    return score(images, compiled).score[:, 0]


@pytest.fixture(params=range(3))
def world(request: pytest.FixtureRequest) -> World:
    return World(request.param)


@pytest.mark.parametrize("calibration", CALIBRATIONS)
@pytest.mark.parametrize("strength", [0.6, 0.9, 0.98, 0.999])
def test_the_image_itself_scores_the_strength_or_more_and_what_is_unlike_one_less_it(
    world: World, calibration: Calibration, strength: float
) -> None:
    missed, wrong = world.image(), world.image()
    match = weapons(missed, world.compile(calibration, told_by([missed], strength=strength)))
    unlike = weapons(wrong, world.compile(calibration, told_by(unlike=[wrong], strength=strength)))

    assert match[0] >= strength - 1e-5
    assert unlike[0] <= 1 - strength + 1e-5


@pytest.mark.parametrize("calibration", CALIBRATIONS)
@pytest.mark.parametrize("cosine", [1.0, 0.97, 0.9, 0.5])
def test_around_its_image_an_exemplar_falls_by_the_scale_times_the_lost_cosine(
    world: World, calibration: Calibration, cosine: float
) -> None:
    e = world.image()
    x = world.image(e, cosine)
    bare = world.compile(calibration, None)
    logits = {
        name: SCALE * np.stack([world.sentences[text] for text in texts]).astype(float)
        for name, texts in (("p", ("gun", "rifle")), ("q", ("food", "people", "a tree", "toy")))
    }

    def pooled(name: str, image: np.ndarray) -> float:
        return float(np.log(np.exp(logits[name] @ image[0]).sum()))

    w, needed = calibration.contrast_weight, calibration.temperature * np.log(0.98 / 0.02)
    fallen = SCALE * (1 - float(e[0] @ x[0]))
    raised = w * pooled("q", e) + calibration.bias + needed - fallen
    lowered = pooled("p", e) - calibration.bias + needed - fallen
    expected = {
        "match": np.logaddexp(pooled("p", x), raised) - w * pooled("q", x),
        "unlike": pooled("p", x) - np.logaddexp(w * pooled("q", x), lowered),
    }

    assert score(x, bare).margin[0, 0] == pytest.approx(pooled("p", x) - w * pooled("q", x), abs=1e-4)
    for kind, margin in expected.items():
        found = score(x, world.compile(calibration, told_by(**{kind: [e]})))
        assert found.margin[0, 0] == pytest.approx(margin, abs=1e-4)


@pytest.mark.parametrize("calibration", CALIBRATIONS)
def test_far_away_and_in_other_categories_nothing_moves(world: World, calibration: Calibration) -> None:
    one, other = world.image(), world.image()
    images = np.concatenate([world.image(one, -0.3) for _ in range(50)])
    images = images[np.abs(images @ other[0]) < 0.4]
    before = score(images, world.compile(calibration, None))
    after = score(images, world.compile(calibration, told_by([one], [other])))

    assert len(images) > 20
    assert np.abs(after.score - before.score)[:, 0].max() < 1e-3
    assert np.array_equal(after.score[:, 1], before.score[:, 1])


@pytest.mark.parametrize("calibration", CALIBRATIONS)
@pytest.mark.parametrize("cosine", [-0.5, 0.3, 0.6])
def test_images_of_both_kinds_decide_at_their_own_place_where_the_model_tells_them_apart(
    world: World, calibration: Calibration, cosine: float
) -> None:
    missed = world.image()
    wrong = world.image(missed, cosine)
    compiled = world.compile(calibration, told_by([missed], [wrong], strength=0.95))

    # Each keeps half of its odds at least: what stands against it is the other exemplar beside the sentences.
    assert weapons(missed, compiled)[0] > 0.9
    assert weapons(wrong, compiled)[0] < 0.1


@pytest.mark.parametrize("calibration", CALIBRATIONS[:3])
def test_of_two_images_that_the_model_hardly_tells_apart_the_nearer_one_wins(
    world: World, calibration: Calibration
) -> None:
    missed = world.image()
    wrong = world.image(missed, 1 - 0.25 * calibration.temperature / SCALE)
    halfway = unit(missed + wrong)
    compiled = world.compile(calibration, told_by([missed], [wrong], strength=0.999))
    at_missed, at_wrong, between = weapons(np.concatenate([missed, wrong, halfway]), compiled)

    assert at_missed > 0.53
    assert at_wrong < 0.47
    assert between == pytest.approx(0.5, abs=0.02)


def test_many_images_of_both_kinds_in_one_place_still_have_finite_logits(world: World) -> None:
    centre = world.image()
    crowd = [world.image(centre, 0.999) for _ in range(40)]
    compiled = world.compile(Calibration(), told_by(crowd[:20], crowd[20:]))

    assert compiled.offsets is not None
    assert np.abs(compiled.offsets).max() < 10 * SCALE
    assert np.isfinite(score(np.concatenate(crowd), compiled).margin).all()


def test_every_view_of_an_exemplar_counts(world: World) -> None:
    views = np.concatenate([world.image(), world.image()])
    compiled = world.compile(Calibration(), told_by(unlike=[views]))

    assert (weapons(views, compiled) <= 0.02 + 1e-6).all()


@pytest.mark.parametrize("weight", [1.0, 0.25, 0.0])
@pytest.mark.parametrize("kind", ["match", "unlike"])
def test_a_verdict_names_the_exemplar_that_won_and_a_sentence_where_none_did(
    world: World, weight: float, kind: str
) -> None:
    image = world.image()
    margin = float(score(image, world.compile(Calibration(contrast_weight=weight), None)).margin[0, 0])
    # The category misses the image, or flags it wrongly, by three logits.
    bias = margin + (3 if kind == "match" else -3)
    compiled = world.compile(Calibration(bias=bias, contrast_weight=weight), told_by(**{kind: [image]}))

    def named(found: Scores) -> dict[str, str]:
        return {"match": compiled.texts[found.prompt[0, 0]], "unlike": compiled.texts[found.contrast[0, 0]]}

    assert named(score(image, compiled))[kind] == f"exemplar {kind} 0"
    far = named(score(world.image(image, -0.4), compiled))
    assert far["match"] in ("gun", "rifle")
    assert far["unlike"] in ("food", "people", "a tree", "toy")


def test_a_policy_without_exemplars_is_scored_as_before(world: World) -> None:
    images = np.concatenate([world.image() for _ in range(8)])
    compiled = world.compile(CALIBRATIONS[1], None)

    assert compiled.offsets is None
    assert len(compiled.sentences) == len(compiled.texts) == 7
    assert compiled.calibrated
    assert all(each.match == each.unlike == slice(0, 0) for each in compiled.categories)
    assert np.isfinite(score(images, compiled).margin).all()


def test_another_models_exemplars_are_left_out_and_leave_the_policy_uncalibrated(world: World) -> None:
    images = np.concatenate([world.image() for _ in range(8)])
    bare = world.compile(CALIBRATIONS[1], None)
    compiled = world.compile(CALIBRATIONS[1], told_by([images[:1]], model="n@r"))

    assert compiled.texts == bare.texts
    assert (compiled.calibrated, bare.calibrated) == (False, True)
    assert np.array_equal(score(images, compiled).score, score(images, bare).score)


def test_an_exemplar_of_another_size_is_an_error_that_names_it(world: World) -> None:
    narrow = np.eye(1, 8, dtype=np.float32)
    with pytest.raises(PolicyInvalid, match=r"house@1: a.npz#match 0 has 8 numbers, and m@r makes 32; record it again"):
        world.compile(Calibration(), told_by([narrow]))


@pytest.mark.parametrize("calibration", CALIBRATIONS)
def test_scores_do_not_depend_on_what_else_is_scored(world: World, calibration: Calibration) -> None:
    missed, wrong = world.image(), world.image()
    compiled = world.compile(calibration, told_by([missed], [wrong]))
    images = np.concatenate([missed, wrong, *(world.image(missed, c) for c in (0.99, 0.9, 0.2))])
    together = score(images, compiled)

    for row in range(len(images)):
        alone = score(images[row : row + 1], compiled)
        assert np.allclose(alone.score[0], together.score[row], atol=1e-5)
        assert np.array_equal(alone.prompt[0], together.prompt[row])
