"""deploy/compose.yaml against its schema; and Redis, a worker, a deliverer and the receiver under its users."""

from __future__ import annotations

import copy
import json
import re
import shutil
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import pytest
import redis
import support
import yaml
from dockerfile import ROOT, stage
from house import PNG
from standardwebhooks import Webhook

from worker import __version__
from worker.client import Moderation

pytestmark = [pytest.mark.timeout(180), pytest.mark.thorough]

DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SCHEMA = jsonschema.Draft7Validator(json.loads((ROOT / "tests/data/schemas/compose.json").read_text()))


def wrong(compose: Any) -> list[str]:
    return [error.message for error in SCHEMA.iter_errors(compose)]


# -- the file --------------------------------------------------------------------------------------------------------


def test_the_file_is_what_the_compose_specification_asks_for() -> None:
    assert wrong(COMPOSE) == []


@pytest.mark.parametrize(("key", "value"), [("read_onli", True), ("stop_grace_period", 60), ("cap_drop", "ALL")])
def test_a_slip_in_the_file_would_be_found(key: str, value: object) -> None:
    slipped = copy.deepcopy(COMPOSE)
    slipped["services"]["worker"][key] = value
    assert wrong(slipped)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_may_nothing_that_it_need_not(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["deploy"]["resources"]["limits"]["memory"]
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}
    assert "privileged" not in service
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    # The Dockerfile brings ours along.
    assert "healthcheck" in service or service["image"].startswith("sluice:")
    assert (
        not re.search("password|secret|token", json.dumps(service.get("environment", {})), re.IGNORECASE)
        or name == "grafana"
    )


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_is_a_version(name: str) -> None:
    version = SERVICES[name]["image"].rpartition(":")[2]
    assert re.match(r"v?\d+\.\d+\.\d+", version), version
    if "sluice" in SERVICES[name]["image"]:
        assert version == __version__


def test_two_workers_have_a_minute_to_end_their_batches() -> None:
    assert SERVICES["worker"]["deploy"]["replicas"] == 2
    assert SERVICES["worker"]["stop_grace_period"] == SERVICES["deliver"]["stop_grace_period"] == "60s"


def test_all_that_is_mounted_is_there_and_nothing_of_the_host_can_be_written() -> None:
    mounts = [mount.split(":") for service in SERVICES.values() for mount in service.get("volumes", [])]
    for source, _, *mode in (mount for mount in mounts if mount[0].startswith(".")):
        assert (DEPLOY / source).exists(), source
        assert mode == ["ro"], source
    named = {mount[0] for mount in mounts if not mount[0].startswith(".")}
    assert named == COMPOSE["volumes"].keys()


def test_grafana_finds_its_dashboards_and_prometheus_where_they_are_put() -> None:
    provisioning = DEPLOY / "grafana" / "provisioning"
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "sluice.yaml").read_text())["providers"]
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in SERVICES["grafana"]["volumes"]
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"]
    assert urlsplit(source["url"]).hostname in SERVICES
    assert set(SERVICES["grafana"]["networks"]) & set(SERVICES["prometheus"]["networks"])


def test_the_build_is_given_arguments_that_the_dockerfile_has() -> None:
    known = {line.partition("=")[0] for name in ("build", "model") for line in stage(name).all("ARG")}
    assert SERVICES["worker"]["build"]["args"].keys() <= known


def test_passwords_are_in_files_that_are_never_committed() -> None:
    files = [secret["file"] for secret in COMPOSE["secrets"].values()]
    assert all(file.startswith("./secrets/") for file in files)
    done = subprocess.run(["git", "check-ignore", *files], cwd=DEPLOY, capture_output=True, text=True, check=False)
    if done.returncode == 128:
        pytest.skip("needs a git checkout")
    assert done.stdout.split() == files


# -- the script ------------------------------------------------------------------------------------------------------


