"""What versions that watch said, beside the one that decided: counts, and a sample of where they differ.

In: verdicts with shadows. Out: two keys in Redis for each watching version. Never all of it: the sample is bounded, and
a batch whose counts cannot be written is not counted, for no verdict may wait for statistics.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis

from worker.disagreements import disagreements
from worker.records import Verdict

log = logging.getLogger(__name__)

#: Disagreements that are kept for each watching version, about.
SAMPLE = 1000
_VERDICTS, _DISAGREED = "verdicts", "disagreed"


@dataclass(frozen=True, slots=True)
class Watched:
    """What a watching version has seen."""

    #: Images that it judged beside the deciding version, and those of which it said something else.
    verdicts: int
    disagreed: int
    #: `(category, direction)` → how often; direction is `stricter` or `milder`.
    categories: dict[tuple[str, str], int]

    @property
    def percent(self) -> float:
        """Of all verdicts, those that differ."""
        return 100 * self.disagreed / self.verdicts if self.verdicts else 0.0


@dataclass(frozen=True, slots=True)
class Differing:
    """One image of which a watching version said something else."""

    content_id: str
    job_id: str
    when: str
    live: str
    shadow: str
    #: Category to direction.
    categories: dict[str, str]


def keys_of(policy: str, version: int) -> tuple[str, str]:
    """Return the keys of the counts and of the sample."""
    return f"sluice:policy:{policy}:watched:{version}", f"sluice:policy:{policy}:disagreements:{version}"


def push_watched(connection: redis.Redis, verdicts: Sequence[Verdict]) -> None:
    """Count what the shadows of some verdicts said, in one round trip; nothing where there is none."""
    counts: dict[str, Counter[str]] = {}
    with connection.pipeline(transaction=False) as together:
        for verdict in verdicts:
            for shadow in verdict.shadow:
                count_key, sample_key = keys_of(shadow.policy.id, shadow.policy.version or 0)
                seen = counts.setdefault(count_key, Counter())
                differing = {found.category: found.direction for found in disagreements(verdict, shadow)}
                seen[_VERDICTS] += 1
                if differing:
                    seen[_DISAGREED] += 1
                    seen.update(f"{category}|{direction}" for category, direction in differing.items())
                    row = {"content_id": verdict.content_id, "job_id": verdict.job_id or "", "when": verdict.created_at,
                           "live": verdict.action, "shadow": shadow.action,
                           "categories": json.dumps(differing)}  # fmt: skip
                    together.xadd(sample_key, row, maxlen=SAMPLE, approximate=True)  # type: ignore[arg-type]
        for key, found in counts.items():
            for field, times in found.items():
                together.hincrby(key, field, times)
        if len(together):
            try:
                together.execute()
            except redis.RedisError as error:
                log.warning("what %d shadows said of a batch is not counted: %s", len(counts), error)


def read_watched(connection: redis.Redis, policy: str, version: int) -> Watched:
    """Return what a watching version has seen since it began."""
    found: Any = connection.hgetall(keys_of(policy, version)[0])
    counts = {name.decode(): int(times) for name, times in found.items()}
    verdicts, disagreed = counts.pop(_VERDICTS, 0), counts.pop(_DISAGREED, 0)
    categories = {}
    for name, times in counts.items():
        category, _, direction = name.partition("|")
        categories[category, direction] = times
    return Watched(verdicts, disagreed, categories)


def read_sample(connection: redis.Redis, policy: str, version: int, most: int) -> list[Differing]:
    """Return the newest disagreements first, at most so many."""
    rows: Any = connection.xrevrange(keys_of(policy, version)[1], count=most)
    found = []
    for _, fields in rows:
        row = {name.decode(): value.decode(errors="replace") for name, value in fields.items()}
        categories = json.loads(row.pop("categories"))
        found.append(Differing(**row, categories=categories))
    return found
