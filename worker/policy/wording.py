"""What can be said against the wording of a valid policy without a model, and how an author answers.

In: a policy and its text. Out: warnings, each with its place and code, less those that a comment beside them allows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from worker.policy.findings import Finding
from worker.policy.places import Path, Places, read_yaml
from worker.policy.schema import Policy

#: Every kind of warning: what it says.
WARNINGS: dict[str, str] = {
    "cut": "The sentence is longer than the model reads; what comes after is ignored.",
    "negation": "CLIP cannot read a negation: the sentence calls for what it wants to leave out.",
    "near-look-alike": "The prompt is nearer to a look-alike of its category than to any other prompt of it.",
    "near-contrast": "The prompt is nearer to a sentence of the contrast than to any other prompt of its category.",
    "near-copy": "Two sentences mean the same to the model.",
    "never-wins": "Even an image that shows exactly this prompt stays below its category's lowest threshold.",
    "one-prompt": "A category with one prompt hangs on one wording.",
    "stale-calibration": "A category's calibration was made for other sentences, and does not count.",
    "exemplar-apart": "The model cannot tell an image that matches from one that does not.",
    "exemplar-model": "An exemplar of another model does not count, and leaves its category uncalibrated.",
    "exemplar-weak": "The strength is on the wrong side of a threshold, so the image itself is not decided as meant.",
    "threshold-unreached": "No score seen so far reaches the threshold.",
    "unknown-code": "A comment allows a kind of warning that there is not.",
}
#: Words that say what is absent, as whole words, with either apostrophe.
NEGATION = re.compile(
    r"(?<!\w)(no|not|non|nor|none|never|neither|nobody|nothing|nowhere|without|cannot|\w+n['\u2019]t)(?!\w)",
    re.IGNORECASE,
)
_ALLOW = re.compile(r"#\s*lint:\s*allow\s+([\w-]+(?:\s*,\s*[\w-]+)*)")


@dataclass(frozen=True, slots=True)
class Seen:
    """The greatest scores that were seen, by category."""

    greatest: Mapping[str, float]
    #: Of what, as a finding begins: `25 images of tests.npz`.
    where: str

    def beside(self, other: Seen) -> Seen:
        """Return the greater of both for each category."""
        if not other.greatest:
            return self
        names = self.greatest.keys() | other.greatest.keys()
        both = {name: max(self.greatest.get(name, 0.0), other.greatest.get(name, 0.0)) for name in names}
        return Seen(both, f"{self.where} and {other.where}")


@dataclass(frozen=True, slots=True)
class Page:
    """A policy file that warnings are written about."""

    file: str
    lines: tuple[str, ...]
    places: Places

    @classmethod
    def of(cls, file: str, text: str) -> Page:
        """Read a file that was found valid."""
        return cls(file, tuple(text.splitlines()), read_yaml(text)[1])

    def warn(self, code: str, path: Path, message: str) -> Finding:
        """Write a warning about what stands at `path`."""
        line, column = self.places.find(path)
        return Finding(self.file, line, column, ".".join(map(str, path)), message, "warning", code)

    def less_allowed(self, warnings: Iterable[Finding]) -> list[Finding]:
        """Leave out what a comment `# lint: allow CODE, …` on the same line allows; in the order of the file."""
        kept = [finding for finding in warnings if finding.code not in self._allowed(finding.line)]
        return sorted(kept, key=lambda finding: (finding.line, finding.column))

    def _allowed(self, line: int) -> list[str]:
        found = _ALLOW.search(self.lines[line - 1]) if line <= len(self.lines) else None
        return [code.strip() for code in found[1].split(",")] if found else []

    def unknown_codes(self) -> Iterator[Finding]:
        """Yield a warning for every allowed code that there is not."""
        for number, line in enumerate(self.lines, 1):
            found = _ALLOW.search(line)
            for code in self._allowed(number) if found else ():
                if code not in WARNINGS and found:
                    message = f"there is no warning {code}; there are {', '.join(WARNINGS)}"
                    yield Finding(self.file, number, found.start() + 1, "", message, "warning", "unknown-code")


def sentences_of(policy: Policy) -> Iterator[tuple[Path, str]]:
    """Yield every sentence of a policy with its path: contrast, then prompts and look-alikes by category."""
    for index, text in enumerate(policy.contrast):
        yield ("contrast", index), text
    for name, category in policy.categories.items():
        for key, listed in (("prompts", category.prompts), ("look_alikes", category.look_alikes or ())):
            for index, text in enumerate(listed):
                yield ("categories", name, key, index), text


def warn_of_wording(policy: Policy, page: Page) -> Iterator[Finding]:
    """Yield what needs no model: negations, single prompts, calibrations for other sentences, unknown codes."""
    for path, text in sentences_of(policy):
        if found := NEGATION.search(text):
            message = (
                f"CLIP cannot read {found[0]!r} and looks for the rest of {text!r}; say what is to be seen instead"
            )
            yield page.warn("negation", path, message)
    for name, category in policy.categories.items():
        if len(category.prompts) == 1:
            message = "one prompt: the category hangs on one wording; add two or three that say it otherwise"
            yield page.warn("one-prompt", ("categories", name, "prompts", 0), message)
    for model in policy.calibration:
        for name in policy.stale_for(model):
            message = (
                f"made for other sentences than {name} has now, so verdicts under {model} say calibrated: false; "
                f"calibrate anew with `sluice calibrate {policy.ref}`"
            )
            yield page.warn("stale-calibration", ("calibration", model, name), message)
    yield from warn_of_strength(policy, page)
    yield from page.unknown_codes()


def warn_of_strength(policy: Policy, page: Page) -> Iterator[Finding]:
    """Yield every category whose strength leaves its own exemplars on the wrong side of a threshold."""
    for name, category in policy.categories.items():
        exemplars, thresholds = category.exemplars, category.thresholds.as_dict()
        if exemplars is None:
            continue
        path: Path = ("categories", name, "exemplars", "strength")
        action, highest = max(thresholds.items(), key=lambda item: item[1])
        if exemplars.match and exemplars.strength < highest:
            message = f"an image that matches scores {exemplars.strength:g}, below {action} {highest:g}; raise strength"
            yield page.warn("exemplar-weak", path, message)
        lowest = min(thresholds.values())
        if exemplars.unlike and 1 - exemplars.strength >= lowest:
            score = f"{1 - exemplars.strength:g}"
            message = f"an image that is unlike scores {score} and reaches the threshold {lowest:g}; raise strength"
            yield page.warn("exemplar-weak", path, message)


def warn_of_thresholds(policy: Policy, page: Page, seen: Seen) -> Iterator[Finding]:
    """Yield every threshold that lies above the greatest score seen of its category; a category not seen has none."""
    for name, category in policy.categories.items():
        for action, threshold in category.thresholds.as_dict().items():
            if name in seen.greatest and seen.greatest[name] < threshold:
                greatest = f"{seen.greatest[name]:.4f}"
                message = f"{seen.where}: score {greatest} at most, so {threshold:g} is never reached; lower it"
                yield page.warn("threshold-unreached", ("categories", name, "thresholds", action), message)
