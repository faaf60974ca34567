"""A picture as SVG text: what a notebook shows and a file keeps."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Final

import numpy as np

from penstock.schemas.errors import ConfigError

toward, against, ink, faint, grid = "#d9480f", "#1971c2", "#212529", "#6c757d", "#dee2e6"
font: Final = "system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif"
row_px: Final = 26
character_px: Final = 7.0
"""About the width of a character of the labels."""
label_characters_max: Final = 44


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Chart:
    """One picture."""

    title: str
    width: int
    height: int
    body: str

    def to_svg(self) -> str:
        """The picture as an SVG element; it stands alone as a file too."""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" width="{self.width}" '
            f'height="{self.height}" role="img" aria-label="{escape(self.title)}" font-family="{escape(font)}" font-size="12">'
            f'<rect width="{self.width}" height="{self.height}" fill="#ffffff"/>{self.body}</svg>'
        )

    def save(self, path: Path | str) -> None:
        """Write the picture as an .svg file. Raises ConfigError."""
        try:
            Path(path).write_text(self.to_svg() + "\n", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"cannot write {path}: {error.strerror}") from error

    def _repr_svg_(self) -> str:
        return self.to_svg()

    def __repr__(self) -> str:
        return f"<Chart: {self.title}, {self.width} x {self.height}>"


def text(
    x: float,
    y: float,
    words: str,
    *,
    fill: str = ink,
    anchor: str = "start",
    size: int = 12,
    bold: bool = False,
) -> str:
    """Words on a base line."""
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{fill}" text-anchor="{anchor}" font-size="{size}"{weight}>{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, *, stroke: str = grid, dashed: bool = False) -> str:
    """A thin line."""
    dash = ' stroke-dasharray="3 3"' if dashed else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{stroke}"{dash}/>'


def bar(x: float, y: float, width: float, height: float, fill: str, round_px: int = 2) -> str:
    """A filled bar; of no width it is a hair's breadth, so that nothing is invisible."""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.5):.1f}" height="{height:.1f}" rx="{round_px}" fill="{fill}"/>'


def dot(x: float, y: float, fill: str, radius: float = 2.6) -> str:
    """One point."""
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{fill}" fill-opacity="0.75"/>'


def shortened(label: str) -> str:
    """The label, or its beginning and end where it is too long."""
    if len(label) <= label_characters_max:
        return label
    half = (label_characters_max - 1) // 2
    return f"{label[:half]}…{label[-half:]}"


def label_width(labels: Sequence[str]) -> float:
    """Room for the longest of the labels, in px."""
    return max((len(each) for each in labels), default=0) * character_px + 16


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from low to high, about so many."""
    span = high - low
    if not span > 0 or not np.isfinite(span):
        return [low]
    step = 10.0 ** np.floor(np.log10(span / count))
    for factor in (1, 2, 5, 10):
        if span / (step * factor) <= count:
            step *= factor
            break
    first = np.ceil(low / step) * step
    return [float(round(first + place * step, 12)) for place in range(int((high - first) / step) + 1)]


def number(value: float) -> str:
    """A number as short as it is still told apart."""
    return f"{value:.3g}" if abs(value) < 1e4 else f"{value:.2e}"


def colour_of(share: float) -> str:
    """From the colour of low values (0) by a grey to that of high ones (1); NaN has one of its own."""
    if not np.isfinite(share):
        return "#adb5bd"
    low, middle, high = (25, 113, 194), (173, 164, 181), (217, 72, 15)
    start, end, part = (low, middle, share * 2) if share < 0.5 else (middle, high, share * 2 - 1)
    return "#" + "".join(f"{round(a + (b - a) * part):02x}" for a, b in zip(start, end, strict=True))
