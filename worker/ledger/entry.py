"""An entry of the ledger: a judged image's embeddings, and what is needed to find and to judge them again.

In: a verdict and its embeddings as bytes; or the fields of an entry of the stream, hostile. Out: the fields; or the
entry. Never numpy: the worker's own process writes these.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, get_args

from worker.records import Action, ModelStamp, Verdict

#: Redis key of the stream.
LEDGER = "sluice:ledger"
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
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")


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
        The same names in the same order each time, for Redis keeps them once for several entries then; nothing for a
        verdict whose image was not looked at.
    """
    image, policy = verdict.image, verdict.policy
    if image is None or policy.version is None or not embeddings:
        return []
    return [
        "schema_version", VERSION, "verdict_id", verdict.verdict_id, "content_id", verdict.content_id,
        "action", verdict.action, "policy", policy.id, "policy_version", policy.version, "model", verdict.model.id,
        "revision", verdict.model.revision, "precision", verdict.model.precision, "image_sha256", image.sha256,
        "created_at", verdict.created_at, "views", image.views,
        "dim", len(embeddings) // HALF_BYTES // image.views, "embeddings", embeddings,
    ]  # fmt: skip


def read_entry(fields: Mapping[bytes, bytes]) -> LedgerEntry | None:
    """Read the fields of an entry of the stream.

    Args:
        fields: As redis-py gives them; whoever may write to the stream wrote them.

    Returns:
        The entry; None for one of another version, or of which anything is not as `fields_of` writes it. Of the
        embeddings only the size is checked.
    """
    try:
        text = {name.decode(): value.decode() for name, value in fields.items() if name != b"embeddings"}
        return _checked(text, fields[b"embeddings"])
    except (KeyError, ValueError, OverflowError):
        return None


def _checked(text: Mapping[str, str], embeddings: bytes) -> LedgerEntry:
    if text["schema_version"] != str(VERSION) or text["action"] not in get_args(Action):
        raise ValueError
    action: Any = text["action"]
    views, dim = _number(text["views"], MAX_VIEWS), _number(text["dim"], MAX_DIM)
    if len(embeddings) != views * dim * HALF_BYTES:
        raise ValueError
    return LedgerEntry(
        verdict_id=_match(_VERDICT_ID, text["verdict_id"]),
        content_id=_short(text["content_id"]),
        action=action,
        policy=_match(_POLICY, text["policy"]),
        policy_version=_number(text["policy_version"]),
        model=ModelStamp(
            id=_short(text["model"]), revision=_short(text["revision"]), precision=_short(text["precision"])
        ),
        image_sha256=_match(_SHA256, text["image_sha256"]),
        created_at=_moment(text["created_at"]),
        views=views,
        dim=dim,
        embeddings=embeddings,
    )


def _match(pattern: re.Pattern[str], value: str) -> str:
    if not pattern.fullmatch(value):
        raise ValueError
    return value


def _number(value: str, most: int = 10**9) -> int:
    number = int(_match(_NUMBER, value))
    if number > most:
        raise ValueError
    return number


def _short(value: str) -> str:
    if not 1 <= len(value) <= _MAX_TEXT:
        raise ValueError
    return value


def _moment(value: str) -> datetime:
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError
    utc = moment.astimezone(UTC)
    return utc.replace(microsecond=utc.microsecond // 1000 * 1000)
