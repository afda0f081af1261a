"""S3 ref → bytes: obstore signs, the guarded client downloads.

In: `s3://bucket/key` of strangers. Out: the object's bytes, or the `JobError` that says why not.
Never a bucket that is not listed, and never an endpoint from anywhere but the settings.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from worker.addresses import fetch_policy, guarded_client, shown, within
from worker.errors import AddressRefused, JobError, Missing, SourceRefused, SourceUnavailable
from worker.intake.limits import FetchLimits
from worker.intake.web import bare, download, mapped

if TYPE_CHECKING:
    from obstore.store import S3Store

#: Where AWS keeps buckets; elsewhere needs SLUICE_S3_ENDPOINT_URL.
_AWS_HOSTS = ("*.amazonaws.com", "*.amazonaws.com.cn")
_SEGMENTS_REFUSED = frozenset({"", ".", ".."})


class Buckets:
    """Fetches objects; belongs to one event loop.

    Args:
        limits: The buckets, their endpoint, and how far a fetch goes.

    Raises:
        Missing: Buckets are listed, and the extra `s3` is not installed.
    """

    def __init__(self, limits: FetchLimits) -> None:
        self._limits = limits
        self._stores: dict[str, S3Store] = {}
        if limits.s3_buckets:
            check_extra()
        endpoint = limits.s3_endpoint_url
        host = urlsplit(endpoint).hostname or "" if endpoint else ""
        # An endpoint of the operator's may be private; nothing else is reached then.
        policy = fetch_policy((host,) if endpoint else _AWS_HOSTS, bool(endpoint), max_redirects=0)
        self._client = guarded_client(
            policy, limits.timeout_seconds, limits.at_once, limits.connect_seconds, limits.read_seconds
        )

    async def fetch(self, ref: str) -> bytes | JobError:
        """Download one object within the byte limit and the total deadline.

        Args:
            ref: `s3://bucket/key`.
        """
        bucket, _, key = ref.removeprefix("s3://").partition("/")
        try:
            if bucket not in self._limits.s3_buckets:
                raise AddressRefused(f"{shown(ref)} lies in a bucket that is not in SLUICE_S3_BUCKETS")
            if not _SEGMENTS_REFUSED.isdisjoint(key.split("/")):
                # obstore would sign for another key, without these.
                raise SourceRefused(f"{shown(ref)} has a key that cannot be asked for: an empty, . or .. segment")
            with mapped(shown(ref), self._limits):
                return await within(self._limits.timeout_seconds, self._download(bucket, key, shown(ref)))
        except JobError as error:
            return bare(error)

    async def _download(self, bucket: str, key: str, name: str) -> bytes:
        import obstore  # noqa: PLC0415 - an extra
        from obstore.exceptions import BaseError  # noqa: PLC0415

        # A signed URL, so that sizes, statuses and time-outs are judged by the code that judges all other URLs.
        valid = timedelta(seconds=60 + self._limits.timeout_seconds)
        try:
            url = await obstore.sign_async(self._store(bucket), "GET", key, valid)
        except ValueError as error:
            raise SourceRefused(f"{name} has a key that cannot be asked for") from error
        except BaseError as error:
            raise SourceUnavailable(f"{name} cannot be signed for: no credentials for S3") from error
        return await download(self._client, url, name, self._limits)

    def _store(self, bucket: str) -> S3Store:
        from obstore.store import S3Store  # noqa: PLC0415

        if bucket not in self._stores:
            endpoint = self._limits.s3_endpoint_url
            config: dict[str, Any] = {} if endpoint is None else {"endpoint": endpoint.rstrip("/")}
            self._stores[bucket] = S3Store(
                bucket,
                client_options={"allow_http": True, "timeout": timedelta(seconds=self._limits.timeout_seconds)},
                retry_config={"max_retries": 0},
                **config,
            )
        return self._stores[bucket]

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def check_extra() -> None:
    """See whether the extra `s3` is installed.

    Raises:
        Missing: It is not.
    """
    try:
        import obstore  # noqa: F401, PLC0415
    except ImportError as error:
        raise Missing("SLUICE_S3_BUCKETS needs the extra s3; run pip install 'sluicegate[s3]'") from error
