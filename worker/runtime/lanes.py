"""How many attempts each endpoint may have at the same time, so that no endpoint stands in the way of another.

In: which endpoints have something due, and how their attempts ended. Out: places. Never Redis, never HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: Attempts at the same time, in all.
IN_FLIGHT = 256
#: Attempts at the same time of all endpoints whose last attempt failed, or that had none yet: the rest is for those
#: that are known to answer.
_DOUBTFUL = 128
#: Attempts at the same time of one endpoint.
_WIDEST = 16
#: Endpoints that are remembered while they have nothing under way.
_REMEMBERED = 10_000


@dataclass(slots=True)
class _Lane:
    #: Grows by one with each success, is halved when the receiver is under load, and begins anew with a failure.
    width: int = 1
    in_flight: int = 0


class Lanes:
    """The lanes of one process; each endpoint has its own."""

    def __init__(self) -> None:
        self._lanes: dict[str, _Lane] = {}
        #: Those with something under way.
        self._busy: dict[str, _Lane] = {}

    def places(self, endpoints: Sequence[str]) -> dict[str, int]:
        """Return how many attempts may begin now.

        Args:
            endpoints: Those that have something to do, first due first.

        Returns:
            Endpoint to one or more, for those that have a place.
        """
        free = IN_FLIGHT - sum(lane.in_flight for lane in self._busy.values())
        doubtful = _DOUBTFUL - sum(lane.in_flight for lane in self._busy.values() if lane.width == 1)
        given = {}
        for endpoint in endpoints:
            lane = self._lanes.get(endpoint) or _Lane()
            places = min(lane.width - lane.in_flight, free)
            if lane.width == 1:
                places = min(places, doubtful)
                doubtful -= max(0, places)
            if places > 0:
                given[endpoint] = places
                free -= places
        return given

    def enter(self, endpoint: str) -> None:
        """Begin an attempt."""
        if len(self._lanes) >= _REMEMBERED:
            self._lanes = dict(self._busy)
        lane = self._busy[endpoint] = self._lanes.setdefault(endpoint, _Lane())
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
