"""An entry of the ledger: a judged image's embeddings, and what is needed to find and to judge them again.

In: a verdict and its embeddings as bytes; or the fields of an entry of the stream, hostile. Out: the fields; or the
entry. Never numpy: the worker's own process writes these.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, get_args

from worker.records import Action, ModelStamp, Verdict

#: Redis key of the stream.
LEDGER = "sluice:ledger"
#: The stream's consumer group that moves entries into files.
ARCHIVE_GROUP = "archive"
#: Version of the fields; readers pass over what has another.
VERSION = 1
#: Bytes of a little-endian half-precision float.
HALF_BYTES = 2
#: More views or numbers than any checkpoint and any setting make.
MAX_VIEWS, MAX_DIM = 4096, 16_384
_MAX_TEXT = 512
_VERDICT_ID = re.compile(r"[0-9a-f]{32}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_POLICY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
#: Halves of characters, which JSON can say and UTF-8 cannot.
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_ACTIONS = frozenset(get_args(Action))
_MAX_VERSION = 999_999_999
_MAX_ABOUT_BYTES = 4096


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """What the ledger keeps of one verdict that an image was looked at for."""

    verdict_id: str
    content_id: str
    action: Action
    policy: str
    policy_version: int
    model: ModelStamp
    #: Of the file, hexadecimal.
    image_sha256: str
    #: When the verdict was made, in UTC, to the millisecond.
    created_at: datetime
    views: int
    #: Numbers of one embedding.
    dim: int
    #: `(views, dim)` little-endian float16, row by row: unit rows in the precision of 16 bits.
    embeddings: bytes

    @property
    def policy_ref(self) -> str:
        """The version that judged: `id@version`."""
        return f"{self.policy}@{self.policy_version}"

    @property
    def day(self) -> str:
        """The day of the verdict in UTC: `2026-01-31`."""
        return self.created_at.strftime("%Y-%m-%d")


def fields_of(verdict: Verdict, embeddings: bytes) -> list[str | bytes | int]:
    """Return the fields and values of a verdict's entry, flat, as XADD takes them.

    Args:
        verdict: One without a `reason`: its image was looked at.
        embeddings: Of all views of its image, little-endian float16, row by row.

    Returns:
        Four fields, for each costs time to read: `schema_version`, `content_id`, `about` (the rest, as JSON) and
        `embeddings`; nothing for a verdict whose image was not looked at.
    """
    image, policy, model = verdict.image, verdict.policy, verdict.model
    if image is None or policy.version is None or not embeddings:
        return []
    about = {
        "verdict_id": verdict.verdict_id, "action": verdict.action, "policy": policy.id,
        "policy_version": policy.version, "model": model.id, "revision": model.revision, "precision": model.precision,
        "image_sha256": image.sha256, "created_at": verdict.created_at, "views": image.views,
        "dim": len(embeddings) // HALF_BYTES // image.views,
    }  # fmt: skip
    said = json.dumps(about, separators=(",", ":"))
    return ["schema_version", VERSION, "content_id", verdict.content_id, "about", said, "embeddings", embeddings]


def read_entry(fields: Mapping[bytes, bytes]) -> LedgerEntry | None:
    """Read the fields of an entry of the stream.

    Args:
        fields: As redis-py gives them; whoever may write to the stream wrote them.

    Returns:
        The entry; None for one of another version, or of which anything is not as `fields_of` writes it. Of the
        embeddings only the size is checked.
    """
    try:
        if fields[b"schema_version"] != b"%d" % VERSION or len(fields[b"about"]) > _MAX_ABOUT_BYTES:
            return None
        return _checked(fields[b"content_id"].decode(), json.loads(fields[b"about"]), fields[b"embeddings"])
    except (KeyError, ValueError, TypeError, OverflowError, RecursionError):
        return None


def _checked(content_id: str, about: dict[str, Any], embeddings: bytes) -> LedgerEntry:
    if about["action"] not in _ACTIONS:
        raise ValueError
    views, dim = _number(about["views"], MAX_VIEWS), _number(about["dim"], MAX_DIM)
    if len(embeddings) != views * dim * HALF_BYTES:
        raise ValueError
    return LedgerEntry(
        verdict_id=_match(_VERDICT_ID, about["verdict_id"]),
        content_id=_short(content_id),
        action=about["action"],
        policy=_match(_POLICY, about["policy"]),
        policy_version=_number(about["policy_version"], _MAX_VERSION),
        model=_stamp(about["model"], about["revision"], about["precision"]),
        image_sha256=_match(_SHA256, about["image_sha256"]),
        created_at=_moment(about["created_at"]),
        views=views,
        dim=dim,
        embeddings=embeddings,
    )


@lru_cache(maxsize=64)
def _stamp(model: str, revision: str, precision: str) -> ModelStamp:
    return ModelStamp(id=_short(model), revision=_short(revision), precision=_short(precision))


def _match(pattern: re.Pattern[str], value: str) -> str:
    if not pattern.fullmatch(value):
        raise ValueError
    return value


def _number(value: object, most: int) -> int:
    if type(value) is not int or not 1 <= value <= most:
        raise ValueError
    return value


def _short(value: str) -> str:
    if not 1 <= len(value) <= _MAX_TEXT or _SURROGATE.search(value):
        raise ValueError
    return value


def _moment(value: str) -> datetime:
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError
    utc = moment.astimezone(UTC)
    return utc.replace(microsecond=utc.microsecond // 1000 * 1000)
