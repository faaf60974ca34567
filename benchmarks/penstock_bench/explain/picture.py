"""The figures of `penstock bench explain` as a picture."""

from collections.abc import Mapping
from typing import Any

from penstock_bench.explain.page import processors, rate, times, title
from penstock_bench.picture import bar, line, svg, text

_off = 1e-3
"""Past this values are called wrong: no float32 is so far off."""


def draw(found: Mapping[str, Any]) -> str:
    """Rows per second of each peer as bars, for each model at its largest batch, from what the bench returns."""
    parts: list[str] = []
    y = 24
    for model in found["models"]:
        y = _model(parts, model, y)
    caption = f"{processors(found['machine'])}, one thread, {model['features']} features, 8 % of the values missing; penstock bench explain"
    parts.append(text(8, y + 6, caption, "small"))
    return svg(parts, height=y + 20, label="SHAP values per second of Penstock and its peers")


def _model(parts: list[str], model: Mapping[str, Any], y: int) -> int:
    batch = max(model["predict"]["batches"], key=int)
    rows = [row for row in (*model["explain"], model["predict"]) if "batches" in row]
    rates = {row["peer"]: row["batches"][batch]["rows_per_s"] for row in rows}
    errors = {row["peer"]: row.get("error_relative", 0.0) for row in rows}
    parts.append(text(8, y, f"{model['model']}: SHAP values, rows/s in batches of {int(batch):,}", "head"))
    for name, reached in sorted(rates.items(), key=lambda item: -item[1]):
        y += line
        ratio = model["ratios"].get(name, {}).get(batch)
        label = rate(reached) + (f" · Penstock {times(ratio)}" if ratio is not None else "")
        label += f" · values off by {errors[name]:.0%}" if errors[name] > _off else ""
        parts += bar(y, title(name), reached / max(rates.values()), label, ours=name.startswith("penstock"))
    return y + 2 * line
