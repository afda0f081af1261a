"""What is different between two policies, in an author's words: sentences added, removed, reworded; numbers moved.

In: two policies. Out: changes, in the order of the file. A policy's id and version are its name, not what it says.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from worker.policy.exemplars import DEFAULT_STRENGTH, KINDS, Exemplar, Exemplars
from worker.policy.schema import Calibration, Category, Policy

Kind = Literal["added", "removed", "reworded", "changed", "renamed", "reordered"]
#: Similarity of two sentences, in [0, 1], from which one is the other reworded: half of their letters in order.
_REWORDED = 0.6
#: More pairs than this are not compared: they are removals and additions.
_MAX_PAIRS = 40_000


@dataclass(frozen=True, slots=True)
class Change:
    """One difference; `before` is None for what was added, `after` for what was removed."""

    #: Dotted, as in findings: `categories.weapons.prompts`.
    path: str
    change: Kind
    before: Any
    after: Any

    def as_dict(self) -> dict[str, Any]:
        """Return the change as one JSON object."""
        return asdict(self)

    def __str__(self) -> str:
        if self.change == "added":
            return f"+ {_shown(self.after)}"
        if self.change == "removed":
            return f"- {_shown(self.before)}"
        if self.change == "reordered":
            return "~ the same, in another order"
        moved = ""
        if isinstance(self.before, float) and isinstance(self.after, float):
            moved = f"  ({self.after - self.before:+.4g})"
        return f"~ {_shown(self.before)} → {_shown(self.after)}{moved}"


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(item)}" for name, item in value.items())
    return " ".join(str(value).split())


def diff(before: Policy, after: Policy) -> list[Change]:
    """Return every difference of what two policies say.

    Returns:
        Changes in the order of a policy file; none exactly when both judge and describe alike.
    """
    renamed = dict(_renamed(before.categories, after.categories))
    return [
        *_value("description", before.description, after.description),
        *_sentences("templates", before.templates, after.templates),
        *_sentences("contrast", before.contrast, after.contrast),
        *_categories(before.categories, after.categories, renamed),
        *_calibrations(before, after),
    ]


def _value(path: str, before: Any, after: Any) -> Iterator[Change]:
    if before in ("", None) and after not in ("", None):
        yield Change(path, "added", None, after)
    elif after in ("", None) and before not in ("", None):
        yield Change(path, "removed", before, None)
    elif before != after:
        yield Change(path, "changed", before, after)


def _sentences(path: str, before: Sequence[str], after: Sequence[str]) -> Iterator[Change]:
    gone = [text for text in before if text not in set(after)]
    new = [text for text in after if text not in set(before)]
    pairs = _reworded(gone, new)
    for text in gone:
        if text in pairs:
            yield Change(path, "reworded", text, pairs[text])
        else:
            yield Change(path, "removed", text, None)
    for text in new:
        if text not in pairs.values():
            yield Change(path, "added", None, text)
    if not gone and not new and list(before) != list(after):
        yield Change(path, "reordered", list(before), list(after))


def _reworded(gone: Sequence[str], new: Sequence[str]) -> dict[str, str]:
    """Match sentences by likeness, the most alike first, each once."""
    if len(gone) * len(new) > _MAX_PAIRS:
        return {}
    alike = []
    for text in new:
        # SequenceMatcher remembers its second sentence.
        matcher = difflib.SequenceMatcher(None, "", text.casefold(), autojunk=False)
        for old in gone:
            matcher.set_seq1(old.casefold())
            if matcher.quick_ratio() >= _REWORDED and (ratio := matcher.ratio()) >= _REWORDED:
                alike.append((ratio, old, text))
    pairs: dict[str, str] = {}
    for _, old, text in sorted(alike, key=lambda item: -item[0]):
        if old not in pairs and text not in pairs.values():
            pairs[old] = text
    return pairs


def _renamed(before: dict[str, Category], after: dict[str, Category]) -> Iterator[tuple[str, str]]:
    """Yield categories that have another name and at least half of their prompts still."""
    new = [name for name in after if name not in before]
    for old in [name for name in before if name not in after]:
        prompts = set(before[old].prompts)
        for name in new:
            kept = prompts & set(after[name].prompts)
            if 2 * len(kept) >= max(len(prompts), len(after[name].prompts)):
                yield old, name
                new.remove(name)
                break


def _categories(before: dict[str, Category], after: dict[str, Category], renamed: dict[str, str]) -> Iterator[Change]:
    for old, category in before.items():
        name = renamed.get(old, old)
        if name not in after:
            yield Change(f"categories.{old}", "removed", _summary(category), None)
            continue
        if name != old:
            yield Change(f"categories.{name}", "renamed", old, name)
        yield from _category(f"categories.{name}", category, after[name])
    for name, category in after.items():
        if name not in before and name not in renamed.values():
            yield Change(f"categories.{name}", "added", None, _summary(category))
    if not renamed and before.keys() == after.keys() and list(before) != list(after):
        yield Change("categories", "reordered", list(before), list(after))


def _summary(category: Category) -> dict[str, Any]:
    return {"prompts": "; ".join(category.prompts)} | category.thresholds.as_dict()


def _exemplars(path: str, before: Category, after: Category) -> Iterator[Change]:
    old, new = before.exemplars, after.exemplars
    for kind in KINDS:
        gone, come = (_named(pool, kind) for pool in (old, new))
        for name in gone:
            if name not in come:
                yield Change(f"{path}.{kind}", "removed", name, None)
        for name, exemplar in come.items():
            if name not in gone:
                yield Change(f"{path}.{kind}", "added", None, name)
            elif exemplar != gone[name]:
                digests = (f"{name} ({gone[name].digest})", f"{name} ({exemplar.digest})")
                yield Change(f"{path}.{kind}", "changed", *digests)
        if list(gone) != list(come) and gone == come:
            yield Change(f"{path}.{kind}", "reordered", list(gone), list(come))
    # Pools that come or go are said already; a strength that is none of the usual says more.
    strengths = [pool.strength if pool else DEFAULT_STRENGTH for pool in (old, new)]
    yield from _value(f"{path}.strength", *strengths)


def _named(exemplars: Exemplars | None, kind: str) -> dict[str, Exemplar]:
    """Return one pool by ref; a ref stands once in it."""
    return {exemplar.ref: exemplar for exemplar in getattr(exemplars, kind, ())}


def _category(path: str, before: Category, after: Category) -> Iterator[Change]:
    yield from _value(f"{path}.description", before.description, after.description)
    yield from _sentences(f"{path}.prompts", before.prompts, after.prompts)
    yield from _sentences(f"{path}.look_alikes", before.look_alikes or (), after.look_alikes or ())
    yield from _exemplars(f"{path}.exemplars", before, after)
    for name in ("review", "block"):
        yield from _value(
            f"{path}.thresholds.{name}", getattr(before.thresholds, name), getattr(after.thresholds, name)
        )


def _calibrations(before: Policy, after: Policy) -> Iterator[Change]:
    for model in dict.fromkeys([*before.calibration, *after.calibration]):
        old, new = before.calibration.get(model, {}), after.calibration.get(model, {})
        for name in dict.fromkeys([*old, *new]):
            path = f"calibration.{model}.{name}"
            if name not in old or name not in new:
                yield from _value(path, _numbers(old.get(name)), _numbers(new.get(name)))
                continue
            for field in Calibration.model_fields:
                yield from _value(f"{path}.{field}", getattr(old[name], field), getattr(new[name], field))


def _numbers(calibration: Calibration | None) -> dict[str, Any] | None:
    return calibration.model_dump() if calibration else None
