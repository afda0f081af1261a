"""Files → views in processes of their own: what one image does to its process ends that image, and nothing else."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil
import pytest
from PIL import Image
from support import encode, until

from worker.errors import (
    DecodeCrashed,
    DecodeMemory,
    DecodeTimeout,
    ImageFormatRefused,
    ImageTooLarge,
    ImageTruncated,
    ImageUndecodable,
    Missing,
)
from worker.intake.cell import (
    Bounds,
    NotAnAnswer,
    receive_answer,
    receive_frame,
    send_answer,
    send_frame,
)
from worker.intake.decode import DecodedImage, Limits, decode
from worker.intake.sandbox import Decoder
from worker.intake.square import ViewSpec

MIB = 1024 * 1024
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "AVIF")
LIMITS = Limits(max_bytes=20 * MIB, max_pixels=50_000_000, formats=FORMATS)
SPEC = ViewSpec(shortest_edge=32, crop=32, resample=Image.Resampling.BICUBIC.value)
BOUNDS = Bounds(timeout_seconds=30, memory_bytes=1536 * MIB)
#: Enough for the process and a photograph, not for what costs hundreds of megabytes.
TIGHT = Bounds(timeout_seconds=30, memory_bytes=400 * MIB)
linux = pytest.mark.skipif(sys.platform != "linux", reason="what the kernel is asked for is Linux's")


def picture(width: int = 48, height: int = 40, seed: int = 0) -> Image.Image:
    """Draw noise: no two images alike."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    """Give a decoder of two processes."""
    decoder = Decoder(LIMITS, SPEC, BOUNDS, processes=2)
    yield decoder
    decoder.close()


@pytest.fixture(scope="module")
def scan_bomb() -> bytes:
    """Return a progressive JPEG of 45 megapixels and as many scans as are let through: seconds of work."""
    data = encode(Image.new("RGB", (7_000, 6_500), "teal"), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * (64 - data.count(b"\xff\xda")) + data[-2:]


@pytest.fixture(scope="module")
def webp_bomb() -> bytes:
    """Return a WebP of a few dozen bytes that is whole, and costs hundreds of megabytes."""
    data = encode(Image.new("RGB", (7_000, 7_000), "teal"), "WEBP", lossless=True, method=0, quality=0)
    assert len(data) < 10_000
    return data


def good(image: object) -> DecodedImage:
    """Return an image that was looked at."""
    assert isinstance(image, DecodedImage), image
    return image


# -- the same images -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", FORMATS)
def test_an_image_is_the_same_to_the_last_bit_as_in_this_process(decoder: Decoder, format: str) -> None:
    data = encode(picture(301, 203), format)
    (decoded,) = decoder([data])
    expected = decode(data, LIMITS, SPEC)
    assert good(decoded).facts == expected.facts
    assert len(good(decoded).views) == len(expected.views)
    for view, same in zip(good(decoded).views, expected.views, strict=True):
        assert view.dtype == np.uint8
        assert np.array_equal(view, same)


def test_a_batch_keeps_length_and_order_with_failures_in_between(decoder: Decoder) -> None:
    # The first is the slowest.
    images = [picture(1_500, 1_000), *(picture(20 + size, 30, size) for size in range(20))]
    files = [encode(image) for image in images]
    files[3], files[11], files[20] = b"", files[11][:-20], encode(picture(), "BMP")
    decoded = decoder(files)
    failed = {3: ImageUndecodable, 11: ImageTruncated, 20: ImageFormatRefused}
    assert len(decoded) == len(files)
    for at, image in enumerate(decoded):
        if at in failed:
            assert type(image) is failed[at]
        else:
            assert (good(image).facts.width, good(image).facts.height) == images[at].size
            assert np.array_equal(good(image).views[0], decode(files[at], LIMITS, SPEC).views[0])


def test_a_refusal_says_the_same_as_in_this_process(decoder: Decoder) -> None:
    data = encode(picture(), "BMP")
    (refused,) = decoder([data])
    with pytest.raises(ImageFormatRefused) as here:
        decode(data, LIMITS, SPEC)
    assert str(refused) == str(here.value)


def test_a_batch_of_nothing_is_nothing(decoder: Decoder) -> None:
    assert decoder([]) == []


def test_a_file_over_the_limit_is_not_handed_over() -> None:
    data = encode(picture())
    decoder = Decoder(Limits(len(data) - 1, 10_000, FORMATS), SPEC, BOUNDS, 1)
    assert isinstance(decoder([data])[0], ImageTooLarge)
    decoder.close()


def test_several_threads_may_use_one_decoder_and_each_gets_its_own_images(decoder: Decoder) -> None:
    found: dict[int, list[object]] = {}

    def ask(number: int) -> None:
        found[number] = list(decoder([encode(picture(30 + number, 30, number)) for _ in range(8)]))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, images in found.items():
        assert [good(image).facts.width for image in images] == [30 + number] * 8


def test_the_end_of_the_thread_that_asked_first_ends_no_process() -> None:
    decoder = Decoder(LIMITS, SPEC, BOUNDS, 1)
    thread = threading.Thread(target=decoder, args=([encode(picture())],))
    thread.start()
    thread.join()
    (pid,) = decoder.pids
    good(decoder([encode(picture())])[0])
    assert decoder.pids == [pid]
    decoder.close()


# -- what an image does to its process -------------------------------------------------------------------------------


def test_an_image_that_takes_too_long_ends_alone_with_its_reason(scan_bomb: bytes) -> None:
    decoder = Decoder(LIMITS, SPEC, Bounds(0.5, BOUNDS.memory_bytes), 2)
    small = [encode(picture(seed=seed)) for seed in range(6)]
    decoded = decoder([*small[:3], scan_bomb, *small[3:]])
    assert isinstance(decoded[3], DecodeTimeout)
    assert decoded[3].reason == "decode_timeout"
    assert "SLUICE_DECODE_TIMEOUT_SECONDS" in str(decoded[3])
    assert (decoder.take_ends(), decoder.take_ends()) == ({"timeout": 1}, {})
    for image, data in zip(decoded[:3] + decoded[4:], small, strict=True):
        assert np.array_equal(good(image).views[0], decode(data, LIMITS, SPEC).views[0])
    decoder.close()


@linux
def test_an_image_that_takes_too_much_memory_ends_alone_with_its_reason(webp_bomb: bytes) -> None:
    assert isinstance(decode(webp_bomb, LIMITS, SPEC), DecodedImage)
    decoder = Decoder(LIMITS, SPEC, TIGHT, 1)
    small = encode(picture())
    before, bomb, after = decoder([small, webp_bomb, small])
    assert isinstance(bomb, DecodeMemory)
    assert bomb.reason == "decode_memory"
    # Once in a process that had decoded before, once in one of its own.
    assert decoder.take_ends() == {"memory": 2}
    assert np.array_equal(good(before).views[0], good(after).views[0])
    decoder.close()


@linux
@pytest.mark.parametrize("format", ["PNG", "AVIF"])
def test_every_decoder_that_runs_out_of_memory_has_that_reason(format: str) -> None:
    options = {"speed": 10} if format == "AVIF" else {}
    data = encode(Image.new("RGB", (7_000, 7_000), "teal"), format, **options)
    decoder = Decoder(LIMITS, SPEC, Bounds(30, 320 * MIB), 1)
    assert isinstance(decoder([data])[0], DecodeMemory)
    decoder.close()


@linux
def test_a_broken_image_is_not_taken_for_a_large_one(decoder: Decoder) -> None:
    # A lossless WebP of 64 x 64 whose pixels are nothing.
    body = b"\x2f" + struct.pack("<I", 63 | 63 << 14) + bytes(15)
    broken = b"RIFF" + struct.pack("<I", 12 + len(body)) + b"WEBPVP8L" + struct.pack("<I", len(body)) + body
    assert type(decoder([broken])[0]) is ImageUndecodable


def _kill_all_but_the_first(decoder: Decoder, first: list[int]) -> None:
    """Kill each process of a decoder in mid-decoding, until there are two other ones."""
    killed: set[int] = set()
    while len(killed) < 2:
        for pid in decoder.pids:
            if pid not in killed and _is_decoding(pid):
                os.kill(pid, signal.SIGSEGV)
                killed.add(pid)
        time.sleep(0.005)


def _is_decoding(pid: int) -> bool:
    try:
        # It reads files over a socket, and never decodes within its first 200 MB.
        return psutil.Process(pid).memory_info().rss > 150 * MIB
    except psutil.Error:
        return False


@linux
def test_an_image_whose_process_dies_twice_ends_alone_with_its_reason(webp_bomb: bytes) -> None:
    decoder = Decoder(LIMITS, SPEC, BOUNDS, 1)
    small = encode(picture())
    good(decoder([small])[0])
    killer = threading.Thread(target=_kill_all_but_the_first, args=(decoder, decoder.pids))
    killer.start()
    before, crashed, after = decoder([small, webp_bomb, small])
    killer.join()
    assert isinstance(crashed, DecodeCrashed)
    assert crashed.reason == "decode_crashed"
    assert "signal 11" in str(crashed)
    assert decoder.take_ends() == {"crashed": 2}
    assert np.array_equal(good(before).views[0], good(after).views[0])
    decoder.close()


def test_an_image_whose_process_was_killed_before_it_is_not_blamed() -> None:
    decoder = Decoder(LIMITS, SPEC, BOUNDS, 1)
    small = encode(picture())
    good(decoder([small])[0])
    (pid,) = decoder.pids
    os.kill(pid, signal.SIGKILL)
    good(decoder([small])[0])
    assert decoder.pids != [pid]
    assert decoder.take_ends() == {"crashed": 1}
    decoder.close()


@linux
def test_an_image_that_dies_in_a_used_process_is_looked_at_once_more_in_a_new_one(webp_bomb: bytes) -> None:
    decoder = Decoder(LIMITS, SPEC, BOUNDS, 1)
    good(decoder([encode(picture())])[0])
    (pid,) = decoder.pids
    killer = threading.Thread(target=lambda: (until(lambda: _is_decoding(pid)), os.kill(pid, signal.SIGKILL)))
    killer.start()
    good(decoder([webp_bomb])[0])
    killer.join()
    assert decoder.pids != [pid]
    decoder.close()


def test_a_process_is_replaced_after_so_many_images() -> None:
    decoder = Decoder(LIMITS, SPEC, Bounds(30, BOUNDS.memory_bytes, images=3), 1)
    seen = []
    for seed in range(7):
        good(decoder([encode(picture(seed=seed))])[0])
        seen.append(decoder.pids[0])
    assert len(set(seen)) == 3
    assert decoder.take_ends() == {"recycled": 2}
    decoder.close()


@linux
def test_uploads_of_50_megapixels_cost_this_process_nothing_but_their_files(scan_bomb: bytes) -> None:
    png = encode(Image.new("RGB", (7_000, 7_000), "teal"), "PNG")
    script = f"""
