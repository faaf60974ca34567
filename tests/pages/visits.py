"""A page in a browser under its policy, with everything that must not happen on it noted."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

import pytest

only_in_a_browser: Final = [
    pytest.mark.browser,
    pytest.mark.skipif(
        "PENSTOCK_BROWSER" not in os.environ, reason="make test-pages runs these, in a browser"
    ),
]
axe_rules: Final = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


class Engine(Protocol):
    """What is looked at."""

    @property
    def url(self) -> str:
        """Without a slash at its end."""

    def send(self, count: int, *, poison: int = 0, start: int = 0) -> None:
        """Records for it."""


@contextmanager
def started_browser() -> Iterator[Any]:
    """Debian's Chromium. Fails, and does not skip, where there is none."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    assert chromium, "these tests need a browser: apt-get install chromium fonts-noto-cjk"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield started
        started.close()


class Visit:
    """A page under the policy, with everything that must not happen on it noted."""

    def __init__(self, browser: Any, engine: Engine, **options: Any) -> None:
        wanted: dict[str, Any] = {
            "viewport": {"width": 1280, "height": 900}, "locale": "en-GB", "timezone_id": "UTC", "reduced_motion": "reduce",
        }  # fmt: skip
        self.engine = engine
        self.context = browser.new_context(**{**wanted, **options})
        self.page = self.context.new_page()
        self.faults: list[str] = []
        self.page.on("console", lambda message: self._console(message))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("request", lambda request: self._request(request.url))

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(message.text)

    def _request(self, url: str) -> None:
        if not url.startswith(self.engine.url + "/"):
            self.faults.append(f"foreign request: {url}")

    def open(self, path: str) -> Any:
        self.engine.send(40, poison=1, start=len(path) * 1000)
        self.page.goto(self.engine.url + path)
        self.page.wait_for_selector("body[data-done]", timeout=15_000)
        self.page.wait_for_timeout(400)
        return self.page

    def close(self) -> None:
        self.context.close()
        assert self.faults == []


contrast_min: Final = 4.5
"""WCAG's, of text."""
_not_told: Final = ", not told"
_contrasts: Final = """selectors => selectors.map((selector) => {
  const node = document.querySelector(selector);
  const parts = (text) => text.match(/[0-9.]+/g).map(Number);
  const light = (rgb) => rgb.slice(0, 3).map((each) => each / 255).map((each) => (each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4))
    .reduce((sum, each, at) => sum + each * [0.2126, 0.7152, 0.0722][at], 0);
  let ground = node;
  while (ground && parts(getComputedStyle(ground).backgroundColor)[3] === 0) ground = ground.parentElement;
  const pair = [parts(getComputedStyle(node).color), ground ? parts(getComputedStyle(ground).backgroundColor) : [255, 255, 255]].map(light);
  return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
})"""


def violations(page: Any) -> list[tuple[str, list[str]]]:
    """What axe-core finds wrong with it, and what it cannot tell and we cannot either; needs a visit with `bypass_csp`.

    It does not tell the contrast of what stands before a picture, of what is partly scrolled out of sight, and of shapes. The
    first two have the ground of what they are in; a shape is hidden from who hears the page, and stands beside a word.
    """
    import axe_playwright_python

    # What is redrawn while it looks it may lose from sight: then it looks again.
    for _ in range(3):
        wrong = _looked_at(page, Path(axe_playwright_python.__file__).parent / "axe.min.js")
        if not any(name.endswith(_not_told) for name, _ in wrong):
            break
    return wrong


def _looked_at(page: Any, axe: Path) -> list[tuple[str, list[str]]]:
    page.evaluate(axe.read_text(encoding="utf-8"))
    found = page.evaluate(f"axe.run(document, {{runOnly: {axe_rules}}})")
    wrong = [(each["id"], [node["html"][:200] for node in each["nodes"]]) for each in found["violations"]]
    for each in found["incomplete"]:
        nodes = each["nodes"]
        if each["id"] == "color-contrast":
            contrasts = page.evaluate(_contrasts, [node["target"][0] for node in nodes])
            nodes = [
                node
                for node, contrast in zip(nodes, contrasts, strict=True)
                if contrast < contrast_min
                or (
                    "non-text characters" in node["any"][0]["message"]
                    and 'aria-hidden="true"' not in node["html"]
                )
            ]
        if nodes:
            wrong.append((f"{each['id']}{_not_told}", [node["html"][:200] for node in nodes]))
    return wrong
