"""The decoder process: one file after another from a socket, each decoded within limits that the kernel holds.

In: what `sandbox` sends: a frame of limits, then frames of files. Out: for each file an answer, JSON and raw views,
never a pickle. It writes no file, has no network where the system allows that, dies with the thread that spawned it,
and never brings torch or settings in.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import os
import resource
import signal
import socket
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import AvifImagePlugin, Image

from worker import errors
from worker.errors import DecodeMemory, ImageRejected
from worker.intake.decode import DecodedImage, Limits, decode
from worker.intake.square import ViewSpec
from worker.records import ImageFacts

#: Bytes of the number that says how long a header or a file is.
SIZE_BYTES = 4
_MAX_HEADER_BYTES = 1024 * 1024
_MAX_VIEWS = 1024
#: Letters of why a file was refused, of the traceback of a defect, and of a format.
_MAX_TEXT, _MAX_TRACEBACK, _MAX_FORMAT = 1000, 10_000, 8
_CHANNELS = 3
_BYTES_A_PIXEL = 4
_MAX_OPEN_FILES = 16
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one image may cost."""

    #: From handing the file over to the last byte of its views, in seconds.
    timeout_seconds: float
    #: Of address space, of which the process takes 130 MB before its first image.
    memory_bytes: int
    #: How many images a process decodes before another one takes its place.
    images: int = 1000


class NotAnAnswer(ValueError):
    """What a decoder process said is not what one of ours says: it is not believed, and does not live on."""


# -- frames ----------------------------------------------------------------------------------------------------------


def send_frame(connection: socket.socket, head: bytes, *more: memoryview | bytes) -> None:
    """Send a length and as many bytes, then what the receiver knows the length of.

    Raises:
        OSError: The other side is gone; `TimeoutError` where the socket has a time-out and it passes.
    """
    connection.sendall(len(head).to_bytes(SIZE_BYTES, "big"))
    for part in (head, *more):
        connection.sendall(part)


def receive_exactly(connection: socket.socket, size: int, deadline: float = math.inf) -> bytearray:
    """Receive so many bytes.

    Args:
        connection: A socket that blocks.
        size: In bytes.
        deadline: On the monotonic clock, for all of it.

    Raises:
        TimeoutError: It has passed.
        EOFError: The other side is gone.
        OSError: The same.
    """
    data = bytearray(size)
    left = memoryview(data)
    while left:
        if deadline < math.inf:
            seconds = deadline - time.monotonic()
            if seconds <= 0:
                raise TimeoutError
            connection.settimeout(seconds)
        got = connection.recv_into(left)
        if not got:
            raise EOFError
        left = left[got:]
    return data


def receive_frame(connection: socket.socket, max_bytes: int, deadline: float = math.inf) -> bytearray:
    """Receive a length and as many bytes.

    Raises:
        NotAnAnswer: More than that are announced.
        TimeoutError: The deadline has passed.
        EOFError: The other side is gone.
        OSError: The same.
    """
    size = int.from_bytes(receive_exactly(connection, SIZE_BYTES, deadline), "big")
    if size > max_bytes:
        raise NotAnAnswer(f"{size} bytes; at most {max_bytes}")
    return receive_exactly(connection, size, deadline)


def receive_header(connection: socket.socket, deadline: float = math.inf) -> dict[str, Any]:
    """Receive a JSON object.

    Raises:
        NotAnAnswer: It is something else.
        TimeoutError: The deadline has passed.
        EOFError: The other side is gone.
        OSError: The same.
    """
    data = receive_frame(connection, _MAX_HEADER_BYTES, deadline)
    try:
        header = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise NotAnAnswer("not JSON") from error
    if not isinstance(header, dict):
        raise NotAnAnswer("not a JSON object")
    return header


def send_answer(connection: socket.socket, answer: DecodedImage | BaseException) -> None:
    """Send what came of a file."""
    header: dict[str, Any]
    views: tuple[Any, ...] = ()
    if isinstance(answer, DecodedImage):
        views = tuple(np.ascontiguousarray(view) for view in answer.views)
        header = {"facts": answer.facts.model_dump_json()}
    elif isinstance(answer, ImageRejected):
        header = {"rejected": type(answer).__name__, "text": str(answer)[:_MAX_TEXT]}
    else:
        header = {"defect": "".join(traceback.format_exception(answer))[-_MAX_TRACEBACK:]}
    send_frame(connection, json.dumps(header).encode(), *(view.data.cast("B") for view in views))


