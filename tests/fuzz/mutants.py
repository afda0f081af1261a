"""Seeds → mutants: bytes flipped, cut out, doubled, spliced and cut short, sums mended so that readers go on.

In: files of the corpus and dice. Out: files that nobody wrote. The same dice throw the same mutants.
"""

from __future__ import annotations

import random
import struct
from collections import defaultdict
from collections.abc import Callable, Sequence

from fuzz.parts import PNG, chunk, chunks_of, damaged

#: What sizes, counts and offsets are not prepared for.
_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF)
_FORMATS = (">B", ">H", "<H", ">I", "<I")
_MOST_STEPS = 6
_HEADER_BYTES = 100


class Mutator:
    """Throws mutants.

    Args:
        seeds: Files to begin with.
        dice: To throw.
    """

    def __init__(self, seeds: Sequence[bytes], dice: random.Random) -> None:
        self._seeds, self._dice = seeds, dice
        self._kin: dict[bytes, list[bytes]] = defaultdict(list)
        for seed in seeds:
            self._kin[seed[:3]].append(seed)
        self._steps: list[Callable[[bytes], bytes]] = [
            self._flip, self._flip, self._number, self._number, self._cut_out, self._double, self._noise, self._splice,
        ]  # fmt: skip

    def throw(self) -> bytes:
        """Return a mutant."""
        seed = data = self._dice.choice(self._seeds)
        for _ in range(self._dice.randint(1, self._dice.randint(1, _MOST_STEPS))):
            data = self._dice.choice(self._steps)(data) or data
        if self._dice.random() < 0.1:
            data = data[: self._dice.randrange(len(data) + 1)]
        if self._dice.random() < 0.7:
            data = mended(data)
        return data if data != seed else self._flip(data)

    def _place(self, data: bytes) -> int:
        """Choose a place; one in two in what is likely to be a header."""
        most = len(data) if self._dice.random() < 0.5 else min(len(data), _HEADER_BYTES)
        return self._dice.randrange(max(1, most))

    def _span(self, data: bytes) -> tuple[int, int]:
        start = self._place(data)
        return start, min(len(data), start + int(2 ** self._dice.uniform(0, 12)))

    def _flip(self, data: bytes) -> bytes:
        at = self._place(data)
        return damaged(data, at, (data[at] if data else 0) ^ 1 << self._dice.randrange(8))

    def _number(self, data: bytes) -> bytes:
        layout = self._dice.choice(_FORMATS)
        most = 256 ** struct.calcsize(layout) - 1
        return damaged(data, self._place(data), *struct.pack(layout, self._dice.choice(_NUMBERS) & most))

    def _cut_out(self, data: bytes) -> bytes:
        start, end = self._span(data)
        return data[:start] + data[end:]

    def _double(self, data: bytes) -> bytes:
        start, end = self._span(data)
        at = self._place(data)
        return data[:at] + data[start:end] * self._dice.randint(1, 3) + data[at:]

    def _noise(self, data: bytes) -> bytes:
        start, end = self._span(data)
        return data[:start] + self._dice.randbytes(end - start) + data[end:]

    def _splice(self, data: bytes) -> bytes:
        other = self._dice.choice(self._kin[data[:3]] or [data])
        return data[: self._place(data)] + other[self._place(other) :]


def mended(data: bytes) -> bytes:
    """Mend the sums of a PNG's chunks, and the length of a WebP: without them nothing else would be read."""
    if data.startswith(PNG):
        return PNG + b"".join(chunk(kind, body) for kind, body in chunks_of(data))
    if data.startswith(b"RIFF"):
        return damaged(data, 4, *struct.pack("<I", max(0, len(data) - 8)))
    return data
