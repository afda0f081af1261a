"""New numbers in a policy's page: calibrations for one model, and thresholds.

In: the numbers. Out: an `Edit` for `write_next`. Never a sentence, and never another model's calibration.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from worker.errors import Missing
from worker.policy.next_version import Edit
from worker.policy.schema import Calibration


def renumber(
    model: str, calibrations: Mapping[str, Calibration], thresholds: Mapping[str, Mapping[str, float]]
) -> Edit:
    """Return a change of numbers.

    Args:
        model: `id@revision` that the calibrations are for.
        calibrations: By category; others keep theirs.
        thresholds: By category, then by action; others keep theirs.
    """

    def edit(document: Any) -> None:
        for name, moved in thresholds.items():
            _own(document["categories"], name)
            _own(document["categories"][name], "thresholds").update(moved)
        if calibrations:
            _own(_own(document, "calibration"), model).update(
                {name: _in_one_line(made.model_dump(mode="json")) for name, made in calibrations.items()}
            )

    return edit


def _own(mapping: Any, key: str) -> Any:
    """Return a block that no alias shares, made where there is none."""
    mapping[key] = copy.deepcopy(mapping.get(key)) or {}
    return mapping[key]


def _in_one_line(numbers: Mapping[str, Any]) -> Any:
    try:
        from ruamel.yaml.comments import CommentedMap  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise Missing("writing versions needs the extra report; run pip install 'sluicegate[report]'") from error
    line = CommentedMap(numbers)
    line.fa.set_flow_style()
    return line
