"""What the Dockerfile claims, as far as it can be tested without building it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import support
import torch
from dockerfile import ROOT, health_command, in_context, read_dockerfile, stage
from house import House
from receiver import SECRET

from worker import __version__

pytestmark = [pytest.mark.timeout(180), pytest.mark.thorough]


def tracked() -> list[str]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("needs a git checkout")
    return [name for name in done.stdout.split("\0") if name]


def test_hadolint_finds_nothing() -> None:
    done = subprocess.run(
        [support.SLUICE.with_name("hadolint"), ROOT / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_all_that_is_copied_is_there_and_reaches_the_builder() -> None:
    context = in_context(*tracked())
    for source in (source for found in read_dockerfile() for source in found.copied()):
        assert (ROOT / source).exists(), source
        assert any(name == source or name.startswith(f"{source}/") for name in context), source


def test_nothing_else_reaches_the_builder() -> None:
    copied = {source for found in read_dockerfile() for source in found.copied()}
    assert {name.partition("/")[0] for name in in_context(*tracked())} == copied
    strays = (
        ".env", ".git/config", ".gitignore", ".venv/bin/python", "deploy/secrets/worker_redis_url", "docs/security.md",
        "worker/.env", "worker/.env.local", "policies/.env", "worker/__pycache__/app.pyc", "worker/app.pyc",
        "id_rsa", "secrets.yaml", "tests/support.py", "Dockerfile",
    )  # fmt: skip
    assert in_context(*strays) == []


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """Lay out what the build stage has copied, and nothing more."""
    directory = tmp_path / "src"
    for name in in_context(*tracked()):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, directory / name)
    return directory


def test_what_pip_is_told_to_install_can_be_had_and_built_from_the_context(context: Path) -> None:
    line = stage("build").all("RUN")[1].partition("&&")[0]
    assert "--constraint constraints.txt" in line
    command = line.replace("/usr/local/bin/pip --python /opt/venv/bin/python", f"{sys.executable} -m pip")
    command = command.replace(" install ", " install --dry-run --retries 0 ")
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=context,
        env=os.environ | {"TORCH_INDEX_URL": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0 and any(sign in done.stderr for sign in ("NewConnectionError", "NameResolutionError")):
        pytest.skip("needs the package index")
    assert done.returncode == 0, done.stderr
    assert "Would install sluicegate" in done.stdout


def test_what_is_removed_of_torch_is_there_and_is_no_module_that_a_worker_imports() -> None:
    package = Path(torch.__file__).parent
    removed = [
        package / part.rpartition("torch/")[2] for part in stage("build").all("RUN")[1].rpartition("rm -r")[2].split()
    ]
    assert [path.name for path in removed] == ["test", "include"]
    assert all(path.is_dir() for path in removed)
    import worker.app

    assert worker.app
    files = [getattr(module, "__file__", None) or "" for module in list(sys.modules.values())]
    assert not [file for file in files if any(Path(file).is_relative_to(path) for path in removed)]


def test_the_image_runs_as_a_number_that_is_not_root_and_in_exec_form() -> None:
    final = stage("final")
    user, _, group = final.one("USER").partition(":")
    assert int(user) > 0
    assert int(group) > 0
    assert json.loads(final.one("ENTRYPOINT")) == ["sluice"]
    (command,) = json.loads(final.one("CMD"))
    assert support.sluice(command, "--help").returncode == 0


def test_the_labels_say_the_version_and_the_licence() -> None:
    labels = stage("final").pairs("LABEL")
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.title"] == "Sluice"


# -- a model that is baked in ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "home", "offline"),
    [("", "/var/cache/huggingface", ""), ("openai/clip-vit-base-patch32", "/opt/huggingface", "1")],
)
def test_the_hub_is_asked_for_nothing_where_a_model_is_baked_in(model: str, home: str, offline: str) -> None:
    final = stage("final")
    baked = next(line for line in final.all("ARG") if line.startswith("BAKED="))
    variables = final.pairs("ENV")
    # What Docker puts in the place of ${A:+b} and ${A:-b} is what a shell does.
    script = f'{baked}; echo "{variables["HF_HOME"]}|{variables["HF_HUB_OFFLINE"]}|{variables["SLUICE_MODEL"]}"'
    said = subprocess.run(["sh", "-c", script], env={"MODEL": model}, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == f"{home}|{offline}|{model}"


def bake(directory: Path, model: str) -> subprocess.CompletedProcess[str]:
    """Run what the stage `model` runs, on a cache that stands for the hub."""
    command = (
        stage("model")
        .one("RUN")
        .replace("/opt/huggingface", str(directory))
        .replace("python -c", sys.executable + " -c")
    )
    variables = {"MODEL": model, "MODEL_REVISION": "", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        ["sh", "-c", command], env=support.environment(None, **variables), capture_output=True, text=True, check=False
    )


def test_a_model_is_baked_by_the_workers_own_way_to_load_one_and_then_found_without_the_hub(
    tiny_clip: Path, tmp_path: Path, tiny_policies: Path
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    cache = tmp_path / "hf" / "hub" / "models--nobody--tiny"
    shutil.copytree(tiny_clip, cache / "snapshots" / commit)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    baked = bake(tmp_path / "hf", "nobody/tiny")
    assert (baked.returncode, baked.stdout.strip()) == (0, commit), baked.stderr
    said = support.sluice(
        "doctor", "--json", "--policies", tiny_policies, settings={"model": "nobody/tiny"},
        HF_HOME=str(tmp_path / "hf"), HF_HUB_OFFLINE="1",
    )  # fmt: skip
    (model,) = (row for row in map(json.loads, said.stdout.splitlines()) if row["check"] == "model")
    assert (model["ok"], commit[:12] in model["says"]) == (True, True), model


def test_a_model_that_cannot_be_loaded_ends_the_build(tmp_path: Path) -> None:
    failed = bake(tmp_path, "nobody/nothing")
    assert failed.returncode != 0
    assert "cannot load the model nobody/nothing" in failed.stderr


# -- while it runs ---------------------------------------------------------------------------------------------------


def healthy(port: int, **variables: str) -> int:
    """Run the HEALTHCHECK; its exit code."""
    environment = support.environment({"metrics_port": port}, **variables)
    command = [sys.executable, *health_command()[1:]]
    return subprocess.run(command, env=environment, capture_output=True, check=False).returncode


def test_the_health_check_is_well_beside_a_worker_and_beside_a_deliverer_and_nowhere_else(
    redis_url: str, tiny_clip: Path, tiny_policies: Path, tmp_path: Path
) -> None:
    assert health_command()[0] == "python"
    settings = {"model": tiny_clip, "policies": tiny_policies, "policy": "tiny", "redis_url": redis_url}
    with support.running_worker(settings, tmp_path) as worker:
        port = int(worker.metrics_url.rpartition(":")[2])
        assert healthy(port) == 0
        assert healthy(port, http_proxy="http://127.0.0.1:1") == 0
        assert worker.leave() == 0
    assert healthy(port) == 1
    more = {"redis_url": redis_url, "metrics_port": port, "webhook_url": "none", "webhook_secret": SECRET}
    deliverer = subprocess.Popen([support.SLUICE, "deliver"], env=support.environment(more), stderr=subprocess.DEVNULL)
    try:
        support.until(lambda: healthy(port) == 0, what="the deliverer is well")
    finally:
        deliverer.terminate()
        assert deliverer.wait(30) == 0


#: Everything is read-only but a tmpfs for $TMPDIR, as in a container with `read_only` and `tmpfs: [/tmp]`.
LOCKED = r"""
set -e
awk '{print $5}' /proc/self/mountinfo | sort -u | while read -r place; do
    case $place in /proc*|/sys*|/dev*) ;; *) mount -o remount,bind,ro "$place" ;; esac
