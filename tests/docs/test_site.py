"""The documentation as a site: it builds strictly, every link inside it leads somewhere, and it asks nothing of other hosts."""

import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

root = Path(__file__).parents[2]
fetched_by = {"link": "href", "script": "src", "img": "src", "iframe": "src", "source": "src"}
"""Attributes whose address a browser fetches by itself."""


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids |= {value for name in ("id", "name") if (value := values.get(name))}
        if tag == "a" and (target := values.get("href")):
            self.links.append(target)
        if tag in fetched_by and (target := values.get(fetched_by[tag])) and values.get("rel") != "canonical":
            self.fetched.append(target)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, _Page]:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-P", "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)]
    environ = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(
        command, cwd=root, env=environ, capture_output=True, text=True, timeout=120, check=False
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return {
        path: _Page(path.read_text(encoding="utf-8"))
        for path in folder.rglob("*.html")
        if path.name != "404.html"
    }


def test_every_page_is_there(pages: dict[Path, _Page]) -> None:
    names = {path.stem for path in pages}
    assert {path.stem for path in (root / "docs").glob("*.md")} <= names
    assert "ARCHITECTURE" in names


def test_every_link_inside_leads_somewhere(pages: dict[Path, _Page]) -> None:
    broken = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target = target / "index.html"
            if not target.exists():
                broken.append(f"{path.name}: {link}")
            elif parts.fragment and target in pages and parts.fragment not in pages[target].ids | {"__top"}:
                broken.append(f"{path.name}: {link} has no such heading")
    assert broken == []


def test_nothing_is_fetched_from_other_hosts(pages: dict[Path, _Page]) -> None:
    for path, page in pages.items():
        assert [each for each in page.fetched if urlsplit(each).netloc] == [], path.name