import sys
from pathlib import Path
from worker.intake.cell import Bounds
from worker.intake.decode import Limits
from worker.intake.sandbox import Decoder
from worker.intake.square import ViewSpec
if __name__ == "__main__":
    data = sys.stdin.buffer.read()
    decoder = Decoder({LIMITS!r}, {SPEC!r}, {BOUNDS!r}, 2)
    decoder([data])
    def most():
        return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) // 1024
    Path("/proc/self/clear_refs").write_text("5")
    before = most()
    images = decoder([data] * 6)
    assert all(image.facts.width == 7000 for image in images), images
    print(most() - before)
    decoder.close()
"""
    done = subprocess.run([sys.executable, "-c", script], input=png, capture_output=True, timeout=100, check=True)
    assert int(done.stdout) < 20


# -- what a decoder process may do -----------------------------------------------------------------------------------


@linux
def test_a_decoder_process_has_its_limits_no_torch_no_secrets_and_no_sockets_but_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SLUICE_REDIS_URL", "redis://:secret@127.0.0.1/0")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    decoder = Decoder(LIMITS, SPEC, BOUNDS, 1)
    good(decoder([encode(picture())])[0])
    (pid,) = decoder.pids
    root = Path("/proc") / str(pid)
    limits = {line[:26].strip(): line[26:].split()[0] for line in (root / "limits").read_text().splitlines()}
    assert limits["Max address space"] == str(BOUNDS.memory_bytes)
    assert limits["Max file size"] == "0"
    assert limits["Max core file size"] == "0"
    assert limits["Max open files"] == "16"
    assert int(limits["Max cpu time"]) <= 32
    assert "NoNewPrivs:\t1" in (root / "status").read_text()
    assert "Threads:\t1" in (root / "status").read_text()
    maps = (root / "maps").read_text()
    assert "libtorch" not in maps
    assert "_imaging" in maps
    assert b"secret" not in (root / "environ").read_bytes()
    links = [str(file.readlink()) for file in (root / "fd").iterdir()]
    assert sum(link.startswith("socket:") for link in links) == 1
    decoder.close()


def test_what_a_decoder_process_imports_holds_neither_torch_nor_what_speaks_to_others() -> None:
    script = "import sys, worker.intake.cell; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"torch", "transformers", "redis", "rq", "httpx", "yaml", "worker.app", "worker.settings"}
    assert {name for name in loaded if name.startswith("worker.")} == {
        "worker.errors", "worker.records", "worker.intake", "worker.intake.borders", "worker.intake.cell",
        "worker.intake.colours", "worker.intake.decode", "worker.intake.frames", "worker.intake.look",
        "worker.intake.paper", "worker.intake.rows", "worker.intake.square", "worker.intake.structure",
        "worker.intake.views",
    }  # fmt: skip


@linux
def test_a_decoder_process_has_a_network_of_its_own_where_the_system_allows_it() -> None:
    probe = "import ctypes; raise SystemExit(ctypes.CDLL(None).unshare(0x50000000) != 0)"
    if subprocess.run([sys.executable, "-c", probe], timeout=60, check=False).returncode:
        pytest.skip("the system does not let a process leave its network")
    decoder = Decoder(LIMITS, SPEC, BOUNDS, 1)
    good(decoder([encode(picture())])[0])
    theirs = Path(f"/proc/{decoder.pids[0]}/ns/net").readlink()
    assert theirs != Path("/proc/self/ns/net").readlink()
    decoder.close()


@pytest.mark.parametrize("program", ["/bin/false", "/there/is/nothing"])
def test_a_process_that_does_not_start_is_told_and_blames_no_image(
    monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    monkeypatch.setattr(sys, "executable", program)
    decoder = Decoder(LIMITS, SPEC, BOUNDS, 1)
    with pytest.raises(Missing, match="no decoder process starts"):
        decoder([encode(picture())])
    monkeypatch.undo()
    good(decoder([encode(picture())])[0])
    decoder.close()


# -- ends ------------------------------------------------------------------------------------------------------------


def test_nothing_is_left_after_close() -> None:
    decoder = Decoder(LIMITS, SPEC, BOUNDS, 2)
    decoder([encode(picture(seed=seed)) for seed in range(4)])
    pids = decoder.pids
    decoder.close()
    assert len(pids) == 2
    # Not even a zombie: those still have a process id.
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert decoder.pids == []
    with pytest.raises(RuntimeError, match="closed"):
        decoder([b""])
    decoder.close()


@linux
def test_no_decoder_process_outlives_a_parent_that_is_killed_in_mid_decoding(scan_bomb: bytes) -> None:
    script = f"""