done
mount -t tmpfs tmpfs "$TMPDIR"
if touch "$0" /tmp/probe "$HOME/probe" 2> /dev/null; then exit 99; fi
exec "$@"
"""


@pytest.fixture
def site() -> Iterator[support.Website]:
    site = support.Website()
    yield site
    site.close()


def test_a_worker_writes_nowhere_but_in_its_folder_for_temporary_files(
    connection: redis.Redis, redis_url: str, tiny_clip: Path, tiny_policies: Path, site: support.Website, tmp_path: Path
) -> None:
    script, temporary = tmp_path / "locked", tmp_path / "tmp"
    script.write_text(LOCKED)
    temporary.mkdir()
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "--propagation", "private"]
    locked = [*unshare, "sh", str(script)]
    variables = {"TMPDIR": str(temporary), "HOME": str(tmp_path)}
    if (
        shutil.which("unshare") is None
        or subprocess.run([*locked, "true"], env=os.environ | variables, capture_output=True, check=False).returncode
    ):
        pytest.skip("needs namespaces of users and mounts")
    house = House(connection, site, tmp_path)
    job = house.enqueue("upload-1")
    settings = {"model": tiny_clip, "policies": tiny_policies, "policy": "tiny", "redis_url": redis_url,
                "metrics_port": 0}  # fmt: skip
    done = subprocess.run(
        [*locked, support.SLUICE, "work", "--burst"], env=support.environment(settings, **variables), cwd=tmp_path,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert house.verdict(job).reason is None
