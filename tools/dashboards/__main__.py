"""`python -m tools.dashboards` writes deploy/grafana/dashboards."""

from __future__ import annotations

from tools.dashboards.intake import intake
from tools.dashboards.moderation import moderation
from tools.dashboards.overview import overview
from tools.dashboards.read import DASHBOARDS

#: File name → what makes it.
MADE_BY = {"overview.json": overview, "moderation.json": moderation, "intake.json": intake}


def main() -> None:
    """Write every dashboard."""
    DASHBOARDS.mkdir(parents=True, exist_ok=True)
    for name, make in MADE_BY.items():
        (DASHBOARDS / name).write_text(make())


if __name__ == "__main__":
    main()
