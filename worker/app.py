"""Composition root: settings → sources, decoder, encoder, policies, stream → `Pipeline`.

In: `Settings`. Out: an `App`. The only place that picks concrete classes, and the only one that reads the settings.
"""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import redis

from worker.at_work import CompiledPolicies, FoundPolicies, find_policies, require_default, shared_texts
from worker.connection import PatientBackoff, open_redis
from worker.cores import usable_cores
from worker.encoder.clip import ClipEncoder, load_encoder, use_threads
from worker.encoder.memo import ImageMemo
from worker.errors import JobError
from worker.intake.cell import Bounds
from worker.intake.decode import DECODING, Limits
from worker.intake.sandbox import Decoder
from worker.intake.sources import FetchLimits, Sources
from worker.intake.square import ViewSpec
from worker.pipeline import Pipeline, QueuedJob
from worker.policy.registry import PolicySet
from worker.policy.watch import Reload, Watcher
from worker.records import ModelStamp, ModerationJob, Verdict
from worker.settings import Settings, load_settings
from worker.sinks.ledger import LedgerStream
from worker.sinks.stream import VerdictStream

#: Longest wait for an answer of the memo.
_MEMO_SECONDS = 2.0
_FINGERPRINT_DIGITS = 16


@dataclass(frozen=True, slots=True)
class App:
    """What a process needs to judge images."""

    settings: Settings
    encoder: ClipEncoder
    pipeline: Pipeline
    compiled: CompiledPolicies
    found: FoundPolicies
    stream: VerdictStream
    ledger: LedgerStream
    sources: Sources
    decoder: Decoder
    #: None where there is no queue.
    connection: redis.Redis | None

    @property
    def policies(self) -> PolicySet:
        """The policies at work now."""
        return self.pipeline.policies

    def watch(self, tell: Callable[[Reload], None]) -> Watcher:
        """Bring changed policies in from now on; close what is returned.

        Args:
            tell: Told what came of each change.
        """
        watcher = Watcher(self.found.source, self.found.mark, self._use, tell)
        watcher.start()
        return watcher

    def _use(self, policies: PolicySet) -> None:
        """Put policies to work; batches on their way keep those that they began with.

        Raises:
            PolicyMissing: The default policy is not among them.
        """
        require_default(policies, self.settings)
        for policy, _ in policies.at_work():
            self.compiled(policy)
        self.pipeline.policies = policies
        self.compiled.keep(policies)

    def judge(self, jobs: Sequence[QueuedJob[ModerationJob]]) -> list[Verdict | JobError]:
        """Judge a batch; see `Pipeline.run`."""
        return self.pipeline.run(jobs)

    def description(self) -> dict[str, Any]:
        """Say what judges: the checkpoint and where it runs, and each version at work; plain JSON."""
        encoder = self.encoder
        policies = [
            [policy.policy, policy.version, role, policy.digest, policy.is_calibrated_for(encoder.name)]
            for policy, role in self.policies.at_work()
        ]
        return {
            "model": encoder.id, "revision": encoder.revision, "precision": encoder.precision,
            "device": str(encoder.device), "policies": policies, "problem": self.found.problem,
        }  # fmt: skip

    def close(self) -> None:
        """Close connections, and end threads and decoder processes."""
        self.sources.close()
        self.decoder.close()


