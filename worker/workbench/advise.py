"""What the model's own tokenizer and text tower say against the sentences of a valid policy.

In: a policy, its page and a text tower. Out: warnings. Never an image: what is said here holds of sentences, and an
image lies farther from every sentence than the sentences lie from each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from worker.encoder.clip import Reading
from worker.policy.compiled import CompiledPolicy, Matrix, compile_policy, embed_averaged
from worker.policy.findings import Finding
from worker.policy.places import Path
from worker.policy.schema import Calibration, Policy
from worker.policy.wording import Page, Seen, sentences_of, warn_of_thresholds
from worker.scoring import score

#: Everyday things that have nothing to do with each other. Half of their pairs lie farther apart than the *typical
#: distance*, which is the unit of the two limits below: cosines of two checkpoints cannot be compared, these can.
UNRELATED = (
    "a cat", "a car", "a birthday cake", "a tree", "a book", "a telephone", "a house", "a guitar", "a shoe", "a chair",
    "the sun", "a fish", "a football", "a cup of coffee", "a bicycle", "a clock", "a key", "an umbrella", "a flower",
    "a hat", "an airplane", "a smiling person", "a computer", "a mountain",
)  # fmt: skip
#: How much nearer a prompt lies to contrast than to its siblings before that is said, in typical distances. Below it,
#: look-alikes do what they are for: they lie beside what they resemble.
NEARER_BY = 0.15
#: Distance within which two sentences are copies, in typical distances.
COPY_WITHIN = 0.09
_ROWS = 1024
_QUOTED_CHARACTERS = 40


class TextTower(Protocol):
    """Of `ClipEncoder`, what is needed here."""

    max_tokens: int
    logit_scale: float

    @property
    def name(self) -> str:
        """`id@revision`."""

    def embed_texts(self, sentences: Sequence[str]) -> Matrix:
        """Embed n sentences to `(n, dim)`, unit rows."""

    def read(self, sentences: Sequence[str]) -> list[Reading]:
        """Say how much of each sentence is read."""


class _Row(NamedTuple):
    """A sentence in the policy's matrix."""

    path: Path
    text: str


def advise(policy: Policy, page: Page, tower: TextTower, seen: Seen | None = None) -> Iterator[Finding]:
    """Yield every warning that needs the model.

    Args:
        policy: A valid policy.
        page: Its file.
        tower: The model.
        seen: What images scored under this policy and model; without it, sentences stand in for them.
    """
    yield from advise_exemplars(policy, page, tower)
    compiled = compile_policy(policy.without_exemplars(), tower.embed_texts, tower.logit_scale, tower.name)
    rows = [_Row(path, text) for path, text in sentences_of(policy)]
    yield from _cut(policy, rows, page, tower)
    typical = typical_distance(policy.templates, tower)
    yield from _copies(compiled, rows, page, typical)
    yield from _strays(compiled, rows, page, typical)
    yield from _unreached(compiled, rows, page, seen)


def advise_exemplars(policy: Policy, page: Page, tower: TextTower) -> Iterator[Finding]:
    """Yield what is to be said of exemplars under a model: another's, and opposed ones that lie too near.

    Args:
        policy: A valid policy.
        page: Its file.
        tower: The model.
    """
    calibrations = policy.calibration_for(tower.name)
    for (name, kind, index), exemplar in policy.exemplars():
        path = ("categories", name, "exemplars", kind, index)
        if exemplar.model != tower.name:
            message = (
                f"was embedded by {exemplar.model} and does not count under {tower.name}, where the category is "
                f"uncalibrated; add the image again with that model, or remove it"
            )
            yield page.warn("exemplar-model", path, message)
            continue
        category = policy.categories[name].exemplars
        if category is None or kind == "match":
            continue
        needed = calibrations.get(name, Calibration()).logits(category.strength)
        for other in category.match:
            if other.model == tower.name and other.dim == exemplar.dim:
                apart = tower.logit_scale * (1 - float((other.rows() @ exemplar.rows().T).max()))
                if apart < needed:
                    message = (
                        f"lies {apart:.1f} logits from {other.ref}, which matches; to tell them apart takes "
                        f"{needed:.1f}, so neither decides as strongly as it should: keep the one that matters"
                    )
                    yield page.warn("exemplar-apart", path, message)


def typical_distance(templates: Sequence[str], tower: TextTower) -> float:
    """Return the median of `1 - cosine` over pairs of `UNRELATED`, in these templates."""
    embeddings = embed_averaged(UNRELATED, templates, tower.embed_texts)
    pairs = np.triu_indices(len(UNRELATED), k=1)
    # A tower that tells nothing apart has no distance to measure by.
    return max(float(np.median(1 - (embeddings @ embeddings.T)[pairs])), 1e-6)


