"""What is judged again is the verdict, to the last number, or explains nothing; each counterfactual is a judgement."""

from __future__ import annotations

import dataclasses

import judged
import numpy as np
import pytest
from judged import BREAD_KNIFE, FOOD, PILLS, REVOLVER, RIFLE, SYRINGE, WORK

from worker.policy.compiled import Matrix
from worker.records import CategoryVerdict, Verdict
from worker.scoring import score
from worker.verdict import decide
from worker.workbench.explain.again import judge_again, without
from worker.workbench.explain.explanation import Explanation
from worker.workbench.explain.told import explain

#: A revolver beside a bread knife: only just for a person to look at.
CLOSE = judged.image({FOOD: 1}, {REVOLVER: 8, RIFLE: 4, BREAD_KNIFE: 7.9, FOOD: 5})


def again(
    embeddings: Matrix, verdict: Verdict | None = None, versions: tuple[int, ...] = (), top: int = 5
) -> Explanation:
    found = verdict or judged.verdict(embeddings)
    others = [judged.compiled(judged.policy(version, **OTHER[version])) for version in versions]
    told = explain(found, judged.policy())
    return judge_again(told, found, judged.compiled(), embeddings, others, basis="ledger", top=top)


#: What later versions say differently.
OTHER: dict[int, dict[str, object]] = {
    2: {"contrast": [FOOD]},
    3: {"categories": {"weapons": {"prompts": [REVOLVER], "thresholds": {"block": 0.2}}}},
}


def test_what_is_judged_again_equals_the_verdict() -> None:
    verdict = judged.verdict(CLOSE)
    explanation = again(CLOSE, verdict)
    assert (explanation.recomputed, explanation.basis, explanation.notes) == ("equal", "ledger", [])
    found = verdict.categories["weapons"]
    decided = next(view for view in explanation.views if view.decides)
    assert (
        (decided.index, decided.score, decided.margin)
        == (found.view, found.score, found.margin)
        == (1, *decided_by(found))
    )
    listed = explanation.sentences[0]
    assert (listed.view, listed.prompts[0].text, listed.against[0].text) == (1, found.prompt, found.contrast)
    p, q = ([sentence.logit for sentence in pool] for pool in (listed.prompts, listed.against))
    assert np.logaddexp.reduce(p) - np.logaddexp.reduce(q) == pytest.approx(found.margin, abs=1e-5)
    assert p == pytest.approx([8, 4], abs=1e-5)
    for pool in (listed.prompts, listed.against):
        assert sum(sentence.share for sentence in pool) == pytest.approx(1)


def decided_by(found: CategoryVerdict) -> tuple[float, float]:
    return found.score, found.margin


def test_without_one_sentence_an_image_is_judged_as_if_it_had_never_been_written() -> None:
    explanation = again(CLOSE)
    turned = {(removal.kind, removal.text): removal.action for removal in explanation.removals if removal.flips}
    assert explanation.action == "review"
    assert turned == {("prompt", REVOLVER): "allow", ("look_alike", BREAD_KNIFE): "block"}
    rewritten = judged.policy(categories=judged.policy().model_dump(exclude_none=True)["categories"] | {
        "weapons": {"prompts": [RIFLE], "look_alikes": [BREAD_KNIFE], "thresholds": {"review": 0.31, "block": 0.87}}
    })  # fmt: skip
    judgement = decide(judged.compiled(rewritten), score(CLOSE, judged.compiled(rewritten)))
    removal = next(removal for removal in explanation.removals if removal.text == REVOLVER)
    assert (removal.score, removal.margin) == decided_by(judgement.categories["weapons"])


def test_all_sentences_of_the_deciding_category_are_tried_and_of_others_those_that_flip() -> None:
    explanation = again(CLOSE)
    assert {removal.text for removal in explanation.removals} == {REVOLVER, RIFLE, BREAD_KNIFE, FOOD, WORK}
    assert {removal.category for removal in explanation.removals} == {"weapons"}
    assert [len(explanation.sentences[0].prompts), len(explanation.sentences[0].against)] == [2, 3]
    fewer = again(CLOSE, top=1)
    assert {removal.text for removal in fewer.removals} == {REVOLVER, BREAD_KNIFE}


def test_a_sentence_of_contrast_counts_in_every_category() -> None:
    # Food outweighs both: without it the second category turns the verdict, not the first.
    embeddings = judged.image({REVOLVER: 6, BREAD_KNIFE: 9, PILLS: 9, FOOD: 9.2})
    verdict = judged.verdict(embeddings)
    assert verdict.action == "allow"
    flips = {(removal.text, removal.action) for removal in again(embeddings, verdict).removals if removal.flips}
    assert flips == {(FOOD, "review")}


