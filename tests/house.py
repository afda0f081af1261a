"""A worker and those around it: what a producer with only rq enqueues, and what a consumer of verdicts reads."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
import support
from PIL import Image
from rq import Queue
from rq.exceptions import InvalidJobOperation
from rq.job import Job
from rq.serializers import JSONSerializer

from worker.records import QUEUES, Verdict
from worker.runtime.uploads import job_id_of

MODERATE = "worker.jobs.moderate"
PNG = support.encode(Image.new("RGB", (48, 32), "teal"))
#: `image` of a job that needs nothing but itself.
INLINE = {"base64": base64.b64encode(PNG).decode()}


@dataclass
class House:
    """A worker, its Redis, a website to fetch from, and what a producer and a consumer do."""

    connection: redis.Redis
    site: support.Website
    directory: Path
    worker: support.Worker | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.connection.connection_pool.connection_kwargs['port']}/0"

    def queue(self, name: str = "moderation") -> Queue:
        return Queue(name, connection=self.connection, serializer=JSONSerializer)

    def enqueue(self, content_id: str, *, queue: str = "moderation", timeout: int = 60, **arguments: Any) -> Job:
        image = arguments.pop("image", INLINE)
        return self.queue(queue).enqueue(MODERATE, image=image, content_id=content_id, job_timeout=timeout, **arguments)

    def enqueue_batch(
        self, *content_ids: str, queue: str = "moderation", special: Mapping[str, dict[str, Any]] | None = None
    ) -> list[Job]:
        """Put jobs on a queue in one transaction, so that a worker that waits takes them at once.

        Args:
            *content_ids: Of the jobs.
            queue: Its name.
            special: By content id, what differs from a plain job with an inline image; `timeout` is RQ's.
        """
        data = []
        for name in content_ids:
            arguments = {"image": INLINE, "content_id": name} | (special or {}).get(name, {})
            timeout = arguments.pop("timeout", 60)
            data.append(Queue.prepare_data(MODERATE, kwargs=arguments, timeout=timeout))
        with self.connection.pipeline() as transaction:
            jobs: list[Job] = self.queue(queue).enqueue_many(data, pipeline=transaction)
            transaction.execute()
        return jobs

    def add_batch(
        self, *content_ids: str, queue: str = "moderation", special: Mapping[str, dict[str, Any]] | None = None
    ) -> list[Job]:
        """Add uploads to the stream, as a backend without RQ does; the jobs that will come of them."""
        priority = next(priority for priority, name in QUEUES.items() if name == queue)
        jobs = []
        with self.connection.pipeline(transaction=False) as together:
            for name in content_ids:
                upload = {"image": INLINE, "content_id": name} | (special or {}).get(name, {})
                together.xadd("sluice:uploads", {"job": json.dumps(upload), "priority": priority})
                job_id = job_id_of(name, upload.get("policy"))
                jobs.append(Job(job_id, connection=self.connection, serializer=JSONSerializer))
            together.execute()
        return jobs

    def push_raw(self, job_id: str, **fields: Any) -> Job:
        """Put a job on the queue by hand, as another language's producer may."""
        now = "2026-01-01T00:00:00.000000Z"
        row = {"data": b"", "created_at": now, "enqueued_at": now, "origin": "moderation", "status": "queued"} | fields
        self.connection.hset(f"rq:job:{job_id}", mapping=row)
        self.connection.rpush("rq:queue:moderation", job_id)
        return Job(job_id, connection=self.connection, serializer=JSONSerializer)

    def slow_page(self, path: str, seconds: float) -> dict[str, str]:
        return {"url": self.site.page(path, (200, PNG), wait_seconds=seconds)}

    def entries(self, job_id: str | None = None) -> list[dict[str, str]]:
        """Read the verdict stream."""
        rows: Any = self.connection.xrange("sluice:verdicts")
        decoded = [{key.decode(): value.decode() for key, value in fields.items()} for _, fields in rows]
        return [row for row in decoded if job_id in (None, row["job_id"])]

    def remembered(self) -> list[str]:
        """Return the ids of the verdicts that the ledger's stream has an entry of."""
        rows: Any = self.connection.xrange("sluice:ledger")
        return [json.loads(fields[b"about"])["verdict_id"] for _, fields in rows]

    def verdict(self, job: Job) -> Verdict:
        """Return the one verdict of a job."""
        (entry,) = self.entries(job.id)
        return Verdict.model_validate_json(entry["verdict"])

    def ended(self, *jobs: Job, seconds: float = support.PATIENCE_SECONDS) -> list[str]:
        """Wait until jobs have ended; how."""
        return [support.until(lambda job=job: _end_of(job), seconds, f"{job.id} ends") for job in jobs]

    def reason(self, job: Job) -> str:
        """Return what RQ keeps as the reason of a job's failure."""
        result = job.latest_result()
        assert result is not None
        assert result.exc_string is not None
        return result.exc_string.strip()

    def outcome(self, name: str, queue: str = "moderation") -> float:
        assert self.worker is not None
        return self.worker.metric("sluice_jobs_total", queue=queue, outcome=name)

    def rq(self, *arguments: str) -> str:
        """Run RQ's command; what it says."""
        command = [support.SLUICE.with_name("rq"), *arguments, "--url", self.url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def started(self, queue: str = "moderation") -> int:
        """Return how many jobs of a queue are in workers' hands."""
        return int(self.connection.zcard(f"rq:wip:{queue}"))

    def nothing_is_stranded(self) -> bool:
        """Whether no job is in the hands of a worker, or between queue and worker."""
        patterns = ("rq:wip:*", "rq:queue:*:intermediate", "rq:execution*", "rq:worker:*:executions", "sluice:held:*")
        return not any(list(self.connection.scan_iter(pattern)) for pattern in patterns)


@contextmanager
def durable_redis(directory: Path) -> Iterator[support.DurableRedis]:
    """Run a Redis of one's own for as long as the context lasts."""
    server = support.DurableRedis(directory)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def _end_of(job: Job) -> str | None:
    try:
        status = job.get_status(refresh=True)
    except (ValueError, InvalidJobOperation):
        return None
    return status.value if status in {"finished", "failed", "stopped"} else None
