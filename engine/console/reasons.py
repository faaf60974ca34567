"""Explanations for people: the strongest reasons in words, with signed bars."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from rich.text import Text

from penstock.engine.console.terminal import printable

Phrase = Callable[[str, float | str | None], str]
"""Feature name and value to words."""

_eighths = " ▏▎▍▌▋▊▉█"
toward_style, against_style = "dark_orange", "deep_sky_blue1"


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureShare:
    """One feature's share in a prediction."""

    feature: str
    value: float | str | None
    attribution: float


def strongest(reasons: Sequence[FeatureShare], top: int) -> tuple[list[FeatureShare], float]:
    """The `top` strongest by magnitude (0: all), strongest first, and the sum of the others."""
    order = sorted(reasons, key=lambda reason: -abs(reason.attribution))
    kept = order[:top] if top else order
    return kept, float(np.sum([reason.attribution for reason in order[len(kept) :]]))


def plain_phrase(feature: str, value: float | str | None) -> str:
    """`feature = value`, the words for a feature nobody has written words for."""
    feature = printable(feature)
    if value is None:
        return f"{feature} missing"
    return f"{feature} = {value:g}" if isinstance(value, float) else f"{feature} = {printable(value)}"


def in_words(reason: FeatureShare, phrase: Phrase = plain_phrase) -> str:
    """`left 42 min late +1.9`."""
    return f"{phrase(reason.feature, reason.value)} {reason.attribution:+.2g}"


def signed_bar(attribution: float, *, full: float, cells: int) -> Text:
    """A bar that grows from the middle, right when it raises the output and left when it lowers it.

    `full` is the magnitude that fills a side of `cells` characters.
    """
    share = min(1.0, abs(attribution) / full) if full > 0 else 0.0
    eighths = round(share * cells * 8)
    whole, part = divmod(eighths, 8)
    if attribution >= 0:
        bar = "█" * whole + (_eighths[part] if part else "")
        return Text(" " * cells + "│" + bar.ljust(cells), style=toward_style)
    # Of the blocks that fill a cell from the right only the half one is in every font: a bar to the left ends in halves.
    whole, half = divmod(round(share * cells * 2), 2)
    bar = "▐" * half + "█" * whole
    return Text(bar.rjust(cells) + "│" + " " * cells, style=against_style)


def draw(
    reasons: Sequence[FeatureShare],
    *,
    top: int = 8,
    cells: int = 14,
    phrase: Phrase = plain_phrase,
    full: float | None = None,
) -> Text:
    """Lines of bar, amount and words, the strongest first; what is left out is one line more."""
    kept, rest = strongest(reasons, top)
    scale = full or max((abs(reason.attribution) for reason in kept), default=1.0)
    lines = Text()
    for place, reason in enumerate(kept):
        if place:
            lines.append("\n")
        lines.append_text(signed_bar(reason.attribution, full=scale, cells=cells))
        style = toward_style if reason.attribution >= 0 else against_style
        lines.append(f" {reason.attribution:+7.3f}  ", style=style)
        lines.append(phrase(reason.feature, reason.value))
    if len(kept) < len(reasons):
        lines.append("\n").append_text(signed_bar(rest, full=scale, cells=cells))
        lines.append(f" {rest:+7.3f}  {len(reasons) - len(kept)} others", style="dim")
    return lines
