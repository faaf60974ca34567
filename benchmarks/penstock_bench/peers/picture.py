"""The figures of `penstock bench peers` as a picture: SVG that follows the reader's light or dark theme."""

import math
from collections.abc import Sequence
from typing import Any

from penstock_bench.picture import bar, left, line, rectangle, right, svg, text, width


def draw(found: dict[str, Any]) -> str:
    """Throughput as bars and latency at the lowest offered rate as p50 to p99, from what the bench returns."""
    parts: list[str] = []
    y = 24
    predicting = {
        slug: each
        for slug, each in found["contestants"].items()
        if "shap" not in slug and "explained" not in slug
    }
    explaining = {slug: each for slug, each in found["contestants"].items() if slug not in predicting}
    for heading, group in (("Predictions, records/s", predicting), ("Predictions and explanations, records/s", explaining)):  # fmt: skip
        if group:
            y = _bars(parts, heading, group, y)
    with_latency = {slug: each for slug, each in predicting.items() if each["latency"]}
    if with_latency:
        y = _spans(parts, with_latency, y)
    cores, records = found["machine"]["cores"], found["records"]
    caption = f"{cores} cores with the broker on the same machine, {records:,} records of 30 doubles, 100 trees x depth 6; penstock bench peers"
    parts.append(text(8, y + 6, caption, "small"))
    return svg(parts, height=y + 20, label="Throughput and latency of Penstock and its peers")


def _bars(parts: list[str], heading: str, group: dict[str, Any], y: int) -> int:
    parts.append(text(8, y, heading, "head"))
    most = max(each["records_per_s"] for each in group.values())
    for slug, each in sorted(group.items(), key=lambda item: -item[1]["records_per_s"]):
        y += line
        label = f"{each['records_per_s']:,.0f} · {each['engine_us_per_record']:.1f} µs CPU"
        parts += bar(y, _name(each), each["records_per_s"] / most, label, ours=_is_ours(slug))
    return y + 2 * line


def _spans(parts: list[str], group: dict[str, Any], y: int) -> int:
    """From p50 to p99 on a logarithmic axis of milliseconds."""
    rate = min(each["latency"][0]["rate"] for each in group.values())
    parts.append(text(8, y, f"End to end at {rate:,} records/s offered: p50 to p99, ms", "head"))
    spans = {
        slug: (each["latency"][0]["p50_ms"], each["latency"][0]["p99_ms"]) for slug, each in group.items()
    }
    known = [value for span in spans.values() for value in span if value is not None]
    low, high = _decades(known or [1.0])
    bottom = y + line * len(spans) + 8
    for decade in range(low, high + 1):
        x = _place(10.0**decade, low, high)
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{y + 10}" y2="{bottom}"/>')
        parts.append(text(x - 8, bottom + 14, f"{10.0**decade:g}", "small"))
    for slug, (p50, p99) in sorted(
        spans.items(), key=lambda item: item[1][1] if item[1][1] is not None else math.inf
    ):
        y += line
        parts.append(text(8, y, _name(group[slug])))
        if p50 is None or p99 is None:
            parts.append(text(left, y, "falls behind", "small"))
            continue
        start, end = _place(p50, low, high), _place(p99, low, high)
        parts.append(rectangle(start, y, max(end - start, 2.0), ours=_is_ours(slug)))
        parts.append(text(end + 8, y, f"{p50:,.1f} to {p99:,.1f}", "small"))
    return y + 2 * line + 10


def _decades(values: Sequence[float]) -> tuple[int, int]:
    low = math.floor(math.log10(max(min(values), 1e-3)))
    return low, max(math.ceil(math.log10(max(values))), low + 1)


def _place(value: float, low: int, high: int) -> float:
    return left + (width - left - right) * (math.log10(max(value, 10.0**low)) - low) / (high - low)


def _name(each: dict[str, Any]) -> str:
    return f"{each['title']} ({each['guarantee']})" if each["guarantee"] != "none" else each["title"]


def _is_ours(slug: str) -> bool:
    return slug.startswith("penstock")
