"""`sluice explain` as it is typed: what is said, the exit code, and what it does without."""

from __future__ import annotations

import re
from pathlib import Path

import judged
import pytest
import redis
import support

from worker.cli import demo
from worker.policy.registry import shipped_directory
from worker.sinks.stream import STREAM

pytestmark = pytest.mark.timeout(120)

REVOLVER = Path(demo.__file__).parent / "demo_images" / "revolver-noto.png"
DEMO = {"model": "builtin", "policies": shipped_directory(), "policy": "demo"}


def test_a_drawing_is_explained_in_lines_that_a_person_reads() -> None:
    said = support.sluice("explain", REVOLVER, settings=DEMO)
    assert (said.returncode, said.stderr) == (0, "")
    for pattern in (
        r"^block  .*revolver-noto\.png$",
        r"^weapons is strongest: “a pistol” against “a water pistol”$",
        r"^  block from 0\.95: reached by 0\.\d{4}, \d\.\d\d logits of margin ← decided$",
        r"^judged again from the image: equal$",
        r"^  without the prompt “a pistol”: review \(weapons 0\.\d{4}\)$",
        r"^  weapons\.block above 0\.\d{4} instead of 0\.95: review$",
    ):
        assert re.search(pattern, said.stdout, re.MULTILINE), pattern


def test_a_job_is_one_line_and_exit_code_3_while_redis_is_away() -> None:
    said = support.sluice("explain", "some-job", settings={"redis_url": "redis://127.0.0.1:1/0"})
    assert (said.returncode, said.stdout) == (3, "")
    assert re.fullmatch(r"sluice: Redis at redis://127\.0\.0\.1:1/0 does not answer .*\n", said.stderr)


def test_what_the_uploader_may_read_of_a_job_needs_no_model(connection: redis.Redis, redis_url: str) -> None:
    verdict = judged.verdict(judged.image({judged.RIFLE: 12}))
    connection.xadd(STREAM, {"verdict": verdict.to_json()})
    said = support.sluice(
        "explain", verdict.job_id, "--audience", "user", settings={"redis_url": redis_url, "appeal": "Call 555."},
        PYTHONPROFILEIMPORTTIME="1",
    )  # fmt: skip
    assert said.returncode == 0
    assert said.stdout.splitlines() == [
        "Your upload was not accepted.",
        "It was taken to show what this policy calls “weapons”.",
        "This was decided automatically, from the picture alone.",
        f"Policy: armoury, version 1. Decided on 2027-08-09. Reference: {verdict.verdict_id}",
        "To object: Call 555.",
    ]
    imported = {line.rpartition("|")[2].strip() for line in said.stderr.splitlines()}
    assert "worker.lookup" in imported
    assert not imported & {"torch", "transformers", "PIL", "matplotlib"}
