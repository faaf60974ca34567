"""Brings the repository's own pages and the files that the docs link to into the site.

The pages under docs/ are read on a code host as well, where `../ARCHITECTURE.md` leads to the file beside them. In the site
there is nothing above docs/, so that such a link goes to a copy under repository/.
"""

import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files

_root = Path(__file__).resolve().parents[1]
_pages = ("ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "README.md")
_link = re.compile(r"\]\(([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, *, config: Any) -> Files:
    """Adds the repository's pages, and every file that a page of docs/ links to above it."""
    wanted = set(_pages)
    for page in (_root / "docs").rglob("*.md"):
        wanted |= set(_outside(page).values())
    for name in sorted(wanted):
        path = _root / name
        if path.is_file():
            target = f"repository/{name}" if name.endswith(".md") else f"repository/{name}.txt"
            files.append(File.generated(config, target, content=path.read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Turns links that lead out of docs/ into links to the copies; folders become their names."""
    source = PurePosixPath(page.file.src_uri)
    if source.parts[0] == "repository":
        original = _root / source.relative_to("repository")
    else:
        original = _root / "docs" / source
    up = "../" * (len(source.parts) - 1)

    def replaced(match: re.Match[str]) -> str:
        target, anchor = match[1], match[2] or ""
        if "://" in target:
            return match[0]
        path = (original.parent / target).resolve()
        if not path.is_relative_to(_root):
            return match[0]
        name = path.relative_to(_root).as_posix()
        if name.startswith("docs/"):
            return f"]({up}{name.removeprefix('docs/')}{anchor})"
        if files.get_file_from_path(f"repository/{name}") is not None:
            return f"]({up}repository/{name}{anchor})"
        if files.get_file_from_path(f"repository/{name}.txt") is not None:
            return f"]({up}repository/{name}.txt)"
        return "]"  # a folder: it stays a name in brackets

    return _link.sub(replaced, markdown)


def _outside(page: Path) -> dict[str, str]:
    """Link target to the file of the repository, for links of a page that lead out of docs/."""
    found = {}
    for target, _ in _link.findall(page.read_text(encoding="utf-8")):
        path = (page.parent / target).resolve()
        if "://" not in target and path.is_relative_to(_root) and not path.is_relative_to(_root / "docs"):
            found[target] = path.relative_to(_root).as_posix()
    return found