import sys
from worker.intake.cell import Bounds
from worker.intake.decode import Limits
from worker.intake.sandbox import Decoder
from worker.intake.square import ViewSpec
decoder = Decoder({LIMITS!r}, {SPEC!r}, {BOUNDS!r}, 2)
data = sys.stdin.buffer.read()
decoder([b"", b""])
print(*decoder.pids, flush=True)
decoder([data] * 4)
"""
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        parent.stdin.write(scan_bomb)
        parent.stdin.close()
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        until(lambda: any(psutil.Process(pid).cpu_percent(0.05) > 20 for pid in pids), what="they decode")
        parent.kill()
    assert len(pids) == 2
    until(lambda: not any(_runs(pid) for pid in pids), 5, "the decoder processes end")


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class _OutOfTime(Exception):
    """What RQ raises in a job that runs too long."""


def _give_up(*_: object) -> None:
    raise _OutOfTime


def test_a_time_out_in_mid_decoding_is_not_taken_for_a_broken_image(scan_bomb: bytes) -> None:
    decoder = Decoder(LIMITS, SPEC, Bounds(2, BOUNDS.memory_bytes), 1)
    good(decoder([encode(picture())])[0])
    before = signal.signal(signal.SIGUSR1, _give_up)
    alarm = threading.Timer(0.1, signal.pthread_kill, [threading.main_thread().ident, signal.SIGUSR1])
    try:
        alarm.start()
        with pytest.raises(_OutOfTime):
            decoder([scan_bomb])
    finally:
        alarm.join()
        signal.signal(signal.SIGUSR1, before)
    good(decoder([encode(picture())])[0])
    decoder.close()


# -- what a process that was taken over may say ----------------------------------------------------------------------


FACTS = {"sha256": "0", "format": "PNG", "width": 1, "height": 1, "frames": 1, "views": 1, "bytes": 1,
         "view_boxes": [{"box": [0, 0, 1, 1]}]}  # fmt: skip


def _facts(**changed: object) -> bytes:
    return json.dumps({"facts": json.dumps(FACTS | changed)}).encode()


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"\x80\x04.", id="a pickle"),
        pytest.param(b"[" * 500_000, id="deep JSON"),
        pytest.param(b"[]", id="no object"),
        pytest.param(b"{}", id="nothing"),
        pytest.param(b'{"rejected": "SystemExit"}', id="an exception of Python's"),
        pytest.param(b'{"rejected": "JobStopped"}', id="an error that is no image's"),
        pytest.param(b'{"rejected": ["a"]}', id="a list for a reason"),
        pytest.param(json.dumps({"facts": {}}).encode(), id="no facts"),
        pytest.param(json.dumps({"facts": FACTS}).encode(), id="facts that are no text"),
        pytest.param(_facts(views=0), id="no views"),
        pytest.param(_facts(views=10**9), id="a billion views"),
        pytest.param(_facts(views="1"), id="a number in words"),
        pytest.param(_facts(view_boxes=[]), id="a view without a box"),
        pytest.param(_facts(format="PNG" * 1_000), id="a long format"),
        pytest.param(_facts(format="P\nNG"), id="a format of two lines"),
    ],
)
def test_what_is_not_an_answer_is_not_believed(said: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        threading.Thread(target=send_frame, args=(theirs, said), daemon=True).start()
        with pytest.raises(NotAnAnswer):
            receive_answer(ours, time.monotonic() + 10, SPEC)


def test_why_a_file_was_refused_is_one_line_and_no_book() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        said = {"rejected": "ImageUndecodable", "text": "a\n2026 INFO all is well\x1b[2J" + "b" * 100_000}
        threading.Thread(target=send_frame, args=(theirs, json.dumps(said).encode()), daemon=True).start()
        text = str(receive_answer(ours, time.monotonic() + 10, SPEC))
    assert text.startswith("a?2026 INFO all is well?[2Jb")
    assert len(text) == 1_000


def test_a_header_of_4_gigabytes_is_not_waited_for() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"\xff\xff\xff\xff")
        with pytest.raises(NotAnAnswer):
            receive_frame(ours, 100)


def test_an_answer_that_stops_in_the_middle_is_a_time_out() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"\0\0\0\x05{")
        with pytest.raises(TimeoutError):
            receive_answer(ours, time.monotonic() + 0.05, SPEC)


def test_an_answer_survives_the_socket() -> None:
    view: npt.NDArray[np.uint8] = np.asarray(picture(32, 32))
    facts = decode(encode(picture()), LIMITS, SPEC).facts
    facts = facts.model_copy(update={"views": 2, "view_boxes": facts.view_boxes * 2})
    image = DecodedImage(facts, (view, view[::-1]))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send_answer(theirs, image)
        heard = receive_answer(ours, time.monotonic() + 10, SPEC)
    assert good(heard).facts == image.facts
    assert all(np.array_equal(*pair) for pair in zip(good(heard).views, image.views, strict=True))
