"""An explanation's pictures."""

from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.engine.charts import shapes
from penstock.engine.charts.chart import Chart, number
from penstock.schemas.errors import ConfigError

if TYPE_CHECKING:
    from penstock.engine.python.results import Explanation, PlotKind


def plot(
    explanation: "Explanation", kind: "PlotKind | None", *, row: int, feature: str | None, max_display: int
) -> Chart:
    """See Explanation.plot."""
    if explanation.values.ndim != 2:
        raise ConfigError("choose the output to draw: explanation.of(name).plot()")
    if not len(explanation):
        raise ConfigError("there is no row to draw")
    if max_display < 1:
        raise ConfigError(f"max_display is at least 1, not {max_display}")
    chosen = kind or ("waterfall" if len(explanation) == 1 else "beeswarm")
    data = explanation.matrix.astype(np.float64)
    if chosen == "waterfall":
        return waterfall(explanation, row, max_display)
    if chosen == "bar":
        return shapes.strengths(
            explanation.feature_names, explanation.values, space=explanation.space, max_display=max_display
        )
    if chosen == "beeswarm":
        return shapes.beeswarm(
            explanation.feature_names,
            explanation.values,
            data,
            space=explanation.space,
            max_display=max_display,
        )
    if chosen != "dependence":
        raise ConfigError(f"there is no picture {chosen}: waterfall, bar, beeswarm, dependence")
    place = _place_of(explanation, feature)
    return shapes.dependence(
        explanation.feature_names[place],
        explanation.values[:, place],
        data[:, place],
        categories=_categories(explanation, place),
        space=explanation.space,
    )


def waterfall(explanation: "Explanation", row: int, max_display: int) -> Chart:
    """The waterfall of one row. Raises ConfigError when there is no such row."""
    if not -len(explanation) <= row < len(explanation):
        raise ConfigError(f"there is no row {row}: there are {len(explanation)}")
    return shapes.waterfall(
        explanation.feature_names,
        explanation.values[row],
        words=words_of(explanation, row),
        base=float(explanation.base_values[row]),
        rest=float(explanation.rest[row]),
        output=str(explanation.output_names[row]),
        space=explanation.space,
        max_display=max_display,
    )


def words_of(explanation: "Explanation", row: int) -> list[str]:
    """`name = value` for every feature of a row."""
    return [
        f"{name} {_value(value)}"
        for name, value in zip(explanation.feature_names, explanation.data[row], strict=True)
    ]


def _value(value: Any) -> str:
    if value is None or value != value:
        return "missing"
    return f"= {value}" if isinstance(value, str) else f"= {number(float(value))}"


def _place_of(explanation: "Explanation", feature: str | None) -> int:
    if feature is None:
        return int(np.argmax(np.abs(explanation.values).mean(axis=0)))
    if feature not in explanation.feature_names:
        raise ConfigError(
            f"there is no feature {feature}; there are {', '.join(explanation.feature_names[:20])}"
        )
    return explanation.feature_names.index(feature)


def _categories(explanation: "Explanation", place: int) -> list[str]:
    """The names by code of a category's column, as far as rows have them; empty for a number."""
    column = explanation.data[:, place]
    if column.dtype != object or not any(isinstance(value, str) for value in column):
        return []
    codes = explanation.matrix[:, place].astype(np.float64)
    known = {
        int(code): str(name)
        for code, name in zip(codes, column, strict=True)
        if code == code and name is not None
    }
    return [known.get(code, "") for code in range(max(known) + 1)]
