"""Writes to the fleet's registry: publishes versions, and changes which of them are at work.

In: YAML text and changes. Out: each in one transaction, with its line of the history, which is never trimmed. A
published version never changes; of two authors at once the second is told, and nothing of both is mixed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar
from uuid import uuid4

import redis
from redis.client import Pipeline

from worker.errors import PolicyConflict, PolicyMissing
from worker.policy.changes import State
from worker.policy.exemplars import to_carry
from worker.policy.fleet import HISTORY, IDS, REVISION, Fleet, state_key, versions_key
from worker.policy.rollout import Rollout
from worker.policy.schema import Policy
from worker.records import utc_now

T = TypeVar("T")


class Author:
    """Somebody who changes the registry.

    Args:
        connection: To the fleet's Redis.
        name: Who; for the history.
    """

    def __init__(self, connection: redis.Redis, name: str) -> None:
        self._connection = connection
        self._fleet = Fleet(connection)
        self._name = name

    def publish(self, text: str, policy: Policy) -> bool:
        """Store a version.

        Args:
            text: The file.
            policy: What it says; its exemplars are stored with it.

        Returns:
            Whether it is new; False where the same was published before.

        Raises:
            PolicyConflict: The version was published with other words; names the next free one.
        """
        key = versions_key(policy.policy)
        told: dict[str, Any] = {
            "text": text, "digest": policy.digest, "author": self._name, "created_at": utc_now(),
        }  # fmt: skip
        if exemplars := {exemplar.ref: to_carry(exemplar) for _, exemplar in policy.exemplars()}:
            told["exemplars"] = exemplars
        row = json.dumps(told)

        def write(transaction: Pipeline) -> bool:
            known: Any = transaction.hgetall(key)
            mine = str(policy.version).encode()
            if mine in known:
                if self._fleet.check(policy.policy, mine, known[mine]).policy.digest == policy.digest:
                    return False
                free = max(int(number) for number in known if number.isdigit()) + 1
                raise PolicyConflict(
                    f"{policy.ref} is published and never changes; the next free version is {free}: "
                    f"write the new words to v{free}.yaml"
                )
            transaction.multi()
            transaction.sadd(IDS, policy.policy)
            transaction.hset(key, str(policy.version), row)
            self._note(transaction, policy.policy, "publish", "", f"version {policy.version} {policy.digest}")
            return True

        return self._transact(policy.policy, write)

    def change(
        self, policy: str, what: str, change: Callable[[State, set[int]], State], *forget: str
    ) -> tuple[State, State]:
        """Change which versions of a policy are at work.

        Args:
            policy: Its id.
            what: The command, for the history.
            change: The state as it is, and the published versions, to the state as it shall be.
            *forget: Keys that the change makes worthless, deleted with it.

        Returns:
            The state before and after.

        Raises:
            PolicyMissing: It is not published.
            PolicyConflict: From `change`; or somebody else changed this policy at the same moment.
        """

        def write(transaction: Pipeline) -> tuple[State, State]:
            numbers: Any = transaction.hkeys(versions_key(policy))
            if not numbers:
                raise PolicyMissing(f"no policy {policy} is published; run `sluice policy publish FILE`")
            raw: Any = transaction.get(state_key(policy))
            before = State() if raw is None else State.model_validate_json(raw)
            after = change(before, {int(number) for number in numbers if number.isdigit()})
            transaction.multi()
            transaction.set(state_key(policy), after.model_dump_json())
            for key in forget:
                transaction.delete(key)
            self._note(transaction, policy, what, str(before), str(after))
            return before, after

        return self._transact(policy, write)

    def seed(self, policies: Iterable[tuple[str, Policy]], rollouts: dict[str, Rollout]) -> list[str]:
        """Publish all versions of a directory, and put its rollout to work where nothing is at work yet.

        Args:
            policies: Text and policy of each.
            rollouts: By id.

        Returns:
            What was done, in words.

        Raises:
            PolicyConflict: A version was published with other words; those before it are published.
        """
        done = [f"published {policy.ref}" for text, policy in policies if self.publish(text, policy)]
        states = self._fleet.states()
        for name, rollout in rollouts.items():
            if name in states and states[name].rollout is None:
                _, after = self.change(name, "seed", partial(_replaced, rollout))
                done.append(f"{name}: {after}")
        return done

    def _transact(self, policy: str, write: Callable[[Pipeline], T]) -> T:
        with self._connection.pipeline() as transaction:
            try:
                transaction.watch(versions_key(policy), state_key(policy))
                found = write(transaction)
                if transaction.command_stack:
                    transaction.execute()
            except redis.WatchError as error:
                raise PolicyConflict(
                    f"somebody else changed {policy} at the same moment, and nothing of yours was done; "
                    f"look at `sluice policy history {policy}` and run it again"
                ) from error
            return found

    def _note(self, transaction: Pipeline, policy: str, what: str, before: str, after: str) -> None:
        row = {"when": utc_now(), "who": self._name, "policy": policy, "what": what, "from": before, "to": after}
        transaction.xadd(HISTORY, row)  # type: ignore[arg-type]
        transaction.set(REVISION, uuid4().hex)


def _replaced(rollout: Rollout, _state: State, _known: set[int]) -> State:
    return State(rollout=rollout)
