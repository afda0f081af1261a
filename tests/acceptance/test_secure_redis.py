"""Redis behind TLS, and users with no more rights than their part needs: the lines of docs/security.md."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
import support
from house import INLINE, MODERATE, PNG
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError
from redis.retry import Retry
from rq import Queue
from rq.job import Job

from worker.client import Moderation
from worker.records import Verdict

pytestmark = pytest.mark.timeout(120)

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
#: `ACL SETUSER` lines of the page, by user.
LINES = {line.split()[2]: line for line in re.findall(r"^ACL SETUSER .*$", PAGE.read_text(), re.MULTILINE)}
#: The tests' own, for looking at what the others did.
ADMIN = "ACL SETUSER admin reset on >PASSWORD ~* &* +@all"


@dataclass
class Guarded:
    """A Redis behind TLS."""

    port: int
    authority: Path
    stranger: Path

    def url(self, user: str, authority: Path | None = None) -> str:
        return f"rediss://{user}:secret-of-{user}@127.0.0.1:{self.port}/0?ssl_ca_certs={authority or self.authority}"

    def open(self, user: str) -> redis.Redis:
        return redis.Redis.from_url(self.url(user), retry=Retry(NoBackoff(), 0))


def make_authority(directory: Path, name: str) -> Path:
    """Write a certificate that signs itself, for 127.0.0.1, and its key."""
    certificate = directory / f"{name}.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
               "-days", "2", "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1",
               "-keyout", directory / f"{name}.key", "-out", certificate]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    return certificate


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A server that speaks nothing but TLS, with the users of the page and without a default one."""
    binary = next(filter(None, map(shutil.which, ("redis-server", "valkey-server"))), None)
    if binary is None or shutil.which("openssl") is None:
        pytest.skip("needs redis-server or valkey-server, and openssl, on PATH")
    directory = tmp_path_factory.mktemp("tls")
    server = Guarded(support.free_port(), make_authority(directory, "redis"), make_authority(directory, "stranger"))
    options = {"port": 0, "tls-port": server.port, "bind": "127.0.0.1", "dir": directory, "save": "",
               "tls-cert-file": server.authority, "tls-key-file": directory / "redis.key",
               "tls-ca-cert-file": server.authority, "tls-auth-clients": "no"}  # fmt: skip
    arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    with (directory / "redis.log").open("wb") as log:
        process = subprocess.Popen([binary, *arguments], stdout=log, stderr=log)
    try:
        support.until(lambda: process.poll() is not None or _answers(server), what="Redis answers")
        if process.poll() is not None:
            said = (directory / "redis.log").read_text()
            assert "Bad directive" in said, said
            pytest.skip("this redis-server was built without TLS")
        _let_in(server)
        yield server
    finally:
        process.kill()
        process.wait()


def _with_password(line: str) -> str:
    return line.replace("PASSWORD", f"secret-of-{line.split()[2]}")


def _open_as_anybody(server: Guarded) -> redis.Redis:
    url = f"rediss://127.0.0.1:{server.port}/0?ssl_ca_certs={server.authority}"
    return redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0))


def _answers(server: Guarded) -> bool:
    try:
        with _open_as_anybody(server) as connection:
            return bool(connection.ping())
    except redis.ConnectionError:
        return False


def _let_in(server: Guarded) -> None:
    """Run the lines of the page as they stand, but for the passwords."""
    with _open_as_anybody(server) as connection:
        for line in (ADMIN, *LINES.values()):
            connection.execute_command(*_with_password(line).split())


@pytest.fixture
def admin(guarded: Guarded) -> Iterator[redis.Redis]:
    """A connection that may do everything, to an empty Redis with an empty log of refusals."""
    with guarded.open("admin") as connection:
        connection.flushall()
        connection.acl_log_reset()
        yield connection


@pytest.fixture
def own(settings: dict[str, object], guarded: Guarded) -> dict[str, object]:
    """Settings of a worker under its own user."""
    return settings | {"redis_url": guarded.url("sluice-worker"), "recovery_seconds": 1}


def refusals(admin: redis.Redis) -> list[str]:
    """Say what Redis refused to whom."""
    said = [f"{row['username']} {row['reason']} {row['object']} ({row['context']})" for row in admin.acl_log()]
    return [line for line in said if "client|setinfo" not in line]


