"""Every setting, once: defaults, bounds and the line of help that the command and the README show.

In: flags, variables `SLUICE_*`, secret files, a `.env` file. Out: one frozen `Settings`, read once in `app`.
Never read the environment anywhere else.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from worker.errors import UsageError
from worker.setting_types import (
    AnyCase,
    Buckets,
    DottedPaths,
    EndpointUrl,
    Formats,
    Hosts,
    Networks,
    Ports,
    Queues,
    RedisUrl,
    Waits,
    WebhookUrl,
)

#: What every environment variable starts with.
PREFIX = "SLUICE_"
#: Fields whose value is never printed.
SECRETS = frozenset({"redis_url", "webhook_url", "webhook_secret"})
#: Where Docker and Podman mount secrets.
SECRETS_DIRECTORY = Path("/run/secrets")
_MIB = 1024 * 1024


class Settings(BaseSettings):
    """The settings of one process.

    Sizes are bytes, times seconds. `Settings(**flags)` overrides the environment, which overrides secret files, which
    override `.env`.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=".env",
        extra="ignore",
        frozen=True,
        validate_default=True,
        env_ignore_empty=True,
        hide_input_in_errors=True,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Say what overrides what; where the secret files lie may itself be set."""
        given = dotenv_settings() | env_settings() | init_settings()
        directory = Path(given.get("secrets_dir", SECRETS_DIRECTORY))
        # pydantic warns of a directory that is absent, as it is outside containers.
        files = [SecretsSettingsSource(settings_cls, directory)] if directory.is_dir() else []
        return (init_settings, env_settings, *files, dotenv_settings)

    secrets_dir: Path = Field(
        SECRETS_DIRECTORY,
        description="a directory of secrets, one a file, named as its setting in small letters: `sluice_redis_url`",
    )

    redis_url: RedisUrl = Field(
        "redis://127.0.0.1:6379/0",
        description="where the queue and the verdicts live: redis://, rediss://, unix:// or sentinel://",
    )
    queues: Queues = Field(
        ("moderation-high", "moderation", "moderation-bulk"), description="RQ queues, first served first"
    )
    model: str = Field(
        "openai/clip-vit-base-patch32", min_length=1, description="a hub id, a local directory, or `builtin`"
    )
    model_revision: str | None = Field(None, description="branch, tag or commit of a hub model")
    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="auto, cpu, mps, cuda or cuda:N")
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = Field(
        "auto", description="auto is fp32: a faster one is a choice that is made after measuring"
    )
    batch_size: int = Field(
        32, ge=1, le=1024, description="jobs that a worker takes at once, and images that the encoder does"
    )
    batch_wait_seconds: float = Field(
        0.005, ge=0, le=10, allow_inf_nan=False, description="how long a batch that is not full waits for more jobs"
    )
    recovery_seconds: float = Field(
        5.0,
        ge=1,
        le=60,
        allow_inf_nan=False,
        description="a worker silent for so long is dead: others run its jobs",
    )
    threads: int = Field(
        0, ge=0, le=1024, description="threads that embed, and processes that decode; 0: the cores this process may use"
    )
    policies: str = Field("policies", min_length=1, description="the directory of policies, or `redis`")
    policy: str = Field("default", min_length=1, description="the policy of jobs that name none: ID or ID@VERSION")
    metrics_port: int = Field(9108, ge=0, le=65535, description="/metrics, /livez and /readyz; 0 turns them off")
    metrics_host: str = Field("127.0.0.1", min_length=1, description="address that the metrics port listens on")
    image_max_bytes: int = Field(20 * _MIB, ge=1, description="larger files are not read")
    image_max_pixels: int = Field(50_000_000, ge=1, description="larger images are not decoded")
    image_max_frames: int = Field(
        16, ge=1, le=64, description="frames of an animation that are looked at: the first, the last, those that differ"
    )
    image_max_views: int = Field(
        12, ge=1, le=64, description="views of one image; an animation has four times as many, or one for each frame"
    )
    views: Literal["single", "whole", "tiles"] = Field(
        "whole",
        description="single: the checkpoint's centre crop of the first frame; whole: every pixel of every frame that "
        "differs; tiles: also overlapping tiles of large images",
    )
    image_formats: Formats = Field(
        ("JPEG", "PNG", "WEBP", "GIF", "AVIF"), description="formats that are decoded; all others are refused"
    )
    decode_timeout_seconds: float = Field(
        10.0, gt=0, le=600, allow_inf_nan=False, description="for decoding one image; its process is killed then"
    )
    decode_memory_bytes: int = Field(
        1536 * _MIB, ge=512 * _MIB, description="address space of a decoder process, 130 MB of which are its own"
    )
    fetch_timeout_seconds: float = Field(10.0, gt=0, allow_inf_nan=False, description="for one whole download")
    fetch_connect_timeout_seconds: float = Field(
        3.0, gt=0, allow_inf_nan=False, description="for a connection to one address"
    )
    fetch_read_timeout_seconds: float = Field(
        5.0, gt=0, allow_inf_nan=False, description="longest silence in the middle of a download"
    )
    fetch_max_redirects: int = Field(3, ge=0, le=10, description="redirects that are followed, each checked again")
    fetch_ports: Ports = Field((80, 443), min_length=1, description="ports that may be fetched from")
    fetch_allow_hosts: Hosts = Field(
        (), description="hosts that may be fetched from, `*.` for all below one; empty: any public host"
    )
    fetch_deny_networks: Networks = Field(
        (), description="networks (CIDR) that are never fetched from, beside all that are not public"
    )
    fetch_allow_private: bool = Field(False, description="also fetch from private and loopback addresses, any port")
    path_root: Path | None = Field(None, description="`path` refs must lie inside; unset: `path` refs are refused")
    s3_buckets: Buckets = Field((), description="buckets that `s3` refs may name; empty: `s3` refs are refused")
    s3_endpoint_url: EndpointUrl | None = Field(None, description="where the buckets are, for all but AWS")
    on_unreadable: Literal["review", "fail"] = Field(
        "review", description="an image that cannot be judged: a `review` verdict, or a failed job with one"
    )
    callbacks: DottedPaths = Field(
        (), description="dotted paths that RQ's callbacks of a job may name, or lie under; empty: none is run"
    )
    uncalibrated: Literal["warn", "refuse"] = Field(
        "warn", description="a policy without calibration for the model: warn and count, or refuse its jobs"
    )
    promote_min_verdicts: int = Field(
        1000, ge=0, description="images that a shadow has judged before `sluice policy promote` makes it live"
    )
    promote_max_disagreement_percent: float = Field(
        1.0, ge=0, le=100, allow_inf_nan=False, description="of those, the most of which it may have said otherwise"
    )
    memo_ttl_seconds: int = Field(
        86_400, ge=0, description="for how long an image that was seen is not embedded again; 0 remembers none"
    )
    uploads: bool = Field(True, description="enqueue what backends add to the Redis stream `sluice:uploads`")
    verdict_stream_maxlen: int = Field(100_000, ge=1, description="verdicts that the Redis stream keeps, about")
    result_ttl_seconds: int = Field(
        500, ge=1, description="for how long RQ keeps a job that ended, unless its producer says otherwise"
    )
    ledger_maxlen: int = Field(
        50_000,
        ge=0,
        description="embeddings of judged images that the Redis stream `sluice:ledger` keeps, about; 0: none",
    )
    ledger_ttl_seconds: int = Field(
        0, ge=0, description="for how long they stay there, give or take ten minutes; 0: until newer ones push them out"
    )
    webhook_url: WebhookUrl | None = Field(
        None,
        description="where `sluice deliver` posts verdicts; a job's own `webhook` overrides it; `none`: only there",
    )
    webhook_secret: str | None = Field(
        None,
        description="what webhooks are signed with: `whsec_` and base64; two with a comma while one replaces another",
    )
    webhook_allow_private: bool = Field(
        False, description="let `WEBHOOK_URL`, but no job's own, be at a private or loopback address, any port"
    )
    webhook_timeout_seconds: float = Field(
        15.0, gt=0, le=300, allow_inf_nan=False, description="for one attempt to post a verdict"
    )
    webhook_retry_seconds: Waits = Field(
        (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400),
        min_length=1,
        description="waits between the attempts to post a verdict; a fifth is added by chance",
    )
    appeal: str | None = Field(
        None,
        max_length=2000,
        description="what `sluice explain --audience user` says of how to object: free text or a URL; unset: nothing",
    )
    log_format: Literal["console", "json"] = Field("console", description="console, or json: one object a line")
    log_level: Annotated[Literal["debug", "info", "warning", "error"], AnyCase] = Field(
        "info", description="what is logged"
    )


def load_settings(flags: Mapping[str, Any] | None = None) -> Settings:
    """Read the settings, flags first, then the environment, then secret files, then `.env`, then defaults.

    Args:
        flags: Field names to values; None values are left out.

    Raises:
        UsageError: One line that names every wrong setting and its mend.
    """
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        lines = []
        for item in error.errors(include_url=False):
            name = str(item["loc"][0]) if item["loc"] else "settings"
            shown = "(hidden)" if name in SECRETS else repr(item["input"])
            message = item["msg"].removeprefix("Value error, ")
            lines.append(f"{PREFIX}{name.upper()}={shown}: {message[:1].lower()}{message[1:]}")
        raise UsageError("; ".join(lines)) from error
    except SettingsError as error:
        raise UsageError(f"a secret file cannot be read ({error.__cause__}); make it readable, in UTF-8") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f".env cannot be read ({error}); make it a readable file in UTF-8") from error


def origin_of(settings: Settings, flags: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Say for each field where its value came from.

    Returns:
        Field name to `flag`, `environment`, `secret file`, `.env` or `default`.
    """
    environment = {name.upper() for name, value in os.environ.items() if value}
    given = {name for name, value in (flags or {}).items() if value is not None}
    files = {file.name.lower().removeprefix(PREFIX.lower()) for file in _our_files(settings.secrets_dir)}
    origins = {}
    for name in Settings.model_fields:
        if name in given:
            origins[name] = "flag"
        elif PREFIX + name.upper() in environment:
            origins[name] = "environment"
        elif name in files:
            origins[name] = "secret file"
        else:
            origins[name] = ".env" if name in settings.model_fields_set else "default"
    return origins


def _our_files(directory: Path) -> list[Path]:
    files = directory.iterdir() if directory.is_dir() else ()
    return sorted(file for file in files if file.name.upper().startswith(PREFIX) and file.is_file())


def unknown_variables(settings: Settings) -> dict[str, str | None]:
    """Variables and secret files with our prefix that name no setting, each with the nearest name that does."""
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    variables = [(name, name) for name in os.environ if name.upper().startswith(PREFIX)]
    files = [(str(file), file.name) for file in _our_files(settings.secrets_dir)]
    return {
        shown: next(iter(difflib.get_close_matches(name.upper(), known, n=1)), None)
        for shown, name in variables + files
        if name.upper() not in known
    }


def mask_url(url: str) -> str:
    """Return `url` without its password: `redis://user:***@host`."""
    # redis-py takes a password from the query too, for unix:// above all.
    masked = re.sub(r"([?&](?:sentinel_)?password=)[^&]*", r"\1***", url)
    parts = urlsplit(masked)
    if parts.password is None:
        return masked
    host = parts.netloc.rpartition("@")[2]
    return masked.replace(parts.netloc, f"{parts.username or ''}:***@{host}", 1)
