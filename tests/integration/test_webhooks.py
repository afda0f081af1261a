"""Every verdict arrives at least once, whatever receivers do and whoever is killed, and no endpoint delays another."""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
import support
from receiver import SECRET, Receiver, answer, hang, reset, say

from worker.runtime.accepting import GROUP
from worker.runtime.deliver import Deliverer, Schedule
from worker.runtime.lanes import IN_FLIGHT
from worker.sinks.outbox import DEAD, Outbox, endpoint_of
from worker.sinks.stream import STREAM
from worker.sinks.webhook import Reach, Webhooks, read_secrets

pytestmark = pytest.mark.thorough

TOKEN = "hush-hush"
PRIVATE = Reach(allow_private=True)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()
    assert receiver.wrong == []


def push(connection: redis.Redis, verdict_id: str, webhook: str | None = None) -> None:
    fields = {"verdict": json.dumps({"verdict_id": verdict_id, "content_id": "ü"})}
    connection.xadd(STREAM, fields | ({"webhook": webhook} if webhook else {}))


class Running:
    """A deliverer in a thread, and what it counted."""

    def __init__(
        self,
        connection: redis.Redis,
        url: str | None,
        reach: Reach,
        waits: tuple[float, ...],
        seconds: float,
        most: int,
    ) -> None:
        self.counted: Counter[str] = Counter()
        self.outbox = Outbox(connection, most)
        self.deliverer = Deliverer(
            connection, self.outbox, Webhooks(read_secrets(SECRET), seconds, reach, IN_FLIGHT), Schedule(waits), url,
            seconds + 5, lambda outcome, times: self.counted.update({outcome: times}),
        )  # fmt: skip


Deliver = Callable[..., Any]


@pytest.fixture
def deliver(connection: redis.Redis) -> Deliver:
    @contextmanager
    def run(
        url: str | None = None, reach: Reach = PRIVATE, waits: tuple[float, ...] = (0.05,) * 8, seconds: float = 0.5,
        most: int = 1000, burst: bool = False,
    ) -> Iterator[Running]:  # fmt: skip
        running = Running(connection, url, reach, waits, seconds, most)
        if burst:
            running.deliverer.finish()
        thread = threading.Thread(target=running.deliverer.run)
        thread.start()
        try:
            yield running
        finally:
            if not burst:
                running.deliverer.stop()
            thread.join(support.PATIENCE_SECONDS)
            assert not thread.is_alive()

    return run


def dead(connection: redis.Redis) -> list[tuple[str, str]]:
    """Return verdict id and reason of each dead letter."""
    entries: Any = connection.xrange(DEAD)
    return [(fields[b"verdict_id"].decode(), fields[b"reason"].decode()) for _, fields in entries]


# -- receivers -------------------------------------------------------------------------------------------------------