def build(settings: Settings, connection: redis.Redis | None, kept: PolicySet | None = None) -> App:
    """Load policies and model, and put the pipeline together.

    Args:
        settings: What to build.
        connection: Where blobs are read from and verdicts go; None for a command without a queue.
        kept: Policies that were at work before; used where those that are there now are broken or gone.

    Raises:
        PolicyMissing: The directory, the registry or the default policy is not there.
        PolicyInvalid: Every error in every policy.
        RedisUnreachable: The registry's Redis does not answer.
        ModelUnavailable: The checkpoint cannot be loaded.
        UsageError: The device or precision is not to be had.
    """
    found = find_policies(settings, kept)
    threads = settings.threads or usable_cores()
    use_threads(threads)
    encoder = load_encoder(
        settings.model, settings.model_revision, settings.device, settings.precision, settings.batch_size
    )
    sources = Sources(fetch_limits(settings), connection)
    decoder = open_decoder(settings, encoder, threads)
    compiled = CompiledPolicies(encoder, shared_texts(settings, encoder) if connection is not None else None)
    for policy, _ in found.policies.at_work():
        compiled(policy)
    pipeline = Pipeline(
        sources=sources,
        decode=decoder,
        encoder=encoder,
        model=ModelStamp(id=encoder.id, revision=encoder.revision, precision=encoder.precision),
        policies=found.policies,
        compile=compiled,
        default_policy=settings.policy,
        worker=f"{socket.gethostname()}.{os.getpid()}",
        refuse_uncalibrated=settings.uncalibrated == "refuse",
        fail_unreadable=settings.on_unreadable == "fail",
        memo=image_memo(settings, encoder) if connection is not None else None,
        text_counts=compiled.take_counts,
    )
    stream = VerdictStream(settings.verdict_stream_maxlen)
    ledger = LedgerStream(settings.ledger_maxlen)
    return App(settings, encoder, pipeline, compiled, found, stream, ledger, sources, decoder, connection)


def fetch_limits(settings: Settings) -> FetchLimits:
    """Return how far a fetch goes."""
    return FetchLimits(
        max_bytes=settings.image_max_bytes,
        timeout_seconds=settings.fetch_timeout_seconds,
        connect_seconds=settings.fetch_connect_timeout_seconds,
        read_seconds=settings.fetch_read_timeout_seconds,
        max_redirects=settings.fetch_max_redirects,
        ports=settings.fetch_ports,
        allow_hosts=settings.fetch_allow_hosts,
        deny_networks=settings.fetch_deny_networks,
        allow_private=settings.fetch_allow_private,
        at_once=settings.batch_size,
        path_root=settings.path_root,
        s3_buckets=settings.s3_buckets,
        s3_endpoint_url=settings.s3_endpoint_url,
    )


def decode_limits(settings: Settings) -> Limits:
    """Return what is decoded at all."""
    return Limits(settings.image_max_bytes, settings.image_max_pixels, settings.image_formats)


def open_decoder(settings: Settings, encoder: ClipEncoder, processes: int) -> Decoder:
    """Start the processes that decode; close it.

    Args:
        settings: What is refused, and what one image may cost.
        encoder: Whose views are made.
        processes: How many.
    """
    bounds = Bounds(settings.decode_timeout_seconds, settings.decode_memory_bytes)
    return Decoder(decode_limits(settings), view_spec(encoder, settings), bounds, processes)


def view_spec(encoder: ClipEncoder, settings: Settings | None = None) -> ViewSpec:
    """Return the square that the encoder's checkpoint sees, and how many of an image; one without settings."""
    seen = encoder.preprocessing
    own = ViewSpec(seen.shortest_edge, seen.crop, seen.resample)
    if settings is None:
        return own
    return replace(own, mode=settings.views, max_views=settings.image_max_views, max_frames=settings.image_max_frames)


def image_memo(settings: Settings, encoder: ClipEncoder) -> ImageMemo | None:
    """Return the memo of images under this encoder and these limits; None where the settings turn it off."""
    if settings.memo_ttl_seconds == 0:
        return None
    # A connection of its own, without patience: what is not remembered in time is embedded again.
    connection = open_redis(settings.redis_url, answer_seconds=_MEMO_SECONDS)
    depends_on = (encoder.fingerprint, DECODING, view_spec(encoder, settings), decode_limits(settings))
    fingerprint = hashlib.sha256(repr(depends_on).encode()).hexdigest()[:_FINGERPRINT_DIGITS]
    return ImageMemo(connection, fingerprint, encoder.dim, settings.memo_ttl_seconds)


_current: App | None = None
_current_lock = threading.Lock()


def current() -> App:
    """Return this process's app; built from the environment where no worker of ours put one."""
    global _current  # noqa: PLW0603 - one model in one process
    with _current_lock:
        if _current is None:
            settings = load_settings()
            _current = build(settings, open_redis(settings.redis_url, PatientBackoff()))
            _current.watch(lambda _: None)
        return _current


def use(app: App) -> None:
    """Make `app` this process's app."""
    global _current  # noqa: PLW0603
    _current = app
