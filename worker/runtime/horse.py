"""The horse: a long-lived child that holds the model and judges batches; RQ's word for the process that does the work.

In: tasks over a socket from `stable`. Out: outcomes over the same, in order. It never ends a job, and dies with its
worker. While one batch is in the encoder, the next is being fetched and decoded.
"""

from __future__ import annotations

import ctypes
import logging
import os
import queue
import signal
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection

from worker import app as sluice
from worker.connection import PatientBackoff, open_redis
from worker.errors import JobError, SluiceError
from worker.ledger.batch import halves
from worker.logs import configure_logging
from worker.pipeline import Prepared, QueuedJob
from worker.policy.registry import PolicySet
from worker.policy.watch import Reload
from worker.records import ModerationJob, Subject, Verdict
from worker.runtime.calls import read_job, read_subject
from worker.runtime.hashes import max_data_bytes
from worker.runtime.wire import Outcome, Task, error_as_json, read_tasks, receive, send, send_outcomes
from worker.settings import Settings

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
#: What came of a job that was judged, and its embeddings as the ledger keeps them.
_End = tuple[Verdict | Exception, bytes]


@dataclass(slots=True)
class _Batch:
    """A batch between its two halves."""

    tasks: list[Task]
    #: What each task asks for; the error where it cannot be read.
    jobs: list[QueuedJob[ModerationJob] | JobError]
    #: The jobs that are judged, half done; the error that stopped the first half.
    prepared: Prepared | Exception