def test_producer_worker_and_consumer_do_their_whole_part_under_their_own_users(
    guarded: Guarded, admin: redis.Redis, own: dict[str, object], site: support.Website, tmp_path: Path
) -> None:
    with guarded.open("sluice-producer") as theirs, guarded.open("sluice-consumer") as reading:
        producer = Moderation(theirs)
        with support.running_worker(own, tmp_path) as worker:
            flaky = site.page("/flaky-behind-tls", (503, b""), (200, PNG))
            jobs = producer.enqueue_many(
                [{"content_id": "blob", "data": PNG}, {"content_id": "again", "data": PNG, "priority": "high"},
                 {"content_id": "flaky", "url": flaky}, {"content_id": "gone", "url": site.url + "/gone"}]
            )  # fmt: skip
            by_rq = Queue("moderation", connection=theirs, serializer="json").enqueue(
                MODERATE, image=INLINE, content_id="by-rq"
            )
            verdicts = [producer.wait(job, 60) for job in [*jobs, by_rq]]
            refused = Queue("moderation", connection=theirs, serializer="json").enqueue("os.system", content_id="bad")
            assert producer.wait(refused, 60).reason == "invalid_job"
            assert support.get(worker.metrics_url + "/readyz") == (200, "ok\n")
            assert "sluice_queue_jobs" in support.get(worker.metrics_url + "/metrics")[1]
            assert worker.leave() == 0, worker.log[-2000:]
        assert [verdict.reason for verdict in verdicts] == [None, None, None, "source_refused", None]
        seen = [verdict.content_id for verdict in Moderation(reading).verdicts("group", "one", idle_seconds=0.2)]
        assert sorted(seen) == ["again", "bad", "blob", "by-rq", "flaky", "gone"]
    assert refusals(admin) == []


def test_jobs_of_a_worker_that_was_killed_are_taken_over_by_a_burst_under_the_same_rights(
    guarded: Guarded, admin: redis.Redis, own: dict[str, object], site: support.Website, tmp_path: Path
) -> None:
    slow = site.page("/slow-behind-tls", (200, PNG), wait_seconds=2)
    with guarded.open("sluice-producer") as theirs:
        producer = Moderation(theirs)
        job = producer.enqueue(content_id="held", url=slow)
        with support.running_worker(own, tmp_path) as worker:
            support.until(lambda: site.asked["/slow-behind-tls"], what="the job runs")
            worker.process.kill()
            worker.process.wait()
        support.until(lambda: _is_over(admin), what="the lease is over")
        done = support.sluice("work", "--burst", settings=own | {"metrics_port": 0})
        assert done.returncode == 0, done.stderr
        assert producer.wait(job, 30).reason is None
    assert refusals(admin) == []


def _is_over(admin: redis.Redis) -> bool:
    seconds, _ = admin.time()
    return all(ends < seconds for _, ends in admin.zrange("sluice:leases", 0, -1, withscores=True))


def test_the_command_enqueues_waits_and_reads_under_the_users_of_its_part(
    guarded: Guarded, admin: redis.Redis, own: dict[str, object], tmp_path: Path
) -> None:
    image = tmp_path / "a.png"
    image.write_bytes(PNG)
    producer, consumer = ({"redis_url": guarded.url(f"sluice-{part}")} for part in ("producer", "consumer"))
    with support.running_worker(own, tmp_path):
        asked = support.sluice("enqueue", image, "--wait", "--json", settings=producer)
    assert asked.returncode == 0, asked.stderr
    assert Verdict.model_validate_json(asked.stdout).content_id == "a.png"
    read = support.sluice("verdicts", "--json", settings=consumer)
    assert read.stdout == asked.stdout
    assert refusals(admin) == []


