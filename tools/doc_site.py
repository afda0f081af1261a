"""A hook of MkDocs: the README is the first page, and pages may link to files beside docs/, as in the repository.

In: docs/, and what its pages and the README link to. Out: the same files as pages, or as they are, at their own paths.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s#]+)((?:#[^)]*)?\))")
_HOME = "README.md"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the README, the changes, and all that pages link to."""
    waiting = [_HOME, "CHANGELOG.md", *(f"docs/{file.src_uri}" for file in files.documentation_pages())]
    seen = set[str]()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        if not path.startswith("docs/"):
            files.append(File.generated(config, _place(path), abs_src_path=str(ROOT / path)))
        if path.endswith(".md"):
            waiting += _beside(path)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links lead to where the files are on the site."""
    place = page.file.src_uri
    path = _HOME if place == "index.md" else place if (ROOT / place).is_file() else f"docs/{place}"

    def moved(link: re.Match[str]) -> str:
        target = _target(path, link[2])
        if target is None:
            return link[0]
        return f"{link[1]}{posixpath.relpath(_place(target), posixpath.dirname(place) or '.')}{link[3]}"

    return _LINK.sub(moved, markdown)


def _beside(path: str) -> Iterator[str]:
    """Yield the files that a page links to and that are not below docs/."""
    for _, link, _ in _LINK.findall((ROOT / path).read_text(encoding="utf-8")):
        target = _target(path, link)
        if target is not None and not target.startswith("docs/"):
            yield target


def _target(path: str, link: str) -> str | None:
    """Return the file of the repository that a page's link means; None: it is none."""
    if "://" in link:
        return None
    target = posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
    target = f"{target}/README.md" if (ROOT / target / "README.md").is_file() and target != "." else target
    return target if (ROOT / target).is_file() else None


def _place(path: str) -> str:
    """Return where a file of the repository is in the site's sources."""
    return "index.md" if path == _HOME else path.removeprefix("docs/")
