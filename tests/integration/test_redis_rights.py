"""A Redis with TLS, no default user, and the users of docs/security.md: all of Sluice works, and nothing more may."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ledgers
import pytest
import redis
import support
from house import PNG, House
from receiver import SECRET, Receiver, answer

from worker.client import Moderation, read_verdicts
from worker.ledger.shelf import DirectoryShelf

pytestmark = [pytest.mark.timeout(180), pytest.mark.thorough]

DOCUMENT = Path(__file__).parents[2] / "docs" / "security.md"
LINES = re.findall(r"^ACL SETUSER .+$", DOCUMENT.read_text(), re.MULTILINE)
USERS = {
    "worker": "sluice-worker",
    "client": "sluice-client",
    "deliver": "sluice-deliver",
    "author": "sluice-author",
    "archive": "sluice-archive",
    "admin": "default",
}


def openssl(directory: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True, timeout=60)


def write_certificates(directory: Path) -> None:
    """Write an authority, a certificate of it for 127.0.0.1, and an authority that has nothing to do with it."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    for name in ("authority", "stranger"):
        openssl(
            directory, "req", "-x509", *key, "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}"
        )
    openssl(directory, "req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=127.0.0.1")
    (directory / "names").write_text("subjectAltName=IP:127.0.0.1")
    openssl(directory, "x509", "-req", "-in", "server.csr", "-CA", "authority.pem", "-CAkey", "authority.key",
            "-CAcreateserial", "-extfile", "names", "-out", "server.pem")  # fmt: skip


@dataclass
class Guarded:
    """A Redis behind TLS."""

    port: int
    directory: Path

    def url(self, who: str, authority: str = "authority.pem", host: str = "127.0.0.1") -> str:
        login = f"{USERS[who]}:{who.upper()}-PASSWORD@"
        return f"rediss://{login}{host}:{self.port}/0?ssl_ca_certs={self.directory / authority}"

    def connect(self, who: str) -> redis.Redis:
        return redis.Redis.from_url(self.url(who))


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    binary = next(filter(None, map(shutil.which, ("redis-server", "valkey-server"))), None)
    if binary is None or shutil.which("openssl") is None:
        pytest.skip("needs redis-server or valkey-server, and openssl, on PATH")
    directory, port = tmp_path_factory.mktemp("tls"), support.free_port()
    write_certificates(directory)
    options = {
        "port": 0, "tls-port": port, "bind": "127.0.0.1", "save": "", "tls-auth-clients": "no", "dir": directory,
        "tls-cert-file": "server.pem", "tls-key-file": "server.key", "tls-ca-cert-file": "authority.pem",
        "requirepass": "ADMIN-PASSWORD",
    }  # fmt: skip
    arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    log = directory / "log"
    with log.open("wb") as file:
        process = subprocess.Popen([binary, *arguments], stdout=file, stderr=file, cwd=directory)
    try:
        support.until(lambda: process.poll() is not None or "eady to accept" in log.read_text(), what="Redis listens")
        if process.poll() is not None:
            pytest.skip(f"{binary} speaks no TLS: {log.read_text().splitlines()[-1]}")
        yield Guarded(port, directory)
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def admin(guarded: Guarded) -> Iterator[redis.Redis]:
    """Redis as its administrator, before `default` is switched off: connections that are open stay."""
    with guarded.connect("admin") as connection:
        connection.execute_command("ACL", "SETUSER", "keeper", "on", ">KEEPER", "~*", "&*", "+@all")
        for line in LINES:
            # What stands in parentheses is one argument.
            connection.execute_command(*re.findall(r"\([^)]*\)|\S+", line))
    with redis.Redis.from_url(guarded.url("admin").replace("default:ADMIN-PASSWORD", "keeper:KEEPER")) as connection:
        yield connection


def refusals(admin: redis.Redis) -> list[tuple[str, str]]:
    """Return who was refused what, and forget it."""
    rows: Any = admin.acl_log()
    admin.acl_log_reset()
    # Redis 7.2 and newer knows this command, and redis-py does without it; older ones take no line that names it.
    return [(row["username"], row["object"]) for row in rows if "client|setinfo" not in row["object"]]


