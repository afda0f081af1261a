"""Dashboards as code: what Grafana shows of Sluice, written in Python, shipped as JSON.

In: the metrics of `worker/metrics.py`, by name. Out: deploy/grafana/dashboards, by `python -m tools.dashboards`.
A test fails while the JSON differs from the code.
"""
