"""One worker is fed every hostile job of `raw_payloads`, good ones between them: all end, and it lives."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import raw_payloads
import redis
import support
from house import House
from raw_payloads import IMAGE_MAX_BYTES, Raw
from rq.job import Job
from rq.serializers import JSONSerializer

pytestmark = [pytest.mark.timeout(300), pytest.mark.thorough]

#: Collected before there is a directory for a mark.
NAMES = {name: raw.end for name, raw in raw_payloads.payloads(Path("mark")).items()}
#: An import of this module leaves a file behind.
SIDE_EFFECT = "import pathlib\npathlib.Path(__file__).with_name('imported').touch()\ndef run(*args, **kwargs): ...\n"
#: By which the worker's processes may grow over all of it: less than one of the bombs.
GROWTH_KIB = 200 * 1024


def id_of(name: str) -> str:
    return re.sub(r"\W+", "-", name)


def peak_kib(pid: int) -> int:
    """Return the most memory that a process ever had."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


@pytest.fixture(scope="module")
def payloads(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Raw]]:
    directory = tmp_path_factory.mktemp("payloads")
    (directory / "side_effect.py").write_text(SIDE_EFFECT)
    return directory, raw_payloads.payloads(directory / "unpickled")


@pytest.fixture(scope="module")
def fed(
    payloads: tuple[Path, dict[str, Raw]], settings: dict[str, object], site: support.Website, redis_server: str
) -> Iterator[House]:
    """A house whose worker has had them all."""
    directory, raws = payloads
    with redis.Redis.from_url(redis_server) as connection:
        connection.flushall()
        house = House(connection, site, directory)
        limits = {"redis_url": redis_server, "image_max_bytes": IMAGE_MAX_BYTES}
        with support.running_worker(settings | limits, directory, PYTHONPATH=str(directory)) as house.worker:
            assert house.ended(house.enqueue("before")) == ["finished"]
            processes = [house.worker.process.pid, house.worker.horse_pid]
            peaks = [peak_kib(pid) for pid in processes]
            good = []
            for number, (name, raw) in enumerate(raws.items()):
                raw_payloads.push(connection, id_of(name), raw)
                if number % 10 == 0:
                    good.append(house.enqueue(f"good-{number}"))
            good.append(house.enqueue("last"))
            assert set(house.ended(*good)) == {"finished"}
            support.until(lambda: not house.started(), what="all have ended")
            assert [house.verdict(job).reason for job in good] == [None] * len(good)
            assert house.worker.horse_pid == processes[1], "the horse died: " + house.worker.log[-2000:]
            grown = [peak_kib(pid) - peak for pid, peak in zip(processes, peaks, strict=True)]
            assert max(grown) < GROWTH_KIB, grown
            yield house
            assert house.worker.process.poll() is None, house.worker.log[-2000:]


@pytest.mark.parametrize("name", [name for name, end in NAMES.items() if end == "refused"])
def test_it_fails_as_an_invalid_job_with_a_verdict_where_one_can_be_said(
    name: str, fed: House, payloads: tuple[Path, dict[str, Raw]]
) -> None:
    job, raw = Job(id_of(name), connection=fed.connection, serializer=JSONSerializer), payloads[1][name]
    assert fed.ended(job) == ["failed"]
    assert fed.reason(job).splitlines()[-1].startswith("worker.errors.JobInvalid: ")
    assert raw.because in fed.reason(job)
    verdicts = [(entry["content_id"], entry["action"]) for entry in fed.entries(job.id)]
    assert verdicts == ([] if raw.said is None else [(raw.said, "review")])
    if raw.said is not None:
        assert fed.verdict(job).reason == "invalid_job"
    assert fed.connection.zscore("rq:failed:moderation", job.id) is not None


@pytest.mark.parametrize("name", [name for name, end in NAMES.items() if end == "judged"])
def test_garbage_beside_a_right_job_costs_it_nothing(name: str, fed: House) -> None:
    job = Job(id_of(name), connection=fed.connection, serializer=JSONSerializer)
    assert fed.ended(job) == ["finished"]
    assert (fed.verdict(job).content_id, fed.verdict(job).reason) == ("mine", None)
    # Whoever lists jobs can read this one again.
    Job.fetch(job.id, connection=fed.connection, serializer=JSONSerializer)


@pytest.mark.parametrize("name", [name for name, end in NAMES.items() if end == "failed"])
def test_a_job_that_rq_cannot_end_fails_with_the_verdict_of_its_image(name: str, fed: House) -> None:
    job = Job(id_of(name), connection=fed.connection, serializer=JSONSerializer)
    assert fed.ended(job) == ["failed"]
    assert (fed.verdict(job).content_id, fed.verdict(job).reason) == ("mine", None)


@pytest.mark.parametrize("name", [name for name, end in NAMES.items() if end == "dropped"])
def test_what_is_no_job_leaves_the_queue_and_a_line_in_the_log(name: str, fed: House) -> None:
    assert fed.entries(id_of(name)) == []
    assert fed.worker is not None
    assert f"dropped from a queue, because it is no job: '{id_of(name)}'" in fed.worker.log


def test_nothing_that_a_payload_names_was_imported_or_unpickled(fed: House) -> None:
    assert not {"imported", "unpickled"} & {file.name for file in fed.directory.iterdir()}


def test_nothing_is_left_in_the_worker_s_hands(fed: House) -> None:
    assert fed.nothing_is_stranded()