@pytest.fixture(scope="module")
def site() -> Iterator[support.Website]:
    site = support.Website()
    yield site
    site.close()


def test_a_worker_a_backend_and_a_deliverer_need_no_right_that_their_users_lack(
    guarded: Guarded, admin: redis.Redis, tiny_clip: Path, site: support.Website, tmp_path: Path
) -> None:
    receiver = Receiver()
    policies = support.write_house_policies(tmp_path / "policies")
    settings = {
        "model": tiny_clip, "policies": policies, "policy": "house", "redis_url": guarded.url("worker"),
        "fetch_allow_private": True, "recovery_seconds": 1,
    }  # fmt: skip
    house = House(admin, site, tmp_path)
    moderation = Moderation.from_url(guarded.url("client"))
    with support.running_worker(settings, tmp_path) as dying:
        held = moderation.enqueue(content_id="held", url=house.slow_page("/held", 3)["url"])
        support.until(lambda: site.asked["/held"], what="the job runs")
        dying.process.kill()
        dying.process.wait()
    with support.running_worker(settings, tmp_path) as worker:
        jobs = moderation.enqueue_many([
            {"content_id": "blob", "data": PNG, "priority": "high"},
            {"content_id": "again", "url": site.page("/again", (503, b""), (200, PNG))},
            {"content_id": "bytes-again", "data": PNG, "priority": "bulk"},
            {"content_id": "no-policy", "data": PNG, "policy": "nobody"},
        ])  # fmt: skip
        verdicts = [moderation.wait(job, 60) for job in (held, *jobs)]
        assert [verdict.reason for verdict in verdicts] == [None, None, None, None, "unknown_policy"]
        moderation.connection.xadd("sluice:uploads", {"job": "no JSON"})
        house.ended(*House(moderation.connection, site, tmp_path).add_batch("added"))
        # Ends that are RQ's own: nothing kept, a job that waits for another.
        first = house.enqueue("nothing-kept", result_ttl=0)
        house.ended(house.enqueue("dependent", depends_on=house.enqueue("before")))
        support.until(lambda: house.entries(first.id), what="its verdict")
        assert support.get(worker.metrics_url + "/readyz")[0] == 200
        assert worker.metric("sluice_queue_jobs", queue="moderation") == 0
        assert worker.leave() == 0
        assert "Traceback" not in worker.log
        assert not re.search(r"NOPERM|permission", worker.log)
    seen = {verdict.content_id for verdict in moderation.verdicts("backend", "a", idle_seconds=0.5)}
    assert seen == {verdict.content_id for verdict in read_verdicts(moderation.connection)}
    deliver(guarded, receiver, len(seen))
    receiver.close()
    assert refusals(admin) == []


def deliver(guarded: Guarded, receiver: Receiver, count: int) -> None:
    """Post every verdict under the deliverer's user, the first one only when it is tried again, and look at it."""
    settings = {
        "redis_url": guarded.url("deliver"), "webhook_url": receiver.endpoint("/own", answer(500), answer(204)),
        "webhook_secret": SECRET, "webhook_allow_private": True, "webhook_retry_seconds": "0.1", "metrics_port": 0,
    }  # fmt: skip
    for flag in ("--burst", "--endpoints", "--replay"):
        said = support.sluice("deliver", flag, settings=settings)
        assert said.returncode == 0, said.stderr
        assert "Traceback" not in said.stderr
    support.until(lambda: len(receiver.ids("/own")) == count, 5, "every verdict arrives")


def test_an_author_and_a_worker_that_reads_the_registry_need_no_right_that_their_users_lack(
    guarded: Guarded, admin: redis.Redis, tiny_clip: Path, site: support.Website, tmp_path: Path
) -> None:
    policies = support.write_house_policies(tmp_path / "policies")
    author = {"redis_url": guarded.url("author"), "policies": "redis"}
    for arguments in (("publish", "--all", policies), ("activate", "house@3"), ("rollback", "house"), ("history",),
                      ("canary", "house@3", "--percent", 5), ("shadow", "house@2", "--off"), ("shadow", "house@2"),
                      ("list",)):  # fmt: skip
        said = support.typed("policy", *arguments, settings=author)
        assert said.returncode == 0, said.stderr
    settings = {"model": tiny_clip, "policies": "redis", "policy": "house", "redis_url": guarded.url("worker")}
    with support.running_worker(settings, tmp_path) as worker:
        house = House(admin, site, tmp_path)
        house.ended(house.enqueue("watched"))
        assert worker.leave() == 0
    said = support.typed("policy", "disagreements", "house@2", settings=author)
    assert said.returncode == 0, said.stderr
    assert refusals(admin) == []


