"""Writes the tables of the README that say what the code says: settings, metrics, reasons.

In: `Settings`, `Metrics`, `REASONS`. Out: README.md, between its markers: `python -m tools.reference` rewrites it.
A test fails while it differs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from worker.errors import REASONS
from worker.metrics import SCRAPED, Metrics
from worker.settings import PREFIX, Settings

README = Path(__file__).parents[1] / "README.md"


def settings_table() -> Iterator[str]:
    """Yield a row for each setting."""
    yield "| setting | default | what it is |"
    yield "|---|---|---|"
    for name, value in Settings.model_construct().model_dump(mode="json").items():
        shown = ",".join(_text(part) for part in value) if isinstance(value, list) else value
        default = "" if shown in (None, "") else f"`{str(shown).lower() if isinstance(shown, bool) else shown}`"
        yield f"| `{PREFIX}{name.upper()}` | {default} | {Settings.model_fields[name].description} |"


def _text(part: object) -> str:
    return f"{part:g}" if isinstance(part, float) else str(part)


def metrics_table() -> Iterator[str]:
    """Yield a row for each metric."""
    metrics = Metrics()
    metrics.watch(dict)
    yield "| metric | type | labels | what it is |"
    yield "|---|---|---|---|"
    for collector in metrics.registry._collector_to_names:
        for family in collector.describe():
            name = family.name + ("_total" if family.type == "counter" else "")
            labels = SCRAPED[name][1] if name in SCRAPED else collector._labelnames
            shown = ", ".join(f"`{label}`" for label in labels)
            yield f"| `{name}` | {family.type} | {shown} | {family.documentation} |"


def reasons_table() -> Iterator[str]:
    """Yield a row for each reason."""
    yield "| `reason` | what it means |"
    yield "|---|---|"
    for reason, meaning in REASONS.items():
        yield f"| `{reason}` | {meaning} |"


def render(text: str) -> str:
    """Return `text` with every table between its markers as the code says."""
    for name, table in (("settings", settings_table), ("metrics", metrics_table), ("reasons", reasons_table)):
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        body = "\n".join([begin, *table(), end])
        text = re.sub(re.escape(begin) + ".*?" + re.escape(end), lambda _, body=body: body, text, flags=re.DOTALL)
    return text


if __name__ == "__main__":
    README.write_text(render(README.read_text()))
