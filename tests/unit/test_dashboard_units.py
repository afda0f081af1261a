"""Numbers are written as Grafana writes them, and axes have round ticks."""

from __future__ import annotations

import pytest

from tools.dashboards.units import shown, ticks


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "s", "0 s"),
        (0.0066, "s", "6.6 ms"),
        (2.39, "s", "2.39 s"),
        (90, "s", "1.5 min"),
        (0, "bytes", "0 B"),
        (536870912, "bytes", "512 MiB"),
        (0.0667, "percentunit", "6.67%"),
        (0, "percentunit", "0%"),
        (1, "percentunit", "100%"),
        (0.25, "short", "0.25"),
        (100, "short", "100"),
        (12500, "short", "12.5 K"),
        (-0.2, "short", "-0.2"),
        (54.3, "suffix: /s", "54.3 /s"),
        (float("nan"), "s", "No data"),
    ],
)
def test_a_value_is_written_in_its_unit(value: float, unit: str, text: str) -> None:
    assert shown(value, unit) == text


@pytest.mark.parametrize(
    ("low", "high", "unit", "expected"),
    [
        (0, 1, "percentunit", [0, 0.5, 1]),
        (0, 22, "suffix: /s", [0, 10, 20]),
        (-0.6, 0.5, "short", [-0.5, 0, 0.5]),
        (0, 300 * 2**20, "bytes", [0, 100 * 2**20, 200 * 2**20, 300 * 2**20]),
    ],
)
def test_ticks_are_round_in_their_unit(low: float, high: float, unit: str, expected: list[float]) -> None:
    assert ticks(low, high, unit) == pytest.approx(expected)
