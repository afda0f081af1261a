"""Which views of an image tell a category by, when the image becomes an exemplar of it.

In: a compiled policy and an image's embeddings. Out: those that count. Never a picture.
"""

from __future__ import annotations

from worker.policy.compiled import CompiledPolicy, Matrix
from worker.policy.exemplars import MAX_VIEWS, Kind
from worker.scoring import score
from worker.verdict import action_of


def telling_views(compiled: CompiledPolicy, category: str, kind: Kind, embeddings: Matrix) -> Matrix:
    """Return the views by which an image is an exemplar.

    A category's score is the maximum over the views. So one view is enough to be a match: the one that scores highest,
    for it shows most of what was missed. To be unlike takes every view that raised the alarm; the others are ordinary.

    Args:
        compiled: The policy that judged wrongly, under the encoder that made the embeddings.
        category: Of which it was wrong.
        kind: Whether the image was missed or wrongly flagged.
        embeddings: `(views, dim)` of all its views.

    Returns:
        `(1 or more, dim)`, the highest score first; at most `MAX_VIEWS`.
    """
    column = [each.name for each in compiled.categories].index(category)
    found = score(embeddings, compiled).score[:, column]
    order = (-found).argsort(kind="stable")
    thresholds = compiled.policy.categories[category].thresholds.as_dict()
    alarms = [view for view in order if action_of(float(found[view]), thresholds) != "allow"]
    kept = (alarms or [order[0]])[:MAX_VIEWS] if kind == "unlike" else [order[0]]
    return embeddings[kept]
