"""What a model in Python answers: predictions and explanations as arrays."""

from collections.abc import Mapping, Sized
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from penstock.schemas.distribution import how_to_install
from penstock.schemas.errors import ConfigError

if TYPE_CHECKING:
    from penstock.engine.charts.chart import Chart

PlotKind = Literal["waterfall", "bar", "beeswarm", "dependence"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Predictions:
    """The model's outputs for n rows.

    Attributes:
        outputs: the numeric outputs by name, each float64 (n, K); the columns of class probabilities are in the
            order of `classes`.
        labels: the predicted class of each row by name, (n,) of str; None for a model without classes.
        label_index: the same as places in `classes`, int64 (n,); None likewise.
        classes: the class names; empty for a model without classes.
    """

    outputs: Mapping[str, NDArray[np.float64]]
    labels: NDArray[np.object_] | None
    label_index: NDArray[np.int64] | None
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(next(iter(self.outputs.values())))

    def __repr__(self) -> str:
        outputs = ", ".join(f"{name} {array.shape}" for name, array in self.outputs.items())
        classes = f", classes {_few(self.classes)}" if self.classes else ""
        return f"Predictions({_rows(self)}: {outputs}{classes})"

    def to_frame(self) -> Any:
        """A pandas data frame, a row each: `label`, and a column for every number of an output."""
        pandas = _pandas()
        columns: dict[str, Any] = {} if self.labels is None else {"label": self.labels}
        for name, array in self.outputs.items():
            wide = array.shape[1]
            per_class = wide == len(self.classes)
            for place in range(wide):
                part = self.classes[place] if per_class else str(place)
                columns[name if wide == 1 else f"{name}[{part}]"] = array[:, place]
        return pandas.DataFrame(columns)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Explanation:
    """Attributions of the model's outputs for n rows: base_values + values.sum(axis=1) + rest is its output in `space`.

    Attributes:
        values: attributions, float64 (n, F); (n, F, K) when every output was asked for.
        base_values: what the attributions start from, float64 (n,); (n, K) likewise.
        data: the values that were explained, (n, F): float64, or object where a feature is a category, by its name.
            A missing value is NaN, or None.
        feature_names: F names, in the model's order.
        output_names: what is explained of each row, (n,) of str (a class, or the name of an output); (K,) likewise.
        method: what the numbers are, for instance `tree_path_dependent`.
        space: the scale on which they add up: `value`, `log_odds` or `probability`.
        background: sha256 of the rows that the values are relative to; None when there are none.
        additivity_error: base + attributions less the model's output, float64 (n,) or (n, K).
        sampling_error: an estimate of the error of one attribution, (n,) or (n, K), for methods that sample; else None.
        rest: the sum of the attributions that `top` left out (they are 0 in `values`), (n,) or (n, K).
        matrix: the rows as the model was given them, (n, F), a category as its code.
    """

    values: NDArray[np.float64]
    base_values: NDArray[np.float64]
    data: NDArray[Any]
    feature_names: tuple[str, ...]
    output_names: NDArray[np.object_]
    method: str
    space: str
    background: str | None
    additivity_error: NDArray[np.float64]
    sampling_error: NDArray[np.float64] | None
    rest: NDArray[np.float64]
    matrix: NDArray[np.generic]

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: int | slice | NDArray[Any]) -> "Explanation":
        """The explanation of these rows; of one row alone, an explanation of one row."""
        if isinstance(rows, (int, np.integer)):
            place = range(len(self))[int(rows)]
            rows = slice(place, place + 1)
        sampling = None if self.sampling_error is None else self.sampling_error[rows]
        per_row = self.values.ndim == 2
        return replace(
            self,
            values=self.values[rows],
            base_values=self.base_values[rows],
            data=self.data[rows],
            output_names=self.output_names[rows] if per_row else self.output_names,
            additivity_error=self.additivity_error[rows],
            sampling_error=sampling,
            rest=self.rest[rows],
            matrix=self.matrix[rows],
        )

    def __repr__(self) -> str:
        outputs = "" if self.values.ndim == 2 else f", {self.values.shape[2]} outputs"
        return f"Explanation({_rows(self)}, {len(self.feature_names)} features{outputs}: {self.method}, in {self.space})"

    def _repr_html_(self) -> str:
        """What a notebook shows: the waterfall of one row, the beeswarm of several."""
        chart = self._one_output().plot() if len(self) else None
        return f"<p>{_escaped(repr(self))}</p>" + ("" if chart is None else chart.to_svg())

    def to_shap(self) -> Any:
        """The same as a shap.Explanation, which shap.plots.* take. Needs the shap package."""
        try:
            import shap
        except ImportError as error:
            raise ConfigError("to_shap needs the shap package: pip install shap") from error
        by_name = self.data.dtype == object
        return shap.Explanation(
            values=self.values.copy(),
            base_values=self.base_values.copy(),
            data=self.matrix.astype(np.float64),
            display_data=self.data.copy() if by_name else None,
            feature_names=[*self.feature_names],
            output_names=[*self.output_names] if self.values.ndim == 3 else None,
        )

    def to_frame(self) -> Any:
        """A pandas data frame of the attributions, a column for each feature, then `rest`, `base_value` and `output`; a row
        for each row, or with every output for each row and output."""
        pandas = _pandas()
        values, base, rest = self.values, self.base_values, self.rest
        outputs = self.output_names
        index: Any = range(len(self))
        if values.ndim == 3:
            rows, width, each = values.shape
            values = values.transpose(0, 2, 1).reshape(rows * each, width)
            base, rest = base.reshape(-1), rest.reshape(-1)
            outputs = np.tile(outputs, rows)
            index = np.repeat(np.arange(rows), each)
        frame = pandas.DataFrame(values, columns=[*self.feature_names], index=index)
        return frame.assign(rest=rest, base_value=base, output=outputs)

    def plot(
        self,
        kind: PlotKind | None = None,
        *,
        row: int = 0,
        feature: str | None = None,
        max_display: int = 10,
    ) -> "Chart":
        """An SVG picture, shown by a notebook and written by its `save(path)`; no plotting package is needed.

        `kind`: `waterfall` (of `row`), `bar` (mean strength), `beeswarm` (every row), `dependence` (of `feature`); the
        default is the waterfall of a single row, else the beeswarm. `max_display`: features shown, the others summed up.
        Raises ConfigError for rows of every output (choose one with `of`), no row, or an unknown feature.
        """
        from penstock.engine.python.plots import plot

        return plot(self, kind, row=row, feature=feature, max_display=max_display)

    def of(self, output: str) -> "Explanation":
        """Of an explanation of every output, that of one. Raises ConfigError when there is no such output."""
        if self.values.ndim == 2:
            raise ConfigError("this explanation is of one output already")
        names = [*map(str, self.output_names)]
        if output not in names:
            raise ConfigError(f"there is no output {output}; there are {', '.join(names)}")
        return self._output(names.index(output))

    def _one_output(self) -> "Explanation":
        return self if self.values.ndim == 2 else self._output(self.values.shape[2] - 1)

    def _output(self, place: int) -> "Explanation":
        return replace(
            self,
            values=self.values[:, :, place],
            base_values=self.base_values[:, place],
            output_names=np.full(len(self), self.output_names[place], dtype=object),
            additivity_error=self.additivity_error[:, place],
            sampling_error=None if self.sampling_error is None else self.sampling_error[:, place],
            rest=self.rest[:, place],
        )


def _few(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:5])
    return f"[{shown}, and {len(names) - 5} more]" if len(names) > 5 else f"[{shown}]"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _pandas() -> Any:
    try:
        import pandas
    except ImportError as error:
        raise ConfigError(f"to_frame needs pandas: {how_to_install('package')}") from error
    return pandas


def _rows(found: Sized) -> str:
    return f"{len(found)} row{'s' * (len(found) != 1)}"
