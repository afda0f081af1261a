"""What the values of settings are: each kind with its check, whose error says how to write one.

In: text of a variable or a flag, or a value. Out: pydantic's annotated types. Never the name of a setting.
"""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import NoDecode

#: A webhook URL that is none, on purpose.
NO_URL = "none"
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "AVIF")
_HOST = re.compile(r"(\*\.)?([\w-]{1,63}\.)*[\w-]{1,63}|[0-9A-Fa-f:.]+")
_WEBHOOK = re.compile(r"https?://[^\s/]\S{0,2039}")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]")


def _split(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _queues(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        raise ValueError("name at least one queue")
    return value


def _formats(value: tuple[str, ...]) -> tuple[str, ...]:
    formats = tuple(name.upper().replace("JPG", "JPEG") for name in value)
    unknown = [name for name in formats if name not in _FORMATS]
    if unknown or not formats:
        raise ValueError(f"choose from {', '.join(_FORMATS)}, not {', '.join(unknown) or 'nothing'}")
    return formats


def _network(value: str) -> str:
    try:
        ip_network(value)
    except ValueError as error:
        raise ValueError(f"{error}; write networks as 203.0.113.0/24 or 2001:db8::/32") from None
    return value


def _host(value: str) -> str:
    if not _HOST.fullmatch(value):
        raise ValueError(f"{value} is no host; write names as cdn.example.org or *.example.org")
    return value


def _bucket(value: str) -> str:
    if not _BUCKET.fullmatch(value):
        raise ValueError(f"{value} is no name of a bucket; write names, not URLs")
    return value


def _dotted_path(value: str) -> str:
    if not all(part.isidentifier() for part in value.split(".")):
        raise ValueError(f"write dotted paths such as backend.callbacks, not {value}")
    return value


def _endpoint_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        wrong = parts.scheme not in {"http", "https"} or not parts.hostname or (parts.port or 1) < 1
    except ValueError:
        wrong = True
    if wrong or "@" in value or "?" in value or "#" in value:
        # What is there may hold a password, so it is not quoted.
        raise ValueError("write it as https://HOST:PORT; credentials come from AWS's own variables or role")
    return value


def _redis_url(value: str) -> str:
    try:
        scheme = urlsplit(value).scheme
    except ValueError:
        # What urlsplit says quotes the password.
        raise ValueError("not a URL; write it as redis://USER:PASSWORD@HOST:PORT/0") from None
    if scheme not in {"redis", "rediss", "unix", "sentinel"}:
        raise ValueError("start it with redis://, rediss://, unix:// or sentinel://")
    return value


def _webhook_url(value: str) -> str:
    if value == NO_URL:
        return value
    try:
        is_wrong = not _WEBHOOK.fullmatch(value) or urlsplit(value).username is not None
    except ValueError:
        is_wrong = True
    if is_wrong:
        # What is there may hold a token, so it is not quoted.
        raise ValueError("write it as https://HOST/PATH, without user and password")
    return value


#: Written with commas between them.
Queues = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split), AfterValidator(_queues)]
Ports = Annotated[tuple[Annotated[int, Field(ge=1, le=65535)], ...], NoDecode, BeforeValidator(_split)]
#: Seconds, a month at most.
Waits = Annotated[
    tuple[Annotated[float, Field(gt=0, le=30 * 86_400, allow_inf_nan=False)], ...], NoDecode, BeforeValidator(_split)
]
Formats = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split), AfterValidator(_formats)]
Networks = Annotated[tuple[Annotated[str, AfterValidator(_network)], ...], NoDecode, BeforeValidator(_split)]
Hosts = Annotated[tuple[Annotated[str, AfterValidator(_host)], ...], NoDecode, BeforeValidator(_split)]
Buckets = Annotated[tuple[Annotated[str, AfterValidator(_bucket)], ...], NoDecode, BeforeValidator(_split)]
DottedPaths = Annotated[tuple[Annotated[str, AfterValidator(_dotted_path)], ...], NoDecode, BeforeValidator(_split)]
#: One of a few words, in any case.
AnyCase = BeforeValidator(_lower)
RedisUrl = Annotated[str, AfterValidator(_redis_url)]
EndpointUrl = Annotated[str, AfterValidator(_endpoint_url)]
WebhookUrl = Annotated[str, AfterValidator(_webhook_url)]
