"""A real Prometheus under the shipped configuration and rules, and the questions that it is asked.

Of what is shipped, only how often it looks and where the targets are is changed: they are on loopback here.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import support
import yaml

SHIPPED = Path(__file__).parents[2] / "deploy" / "prometheus"
#: How often it scrapes and evaluates.
INTERVAL = "1s"


class Prometheus:
    """A Prometheus that runs.

    Attributes:
        url: Where.
    """

    def __init__(self, url: str, directory: Path) -> None:
        self.url = url
        self._directory = directory

    def watch(self, job: str, *metrics_urls: str) -> None:
        """Say which targets a job of the shipped configuration has now."""
        addresses = [url.removeprefix("http://") for url in metrics_urls]
        # A half-written file would be read.
        fresh = self._directory / f"{job}.new"
        fresh.write_text(json.dumps([{"targets": addresses}]))
        fresh.rename(self._directory / f"{job}.json")

    def ask(self, page: str, **arguments: object) -> Any:
        """Ask `/api/v1/<page>`; the data of its answer, which must be a success."""
        status, text = support.get(f"{self.url}/api/v1/{page}?{urllib.parse.urlencode(arguments)}")
        answer = json.loads(text) if text else {}
        assert (status, answer.get("status")) == (200, "success"), f"{page} {arguments}: {text}"
        return answer["data"]

    def query(self, expression: str, at: float | None = None) -> list[dict[str, Any]]:
        """Return the rows of an expression at a moment; a scalar is a row without labels."""
        data = self.ask("query", query=expression, **({} if at is None else {"time": at}))
        return [{"metric": {}, "value": data["result"]}] if data["resultType"] == "scalar" else list(data["result"])

    def values(self, expression: str) -> dict[tuple[str, ...], float]:
        """Return the values of `… by (…)`, by their labels' values in the order of the labels' names."""
        return {
            tuple(value for _, value in sorted(row["metric"].items())): float(row["value"][1])
            for row in self.query(expression)
        }

    def range(self, expression: str, start: float, end: float, step_seconds: float) -> list[dict[str, Any]]:
        """Return the rows of an expression over a time."""
        arguments = {"query": expression, "start": start, "end": end, "step": step_seconds}
        return list(self.ask("query_range", **arguments)["result"])


@contextmanager
def running_prometheus(directory: Path, jobs: Sequence[str], port: int = 0) -> Iterator[Prometheus]:
    """Run Prometheus for as long as the context lasts; skips the test where there is none.

    Args:
        directory: Where its files are.
        jobs: Jobs of the shipped configuration that must be there, to be watched.
        port: Where it listens; 0: anywhere.
    """
    binary = shutil.which("prometheus")
    if binary is None:
        pytest.skip("needs prometheus on PATH")
    url = f"http://127.0.0.1:{port or support.free_port()}"
    prometheus = Prometheus(url, directory)
    config = write_config(directory, jobs)
    prometheus.watch("prometheus", url)
    with (directory / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [binary, f"--config.file={config}", f"--storage.tsdb.path={directory / 'tsdb'}",
             f"--web.listen-address={url.removeprefix('http://')}"],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        said = directory / "prometheus.log"
        support.until(lambda: process.poll() is not None or support.get(f"{url}/-/ready")[0] == 200)
        assert process.poll() is None, said.read_text()[-2000:]
        yield prometheus
    finally:
        process.terminate()
        process.wait(20)


def write_config(directory: Path, jobs: Sequence[str]) -> Path:
    """Write the shipped configuration and rules for targets on loopback; the file."""
    config = yaml.safe_load((SHIPPED / "prometheus.yml").read_text())
    config["global"] |= {"scrape_interval": INTERVAL, "scrape_timeout": INTERVAL, "evaluation_interval": INTERVAL}
    # No Alertmanager here.
    config.pop("alerting", None)
    assert {"prometheus", *jobs} == {scrape["job_name"] for scrape in config["scrape_configs"]}
    for scrape in config["scrape_configs"]:
        _look_at_loopback(scrape, directory)
    # As Prometheus reads it: beside the file that names it.
    shipped = [rule for pattern in config["rule_files"] for rule in sorted(SHIPPED.glob(pattern))]
    assert shipped == sorted((SHIPPED / "rules").glob("*.yml")), "what is shipped is not what is named"
    config["rule_files"] = [str(_evaluated_often(rule, directory)) for rule in shipped]
    path = directory / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    return path


def _evaluated_often(rules: Path, directory: Path) -> Path:
    """Write a file of rules whose groups are evaluated as often as all others; where."""
    content = yaml.safe_load(rules.read_text())
    for group in content["groups"]:
        group.pop("interval", None)
    path = directory / rules.name
    path.write_text(yaml.safe_dump(content))
    return path


def _look_at_loopback(scrape: dict[str, Any], directory: Path) -> None:
    """Take the targets of a scrape configuration from a file, whatever found them; all else stays."""
    found: Mapping[str, Any] = {
        key: scrape.pop(key) for key in list(scrape) if key.endswith(("_sd_configs", "static_configs"))
    }
    assert found, scrape
    for key in ("scrape_interval", "scrape_timeout"):
        scrape.pop(key, None)
    scrape["file_sd_configs"] = [
        {"files": [str(directory / f"{scrape['job_name']}.json")], "refresh_interval": INTERVAL}
    ]