def receive_answer(connection: socket.socket, deadline: float, spec: ViewSpec) -> DecodedImage | ImageRejected:
    """Receive what came of a file; from a process that hostile bytes may have taken over, so nothing is believed.

    Args:
        connection: To the decoder process.
        deadline: On the monotonic clock.
        spec: The size of the views.

    Raises:
        NotAnAnswer: It is none.
        RuntimeError: A defect of ours: its text is the traceback.
        TimeoutError: The deadline has passed.
        EOFError: The other side is gone.
        OSError: The same.
    """
    header = receive_header(connection, deadline)
    if "defect" in header:
        raise RuntimeError(str(header["defect"])[-_MAX_TRACEBACK:])
    if "rejected" in header:
        kind = getattr(errors, str(header["rejected"]), None)
        if not (isinstance(kind, type) and issubclass(kind, ImageRejected)):
            raise NotAnAnswer("a reason that is none")
        said = str(header.get("text"))[:_MAX_TEXT]
        return kind("".join(letter if letter.isprintable() else "?" for letter in said))  # it is logged
    try:
        facts = ImageFacts.model_validate_json(header["facts"])
    except (KeyError, ValueError) as error:
        raise NotAnAnswer("no facts of an image") from error
    if not (1 <= facts.views <= _MAX_VIEWS and len(facts.view_boxes) == facts.views):
        raise NotAnAnswer("no number of views, or not a box for each")
    if not (facts.format.isalnum() and len(facts.format) <= _MAX_FORMAT):
        raise NotAnAnswer("no format")
    shape = (spec.crop, spec.crop, _CHANNELS)
    parts = [receive_exactly(connection, math.prod(shape), deadline) for _ in range(facts.views)]
    return DecodedImage(facts, tuple(np.frombuffer(part, np.uint8).reshape(shape) for part in parts))


# -- the process -----------------------------------------------------------------------------------------------------


def guard(memory_bytes: int, spawner_pid: int) -> dict[str, bool]:
    """Give up what decoding does not need; what the system does not grant is done without.

    Args:
        memory_bytes: Of address space.
        spawner_pid: The process whose death is this one's.

    Returns:
        Whether it is without `network`, and whether its `memory` is bounded.
    """
    held = {"network": False, "memory": False}
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        held["network"] = libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        # After unshare: a change of credentials forgets it.
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != spawner_pid:
        os._exit(1)
    for limit, value in (
        (resource.RLIMIT_NOFILE, _MAX_OPEN_FILES),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(limit, (value, value))
    # Not every system bounds address space.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
        held["memory"] = sys.platform == "linux"
    return held


def answers(connection: socket.socket, limits: Limits, spec: ViewSpec, bounds: Bounds) -> Iterator[None]:
    """Answer one file a step, until nobody asks any more."""
    while True:
        try:
            data = bytes(receive_frame(connection, limits.max_bytes))
        except (EOFError, OSError):
            return
        _limit_cpu(bounds.timeout_seconds)
        try:
            answer: DecodedImage | BaseException = decode(data, limits, spec)
        except ImageRejected as error:
            answer = DecodeMemory(str(error)) if _is_out_of_memory(error, limits, bounds) else error
        except Exception as error:  # a defect, which the other side raises
            answer = error
        del data
        send_answer(connection, answer)
        yield


def _limit_cpu(seconds: float) -> None:
    """Bound the CPU time of the next image, for the case that nobody is left to look at the clock."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    soft = math.ceil(usage.ru_utime + usage.ru_stime + seconds) + 1
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _is_out_of_memory(error: ImageRejected, limits: Limits, bounds: Bounds) -> bool:
    """Whether a decoder failed for want of memory: those of WebP and AVIF fail without saying so.

    It is taken for that where one more canvas of the largest image would not have fitted beside what was there.
    """
    if not isinstance(error.__cause__, OSError | RuntimeError):
        return False
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return False
    peak = next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmPeak")), 0)
    return peak + limits.max_pixels * _BYTES_A_PIXEL > bounds.memory_bytes


def main() -> None:
    """Take limits, give up all else, say so, and answer."""
    # Signals come to the whole group of processes; the keeper decides when this one ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    connection = socket.socket(fileno=int(sys.argv[1]))
    asked = receive_header(connection)
    limits = Limits(**asked["limits"] | {"formats": tuple(asked["limits"]["formats"])})
    bounds = Bounds(**asked["bounds"])
    # All plugins now, for later there may be no memory left to import one; a thread of one's own needs address space.
    Image.init()
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    warnings.simplefilter("ignore")
    held = guard(bounds.memory_bytes, int(sys.argv[2]))
    send_frame(connection, json.dumps(held).encode())
    # What an image makes a library say must not fill logs.
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 2)
    for _ in answers(connection, limits, ViewSpec(**asked["spec"]), bounds):
        pass
    # Whatever an image left behind needs no goodbye.
    os._exit(0)


def asked_of(limits: Limits, spec: ViewSpec, bounds: Bounds) -> bytes:
    """Return the first frame: what `main` reads."""
    return json.dumps({"limits": asdict(limits), "spec": asdict(spec), "bounds": asdict(bounds)}).encode()


if __name__ == "__main__":
    main()