def test_a_category_goes_with_its_only_prompt_and_a_policy_keeps_its_only_contrast() -> None:
    compiled = judged.compiled(judged.policy(contrast=[FOOD], categories={
        "weapons": {"prompts": [REVOLVER], "thresholds": {"block": 0.5}},
        "drugs": {"prompts": [PILLS, SYRINGE], "thresholds": {"review": 0.5}},
    }))  # fmt: skip
    assert without(compiled, compiled.texts.index(FOOD)) is None
    fewer = without(compiled, compiled.texts.index(REVOLVER))
    assert fewer is not None
    assert [category.name for category in fewer.categories] == ["drugs"]
    assert fewer.texts[fewer.categories[0].prompts] == (PILLS, SYRINGE)
    embeddings = judged.image({REVOLVER: 6, FOOD: 3})
    verdict = judged.verdict(embeddings, compiled)
    explanation = judge_again(explain(verdict), verdict, compiled, embeddings, basis="image")
    (removal,) = explanation.removals
    assert (removal.text, removal.score, removal.action, removal.flips) == (REVOLVER, None, "allow", True)


def test_of_a_policy_of_one_prompt_nothing_is_left_and_all_is_allowed() -> None:
    only = judged.compiled(judged.policy(categories={"weapons": {"prompts": [REVOLVER], "thresholds": {"block": 0.5}}}))
    embeddings = judged.image({REVOLVER: 6})
    verdict = judged.verdict(embeddings, only)
    explanation = judge_again(explain(verdict), verdict, only, embeddings, basis="image")
    assert ("prompt", "allow") in {(removal.kind, removal.action) for removal in explanation.removals}


@pytest.mark.parametrize("row", range(7))
def test_rows_stay_with_their_sentences_when_one_goes(row: int) -> None:
    compiled = judged.compiled()
    fewer = without(compiled, row)
    assert fewer is not None
    kept = [text for place, text in enumerate(compiled.texts) if place != row]
    assert list(fewer.texts) == kept
    parts = [fewer.contrast, *(rows for found in fewer.categories for rows in (found.prompts, found.look_alikes))]
    assert [place for part in parts for place in range(part.start, part.stop)] == list(range(len(kept)))
    for text, vector in zip(fewer.texts, fewer.sentences, strict=True):
        assert (vector == compiled.sentences[compiled.texts.index(text)]).all()


def test_other_versions_judge_the_same_image_and_take_the_place_of_shadows() -> None:
    explanation = again(CLOSE, versions=(3, 2))
    said = [(found.policy.version, found.action, found.same, found.source) for found in explanation.versions]
    for version, action, *_ in said:
        other = judged.compiled(judged.policy(version, **OTHER[version]))
        assert decide(other, score(CLOSE, other)).action == action
    assert said == [(2, "review", True, "judged"), (3, "block", False, "judged")]


@pytest.mark.parametrize(
    ("embeddings", "why"),
    [
        (judged.image({FOOD: 1}, {REVOLVER: 8, RIFLE: 4, BREAD_KNIFE: 7.8, FOOD: 5}), "the margin of weapons is 0.0"),
        (judged.image({FOOD: 1}, {REVOLVER: 2}), "logits off"),
        (np.concatenate([CLOSE, CLOSE[:1]]), "3 of 2 views"),
    ],
)
def test_a_judgement_that_differs_says_so_and_leaves_the_verdicts_own_numbers(embeddings: Matrix, why: str) -> None:
    verdict = judged.verdict(CLOSE)
    explanation = again(embeddings, verdict)
    assert explanation.recomputed == "differs"
    assert why in explanation.notes[0]
    assert explanation.model_copy(update={"notes": [], "recomputed": None}) == explain(verdict, judged.policy())


def test_another_policy_under_the_same_name_explains_nothing() -> None:
    verdict = judged.verdict(CLOSE)
    other = dataclasses.replace(judged.compiled(), categories=judged.compiled().categories[:1])
    explanation = judge_again(explain(verdict), verdict, other, CLOSE, basis="image")
    assert explanation.notes == [
        "judging again did not give this verdict (other categories), so what follows is the verdict's own"
    ]


def test_a_verdict_that_names_a_view_which_there_is_not_is_not_believed() -> None:
    verdict = judged.verdict(CLOSE)
    odd = {name: found.model_copy(update={"view": 7}) for name, found in verdict.categories.items()}
    assert again(CLOSE, verdict.model_copy(update={"categories": odd})).recomputed == "differs"


def test_a_margin_that_is_no_number_is_not_believed() -> None:
    verdict = judged.verdict(CLOSE)
    odd = {name: found.model_copy(update={"margin": float("nan")}) for name, found in verdict.categories.items()}
    assert again(CLOSE, verdict.model_copy(update={"categories": odd})).recomputed == "differs"
