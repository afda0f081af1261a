"""Reads the Dockerfile as far as tests of it need: instructions of its stages, and what the build context holds."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass
class Stage:
    """One FROM and what follows it, each an instruction and its arguments on one line."""

    name: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        return [arguments for name, arguments in self.instructions if name == instruction]

    def one(self, instruction: str) -> str:
        (arguments,) = self.all(instruction)
        return arguments

    def pairs(self, instruction: str) -> dict[str, str]:
        """Return the names and values of ENV or LABEL."""
        text = " ".join(self.all(instruction))
        return {name: value.strip('"') for name, value in re.findall(r'([\w.]+)=("[^"]*"|\S*)', text)}

    def copied(self) -> list[str]:
        """Return what is copied from the build context."""
        own = [line for line in self.all("COPY") if not line.startswith("--from")]
        return [source for line in own for source in line.split()[:-1]]


def read_dockerfile() -> list[Stage]:
    """Return the stages in their order; what stands before the first FROM is a stage without a name."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    stages = [Stage("")]
    for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        name, _, arguments = line.strip().partition(" ")
        if name == "FROM":
            stages.append(Stage(arguments.rpartition(" AS ")[2] if " AS " in arguments else "final"))
        elif name:
            stages[-1].instructions.append((name, arguments.strip()))
    return stages


def stage(name: str) -> Stage:
    """Return a stage."""
    return next(found for found in read_dockerfile() if found.name == name)


def health_command() -> list[str]:
    """Return the command of HEALTHCHECK."""
    return [str(part) for part in json.loads(stage("final").one("HEALTHCHECK").partition("CMD ")[2])]


def in_context(*paths: str) -> list[str]:
    """Return which files the builder is given: the last line that names a file, or a folder above it, decides."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    return [path for path in paths if not _is_ignored(path, patterns)]


def _is_ignored(path: str, patterns: list[str]) -> bool:
    parts = path.split("/")
    whole = ["/".join(parts[: end + 1]) for end in range(len(parts))]
    ignored = False
    for pattern in patterns:
        expression = re.escape(pattern.removeprefix("!")).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        # Of what re.escape did to [co].
        expression = expression.replace(r"\[", "[").replace(r"\]", "]")
        if any(re.fullmatch(expression, part) for part in whole):
            ignored = not pattern.startswith("!")
    return ignored
