"""The fleet's registry: policies, which versions are at work, and who changed what, all in Redis.

In: a connection. Out: a `PolicySet`, as it is at one moment and without error, or every finding. Reads only: what is
written there is `publishing`'s.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import redis
from pydantic import ValidationError

from worker.errors import PolicyConflict, PolicyInvalid, PolicyMissing
from worker.policy.changes import State
from worker.policy.exemplars import carried
from worker.policy.lint import lint_policy
from worker.policy.registry import PolicySet
from worker.policy.schema import Policy

PREFIX = "sluice:policy:"
#: Ids of all policies.
IDS = PREFIX + "ids"
#: Changes with every change, to a text that was never there before.
REVISION = PREFIX + "revision"
#: A stream: who, when, what, from, to.
HISTORY = PREFIX + "history"
#: A set that changes while it is read is read again, so often.
_READS = 20


@dataclass(frozen=True, slots=True)
class Published:
    """One version as it was published."""

    policy: Policy
    text: str
    author: str
    #: As in verdicts: `2026-01-01T00:00:00.000Z`.
    created_at: str


@dataclass(frozen=True, slots=True)
class Change:
    """One line of the history."""

    when: str
    who: str
    policy: str
    what: str
    before: str
    after: str


class Fleet:
    """The registry.

    Args:
        connection: To the fleet's Redis.
    """

    def __init__(self, connection: redis.Redis) -> None:
        self._connection = connection
        #: Versions never change, so each is read and checked once; by id, version and text.
        self._checked: dict[tuple[str, int, bytes], Published] = {}

    def revision(self) -> str | None:
        """Return what differs after every change; None where nothing was ever published."""
        found: Any = self._connection.get(REVISION)
        return None if found is None else found.decode()

    def load(self) -> PolicySet:
        """Read all versions and what is at work, as they are at one moment.

        Raises:
            PolicyMissing: Nothing is published.
            PolicyInvalid: What is in Redis is not what `publish` writes: every error in every version.
        """
        versions, states = self._snapshot()
        if not versions:
            raise PolicyMissing("Redis holds no policy; run `sluice policy publish --all policies/`")
        policies = {(found.policy.policy, found.policy.version): found.policy for found in versions}
        rollouts = {name: state.rollout for name, state in states.items() if state.rollout is not None}
        lost = [
            f"{PREFIX}{name}:rollout: version {version} is at work and not published; publish it again"
            for name, rollout in rollouts.items()
            for _, version in rollout.places()
            if (name, version) not in policies
        ]
        if lost:
            raise PolicyInvalid(lost)
        return PolicySet(policies, rollouts)

    def versions(self) -> list[Published]:
        """Return every version, by id and number.

        Raises:
            PolicyInvalid: What is in Redis is not what `publish` writes.
        """
        return self._snapshot()[0]

    def states(self) -> dict[str, State]:
        """Return what is at work, by id.

        Raises:
            PolicyInvalid: What is in Redis is not what the commands write.
        """
        return self._snapshot()[1]

    def history(self, policy: str | None = None) -> list[Change]:
        """Return all changes, oldest first; of one policy, or of all."""
        rows: Any = self._connection.xrange(HISTORY)
        found = []
        for _, fields in rows:
            row = {key.decode(): value.decode(errors="replace") for key, value in fields.items()}
            found.append(Change(*(row.get(name, "") for name in ("when", "who", "policy", "what", "from", "to"))))
        return [change for change in found if policy in (None, change.policy)]

    def _snapshot(self) -> tuple[list[Published], dict[str, State]]:
        for _ in range(_READS):
            before = self.revision()
            ids: Any = self._connection.smembers(IDS)
            names = sorted(name.decode(errors="replace") for name in ids)
            with self._connection.pipeline() as together:
                for name in names:
                    together.hgetall(versions_key(name))
                    together.get(state_key(name))
                together.get(REVISION)
                *found, after = together.execute()
            if before == (None if after is None else after.decode()):
                return self._read(names, found)
        raise PolicyConflict("the policies in Redis change faster than they can be read; try again")

    def _read(self, names: list[str], found: list[Any]) -> tuple[list[Published], dict[str, State]]:
        versions: list[Published] = []
        states: dict[str, State] = {}
        wrong: list[str] = []
        for name, rows, state in zip(names, found[::2], found[1::2], strict=True):
            for number, row in rows.items():
                try:
                    versions.append(self.check(name, number, row))
                except PolicyInvalid as error:
                    wrong += error.findings
            try:
                states[name] = State() if state is None else State.model_validate_json(state)
            except ValidationError as error:
                wrong.append(f"{state_key(name)}: {error.errors()[0]['msg']}; activate a version again")
        if wrong:
            raise PolicyInvalid(wrong)
        return sorted(versions, key=lambda each: (each.policy.policy, each.policy.version)), states

    def check(self, name: str, number: bytes, row: bytes) -> Published:
        """Read one version as it lies in Redis.

        Raises:
            PolicyInvalid: It is not what `publish` writes.
        """
        where = f"{versions_key(name)}[{number.decode(errors='replace')}]"
        if not number.isdigit():
            raise PolicyInvalid([f"{where}: no version; remove it"])
        key = (name, int(number), row)
        if key not in self._checked:
            try:
                told = json.loads(row)
                text, author, created_at = (str(told[field]) for field in ("text", "author", "created_at"))
                exemplars = carried(dict(told.get("exemplars", {})))
            except (ValueError, KeyError, TypeError) as error:
                raise PolicyInvalid([f"{where}: not written by `sluice policy publish`; remove it"]) from error
            policy, findings = lint_policy(text, where, (name, int(number)), exemplars)
            if policy is None:
                raise PolicyInvalid([str(finding) for finding in findings])
            self._checked[key] = Published(policy, text, author, created_at)
        return self._checked[key]


def versions_key(policy: str) -> str:
    """Return the key of the hash of a policy's versions: number to JSON of text, digest, author and time.

    A version with exemplars carries them under `exemplars`, by ref: no file lies beside it there.
    """
    return f"{PREFIX}{policy}:versions"


def state_key(policy: str) -> str:
    """Return the key of a policy's `State`, JSON."""
    return f"{PREFIX}{policy}:rollout"