def test_an_archiver_and_an_author_who_reads_the_ledger_need_no_right_that_their_users_lack(
    guarded: Guarded, admin: redis.Redis, tiny_clip: Path, site: support.Website, tmp_path: Path
) -> None:
    admin.delete(ledgers.LEDGER)
    policies = support.write_house_policies(tmp_path / "policies")
    settings = {"model": tiny_clip, "policies": policies, "policy": "house", "redis_url": guarded.url("worker"),
                "ledger_ttl_seconds": 3600}  # fmt: skip
    with support.running_worker(settings, tmp_path) as worker:
        house = House(admin, site, tmp_path)
        kept = house.enqueue("kept")
        house.ended(kept, house.enqueue("forgotten"), house.enqueue("special", result_ttl=600))
        assert worker.leave() == 0
        assert not re.search(r"NOPERM|permission", worker.log)
    admin.xgroup_create(ledgers.LEDGER, "archive", "0")
    admin.xreadgroup("archive", "dead", {ledgers.LEDGER: ">"}, count=1)
    place, archive = tmp_path / "ledger", {"redis_url": guarded.url("archive")}
    for arguments in (("archive", "--to", place, "--claim-seconds", "0.01"), ("show", "--ledger", place),
                      ("forget", "forgotten", "--ledger", place), ("archive", "--to", place)):  # fmt: skip
        said = support.sluice("ledger", *arguments, settings=archive)
        assert said.returncode == 0, said.stderr
    shown = support.sluice("ledger", "show", "--json", settings={"redis_url": guarded.url("author")})
    assert json.loads(shown.stdout)["entries"] == 2
    explained = support.sluice(
        "explain", kept.id, "--json", settings={"redis_url": guarded.url("author"), "model": tiny_clip,
        "policies": policies},
    )  # fmt: skip
    assert explained.returncode == 0, explained.stderr
    assert json.loads(explained.stdout)["basis"] == "ledger"
    assert sorted(ledgers.rows_on(DirectoryShelf(place))) == ["kept", "special"]
    assert refusals(admin) == []


@pytest.mark.parametrize(
    ("who", "command"),
    [
        ("author", "XADD sluice:ledger * a b"),
        ("author", "XDEL sluice:ledger 1-1"),
        ("author", "XTRIM sluice:ledger MAXLEN 0"),
        ("author", "SMEMBERS sluice:ledger:forgotten"),
        ("author", "XADD sluice:verdicts * verdict forged"),
        ("author", "XADD rq:results:x * type 1"),
        ("author", "HGETALL rq:job:x"),
        ("client", "XRANGE sluice:ledger - +"),
        ("deliver", "XRANGE sluice:ledger - +"),
        ("worker", "XTRIM sluice:verdicts MAXLEN 0"),
        ("worker", "XDEL sluice:ledger 1-1"),
        ("archive", "XADD sluice:ledger * a b"),
        ("archive", "XRANGE sluice:verdicts - +"),
        ("archive", "DEL sluice:ledger"),
        ("archive", "HGETALL rq:job:x"),
        ("archive", "GET sluice:blob:x"),
    ],
)
def test_the_ledger_is_read_and_written_by_those_alone_whose_it_is(
    guarded: Guarded, admin: redis.Redis, who: str, command: str
) -> None:
    with guarded.connect(who) as connection, pytest.raises(redis.exceptions.NoPermissionError):
        connection.execute_command(*command.split())
    assert refusals(admin)


