"""The dependence of the output on one column of the model: its values beside what they did, as density."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.engine.pages.sentences import sentence

value_steps: Final = 20
attribution_steps: Final = 13
"""Odd, so that attributions around nothing lie in a step of their own where they lie evenly about it."""
values_apart_max: Final = 24
"""So many different values are shown each by itself; of more, ranges."""
_between: Final = (1.0, 99.0)
"""Percentiles of the values that equal ranges are laid between; what is further out belongs to the first or the last."""


def dependence_document(at_ms: int, column: int, told: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The schema's `dependence`. `told`: what each worker keeps of the column."""
    first = told[0]
    values, attributions = (
        np.array([each for one in told for each in one[name]], dtype=np.float64)
        for name in ("values", "attributions")
    )
    outputs = sorted({each for one in told for each in one["outputs"]})
    steps, low, high = _steps(values, attributions, first["categories"], first["kind"] == "category")
    return {
        "page": "dependence",
        "at_ms": at_ms,
        "column": column,
        "feature": first["feature"],
        "kind": first["kind"],
        "masked": first["masked"],
        "space": next((each["space"] for each in told if each["space"]), None),
        "outputs": outputs,
        "records": len(values),
        "summary": [_sentence(first, steps, len(values), outputs)],
        "low": low,
        "high": high,
        "steps": steps,
    }


def _steps(
    values: NDArray[np.float64],
    attributions: NDArray[np.float64],
    categories: Sequence[str],
    by_category: bool,
) -> tuple[list[dict[str, Any]], float | None, float | None]:
    if not len(values):
        return [], None, None
    low, high = float(attributions.min()), float(attributions.max())
    begin, end = (low, high) if high > low else (low - 0.5, high + 0.5)
    edges = np.linspace(begin, end, attribution_steps + 1)
    held = ~np.isnan(values)
    found = []
    for begin, end, inside in _ranges(values, held):
        name = None
        if by_category:
            name = categories[int(begin)] if 0 <= int(begin) < len(categories) else f"{begin:.6g}"
        found.append(_step(attributions[inside], edges, begin=begin, end=end, category=name))
    if not held.all():
        found.append(_step(attributions[~held], edges, begin=None, end=None, category=None))
    return found, low, high


def _ranges(
    values: NDArray[np.float64], held: NDArray[np.bool_]
) -> list[tuple[float, float, NDArray[np.bool_]]]:
    """First and last value, and which records; each value by itself where there are few, else ranges that hold something."""
    different = np.unique(values[held])
    if len(different) <= values_apart_max:
        return [(float(each), float(each), values == each) for each in different]
    finite = values[np.isfinite(values)]
    begin, end = np.percentile(finite, _between)
    inner = np.linspace(begin, end, value_steps + 1)[1:-1]
    places = np.digitize(values, inner)
    found = []
    for place in range(value_steps):
        inside = held & (places == place)
        if inside.any():
            found.append((float(values[inside].min()), float(values[inside].max()), inside))
    return found


def _step(
    attributions: NDArray[np.float64],
    edges: NDArray[np.float64],
    *,
    begin: float | None,
    end: float | None,
    category: str | None,
) -> dict[str, Any]:
    counts, _ = np.histogram(attributions, bins=edges)
    return {
        "from": _finite(begin),
        "to": _finite(end),
        "category": category,
        "missing": begin is None,
        "records": len(attributions),
        "mean": float(attributions.mean()),
        "lowest": float(attributions.min()),
        "highest": float(attributions.max()),
        "counts": counts.tolist(),
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and np.isfinite(value) else None


def _sentence(
    column: Mapping[str, Any], steps: Sequence[Mapping[str, Any]], records: int, outputs: Sequence[str]
) -> dict[str, Any]:
    feature = column["feature"]
    if column["masked"]:
        return sentence("dependence.masked", feature=feature)
    if not steps:
        return sentence("dependence.none", feature=feature)
    least, most = (pick(steps, key=lambda each: each["mean"]) for pick in (min, max))
    codes = ("dependence.range", "dependence.range_of_class", "dependence.range_of_predicted")
    return sentence(
        codes[min(len(outputs), 2)], feature=feature, output=", ".join(outputs), records=records, lowest=least["mean"], highest=most["mean"],
        lowest_at=_place(least), highest_at=_place(most),
    )  # fmt: skip


def _place(step: Mapping[str, Any]) -> str | None:
    """The values of a step in words; None where the value is missing, which is said as a dash."""
    if step["missing"] or step["category"] is not None:
        return None if step["missing"] else str(step["category"])
    ends = [
        "−∞" if step["from"] is None else f"{step['from']:.4g}",
        "∞" if step["to"] is None else f"{step['to']:.4g}",
    ]
    return ends[0] if step["from"] == step["to"] and step["from"] is not None else f"{ends[0]} – {ends[1]}"
