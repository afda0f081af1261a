"""`sluice doctor`, `sluice settings` and `sluice schema`: what is here, what is missing, what things look like."""

from __future__ import annotations

import argparse
import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import redis
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from worker.cli.console import Commands, add_command, flags_of, print_json, settings_of
from worker.connection import open_redis, require_redis
from worker.errors import Missing, SluiceError
from worker.records import ModerationJob, Verdict
from worker.settings import PREFIX, SECRETS, Settings, mask_url, origin_of, unknown_variables

_EVERYTHING = tuple(Settings.model_fields)
#: A Redis that is older lacks commands that Sluice uses (LMOVE, XAUTOCLAIM).
_OLDEST_REDIS = (6, 2)


def add_commands(commands: Commands) -> None:
    """Add the group's commands."""
    doctor = add_command(
        commands,
        "doctor",
        _doctor,
        "check Redis, model, policies and metrics port, and say what to do",
        _EVERYTHING,
        "  sluice doctor\n  sluice doctor --redis-url redis://10.0.0.5:6379/0 --model builtin --policy demo --json",
    )
    doctor.add_argument("--json", action="store_true", help="print one JSON object a check")
    settings = add_command(
        commands,
        "settings",
        _settings,
        "print every setting and where it comes from",
        _EVERYTHING,
        "  sluice settings\n  sluice settings --precision int8 --json",
    )
    settings.add_argument("--json", action="store_true", help="print one JSON object a setting")
    schema = add_command(
        commands,
        "schema",
        _schema,
        "print the JSON Schema of a job, a verdict, a policy, a policy's tests, or of what `sluice explain` says",
        (),
        "  sluice schema policy",
    )
    schema.add_argument("what", choices=("job", "verdict", "policy", "tests", "explanation", "statement"))


def _doctor(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    checks: dict[str, Callable[[Settings], str]] = {
        "settings": _check_settings, "redis": _check_redis, "policies": _check_policies,
        "model": _check_model, "metrics port": _check_port,
    }  # fmt: skip
    failed = False
    for name, check in checks.items():
        try:
            says, ok = check(settings), True
        except SluiceError as error:
            says, ok, failed = str(error), False, True
        if options.json:
            print_json({"check": name, "ok": ok, "says": says})
        else:
            mark = "[green]ok[/]     " if ok else "[red]missing[/]"
            Console().print(f"{mark}  {name}: {escape(says)}", soft_wrap=True)
    return Missing.exit_code if failed else 0


def _check_settings(settings: Settings) -> str:
    unknown = unknown_variables(settings)
    if unknown:
        hints = [f"{name} (did you mean {near}?)" if near else name for name, near in unknown.items()]
        raise SluiceError(f"unknown: {', '.join(hints)}; correct or unset them")
    return "all known"


def _check_redis(settings: Settings) -> str:
    connection = open_redis(settings.redis_url)
    shown_url = mask_url(settings.redis_url)
    require_redis(connection, shown_url)
    about: Any = connection.info("server")
    version = str(about.get("redis_version", "0"))
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST_REDIS:
        raise Missing(f"Redis {version} is too old; use Redis 6.2 or newer, or Valkey")
    try:
        policy = str(connection.config_get("maxmemory-policy").get("maxmemory-policy", "noeviction"))
    except redis.ResponseError as error:
        # Hosted ones often refuse CONFIG.
        return f"Redis {version} at {shown_url}; whether it may evict jobs it does not say ({error})"
    if policy != "noeviction":
        raise Missing(f"Redis may evict jobs (maxmemory-policy {policy}); set it to noeviction")
    return f"Redis {version} at {shown_url}"


def _check_policies(settings: Settings) -> str:
    from worker.at_work import load_policies

    at_work = load_policies(settings).at_work()
    return ", ".join(f"{policy.ref} ({role})" for policy, role in at_work)


def _check_model(settings: Settings) -> str:
    from worker.at_work import load_policies
    from worker.encoder.clip import load_encoder

    encoder = load_encoder(
        settings.model, settings.model_revision, settings.device, settings.precision, settings.batch_size
    )
    says = f"{encoder.name} on {encoder.device} in {encoder.precision}"
    try:
        at_work = load_policies(settings).at_work()
    except SluiceError:
        return says
    bare = [policy.ref for policy, _ in at_work if not policy.is_calibrated_for(encoder.name)]
    return says + (f"; not calibrated for it: {', '.join(bare)}" if bare else "")


def _check_port(settings: Settings) -> str:
    if settings.metrics_port == 0:
        return "off"
    where = (settings.metrics_host, settings.metrics_port)
    try:
        with socket.create_server(where):
            return f"{where[0]}:{where[1]} is free"
    except OSError as error:
        raise Missing(
            f"{where[0]}:{where[1]}: {error.strerror or error}; a worker may run already; else set SLUICE_METRICS_PORT"
        ) from error


def _settings(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    if options.json:
        for row in _rows(settings, options):
            print_json(row)
        return 0
    table = Table("setting", "value", "from", "what it is")
    table.columns[0].no_wrap = True
    table.columns[1].overflow = "fold"
    for row in _rows(settings, options):
        table.add_row(row["name"], escape(str(row["value"])), row["origin"], escape(row["description"]))
    Console().print(table)
    return 0


def _rows(settings: Settings, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    origins = origin_of(settings, flags_of(options))
    for name, value in settings.model_dump(mode="json").items():
        shown = ",".join(_text(part) for part in value) if isinstance(value, list) else value
        yield {
            "name": PREFIX + name.upper(),
            "value": _masked(name, str(shown)) if name in SECRETS and shown is not None else shown,
            "origin": origins[name],
            "description": Settings.model_fields[name].description,
        }


def _text(part: object) -> str:
    return f"{part:g}" if isinstance(part, float) else str(part)


def _masked(name: str, value: str) -> str:
    """Return a secret as it may be shown."""
    if name == "redis_url":
        return mask_url(value)
    if name == "webhook_url":
        from worker.addresses import shown

        # It often has a token in its query.
        return shown(value)
    return "***"


def _schema(options: argparse.Namespace) -> int:
    if options.what in {"explanation", "statement"}:
        from worker.workbench.explain.explanation import Explanation
        from worker.workbench.explain.statement import Statement

        said = Explanation if options.what == "explanation" else Statement
        schema = said.model_json_schema(mode="serialization")
    elif options.what in {"policy", "tests"}:
        from worker.policy.cases import CasesFile
        from worker.policy.schema import Policy

        schema = (Policy if options.what == "policy" else CasesFile).model_json_schema()
    else:
        model = ModerationJob if options.what == "job" else Verdict
        schema = model.model_json_schema(mode="validation" if options.what == "job" else "serialization")
    print(json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema, indent=2))
    return 0
