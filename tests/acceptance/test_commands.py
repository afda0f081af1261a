"""What people type: every command from outside, its output, its exit code, and one line when something is wrong."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import support
import yaml
from jsonschema import Draft202012Validator, ValidationError

from worker.cli import build_parser, demo
from worker.cli.embedded_redis import embedded_redis
from worker.policy.registry import shipped_directory
from worker.settings import Settings

pytestmark = [pytest.mark.timeout(120), pytest.mark.thorough]

DRAWINGS = Path(demo.__file__).parent / "demo_images"
REVOLVER, CAT, COFFIN = (DRAWINGS / f"{name}.png" for name in ("revolver-noto", "cat-face-noto", "coffin-noto"))
README = Path(__file__).parents[2] / "README.md"
#: The demonstration's model and policy, wherever the command runs.
DEMO = {"model": "builtin", "policies": shipped_directory(), "policy": "demo"}
#: Nobody listens there.
DEAD = "redis://127.0.0.1:1/0"


def lines(text: str) -> list[dict[str, Any]]:
    """Read output that is one JSON object a line, and nothing else."""
    rows = [json.loads(line) for line in text.splitlines()]
    assert all(isinstance(row, dict) for row in rows)
    return rows


def error(said: subprocess.CompletedProcess[str]) -> str:
    """Give the one line that a failed command says, which is on stderr."""
    assert said.stdout == ""
    (line,) = said.stderr.splitlines()
    assert line.startswith("sluice: ")
    return line


# -- the command line ------------------------------------------------------------------------------------------------


def commands(parser: argparse.ArgumentParser) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    """Walk through the command and all that is below it."""
    yield tuple(parser.prog.split()[1:]), parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from commands(below)


@pytest.mark.parametrize("command", [(), ("work",), ("policy", "exemplar", "add")], ids=" ".join)
def test_help_comes_without_the_libraries_that_take_seconds(command: tuple[str, ...]) -> None:
    said = support.sluice(*command, "--help", PYTHONPROFILEIMPORTTIME="1")
    assert said.returncode == 0
    assert said.stdout.startswith(" ".join(["usage: sluice", *command]))
    imported = {line.rpartition("|")[2].strip() for line in said.stderr.splitlines()}
    assert "worker.cli" in imported
    assert not imported & {"torch", "transformers", "numpy", "PIL", "shtab"}


def test_every_command_has_help() -> None:
    for command, parser in commands(build_parser()):
        assert parser.format_help().startswith(" ".join(["usage: sluice", *command]))
        assert parser.description, command


@pytest.mark.parametrize("command", [command for command, _ in commands(build_parser()) if command], ids=" ".join)
def test_every_command_shows_how_it_is_typed(command: tuple[str, ...]) -> None:
    parsers = dict(commands(build_parser()))
    typed = " ".join(["sluice", *command])
    shown = re.split(r"\n\n", parsers[command].epilog or "")[0].splitlines()
    assert shown[:1] == ["examples:"]
    assert shown[1:]
    assert [line for line in shown[1:] if not re.match(rf"  {re.escape(typed)}( |$)", line)] == []


def test_python_m_worker_is_the_same_command() -> None:
    version = support.sluice("--version").stdout
    assert re.fullmatch(r"sluice \d+\.\d+\.\d+\S*\n", version)
    assert subprocess.check_output([sys.executable, "-m", "worker", "--version"], text=True) == version


@pytest.mark.parametrize(
    ("typed", "cause", "usage"),
    [
        ("", "COMMAND", "sluice"),
        ("moderate", "'moderate'", "sluice"),
        ("policy", "COMMAND", "sluice policy"),
        ("score", "IMAGE|URL", "sluice score"),
        ("score a.png --threshold 1", "--threshold 1", "sluice"),
        ("enqueue a.png --priority urgent", "'urgent'", "sluice enqueue"),
        ("schema image", "'image'", "sluice schema"),
    ],
)
def test_wrong_usage_is_one_line_that_names_the_help(typed: str, cause: str, usage: str) -> None:
    said = support.sluice(*typed.split())
    assert said.returncode == 2
    assert cause in error(said)
    assert error(said).endswith(f"see `{usage} --help`")


def _typed() -> Iterator[str]:
    for page in (README, *sorted(README.parent.glob("docs/*.md"))):
        for block in re.findall(r"^```(?:sh)?\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
            lines = re.sub(r"\\\n\s*", "", block)
            for line in re.findall(r"^(?:\$ )?(?:SLUICE_\w+=\S+ )*(sluice .*)", lines, re.MULTILINE):
                yield re.split(r" \|+ | > | < | & ?$", line)[0]
    for _, parser in commands(build_parser()):
        for example in re.findall(r"^  (sluice .*)", parser.epilog or "", re.MULTILINE):
            # Two spaces begin what the command does.
            yield re.split(r"  +| \| | > ", example)[0]


@pytest.mark.parametrize("typed", sorted(set(_typed())))
def test_what_the_pages_and_the_help_tell_people_to_type_is_understood(typed: str) -> None:
    assert build_parser().parse_args(shlex.split(typed, comments=True)[1:]).run


def test_the_pages_and_the_help_show_each_command() -> None:
    shown = {shlex.split(typed, comments=True)[1] for typed in _typed()}
    assert shown >= {"demo", "work", "score", "classify", "enqueue", "verdicts", "policy", "doctor", "schema"}


# -- score and classify ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """Score every drawing, a file that is no image, and one that is not there."""
    broken = tmp_path_factory.mktemp("score") / "broken.png"
    broken.write_bytes(b"no image")
    return support.sluice("score", "--json", *sorted(DRAWINGS.glob("*.png")), broken, "missing.png", settings=DEMO)


def test_score_blocks_reviews_and_allows_drawings(scored: subprocess.CompletedProcess[str]) -> None:
    action = {Path(verdict["content_id"]).stem: verdict["action"] for verdict in lines(scored.stdout)}
    for name in ("revolver-noto", "bomb-fluent", "cigarette-twemoji", "skull-fluent", "slot-machine-noto"):
        assert action[name] == "block", name
    for name in ("coffin-noto", "juice-box-twemoji"):
        assert action[name] == "review", name
    for name in ("cat-face-noto", "house-twemoji", "water-pistol-fluent", "ghost-noto", "hot-drink-noto"):
        assert action[name] == "allow", name
    assert len(action) == len(list(DRAWINGS.glob("*.png"))) + 2


def test_score_says_why_and_under_what_and_that_there_was_no_job(scored: subprocess.CompletedProcess[str]) -> None:
    verdicts = lines(scored.stdout)
    assert {verdict["job_id"] for verdict in verdicts} == {None}
    assert len({verdict["verdict_id"] for verdict in verdicts}) == len(verdicts)
    (revolver,) = [verdict for verdict in verdicts if verdict["content_id"] == str(REVOLVER)]
    assert revolver["policy"]["id"] == "demo"
    assert revolver["model"]["id"] == "builtin"
    assert revolver["calibrated"] is True
    weapons = revolver["categories"]["weapons"]
    assert weapons["score"] >= weapons["thresholds"]["block"]
    assert weapons["prompt"] == "a pistol"


def test_score_sends_what_it_cannot_read_to_review_and_exits_with_1(scored: subprocess.CompletedProcess[str]) -> None:
    *_, broken, missing = lines(scored.stdout)
    assert (broken["action"], broken["reason"]) == ("review", "image_undecodable")
    assert (missing["action"], missing["reason"]) == ("review", "source_refused")
    assert missing["content_id"] == "missing.png"
    assert scored.returncode == 1
    assert "Traceback" not in scored.stderr


def test_score_shows_a_table_and_exits_with_0() -> None:
    said = support.typed("score", REVOLVER, CAT, settings=DEMO, COLUMNS="200")
    assert said.returncode == 0
    assert said.stderr == ""
    assert re.search(rf"{REVOLVER} +│ block +│ weapons +│ +0\.9\d", said.stdout)
    assert re.search(rf"{CAT} +│ allow", said.stdout)


@pytest.mark.parametrize(
    ("flags", "cause", "mend"),
    [
        (
            ("--policy", "nope"),
            "no policy nope at work in",
            "set SLUICE_POLICY to one of default, default@1, demo, demo@1",
        ),
        (("--model", "/no/model"), "cannot load the model /no/model", "set SLUICE_MODEL=builtin"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_score_says_in_one_line_what_is_missing_and_exits_with_3(flags: tuple[str, ...], cause: str, mend: str) -> None:
    said = support.typed("score", CAT, *flags, settings=DEMO, HF_HUB_OFFLINE="1")
    assert said.returncode == 3
    assert cause in error(said)
    assert mend in error(said)


def test_every_wrong_setting_is_named_and_the_exit_code_is_2() -> None:
    said = support.typed("score", CAT, "--batch-size", "0", settings=DEMO | {"precision": "fp8"})
    assert said.returncode == 2
    assert "SLUICE_BATCH_SIZE='0': " in error(said)
    assert "SLUICE_PRECISION='fp8': " in error(said)


def test_classify_prefers_the_right_sentence() -> None:
    (said,) = lines(support.typed("classify", CAT, "--labels", "a dog", "a cat", "--json", settings=DEMO).stdout)
    assert said["best"] == "a cat"
    assert sum(said["scores"].values()) == pytest.approx(1)
    assert list(said["scores"]) == ["a dog", "a cat"]


def test_a_directory_of_policies_that_is_not_there_is_missing() -> None:
    said = support.sluice("policy", "show", "demo", "--policies", "/no/policies")
    assert said.returncode == 3
    assert "no policy directory at /no/policies; set SLUICE_POLICIES" in error(said)


def test_classify_exits_with_1_where_there_is_no_image() -> None:
    said = support.typed("classify", "missing.png", "--labels", "a", "b", settings=DEMO)
    assert said.returncode == 1
    assert "missing.png: No such file" in error(said)


# -- errors ----------------------------------------------------------------------------------------------------------


def test_debug_adds_the_traceback_and_keeps_the_exit_code() -> None:
    brief, long = (support.sluice("policy", "show", "nope", *flags, settings=DEMO) for flags in ((), ("--debug",)))
    assert brief.returncode == long.returncode == 3
    assert "unknown policy nope; known are default" in error(brief)
    assert long.stderr.startswith("Traceback (most recent call last):")
    assert "unknown policy nope; known are default" in long.stderr.splitlines()[-1]


def test_what_nobody_foresaw_is_one_line_too() -> None:
    with Path("/dev/full").open("w") as full:
        said = subprocess.run(
            [support.SLUICE, "settings"], env=support.environment(), stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert said.returncode == 1
    (line,) = said.stderr.decode().splitlines()
    assert line.startswith("sluice: OSError: ")
    assert "No space left" in line
    assert line.endswith("--debug shows where")


# -- policy, settings, schema ----------------------------------------------------------------------------------------


def test_the_shipped_policies_have_no_errors() -> None:
    said = support.typed("policy", "lint", shipped_directory())
    assert said.returncode == 0
    assert said.stdout == "4 files checked, 0 errors\n"


def test_lint_names_every_error_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "house" / "v1.yaml"
    file.parent.mkdir()
    file.write_text(
        "policy: house\nversion: 2\ncontrast: people\ncategories:\n"
        "  weapons: {prompts: [], thresholds: {review: 0.9, block: 0.5}, bogus: 1}\n"
    )
    said = support.typed("policy", "lint", tmp_path)
    *findings, summary = said.stdout.splitlines()
    places = [
        (f"{file}:3:11", "contrast"),
        (f"{file}:5:22", "categories.weapons.prompts"),
        (f"{file}:5:38", "categories.weapons.thresholds"),
        (f"{file}:5:65", "categories.weapons.bogus"),
    ]
    assert [tuple(finding.split(": ")[:2]) for finding in findings] == places
    assert summary == "1 file checked, 4 errors"
    assert said.returncode == 1

    rows = lines(support.typed("policy", "lint", file, "--json").stdout)
    assert [(f"{row['file']}:{row['line']}:{row['column']}", row["key"]) for row in rows] == places


def test_lint_of_nothing_is_no_success(tmp_path: Path) -> None:
    for nothing in (tmp_path, tmp_path / "nowhere"):
        said = support.typed("policy", "lint", nothing)
        assert said.returncode == 3
        assert f"no policy at {nothing}" in error(said)


def test_policy_show_prints_a_policy_and_its_digest() -> None:
    said = support.typed("policy", "show", "demo", settings=DEMO, COLUMNS="200")
    (shown,) = lines(support.typed("policy", "show", "demo@1", "--json", settings=DEMO).stdout)
    assert said.returncode == 0
    assert said.stdout.startswith("demo@1 live\n")
    assert shown["digest"] in said.stdout
    assert shown["roles"] == ["live"]
    for name, category in shown["categories"].items():
        thresholds = category["thresholds"]
        assert re.search(rf"│ {name} +│ {thresholds['review']:g} +│ {thresholds['block']:g} ", said.stdout)


def test_settings_say_where_each_comes_from_and_keep_secrets(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("SLUICE_BATCH_SIZE=7\nSLUICE_POLICY=from-dotenv\nSLUICE_MODEL=from-dotenv\n")
    given = {"policy": "from-environment", "redis_url": "redis://me:hunter2@example.org/0", "model": "environment"}
    flags = ("--model", "from-flag")
    said = support.sluice("settings", "--json", *flags, settings=given, directory=tmp_path)
    rows = {row["name"]: (row["value"], row["origin"]) for row in lines(said.stdout)}
    assert list(rows) == [f"SLUICE_{name.upper()}" for name in Settings.model_fields]
    assert rows["SLUICE_MODEL"] == ("from-flag", "flag")
    assert rows["SLUICE_POLICY"] == ("from-environment", "environment")
    assert rows["SLUICE_REDIS_URL"] == ("redis://me:***@example.org/0", "environment")
    assert rows["SLUICE_BATCH_SIZE"] == (7, ".env")
    assert rows["SLUICE_DEVICE"] == ("auto", "default")

    table = support.sluice("settings", *flags, settings=given, directory=tmp_path, COLUMNS="200").stdout
    assert re.search(r"│ SLUICE_MODEL +│ from-flag +│ flag ", table)
    assert "me:***@" in table
    assert "hunter2" not in table


def schema(what: str) -> Draft202012Validator:
    """Read a schema as a consumer in another language does."""
    printed = json.loads(support.typed("schema", what).stdout)
    assert printed["$schema"] == Draft202012Validator.META_SCHEMA["$id"]
    Draft202012Validator.check_schema(printed)
    return Draft202012Validator(printed)


def test_the_job_schema_tells_jobs_from_others() -> None:
    job = {"image": {"url": "https://example.org/cat.png"}, "content_id": "upload-1", "metadata": {"user": "7"}}
    schema("job").validate(job)
    for wrong in ({"image": {}}, {"content_id": 7}, {"metadata": {"user": 7}}, {"callback": "x"}):
        with pytest.raises(ValidationError):
            schema("job").validate(job | wrong)


def test_real_verdicts_fit_the_verdict_schema(scored: subprocess.CompletedProcess[str]) -> None:
    validator = schema("verdict")
    verdicts = lines(scored.stdout)
    for verdict in verdicts:
        validator.validate(verdict)
    for wrong in ({"action": "delete"}, {"schema_version": 2}, {"categories": None}, {"content_id": 7}):
        with pytest.raises(ValidationError):
            validator.validate(verdicts[0] | wrong)


def test_shipped_policies_fit_the_policy_schema() -> None:
    validator = schema("policy")
    for file in shipped_directory().glob("*/v*.yaml"):
        policy = yaml.safe_load(file.read_text())
        validator.validate(policy)
        with pytest.raises(ValidationError):
            validator.validate(policy | {"contrast": "people"})


# -- with a Redis ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with embedded_redis() as (url, _):
        yield url


@pytest.fixture(scope="module")
def moderated(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, object]]:
    """Settings of a backend beside a worker that works."""
    settings = DEMO | {"redis_url": server}
    with support.running_worker(settings, tmp_path_factory.mktemp("worker")):
        yield {"redis_url": server}


def test_doctor_finds_nothing_where_nothing_is_missing(server: str) -> None:
    said = support.sluice("doctor", settings=DEMO | {"redis_url": server, "metrics_port": support.free_port()})
    assert said.returncode == 0
    assert [line.split()[0] for line in said.stdout.splitlines()] == ["ok"] * 5
    assert "builtin@" in said.stdout
    assert f"at {server}" in said.stdout
    assert "demo@1 (live)" in said.stdout


def test_doctor_names_everything_that_is_missing_and_its_mend() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        settings = DEMO | {"redis_url": DEAD, "metrics_port": busy.getsockname()[1], "polcy": "demo", "policy": "nope"}
        said = support.typed("doctor", "--json", settings=settings)
    assert said.returncode == 3
    says = {row["check"]: (row["ok"], row["says"]) for row in lines(said.stdout)}
    assert {check for check, (ok, _) in says.items() if ok} == {"model"}
    for check, mend in {
        "settings": "SLUICE_POLCY (did you mean SLUICE_POLICY?)",
        "redis": "start one, or set SLUICE_REDIS_URL",
        "policies": "set SLUICE_POLICY to one of",
        "metrics port": "set SLUICE_METRICS_PORT",
    }.items():
        assert mend in says[check][1]


def test_doctor_takes_a_redis_that_hides_its_configuration(server: str) -> None:
    with redis.Redis.from_url(server) as connection:
        connection.acl_setuser("hosted", enabled=True, passwords=["+pw"], keys=["*"], commands=["+@all", "-config"])
    url = server.replace("//", "//hosted:pw@")
    settings = DEMO | {"redis_url": url, "metrics_port": 0}
    says = {row["check"]: row for row in lines(support.typed("doctor", "--json", settings=settings).stdout)}
    assert says["redis"]["ok"]
    assert "whether it may evict jobs it does not say" in says["redis"]["says"]
    assert "hosted:***@" in says["redis"]["says"]


def test_enqueue_waits_for_the_verdicts_and_prints_them_in_order(moderated: dict[str, object]) -> None:
    said = support.sluice("enqueue", REVOLVER, CAT, COFFIN, "--wait", "--json", settings=moderated)
    assert said.returncode == 0
    assert [(verdict["content_id"], verdict["action"]) for verdict in lines(said.stdout)] == [
        ("revolver-noto.png", "block"),
        ("cat-face-noto.png", "allow"),
        ("coffin-noto.png", "review"),
    ]


def test_enqueue_exits_with_1_where_an_image_cannot_be_judged(moderated: dict[str, object]) -> None:
    said = support.sluice("enqueue", "http://127.0.0.1/private.png", "--wait", settings=moderated, COLUMNS="200")
    assert said.returncode == 1
    assert re.search(r"http://127.0.0.1/private.png +│ review +│ \(address_refused\)", said.stdout)


def test_enqueue_puts_an_upload_on_the_queue_of_its_priority(moderated: dict[str, object]) -> None:
    flags = ("--priority", "bulk", "--content-id", "upload-9", "--policy", "demo@1")
    (job,) = lines(support.sluice("enqueue", CAT, *flags, "--json", settings=moderated).stdout)
    assert (job["content_id"], job["queue"]) == ("upload-9", "moderation-bulk")
    verdict = support.until(lambda: _verdict_of(job["job_id"], moderated), what="its verdict")
    assert (verdict["content_id"], verdict["action"]) == ("upload-9", "allow")


def _verdict_of(job_id: str, settings: dict[str, object]) -> dict[str, Any] | None:
    verdicts = lines(support.sluice("verdicts", "--json", settings=settings).stdout)
    return next((verdict for verdict in verdicts if verdict["job_id"] == job_id), None)


@pytest.mark.parametrize(
    ("typed", "cause"),
    [
        (("missing.png",), "missing.png: No such file"),
        (("/dev/null",), "/dev/null: the file is empty"),
        ((CAT, "--content-id", ""), "content_id"),
        ((CAT, "--content-id", "two\nlines"), "content_id: control characters"),
        ((CAT, COFFIN, "--content-id", "one"), "--content-id names one upload"),
        ((CAT, "--policy", "not a policy"), "policy: write it as ID or ID@VERSION"),
        ((CAT, "--wait", "--timeout", "nan"), "--timeout counts seconds"),
        ((CAT, "--wait", "--timeout", "-1"), "--timeout counts seconds"),
    ],
)
def test_a_wrong_upload_is_wrong_usage_and_is_not_enqueued(
    typed: tuple[object, ...], cause: str, redis_url: str, connection: redis.Redis
) -> None:
    said = support.typed("enqueue", *typed, settings={"redis_url": redis_url})
    assert said.returncode == 2
    assert cause in error(said)
    assert not list(connection.scan_iter("rq:*"))


def test_enqueue_gives_up_waiting_when_it_was_told_to(redis_url: str) -> None:
    said = support.sluice("enqueue", CAT, "--wait", "--timeout", "0.5", settings={"redis_url": redis_url})
    assert said.returncode == 1
    assert "is a worker running" in error(said)


def test_verdicts_follows_until_it_is_interrupted(moderated: dict[str, object]) -> None:
    support.sluice("enqueue", CAT, "--wait", settings=moderated)
    command = [support.SLUICE, "verdicts", "--follow", "--json", "--last", "1"]
    environment = support.environment(moderated)
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as follow:
        assert follow.stdout is not None
        assert follow.stderr is not None
        assert json.loads(follow.stdout.readline())["content_id"] == "cat-face-noto.png"
        support.sluice("enqueue", REVOLVER, settings=moderated)
        assert json.loads(follow.stdout.readline())["content_id"] == "revolver-noto.png"
        follow.send_signal(signal.SIGINT)
        assert follow.wait(10) == 130
        assert follow.stderr.read() == "sluice: interrupted\n"


def test_verdicts_prints_the_last_ones(moderated: dict[str, object]) -> None:
    support.sluice("enqueue", CAT, REVOLVER, COFFIN, "--wait", settings=moderated)
    newest = lines(support.sluice("verdicts", "--last", "2", "--json", settings=moderated).stdout)
    assert [verdict["content_id"] for verdict in newest] == ["revolver-noto.png", "coffin-noto.png"]
    table = support.sluice("verdicts", "--last", "1", settings=moderated, COLUMNS="200").stdout
    assert re.search(r"coffin-noto.png +│ review +│ death", table)
    assert "revolver" not in table


def test_a_reader_that_leaves_early_is_no_error(moderated: dict[str, object]) -> None:
    support.sluice("enqueue", CAT, "--wait", settings=moderated)
    command = [support.SLUICE, "verdicts", "--follow"]
    environment = support.environment(moderated)
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as follow:
        assert follow.stdout is not None
        assert follow.stderr is not None
        follow.stdout.readline()
        follow.stdout.close()
        support.sluice("enqueue", CAT, settings=moderated)
        assert follow.stderr.read() == b""
    assert follow.returncode == 128 + signal.SIGPIPE


@pytest.mark.parametrize(
    "typed",
    [("enqueue", CAT), ("verdicts",), ("verdicts", "--follow"), ("demo",)],
    ids=lambda typed: " ".join(map(str, typed[:1] + typed[-1:])),
)
def test_without_redis_a_command_says_so_and_exits_with_3(typed: tuple[object, ...]) -> None:
    said = support.sluice(*typed, "--redis-url", DEAD.replace("//", "//:hunter2@"), settings=DEMO)
    assert said.returncode == 3
    assert "Redis at redis://:***@127.0.0.1:1/0 does not answer" in error(said)
    assert error(said).endswith("start one, or set SLUICE_REDIS_URL")


@pytest.mark.parametrize("typed", [("verdicts", "--follow"), ("enqueue", CAT, "--wait")], ids=lambda typed: typed[0])
def test_a_redis_that_goes_away_ends_the_command_with_3(typed: tuple[object, ...], tmp_path: Path) -> None:
    server = support.DurableRedis(tmp_path)
    server.start()
    try:
        environment = support.environment({"redis_url": server.url})
        with subprocess.Popen([support.SLUICE, *map(str, typed)], env=environment, stderr=subprocess.PIPE) as waits:
            assert waits.stderr is not None
            with redis.Redis(port=server.port) as connection:
                support.until(
                    lambda: [one for one in connection.client_list() if one["cmd"] == "xread"], what="it waits"
                )
            server.kill()
            (line,) = waits.stderr.read().decode().splitlines()
        assert line.startswith(f"sluice: Redis at {server.url} went away")
        assert waits.returncode == 3
    finally:
        server.kill()
