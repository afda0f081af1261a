"""Path ref → bytes: regular files beneath one root.

In: paths of strangers. Out: a file's bytes, within the limit. Never what lies outside, whatever is put in its place
while it is being looked for.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from worker.errors import ImageTooLarge, PathRefused, SourceRefused

#: Opened only to look further, which needs no right to list; macOS has no such flag.
_TO_LOOK_FURTHER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def read_file(root: Path, path: Path, max_bytes: int) -> bytes:
    """Read a regular file beneath a root; links that stay inside are followed.

    Args:
        root: What it must lie beneath.
        path: Absolute, or relative to the root.
        max_bytes: Larger ones are refused.

    Raises:
        PathRefused: It lies outside, or is not a regular file.
        SourceRefused: It is not there, or must not be read.
        ImageTooLarge: It has more bytes.
    """
    try:
        base = root.resolve(strict=True)
        resolved = (base / path).resolve(strict=True) if not path.is_absolute() else path.resolve(strict=True)
        if not resolved.is_relative_to(base):
            raise PathRefused(f"{path} lies outside SLUICE_PATH_ROOT")
        descriptor = open_beneath(base, resolved.relative_to(base))
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: a loop of links, before Python 3.13
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise SourceRefused(f"{path} cannot be read: {reason}") from error
    with os.fdopen(descriptor, "rb", closefd=True) as file:
        try:
            data = file.read(max_bytes + 1)
        except OSError as error:
            raise SourceRefused(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > max_bytes:
        raise ImageTooLarge(f"{path.name} is larger than {max_bytes} bytes")
    return data


def open_beneath(root: Path, inside: Path) -> int:
    """Open a regular file, one name after the other, through no link at all.

    What was resolved a moment ago may have become a link by now: then this fails.

    Args:
        root: Resolved.
        inside: Relative to it, resolved.

    Returns:
        A descriptor to read from.

    Raises:
        PathRefused: It is a FIFO, a device, a directory.
        OSError: A part of the path is a link or is not there.
    """
    *directories, name = inside.parts or (".",)
    at = os.open(root, _TO_LOOK_FURTHER)
    try:
        for directory in directories:
            below = os.open(directory, _TO_LOOK_FURTHER, dir_fd=at)
            os.close(at)
            at = below
        # A FIFO without a writer would be waited for.
        descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
    finally:
        os.close(at)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise PathRefused(f"{name} is not a regular file")
    return descriptor
