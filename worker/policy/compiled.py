"""A policy made ready for one encoder: every sentence and exemplar a row of a matrix, every category slices of it.

In: `Policy` and the encoder's text tower. Out: `CompiledPolicy`, and the `Scores` that `scoring` fills in for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from worker.errors import PolicyInvalid
from worker.policy.exemplars import Exemplar, Exemplars
from worker.policy.heights import Standing, heights_of
from worker.policy.schema import Calibration, Policy

Matrix = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
#: Sentences to unit embeddings, `(n, dim)`.
EmbedTexts = Callable[[Sequence[str]], Matrix]

#: Numbers of unit rows are rounded to whole multiples of 1 / GRID. Products of two are then whole multiples of
#: 1 / GRID ** 2, and their sum over unit rows has at most 53 bits in these, as many as a float64 holds.
GRID = 2.0**26


@dataclass(frozen=True, slots=True)
class CompiledCategory:
    """Where a category's sentences stand in the policy's matrix, and how its margin becomes a score."""

    name: str
    prompts: slice
    look_alikes: slice
    calibration: Calibration
    #: Rows of its exemplars, which come after all sentences.
    match: slice = field(default_factory=lambda: slice(0, 0))
    unlike: slice = field(default_factory=lambda: slice(0, 0))


@dataclass(frozen=True, slots=True)
class CompiledPolicy:
    """A policy under one encoder."""

    policy: Policy
    #: `(rows, dim)`, unit rows: the contrast pool, then each category's prompts and look-alikes, then exemplars.
    sentences: Matrix
    #: The sentence of each row; of an exemplar `exemplar NAME`.
    texts: tuple[str, ...]
    #: Rows of the policy's contrast pool.
    contrast: slice
    categories: tuple[CompiledCategory, ...]
    #: `exp` of the checkpoint's logit scale: logits per unit of similarity.
    logit_scale: float
    #: Whether every category has a calibration for this encoder, and no exemplar is another's.
    calibrated: bool
    #: The sentences times `GRID`, whole numbers.
    on_grid: Floats = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "on_grid", to_grid(self.sentences))

    #: `(rows,)`: what is taken from each row's logits; None where there are no exemplars.
    offsets: Floats | None = None


@dataclass(frozen=True, slots=True)
class Scores:
    """What scoring found: `(views, categories)` each, columns in the order of the policy's categories."""

    #: Calibrated, in [0, 1].
    score: Floats
    #: Logits.
    margin: Floats
    #: Row of the sentence with the highest logit among the category's prompts, or of the exemplar that outdoes it.
    prompt: Indices
    #: Row of the sentence with the highest logit among contrast and look-alikes, or of the exemplar that outdoes it.
    contrast: Indices

    def rows(self, views: slice) -> Scores:
        """Return the scores of some views."""
        return Scores(self.score[views], self.margin[views], self.prompt[views], self.contrast[views])


def compile_policy(policy: Policy, embed_texts: EmbedTexts, logit_scale: float, model: str) -> CompiledPolicy:
    """Embed a policy's sentences, and put its exemplars beside them.

    Args:
        policy: What to compile.
        embed_texts: The text tower: n sentences to `(n, dim)` float32, unit rows.
        logit_scale: Logits per unit of similarity.
        model: `id@revision`, under which the policy's calibration is looked up. Another model's exemplars are left out.

    Returns:
        The compiled policy. Templates are averaged in embedding space and renormalised.

    Raises:
        PolicyInvalid: An exemplar of this model has embeddings of another size.

    Source:
        Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision", section 3.1.4.
    """
    texts: list[str] = [*policy.contrast]
    categories = []
    calibrations = policy.calibration_for(model)
    for name, category in policy.categories.items():
        start = len(texts)
        texts += category.prompts
        middle = len(texts)
        texts += category.look_alikes or ()
        calibration = calibrations.get(name, Calibration())
        categories.append(CompiledCategory(name, slice(start, middle), slice(middle, len(texts)), calibration))
    sentences_alone = CompiledPolicy(
        policy=policy,
        sentences=embed_averaged(texts, policy.templates, embed_texts),
        texts=tuple(texts),
        contrast=slice(0, len(policy.contrast)),
        categories=tuple(categories),
        logit_scale=logit_scale,
        calibrated=policy.is_calibrated_for(model),
    )
    has_exemplars = any(exemplar.model == model for _, exemplar in policy.exemplars())
    return _with_exemplars(sentences_alone, model) if has_exemplars else sentences_alone


