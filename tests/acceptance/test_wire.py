"""docs/wire.md as a backend without Python uses it: each command and each program, as it stands."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
import support
from house import PNG, House, durable_redis

from worker.client import Moderation, read_verdicts

pytestmark = [pytest.mark.timeout(180), pytest.mark.thorough]

DOCUMENT = (Path(__file__).parents[2] / "docs" / "wire.md").read_text()
COMMANDS = re.findall(r"^```sh\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
PROGRAMS = dict(re.findall(r"\(`(\w+\.mjs)`\):\n\n```js\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL))
SHAPES: dict[str, Any] = {}
for _fence in re.findall(r"^```python\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL):
    exec(_fence, SHAPES)
PACKAGE = "redis@6.3.1"


@dataclass
class Backend:
    """A backend without Python, beside a house with a worker."""

    house: House
    directory: Path

    def run(self, *command: str, **variables: str) -> str:
        """Run a program where the packages are; what it says."""
        given = {"SLUICE_REDIS_URL": self.house.url, "IMAGE_URL": self.house.site.url + "/cat.png"} | variables
        done = subprocess.run(
            command, cwd=self.directory, env=os.environ | given, capture_output=True, text=True, timeout=90, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def node(self, program: str, **variables: str) -> str:
        """Run a program of the document."""
        (self.directory / program).write_text(PROGRAMS[program])
        return self.run("node", program, **variables)

    def verdicts(self) -> dict[str, dict[str, Any]]:
        """Return the verdicts by content id."""
        return {entry["content_id"]: json.loads(entry["verdict"]) for entry in self.house.entries()}


@pytest.fixture(scope="module")
def backend(
    settings: dict[str, object], site: support.Website, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Backend]:
    directory = tmp_path_factory.mktemp("backend")
    site.page("/cat.png", (200, PNG))
    with durable_redis(directory) as server, redis.Redis(port=server.port) as connection:
        house = House(connection, site, directory)
        with support.running_worker(settings | {"redis_url": server.url}, directory) as house.worker:
            yield Backend(house, directory)


@pytest.fixture(scope="module")
def node(backend: Backend) -> Backend:
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("needs node and npm on PATH")
    flags = ("--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error")
    (backend.directory / "package.json").write_text("{}")
    done = subprocess.run(
        ["npm", "install", *flags, PACKAGE],
        cwd=backend.directory,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"npm cannot install {PACKAGE}: {done.stderr.strip().splitlines()[-1]}")
    return backend


def test_the_document_has_what_is_run_here() -> None:
    assert len(COMMANDS) == 2
    assert list(PROGRAMS) == ["uploads.mjs", "verdicts.mjs", "enqueue.mjs"]
    assert {"to_hive", "to_coop", "to_osprey"} <= SHAPES.keys()


def test_redis_cli_is_enough_to_have_a_url_and_bytes_judged(backend: Backend) -> None:
    for binary in ("redis-cli", "curl", "sha256sum"):
        if shutil.which(binary) is None:
            pytest.skip(f"needs {binary} on PATH")
    for command in COMMANDS:
        backend.run("bash", "-euo", "pipefail", "-c", command)
    support.until(lambda: {"upload-1", "upload-2"} <= backend.verdicts().keys(), what="both are judged")
    assert [backend.verdicts()[name]["reason"] for name in ("upload-1", "upload-2")] == [None, None]


def test_node_adds_many_uploads_and_reads_each_verdict_as_python_does(node: Backend) -> None:
    node.node("uploads.mjs")
    names = {f"node-{number}" for number in range(100)}
    support.until(lambda: names <= node.verdicts().keys(), what="all are judged")
    total = len(node.house.entries())
    # A member that reads ten and dies.
    node.house.connection.xgroup_create("sluice:verdicts", "backend", id="0")
    node.house.connection.xreadgroup("backend", "dead", {"sluice:verdicts": ">"}, count=10)
    said = node.node("verdicts.mjs", WANTED=str(total), CLAIM_MS="0")
    read = [tuple(json.loads(line)) for line in said.splitlines()]
    expected = {
        (verdict.verdict_id, verdict.content_id, verdict.action, verdict.reason)
        for verdict in read_verdicts(node.house.connection)
    }
    assert len(read) == total
    assert set(read) == expected
    assert node.house.connection.xpending("sluice:verdicts", "backend")["pending"] == 0
    assert all(verdict["metadata"] == {"album": "7"} for name, verdict in node.verdicts().items() if name in names)


def test_a_job_that_node_writes_is_one_to_rq_and_to_the_client(node: Backend) -> None:
    job_id = node.node("enqueue.mjs", POLICY="house@2").strip()
    job = node.house.queue().fetch_job(job_id)
    assert job is not None
    verdict = Moderation(node.house.connection).wait(job, 60)
    assert (verdict.content_id, verdict.reason, verdict.policy.version) == ("from-node", None, 2)
    assert (job.func_name, job.origin, job.timeout) == ("worker.jobs.moderate", "moderation", 180)
    assert "moderation" in node.house.rq("info")


def test_every_verdict_has_the_shapes_that_others_expect(backend: Backend) -> None:
    judged, unjudged = backend.house.add_batch("judged", "unjudged", special={"unjudged": {"policy": "nobody"}})
    backend.house.ended(judged, unjudged)
    for name, reason in (("judged", None), ("unjudged", "unknown_policy")):
        verdict = backend.verdicts()[name]
        assert verdict["reason"] == reason
        hive = SHAPES["to_hive"](verdict)["status"][0]
        assert hive["status"]["code"] == ("1" if reason else "0")
        scores = {found["class"]: found["score"] for found in hive["response"]["output"][0]["classes"]}
        assert scores == {category: found["score"] for category, found in verdict["categories"].items()}
        (item,) = SHAPES["to_coop"](verdict, "image")["items"]
        assert (item["id"], item["typeId"], item["data"]["action"]) == (name, "image", verdict["action"])
        assert item["data"]["category"] in (*verdict["categories"], None)
        osprey = SHAPES["to_osprey"](verdict, 7)
        event = json.loads(osprey["data"])
        assert (event["action_id"], event["action_name"]) == (7, "image_judged")
        assert event["data"] == {"content_id": name, "verdict": verdict}
        assert osprey["send_time"] == verdict["created_at"]
