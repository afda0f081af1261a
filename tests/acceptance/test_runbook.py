"""The runbook as an operator uses it: each command, as it stands, on a fleet with the trouble that it is for."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
import support
from house import MODERATE, House, durable_redis
from PIL import Image
from receiver import SECRET, Receiver, answer
from rq.job import Job
from rq.suspension import is_suspended, suspend

from worker.policy.fleet import Fleet, versions_key
from worker.sinks.outbox import DEAD

pytestmark = [pytest.mark.timeout(180), pytest.mark.thorough]

RUNBOOK = Path(__file__).parents[2] / "docs" / "runbook.md"
MIB = 1024 * 1024


def fences() -> dict[str, list[str]]:
    """Return the commands of each section, in the order of the document."""
    found: dict[str, list[str]] = {}
    for section in re.split(r"^#+ ", RUNBOOK.read_text(), flags=re.MULTILINE)[1:]:
        heading, _, body = section.partition("\n")
        commands = re.findall(r"^```sh\n(.*?)^```$", body, re.MULTILINE | re.DOTALL)
        if commands:
            found[heading] = commands
    return found


FENCES = fences()


@dataclass
class Fleeting:
    """A worker, its Redis with uploads that ended in every way, and a receiver of webhooks."""

    house: House
    worker: support.Worker
    receiver: Receiver
    settings: dict[str, object]
    variables: dict[str, str]
    #: A job that is dead because its version was not published yet.
    early: Job

    def run(self, command: str) -> str:
        """Run a command as it stands in the document; what it says."""
        environment = support.environment(self.settings, **self.variables)
        environment["PATH"] = f"{support.SLUICE.parent}:{environment['PATH']}"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command], env=environment, cwd=self.house.directory,
            capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        # redis-cli ends with 0 whatever Redis says.
        assert not re.search(r"^\(?(error|ERR|NOAUTH|WRONGTYPE)\b", done.stdout, re.MULTILINE), done.stdout
        return done.stdout

    def policy(self, *arguments: object) -> None:
        done = support.sluice("policy", *arguments, settings=self.settings)
        assert done.returncode == 0, done.stderr

    def dead(self) -> int:
        return int(self.house.connection.zcard("rq:failed:moderation"))


@pytest.fixture(scope="module")
def fleet(tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleeting]:
    for binary in ("bash", "redis-cli", "curl"):
        if shutil.which(binary) is None:
            pytest.skip(f"needs {binary} on PATH")
    directory = tmp_path_factory.mktemp("runbook")
    site, receiver = support.Website(), Receiver()
    try:
        with durable_redis(directory) as server, redis.Redis(port=server.port) as connection:
            settings: dict[str, object] = {
                "redis_url": server.url, "model": tiny_clip, "policies": "redis", "policy": "house", "threads": 1,
                "fetch_allow_private": True, "decode_memory_bytes": 512 * MIB, "webhook_secret": SECRET,
                "webhook_url": receiver.endpoint("/gone", answer(410), answer(204)),
            }  # fmt: skip
            policies = support.write_house_policies(directory / "policies")
            for arguments in (("publish", "--all", policies), ("activate", "house@3")):
                assert support.sluice("policy", *arguments, settings=settings).returncode == 0
            with support.running_worker(settings, directory) as worker:
                house = House(connection, site, directory, worker)
                variables = {
                    "WORKER": worker.metrics_url, "QUEUE": "moderation", "POLICY": "house", "SHADOW": "house@2",
                    "GROUP": "forgotten", "ENDPOINT": str(settings["webhook_url"]), "BROKEN": "8", "COLUMNS": "160",
                }  # fmt: skip
                yield Fleeting(house, worker, receiver, settings, variables, end_in_every_way(house))
    finally:
        receiver.close()
        site.close()


def end_in_every_way(house: House) -> Job:
    """Have uploads judged, rejected, put aside and dead; the one that is dead for want of version 4."""
    huge = support.encode(Image.new("RGB", (7000, 7000), "teal"), "WEBP", lossless=True, method=0, quality=0)
    images = {"cut": b"no image", "huge": huge}
    pages = {name: {"url": house.site.page(f"/{name}", (200, data))} for name, data in images.items()}
    jobs = [house.enqueue(name, image=image) for name, image in pages.items()]
    jobs += [house.enqueue(f"fine-{place}") for place in range(3)]
    with house.connection.pipeline() as transaction:
        page = house.site.page("/deadly", (200, b"never asked for"))
        # It was in the hands of three workers that died.
        deadly = house.queue().enqueue(MODERATE, image={"url": page}, content_id="deadly", pipeline=transaction)
        transaction.hset(deadly.key, "sluice_deaths", 3)
        transaction.execute()
    early = house.enqueue("early", policy="house@4")
    assert house.ended(deadly, early) == ["failed", "failed"]
    house.ended(*jobs)
    assert [house.verdict(job).reason for job in jobs] == ["image_undecodable", "decode_memory", None, None, None]
    house.connection.xgroup_create("sluice:verdicts", "forgotten", id="0")
    house.connection.xgroup_createconsumer("sluice:verdicts", "forgotten", "gone")
    return early


# -- what is wrong, and what must have come of the commands ----------------------------------------------------------


def _suspend(fleet: Fleeting) -> None:
    suspend(fleet.house.connection)
    support.until(lambda: is_suspended(fleet.house.connection), what="suspended")


def _is_resumed(fleet: Fleeting) -> None:
    assert fleet.house.ended(fleet.house.enqueue("resumed")) == ["finished"]


def _publish_what_was_wanted(fleet: Fleeting) -> None:
    file = fleet.house.directory / "policies" / "house" / "v4.yaml"
    file.write_text(support.HOUSE_POLICY.format(version=4, review=0.5))
    reloads = fleet.worker.metric("sluice_policy_reloads_total", result="ok")
    fleet.policy("publish", file)
    support.until(lambda: fleet.worker.metric("sluice_policy_reloads_total", result="ok") > reloads, what="at work")


def _early_is_judged(fleet: Fleeting) -> None:
    support.until(lambda: fleet.early.get_status(refresh=True) == "finished", what="the dead job is judged")
    last = fleet.house.entries(fleet.early.id)[-1]
    assert '"reason":null' in last["verdict"].replace(" ", "")


def _die(fleet: Fleeting) -> None:
    assert fleet.house.ended(fleet.house.enqueue("dead", policy="nobody")) == ["failed"]


def _add_what_is_no_upload(fleet: Fleeting) -> None:
    fleet.house.connection.xadd("sluice:uploads", {"job": "upload-1"})
    support.until(lambda: fleet.worker.metric("sluice_uploads_total", outcome="refused"), what="it is refused")


def _no_dead(fleet: Fleeting) -> None:
    assert fleet.dead() == 0


def _group_is_gone(fleet: Fleeting) -> None:
    names = [group["name"] for group in fleet.house.connection.xinfo_groups("sluice:verdicts")]
    assert b"forgotten" not in names


def _give_up_webhooks(fleet: Fleeting) -> None:
    done = support.sluice("deliver", "--burst", settings=fleet.settings)
    assert done.returncode == 0, done.stderr
    assert fleet.house.connection.xlen(DEAD) > 1


def _webhooks_arrived(fleet: Fleeting) -> None:
    assert fleet.house.connection.xlen(DEAD) == 0
    assert set(fleet.receiver.ids("/gone")) == _verdict_ids(fleet)


def _verdict_ids(fleet: Fleeting) -> set[str]:
    found = re.findall(r'"verdict_id":\s*"([^"]+)"', " ".join(entry["verdict"] for entry in fleet.house.entries()))
    return set(found)


def _break_registry(fleet: Fleeting) -> None:
    fleet.house.connection.hset(versions_key("house"), "8", "{")
    fleet.house.connection.set("sluice:policy:revision", "by hand")
    support.until(lambda: not fleet.worker.metric("sluice_policy_last_reload_successful"), what="the reload fails")


def _is_mended(fleet: Fleeting) -> None:
    support.until(lambda: fleet.worker.metric("sluice_policy_last_reload_successful"), what="the mend is at work")


def _is_rolled_back(fleet: Fleeting) -> None:
    rollout = Fleet(fleet.house.connection).states()["house"].rollout
    assert rollout is not None
    assert rollout.live == 1


def _watches_no_more(fleet: Fleeting) -> None:
    rollout = Fleet(fleet.house.connection).states()["house"].rollout
    assert rollout is not None
    assert rollout.shadow == ()


def _limit_is_raised(fleet: Fleeting) -> None:
    assert fleet.house.connection.config_get("maxmemory") == {"maxmemory": str(4 * 1024 * MIB)}


#: Before a command of a section, by its place there.
BEFORE: dict[tuple[str, int], Callable[[Fleeting], None]] = {
    ("SluiceNoVerdicts", 0): _suspend,
    ("SluiceMostJobsFail", 2): _publish_what_was_wanted,
    ("SluiceDeadJobsGrow", 0): _die,
    ("SluiceUploadsRefused", 0): _add_what_is_no_upload,
    ("SluiceWebhooksDead", 0): _give_up_webhooks,
    ("SluicePolicyReloadFailed", 0): _break_registry,
}
#: After it.
AFTER: dict[tuple[str, int], Callable[[Fleeting], None]] = {
    ("SluiceRedisFull", 1): _limit_is_raised,
    ("SluiceNoVerdicts", 1): _is_resumed,
    ("SluiceMostJobsFail", 2): _early_is_judged,
    ("SluiceDeadJobsGrow", 1): _no_dead,
    ("SluiceConsumerBehind", 1): _group_is_gone,
    ("SluiceWebhooksDead", 2): _webhooks_arrived,
    ("SluicePolicyReloadFailed", 1): _is_mended,
    ("SluiceScoreDrift", 1): _is_rolled_back,
    ("SluiceShadowDisagrees", 1): _watches_no_more,
}
#: What each command of each section says, among other things.
SAYS: dict[str, list[tuple[str, ...]]] = {
    "Before the night": [
        ("ok       redis", "house@3"), ("ok\n", "sluice_up 1.0", "sluice_redis_up 1.0"),
        ("1 workers, ", "forgotten", "lag"), ("image_undecodable",),
    ],
    "SluiceNoWorker": [("1 workers, ",), ()],
    "SluiceRedisUnreachable": [("PONG", "loading:0")],
    "SluiceRedisFull": [("used_memory_human", "maxmemory_policy:noeviction", "Biggest stream"), ("OK",)],
    "SluiceNoVerdicts": [("1\n", "ok\n", 'outcome="retried"', 'cause="killed"'), ("esum",)],
    "SluiceOldestJobTooOld": [("moderation", "0\n", 'sluice_stage_seconds_sum{stage="fetch"}')],
    "SluiceMostJobsFail": [('"reason": "unknown_policy"',), ("early", "house@4"), ("Requeueing",)],
    "SluiceRejectionRate": [('"reason": "image_undecodable"', "cut")],
    "SluiceDeadJobsGrow": [("-",), ("dead jobs deleted",)],
    "SluiceQuarantinedJobs": [('"content_id": "deadly"', "sluice_memory_bytes", "sluice_horse_ends_total")],
    "SluiceUploadsRefused": [("why", "its field `job` is no JSON")],
    "SluiceConsumerBehind": [("forgotten", "gone"), ("1\n",)],
    "SluiceWebhooksDead": [("off", "endpoint_off"), ("switched on",), ("dead letters put back, 0 kept",)],
    "SluiceWebhooksLost": [("first-entry", "verdict_id")],
    "SluicePolicyReloadFailed": [
        ("earlier policies are kept: sluice:policy:house:versions[8]", "activate 3"), ("1\n", "live")
    ],
    "SluiceUncalibratedVerdicts": [('model="', "calibrated for: no model")],
    "SluiceScoreDrift": [("fine-0", "activate 3"), ("house: ",)],
    "SluiceShadowDisagrees": [("disagreed on", "stricter"), ("house: ",)],
    "SluiceWorkerNotReady": [("ok\n",)],
    "SluiceRestartLoop": [("1 workers, ",)],
    "SluiceWorkersDie": [("1 workers, ", "sluice_jobs_recovered_total")],
    "SluiceHorsesDie": [('cause="late"', '"reason": "worker_killed"')],
    "SluiceDecodersDie": [('cause="timeout"', '"reason": "decode_memory"', '"content_id": "huge"')],
    "SluiceWorkerMemoryNearLimit": [('sluice_memory_bytes{process="horse"}', "sluice_memory_limit_bytes")],
}  # fmt: skip


def test_every_command_of_the_runbook_is_run_here() -> None:
    assert {section: len(commands) for section, commands in FENCES.items()} == {
        section: len(says) for section, says in SAYS.items()
    }
    for section, place in (*BEFORE, *AFTER):
        assert place < len(FENCES[section])


@pytest.mark.parametrize("section", FENCES)
def test_the_commands_of_a_section_work_as_they_stand(section: str, fleet: Fleeting) -> None:
    for place, (command, says) in enumerate(zip(FENCES[section], SAYS[section], strict=True)):
        BEFORE.get((section, place), lambda _: None)(fleet)
        said = fleet.run(command)
        for words in says:
            assert words in said, f"{command}\n{said}"
        AFTER.get((section, place), lambda _: None)(fleet)
