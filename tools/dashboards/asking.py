"""Asks a Prometheus what a panel asks, with the variables that a reader would have chosen.

In: a panel's targets. Out: named series over time, or rows of labels. Never writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt

from tools.dashboards.read import substitute


@dataclass(frozen=True)
class Series:
    """One line of a panel.

    Attributes:
        name: As the legend says.
        labels: Of the series.
        times: Unix seconds, shape (n,).
        values: Shape (n,); NaN where there is none.
    """

    name: str
    labels: dict[str, str]
    times: npt.NDArray[np.float64]
    values: npt.NDArray[np.float64]

    @property
    def last(self) -> float:
        """The last value that is a number; NaN without one."""
        known = self.values[~np.isnan(self.values)]
        return float(known[-1]) if known.size else float("nan")


@dataclass(frozen=True)
class Asking:
    """A Prometheus and a time that is looked at.

    Attributes:
        url: Of Prometheus.
        start: Unix seconds.
        end: Unix seconds; what is asked for "now" is asked for then.
        step_seconds: Between points.
        variables: What `substitute` takes.
    """

    url: str
    start: float
    end: float
    step_seconds: float
    variables: dict[str, str]

    def about(self, **variables: str) -> Asking:
        """Ask the same with other values of variables."""
        return Asking(self.url, self.start, self.end, self.step_seconds, self.variables | variables)

    def series(self, target: dict[str, Any]) -> list[Series]:
        """Ask for a target's series, over the whole time or for its end."""
        query = substitute(target["expr"], **self.variables)
        if target.get("instant"):
            rows = self._get("query", query=query, time=self.end)["result"]
            found = [(row["metric"], [row["value"]]) for row in rows]
        else:
            asked = {"query": query, "start": self.start, "end": self.end, "step": self.step_seconds}
            found = [(row["metric"], row["values"]) for row in self._get("query_range", **asked)["result"]]
        make = self._latest if target.get("instant") else self._filled
        named = [make(target.get("legendFormat", ""), labels, values) for labels, values in found]
        return sorted(named, key=lambda each: each.name) if "sort" not in query else named

    def values_of(self, query: str) -> list[str]:
        """Ask for the values of a label: `label_values(metric, label)`."""
        found = re.fullmatch(r"label_values\((.+), (\w+)\)", query)
        if found is None:
            raise ValueError(f"not label_values(metric, label): {query}")
        asked = {"match[]": substitute(found[1], **self.variables), "start": self.start, "end": self.end}
        return sorted(self._get(f"label/{found[2]}/values", **asked))

    def moments(self, annotation: dict[str, Any]) -> Iterator[tuple[float, str]]:
        """Yield when what an annotation marks happened, and its title."""
        for each in self.series({"expr": annotation["expr"], "legendFormat": annotation["titleFormat"]}):
            there = ~np.isnan(each.values)
            begins = there & ~np.concatenate(([False], there[:-1]))
            yield from ((float(time), each.name) for time in each.times[begins])

    def _latest(self, legend: str, labels: dict[str, str], values: list[list[Any]]) -> Series:
        ((time, value),) = values
        return Series(_named(legend, labels), labels, np.array([float(time)]), np.array([float(value)]))

    def _filled(self, legend: str, labels: dict[str, str], values: list[list[Any]]) -> Series:
        # A gap stays a gap: each series has a point, or none, at every step, even one that was there for a moment only.
        at = np.array([float(time) for time, _ in values])
        times = np.arange(self.start, self.end + self.step_seconds / 2, self.step_seconds)
        filled = np.full(times.shape, np.nan)
        filled[np.rint((at - self.start) / self.step_seconds).astype(int)] = [float(value) for _, value in values]
        return Series(_named(legend, labels), labels, times, filled)

    def _get(self, page: str, **asked: Any) -> Any:
        answer = httpx.get(f"{self.url}/api/v1/{page}", params=asked, timeout=30)
        answer.raise_for_status()
        return answer.json()["data"]


def _named(legend: str, labels: dict[str, str]) -> str:
    return re.sub(r"{{(\w+)}}", lambda found: labels.get(found[1], ""), legend)
