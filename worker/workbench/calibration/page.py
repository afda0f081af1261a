"""What a calibration found → a page: how good scores are, before and after, and the pictures at each threshold.

In: `Calibrated`, and small pictures by name. Out: HTML. Never a picture of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from worker.workbench.calibration import charts
from worker.workbench.calibration.findings import Calibrated, Found
from worker.workbench.calibration.intervals import LEVEL
from worker.workbench.report.charts import BINS, score_histogram
from worker.workbench.report.page import render


def wanted_pictures(found: Calibrated, names: Sequence[str], most: int) -> list[str]:
    """Return the pictures that the page shows.

    Args:
        found: What was found.
        names: Of the traffic.
        most: At each threshold.
    """
    places = [
        place
        for category in found.categories.values()
        for action in category.after.thresholds
        for place in found.nearest(category.name, action, most)
    ]
    return list(dict.fromkeys(names[place] for place in places))


def draw(found: Calibrated, names: Sequence[str], pictures: Mapping[str, str], most: int, written: str | None) -> str:
    """Return the page.

    Args:
        found: What was found.
        names: Of the traffic.
        pictures: `data:` URIs by name; those that are not at hand are named only.
        most: Pictures at each threshold.
        written: The new version's file.

    Raises:
        Missing: The extra `report` is not installed.
    """
    categories = [_category(found, category, names, pictures, most) for category in found.categories.values()]
    return render("calibration", found=found, categories=categories, written=written, level=LEVEL)


def _category(
    found: Calibrated, category: Found, names: Sequence[str], pictures: Mapping[str, str], most: int
) -> dict[str, Any]:
    thresholds = {action: at.threshold for action, at in category.after.thresholds.items()}
    sides = {"before": category.traffic[0]} | ({"after": category.traffic[1]} if category.fitted else {})
    counts = {name: np.histogram(scores, BINS, (0, 1))[0].tolist() for name, scores in sides.items()}
    judged = category.judged
    said = {} if judged is None else dict(zip(judged.places.tolist(), judged.shows.tolist(), strict=True))
    values: dict[str, Any] = {
        "found": category,
        "cautions": [caution for caution in found.cautions if caution.category == category.name],
        "histogram": score_histogram(counts, thresholds),
        "reliability": None,
        "curve": None,
        "pictures": {
            action: [
                (names[place], category.traffic[1][place], pictures.get(names[place]), said.get(place))
                for place in found.nearest(category.name, action, most)
            ]
            for action in thresholds
        },
    }
    if category.judged is not None:
        at = {
            action: (side.recall, side.precision)
            for action, side in category.after.thresholds.items()
            if side.recall is not None and side.precision is not None
        }
        values["reliability"] = charts.reliability_diagram(category.judged, fitted=category.fitted)
        values["curve"] = charts.precision_recall(category.judged, at, fitted=category.fitted)
    return values