def _cut(policy: Policy, rows: Sequence[_Row], page: Page, tower: TextTower) -> Iterator[Finding]:
    for row in rows:
        filled = [template.replace("{}", row.text) for template in policy.templates]
        longest = max(zip(tower.read(filled), filled, strict=True), key=lambda pair: pair[0].tokens)
        reading, text = longest
        if reading.tokens > tower.max_tokens:
            kept = text[: reading.characters].rstrip()
            kept = kept if len(kept) <= _QUOTED_CHARACTERS else "…" + kept[-_QUOTED_CHARACTERS:]
            where = "" if len(filled) == 1 else " in its longest template"
            message = (
                f"{reading.tokens} tokens{where}, and {tower.name} reads {tower.max_tokens}: "
                f"what comes after {kept!r} is ignored; shorten it"
            )
            yield page.warn("cut", row.path, message)


def _copies(compiled: CompiledPolicy, rows: Sequence[_Row], page: Page, typical: float) -> Iterator[Finding]:
    """Yield each prompt that the model takes for another sentence that counts beside it or against it."""
    owners = np.full(len(rows), -1)
    is_prompt = np.zeros(len(rows), bool)
    for number, category in enumerate(compiled.categories):
        owners[category.prompts.start : category.look_alikes.stop] = number
        is_prompt[category.prompts] = True
    prompts = np.flatnonzero(is_prompt)
    for start in range(0, len(prompts), _ROWS):
        block = prompts[start : start + _ROWS]
        near = 1 - compiled.sentences[block] @ compiled.sentences.T <= COPY_WITHIN * typical
        for at, others in zip(block, near, strict=True):
            # Prompts before this one, whatever their category; contrast and look-alikes that count against it.
            earlier = is_prompt & (np.arange(len(rows)) < at)
            against = ~is_prompt & ((owners == -1) | (owners == owners[at]))
            for other in np.flatnonzero(others & (earlier | against))[:1]:
                yield page.warn("near-copy", rows[at].path, _say_copy(rows, int(at), int(other), owners, page))


def _say_copy(rows: Sequence[_Row], at: int, other: int, owners: np.ndarray, page: Page) -> str:
    line, _ = page.places.find(rows[other].path)
    said = f"the model takes {rows[at].text!r} for {rows[other].text!r} (line {line})"
    if "prompts" not in rows[other].path:
        return f"{said}, which counts against it; say what sets them apart, or remove one"
    if owners[at] == owners[other]:
        return f"{said}, so it adds next to nothing; remove one, or say what sets them apart"
    category = rows[other].path[1]
    return f"{said} of {category}, so both categories answer alike; say what sets them apart, or remove one"


def _strays(compiled: CompiledPolicy, rows: Sequence[_Row], page: Page, typical: float) -> Iterator[Finding]:
    """Yield each prompt that lies nearer to what counts against it than to its siblings."""
    for category in compiled.categories:
        prompts = compiled.sentences[category.prompts]
        similar = prompts @ prompts.T
        np.fill_diagonal(similar, -np.inf)
        for index, prompt in enumerate(prompts if len(prompts) > 1 else ()):
            at, sibling = category.prompts.start + index, category.prompts.start + int(similar[index].argmax())
            for code, against in (("near-look-alike", category.look_alikes), ("near-contrast", compiled.contrast)):
                if against.start == against.stop:
                    continue
                similarity = compiled.sentences[against] @ prompt
                other = int(similarity.argmax())
                if similarity[other] - similar[index].max() >= NEARER_BY * typical:
                    cosines = (float(similarity[other]), float(similar[index].max()))
                    words = (rows[at].text, rows[against.start + other].text, rows[sibling].text)
                    yield page.warn(code, rows[at].path, _say_stray(code.removeprefix("near-"), words, cosines))


def _say_stray(kind: str, words: tuple[str, str, str], cosines: tuple[float, float]) -> str:
    prompt, other, sibling = words
    return (
        f"the model finds {prompt!r} nearer to the {kind} {other!r} ({cosines[0]:.2f}) than to any prompt beside it "
        f"({sibling!r}, {cosines[1]:.2f}); say what sets it apart, reword the {kind}, or add a prompt like it"
    )


def _unreached(compiled: CompiledPolicy, rows: Sequence[_Row], page: Page, seen: Seen | None) -> Iterator[Finding]:
    """Yield prompts that can never win, and thresholds that nothing reached.

    A sentence stands in for the image that shows exactly it: no image of the same content lies nearer.
    """
    greatest: dict[str, float] = {}
    for column, category in enumerate(compiled.categories):
        found = score(compiled.sentences[category.prompts], compiled)
        lowest = min(compiled.policy.categories[category.name].thresholds.as_dict().values())
        greatest[category.name] = float(found.score[:, column].max())
        for index, value in enumerate(found.score[:, column]):
            if value < lowest:
                against = rows[int(found.contrast[index, column])].text
                message = (
                    f"even an image that shows exactly this scores {value:.2f} and stays below {lowest:g}; "
                    f"most against it counts {against!r}: say what sets them apart, or lower the threshold"
                )
                yield page.warn("never-wins", rows[category.prompts.start + index].path, message)
    if seen is not None:
        yield from warn_of_thresholds(compiled.policy, page, seen)
        greatest = {name: value for name, value in greatest.items() if name not in seen.greatest}
    stand_in = Seen(greatest, "the category's own prompts, taken for images")
    yield from warn_of_thresholds(compiled.policy, page, stand_in)
