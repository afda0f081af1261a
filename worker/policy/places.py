"""Places in YAML: reads a document together with the line and column of every key and value.

In: YAML text. Out: plain data and a `Places` that finds any path in it, plus syntax errors and duplicate keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

#: Larger files are refused unread, in bytes.
MAX_BYTES = 1024 * 1024

Path = tuple[str | int, ...]


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

    def find(self, path: Path, *, key: bool = False) -> tuple[int, int]:
        """Return line and column of the value at `path`, or of its key; of the nearest parent if it is not there."""
        node, mark = self._root, None
        for index, part in enumerate(path):
            if node is not None and mark is None:
                mark = node.start_mark
            last = index == len(path) - 1
            step = _step(node, part)
            if step is None:
                break
            key_node, node = step
            mark = key_node.start_mark if key and last else node.start_mark
        if mark is None and self._root is not None:
            mark = self._root.start_mark
        return (mark.line + 1, mark.column + 1) if mark else (1, 1)


def _step(node: yaml.Node | None, part: str | int) -> tuple[yaml.Node, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            if key_node.value == str(part):
                return key_node, value_node
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part]
    return None


def read_yaml(text: str) -> tuple[Any, Places, list[Problem]]:
    """Read one YAML document of plain data.

    Returns:
        The data (None when there is a problem that hides it), its places, and every problem found.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        return None, Places(None), [Problem(1, 1, "", f"the file is larger than {MAX_BYTES} bytes; split it")]
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        data = loader.construct_document(node) if node is not None else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        return None, Places(None), [Problem(line, column, "", f"not valid YAML: {error.problem or error.context}")]
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        return None, Places(None), [Problem(1, 1, "", f"not valid YAML: {first_line}")]
    finally:
        loader.dispose()
    return data, Places(node), list(_duplicate_keys(node))


def _duplicate_keys(root: yaml.Node | None) -> Iterator[Problem]:
    waiting = [root]
    seen: set[int] = set()
    while waiting:
        node = waiting.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting.extend(node.value)
        if not isinstance(node, yaml.MappingNode):
            continue
        first: dict[str, int] = {}
        for key_node, value_node in node.value:
            waiting.append(value_node)
            name, mark = str(key_node.value), key_node.start_mark
            if name in first:
                message = f"duplicate key, first given on line {first[name]}; keep one of them"
                yield Problem(mark.line + 1, mark.column + 1, name, message)
            first.setdefault(name, mark.line + 1)