def make_secrets(directory: Path, redis_at: str = "redis:6379") -> dict[str, str]:
    """Run deploy/secrets.sh; what is in the files."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    command = ["sh", DEPLOY / "secrets.sh", directory, redis_at]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return {file.name: file.read_text() for file in directory.iterdir()}


def test_the_script_makes_every_secret_and_overwrites_none(tmp_path: Path) -> None:
    made = make_secrets(tmp_path / "secrets")
    assert {Path(secret["file"]).name for secret in COMPOSE["secrets"].values()} <= made.keys()
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o644 for file in (tmp_path / "secrets").iterdir())
    passwords = {name: text.strip() for name, text in made.items() if name.endswith("password")}
    assert len(set(passwords.values())) == len(passwords)
    assert not [name for name, password in passwords.items() if password in made["users.acl"]]
    (tmp_path / "secrets" / "users.acl").unlink()
    assert make_secrets(tmp_path / "secrets") == made


def test_the_users_have_the_rights_of_the_page_on_security(tmp_path: Path) -> None:
    users = make_secrets(tmp_path)["users.acl"]
    for line in re.findall(r"^ACL SETUSER (.+)$", (ROOT / "docs" / "security.md").read_text(), re.MULTILINE):
        expected = re.escape("user " + line)
        expected = re.sub(r">[A-Z]+\\-PASSWORD", "#[0-9a-f]{64}", expected)
        assert re.search(f"^{expected}$", users, re.MULTILINE), line


# -- Redis, a worker, a deliverer and the receiver, with these users ---------------------------------------------------


@dataclass
class Deployed:
    """What the compose file starts, on this machine."""

    port: int
    directory: Path
    secrets: dict[str, str]

    def url(self, user: str) -> str:
        return self.secrets[f"{user}_redis_url"].strip()

    def admin(self) -> redis.Redis:
        return redis.Redis(
            port=self.port, username="sluice-admin", password=self.secrets["admin_redis_password"].strip()
        )

    def mounted(self, service: str) -> Path:
        """Lay a service's secrets out as Compose mounts them."""
        directory = self.directory / service
        directory.mkdir(exist_ok=True)
        for secret in SERVICES[service]["secrets"]:
            source = Path(COMPOSE["secrets"][secret["source"]]["file"]).name
            (directory / secret["target"]).write_text(self.secrets[source])
        return directory


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """Run Redis with deploy/redis/redis.conf, but for its places."""
    binary = next(filter(None, map(shutil.which, ("redis-server", "valkey-server"))), None)
    if binary is None:
        pytest.skip("needs redis-server or valkey-server")
    directory, port = tmp_path_factory.mktemp("deployed"), support.free_port()
    secrets = make_secrets(directory / "secrets", f"127.0.0.1:{port}")
    places = {"port": port, "bind": "127.0.0.1", "aclfile": directory / "secrets" / "users.acl"}
    arguments = [part for name, value in places.items() for part in (f"--{name}", str(value))]
    log = directory / "redis.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [binary, DEPLOY / "redis" / "redis.conf", *arguments], cwd=directory, stdout=file, stderr=file
        )
    try:
        support.until(lambda: process.poll() is not None or "eady to accept" in log.read_text(), what="Redis listens")
        assert process.poll() is None, log.read_text()
        yield Deployed(port, directory, secrets)
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def receiver(deployed: Deployed, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Run deploy/receiver/receiver.py; where it is, and what it prints."""
    port, printed = support.free_port(), tmp_path / "printed"
    command = [sys.executable, DEPLOY / "receiver" / "receiver.py", "--port", str(port), "--secret-file",
               deployed.directory / "secrets" / "webhook_secret"]  # fmt: skip
    with printed.open("wb") as file:
        process = subprocess.Popen(command, stdout=file)
    url = f"http://127.0.0.1:{port}"
    try:
        support.until(lambda: support.get(url + "/livez")[0] == 204, what="the receiver answers")
        yield url, printed
    finally:
        process.terminate()
        process.wait()


def test_redis_keeps_jobs_and_refuses_loudly_and_nobody_without_a_name(deployed: Deployed) -> None:
    with deployed.admin() as admin:
        kept = {name: admin.config_get(name)[name] for name in ("appendonly", "maxmemory-policy", "save")}
    assert kept == {"appendonly": "yes", "maxmemory-policy": "noeviction", "save": ""}
    with redis.Redis(port=deployed.port) as nobody, pytest.raises(redis.AuthenticationError):
        nobody.ping()


def test_the_health_check_of_redis_may_ping_and_nothing_else(deployed: Deployed) -> None:
    if shutil.which("redis-cli") is None:
        pytest.skip("needs redis-cli")
    (_, command) = SERVICES["redis"]["healthcheck"]["test"]
    here = command.replace("redis-cli", f"redis-cli -p {deployed.port}")
    assert subprocess.run(["sh", "-c", here], check=False).returncode == 0
    nowhere = command.replace("redis-cli", f"redis-cli -p {support.free_port()}")
    assert subprocess.run(["sh", "-c", nowhere], check=False, stderr=subprocess.DEVNULL).returncode == 1
    health = redis.Redis(port=deployed.port, username="sluice-health", password="none")
    with health, pytest.raises(redis.exceptions.NoPermissionError):
        health.get("rq:queues")
    with deployed.admin() as admin:
        admin.acl_log_reset()


def test_the_command_that_begins_a_backup_works_for_the_operators_user(deployed: Deployed) -> None:
    if shutil.which("redis-cli") is None:
        pytest.skip("needs redis-cli")
    (command,) = re.findall(r"'(read -r .+BGREWRITEAOF)'", (DEPLOY / "README.md").read_text())
    here = command.replace("redis-cli", f"redis-cli -p {deployed.port}")
    password = deployed.secrets["admin_redis_password"]
    done = subprocess.run(["sh", "-c", here], input=password, capture_output=True, text=True, check=False)
    assert "rewriting" in done.stdout, done


def test_a_job_goes_its_whole_way_under_the_users_of_the_script_and_no_right_is_missing(
    deployed: Deployed, receiver: tuple[str, Path], tiny_clip: Path, tmp_path: Path
) -> None:
    url, printed = receiver
    policies = support.write_house_policies(tmp_path / "policies")
    settings = {"model": tiny_clip, "policies": policies, "policy": "house", "secrets_dir": deployed.mounted("worker")}
    moderation = Moderation.from_url(deployed.url("client"))
    with support.running_worker(settings, tmp_path) as worker:
        jobs = [moderation.enqueue(content_id=name, data=PNG) for name in ("upload-1", "upload-2")]
        verdicts = [moderation.wait(job, 60) for job in jobs]
        assert worker.metric("sluice_queue_jobs", queue="moderation") == 0
        assert worker.metric("sluice_redis_up") == 1
        assert worker.metric("sluice_stream_entries", stream="verdicts") == 2
        assert worker.leave() == 0
    more = {"secrets_dir": deployed.mounted("deliver"), "webhook_url": url, "webhook_allow_private": True}
    assert SERVICES["deliver"]["environment"].keys() >= {f"SLUICE_{name.upper()}" for name in list(more)[1:]}
    said = support.sluice("deliver", "--burst", settings=more)
    assert said.returncode == 0, said.stderr
    lines = [json.loads(line) for line in printed.read_text().splitlines()]
    assert sorted(line["content_id"] for line in lines) == [verdict.content_id for verdict in verdicts]
    scale(deployed)
    with deployed.admin() as admin:
        refused = [row for row in admin.acl_log() if "client|setinfo" not in row["object"]]
    assert refused == []


def scale(deployed: Deployed) -> None:
    """Ask for the length of a queue as KEDA does."""
    script = "local of = {list = 'llen', none = 'llen'} return redis.call(of[redis.call('type', KEYS[1]).ok], KEYS[1])"
    with redis.Redis.from_url(deployed.url("scaler")) as scaler:
        for queue in ("moderation-high", "moderation", "moderation-bulk"):
            assert scaler.eval(script, 1, f"rq:queue:{queue}") == 0


def test_settings_say_that_a_secret_came_from_a_file_and_not_what_it_is(deployed: Deployed) -> None:
    said = support.sluice("settings", "--json", settings={"secrets_dir": deployed.mounted("deliver")})
    rows = {row["name"]: row for row in map(json.loads, said.stdout.splitlines())}
    assert rows["SLUICE_REDIS_URL"]["origin"] == rows["SLUICE_WEBHOOK_SECRET"]["origin"] == "secret file"
    assert rows["SLUICE_REDIS_URL"]["value"] == f"redis://sluice-deliver:***@127.0.0.1:{deployed.port}/0"
    assert rows["SLUICE_WEBHOOK_SECRET"]["value"] == "***"


def post(url: str, secret: str, body: bytes, message: str = "v-1", age_seconds: int = 0) -> int:
    """Post what the `standardwebhooks` package signs; the status."""
    at = datetime.fromtimestamp(time.time() - age_seconds, UTC)
    signature = Webhook(secret).sign(message, at, body.decode())
    headers = {"webhook-id": message, "webhook-timestamp": str(int(at.timestamp())), "webhook-signature": signature}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_the_receiver_keeps_a_verdict_once_and_believes_no_stranger(
    deployed: Deployed, receiver: tuple[str, Path]
) -> None:
    url, printed = receiver
    secret = deployed.secrets["webhook_secret"].strip()
    body = json.dumps({"verdict_id": "v-1", "content_id": "upload-1", "action": "block", "reason": None}).encode()
    assert [post(url, secret, body), post(url, secret, body)] == [204, 204]
    assert post(url, "whsec_" + "QQ==" * 8, body.replace(b"v-1", b"v-2")) == 401
    assert post(url, secret, body.replace(b"v-1", b"v-3"), age_seconds=600) == 401
    assert post(url, secret, body.replace(b"v-1", b"v-4"), age_seconds=-600) == 401
    assert printed.read_text().splitlines() == ['{"content_id": "upload-1", "action": "block", "reason": null}']
