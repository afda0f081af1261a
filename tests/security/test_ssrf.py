"""The worker is not turned inward: every trick is tried where no packet can leave, and every connection is watched."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
UNSHARE = ["unshare", "--map-root-user", "--net"]


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    """Run the tricks in a network namespace of their own."""
    try:
        allowed = subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        allowed = False
    if not allowed:
        pytest.skip("this machine permits no network namespaces (unshare --map-root-user --net)")
    script = Path(__file__).with_name("ssrf_tricks.py")
    command = [*UNSHARE, sys.executable, "-W", "error", str(script)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=100, check=False, cwd=REPOSITORY, env={"PYTHONPATH": "."}
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_no_trick_is_let_through(report: dict[str, Any]) -> None:
    print(
        f"{report['tried']} tricks, {len(report['through'])} let through, {len(report['otherwise'])} failed otherwise"
    )
    assert report["through"] == []
    assert report["tried"] >= 60


def test_every_trick_is_refused_for_what_it_is(report: dict[str, Any]) -> None:
    # A redirect that httpx cannot read is a broken answer: it goes nowhere either.
    unreadable = [line for line in report["otherwise"] if not line.startswith("a redirect to")]
    assert unreadable == [], "\n".join(unreadable)


def test_no_connection_goes_anywhere_but_to_the_site_that_may_be_fetched_from(report: dict[str, Any]) -> None:
    assert report["strangers"] == []
    assert report["baited"] == []
    assert report["connects"] > 0


def test_a_name_that_is_rebound_after_it_was_checked_leads_nowhere_else(report: dict[str, Any]) -> None:
    for name, harmless, lookups in report["rebindings"]:
        assert harmless, name
        assert lookups == 1, name
