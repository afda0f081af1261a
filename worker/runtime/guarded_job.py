"""A job as RQ sees it, less what its producer has no say in: code that the worker imports, addresses that it calls.

In: a class of jobs, and what may be called back. Out: a class that runs those callbacks and no webhook. Never an import
of a name that is not allowed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from rq.job import Job

from worker.errors import JobInvalid
from worker.runtime.hashes import heeded, inflate

log = logging.getLogger(__name__)

#: Refused names that are remembered, so that each is logged once; a hostile producer has no end of them.
_MAX_NAMED = 100


class Callbacks:
    """Says which callbacks may run.

    Args:
        allowed: Dotted paths: modules, packages or functions. Empty: none.
    """

    def __init__(self, allowed: Sequence[str]) -> None:
        self._allowed = tuple(allowed)
        self._refused: set[str] = set()

    def allows(self, name: str) -> bool:
        """Whether a dotted path is one of the allowed ones, or inside one."""
        return any(name == path or name.startswith(path + ".") for path in self._allowed)

    def choose(self, name: str | None, find: Callable[[], Any]) -> Any:
        """Return what a name stands for; None where it may not run.

        Args:
            name: As the producer wrote it.
            find: Imports it.
        """
        if not name:
            return None
        if not self.allows(name):
            return self._refuse(name, "it is not in SLUICE_CALLBACKS")
        found = find()
        # `allowed.os.system` lies inside `allowed` by its name alone.
        if not self.allows(f"{getattr(found, '__module__', None)}.{getattr(found, '__qualname__', None)}"):
            return self._refuse(name, "what it names is defined elsewhere")
        return found

    def _refuse(self, name: str, why: str) -> None:
        if name not in self._refused and len(self._refused) < _MAX_NAMED:
            self._refused.add(name)
            log.warning("callback %s is not run: %s", ascii(name[:200]), why)


def guarded(job_class: type[Job], callbacks: Callbacks, max_data_bytes: int) -> type[Job]:
    """Return a class of jobs that runs only these callbacks, calls no webhook, and can be read whatever is in its hash.

    RQ imports callbacks in the worker's own process, where a job ends, where one was stopped, and where its clean-up
    gives one up; all of them read these properties. Its webhooks go past the guard on addresses.

    Args:
        job_class: What RQ was told to use.
        callbacks: Those that may run.
        max_data_bytes: A job's data is not inflated further.
    """

    class GuardedJob(job_class):  # type: ignore[misc, valid-type]
        def restore(self, raw_data: Any) -> Any:
            fields, _ = heeded(raw_data)
            # RQ would log each that it cannot read, with a traceback.
            fields.pop(b"webhooks", None)
            data = fields.get(b"data")
            # RQ inflates what it finds here, to the end, and once more what was compressed twice.
            restored = super().restore(fields if data is None else fields | {b"data": b"-"})
            with suppress(JobInvalid):
                data = inflate(data or b"", max_data_bytes)
            self.data = data
            self.webhooks: list[Any] = []
            return restored

        @property
        def success_callback(self) -> Any:
            return callbacks.choose(self._success_callback_name, lambda: super(GuardedJob, self).success_callback)

        @property
        def failure_callback(self) -> Any:
            return callbacks.choose(self._failure_callback_name, lambda: super(GuardedJob, self).failure_callback)

        @property
        def stopped_callback(self) -> Any:
            return callbacks.choose(self._stopped_callback_name, lambda: super(GuardedJob, self).stopped_callback)

    return GuardedJob