def test_a_receiver_that_fails_at_first_gets_its_verdict_in_the_end_under_the_same_id(
    connection: redis.Redis, receiver: Receiver, deliver: Deliver
) -> None:
    troubles = {
        "/hangs": hang,
        "/500": answer(500),
        "/301": answer(301, Location=receiver.url + "/elsewhere"),
        "/307": answer(307, Location=receiver.url + "/elsewhere"),
        "/inwards": answer(302, Location="http://169.254.169.254/latest"),
        "/resets": reset,
        "/garbage": say(b"SSH-2.0-OpenSSH\r\n"),
        "/no-length": say(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n"),
        "/half-a-header": say(b"HTTP/1.1 200 OK\r\nContent-"),
    }
    for path, trouble in troubles.items():
        push(connection, path.strip("/"), receiver.endpoint(path, trouble, trouble, answer(204)))
    with deliver() as running:
        support.until(lambda: running.counted["delivered"] == len(troubles), what="all arrive")
    for path in troubles:
        assert receiver.ids(path) == {path.strip("/"): 3}
    assert not receiver.got("/elsewhere")
    assert running.counted == {"retried": 2 * len(troubles), "delivered": len(troubles)}
    assert connection.keys("sluice:webhooks:d*") == []


def test_a_2xx_is_a_success_whatever_its_body_is_like(
    connection: redis.Redis, receiver: Receiver, deliver: Deliver
) -> None:
    bodies = {
        "/longer": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        "/shorter": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nmuch longer than it says",
        "/endless": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"4000\r\n" + b"x" * 0x4000 + b"\r\n",
    }
    for path, text in bodies.items():
        push(connection, path.strip("/"), receiver.endpoint(path, say(text)))
    with deliver(seconds=5.0) as running:
        support.until(lambda: sum(running.counted.values()) == len(bodies), what="all answered")
    assert running.counted == {"delivered": len(bodies)}


def test_retry_after_is_waited_for_by_all_that_goes_there(
    connection: redis.Redis, receiver: Receiver, deliver: Deliver
) -> None:
    url = receiver.endpoint("/busy", answer(429, Retry_After="1"), answer(204))
    push(connection, "first", url)
    push(connection, "second", url)
    with deliver() as running:
        support.until(lambda: running.counted["delivered"] == 2, what="both arrive")
    begun, *later = receiver.got("/busy")
    assert [got.at - begun.at >= 1.0 for got in later] == [True, True]


def test_410_switches_an_endpoint_off_until_it_is_switched_on_and_its_dead_letters_are_put_back(
    connection: redis.Redis, receiver: Receiver, deliver: Deliver
) -> None:
    url = receiver.endpoint("/gone", answer(410), answer(204))
    other = receiver.endpoint("/other", answer(204))
    for number in range(3):
        push(connection, f"gone-{number}", url)
    push(connection, "other", other)
    with deliver() as running:
        support.until(lambda: running.counted["endpoint_off"] == 3 and receiver.got("/other"))
        assert len(receiver.got("/gone")) == 1
        assert dead(connection) == [(f"gone-{number}", "endpoint_off") for number in range(3)]
        assert running.outbox.replay() == (0, 3)
        (found,) = running.outbox.endpoints()
        assert (found.url, found.state, found.says) == (url, "off", "answered 410")
        assert running.outbox.switch_on(url)
        assert not running.outbox.switch_on(url)
        assert running.outbox.replay() == (3, 0)
        support.until(lambda: running.counted["delivered"] == 4, what="put back and delivered")
    assert set(receiver.ids("/gone")) == {"gone-0", "gone-1", "gone-2"}
    assert dead(connection) == []


def test_what_no_attempt_brought_there_is_a_dead_letter_and_can_be_put_back(
    connection: redis.Redis, receiver: Receiver, deliver: Deliver
) -> None:
    push(connection, "v", receiver.endpoint("/down", *[answer(503)] * 3, answer(200)))
    with deliver(waits=(0.01, 0.01)) as running:
        support.until(lambda: running.counted["dead"] == 1)
        assert dead(connection) == [("v", "attempts_exhausted")]
        running.outbox.replay()
        support.until(lambda: running.counted["delivered"] == 1)
    assert receiver.ids("/down") == {"v": 4}


def test_endpoints_that_hang_delay_no_other_and_neither_does_one_that_is_new(
    connection: redis.Redis, receiver: Receiver, deliver: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    # At the end nobody waits for what hangs.
    monkeypatch.setattr("worker.runtime.deliver._GOODBYE_SECONDS", 0.1)
    own = receiver.endpoint("/own", answer(204))
    known = receiver.endpoint("/known", answer(204))
    push(connection, "known-0", known)
    with deliver(own, seconds=60.0) as running:
        support.until(lambda: running.counted["delivered"] == 1)
        for number in range(100):
            push(connection, f"stuck-{number}", receiver.endpoint(f"/hangs/{number}", hang))
        support.until(lambda: len([got for got in receiver.got() if got.path.startswith("/hangs")]) == 64)
        for number in range(50):
            push(connection, f"known-{number}", known)
            push(connection, f"own-{number}")
        # Nothing that hangs has ended: its time-out is longer than the patience of this test.
        support.until(lambda: running.counted["delivered"] == 101, seconds=20, what="all others arrive")
    assert len(receiver.ids("/own")) == 50
    assert receiver.most_at_once["/own"] <= 16


def test_an_endpoint_that_fails_again_and_again_is_left_alone_and_known_to_fail_after_a_restart(
    connection: redis.Redis, receiver: Receiver, deliver: Deliver
) -> None:
    url = receiver.endpoint("/down", answer(500))
    for number in range(20):
        push(connection, f"v{number}", url)
    with deliver(waits=(30.0,)) as running:
        support.until(lambda: running.counted["retried"] == 3)
        assert running.outbox.due()[0]["failing"] == []
        (found,) = running.outbox.endpoints()
        assert (found.state, found.waiting, found.says) == ("failing", 20, "answered 500")
    with deliver(waits=(30.0,)):
        time.sleep(0.2)
    assert len(receiver.got("/down")) == 3


# -- where a producer may point --------------------------------------------------------------------------------------


def test_a_jobs_own_url_is_guarded_and_the_operators_may_be_private(
    connection: redis.Redis, receiver: Receiver, deliver: Deliver, caplog: pytest.LogCaptureFixture
) -> None:
    own = receiver.endpoint("/own", answer(204))
    push(connection, "own")
    for number, url in enumerate(
        (f"{receiver.url}/inside?{TOKEN}", "http://169.254.169.254/latest", "https://127.0.0.1/", "http://[::1]/",
         f"https://u:{TOKEN}@example.org/", "http://0x7f.1/", "https://h:99999/", "https://", "gopher://h/")
    ):  # fmt: skip
        push(connection, f"refused-{number}", url)
    with deliver(own, reach=Reach(private_url=own)) as running:
        support.until(lambda: sum(running.counted.values()) == 10)
    assert running.counted == {"delivered": 1, "dead": 9}
    assert {reason for _, reason in dead(connection)} == {"address_refused"}
    assert {got.path for got in receiver.got()} == {"/own"}
    assert receiver.connections == 1
    assert TOKEN not in caplog.text


# -- the stream ------------------------------------------------------------------------------------------------------


def test_what_a_dead_process_had_read_is_delivered_and_what_is_no_verdict_is_passed_over(
    connection: redis.Redis, receiver: Receiver, deliver: Deliver
) -> None:
    own = receiver.endpoint("/own", answer(204))
    connection.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
    push(connection, "read")
    connection.xadd(STREAM, {"verdict": "[1"})
    connection.xadd(STREAM, {"verdict": json.dumps({"verdict_id": "a.b\r\nX: y"})})
    connection.xadd(STREAM, {"other": "field"})
    connection.xreadgroup(GROUP, "deliver", {STREAM: ">"}, count=2)
    push(connection, "unread")
    with deliver(own, burst=True):
        pass
    assert receiver.ids("/own") == {"read": 1, "unread": 1}
    assert connection.xpending(STREAM, GROUP)["pending"] == 0


def test_verdicts_that_the_streams_limit_took_unread_are_counted(
    connection: redis.Redis, receiver: Receiver, deliver: Deliver, caplog: pytest.LogCaptureFixture
) -> None:
    if int(connection.info("server")["redis_version"].split(".")[0]) < 7:
        pytest.skip("Redis before version 7 does not tell")
    own = receiver.endpoint("/own", answer(204))
    push(connection, "first")
    with deliver(own, burst=True) as running:
        pass
    for number in range(10):
        push(connection, f"v{number}")
    connection.xreadgroup(GROUP, "deliver", {STREAM: ">"}, count=3)
    connection.xtrim(STREAM, maxlen=2, approximate=False)
    with deliver(own, burst=True) as running:
        pass
    assert running.counted == {"lost": 8, "delivered": 2}
    assert "SLUICE_VERDICT_STREAM_MAXLEN" in caplog.text


def test_two_that_deliver_share_the_work_and_post_nothing_twice(
    connection: redis.Redis, receiver: Receiver, deliver: Deliver
) -> None:
    own = receiver.endpoint("/own", answer(204))
    # What is not answered in time is posted again, and a busy machine may be late.
    patient = support.PATIENCE_SECONDS
    with deliver(own, seconds=patient) as one, deliver(own, seconds=patient) as other:
        for number in range(100):
            push(connection, f"v{number}")
        support.until(lambda: one.counted["delivered"] + other.counted["delivered"] == 100, what="all arrive")
    assert receiver.ids("/own") == {f"v{number}": 1 for number in range(100)}


def test_an_emptied_redis_is_begun_anew(connection: redis.Redis, receiver: Receiver, deliver: Deliver) -> None:
    with deliver(receiver.endpoint("/own", answer(204))) as running:
        push(connection, "before")
        support.until(lambda: running.counted["delivered"] == 1)
        connection.flushall()
        push(connection, "after")
        support.until(lambda: running.counted["delivered"] == 2)
    assert receiver.ids("/own") == {"before": 1, "after": 1}


def test_more_than_may_wait_for_an_endpoint_become_dead_letters_at_once(
    connection: redis.Redis, receiver: Receiver, deliver: Deliver
) -> None:
    url = receiver.endpoint("/down", answer(500))
    for number in range(12):
        push(connection, f"v{number}", url)
    with deliver(waits=(60.0,), most=10, burst=True) as running:
        pass
    assert dead(connection) == [("v10", "outbox_full"), ("v11", "outbox_full")]
    assert running.counted["dead"] == 2
    assert int(connection.get("sluice:webhooks:waiting") or 0) == 10  # type: ignore[arg-type]


def test_endpoints_of_strangers_are_remembered_up_to_a_number(
    connection: redis.Redis, receiver: Receiver, deliver: Deliver
) -> None:
    connection.hset("sluice:webhooks:off", mapping={str(number): "{}" for number in range(10_000)})
    connection.zadd("sluice:webhooks:answering", {str(number): number for number in range(10_000)})
    push(connection, "gone", receiver.endpoint("/gone", answer(410)))
    push(connection, "fine", receiver.endpoint("/fine", answer(204)))
    with deliver(burst=True) as running:
        pass
    assert running.counted == {"endpoint_off": 1, "delivered": 1}
    assert connection.hlen("sluice:webhooks:off") == 10_000
    assert connection.hexists("sluice:webhooks:off", endpoint_of(receiver.url + "/gone"))
    assert connection.zcard("sluice:webhooks:answering") == 10_000
    assert connection.zscore("sluice:webhooks:answering", endpoint_of(receiver.url + "/fine"))


def test_an_endpoint_of_a_url_has_a_name_of_128_bits() -> None:
    assert len(bytes.fromhex(endpoint_of("https://example.org/"))) == 16


# -- the command -----------------------------------------------------------------------------------------------------


def settings(redis_url: str, receiver: Receiver, more: dict[str, object] | None = None) -> dict[str, object]:
    return {
        "redis_url": redis_url, "webhook_url": f"{receiver.url}/own?token={TOKEN}", "webhook_secret": SECRET,
        "webhook_allow_private": True, "webhook_timeout_seconds": 0.5, "webhook_retry_seconds": "0.1,0.1,0.1,5",
        "metrics_port": 0, "log_level": "debug",
    } | (more or {})  # fmt: skip


def start(redis_url: str, receiver: Receiver, log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as file:
        return subprocess.Popen(
            [support.SLUICE, "deliver"], stdout=file, stderr=file, cwd=tempfile.gettempdir(),
            env=support.environment(settings(redis_url, receiver)),
        )  # fmt: skip


def test_every_verdict_arrives_though_the_command_is_killed_again_and_again(
    connection: redis.Redis, redis_url: str, receiver: Receiver, tmp_path: Path
) -> None:
    slow = answer(204)

    def take_a_moment(handler: Any) -> None:
        time.sleep(0.02)
        slow(handler)

    path = f"/own?token={TOKEN}"
    receiver.endpoint(path, answer(500), take_a_moment)
    wanted = {f"v{number}" for number in range(300)}
    for verdict_id in sorted(wanted):
        push(connection, verdict_id)
    log = tmp_path / "log"
    for least in (20, 120):
        process = start(redis_url, receiver, log)
        support.until(lambda least=least: len(receiver.ids(path)) >= least, what=f"{least} arrive")  # type: ignore[misc]
        process.kill()
        process.wait()
    process = start(redis_url, receiver, log)
    support.until(lambda: set(receiver.ids(path)) == wanted, what="all arrive")
    support.until(lambda: connection.keys("sluice:webhooks:delivery:*") == [], what="all are settled")
    process.terminate()
    assert process.wait(support.PATIENCE_SECONDS) == 0
    said = log.read_text()
    assert "delivered v1 " in said
    assert TOKEN not in said
    assert SECRET.removeprefix("whsec_") not in said


def test_replay_puts_dead_letters_back_posts_them_and_ends(
    connection: redis.Redis, redis_url: str, receiver: Receiver, deliver: Deliver
) -> None:
    path = f"/own?token={TOKEN}"
    push(connection, "v", receiver.endpoint(path, answer(500), answer(410), answer(204)))
    with deliver(waits=(0.01,)) as running:
        support.until(lambda: running.counted["endpoint_off"])

    def run(*arguments: str) -> dict[str, Any]:
        said = support.sluice("deliver", "--json", *arguments, settings=settings(redis_url, receiver))
        assert said.returncode == 0, said.stderr
        assert TOKEN not in said.stdout + said.stderr
        found: dict[str, Any] = json.loads(said.stdout)
        return found

    shown = run("--endpoints")
    assert (shown["url"], shown["state"], shown["says"]) == (receiver.url + "/own", "off", "answered 410")
    assert run("--replay") == {"replayed": 0, "kept": 1}
    assert run("--switch-on", receiver.url + path) == {"endpoint": receiver.url + "/own", "state": "on"}
    again = support.sluice("deliver", "--switch-on", receiver.url + path, settings=settings(redis_url, receiver))
    assert (again.returncode, TOKEN in again.stderr) == (2, False)
    assert run("--replay") == {"replayed": 1, "kept": 0}
    assert receiver.ids(path) == {"v": 3}


@pytest.mark.parametrize(
    ("changed", "code", "words"),
    [
        ({"redis_url": "redis://127.0.0.1:1/0"}, 3, "Redis at redis://127.0.0.1:1/0 does not answer"),
        ({"webhook_url": ""}, 2, "there is no URL to post to; set SLUICE_WEBHOOK_URL"),
        ({"webhook_url": "ftp://h/"}, 2, "SLUICE_WEBHOOK_URL=(hidden): write it as https://HOST/PATH"),
        ({"webhook_secret": ""}, 2, "webhooks are signed; set SLUICE_WEBHOOK_SECRET"),
        ({"webhook_secret": "whsec_geheim"}, 2, "SLUICE_WEBHOOK_SECRET: secret 1 is not whsec_"),
    ],
)
def test_what_is_missing_is_said_in_one_line(
    changed: dict[str, object], code: int, words: str, redis_url: str, receiver: Receiver
) -> None:
    said = support.sluice("deliver", settings=settings(redis_url, receiver, changed))
    assert said.returncode == code
    (line,) = said.stderr.splitlines()
    assert words in line
    assert "geheim" not in line


def test_the_settings_are_shown_without_what_is_secret_in_them() -> None:
    given = {"webhook_url": f"https://example.org/hook?token={TOKEN}", "webhook_secret": SECRET}
    said = support.sluice("settings", "--json", settings=given)
    rows = {row["name"]: row["value"] for row in map(json.loads, said.stdout.splitlines())}
    assert rows["SLUICE_WEBHOOK_URL"] == "https://example.org/hook"
    assert rows["SLUICE_WEBHOOK_SECRET"] == "***"
    assert TOKEN not in said.stdout + said.stderr
    assert SECRET not in said.stdout + said.stderr
