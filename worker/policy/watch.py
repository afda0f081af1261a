"""Brings changed policies into a running process: whole, checked and embedded, or not at all.

In: a `PolicySource`. Out: each new `PolicySet` handed over, and a `Reload` that says what came of it. What is broken,
half written or gone never replaces what is there.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

import redis

from worker.errors import PolicyInvalid, PolicyMissing, SluiceError
from worker.policy.registry import PolicySet
from worker.policy.sources import PolicySource

log = logging.getLogger(__name__)

#: A file that is being written is whole a moment later.
_SECOND_LOOK_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Reload:
    """What came of a look at policies that had changed."""

    #: A `result` of `sluice_policy_reloads_total`: `ok`, `invalid`, `missing`, `failed`.
    result: str
    #: What is wrong, in words; None where all is well.
    problem: str | None = None


class Watcher(threading.Thread):
    """Looks for changes from a thread of its own; start it, close it.

    Args:
        source: Where policies come from.
        mark: The source's mark from before the policies at work were loaded.
        use: Puts a set to work; raises `SluiceError` where it cannot be.
        tell: Told what came of each change, after `use`.
    """

    def __init__(
        self,
        source: PolicySource,
        mark: object,
        use: Callable[[PolicySet], None],
        tell: Callable[[Reload], None],
    ) -> None:
        super().__init__(name="policies", daemon=True)
        self._source = source
        self._mark = mark
        self._use = use
        self._tell = tell
        self._stopping = threading.Event()

    def close(self) -> None:
        """Stop looking."""
        self._stopping.set()
        if self.is_alive():
            self.join()

    def run(self) -> None:
        """Look, and look again."""
        while not self._stopping.is_set():
            self._source.wait(self._stopping)
            try:
                mark = self._source.mark()
                if mark == self._mark:
                    continue
                reload = self._reload()
                self._mark = mark
            except redis.RedisError as error:
                # `/readyz` says so already; the mark is as it was, so nothing is missed.
                log.debug("policies are not looked at: %s", error)
                continue
            if reload is not None:
                self._tell(reload)

    def _reload(self) -> Reload | None:
        """Load and use what is there; None where it changed once more meanwhile."""
        mark = self._source.mark()
        try:
            self._use(self._source.load())
        except SluiceError as error:
            if isinstance(error, PolicyInvalid | PolicyMissing) and self._changes_still(mark):
                return None
            result = "missing" if isinstance(error, PolicyMissing) else "invalid"
            log.error("the policies at work are kept: %s", error)  # noqa: TRY400 - an author's error, not ours
            return Reload(result, str(error))
        except redis.RedisError:
            raise
        except Exception as error:  # a defect; the policies at work go on, and somebody must hear of it
            log.exception("the policies at work are kept")
            return Reload("failed", f"{type(error).__name__}: {error}")
        log.info("new policies are at work")
        return Reload("ok")

    def _changes_still(self, mark: object) -> bool:
        self._stopping.wait(_SECOND_LOOK_SECONDS)
        return self._source.mark() != mark
