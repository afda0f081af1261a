"""Writes Prometheus's rules as the object that its operator reads: `python -m tools.prometheus_rule`.

In: deploy/prometheus/rules/*.yml. Out: deploy/kubernetes/monitoring/rules.yaml. A test fails while it differs.
"""

from __future__ import annotations

from pathlib import Path

import yaml

_DEPLOY = Path(__file__).parents[1] / "deploy"
RULES = _DEPLOY / "prometheus" / "rules"
TARGET = _DEPLOY / "kubernetes" / "monitoring" / "rules.yaml"
_HEAD = "# Written by `python -m tools.prometheus_rule` from deploy/prometheus/rules.\n"


def render() -> str:
    """Return the object with the groups of every file, by the files' names."""
    groups = [group for file in sorted(RULES.glob("*.yml")) for group in yaml.safe_load(file.read_text())["groups"]]
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "sluice"},
        "spec": {"groups": groups},
    }
    return _HEAD + yaml.safe_dump(rule, sort_keys=False, width=120, allow_unicode=True)


if __name__ == "__main__":
    TARGET.write_text(render())
