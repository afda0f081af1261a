"""Numbers as Grafana writes them: a value and a panel's unit to text, and the ticks of an axis.

In: a value, a Grafana unit id. Out: text. A unit that no dashboard uses is unknown here.
"""

from __future__ import annotations

import math

#: Unit → (factor, suffix) from the largest; the last is for all that is smaller.
_SCALES: dict[str, list[tuple[float, str]]] = {
    "s": [(3600, " h"), (60, " min"), (1, " s"), (1e-3, " ms"), (1e-6, " µs")],
    "bytes": [(2.0**30, " GiB"), (2.0**20, " MiB"), (2.0**10, " KiB"), (1, " B")],
    "short": [(1e6, " Mil"), (1e3, " K"), (1, "")],
    "percentunit": [(1e-2, "%")],
}


def shown(value: float, unit: str, digits: int = 3) -> str:
    """Write a value in its unit.

    Args:
        value: In the unit's base.
        unit: A Grafana unit id, or `suffix:text`.
        digits: How many of the value count.

    Returns:
        What a panel would say; `No data` for NaN.
    """
    if math.isnan(value):
        return "No data"
    if unit.startswith("suffix:"):
        return f"{_rounded(value, digits)}{unit.removeprefix('suffix:')}"
    scales = _SCALES[unit]
    factor, suffix = next((each for each in scales if abs(value) >= each[0] * 0.9995), scales[-1])
    if value == 0 or (unit == "short" and abs(value) < 1):
        factor, suffix = (1e-2, "%") if unit == "percentunit" else (1, {"s": " s", "bytes": " B"}.get(unit, ""))
    return f"{_rounded(value / factor, digits)}{suffix}"


def ticks(low: float, high: float, unit: str) -> list[float]:
    """Choose about four round values between two."""
    span = max(high - low, 1e-9)
    base = 1.0
    if unit in ("s", "bytes"):
        base = next((factor for factor, _ in _SCALES[unit] if span >= factor), 1.0)
    raw = span / base / 4
    power = 10 ** math.floor(math.log10(raw))
    step = base * power * next(nice for nice in (1, 2, 5, 10) if raw <= nice * power)
    first = math.ceil(low / step - 1e-9)
    return [step * index for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _rounded(value: float, digits: int) -> str:
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
