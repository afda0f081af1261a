"""Every setting, once: defaults, bounds and the line of help that the command and the README show.

In: environment variables `SLUICE_*`, a `.env` file, flags. Out: one frozen `Settings`, read once in `app`.
Never read the environment anywhere else.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from worker.errors import UsageError

#: What every environment variable starts with.
PREFIX = "SLUICE_"
#: Fields whose value is never printed.
SECRETS = frozenset({"redis_url", "webhook_url", "webhook_secret"})
#: A `webhook_url` that is none, on purpose.
NO_URL = "none"
_MIB = 1024 * 1024

CommaList = Annotated[tuple[str, ...], NoDecode]
Seconds = Annotated[float, Field(gt=0, le=30 * 86_400, allow_inf_nan=False)]
CommaSeconds = Annotated[tuple[Seconds, ...], NoDecode]
PortList = Annotated[tuple[Annotated[int, Field(ge=1, le=65535)], ...], NoDecode]


class Settings(BaseSettings):
    """The settings of one process.

    Sizes are bytes, times seconds. `Settings(**flags)` overrides the environment, which overrides `.env`.
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

    redis_url: str = Field(
        "redis://127.0.0.1:6379/0", description="where the queue and the verdicts live: redis://, rediss:// or unix://"
    )
    queues: CommaList = Field(
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
    policies: str = Field("policies", min_length=1, description="the directory of policies")
    policy: str = Field("default", min_length=1, description="the policy of jobs that name none: ID or ID@VERSION")
    metrics_port: int = Field(9108, ge=0, le=65535, description="/metrics, /livez and /readyz; 0 turns them off")
    metrics_host: str = Field("127.0.0.1", min_length=1, description="address that the metrics port listens on")
    image_max_bytes: int = Field(20 * _MIB, ge=1, description="larger files are not read")
    image_max_pixels: int = Field(50_000_000, ge=1, description="larger images are not decoded")
    image_formats: CommaList = Field(
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
    fetch_ports: PortList = Field((80, 443), min_length=1, description="ports that may be fetched from")
    fetch_allow_hosts: CommaList = Field(
        (), description="hosts that may be fetched from, `*.` for all below one; empty: any public host"
    )
    fetch_deny_networks: CommaList = Field(
        (), description="networks (CIDR) that are never fetched from, beside all that are not public"
    )
    fetch_allow_private: bool = Field(False, description="also fetch from private and loopback addresses, any port")
    path_root: Path | None = Field(None, description="`path` refs must lie inside; unset: `path` refs are refused")
    s3_buckets: CommaList = Field((), description="buckets that `s3` refs may name; empty: `s3` refs are refused")
    s3_endpoint_url: str | None = Field(None, description="where the buckets are, for all but AWS")
    on_unreadable: Literal["review", "fail"] = Field(
        "review", description="an image that cannot be judged: a `review` verdict, or a failed job with one"
    )
    uncalibrated: Literal["warn", "refuse"] = Field(
        "warn", description="a policy without calibration for the model: warn and count, or refuse its jobs"
    )
    memo_ttl_seconds: int = Field(
        86_400, ge=0, description="for how long an image that was seen is not embedded again; 0 remembers none"
    )
    verdict_stream_maxlen: int = Field(100_000, ge=1, description="verdicts that the Redis stream keeps, about")
    webhook_url: str | None = Field(
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
    webhook_retry_seconds: CommaSeconds = Field(
        (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400),
        min_length=1,
        description="waits between the attempts to post a verdict; a fifth is added by chance",
    )
    log_format: Literal["console", "json"] = Field("console", description="console, or json: one object a line")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="what is logged")

    @field_validator(
        "queues",
        "image_formats",
        "fetch_allow_hosts",
        "fetch_deny_networks",
        "fetch_ports",
        "s3_buckets",
        "webhook_retry_seconds",
        mode="before",
    )
    @classmethod
    def _split_commas(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("queues")
    @classmethod
    def _some_queue(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("name at least one queue")
        return value

    @field_validator("image_formats")
    @classmethod
    def _known_formats(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        formats = tuple(name.upper().replace("JPG", "JPEG") for name in value)
        unknown = [name for name in formats if name not in {"JPEG", "PNG", "WEBP", "GIF", "AVIF"}]
        if unknown or not formats:
            raise ValueError(f"choose from JPEG, PNG, WEBP, GIF, AVIF, not {', '.join(unknown) or 'nothing'}")
        return formats

    @field_validator("webhook_url")
    @classmethod
    def _webhook_scheme(cls, value: str | None) -> str | None:
        if value is None or value == NO_URL:
            return value
        try:
            parts = urlsplit(value)
            is_wrong = not re.fullmatch(r"https?://[^\s/]\S{0,2039}", value) or parts.username is not None
        except ValueError:
            is_wrong = True
        if is_wrong:
            raise ValueError("write it as https://HOST/PATH, without user and password")
        return value

    @field_validator("fetch_deny_networks")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            try:
                ip_network(network)
            except ValueError as error:
                raise ValueError(f"{error}; write networks as 203.0.113.0/24 or 2001:db8::/32") from None
        return value

    @field_validator("fetch_allow_hosts")
    @classmethod
    def _hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for host in value:
            if not re.fullmatch(r"(\*\.)?([\w-]{1,63}\.)*[\w-]{1,63}|[0-9A-Fa-f:.]+", host):
                raise ValueError(f"{host} is no host; write names as cdn.example.org or *.example.org")
        return value

    @field_validator("s3_buckets")
    @classmethod
    def _buckets(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for bucket in value:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]", bucket):
                raise ValueError(f"{bucket} is no name of a bucket; write names, not URLs")
        return value

    @field_validator("s3_endpoint_url")
    @classmethod
    def _endpoint(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            parts = urlsplit(value)
            wrong = parts.scheme not in {"http", "https"} or not parts.hostname or (parts.port or 1) < 1
        except ValueError:
            wrong = True
        if wrong or "@" in value or "?" in value or "#" in value:
            # What is there may hold a password, so it is not quoted.
            raise ValueError("write it as https://HOST:PORT; credentials come from AWS's own variables or role")
        return value

    @field_validator("redis_url")
    @classmethod
    def _redis_scheme(cls, value: str) -> str:
        try:
            scheme = urlsplit(value).scheme
        except ValueError:
            # What urlsplit says quotes the password.
            raise ValueError("not a URL; write it as redis://USER:PASSWORD@HOST:PORT/0") from None
        if scheme not in {"redis", "rediss", "unix"}:
            raise ValueError("start it with redis://, rediss:// or unix://")
        return value


def load_settings(flags: Mapping[str, Any] | None = None) -> Settings:
    """Read the settings, flags first, then the environment, then `.env`, then defaults.

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
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f".env cannot be read ({error}); make it a readable file in UTF-8") from error


def origin_of(settings: Settings, flags: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Say for each field where its value came from.

    Returns:
        Field name to `flag`, `environment`, `.env` or `default`.
    """
    environment = {name.upper() for name, value in os.environ.items() if value}
    given = {name for name, value in (flags or {}).items() if value is not None}
    origins = {}
    for name in Settings.model_fields:
        if name in given:
            origins[name] = "flag"
        elif PREFIX + name.upper() in environment:
            origins[name] = "environment"
        else:
            origins[name] = ".env" if name in settings.model_fields_set else "default"
    return origins


def unknown_variables() -> dict[str, str | None]:
    """Environment variables with our prefix that name no setting, each with the nearest one that does."""
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    return {
        name: next(iter(difflib.get_close_matches(name.upper(), known, n=1)), None)
        for name in os.environ
        if name.upper().startswith(PREFIX) and name.upper() not in known
    }


def mask_url(url: str) -> str:
    """Return `url` without its password: `redis://user:***@host`."""
    # redis-py takes a password from the query too, for unix:// above all.
    masked = re.sub(r"([?&]password=)[^&]*", r"\1***", url)
    parts = urlsplit(masked)
    if parts.password is None:
        return masked
    host = parts.netloc.rpartition("@")[2]
    return masked.replace(parts.netloc, f"{parts.username or ''}:***@{host}", 1)
