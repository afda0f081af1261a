"""What a query reads and what labels its series have, and what the worker exports: to hold queries against metrics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import promql_parser as promql
from prometheus_client import Histogram

from worker.metrics import Metrics

#: What Prometheus adds to every series that it scrapes.
TARGET = frozenset({"job", "instance"})
#: What a histogram's series are called.
_HISTOGRAM = {"_bucket": {"le"}, "_sum": set(), "_count": set()}


@dataclass(frozen=True)
class Exported:
    """A series' name as Prometheus knows it: whether it only ever grows, and its labels."""

    grows: bool
    labels: frozenset[str]


def exported() -> dict[str, Exported]:
    """Say what a worker exports, from the metrics themselves: series' name → what it is."""
    metrics = Metrics()
    metrics.watch(dict)
    found: dict[str, Exported] = {}
    for collector in metrics.registry._collector_to_names:
        for family in collector.describe():
            labels = frozenset(getattr(collector, "_labelnames", None) or getattr(family, "_labelnames", ()))
            if isinstance(collector, Histogram):
                for ending, more in _HISTOGRAM.items():
                    found[family.name + ending] = Exported(grows=True, labels=labels | more)
            else:
                grows = family.type == "counter"
                found[family.name + ("_total" if grows else "")] = Exported(grows, labels)
    return found


def inside(expression: Any) -> list[Any]:
    """List what an expression is made of, one level down."""
    if isinstance(expression, promql.BinaryExpr):
        return [expression.lhs, expression.rhs]
    if isinstance(expression, promql.Call):
        return list(expression.args)
    if isinstance(expression, promql.MatrixSelector):
        return [expression.vector_selector]
    return [expression.expr] if hasattr(expression, "expr") else []


def walk(expression: Any, *above: Any) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Yield each part of an expression, with what it stands in, innermost first."""
    yield expression, above
    for part in inside(expression):
        yield from walk(part, expression, *above)


def selectors(expression: Any) -> list[promql.VectorSelector]:
    """List what an expression reads."""
    return [part for part, _ in walk(expression) if isinstance(part, promql.VectorSelector)]


def labels(expression: Any, known: dict[str, Exported]) -> frozenset[str]:
    """Say which labels the series of an expression have.

    Raises:
        NotImplementedError: The expression says `without`, which depends on what is scraped.
    """
    if isinstance(expression, promql.VectorSelector):
        return known[expression.name].labels | TARGET
    if isinstance(expression, promql.AggregateExpr):
        return _aggregated(expression, known)
    if isinstance(expression, promql.BinaryExpr):
        return _combined(expression, known)
    parts: frozenset[str] = frozenset().union(*(labels(part, known) for part in inside(expression)))
    taken = {"le"} if isinstance(expression, promql.Call) and expression.func.name == "histogram_quantile" else set()
    return parts - taken


def _aggregated(expression: promql.AggregateExpr, known: dict[str, Exported]) -> frozenset[str]:
    if str(expression.op) in ("topk", "bottomk"):
        return labels(expression.expr, known)
    if expression.modifier is None:
        return frozenset()
    if expression.modifier.type != promql.AggModifierType.By:
        raise NotImplementedError("without")
    # What is not there cannot be grouped by: Prometheus then gives one series without it.
    return frozenset(expression.modifier.labels) & labels(expression.expr, known)


def _combined(expression: promql.BinaryExpr, known: dict[str, Exported]) -> frozenset[str]:
    left, right = (labels(part, known) for part in (expression.lhs, expression.rhs))
    if str(expression.op) in ("and", "unless"):
        return left
    if str(expression.op) == "or":
        return left & right
    # A number beside a vector leaves the vector's labels; group_left keeps those of the many.
    return left | right
