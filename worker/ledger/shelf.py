"""Where files of the ledger lie: a directory, or a bucket, parted by day.

In: `DIR` or `s3://bucket/prefix`, and files whole. Out: the same files. A file is there whole or not at all, whatever
ends the process that writes it.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from worker.errors import Missing, UsageError

_DAY = re.compile(r"day=(\d{4}-\d{2}-\d{2})")
_FILE = re.compile(r"[^._/][^/]*\.parquet")
#: What is being written begins with this; readers of Parquet directories pass over names with a dot.
_TEMPORARY = ".writing-"
#: A file that is still being written after so long is left over from a process that died.
_STALE_SECONDS = 3600.0
_S3_SECONDS = 60.0
_S3_RETRIES = 4


class LedgerUnreachable(Missing):
    """The directory or the bucket cannot be read or written."""


@dataclass(frozen=True, order=True, slots=True)
class StoredFile:
    """A complete file."""

    #: `2026-01-31`, UTC.
    day: str
    name: str
    bytes: int = 0


class Shelf(Protocol):
    """Holds files by day."""

    def files(self) -> list[StoredFile]:
        """Return all complete files, oldest day first."""

    def read(self, file: StoredFile) -> Path | bytes:
        """Return where a file is, or what is in it.

        Raises:
            FileNotFoundError: It has gone.
        """

    def write(self, day: str, name: str, content: bytes) -> None:
        """Put a file there, whole; one of the same name is replaced."""

    def remove(self, file: StoredFile) -> None:
        """Take a file away; nothing where it has gone."""

    def clean(self) -> None:
        """Take away what removed files leave behind, and what dead processes were writing."""


class DirectoryShelf:
    """A directory.

    Args:
        directory: Made when the first file is written.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __str__(self) -> str:
        return str(self._directory)

    def files(self) -> list[StoredFile]:
        """Return all complete files."""
        found = []
        with _told(self):
            for day, directory in self._days():
                for path in directory.iterdir():
                    if _FILE.fullmatch(path.name):
                        with suppress(FileNotFoundError):
                            found.append(StoredFile(day, path.name, path.stat().st_size))
        return sorted(found)

    def _days(self) -> Iterator[tuple[str, Path]]:
        if not self._directory.is_dir():
            return
        for path in self._directory.iterdir():
            if (day := _DAY.fullmatch(path.name)) and path.is_dir():
                yield day[1], path

    def _path(self, file: StoredFile) -> Path:
        return self._directory / f"day={file.day}" / file.name

    def read(self, file: StoredFile) -> Path | bytes:
        """Return where a file is."""
        return self._path(file)

    def write(self, day: str, name: str, content: bytes) -> None:
        """Write under another name, to the disk, then rename."""
        path = self._path(StoredFile(day, name))
        temporary = path.with_name(f"{_TEMPORARY}{os.getpid()}-{time.monotonic_ns()}-{name}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LedgerUnreachable(f"{self}: {error.strerror}; name a directory that can be used") from error
        with _told(self):
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            # The rename is on the disk when its directory is, and the directory's own name when its parent is.
            for directory in (path.parent, self._directory):
                _sync(directory)

    def remove(self, file: StoredFile) -> None:
        """Unlink a file."""
        with _told(self):
            self._path(file).unlink(missing_ok=True)

    def clean(self) -> None:
        """Remove files that nobody finishes any more, and days without any."""
        with _told(self):
            for _, directory in self._days():
                for path in directory.glob(f"{_TEMPORARY}*"):
                    with suppress(FileNotFoundError):
                        if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                            path.unlink()
                # Not empty: there are files, or one is being written.
                with suppress(OSError):
                    directory.rmdir()


class BucketShelf:
    """A bucket, or what in it begins with a prefix; an object is there whole or not at all.

    Args:
        bucket: Its name.
        prefix: Without slashes at its ends; may be empty.
        endpoint_url: Where buckets are; None: AWS.

    Raises:
        Missing: The extra `s3` is not installed.
    """

    def __init__(self, bucket: str, prefix: str, endpoint_url: str | None) -> None:
        try:
            from obstore.exceptions import BaseError  # noqa: PLC0415 - an extra
            from obstore.store import S3Store  # noqa: PLC0415
        except ImportError as error:
            raise Missing("an s3:// ledger needs the extra s3; run pip install 'sluicegate[s3]'") from error
        self._refused = BaseError
        self._name = f"s3://{bucket}/{prefix}".rstrip("/")
        config: dict[str, Any] = {} if endpoint_url is None else {"endpoint": endpoint_url.rstrip("/")}
        self._store: Any = S3Store(
            bucket,
            prefix=prefix or None,
            client_options={"allow_http": endpoint_url is not None, "timeout": timedelta(seconds=_S3_SECONDS)},
            retry_config={"max_retries": _S3_RETRIES, "retry_timeout": timedelta(seconds=_S3_SECONDS)},
            **config,
        )

    def __str__(self) -> str:
        return self._name

    def files(self) -> list[StoredFile]:
        """Return all complete files."""
        found = []
        with self._told():
            for page in self._store.list():
                for item in page:
                    folder, _, name = item["path"].partition("/")
                    if (day := _DAY.fullmatch(folder)) and _FILE.fullmatch(name):
                        found.append(StoredFile(day[1], name, item["size"]))
        return sorted(found)

    def read(self, file: StoredFile) -> Path | bytes:
        """Download a file."""
        with self._told():
            return bytes(self._store.get(_key(file.day, file.name)).bytes())

    def write(self, day: str, name: str, content: bytes) -> None:
        """Upload a file."""
        with self._told():
            self._store.put(_key(day, name), content)

    def remove(self, file: StoredFile) -> None:
        """Delete an object."""
        with self._told(), suppress(FileNotFoundError):
            self._store.delete(_key(file.day, file.name))

    def clean(self) -> None:
        """Do nothing: a bucket has no directories, and shows nothing that is half written."""

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what the bucket says into one line; that an object has gone is the caller's to hear."""
        try:
            yield
        except FileNotFoundError:
            raise
        except (self._refused, OSError) as error:
            why = " ".join(str(error).split())[:200]
            raise LedgerUnreachable(
                f"{self} cannot be used ({why}); see SLUICE_S3_ENDPOINT_URL and AWS's variables"
            ) from error


def open_shelf(place: str, buckets: Sequence[str], endpoint_url: str | None) -> DirectoryShelf | BucketShelf:
    """Return what a command line names.

    Args:
        place: A directory, or `s3://bucket/prefix`.
        buckets: Those that may be named.
        endpoint_url: Where they are; None: AWS.

    Raises:
        UsageError: A bucket that may not be named, or another kind of URL.
        Missing: The extra `s3` is not installed.
    """
    if "://" not in place:
        return DirectoryShelf(Path(place).expanduser())
    parts = urlsplit(place)
    if parts.scheme != "s3" or not parts.netloc or parts.query or parts.fragment:
        raise UsageError(f"{place} is neither a directory nor s3://BUCKET/PREFIX")
    if parts.netloc not in buckets:
        raise UsageError(f"{place} lies in a bucket that is not in SLUICE_S3_BUCKETS; add {parts.netloc} there")
    return BucketShelf(parts.netloc, parts.path.strip("/"), endpoint_url)


def _key(day: str, name: str) -> str:
    return f"day={day}/{name}"


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _told(shelf: DirectoryShelf) -> Iterator[None]:
    """Turn what the disk says into one line; that a file has gone is the caller's to hear."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise LedgerUnreachable(f"{shelf}: {error.strerror or error}; name a directory that can be used") from error