@pytest.mark.parametrize(
    "command",
    [
        "FLUSHALL", "FLUSHDB", "CONFIG GET *", "CONFIG SET dir /tmp", "KEYS *", "SCAN 0", "SHUTDOWN",
        "ACL LIST", "ACL WHOAMI", "CLIENT LIST", "MONITOR", "SAVE", "REPLICAOF 127.0.0.1 1", "MODULE LIST", "SORT x",
        "EVAL return 0", "SCRIPT LOAD x", "FUNCTION LIST", "PUBLISH rq:pubsub:worker x", "SUBSCRIBE rq:pubsub:worker",
        "GET sluice:blob:x", "DEL sluice:blob:x", "SET sluice:verdicts x", "SET rq:job:x y",
        "XADD sluice:verdicts * verdict forged", "XTRIM sluice:verdicts MAXLEN 0", "DEL sluice:verdicts",
        "XGROUP DESTROY sluice:verdicts sluice:deliver", "RPUSH rq:queue:other x", "LRANGE rq:queue:moderation 0 -1",
        "LPOP rq:queue:moderation", "DEL rq:job:x", "HGETALL sluice:held:worker", "ZRANGE sluice:leases 0 -1",
        "HGETALL rq:worker:x", "ZADD rq:scheduled:moderation 0 x", "XADD rq:results:x * type 1",
        "XRANGE sluice:webhooks:dead - +", "HGETALL sluice:webhooks:off", "GET sluice:policy:x", "SET other x",
    ],
)  # fmt: skip
def test_a_backend_may_enqueue_and_read_verdicts_and_nothing_else(
    guarded: Guarded, admin: redis.Redis, command: str
) -> None:
    with guarded.connect("client") as connection, pytest.raises(redis.exceptions.NoPermissionError):
        connection.execute_command(*command.split())
    assert refusals(admin)


@pytest.mark.parametrize("who", ["worker", "deliver", "archive"])
@pytest.mark.parametrize(
    "command",
    ["FLUSHALL", "CONFIG GET *", "KEYS *", "SCAN 0", "ACL LIST", "MONITOR", "GET other", "SHUTDOWN"],
)
def test_no_process_has_a_right_over_the_server_or_over_other_keys(
    guarded: Guarded, admin: redis.Redis, who: str, command: str
) -> None:
    with guarded.connect(who) as connection, pytest.raises(redis.exceptions.NoPermissionError):
        connection.execute_command(*command.split())
    assert refusals(admin)


def test_a_deliverer_reads_verdicts_and_touches_no_job(guarded: Guarded, admin: redis.Redis) -> None:
    with guarded.connect("deliver") as connection:
        for command in ("HGETALL rq:job:x", "RPUSH rq:queue:moderation x", "XADD sluice:verdicts * a b"):
            with pytest.raises(redis.exceptions.NoPermissionError):
                connection.execute_command(*command.split())


# -- what is wrong is said in one line -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "code", "said"),
    [
        (lambda at: at.url("client", authority="stranger.pem"), 3, "is not trusted (certificate verify failed"),
        (lambda at: at.url("client").partition("?")[0], 3, "?ssl_ca_certs=FILE"),
        (lambda at: at.url("client", host="localhost"), 3, "Hostname mismatch"),
        (lambda at: at.url("client", authority="nowhere.pem"), 2, "nowhere.pem is no file"),
        (lambda at: at.url("client") + "&ssl_ca_certz=x", 2, "ssl_ca_certz"),
        (lambda at: at.url("client").replace("rediss", "redis").partition("?")[0], 3, "does not answer"),
        (lambda at: at.url("admin"), 3, "refuses this user"),
        (lambda at: at.url("client").replace("CLIENT-", "WRONG-"), 3, "refuses this user"),
    ],
    ids=["stranger", "no authority", "host", "no file", "option", "no TLS", "default", "password"],
)  # fmt: skip
def test_what_keeps_a_command_from_redis_is_one_line_without_the_password(
    guarded: Guarded, admin: redis.Redis, url: Any, code: int, said: str
) -> None:
    done = support.sluice("verdicts", settings={"redis_url": url(guarded)})
    (line,) = done.stderr.splitlines()
    assert (done.returncode, said in line, "PASSWORD" in line) == (code, True, False), line
