"""Files → views, each decoded in a process that may burn, eat or crash: what one image does to it ends that image only.

In: batches of files, hostile. Out: `DecodedImage`s or reasons, same length and order. Nothing is decoded here, so no
image costs this process more than its file and its views; nothing that a decoder process says is unpickled or believed.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future

from worker.errors import DecodeCrashed, DecodeMemory, DecodeTimeout, ImageRejected, ImageTooLarge, JobError, Missing
from worker.intake.cell import Bounds, NotAnAnswer, asked_of, receive_answer, receive_header, send_frame
from worker.intake.decode import DecodedImage, Limits
from worker.intake.square import ViewSpec

log = logging.getLogger(__name__)

#: How long a process may take to import Pillow; a machine may be busy.
_START_SECONDS = 60.0
_GOODBYE_SECONDS = 1.0
#: What a decoder process needs of the environment; the rest may hold passwords.
_KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LANG",
                   "LC_ALL", "SYSTEMROOT")  # fmt: skip

Decoded = DecodedImage | JobError
#: How what ended a process is called where ends are counted.
_ENDS: dict[type, str] = {DecodeTimeout: "timeout", DecodeMemory: "memory", DecodeCrashed: "crashed"}


class Decoder:
    """Decodes batches in processes of their own, several files at a time; may be called in several threads.

    Each process has a keeper: a thread that spawns it, feeds it, ends and replaces it.

    Args:
        limits: What is refused.
        spec: The square to make.
        bounds: What one image may cost.
        processes: Files that are decoded at once.
    """

    def __init__(self, limits: Limits, spec: ViewSpec, bounds: Bounds, processes: int) -> None:
        self._files: queue.SimpleQueue[tuple[bytes, Future[Decoded]] | None] = queue.SimpleQueue()
        self._is_closed = False
        self._ends: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._keepers = [_Keeper(limits, spec, bounds, self._files, self._ends) for _ in range(processes)]
        for keeper in self._keepers:
            keeper.start()

    @property
    def pids(self) -> list[int]:
        """Process ids of the decoder processes that run now."""
        return [keeper.pid for keeper in self._keepers if keeper.pid]

    def __call__(self, files: Sequence[bytes]) -> list[Decoded]:
        """Decode; same length, same order.

        Raises:
            Missing: No decoder process can be started.
            RuntimeError: The decoder is closed.
        """
        if self._is_closed:
            raise RuntimeError("the decoder is closed")
        waiting: list[Future[Decoded]] = [Future() for _ in files]
        for task in zip(files, waiting, strict=True):
            self._files.put(task)
        try:
            return [future.result() for future in waiting]
        finally:
            # Where this was interrupted, what nobody waits for any more is not begun.
            for future in waiting:
                future.cancel()

    def take_ends(self) -> Mapping[str, int]:
        """Return why processes were replaced since the last call: one of timeout, memory, crashed, recycled."""
        return Counter(self._ends.get_nowait() for _ in range(self._ends.qsize()))

    def close(self) -> None:
        """End the processes, and the threads that keep them; after the images that are being decoded."""
        self._is_closed = True
        for _ in self._keepers:
            self._files.put(None)
        for keeper in self._keepers:
            keeper.join()


class _Keeper(threading.Thread):
    """Keeps one decoder process.

    The kernel ends a process with the thread that spawned it, not with the process of that thread: so the thread that
    spawns is one that lives until the decoder is closed, whoever calls the decoder.
    """

    def __init__(
        self,
        limits: Limits,
        spec: ViewSpec,
        bounds: Bounds,
        files: queue.SimpleQueue[tuple[bytes, Future[Decoded]] | None],
        ends: queue.SimpleQueue[str],
    ) -> None:
        super().__init__(name="decode", daemon=True)
        self._limits, self._spec, self._bounds = limits, spec, bounds
        self._files, self._ends = files, ends
        self._cell: _Cell | None = None

    @property
    def pid(self) -> int:
        """Process id of the decoder process; 0 where there is none."""
        cell = self._cell
        return cell.process.pid if cell else 0

    def run(self) -> None:
        """Decode what is on the queue until it says that this was all."""
        with contextlib.suppress(Missing):  # tried again, and told, with the first file
            self._cell = self._spawn()
        while (task := self._files.get()) is not None:
            data, future = task
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(self._decode(data))
            except BaseException as error:  # whoever waits is told; the keeper goes on
                self._end()
                future.set_exception(error)
        self._end()

    def _decode(self, data: bytes) -> Decoded:
        if len(data) > self._limits.max_bytes:
            # Not handed over at all.
            return ImageTooLarge(f"{len(data)} bytes; at most {self._limits.max_bytes} (SLUICE_IMAGE_MAX_BYTES)")
        while True:
            cell = self._living()
            is_fresh = cell.decoded == 0
            image = cell.decode(data)
            if cell.is_over or cell.decoded >= self._bounds.images:
                self._ends.put(_ENDS[type(image)] if cell.is_over else "recycled")
                self._end()
                self._cell = self._spawn()
            # What images before it did to a process is not this image's doing: a new process tells.
            if is_fresh or not isinstance(image, DecodeCrashed | DecodeMemory):
                return image

    def _living(self) -> _Cell:
        if self._cell is None or self._cell.process.poll() is not None:
            if self._cell is not None:  # it died with nothing in hand
                self._ends.put("crashed")
            self._end()
            self._cell = self._spawn()
        self._cell.wait_ready()
        return self._cell

    def _spawn(self) -> _Cell:
        return _Cell(self._limits, self._spec, self._bounds)

    def _end(self) -> None:
        if self._cell is not None:
            self._cell.end()
            self._cell = None


class _Cell:
    """One decoder process, seen from outside.

    Raises:
        Missing: It cannot be spawned.

    Attributes:
        process: It.
        decoded: How many images it was given.
        is_over: Whether it is of no more use.
    """

    def __init__(self, limits: Limits, spec: ViewSpec, bounds: Bounds) -> None:
        self._spec, self._bounds = spec, bounds
        self._is_ready = False
        self.decoded = 0
        self.is_over = False
        self._connection, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "worker.intake.cell", str(theirs.fileno()), str(os.getpid())]
            kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
            # numpy's threads would each take address space, and a process with threads cannot leave its network.
            kept["OPENBLAS_NUM_THREADS"] = kept["OMP_NUM_THREADS"] = "1"
            try:
                self.process = subprocess.Popen(
                    command, env=kept, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
                )
            except OSError as error:
                self._connection.close()
                raise Missing(f"no decoder process starts: {error}") from error
        with contextlib.suppress(OSError):  # it has died already: `wait_ready` says so
            send_frame(self._connection, asked_of(limits, spec, bounds))

    def wait_ready(self) -> None:
        """Wait until it has started.

        Raises:
            Missing: It does not.
        """
        if self._is_ready:
            return
        try:
            held = receive_header(self._connection, time.monotonic() + _START_SECONDS)
        except (EOFError, OSError, NotAnAnswer) as error:
            raise Missing(f"no decoder process starts ({self._cause()}); what it says of it is on stderr") from error
        self._is_ready = True
        log.debug("decoder process %d is ready; held back: %s", self.process.pid, held)

    def decode(self, data: bytes) -> Decoded:
        """Hand a file over and wait for its views; after an end that is no answer, `is_over`.

        Raises:
            RuntimeError: A defect of ours.
        """
        self.decoded += 1
        deadline = time.monotonic() + self._bounds.timeout_seconds
        try:
            self._connection.settimeout(self._bounds.timeout_seconds)
            send_frame(self._connection, data)
            # Meanwhile it decodes. An image is remembered under its digest: one that took the process over must not
            # speak for another.
            own = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
            image = receive_answer(self._connection, deadline, self._spec)
        except TimeoutError:
            return self._over(DecodeTimeout(self._too_slow()))
        except NotAnAnswer as error:
            return self._over(DecodeCrashed(f"the decoder's answer is not one: {error}"))
        except (EOFError, OSError):
            cause = self._cause()
            is_slow = self.process.returncode == -signal.SIGXCPU
            return self._over(
                DecodeTimeout(self._too_slow()) if is_slow else DecodeCrashed(f"the decoder died ({cause})")
            )
        if isinstance(image, ImageRejected):
            return self._over(image) if isinstance(image, DecodeMemory) else image
        return DecodedImage(image.facts.model_copy(update=own | {"views": len(image.views)}), image.views)

    def _too_slow(self) -> str:
        return f"not decoded within {self._bounds.timeout_seconds:g} s (SLUICE_DECODE_TIMEOUT_SECONDS)"

    def _over(self, why: ImageRejected) -> ImageRejected:
        log.info("decoder process %d is replaced: %s", self.process.pid, why)
        self.is_over = True
        return why

    def _cause(self) -> str:
        # The socket closes a moment before the process has ended.
        try:
            code = self.process.wait(_GOODBYE_SECONDS)
        except subprocess.TimeoutExpired:
            return "it does not answer"
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def end(self) -> None:
        """End it; at once, for nothing in it is worth a goodbye."""
        self._connection.close()
        self.process.kill()
        self.process.wait()
