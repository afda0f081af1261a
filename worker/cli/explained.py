"""How an explanation looks in a terminal: what was said, what counted, what would have changed it.

In: an `Explanation` or a `Statement`. Out: lines and tables. Whoever may write to Redis may have written a verdict, so
whatever a terminal would obey is shown as a mark.
"""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from worker.cli.tables import COLOURS
from worker.workbench.explain.explanation import (
    CategorySaid,
    Explanation,
    MovedThreshold,
    Removal,
    Sentence,
    SentencesOf,
    ThresholdGap,
    ViewSaid,
)
from worker.workbench.explain.statement import Statement

_KINDS = {"prompt": "prompt", "look_alike": "look-alike", "contrast": "contrast sentence"}


def print_statement(statement: Statement) -> None:
    """Print what the uploader may read."""
    for line in [*statement.lines, *_policy_lines(statement)]:
        print(_clean(line))


def _policy_lines(statement: Statement) -> Iterator[str]:
    if statement.category is not None and statement.category.description:
        yield f"The policy says of {statement.category.name}: {statement.category.description}"
    version = "" if statement.policy.version is None else f", version {statement.policy.version}"
    yield f"Policy: {statement.policy.id}{version}. Decided on {statement.date}. Reference: {statement.reference}"
    if statement.appeal:
        yield f"To object: {statement.appeal}"


def print_explanation(explanation: Explanation) -> None:
    """Print what the reviewer may read."""
    console = Console()
    for line in _head(explanation):
        console.print(line, soft_wrap=True, highlight=False)
    if explanation.categories:
        console.print(_categories(explanation.categories))
    if explanation.sentences:
        console.print(_sentences(explanation.sentences[0]))
    for title, lines in (
        ("what would have changed the action", list(_changes(explanation))),
        ("other versions", list(_versions(explanation))),
        ("views", [_view(view) for view in explanation.views] if len(explanation.views) > 1 else []),
    ):
        if lines:
            console.print(f"[bold]{title}[/]")
        for line in lines:
            console.print(f"  {line}", soft_wrap=True, highlight=False)


def _head(explanation: Explanation) -> Iterator[str]:
    policy, model = explanation.policy, explanation.model
    version = "" if policy.version is None else f"@{policy.version}"
    yield f"{coloured(explanation.action)}  {_safe(explanation.content_id)}"
    scale = "calibrated" if explanation.calibrated else "not calibrated"
    judge = f"{_safe(model.id)}@{_safe(model.revision)} in {_safe(model.precision)}, {scale}"
    yield f"under {_safe(policy.id)}{version} by {judge}"
    yield f"verdict {_safe(explanation.verdict_id)}, {_safe(explanation.created_at)}"
    if explanation.reason is not None:
        yield f"not judged: {_safe(explanation.reason)}: {_safe(explanation.reason_means or '')}"
    for category in explanation.categories[:1]:
        won = f"“{_safe(category.prompt)}” against “{_safe(category.contrast)}”"
        yield f"[bold]{_safe(category.name)}[/] is strongest: {won}"
        yield f"  margin {category.margin:.2f}, score {category.score:.4f}"
        for gap in reversed(category.thresholds):
            yield f"  {_gap(gap)}{' ← decided' if gap.action == category.decided_by else ''}"
    if explanation.recomputed == "equal":
        yield f"judged again from the {explanation.basis}: equal"
    for note in explanation.notes:
        yield f"[yellow]note[/]: {_safe(note)}"


def _gap(gap: ThresholdGap) -> str:
    logits = "" if gap.by_logits is None else f", {abs(gap.by_logits):.2f} logits of margin"
    where = "reached by" if gap.reached else "missed by"
    return f"{gap.action} from {gap.threshold:g}: {where} {abs(gap.by_score):.4f}{logits}"


def _categories(categories: list[CategorySaid]) -> Table:
    table = Table("category", "action", "score", "margin", "prompt", "against", "view", title="categories")
    for column in (0, 4, 5):
        table.columns[column].overflow = "fold"
    for found in categories:
        numbers = (f"{found.score:.4f}", f"{found.margin:.2f}")
        table.add_row(
            _safe(found.name), coloured(found.action), *numbers, _safe(found.prompt), _safe(found.contrast),
            str(found.view),
        )  # fmt: skip
    return table


def _sentences(sentences: SentencesOf) -> Table:
    title = f"sentences beside view {sentences.view}, {_safe(sentences.category)}"
    table = Table("counts as", "sentence", "logit", "of its pool", title=title)
    table.columns[1].overflow = "fold"
    for sentence in [*sentences.prompts, *sentences.against]:
        table.add_row(*_sentence(sentence))
    return table


def _sentence(sentence: Sentence) -> tuple[str, str, str, str]:
    return _KINDS[sentence.kind], _safe(sentence.text), f"{sentence.logit:.2f}", f"{sentence.share:.0%}"


def _changes(explanation: Explanation) -> Iterator[str]:
    if explanation.reason is not None:
        return
    flips = [removal for removal in explanation.removals if removal.flips]
    for removal in flips:
        yield _removal(removal)
    if explanation.removals and not flips:
        yield f"none of {len(explanation.removals)} sentences, taken away alone"
    for moved in explanation.thresholds:
        yield _moved(moved)
    if not explanation.thresholds:
        yield "no threshold, moved alone"


def _removal(removal: Removal) -> str:
    now = "" if removal.score is None else f" ({_safe(removal.category)} {removal.score:.4f})"
    return f"without the {_KINDS[removal.kind]} “{_safe(removal.text)}”: {coloured(removal.action)}{now}"


def _moved(moved: MovedThreshold) -> str:
    where = f"above {moved.score:.4f}" if moved.move == "above" else f"at {moved.score:.4f} or lower"
    return (
        f"{_safe(moved.category)}.{moved.threshold} {where} instead of {moved.value:g}: {coloured(moved.action)}"
    )  # fmt: skip


def _versions(explanation: Explanation) -> Iterator[str]:
    for said in explanation.versions:
        strongest = "" if said.category is None else f", {_safe(said.category)} {said.score:.4f}"
        source = " (as a shadow, then)" if said.source == "shadow" else ""
        yield f"{_safe(said.policy.id)}@{said.policy.version}: {coloured(said.action)}{strongest}{source}"


def _view(view: ViewSaid) -> str:
    where = ""
    if view.shows is not None:
        left, top, right, bottom = view.shows.box
        frame = f" of frame {view.shows.frame}" if view.shows.frame else ""
        where = f" x {left} to {right}, y {top} to {bottom}{frame}"
    found = "" if view.score is None or view.margin is None else f": score {view.score:.4f}, margin {view.margin:.2f}"
    return f"{view.index}{where}{found}{' ← decided' if view.decides else ''}"


def coloured(action: str) -> str:
    """Return an action in its colour."""
    return f"[{COLOURS.get(action, 'white')}]{escape(action)}[/]"


def _safe(text: str) -> str:
    return escape(_clean(text))


def _clean(text: str) -> str:
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
