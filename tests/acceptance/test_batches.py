"""Batches from outside: what goes into one, and one verdict for every upload, whatever dies in the middle of it."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
import support
from cable import Cable
from house import INLINE, MODERATE, PNG, House, durable_redis
from rq import Queue
from rq.command import send_kill_horse_command, send_shutdown_command, send_stop_job_command
from rq.exceptions import DuplicateJobError
from rq.group import Group
from rq.job import Callback, Job, Retry
from rq.repeat import Repeat
from rq.worker import Worker

pytestmark = [pytest.mark.timeout(180), pytest.mark.thorough]

BATCH = 8
MIB = 1024 * 1024
#: What jobs call back, in the worker: a note of how the job ended.
CALLBACKS = """\
def finished(job, connection, result): connection.rpush("told", f"{job.id} finished {result['content_id']}")
def failed(job, connection, kind, error, trace): connection.rpush("told", f"{job.id} failed {kind.__name__}")
def stopped(job, connection): connection.rpush("told", f"{job.id} stopped")
def breaks(job, connection, result): raise ValueError("a broken callback")
"""


@dataclass
class Pair:
    """A house with its worker, and a second worker that serves the queue `doomed` alone and may die."""

    house: House
    server: support.DurableRedis
    settings: dict[str, object]
    second: support.Worker | None = None

    def batch_of_the_second(self, name: str, seconds: float) -> tuple[list[Job], list[Job]]:
        """Have the second worker in the middle of a batch, with one slow image.

        Returns:
            The batch; and the jobs that kept the house's own worker from taking it, which end now.
        """
        path, taken = f"/{name}", threading.Event()
        held = {"url": self.house.site.page(f"{path}-held", (200, PNG), tell=lambda: taken.wait(60) and None)}
        # Both of its places, each with a full batch: one that is not full would wait a moment for more.
        names = [f"{name}-occupied-{place}" for place in range(2 * BATCH)]
        special = {names[0]: {"image": held}, names[BATCH]: {"image": held}}
        occupied = self.house.enqueue_batch(*names, special=special)
        for job in occupied:
            support.until(lambda job=job: job.get_status(refresh=True) == "started", what="taken")
        names = [f"{name}-{place}" for place in range(4)]
        slow = {names[1]: {"image": self.house.slow_page(path, seconds)}}
        jobs = self.house.enqueue_batch(*names, queue="doomed", special=slow)
        try:
            support.until(lambda: self.house.site.asked[path], what="the batch runs")
        finally:
            taken.set()
        return jobs, occupied


@pytest.fixture(scope="module")
def pair(
    settings: dict[str, object], site: support.Website, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    directory = tmp_path_factory.mktemp("house")
    (directory / "callbacks.py").write_text(CALLBACKS)
    with durable_redis(directory) as server, redis.Redis(port=server.port) as connection:
        own = settings | {
            "redis_url": server.url, "batch_size": BATCH, "recovery_seconds": 1, "image_max_bytes": 256 * MIB,
            "queues": "moderation-high,moderation,moderation-bulk,doomed", "callbacks": "callbacks",
        }  # fmt: skip
        house = House(connection, site, directory)
        with support.running_worker(own, directory, PYTHONPATH=str(directory)) as house.worker:
            pair = Pair(house, server, own)
            yield pair
            if pair.second:
                pair.second.process.kill()
                pair.second.process.wait()


@pytest.fixture
def house(pair: Pair) -> Iterator[House]:
    """The house with its worker, which must outlive each test."""
    yield pair.house
    assert pair.house.worker is not None
    assert pair.house.worker.process.poll() is None, pair.house.worker.log[-2000:]


@pytest.fixture
def second(pair: Pair, house: House) -> support.Worker:
    """A second worker, started again where a test has killed it."""
    if pair.second is None or pair.second.process.poll() is not None:
        pair.second = support.Worker(pair.settings | {"queues": "doomed"}, house.directory, (), {})
        pair.second.wait_ready()
    return pair.second


def each_has_one_verdict(house: House, *jobs: Job, seconds: float = support.PATIENCE_SECONDS) -> None:
    """Wait until jobs have ended well, each with one verdict and one entry of the ledger, and nothing else is left."""
    assert house.ended(*jobs, seconds=seconds) == ["finished"] * len(jobs)
    ids = {job.id for job in jobs}
    entries = [entry for entry in house.entries() if entry["job_id"] in ids]
    assert Counter(entry["job_id"] for entry in entries) == Counter(ids)
    verdicts = [json.loads(entry["verdict"]) for entry in entries]
    assert {verdict["reason"] for verdict in verdicts} == {None}
    remembered = Counter(house.remembered())
    assert all(remembered[verdict["verdict_id"]] == 1 for verdict in verdicts)
    support.until(house.nothing_is_stranded, what="nothing is stranded")


def order_of(house: House, *prefixes: str) -> list[str]:
    """Return which of some prefixes each verdict has, in the order of the stream."""
    ids = [entry["content_id"] for entry in house.entries()]
    return [prefix for content_id in ids for prefix in prefixes if content_id.startswith(prefix)]


# -- what is in a batch ----------------------------------------------------------------------------------------------


def test_jobs_that_lie_ready_are_taken_in_full_batches(house: House) -> None:
    assert house.worker is not None
    count, images = (house.worker.metric(f"sluice_batch_images_{what}") for what in ("count", "sum"))
    jobs = house.enqueue_batch(*(f"together-{place}" for place in range(3 * BATCH)))
    each_has_one_verdict(house, *jobs)
    assert house.worker.metric("sluice_batch_images_sum") == images + 3 * BATCH
    assert house.worker.metric("sluice_batch_images_count") == count + 3


def test_two_batches_at_most_are_in_hand_however_long_the_queue_is_and_rq_info_shows_them(house: House) -> None:
    slow = house.enqueue("slow", image=house.slow_page("/slow", 2))
    support.until(lambda: house.site.asked["/slow"], what="the job runs")
    jobs = house.enqueue_batch(*(f"many-{place}" for place in range(5 * BATCH)))
    support.until(lambda: house.started() > 1, what="the next batch is prepared")
    most = 0
    assert "busy" in house.rq("info", "--raw")
    while slow.get_status(refresh=True) == "started":
        most = max(most, house.started())
    # Two full ones, where the last look came after the slow job's end.
    assert 1 + BATCH <= most <= 2 * BATCH
    each_has_one_verdict(house, slow, *jobs)


def test_the_urgent_come_first_and_the_lower_queues_are_not_starved(house: House) -> None:
    slow = house.enqueue("first", image=house.slow_page("/urgent", 1))
    support.until(lambda: house.site.asked["/urgent"], what="the job runs")
    jobs = [
        *house.enqueue_batch(*(f"lower-{place}" for place in range(4 * BATCH)), queue="moderation-bulk"),
        *house.enqueue_batch(*(f"lower-{place}" for place in range(4 * BATCH, 8 * BATCH)), queue="moderation"),
        *house.enqueue_batch(*(f"urgent-{place}" for place in range(34 * BATCH)), queue="moderation-high"),
    ]
    each_has_one_verdict(house, slow, *jobs)
    order = order_of(house, "urgent", "lower")
    batches = order[: len(order) - order[::-1].index("urgent")].count("lower") / BATCH
    # One claim in sixteen begins with a lower queue, of which one is empty; one batch was taken before all the others.
    assert 2 <= batches <= 4


def test_a_job_whose_id_is_on_the_queue_twice_has_one_verdict(house: House) -> None:
    with house.connection.pipeline() as transaction:
        job = house.queue().enqueue(MODERATE, image=INLINE, content_id="twice", pipeline=transaction)
        # What an enqueueing leaves whose answer was lost, so that it was sent again.
        transaction.rpush("rq:queue:moderation", job.id)
        transaction.execute()
    each_has_one_verdict(house, job)
    house.connection.rpush("rq:queue:moderation", job.id)
    support.until(lambda: not house.queue().count, what="the second copy is gone")
    time.sleep(0.3)
    each_has_one_verdict(house, job)


# -- a job that goes wrong -------------------------------------------------------------------------------------------


def test_a_bad_job_in_a_batch_ends_alone(house: House) -> None:
    special = {
        "bad-argument": {"colour": "red"},
        "bad-name": {"metadata": {"\ud800": "half a letter"}},
        "bad-policy": {"policy": "no-such"},
        "bad-image": {"image": {"base64": "AAAA"}},
        "bad-url": {"image": {"url": house.site.url + "/nowhere"}},
    }
    jobs = house.enqueue_batch("good-1", *special, "good-2", special=special)
    ends = ["finished", "failed", "failed", "failed", "finished", "finished", "finished"]
    assert house.ended(*jobs) == ends
    assert [house.verdict(job).reason for job in jobs] == [
        None, "invalid_job", "invalid_job", "unknown_policy", "image_undecodable", "source_refused", None,
    ]  # fmt: skip
    assert house.nothing_is_stranded()


def test_a_defect_that_one_image_brings_out_costs_the_others_nothing(house: House) -> None:
    assert house.worker is not None
    horse = house.worker.horse_pid
    size = int(Path(f"/proc/{horse}/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.prlimit(horse, resource.RLIMIT_AS)
    # Memory for one copy of the file and not for two.
    resource.prlimit(horse, resource.RLIMIT_AS, (size + 120 * MIB, limits[1]))
    try:
        huge = {"huge": {"image": {"url": house.site.page("/huge", (200, bytes(100 * MIB)))}}}
        first, bad, last = house.enqueue_batch("before-it", "huge", "after-it", special=huge)
        assert house.ended(first, bad, last) == ["finished", "failed", "finished"]
    finally:
        resource.prlimit(horse, resource.RLIMIT_AS, limits)
    assert (house.verdict(bad).action, house.verdict(bad).reason) == ("review", "internal_error")
    assert "MemoryError" in house.reason(bad)
    each_has_one_verdict(house, first, last)
    assert house.worker.horse_pid == horse


def test_a_job_that_is_late_fails_alone(house: House) -> None:
    assert house.worker is not None
    ends = house.worker.metric("sluice_horse_ends_total", cause="late")
    late = {"late": {"image": house.slow_page("/late", 4), "timeout": 1}}
    first, bad, last = house.enqueue_batch("before-late", "late", "after-late", special=late)
    assert house.ended(first, bad, last) == ["finished", "failed", "finished"]
    assert (house.verdict(bad).action, house.verdict(bad).reason) == ("review", "job_timeout")
    each_has_one_verdict(house, first, last)
    assert house.worker.metric("sluice_horse_ends_total", cause="late") > ends


def test_a_time_out_does_not_run_while_a_job_waits_for_the_batch_before_its_own(house: House) -> None:
    ahead = house.enqueue("ahead", image=house.slow_page("/ahead", 3))
    support.until(lambda: house.site.asked["/ahead"], what="the job runs")
    hasty = house.enqueue("hasty", timeout=1)
    each_has_one_verdict(house, ahead, hasty)
    assert house.site.asked["/ahead"] == 1


def test_an_operator_stops_one_job_of_a_batch(house: House) -> None:
    assert house.worker is not None
    image = house.slow_page("/stopped", 30)
    stopped = house.enqueue("stopped", image=image, on_stopped=Callback("callbacks.stopped"))
    support.until(lambda: house.site.asked["/stopped"], what="the job runs")
    others = house.enqueue_batch("not-stopped-1", "not-stopped-2")
    support.until(lambda: house.started() == 3, what="the next batch is prepared")
    ends = house.worker.metric("sluice_horse_ends_total", cause="stopped")
    send_stop_job_command(house.connection, stopped.id, serializer=house.queue().serializer)
    assert house.ended(stopped, seconds=20) == ["stopped"]
    assert (house.verdict(stopped).action, house.verdict(stopped).reason) == ("review", "job_stopped")
    assert f"{stopped.id} stopped".encode() in house.connection.lrange("told", 0, -1)
    each_has_one_verdict(house, *others)
    assert house.worker.metric("sluice_horse_ends_total", cause="stopped") == ends + 1


def test_a_job_that_is_cancelled_while_it_runs_has_its_verdict(house: House) -> None:
    plain = house.enqueue("cancelled", image=house.slow_page("/cancelled", 1))
    told = house.enqueue("told", image=house.slow_page("/told", 1), on_success=Callback("callbacks.finished"))
    support.until(lambda: house.site.asked["/cancelled"] and house.started() == 2, what="the jobs run")
    for job in (plain, told):
        job.cancel()
    for job in (plain, told):
        support.until(lambda job=job: house.entries(job.id), what="a verdict")
        assert house.verdict(job).reason is None
    support.until(house.nothing_is_stranded, what="nothing is stranded")


# -- what RQ promises ------------------------------------------------------------------------------------------------


def test_callbacks_dependents_repeats_retries_groups_and_unique_jobs_end_as_rq_says(house: House) -> None:
    says = {"on_success": Callback("callbacks.finished"), "on_failure": Callback("callbacks.failed")}
    good = house.enqueue("calls-back", **says)
    bad = house.enqueue("calls-back-bad", colour="red", **says)
    broken = house.enqueue("calls-back-broken", on_success=Callback("callbacks.breaks"))
    after = house.enqueue("depends", depends_on=good)
    repeated = house.enqueue("repeated", repeat=Repeat(times=1, interval=1))
    answers = (503, b""), (200, PNG)
    again = house.enqueue("again", image={"url": house.site.page("/again", *answers)}, retry=Retry(max=1))
    unkept = house.enqueue("unkept", result_ttl=0)
    unique = house.enqueue("unique", job_id="only-once", unique=True)
    with pytest.raises(DuplicateJobError):
        house.enqueue("unique", job_id="only-once", unique=True)
    group = Group.create(connection=house.connection)
    data = [Queue.prepare_data(MODERATE, kwargs={"image": INLINE, "content_id": f"group-{i}"}) for i in range(3)]
    members = group.enqueue_many(house.queue(), data)

    each = [good, after, again, unique, *members]
    assert house.ended(*each, bad, broken) == ["finished"] * len(each) + ["failed", "failed"]
    assert [house.verdict(job).reason for job in (*each, bad)] == [None] * len(each) + ["invalid_job"]
    assert len(house.entries(broken.id)) == 1
    assert "a broken callback" in house.reason(broken)
    told = {line.decode() for line in house.connection.lrange("told", 0, -1)}
    assert {f"{good.id} finished calls-back", f"{bad.id} failed JobInvalid"} <= told
    support.until(lambda: len(house.entries(repeated.id)) == 2, what="the job is repeated")
    assert house.site.asked["/again"] == 2
    support.until(lambda: house.entries(unkept.id), what="a verdict")
    assert house.verdict(unkept).reason is None
    assert not house.connection.exists(unkept.key)
    assert {job.id for job in group.get_jobs()} == {job.id for job in members}
    support.until(house.nothing_is_stranded, what="nothing is stranded")


def test_rq_worker_and_rq_worker_pool_run_the_batch_worker_and_the_stock_worker_agrees_with_it(
    house: House, pair: Pair
) -> None:
    ours = ("--worker-class", "worker.runtime.batch_worker.BatchWorker")
    commands = {
        "by-rq-worker": ("worker", *ours), "by-rq-pool": ("worker-pool", *ours, "--num-workers", "1"),
        "by-stock": ("worker",),
    }  # fmt: skip
    jobs, processes = {}, []
    for queue, command in commands.items():
        jobs[queue] = house.enqueue_batch("cli-1", "cli-2", "cli-3", queue=queue)
        arguments = [*command, "--serializer", "json", "--burst", "--url", house.url, queue]
        with (house.directory / f"{queue}.log").open("wb") as log:
            processes.append(
                subprocess.Popen(
                    [support.SLUICE.with_name("rq"), *arguments],
                    env=support.environment(pair.settings),
                    cwd=house.directory,
                    stdout=log,
                    stderr=log,
                )
            )
    for process, queue in zip(processes, commands, strict=True):
        said = (house.directory / f"{queue}.log").read_text
        assert process.wait(support.PATIENCE_SECONDS) == 0, said()
    scores = {queue: [_scores(house, job) for job in some] for queue, some in jobs.items()}
    for queue in ("by-rq-pool", "by-stock"):
        for found, expected in zip(scores[queue], scores["by-rq-worker"], strict=True):
            # One by one or in a batch, the products are summed in another order.
            assert found == pytest.approx(expected, abs=1e-6)
    each_has_one_verdict(house, *(job for some in jobs.values() for job in some))


def _scores(house: House, job: Job) -> dict[str, float]:
    return {name: category.score for name, category in house.verdict(job).categories.items()}


# -- what dies -------------------------------------------------------------------------------------------------------


def test_a_batch_survives_its_horse_killed_by_the_kernel_or_by_an_operator(house: House) -> None:
    assert house.worker is not None
    (name,) = [worker.name for worker in Worker.all(house.connection) if worker.pid == house.worker.process.pid]
    for how, kill in (
        ("kernel", house.worker.kill_horse),
        ("operator", lambda: send_kill_horse_command(house.connection, name)),
    ):
        slow = {f"{how}-2": {"image": house.slow_page(f"/{how}", 1)}}
        jobs = house.enqueue_batch(*(f"{how}-{place}" for place in range(BATCH)), special=slow)
        support.until(lambda path=f"/{how}": house.site.asked[path], what="the batch runs")
        before = house.worker.horse_pid
        kill()
        each_has_one_verdict(house, *jobs)
        assert house.worker.horse_pid not in (before, 0)
        assert not support.is_alive(before)


def test_a_horse_that_dies_while_it_loads_is_no_jobs_fault(house: House) -> None:
    assert house.worker is not None
    job = house.enqueue("innocent", image=house.slow_page("/innocent", 1))
    support.until(lambda: house.site.asked["/innocent"], what="the job runs")
    for _ in range(3):
        killed = house.worker.kill_horse()
        support.until(lambda killed=killed: house.worker.horse_pid not in (killed, 0), what="another horse")
    each_has_one_verdict(house, job)


def test_an_image_that_kills_the_horse_is_quarantined_and_the_others_have_their_verdicts(house: House) -> None:
    assert house.worker is not None
    poison = house.site.page("/poison", (200, PNG), wait_seconds=0.2, tell=house.worker.kill_horse)
    first, bad, *others = house.enqueue_batch("a", "poison", "b", "c", special={"poison": {"image": {"url": poison}}})
    assert house.ended(bad) == ["failed"]
    assert (house.verdict(bad).action, house.verdict(bad).reason) == ("review", "worker_killed")
    assert house.site.asked["/poison"] == 4
    assert house.worker.metric("sluice_horse_ends_total", cause="killed") >= 4
    each_has_one_verdict(house, first, *others)


def test_a_job_that_whole_workers_died_with_is_not_looked_at_again(house: House) -> None:
    page = house.site.page("/deadly", (200, PNG))
    with house.connection.pipeline() as transaction:
        job = house.queue().enqueue(MODERATE, image={"url": page}, content_id="deadly", pipeline=transaction)
        transaction.hset(job.key, "sluice_deaths", 3)
        transaction.execute()
    assert house.ended(job) == ["failed"]
    assert (house.verdict(job).action, house.verdict(job).reason) == ("review", "worker_killed")
    assert house.site.asked["/deadly"] == 0


def test_another_worker_ends_what_a_silent_worker_held_and_the_silent_one_comes_back(
    house: House, pair: Pair, second: support.Worker
) -> None:
    jobs, occupied = pair.batch_of_the_second("silent", 2)
    horse = second.horse_pid
    second.process.send_signal(signal.SIGSTOP)
    try:
        each_has_one_verdict(house, *jobs, *occupied)
    finally:
        second.process.send_signal(signal.SIGCONT)
    support.until(lambda: len(Worker.all(house.connection)) == 2, 20, "both workers are shown")
    time.sleep(0.5)
    each_has_one_verdict(house, *jobs)
    assert second.horse_pid == horse


def test_a_killed_workers_jobs_are_ended_by_another_within_seconds_and_its_horse_dies_too(
    house: House, pair: Pair, second: support.Worker
) -> None:
    assert house.worker is not None
    recovered = house.worker.metric("sluice_jobs_recovered_total")
    jobs, occupied = pair.batch_of_the_second("killed", 2)
    assert all(job.get_status(refresh=True) == "started" for job in jobs)
    horse = second.horse_pid
    second.process.kill()
    second.process.wait()
    support.until(lambda: not support.is_alive(horse), 2, "the horse is dead")
    each_has_one_verdict(house, *jobs, *occupied, seconds=15)
    assert len(Worker.all(house.connection)) == 1
    assert house.worker.metric("sluice_jobs_recovered_total") == recovered + len(jobs)


def test_a_second_sigterm_gives_back_what_is_unfinished_and_another_worker_ends_it(
    house: House, pair: Pair, second: support.Worker
) -> None:
    jobs, occupied = pair.batch_of_the_second("hurried", 6)
    second.process.send_signal(signal.SIGTERM)
    time.sleep(1.3)
    assert second.process.poll() is None
    second.process.send_signal(signal.SIGTERM)
    assert second.process.wait(3) != 0
    assert {job.get_status(refresh=True) for job in jobs} <= {"queued", "started"}
    each_has_one_verdict(house, *jobs, *occupied)
    assert not house.connection.hexists(jobs[0].key, "sluice_deaths")


def test_a_shutdown_command_lets_a_worker_finish_its_batch(house: House, pair: Pair, second: support.Worker) -> None:
    jobs, occupied = pair.batch_of_the_second("commanded", 2)
    (name,) = [worker.name for worker in Worker.all(house.connection) if worker.pid == second.process.pid]
    send_shutdown_command(house.connection, name)
    assert second.process.wait(support.PATIENCE_SECONDS) == 0
    each_has_one_verdict(house, *jobs, *occupied)
    assert house.site.asked["/commanded"] == 1


def test_redis_dies_in_the_middle_of_a_batch(house: House, pair: Pair) -> None:
    slow = {"power-2": {"image": house.slow_page("/power", 2)}}
    jobs = house.enqueue_batch(*(f"power-{place}" for place in range(2 * BATCH)), special=slow)
    support.until(lambda: house.site.asked["/power"], what="the batch runs")
    pair.server.kill()
    time.sleep(2.5)
    pair.server.start()
    house.connection.connection_pool.disconnect()
    each_has_one_verdict(house, *jobs)


def test_an_answer_that_is_lost_on_the_way_loses_no_job_and_doubles_no_verdict(
    own: tuple[support.DurableRedis, House], settings: dict[str, object], tmp_path: Path
) -> None:
    server, house = own
    cable = Cable(server.port)
    over_it = settings | {"redis_url": f"redis://127.0.0.1:{cable.port}/0", "recovery_seconds": 1, "batch_size": BATCH}
    with support.running_worker(over_it, tmp_path):
        for what, asked, answered in (
            ("claim", b"rq:queue:moderation", b"enqueued_at"),
            ("end", b"sluice:verdicts", b""),
        ):
            cable.lose(asked, answered)
            jobs = house.enqueue_batch(*(f"{what}-{place}" for place in range(3)))
            assert cable.has_broken.wait(20)
            each_has_one_verdict(house, *jobs, seconds=15)
        cable.lose(b"sluice:verdicts")
        unkept = house.enqueue("unkept", result_ttl=0)
        assert cable.has_broken.wait(20)
        support.until(lambda: house.entries(unkept.id), what="a verdict")
        support.until(house.nothing_is_stranded, what="nothing is stranded")
        assert house.verdict(unkept).reason is None
    assert house.connection.xlen("sluice:ledger") == len(house.entries()) == 7
    cable.close()