class Horse:
    """Judges batches that arrive on a socket, until it closes.

    Args:
        app: What judges.
        connection: To the worker.
    """

    def __init__(self, app: sluice.App, connection: Connection) -> None:
        self._app = app
        self._connection = connection
        #: Two threads say something: what came of batches, and of changed policies.
        self._saying = threading.Lock()
        self._max_job_bytes = max_data_bytes(app.settings.image_max_bytes)
        self._received: queue.SimpleQueue[list[Task] | None] = queue.SimpleQueue()
        self._prepared: queue.Queue[_Batch | None] = queue.Queue(maxsize=1)
        #: What the memo knew since the last batch.
        self._counts: Counter[tuple[str, ...]] = Counter()

    def run(self) -> None:
        """Work until the worker is gone."""
        self._app.watch(self._tell)
        for work in (self._receive, self._prepare):
            threading.Thread(target=_or_die, args=(work,), name=work.__name__, daemon=True).start()
        while (batch := self._prepared.get()) is not None:
            outcomes = self._judge(batch)
            counts, self._counts = self._counts, Counter()
            counts += Counter({("decoder", cause): times for cause, times in self._app.decoder.take_ends().items()})
            try:
                with self._saying:
                    send_outcomes(self._connection, outcomes, counts)
            except OSError:
                return

    def _tell(self, reload: Reload) -> None:
        """Say what came of changed policies; to a worker that is gone, nothing."""
        about = {"reload": reload.result} | self._app.description() | {"problem": reload.problem}
        with self._saying, suppress(OSError):
            send(self._connection, {"policies": about}, [self._app.policies.to_json()])

    def _receive(self) -> None:
        while True:
            try:
                header, blobs = receive(self._connection)
            except (EOFError, OSError):
                self._received.put(None)
                return
            self._received.put(read_tasks(header, blobs))

    def _prepare(self) -> None:
        while (tasks := self._received.get()) is not None:
            self._prepared.put(self._begin(tasks))
        self._prepared.put(None)

    def _begin(self, tasks: list[Task]) -> _Batch:
        jobs = [read_job(task, self._max_job_bytes) for task in tasks]
        try:
            return _Batch(tasks, jobs, self._app.pipeline.prepare(_judged(tasks, jobs)))
        except Exception as error:  # a defect; told apart job by job in `_judge`
            return _Batch(tasks, jobs, error)

    def _judge(self, batch: _Batch) -> list[Outcome]:
        judged = _judged(batch.tasks, batch.jobs)
        try:
            ends = iter(self._finish(batch.prepared))
        except Exception as error:  # a defect that one image may have brought out: the others are judged without it
            log.exception("a batch of %d failed; trying its halves", len(judged))
            ends = iter(self._judge_halves(judged, error))
        return [
            self._outcome(task, job, (job, b"") if isinstance(job, JobError) or task.reason else next(ends))
            for task, job in zip(batch.tasks, batch.jobs, strict=True)
        ]

    def _finish(self, prepared: Prepared | Exception) -> list[_End]:
        if isinstance(prepared, Exception):
            raise prepared
        if not prepared.jobs:
            return []
        judged = self._app.pipeline.judge(prepared)
        self._counts += Counter({("memo", *labels): times for labels, times in judged.memo.items()})
        is_kept = not self._app.ledger.is_off
        return [
            (outcome, halves(embedding) if is_kept and embedding is not None else b"")
            for outcome, embedding in zip(judged.outcomes, judged.embeddings, strict=True)
        ]

    def _judge_halves(self, jobs: Sequence[QueuedJob[ModerationJob]], error: Exception) -> list[_End]:
        if len(jobs) == 1:
            return [(error, b"")]
        ends: list[_End] = []
        for half in (jobs[: len(jobs) // 2], jobs[len(jobs) // 2 :]):
            try:
                ends += self._finish(self._app.pipeline.prepare(half))
            except Exception as worse:
                ends += self._judge_halves(half, worse)
        return ends

    def _outcome(self, task: Task, job: QueuedJob[ModerationJob] | JobError, ended: tuple[object, bytes]) -> Outcome:
        end, embeddings = ended
        if isinstance(end, Verdict):
            webhook = None if isinstance(job, JobError) else job.job.webhook
            return Outcome(payload=end.to_json().encode(), webhook=webhook, embeddings=embeddings)
        error = end if isinstance(end, BaseException) else None
        reason = task.reason or (error.reason if isinstance(error, JobError) else "internal_error")
        subject = read_subject(task, self._max_job_bytes) if isinstance(job, JobError) else job.job
        payload = b""
        if subject is not None:
            queued: QueuedJob[Subject] = QueuedJob(subject, task.job_id, task.queue_seconds)
            payload = self._app.pipeline.unjudged(queued, reason).to_json().encode()
        if error is not None and not isinstance(error, SluiceError):
            error = RuntimeError("".join(traceback.format_exception(error)))
        return Outcome(payload=payload, error=error, webhook=subject.webhook if subject else None)


def _or_die(work: Callable[[], None]) -> None:
    """Work in a thread; its end by an exception is the horse's: one that lived on would hold its batches for ever."""
    try:
        work()
    except BaseException:
        log.exception("the horse ends")
        os._exit(1)


def _judged(
    tasks: Sequence[Task], jobs: Sequence[QueuedJob[ModerationJob] | JobError]
) -> list[QueuedJob[ModerationJob]]:
    return [job for task, job in zip(tasks, jobs, strict=True) if task.reason is None and not isinstance(job, JobError)]


def main() -> None:
    """Load the model, say so, and work."""
    # Signals come to the whole group of processes; the worker decides when its horse ends, and takes it along.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _die_with_worker(int(sys.argv[2]))
    connection = Connection(int(sys.argv[1]))
    header, (kept,) = receive(connection)
    settings = Settings(**header["settings"])
    configure_logging(settings)
    try:
        app = sluice.build(
            settings, open_redis(settings.redis_url, PatientBackoff()), PolicySet.from_json(kept) if kept else None
        )
        app.encoder.warm_up()
    except SluiceError as error:
        send(connection, {"failed": error_as_json(error)})
        return
    send(connection, {"ready": app.description()}, [app.policies.to_json()])
    Horse(app, connection).run()
    # The threads of torch and of the sources need no goodbye, and nobody waits for one.
    os._exit(0)


def _die_with_worker(worker_pid: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != worker_pid:
        os._exit(1)


if __name__ == "__main__":
    main()
