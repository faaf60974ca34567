"""The figures of `penstock bench explain` as a picture and as a table for a page."""

from collections.abc import Mapping, Sequence
from typing import Any

from engine.bench.picture import bar, line, svg, text


def draw(found: Mapping[str, Any]) -> str:
    """Rows per second of each peer as bars, for each model at its largest batch, from what the bench returns."""
    parts: list[str] = []
    y = 24
    for model in found["models"]:
        y = _model(parts, model, y)
    caption = (
        f"{_processors(found['machine'])}, one thread, {model['features']} features; penstock bench explain"
    )
    parts.append(text(8, y + 6, caption, "small"))
    return svg(parts, height=y + 20, label="SHAP values per second of Penstock and its peers")


def _processors(machine: Mapping[str, Any]) -> str:
    return str(machine["cpu"]) if machine["gpu"] is None else f"{machine['cpu']} and {machine['gpu']}"


def _model(parts: list[str], model: Mapping[str, Any], y: int) -> int:
    batch = _largest(model)
    rows = [row for row in (*model["explain"], model["predict"]) if "batches" in row]
    rates = {row["peer"]: row["batches"][batch]["rows_per_s"] for row in rows}
    parts.append(text(8, y, f"{model['model']}: SHAP values, rows/s in batches of {int(batch):,}", "head"))
    for name, rate in sorted(rates.items(), key=lambda item: -item[1]):
        y += line
        ratio = model["ratios"].get(name, {}).get(batch)
        label = f"{rate:,.0f}" + (f" · Penstock {_times(ratio)}" if ratio is not None else "")
        parts += bar(y, _title(name), rate / max(rates.values()), label, ours=name.startswith("penstock"))
    return y + 2 * line


def table(found: Mapping[str, Any]) -> str:
    """A page in Markdown: for each model rates by batch size and accuracy, and Penstock's rate over each other's."""
    machine = found["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    parts = [
        "# SHAP values per second",
        f"{_processors(machine)}, one thread, Python {machine['python']}; {versions}. Rows that vary, none seen in training. Rates are rows/s; error is the largest "
        "relative to the largest value, against the float64 reference; additivity is the largest miss of the sum.",
    ]
    for model in found["models"]:
        sizes = list(model["predict"]["batches"])
        parts.append(f"## {model['model']}: {model['leaves']:,} leaves, {model['features']} features")
        head = ["", *(f"batch {int(size):,}" for size in sizes), "error", "additivity"]
        rows = [_figures(row, sizes) for row in (*model["explain"], model["predict"]) if "batches" in row]
        parts.append(_markdown(head, rows))
        ratios = [
            [_title(name), *(_times(ratio[size]) for size in sizes)]
            for name, ratio in model["ratios"].items()
        ]
        parts.append(_markdown(["Penstock's rate over that of", *head[1 : 1 + len(sizes)]], ratios))
    return "\n\n".join(parts) + "\n"


def _figures(row: Mapping[str, Any], sizes: Sequence[str]) -> list[str]:
    rates = [f"{row['batches'][size]['rows_per_s']:,.0f}" for size in sizes]
    return [
        _title(row["peer"]),
        *rates,
        *(f"{row[key]:.0e}" if key in row else "" for key in ("error_relative", "additivity_error")),
    ]


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _largest(model: Mapping[str, Any]) -> str:
    return str(max(model["predict"]["batches"], key=int))


def _times(ratio: float) -> str:
    return f"{ratio:,.0f}x" if ratio >= 100 else f"{ratio:.3g}x"


def _title(peer: str) -> str:
    return peer.replace("penstock", "Penstock")
