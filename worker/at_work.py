"""The policies at work in this process: where they are found, and each version compiled once for its encoder.

In: settings and an encoder. Out: `FoundPolicies`, `CompiledPolicies`. Never half a set: what is broken or gone is an
error, or the set that was there before.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import redis

from worker.connection import open_redis
from worker.encoder.texts import SharedTexts, TextMemo
from worker.errors import PolicyMissing, RedisUnreachable, SluiceError
from worker.policy.compiled import CompiledPolicy, compile_policy
from worker.policy.registry import PolicySet
from worker.policy.schema import Policy
from worker.policy.sources import REDIS, DirectorySource, PolicySource, RedisSource
from worker.settings import Settings, mask_url

if TYPE_CHECKING:
    # Whoever only looks for policies brings no model in.
    from worker.encoder.clip import ClipEncoder
log = logging.getLogger(__name__)

#: Longest wait for an answer of the memo, and of the registry.
_MEMO_SECONDS = 2.0
_REGISTRY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class FoundPolicies:
    """Policies, and where they came from."""

    policies: PolicySet
    source: PolicySource
    #: The source's mark from before they were loaded.
    mark: object
    #: Why they are not those of the source, in words.
    problem: str | None = None


def find_policies(settings: Settings, kept: PolicySet | None = None) -> FoundPolicies:
    """Read the policies, and make sure that the default one is among them.

    Args:
        settings: Where they are.
        kept: Those to use where what is there is broken or gone.

    Raises:
        PolicyMissing: There is none, or not the default one.
        PolicyInvalid: Every error in every policy.
        RedisUnreachable: The registry's Redis does not answer.
    """
    source = policy_source(settings)
    mark: object = None
    try:
        mark = source.mark()
        return FoundPolicies(require_default(source.load(), settings), source, mark)
    except redis.RedisError as error:
        # Nothing was read, whatever the mark says: the first look that succeeds brings it in.
        mark = None
        lost: SluiceError = RedisUnreachable(
            f"the policies at {mask_url(settings.redis_url)} cannot be read ({error}); start Redis, or set "
            "SLUICE_POLICIES to a directory"
        )
        if kept is None:
            raise lost from error
    except SluiceError as error:
        lost = error
        if kept is None:
            raise
    return FoundPolicies(kept, source, mark, str(lost))


def load_policies(settings: Settings) -> PolicySet:
    """Read the policies; see `find_policies`."""
    return find_policies(settings).policies


def policy_source(settings: Settings) -> PolicySource:
    """Return where policies come from."""
    if settings.policies == REDIS:
        # A connection of its own, without patience: whoever looks for changes looks again soon.
        return RedisSource(open_redis(settings.redis_url, answer_seconds=_REGISTRY_SECONDS))
    return DirectorySource(Path(settings.policies))


def require_default(policies: PolicySet, settings: Settings) -> PolicySet:
    """Return the policies.

    Raises:
        PolicyMissing: The default one is not among them.
    """
    if settings.policy not in policies.refs():
        known = ", ".join(policies.refs())
        where = "the registry" if settings.policies == REDIS else settings.policies
        unknown = f"no policy {settings.policy} at work in {where}; set SLUICE_POLICY to one of {known}"
        raise PolicyMissing(policies.lacking(settings.policy, unknown))
    return policies


def shared_texts(settings: Settings, encoder: ClipEncoder) -> SharedTexts | None:
    """Return the fleet's memo of sentences under this encoder; None where the settings turn it off."""
    if settings.memo_ttl_seconds == 0:
        return None
    connection = open_redis(settings.redis_url, answer_seconds=_MEMO_SECONDS)
    return SharedTexts(connection, encoder.fingerprint, encoder.dim, settings.memo_ttl_seconds)


class CompiledPolicies:
    """Compiles each policy version once, and embeds each sentence once; may be called in several threads.

    Args:
        encoder: Whose text tower embeds the sentences.
        shared: Sentences that the fleet knows.
    """

    def __init__(self, encoder: ClipEncoder, shared: SharedTexts | None = None) -> None:
        self._encoder = encoder
        self._embed_texts = TextMemo(encoder.embed_texts, shared)
        self.take_counts = self._embed_texts.take_counts
        self._by_digest: dict[str, CompiledPolicy] = {}

    def __call__(self, policy: Policy) -> CompiledPolicy:
        """Return the policy under this encoder."""
        if policy.digest not in self._by_digest:
            others = [found.ref for _, found in policy.exemplars() if found.model != self._encoder.name]
            if others:
                log.warning(
                    "%s: %d exemplars do not count under %s, and leave it uncalibrated (the first is %s); "
                    "add them again with that model",
                    policy.ref, len(others), self._encoder.name, others[0],
                )  # fmt: skip
            self._by_digest[policy.digest] = compile_policy(
                policy, self._embed_texts, self._encoder.logit_scale, self._encoder.name
            )
        return self._by_digest[policy.digest]

    def keep(self, policies: PolicySet) -> None:
        """Forget all versions but these."""
        digests = {policy.digest for policy in policies.policies.values()}
        self._by_digest = {digest: found for digest, found in self._by_digest.items() if digest in digests}
