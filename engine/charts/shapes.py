"""The pictures of an explanation: one row's waterfall, the features' strength, every row at once, one feature's dependence."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from penstock.engine.charts.chart import (
    Chart,
    against,
    bar,
    colour_of,
    dot,
    faint,
    grid,
    label_width,
    line,
    number,
    row_px,
    shortened,
    text,
    ticks,
    toward,
)

_plot_px, _right_px, _top_px = 440, 70, 46
_dots_max = 400
"""Points of a feature in a beeswarm; more would hide each other and weigh on the page."""


def waterfall(
    names: Sequence[str],
    values: NDArray[np.float64],
    *,
    words: Sequence[str],
    base: float,
    rest: float,
    output: str,
    space: str,
    max_display: int,
) -> Chart:
    """One row: from the base value to the score, the strongest last. `words`: name and value of each feature."""
    order = np.argsort(-np.abs(values), kind="stable")
    shown = order[:max_display]
    left = float(values[order[max_display:]].sum()) + rest
    others = len(order) - len(shown)
    steps = [(shortened(words[place]), float(values[place])) for place in shown.tolist()]
    if others or rest:
        steps.append((f"{others} others" if others else "others", left))
    score = base + float(values.sum()) + rest
    levels = [base]
    for _, step in reversed(steps):
        levels.append(levels[-1] + step)
    low, high = min(levels), max(levels)
    pad = (high - low) * 0.08 or abs(base) * 0.1 or 1.0
    low, high = low - pad, high + pad
    start = label_width([label for label, _ in steps])
    width, height = int(start + _plot_px + _right_px), _top_px + row_px * len(steps) + 50

    def x(value: float) -> float:
        return start + (value - low) / (high - low) * _plot_px

    scale = space.replace("_", " ")
    parts = [
        text(12, 22, f"{output}: {scale} {number(score)}, where {number(base)} is usual", size=14, bold=True)
    ]
    bottom = _top_px + row_px * len(steps)
    for tick in ticks(low, high):
        parts += [
            line(x(tick), _top_px - 6, x(tick), bottom),
            text(x(tick), bottom + 18, number(tick), fill=faint, anchor="middle", size=11),
        ]
    parts.append(line(x(base), _top_px - 6, x(base), bottom, stroke=faint, dashed=True))
    level = score
    for place, (label, step) in enumerate(steps):
        y = _top_px + place * row_px
        before, after = level - step, level
        colour = toward if step >= 0 else against
        parts.append(text(start - 10, y + 17, label, anchor="end"))
        parts.append(bar(x(min(before, after)), y + 4, abs(x(after) - x(before)), row_px - 8, colour))
        end = x(max(before, after))
        parts.append(text(end + 5, y + 17, f"{step:+.3g}", fill=colour, size=11))
        if place + 1 < len(steps):
            parts.append(line(x(before), y + row_px - 4, x(before), y + row_px + 4, stroke=faint))
        level = before
    parts.append(text(start + _plot_px / 2, bottom + 38, scale, fill=faint, anchor="middle", size=11))
    return Chart(title=f"waterfall of {output}", width=width, height=height, body="".join(parts))


def strengths(names: Sequence[str], values: NDArray[np.float64], *, space: str, max_display: int) -> Chart:
    """The mean strength of each feature over all rows."""
    strength = np.abs(values).mean(axis=0)
    order = np.argsort(-strength, kind="stable")
    bars = [(shortened(names[place]), float(strength[place])) for place in order[:max_display].tolist()]
    left = order[max_display:]
    start = label_width([label for label, _ in bars])
    most = max((value for _, value in bars), default=0.0) or 1.0
    width, bottom = int(start + _plot_px + _right_px), _top_px + row_px * len(bars)
    parts = [text(12, 22, f"mean strength over {len(values):,} rows", size=14, bold=True)]
    for tick in ticks(0.0, most):
        at = start + tick / most * _plot_px
        parts += [
            line(at, _top_px - 6, at, bottom),
            text(at, bottom + 18, number(tick), fill=faint, anchor="middle", size=11),
        ]
    for place, (label, value) in enumerate(bars):
        y = _top_px + place * row_px
        parts.append(text(start - 10, y + 17, label, anchor="end"))
        parts.append(bar(start, y + 4, value / most * _plot_px, row_px - 8, toward))
        parts.append(text(start + value / most * _plot_px + 5, y + 17, number(value), fill=faint, size=11))
    if len(left):
        words = f"{len(left)} others: {number(float(strength[left].sum()))} together"
        parts.append(text(width - 12, 22, words, fill=faint, anchor="end", size=11))
    parts.append(
        text(
            start + _plot_px / 2,
            bottom + 38,
            f"mean of |attribution|, in {space.replace('_', ' ')}",
            fill=faint,
            anchor="middle",
            size=11,
        )
    )
    return Chart(title="mean strength of features", width=width, height=bottom + 50, body="".join(parts))


def beeswarm(
    names: Sequence[str],
    values: NDArray[np.float64],
    data: NDArray[np.float64],
    *,
    space: str,
    max_display: int,
) -> Chart:
    """Every row a point for each feature: left lowers the output, right raises it; the colour is the feature's value."""
    order = np.argsort(-np.abs(values).mean(axis=0), kind="stable")[:max_display]
    labels = [shortened(names[place]) for place in order.tolist()]
    some = _spread(len(values))
    start, swarm_px = label_width(labels), 34
    width, bottom = int(start + _plot_px + _right_px + 40), _top_px + swarm_px * len(labels)
    reach = float(np.abs(values[:, order]).max(initial=0.0)) or 1.0
    low, high = float(values[:, order].min(initial=0.0)), float(values[:, order].max(initial=0.0))
    pad = (high - low) * 0.05 or reach * 0.1
    low, high = low - pad, high + pad

    def x(value: float) -> float:
        return start + (value - low) / (high - low) * _plot_px

    parts = [text(12, 22, f"attributions of {len(values):,} rows", size=14, bold=True)]
    for tick in ticks(low, high):
        parts += [
            line(x(tick), _top_px - 6, x(tick), bottom),
            text(x(tick), bottom + 18, number(tick), fill=faint, anchor="middle", size=11),
        ]
    parts.append(line(x(0.0), _top_px - 6, x(0.0), bottom, stroke=faint))
    for place, feature in enumerate(order.tolist()):
        middle = _top_px + place * swarm_px + swarm_px / 2
        parts.append(text(start - 10, middle + 4, labels[place], anchor="end"))
        shares = _shares(data[:, feature])
        at = np.array([x(value) for value in values[some, feature].tolist()])
        for point, offset, row in zip(
            at.tolist(), _offsets(at, swarm_px / 2 - 4), some.tolist(), strict=True
        ):
            parts.append(dot(point, middle + offset, colour_of(float(shares[row]))))
    parts.append(
        text(
            start + _plot_px / 2,
            bottom + 38,
            f"attribution, in {space.replace('_', ' ')}",
            fill=faint,
            anchor="middle",
            size=11,
        )
    )
    parts.append(_colour_key(start + _plot_px + 36, _top_px, bottom))
    return Chart(title="attributions of every row", width=width, height=bottom + 50, body="".join(parts))