FORBIDDEN = [
    ("FLUSHALL",), ("FLUSHDB",), ("CONFIG", "GET", "*"), ("CONFIG", "SET", "dir", "/tmp"), ("KEYS", "*"), ("SCAN", "0"),
    ("SHUTDOWN",), ("MODULE", "LIST"), ("ACL", "LIST"), ("SAVE",), ("MONITOR",),
    ("REPLICAOF", "127.0.0.1", "1"), ("CLIENT", "LIST"), ("CLIENT", "KILL", "TYPE", "normal"), ("SLOWLOG", "GET"),
    ("SCRIPT", "FLUSH"), ("FUNCTION", "LIST"), ("GET", "other"), ("SET", "other", "x"), ("DEL", "sluice:verdicts:x"),
]  # fmt: skip
#: Beyond those, what the other parts may and this one may not.
FORBIDDEN_TO = {
    "sluice-worker": [
        ("SET", "sluice:blob:x", "y"), ("DEL", "sluice:blob:x"), ("SET", "sluice:policy:x", "y"),
        ("HSET", "sluice:policy:x", "a", "b"),
    ],
    "sluice-producer": [
        ("EVAL", "return 1", "0"), ("EVALSHA", "a" * 40, "0"), ("SCRIPT", "LOAD", "return 1"),
        ("XADD", "sluice:verdicts", "*", "a", "b"), ("DEL", "sluice:verdicts"), ("GET", "sluice:policy:x"),
        ("SET", "sluice:policy:x", "y"), ("ZADD", "sluice:leases", "0", "x"), ("HSET", "sluice:held:x", "a", "b"),
        ("SET", "sluice:memo:x", "y"), ("XADD", "rq:results:x", "*", "a", "b"), ("GET", "sluice:blob:x"),
    ],
    "sluice-consumer": [
        ("EVAL", "return 1", "0"), ("XADD", "sluice:verdicts", "*", "a", "b"), ("DEL", "sluice:verdicts"),
        ("HGETALL", "rq:job:x"), ("RPUSH", "rq:queue:moderation", "x"), ("GET", "sluice:blob:x"),
        ("XTRIM", "sluice:verdicts", "MAXLEN", "0"),
    ],
    "sluice-deliver": [
        ("HGETALL", "rq:job:x"), ("RPUSH", "rq:queue:moderation", "x"), ("DEL", "sluice:verdicts"),
        ("XADD", "sluice:verdicts", "*", "a", "b"), ("GET", "sluice:blob:x"),
    ],
    "sluice-author": [
        ("HGETALL", "rq:job:x"), ("XADD", "sluice:verdicts", "*", "a", "b"), ("GET", "sluice:blob:x"),
        ("EVAL", "return 1", "0"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("user", FORBIDDEN_TO)
def test_no_user_can_do_what_its_part_does_not_need(guarded: Guarded, admin: redis.Redis, user: str) -> None:
    allowed = []
    with guarded.open(user) as connection:
        assert connection.ping()
        for command in [*FORBIDDEN, *FORBIDDEN_TO[user]]:
            try:
                connection.execute_command(*command)
            except NoPermissionError:
                continue
            except redis.ResponseError as error:
                allowed.append(f"{' '.join(command)} ({error})")
            else:
                allowed.append(" ".join(command))
    assert allowed == []


def test_an_author_writes_policies_and_a_worker_reads_them(guarded: Guarded, admin: redis.Redis) -> None:
    with guarded.open("sluice-author") as author, guarded.open("sluice-worker") as worker:
        author.set("sluice:policy:house", "text")
        author.hset("sluice:policy:rollout", "house", "1")
        assert worker.get("sluice:policy:house") == b"text"
        assert worker.hgetall("sluice:policy:rollout") == {b"house": b"1"}


def test_nobody_comes_in_without_a_user_or_without_tls(guarded: Guarded, own: dict[str, object]) -> None:
    bare = f"rediss://127.0.0.1:{guarded.port}/0?ssl_ca_certs={guarded.authority}"
    for url in (bare, f"redis://127.0.0.1:{guarded.port}/0", guarded.url("nobody")):
        done = support.sluice("work", "--burst", settings=own | {"redis_url": url, "metrics_port": 0})
        assert done.returncode == 3, done.stderr
        assert done.stderr.count("\n") == 1
        assert "secret-of" not in done.stderr


def test_a_certificate_of_another_authority_is_one_line_and_exit_code_3(
    guarded: Guarded, own: dict[str, object], tmp_path: Path
) -> None:
    url = guarded.url("sluice-worker", guarded.stranger)
    for command in (("work", "--burst"), ("verdicts",), ("enqueue", "https://127.0.0.1/a.png")):
        settings = own | {"redis_url": url, "metrics_port": 0}
        done = support.sluice(*command, settings=settings if command[0] == "work" else {"redis_url": url})
        assert done.returncode == 3, done.stderr
        assert done.stderr.count("\n") == 1
        assert "certificate" in done.stderr
        assert "secret-of" not in done.stderr


@pytest.mark.parametrize(("content", "exit_code"), [(None, 2), ("nonsense", 3)])
def test_an_authority_that_is_not_there_or_cannot_be_read_is_one_line(
    guarded: Guarded, own: dict[str, object], tmp_path: Path, content: str | None, exit_code: int
) -> None:
    file = tmp_path / "authority.pem"
    if content:
        file.write_text(content)
    url = guarded.url("sluice-worker", file)
    done = support.sluice("work", "--burst", settings=own | {"redis_url": url, "metrics_port": 0})
    assert done.returncode == exit_code, done.stderr
    assert done.stderr.count("\n") == 1
    assert "ssl_ca_certs" in done.stderr


def test_the_page_names_every_user_once_and_turns_the_default_one_off() -> None:
    assert sorted(LINES) == ["default", *sorted(FORBIDDEN_TO)]
    assert LINES["default"] == "ACL SETUSER default off"


def test_jobs_are_read_back_by_their_producer(guarded: Guarded, admin: redis.Redis) -> None:
    with guarded.open("sluice-producer") as theirs:
        job = Moderation(theirs).enqueue(content_id="a", data=PNG)
        assert Job.fetch(job.id, connection=theirs, serializer="json").kwargs["content_id"] == "a"
