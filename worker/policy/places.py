"""Places in YAML: reads a document together with the line and column of every key and value.

In: YAML text. Out: plain data and a `Places` that finds any path in it, plus syntax errors and wrong keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Never

import yaml
from yaml.constructor import ConstructorError
from yaml.reader import ReaderError

#: Larger files are refused unread, in bytes.
MAX_BYTES = 1024 * 1024
#: More values than this, counted as if every alias were written out, are refused before anything is built from them.
MAX_VALUES = 100_000

Path = tuple[str | int, ...]

_TEXT = "tag:yaml.org,2002:str"
_MERGE = "tag:yaml.org,2002:merge"
_PLAIN = {_TEXT, *(f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "seq", "map"))}


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong at one place; `line` and `column` count from 1."""

    line: int
    column: int
    key: str
    message: str


class Places:
    """Finds the line and column of a path such as `("categories", "weapons", "prompts", 2)`."""

    def __init__(self, root: yaml.Node | None) -> None:
        self._root = root
        self._entries: dict[int, dict[str, tuple[yaml.Node, yaml.Node]]] = {}

    def find(self, path: Path, *, key: bool = False) -> tuple[int, int]:
        """Return line and column of the value at `path`, or of its key; of the nearest parent if it is not there."""
        if self._root is None:
            return 1, 1
        node, mark = self._root, self._root.start_mark
        for index, part in enumerate(path):
            step = self._step(node, part)
            if step is None:
                break
            key_node, node = step
            mark = key_node.start_mark if key and index == len(path) - 1 else node.start_mark
        return mark.line + 1, mark.column + 1

    def _step(self, node: yaml.Node, part: str | int) -> tuple[yaml.Node, yaml.Node] | None:
        if isinstance(node, yaml.MappingNode):
            if id(node) not in self._entries:
                self._entries[id(node)] = {str(key.value): (key, value) for key, value in node.value}
            return self._entries[id(node)].get(str(part))
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            return node.value[part], node.value[part]
        return None


class _PlainLoader(yaml.SafeLoader):
    """Plain data only: text, numbers, booleans, null, lists and mappings; a date is text."""

    yaml_constructors = {tag: make for tag, make in yaml.SafeLoader.yaml_constructors.items() if tag in _PLAIN}  # noqa: RUF012 - the library's way
    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in resolvers if tag in {*_PLAIN, _MERGE}]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Build one value; what Python refuses, such as a number of 5,000 digits, has a place too."""
        try:
            return super().construct_object(node, deep)
        except ValueError as error:
            raise ConstructorError(None, None, str(error), node.start_mark) from error


def _refuse_tag(_loader: yaml.SafeLoader, node: yaml.Node) -> Never:
    tag = node.tag.replace("tag:yaml.org,2002:", "!!")
    raise ConstructorError(None, None, f"the tag {tag} is not allowed; remove it", node.start_mark)


_PlainLoader.add_constructor(None, _refuse_tag)


def read_yaml(text: str) -> tuple[Any, Places, list[Problem]]:
    """Read one YAML document of plain data.

    Returns:
        The data (None when there is a problem that hides it), its places, and every problem found.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        return None, Places(None), [Problem(1, 1, "", f"the file is larger than {MAX_BYTES} bytes; split it")]
    problems: list[Problem] = []
    try:
        loader = _PlainLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None, Places(None), []
        _count_values(node, {})
        problems += _wrong_keys(node)
        return loader.construct_document(node), Places(node), problems
    except (yaml.YAMLError, RecursionError) as error:
        return None, Places(None), [*problems, _problem(text, error)]


def _problem(text: str, error: yaml.YAMLError | RecursionError) -> Problem:
    """Give an error of the library its place, and words that an author of policies understands."""
    line, column, message = 0, 0, str(error)
    if isinstance(error, RecursionError):
        message = "nested too deeply; a policy has four levels"
    elif isinstance(error, ReaderError):
        line = text.count("\n", 0, error.position)
        column = error.position - (text.rfind("\n", 0, error.position) + 1)
        message = f"the character U+{ord(text[error.position]):04X} is not allowed; remove it"
    elif isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line, mark.column) if mark else (0, 0)
        message = ", ".join(part for part in (error.context, error.problem) if part)
        if "'\\t'" in message:
            message += "; indent with spaces"
    return Problem(line + 1, column + 1, "", f"not valid YAML: {message}")


def _count_values(node: yaml.Node, counts: dict[int, int]) -> int:
    """Return how many values there are in `node` with every alias written out.

    Raises:
        ConstructorError: They are more than `MAX_VALUES`, or endless. Nine aliases of nine aliases of … are a few lines
            that nobody can build.
    """
    if id(node) in counts:
        if counts[id(node)] == 0:
            raise ConstructorError(None, None, "an alias inside of what it stands for; write it out", node.start_mark)
        return counts[id(node)]
    counts[id(node)] = 0
    total = 1
    for child in _children(node):
        total += _count_values(child, counts)
    if total > MAX_VALUES:
        message = f"more than {MAX_VALUES} values with all aliases written out; write fewer"
        raise ConstructorError(None, None, message, node.start_mark)
    counts[id(node)] = total
    return total


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for entry in node.value for part in entry]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _wrong_keys(root: yaml.Node) -> Iterator[Problem]:
    """Yield every key that stands twice in a mapping, or is not text."""
    waiting = [root]
    seen: set[int] = set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        waiting += _children(node)
        first: dict[str, int] = {}
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode):
                continue
            name, line, column = str(key.value), key.start_mark.line + 1, key.start_mark.column + 1
            if key.tag not in {_TEXT, _MERGE}:
                yield Problem(line, column, name, f"a key should be text; put it in quotes: {name!r}")
            if name in first:
                yield Problem(line, column, name, f"duplicate key, first given on line {first[name]}; keep one of them")
            first.setdefault(name, line)
