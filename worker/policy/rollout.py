"""Which versions of a policy are at work: `policies/rollout.yaml`, and who decides for which upload.

In: plain data and content ids. Out: `Rollout`. The same content id always falls on the same side of a canary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, RootModel, model_validator

from worker.policy.schema import Name

Version = Annotated[int, Field(ge=1, lt=10**9)]
#: Resolution of a canary's share: one part in ten thousand.
_PARTS = 10_000


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Canary(_Strict):
    """A version that decides for a share of the uploads."""

    version: Version
    percent: Annotated[float, Field(ge=0, le=100)]


class Rollout(_Strict):
    """The versions of one policy that are at work."""

    live: Version
    shadow: Annotated[tuple[Version, ...], Field(strict=False)] = ()
    canary: Canary | None = None

    @model_validator(mode="after")
    def _one_role_each(self) -> Rollout:
        if len(set(self.shadow)) < len(self.shadow):
            raise ValueError("shadow names a version twice; keep one")
        if self.live in self.shadow:
            raise ValueError(f"version {self.live} is live and cannot watch itself; remove it from shadow")
        if self.canary and self.canary.version == self.live:
            raise ValueError(f"canary and live are both version {self.live}; remove canary or name another version")
        return self

    def deciding_version(self, policy: str, content_id: str) -> int:
        """Return the version that decides for `content_id`: live, or the canary for its share."""
        if self.canary is None:
            return self.live
        digest = hashlib.sha256(f"{policy}\n{content_id}".encode()).digest()
        part = int.from_bytes(digest[:8], "big") % _PARTS
        return self.canary.version if part < round(self.canary.percent * _PARTS / 100) else self.live

    def places(self) -> Iterator[tuple[tuple[str | int, ...], int]]:
        """Yield every version that must be loaded, with where it stands in the entry."""
        yield ("live",), self.live
        for index, version in enumerate(self.shadow):
            yield ("shadow", index), version
        if self.canary:
            yield ("canary", "version"), self.canary.version


class RolloutFile(RootModel[dict[Name, Rollout]]):
    """The whole of `rollout.yaml`: policy id to rollout."""

    model_config = ConfigDict(frozen=True, strict=True)