def dependence(
    name: str,
    values: NDArray[np.float64],
    data: NDArray[np.float64],
    *,
    categories: Sequence[str],
    space: str,
) -> Chart:
    """One feature: its value (across) and its attribution (up) of every row; missing values stand apart at the left."""
    some = _spread(len(values))
    values, data = values[some], data[some]
    known = np.isfinite(data)
    start, height_px, missing_px = 70.0, 260, 46.0 if (~known).any() else 0.0
    low_y, high_y = float(values.min(initial=0.0)), float(values.max(initial=0.0))
    pad = (high_y - low_y) * 0.06 or 1.0
    low_y, high_y = low_y - pad, high_y + pad
    low, high = (float(data[known].min()), float(data[known].max())) if known.any() else (0.0, 1.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    left, plot = start + missing_px + 10, _plot_px - 20

    def x(value: float) -> float:
        return left + (value - low) / (high - low) * plot

    def y(value: float) -> float:
        return _top_px + (high_y - value) / (high_y - low_y) * height_px

    bottom = _top_px + height_px
    parts = [text(12, 22, shortened(name), size=14, bold=True)]
    for tick in ticks(low_y, high_y):
        parts += [
            line(start, y(tick), left + plot + 10, y(tick)),
            text(start - 8, y(tick) + 4, number(tick), fill=faint, anchor="end", size=11),
        ]
    parts.append(line(start, y(0.0), left + plot + 10, y(0.0), stroke=faint))
    if categories:
        step = max(1, len(categories) // 8)
        marks = [
            (float(code), categories[code]) for code in range(0, len(categories), step) if low <= code <= high
        ]
    else:
        marks = [(tick, number(tick)) for tick in ticks(low, high)]
    for tick, words in marks:
        parts.append(text(x(tick), bottom + 18, words[:12], fill=faint, anchor="middle", size=11))
    if missing_px:
        parts.append(
            text(start + missing_px / 2, bottom + 18, "missing", fill=faint, anchor="middle", size=11)
        )
        parts.append(line(start + missing_px, _top_px, start + missing_px, bottom))
    jitter = _offsets(np.round(data[known]), 5.0) if categories else [0.0] * int(known.sum())
    for value, attribution, offset in zip(data[known].tolist(), values[known].tolist(), jitter, strict=True):
        parts.append(dot(x(value) + offset, y(attribution), toward if attribution >= 0 else against))
    gone = values[~known]
    for attribution, offset in zip(
        gone.tolist(), _offsets(np.zeros(len(gone)), missing_px / 2 - 8), strict=True
    ):
        parts.append(dot(start + missing_px / 2 + offset, y(attribution), "#adb5bd"))
    parts.append(text(left + plot / 2, bottom + 38, shortened(name), fill=faint, anchor="middle", size=11))
    parts.append(text(12, _top_px - 8, f"attribution, in {space.replace('_', ' ')}", fill=faint, size=11))
    return Chart(
        title=f"dependence of {name}", width=int(left + plot + 40), height=bottom + 50, body="".join(parts)
    )


def _spread(rows: int) -> NDArray[np.int64]:
    """All rows, or some spread over all of them."""
    return (
        np.unique(np.linspace(0, rows - 1, min(rows, _dots_max)).astype(np.int64)) if rows else np.arange(0)
    )


def _shares(data: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each value's place between the 5th and 95th of a hundred, so that one far out does not take all the colours."""
    known = data[np.isfinite(data)]
    if not len(known):
        return np.full(len(data), np.nan)
    low, high = np.percentile(known, [5, 95])
    if low == high:
        low, high = known.min(), known.max()
    if low == high:
        return np.where(np.isfinite(data), 0.5, np.nan)
    return np.where(np.isfinite(data), np.clip((data - low) / (high - low), 0.0, 1.0), np.nan)


def _offsets(at: NDArray[np.float64], reach: float) -> list[float]:
    """How far each point stands off the middle so that those at one place lie beside each other."""
    bins = np.round(at / 4.0).astype(np.int64) if len(at) else np.arange(0)
    counts: dict[int, int] = {}
    most = max(np.unique(bins, return_counts=True)[1], default=1)
    step = min(4.4, 2 * reach / max(int(most), 1))
    found = []
    for each in bins.tolist():
        place = counts.get(each, 0)
        counts[each] = place + 1
        found.append(((place + 1) // 2) * step * (1 if place % 2 else -1))
    return [max(-reach, min(reach, offset)) for offset in found]


def _colour_key(x: float, top: float, bottom: float) -> str:
    steps = 24
    each = (bottom - top - 40) / steps
    parts = [
        bar(x, top + 20 + place * each, 8, each + 0.6, colour_of(1 - place / (steps - 1)), round_px=0)
        for place in range(steps)
    ]
    parts.append(text(x + 4, top + 12, "high", fill=faint, anchor="middle", size=11))
    parts.append(text(x + 4, bottom - 6, "low", fill=faint, anchor="middle", size=11))
    return "".join(parts) + line(x - 14, top, x - 14, bottom, stroke=grid)
