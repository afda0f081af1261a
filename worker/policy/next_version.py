"""A policy's file → its next version: the same page with one change, its comments and its order kept.

In: a version's file, and what to change in it. Out: a new file beside it. Never a change of a file that is there.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

from worker.errors import Missing, PolicyConflict, PolicyInvalid, UsageError
from worker.policy.beside import Beside
from worker.policy.files import read_text, valid_policy, version_files
from worker.policy.lint import lint_policy
from worker.policy.schema import Policy

#: Changes a document in place; it behaves like dicts and lists.
Edit = Callable[[Any], None]


def write_next(file: Path, edit: Edit) -> tuple[Path, Policy]:
    """Write the next version of a policy.

    Args:
        file: The version to start from.
        edit: What to change; the version's number is changed here.

    Returns:
        The new file, and the policy in it. Its number follows the highest in the directory.

    Raises:
        PolicyInvalid: The start or what came of it has errors; nothing is written then.
        PolicyConflict: Somebody else wrote this version meanwhile.
        UsageError: The file cannot be written.
        Missing: The extra `report` is not installed.
    """
    valid_policy(file)
    version = max([0, *version_files(file.parent)]) + 1
    target = file.parent / f"v{version}.yaml"
    text = edited(read_text(file), version, edit)
    policy, findings = lint_policy(text, str(target), (file.absolute().parent.name, version), Beside(file.parent))
    if policy is None:
        raise PolicyInvalid([str(finding) for finding in findings])
    _put(target, text)
    return target, policy


def _put(target: Path, text: str) -> None:
    """Write a file that must not be there yet: whole, or not at all, for a worker may be watching."""
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with draft.open("w", encoding="utf-8") as new:
            try:
                new.write(text)
                new.flush()
                target.hardlink_to(draft)
            finally:
                draft.unlink()
    except FileExistsError as error:
        raise PolicyConflict(f"{target} was written by somebody else; run the command again") from error
    except OSError as error:
        raise UsageError(f"{target}: {error.strerror}; make the directory writable") from error


def edited(text: str, version: int, edit: Edit) -> str:
    """Return a page with another version's number and one change.

    Raises:
        Missing: The extra `report` is not installed.
    """
    try:
        from ruamel.yaml import YAML  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise Missing("writing versions needs the extra report; run pip install 'sluicegate[report]'") from error
    # Round trip: keeps comments, quotes and order; safe by construction, for it knows no types of Python's.
    page = YAML(typ="rt")
    page.preserve_quotes = True
    page.width = 10_000
    page.indent(mapping=2, sequence=4, offset=2)
    page.representer.add_representer(float, _without_exponent)
    document = page.load(text)
    document["version"] = version
    edit(document)
    target = io.StringIO()
    page.dump(document, target)
    return target.getvalue()


def _without_exponent(representer: Any, value: float) -> Any:
    """Write a number so that it is one for every reader: to YAML 1.1, 2e-06 is text."""
    return representer.represent_scalar("tag:yaml.org,2002:float", f"{Decimal(repr(value)):f}")