def _with_exemplars(compiled: CompiledPolicy, model: str) -> CompiledPolicy:
    """Append the exemplars of a model to a policy's rows."""
    rows, texts = [compiled.sentences], [*compiled.texts]
    offsets = [np.zeros(len(texts))]
    categories = []
    for category in compiled.categories:
        exemplars = compiled.policy.categories[category.name].exemplars
        if exemplars is None:
            categories.append(category)
            continue
        start = len(texts)
        match = _rows_of(exemplars.match, model, compiled, texts)
        middle = len(texts)
        unlike = _rows_of(exemplars.unlike, model, compiled, texts)
        rows += [match, unlike]
        offsets.append(_offsets_in(compiled, category, exemplars, match, unlike))
        categories.append(replace(category, match=slice(start, middle), unlike=slice(middle, len(texts))))
    return replace(
        compiled,
        sentences=np.concatenate(rows),
        texts=tuple(texts),
        categories=tuple(categories),
        offsets=np.concatenate(offsets),
    )


def _rows_of(pool: Sequence[Exemplar], model: str, compiled: CompiledPolicy, texts: list[str]) -> Matrix:
    """Return the embeddings of a model's exemplars, `(rows, dim)`; what each row is called is added to `texts`."""
    dim = compiled.sentences.shape[1]
    rows: list[Matrix] = [np.zeros((0, dim), np.float32)]
    for exemplar in pool:
        if exemplar.model != model:
            continue
        if exemplar.dim != dim:
            what = f"{compiled.policy.ref}: {exemplar.ref} has {exemplar.dim} numbers, and {model} makes {dim}"
            raise PolicyInvalid([f"{what}; record it again"])
        rows.append(exemplar.rows())
        texts += [f"exemplar {exemplar.name}"] * len(rows[-1])
    return np.concatenate(rows)


def _offsets_in(
    compiled: CompiledPolicy, category: CompiledCategory, exemplars: Exemplars, match: Matrix, unlike: Matrix
) -> Floats:
    """Return the offsets of a category's exemplars: those that match, then those that do not."""
    images = np.concatenate([match, unlike])
    logits = (compiled.logit_scale * (images @ compiled.sentences.T)).astype(np.float64)
    contrast = np.concatenate([logits[:, compiled.contrast], logits[:, category.look_alikes]], axis=1)
    standing = Standing(
        prompts=np.logaddexp.reduce(logits[:, category.prompts], axis=1),
        contrast=category.calibration.contrast_weight * np.logaddexp.reduce(contrast, axis=1),
        is_match=np.arange(len(images)) < len(match),
    )
    calibration = category.calibration
    apart = compiled.logit_scale * (1.0 - (images @ images.T).astype(np.float64))
    return compiled.logit_scale - heights_of(standing, apart, calibration.bias, calibration.logits(exemplars.strength))


def embed_averaged(texts: Sequence[str], templates: Sequence[str], embed_texts: EmbedTexts) -> Matrix:
    """Embed sentences in every template, average, and renormalise: `(texts, dim)` float32, unit rows."""
    filled = [template.replace("{}", text) for text in texts for template in templates]
    embeddings = embed_texts(filled).reshape(len(texts), len(templates), -1)
    mean = embeddings.mean(axis=1)
    unit: Matrix = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    return unit


def to_grid(rows: Matrix) -> Floats:
    """Return unit rows times `GRID`, in whole numbers: their products add up without rounding, in whatever order."""
    whole: Floats = rows.astype(np.float64)
    whole *= GRID
    return np.rint(whole, out=whole)
