"""Bars and words of the benches' pictures: SVG that follows the reader's light or dark theme."""

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

from penstock.engine.console.terminal import Terminal
from penstock.schemas.errors import ConfigError

width: Final = 860
left: Final = 290
right: Final = 170
line: Final = 26
_bar: Final = 15
_style: Final = """
  text { font: 13px system-ui, sans-serif; fill: #24292f; }
  .head { font-weight: 600; font-size: 14px; }
  .small { font-size: 12px; fill: #57606a; }
  .ours { fill: #0969da; }
  .other { fill: #afb8c1; }
  .axis { stroke: #d0d7de; stroke-width: 1; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; } .small { fill: #9198a1; } .ours { fill: #4493f8; } .other { fill: #57606a; } .axis { stroke: #3d444d; }
  }
"""


def require_folder(path: Path | None, option: str) -> None:
    """Raises ConfigError before the measuring where the file could not be written after it."""
    if path is not None and not path.absolute().parent.is_dir():
        raise ConfigError(f"{option}: there is no folder {path.absolute().parent}")


def write_figures(
    path: Path | None, drawn: Callable[[dict[str, Any]], str], found: dict[str, Any], terminal: Terminal
) -> None:
    """Into a file, where one was asked for."""
    if path is not None:
        path.write_text(drawn(found), encoding="utf-8")
        terminal.say(f"written: {path}")


def svg(parts: Sequence[str], *, height: int, label: str) -> str:
    """The picture; `label` says to those who cannot see it what it shows."""
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(label)}">\n<style>{_style}</style>\n{body}\n</svg>\n'
    )


def rectangle(x: float, y: int, length: float, *, ours: bool) -> str:
    """A bar on the line whose text stands at `y`."""
    kind = "ours" if ours else "other"
    return f'<rect class="{kind}" x="{x:.1f}" y="{y - 12}" width="{length:.1f}" height="{_bar}" rx="2"/>'


def text(x: float, y: int, words: str, kind: str = "") -> str:
    """Words, their base line at `y`; `kind`: head, small, or neither."""
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{x:.1f}" y="{y}">{escape(words)}</text>'


def bar(y: int, name: str, length_share: float, label: str, *, ours: bool) -> list[str]:
    """A named bar, its length a share of the longest one's, and what it says."""
    length = max((width - left - right) * length_share, 1.0)
    return [
        text(8, y, name),
        rectangle(left, y, length, ours=ours),
        text(left + length + 8, y, label, "small"),
    ]
