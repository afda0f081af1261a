"""Redis behind Sentinel: a master, two replicas, three sentinels, and a fleet that goes on when the master dies."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis
import support
from house import House

from worker.client import Moderation
from worker.connection import PatientBackoff, open_redis
from worker.errors import UsageError
from worker.settings import mask_url

pytestmark = pytest.mark.timeout(240)

PASSWORD = "geheim"


@dataclass
class Group:
    """Three Redis servers and as many sentinels that watch them."""

    directory: Path
    servers: list[int] = field(default_factory=lambda: [support.free_port() for _ in range(3)])
    sentinels: list[int] = field(default_factory=lambda: [support.free_port() for _ in range(3)])
    processes: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.sentinels)
        return f"sentinel://:{PASSWORD}@{hosts}/uploads/0"

    def start(self, port: int, *lines: str, sentinel: bool = False) -> None:
        """Start one of them, as it was when it ended, if it ran before."""
        home = self.directory / str(port)
        if not home.exists():
            home.mkdir()
            own = ("port", port), ("bind", "127.0.0.1"), ("dir", home), ("logfile", home / "log"), ("save", '""')
            (home / "redis.conf").write_text("\n".join([*(f"{name} {value}" for name, value in own), *lines]) + "\n")
        flags = ["--sentinel"] if sentinel else []
        self.processes[port] = subprocess.Popen(["redis-server", home / "redis.conf", *flags])

    def master(self) -> int:
        """Return the port of the master that the first sentinel knows."""
        with redis.Redis(port=self.sentinels[0]) as sentinel:
            found: Any = sentinel.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "uploads")
            return int(found[1])

    def open(self) -> redis.Redis:
        return open_redis(self.url)


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Group]:
    if shutil.which("redis-server") is None:
        pytest.skip("needs redis-server on PATH")
    group = Group(tmp_path)
    # As docs/scale.md says: a master whose replica has not heard of it for seconds takes no more.
    own = (f"requirepass {PASSWORD}", f"masterauth {PASSWORD}", "appendonly yes", "min-replicas-to-write 1",
           "min-replicas-max-lag 2")  # fmt: skip
    first, *others = group.servers
    try:
        group.start(first, *own)
        for port in others:
            group.start(port, *own, f"replicaof 127.0.0.1 {first}")
        for port in group.sentinels:
            group.start(
                port, f"sentinel monitor uploads 127.0.0.1 {first} 2", f"sentinel auth-pass uploads {PASSWORD}",
                "sentinel down-after-milliseconds uploads 1000", "sentinel failover-timeout uploads 5000",
                sentinel=True,
            )  # fmt: skip
        support.until(lambda: _is_replicated(first), what="the replicas are there")
        support.until(lambda: _knows(group.sentinels), what="the sentinels know each other")
        yield group
    finally:
        for process in group.processes.values():
            process.kill()
            process.wait()


def _is_replicated(port: int) -> bool:
    try:
        with redis.Redis(port=port, password=PASSWORD) as connection:
            about: Any = connection.info("replication")
            return [about.get(f"slave{number}", {}).get("state") for number in range(2)] == ["online", "online"]
    except redis.RedisError:
        return False


def _knows(sentinels: list[int]) -> bool:
    try:
        for port in sentinels:
            with redis.Redis(port=port) as connection:
                about: Any = connection.sentinel_master("uploads")
                if about["num-slaves"] != 2 or about["num-other-sentinels"] != 2:
                    return False
    except redis.RedisError:
        return False
    return True


def test_a_command_that_waits_when_the_master_dies_goes_on_at_the_new_one(group: Group) -> None:
    first = group.master()
    with ThreadPoolExecutor(1) as threads, open_redis(group.url, PatientBackoff()) as patient, group.open() as other:
        waiting = threads.submit(patient.blpop, ["line"], 60)
        support.until(lambda: other.info("clients")["blocked_clients"] == 1, what="it waits")
        group.processes[first].kill()
        group.processes[first].wait()
        support.until(lambda: group.master() != first, what="there is a new master")
        support.until(lambda: _pushed(other), what="the new master takes what is written")
        assert waiting.result(20) == (b"line", b"said")


def _pushed(connection: redis.Redis) -> bool:
    try:
        return bool(connection.rpush("line", "said"))
    except redis.RedisError:
        return False


@pytest.mark.chaos
def test_a_fleet_goes_on_when_the_master_dies_and_every_upload_has_one_verdict(
    group: Group, tiny_clip: Path, tmp_path: Path
) -> None:
    site = support.Website()
    policies = support.write_house_policies(tmp_path / "policies")
    settings = {"redis_url": group.url, "model": tiny_clip, "policies": policies, "policy": "house",
                "recovery_seconds": 2}  # fmt: skip
    house = House(group.open(), site, tmp_path)
    first = group.master()
    names: list[str] = []
    try:
        with support.running_worker(settings, tmp_path), support.running_worker(settings, tmp_path):
            deadline = time.monotonic() + 12
            killed = False
            while time.monotonic() < deadline:
                batch = [f"upload-{len(names) + place}" for place in range(40)]
                names += _added(house, batch)
                if not killed and len(names) > 400:
                    group.processes[first].kill()
                    group.processes[first].wait()
                    killed = True
                time.sleep(0.05)
            assert killed
            support.until(lambda: group.master() != first, what="there is a new master")
            group.start(first)
            names += _added(house, ["last"])
            support.until(lambda: set(names) <= _said(house).keys(), 90, "every upload has its verdict")
            time.sleep(1)
    finally:
        site.close()
    said = _said(house)
    assert len(said) > 400
    assert {name: times for name, times in said.items() if times > 1} == {}


def _added(house: House, names: list[str]) -> list[str]:
    """Add uploads until the master and its replica have them; a backend that heard nothing adds them again."""
    while True:
        try:
            house.add_batch(*names)
            if house.connection.wait(1, 1000):
                return names
        except redis.RedisError:
            time.sleep(0.1)


def _said(house: House) -> Counter[str]:
    try:
        return Counter(entry["content_id"] for entry in house.entries())
    except redis.RedisError:
        return Counter()


def test_the_client_waits_for_a_verdict_by_sentinel(group: Group) -> None:
    moderation = Moderation.from_url(group.url)
    job = moderation.enqueue(content_id="upload-1", url="https://example.org/a.png")
    assert moderation.connection.llen("rq:queue:moderation") == 1
    assert job.get_status() == "queued"


def test_a_login_of_the_sentinels_and_a_database_are_heeded() -> None:
    connection = open_redis("sentinel://user:pw@a:1,b,[::1]:3/uploads/2?sentinel_password=other&client_name=x")
    pool: Any = connection.connection_pool
    given = pool.connection_kwargs
    assert (given["username"], given["password"], given["db"], given["client_name"]) == ("user", "pw", 2, "x")
    sentinels = [one.connection_pool.connection_kwargs for one in pool.sentinel_manager.sentinels]
    assert [(one["host"], one["port"]) for one in sentinels] == [("a", 1), ("b", 26379), ("::1", 3)]
    assert {one["password"] for one in sentinels} == {"other"}


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("sentinel://a:26379", "no service"),
        ("sentinel:///uploads", "without a host"),
        ("sentinel://a:x/uploads", "Port"),
        ("sentinel://a/uploads?colour=red", "colour"),
        ("sentinel://a/uploads?ssl=true&ssl_ca_certs=/nowhere", "is no file"),
    ],
)
def test_a_url_that_cannot_be_read_says_why(url: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        open_redis(url)


def test_passwords_of_both_kinds_are_masked() -> None:
    shown = mask_url("sentinel://user:geheim@a:1,b:2/uploads?sentinel_username=u&sentinel_password=geheim")
    assert shown == "sentinel://user:***@a:1,b:2/uploads?sentinel_username=u&sentinel_password=***"
