"""What may be done to the versions of a policy that are at work: activate, roll back, shadow, canary.

In: a `State` and the versions that exist. Out: the next `State`. Pure; never Redis, never a half change.
"""

from __future__ import annotations

from collections.abc import Collection

from pydantic import BaseModel, ConfigDict, Field

from worker.errors import PolicyConflict, PolicyMissing
from worker.policy.rollout import Canary, Rollout, Version

#: Versions to which one can roll back, newest last.
MAX_BEFORE = 100
#: Versions that watch at once: each is judged with every image.
MAX_SHADOWS = 8


class State(BaseModel):
    """Which versions of one policy are at work, and which were live before."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: None for a policy that was published and never activated.
    rollout: Rollout | None = None
    #: Versions that were live, oldest first; `rollback` takes the last.
    before: tuple[Version, ...] = Field((), max_length=MAX_BEFORE)

    def __str__(self) -> str:
        if self.rollout is None:
            return "nothing at work"
        parts = [f"live {self.rollout.live}"]
        if self.rollout.shadow:
            parts.append(f"shadow {', '.join(map(str, self.rollout.shadow))}")
        if self.rollout.canary:
            parts.append(f"canary {self.rollout.canary.version} at {self.rollout.canary.percent:g} %")
        return "; ".join(parts)


def activate(policy: str, state: State, version: int, known: Collection[int]) -> State:
    """Make a version live; it leaves its other roles, and the one that was live can be rolled back to.

    Args:
        policy: Its id, for messages.
        state: As it is.
        version: To make live.
        known: Versions that are published.

    Raises:
        PolicyMissing: It is not published.
        PolicyConflict: It is live already.
    """
    _require(policy, version, known)
    old = state.rollout
    if old is None:
        return State(rollout=Rollout(live=version))
    if old.live == version:
        raise PolicyConflict(f"{policy}@{version} is live already")
    before = (*state.before, old.live)[-MAX_BEFORE:]
    return State(rollout=_without(old, version, live=version), before=before)


def roll_back(policy: str, state: State, known: Collection[int]) -> State:
    """Make the version live that was live before.

    Raises:
        PolicyConflict: There was none.
        PolicyMissing: It is not published any more.
    """
    if state.rollout is None or not state.before:
        raise PolicyConflict(f"no version of {policy} was live before; name one with `sluice policy activate`")
    *earlier, version = state.before
    _require(policy, version, known)
    return State(rollout=_without(state.rollout, version, live=version), before=tuple(earlier))


def shadow(policy: str, state: State, version: int, known: Collection[int], *, off: bool = False) -> State:
    """Let a version watch: it judges every image of the policy, and decides nothing.

    Args:
        policy: Its id, for messages.
        state: As it is.
        version: Which.
        known: Versions that are published.
        off: End its watch instead.

    Raises:
        PolicyMissing: It is not published.
        PolicyConflict: It is live, watches already, does not watch (`off`), or too many do.
    """
    rollout = _require_live(policy, state)
    watching = rollout.shadow
    if off:
        if version not in watching:
            raise PolicyConflict(f"{policy}@{version} is no shadow; the shadows are {_listed(watching)}")
        left = tuple(other for other in watching if other != version)
        return state.model_copy(update={"rollout": _changed(rollout, shadow=left)})
    _require(policy, version, known)
    if version == rollout.live:
        raise PolicyConflict(f"{policy}@{version} is live and cannot watch itself")
    if version in watching:
        raise PolicyConflict(f"{policy}@{version} is a shadow already")
    if len(watching) >= MAX_SHADOWS:
        raise PolicyConflict(f"{MAX_SHADOWS} versions watch already; end one with `sluice policy shadow ID@V --off`")
    return state.model_copy(update={"rollout": _changed(rollout, shadow=(*watching, version))})


def canary(policy: str, state: State, version: int, known: Collection[int], percent: float) -> State:
    """Let a version decide for a share of the uploads.

    Args:
        policy: Its id, for messages.
        state: As it is.
        version: Which; it takes the place of another canary.
        known: Versions that are published.
        percent: 0 to 100; 0 ends the canary.

    Raises:
        PolicyMissing: It is not published.
        PolicyConflict: It is live, or it is no canary that could end.
    """
    rollout = _require_live(policy, state)
    if percent == 0:
        if rollout.canary is None or rollout.canary.version != version:
            raise PolicyConflict(f"{policy}@{version} is no canary")
        return state.model_copy(update={"rollout": _changed(rollout, canary=None)})
    _require(policy, version, known)
    if version == rollout.live:
        raise PolicyConflict(f"{policy}@{version} is live: it decides for all uploads already")
    chosen = Canary(version=version, percent=percent)
    if chosen == rollout.canary:
        raise PolicyConflict(f"{policy}@{version} is the canary at {percent:g} % already")
    return state.model_copy(update={"rollout": _changed(rollout, canary=chosen)})


def _without(rollout: Rollout, version: int, live: int) -> Rollout:
    """Return the rollout with another live version, which has no other role."""
    stays = rollout.canary is not None and rollout.canary.version != version
    return Rollout(
        live=live,
        shadow=tuple(other for other in rollout.shadow if other != version),
        canary=rollout.canary if stays else None,
    )


def _changed(rollout: Rollout, **changes: object) -> Rollout:
    return Rollout.model_validate({"live": rollout.live, "shadow": rollout.shadow, "canary": rollout.canary} | changes)


def _require(policy: str, version: int, known: Collection[int]) -> None:
    if version not in known:
        raise PolicyMissing(f"{policy}@{version} is not published; published are {_listed(known)}")


def _require_live(policy: str, state: State) -> Rollout:
    if state.rollout is None:
        raise PolicyConflict(f"no version of {policy} is live; make one so with `sluice policy activate {policy}@V`")
    return state.rollout


def _listed(versions: Collection[int]) -> str:
    return ", ".join(map(str, sorted(versions))) or "none"
