"""Cases × policy → which expectations hold: a policy's own tests.

In: a compiled policy, cases, and an embedding for each. Out: one `Check` for each expectation, in order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from worker.errors import JobError
from worker.policy.cases import Case, is_expected
from worker.policy.compiled import CompiledPolicy, Matrix
from worker.policy.wording import Seen
from worker.scoring import score
from worker.verdict import decide


@dataclass(frozen=True, slots=True)
class Check:
    """One expectation and what became of it."""

    policy: str
    case: str
    #: None for what the whole policy says.
    category: str | None
    expected: str
    #: What was said; None when the image cannot be judged.
    action: str | None
    #: Of the category; the strongest category's is not the policy's, so None there.
    score: float | None
    passed: bool
    #: Why the image cannot be judged.
    reason: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the check as one JSON object."""
        return asdict(self)


def check_cases(
    compiled: CompiledPolicy, cases: Sequence[Case], embeddings: Mapping[str, Matrix | JobError]
) -> Iterator[Check]:
    """Yield whether each expectation holds.

    Args:
        compiled: The policy under the encoder that made the embeddings.
        cases: What is expected.
        embeddings: By case name: of all views `(views, dim)`, or why the image cannot be judged. Of one that cannot be
            judged no expectation holds.
    """
    for case in cases:
        found = embeddings[case.name]
        expected = {None: case.action} if case.action else {}
        wanted: dict[str | None, str] = expected | {name: str(item) for name, item in case.expect.items()}
        if isinstance(found, JobError):
            for name, said in wanted.items():
                yield Check(compiled.policy.ref, case.name, name, said, None, None, False, found.reason)
            continue
        decision = decide(compiled, score(found, compiled))
        if case.action:
            holds = is_expected(case.action, decision.action)
            yield Check(compiled.policy.ref, case.name, None, case.action, decision.action, None, holds)
        for name, item in case.expect.items():
            verdict = decision.categories[name]
            holds = item.holds(verdict.action, verdict.score)
            yield Check(compiled.policy.ref, case.name, name, str(item), verdict.action, verdict.score, holds)


def greatest_scores(compiled: CompiledPolicy, images: Mapping[str, Matrix], where: str) -> Seen:
    """Return the greatest score that images reach in each category.

    Args:
        compiled: The policy under the encoder that made the embeddings.
        images: `(views, dim)` each.
        where: How it is said where they come from.
    """
    decisions = [decide(compiled, score(embedding, compiled)) for embedding in images.values()]
    names = [category.name for category in compiled.categories]
    return Seen({name: max(found.categories[name].score for found in decisions) for name in names}, where)
