"""A template and what it is filled with → one HTML page that stands alone.

In: a template beside this module, and values. Out: HTML. Whatever comes from a producer is escaped, and the page's own
policy forbids it to load or run anything.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.errors import Missing, UsageError

if TYPE_CHECKING:
    from jinja2 import Environment


def render(template: str, **values: Any) -> str:
    """Fill a template.

    Args:
        template: Its name, without `.html.j2`.
        **values: What it names; one that is missing is an error.

    Raises:
        Missing: The extra `report` is not installed.
    """
    return _environment().get_template(f"{template}.html.j2").render(**values)


def require_writable(file: Path) -> None:
    """Make sure, before long work, that a page can be written; what is there stays as it is.

    Raises:
        UsageError: The file cannot be written.
        Missing: The extra `report` is not installed.
    """
    _environment()
    is_there = file.exists()
    try:
        with file.open("ab"):
            pass
        if not is_there:
            file.unlink()
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}; name a file that can be written with --report") from error


def write_report(file: Path, page: str) -> None:
    """Write a page.

    Raises:
        UsageError: The file cannot be written.
    """
    try:
        file.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}; name a file that can be written with --report") from error


@cache
def _environment() -> Environment:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise Missing("reports need the extra report; run pip install 'sluicegate[report]'") from error
    return Environment(
        loader=PackageLoader("worker.workbench.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
