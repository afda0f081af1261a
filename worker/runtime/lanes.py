"""How many attempts each endpoint may have at the same time, so that no endpoint stands in the way of another.

In: which endpoints have something due, and how their attempts ended. Out: places. Never Redis, never HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from worker.sinks.outbox import Standing

#: Attempts at the same time, in all.
IN_FLIGHT = 256
#: Attempts at the same time of one endpoint.
_WIDEST = 16
#: Attempts at the same time of all endpoints of a standing: what hangs may hold no place of those that answer, and
#: what is known to fail none of those that were never tried.
_AT_ONCE: dict[Standing, int] = {"well": IN_FLIGHT, "new": 64, "failing": 64}
#: Endpoints that are remembered while they have nothing under way.
_REMEMBERED = 10_000


@dataclass(slots=True)
class _Lane:
    standing: Standing = "new"
    #: Grows by one with each success, is halved when the receiver is under load, and begins anew with a failure.
    width: int = 1
    in_flight: int = 0


class Lanes:
    """The lanes of one process; each endpoint has its own.

    Args:
        own: The operator's own endpoint. Its places are never given to those that jobs name.
    """

    def __init__(self, own: str | None = None) -> None:
        self._own = own
        self._lanes: dict[str, _Lane] = {}
        #: Those with something under way.
        self._busy: dict[str, _Lane] = {}

    def places(self, due: Mapping[Standing, Sequence[str]]) -> dict[str, int]:
        """Return how many attempts may begin now.

        Args:
            due: Endpoints that have something to do, by how they stand, first due first.

        Returns:
            Endpoint to one or more, for those that have a place; the operator's own whether it is due or not.
        """
        given: dict[str, int] = {}
        free = IN_FLIGHT - sum(lane.in_flight for lane in self._busy.values())
        if self._own is not None:
            own = self._lanes.get(self._own) or _Lane()
            if own.width > own.in_flight:
                given[self._own] = own.width - own.in_flight
            free -= _WIDEST - own.in_flight
        for standing, endpoints in due.items():
            left = min(free, _AT_ONCE[standing] - self._held(standing))
            for endpoint in endpoints:
                lane = self._lanes.get(endpoint) or _Lane()
                places = min(lane.width - lane.in_flight, left)
                if places > 0 and endpoint != self._own:
                    given[endpoint] = places
                    left -= places
                    free -= places
        return given

    def enter(self, endpoint: str, standing: Standing) -> None:
        """Begin an attempt."""
        if len(self._lanes) >= _REMEMBERED:
            self._lanes = dict(self._busy)
        lane = self._busy[endpoint] = self._lanes.setdefault(endpoint, _Lane())
        lane.standing = standing
        lane.in_flight += 1

    def leave(self, endpoint: str, is_success: bool, is_under_load: bool) -> None:
        """End an attempt.

        Args:
            endpoint: Whose.
            is_success: Whether it was answered with 2xx.
            is_under_load: Whether the receiver asks for less.
        """
        lane = self._busy[endpoint]
        lane.in_flight -= 1
        if lane.in_flight == 0:
            del self._busy[endpoint]
        if is_success:
            lane.width = min(_WIDEST, lane.width + 1)
        else:
            lane.width = max(1, lane.width // 2) if is_under_load else 1

    def _held(self, standing: Standing) -> int:
        lanes = ((name, lane) for name, lane in self._busy.items() if lane.standing == standing)
        return sum(lane.in_flight for name, lane in lanes if name != self._own)
