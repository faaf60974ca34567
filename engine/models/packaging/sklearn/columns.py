"""What each column between the steps of a fitted scikit-learn pipeline is made of: of which features, in which way."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.feature_selection import SelectorMixin
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
    TargetEncoder,
)
from sklearn.utils import _safe_indexing

from penstock.engine.models.packaging.sklearn.column_types import ColumnType
from penstock.engine.models.packaging.sklearn.operators.refused_kinds import anything_else, instead_of
from penstock.engine.models.packaging.sklearn.step_stand_ins import GivenWords
from penstock.schemas.errors import ConfigError

_monotone = (
    Binarizer,
    MaxAbsScaler,
    MinMaxScaler,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)
_encoders = (OneHotEncoder, OrdinalEncoder, TargetEncoder)
_monotone_functions = ("arcsinh", "arctan", "cbrt", "ceil", "deg2rad", "degrees", "rad2deg", "radians", "exp", "exp2", "expm1", "fix", "floor", "negative", "positive",
                       "rint", "sign", "sinh", "tanh", "trunc")  # fmt: skip
_domains = {"log": 0.0, "log10": 0.0, "log1p": -1.0, "log2": 0.0, "sqrt": 0.0}
"""Functions that rise from some number on and are NaN below it."""

Apply = Callable[[Any], Any]
"""The rows as the original is given them, to the matrix at some place between its steps."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """A column between steps. Of one feature's numbers it may be a known shape: constant or monotone within each of the
    segments that `cuts` part, apart from `points`."""

    features: frozenset[int]
    """Places of the features it is made of."""
    same: bool = False
    """It is the feature itself, but perhaps for missing values."""
    known: bool = True
    """Whether the shape is known."""
    flat: bool = False
    """Whether it is constant apart from `points`."""
    cuts: tuple[float, ...] = ()
    """The last number of each segment but the last, ascending, in the feature's own numbers."""
    points: tuple[float, ...] = ()
    """Numbers of the feature at which the column may be anything."""
    low: float = -math.inf
    """Where the feature's numbers begin: the steps make nothing of those up to here that the model takes."""


@dataclass(kw_only=True, slots=True)
class Input:
    """One feature as the original takes it. The steps that read it fill in what they know of it."""

    name: str
    values: list[Any] = field(default_factory=list)
    """Where it is a category: each of its values, as the original takes it."""
    numbers: list[float] = field(default_factory=list)
    """Of a number: values that the steps surely take."""
    is_category: bool = False
    is_flag: bool = False
    is_word: bool = False
    """Whether it is a number that is counted in a text: never missing."""
    marker: Any = math.nan
    """What stands for a missing value of a category: the kind that the steps were fitted with."""
    is_settled: bool = False
    """Whether all that the steps know of it is noted."""
    is_told_apart: bool = False
    """Of a category: whether the steps answer None and NaN otherwise."""
    nan_value: Any = math.nan
    """What the original is given of a category where the matrix has NaN."""
    missing: Literal["nan", "reject"] = "nan"
    """What becomes of a missing category."""
    unseen: Literal["nan", "reject"] | int = "nan"
    """What becomes of a category that is not among the values."""
    takes_missing: bool = True
    """Of a number: whether the model answers where it is missing."""
    takes_below: bool = True
    """Of a number: whether the model answers where a logarithm or a root of it is not a number."""
    sure: list[Any] = field(default_factory=list)
    """Of a category: values that an encoder knows, which refuses others."""
    is_read: bool = False
    """Whether anything is made of it."""
    type: ColumnType | None = None
    """Of a number: the type of its column, where doubles make a difference to the model."""

    @property
    def usual(self) -> Any:
        """A value that no step refuses."""
        if self.is_category:
            return (self.sure or self.values)[0]
        return self.numbers[0] if self.numbers else 1.0

    @property
    def is_discrete(self) -> bool:
        """Whether all values that reach the model are known."""
        return self.is_category or self.is_flag

    def table(self) -> NDArray[Any]:
        """All values of a discrete feature, as the original takes them, in the order of their codes."""
        if not self.is_category:
            return np.array([0.0, 1.0])
        values = np.empty(len(self.values), dtype=object)
        values[:] = self.values
        return values

    @property
    def is_typed_flag(self) -> bool:
        """Whether it is a boolean that the model computes with as such."""
        return self.type is not None and self.type.is_flag

    def missing_value(self) -> NDArray[Any]:
        """An array of one missing value; of a category what the matrix has NaN for, which is an unseen one where those are refused."""
        if not self.is_category:
            return np.array([np.nan])
        return np.array([self.nan_value if self.is_settled else self.marker], dtype=object)

    def add(self, categories: Sequence[Any], *, strict: bool) -> None:
        """An encoder of it knows these categories; `strict`: it refuses others."""
        if self.is_settled:
            return
        present = [value for value in categories if not _is_missing(value)]
        if any(value is None for value in categories):
            self.marker = None
        if all(isinstance(value, (bool, np.bool_)) for value in present) and present:
            self.is_flag = True
        numeric = all(isinstance(value, (int, float, np.number, np.bool_)) for value in present)
        if numeric and (self.is_flag or not strict) and not self.is_category:
            self.numbers += [float(value) for value in present]
            return
        if not self.is_category and self.numbers:
            self.values += self.numbers
        self.is_category = True
        if strict:
            self.sure = [value for value in present if value in self.sure] or self.sure or present
        self.values += [value for value in present if value not in self.values]


def inputs_of(model: Any) -> list[Input]:
    """The features that a fitted estimator expects, in order. Raises ConfigError where it cannot say."""
    names = getattr(model, "feature_names_in_", None)
    if names is not None:
        return [Input(name=str(name)) for name in names]
    count = getattr(model, "n_features_in_", None)
    if count is None:
        first = model.steps[0][1] if isinstance(model, Pipeline) else model
        raise ConfigError(
            f"{type(first).__name__} is given no table of columns, or none that it remembers, so that the {type(model).__name__} does not say how many features it takes: fit it on a data frame or an array of numbers"
        )
    return [Input(name=f"f{index}") for index in range(int(count))]


def first_columns(inputs: Sequence[Input]) -> list[Column]:
    """The features themselves."""
    return [Column(features=frozenset([index]), same=True) for index in range(len(inputs))]


def columns_after(step: Any, given: list[Column], inputs: list[Input], apply: Apply) -> list[Column]:
    """The columns that a fitted step makes of these. What it knows of categories is added to `inputs`.

    Where the way is not known, each column is made of all features that the step is given.
    """
    if step is None or (isinstance(step, str) and step == "passthrough"):
        return given
    if isinstance(step, Pipeline):
        for _, inner in step.steps:
            given = columns_after(inner, given, inputs, apply)
            apply = _then(inner, apply)
        return given
    if isinstance(step, ColumnTransformer):
        found: list[Column] = []
        for name, inner, places in branches(step):
            made = columns_after(inner, [given[place] for place in places], inputs, _chosen(apply, places))
            weighted = bool(step.transformer_weights) and name in step.transformer_weights
            found += [replace(column, same=False) for column in made] if weighted else made
        return found
    if isinstance(step, FeatureUnion):
        return [
            column
            for _, inner in step.transformer_list
            if inner != "drop"
            for column in columns_after(inner, given, inputs, apply)
        ]
    if isinstance(step, GivenWords):
        return given if step.columns is None else [given[int(place)] for place in step.columns]
    known = _known(step, given, inputs, apply)
    if known is not None:
        return known
    width = len(step.get_feature_names_out()) if hasattr(step, "get_feature_names_out") else None
    if width is None:
        raise ConfigError(
            f"the step {type(step).__name__} does not say how many columns it makes of a record: {instead_of.get(type(step).__name__, anything_else)}"
        )
    of_all = frozenset().union(*(column.features for column in given))
    return [Column(features=of_all, known=False)] * width


def branches(step: ColumnTransformer) -> list[tuple[str, Any, list[int]]]:
    """Name, fitted transformer and input columns by place, of all branches that keep something."""
    found = []
    for name, inner, _ in step.transformers_:
        places = [int(place) for place in step._transformer_to_input_indices[name]]
        if places and not (isinstance(inner, str) and inner == "drop"):
            found.append((name, inner, places))
    return found


def _then(step: Any, apply: Apply) -> Apply:
    if step is None or (isinstance(step, str) and step == "passthrough"):
        return apply
    return lambda rows: step.transform(apply(rows))


def _chosen(apply: Apply, places: list[int]) -> Apply:
    return lambda rows: _safe_indexing(apply(rows), places, axis=1)


def _known(step: Any, given: list[Column], inputs: list[Input], apply: Apply) -> list[Column] | None:
    if isinstance(step, _monotone):
        return [replace(column, same=False) for column in given]
    if isinstance(step, SelectorMixin):
        return [given[int(place)] for place in step.get_support(indices=True)]
    if isinstance(step, SimpleImputer):
        return _imputed(step, given, inputs)
    if isinstance(step, MissingIndicator):
        return [replace(given[int(place)], same=False) for place in step.features_]
    if isinstance(step, _encoders):
        return _encoded(step, given, inputs)
    if isinstance(step, KBinsDiscretizer):
        return _binned(step, given, apply)
    if isinstance(step, PolynomialFeatures):
        return [_product(row, given) for row in step.powers_]
    if isinstance(step, FunctionTransformer):
        return _function(step, given, inputs)
    return None


def _imputed(step: SimpleImputer, given: list[Column], inputs: list[Input]) -> list[Column]:
    marker = step.missing_values
    is_nan = _is_missing(marker)
    columns = []
    for column in given:
        new = column
        if not is_nan:  # a number, or a text, stands for what is missing
            if column.same and isinstance(marker, (int, float)):
                new = replace(column, same=False, points=(*column.points, float(marker)))
            elif column.same and isinstance(
                marker, str
            ):  # a category like any other, that the steps make another of
                for place in column.features:
                    inputs[place].add([marker], strict=False)
            else:
                new = replace(column, same=False, known=False)
        columns.append(new)
    statistics = np.asarray(step.statistics_, dtype=object)
    for column, value in zip(given, statistics, strict=True):
        if isinstance(value, str) and column.same:
            for place in column.features:
                if is_nan and not inputs[place].is_settled:
                    inputs[place].marker = None if marker is None else math.nan
                inputs[place].add([value], strict=False)
    kept = [
        column
        for column, value in zip(columns, statistics, strict=True)
        if step.keep_empty_features
        or value is None
        or not _is_missing(value)  # None may be the most frequent
    ]
    marks = (
        []
        if step.indicator_ is None
        else [replace(columns[int(place)], same=False) for place in step.indicator_.features_]
    )
    return kept + marks


def _encoded(step: Any, given: list[Column], inputs: list[Input]) -> list[Column]:
    if isinstance(step, OneHotEncoder):
        widths = [int(width) for width in step._n_features_outs]
    elif isinstance(step, TargetEncoder):
        classes = len(step.classes_) if step.target_type_ == "multiclass" else 1
        widths = [classes] * len(given)
    else:
        widths = [1] * len(given)
    strict = getattr(step, "handle_unknown", "ignore") == "error"
    columns = []
    for column, categories, width in zip(given, step.categories_, widths, strict=True):
        new = Column(features=column.features, known=False)
        if column.same:
            (place,) = column.features
            inputs[place].add(categories.tolist(), strict=strict)
            numbers = [value for value in categories.tolist() if not _is_missing(value)]
            if all(isinstance(value, (int, float)) for value in numbers):
                points = tuple(sorted({*column.points, *(float(value) for value in numbers)}))
                new = Column(features=column.features, points=points, flat=True)
        columns += [new] * width
    return columns


def _binned(step: KBinsDiscretizer, given: list[Column], apply: Apply) -> list[Column]:
    if step.encode == "ordinal":
        return [replace(column, same=False) for column in given]
    columns = []
    for column, edges, bins in zip(given, step.bin_edges_, step.n_bins_, strict=True):
        if column.same:
            cuts = tuple(float(np.nextafter(edge, -np.inf)) for edge in edges[1:-1])
            new = replace(column, same=False, cuts=tuple(sorted({*column.cuts, *cuts})))
        else:
            new = replace(column, same=False, known=False)
        columns += [new] * int(bins)
    return columns


def _product(powers: NDArray[np.int64], given: list[Column]) -> Column:
    used = [column for column, power in zip(given, powers, strict=True) if power]
    if len(used) == 1 and int(powers.sum()) % 2 == 1:
        return replace(used[0], same=False)  # an odd power rises throughout
    return Column(features=frozenset().union(*(column.features for column in used)), known=not used)


def _function(step: FunctionTransformer, given: list[Column], inputs: list[Input]) -> list[Column]:
    name = function_name(step)
    if name is None:
        raise ConfigError(function_refusal(step))
    if name in ("identity", "positive"):
        return given
    if name in _monotone_functions:
        return [replace(column, same=False) for column in given]
    columns = []
    for column in given:
        if name in ("isnan", "isinf", "isfinite") and column.same:
            columns.append(replace(column, same=False, flat=True))  # of every number alike
        elif name in ("absolute", "fabs") and column.same:
            below = float(np.nextafter(0.0, -np.inf))  # falls up to there, and rises from 0 on
            columns.append(replace(column, same=False, cuts=tuple(sorted({*column.cuts, below}))))
        elif name in _domains and column.same:
            (place,) = column.features
            start = _domains[name]
            if inputs[place].takes_below:
                cuts = tuple(sorted({*column.cuts, float(np.nextafter(start, -np.inf))}))
                columns.append(replace(column, same=False, cuts=cuts))
            else:  # what is NaN is refused; and so is the infinity that a logarithm begins with
                columns.append(
                    replace(
                        column, same=False, low=start if name != "sqrt" else float(np.nextafter(0.0, -np.inf))
                    )
                )
        else:
            columns.append(Column(features=column.features, known=False))
    return columns


def function_name(step: FunctionTransformer) -> str | None:
    """The NumPy function of one number that a FunctionTransformer applies, by name; None where it is something else."""
    if step.func is None:
        return "identity"
    name = getattr(step.func, "__name__", "")
    known = isinstance(step.func, np.ufunc) and step.func.nin == 1 and getattr(np, name, None) is step.func
    return name if known and not step.kw_args else None


def function_refusal(step: FunctionTransformer) -> str:
    """Why a FunctionTransformer of any other function cannot be packaged, and what can."""
    called = getattr(step.func, "__name__", type(step.func).__name__)
    return (
        f"a FunctionTransformer applies the Python function {called}, which no ONNX graph can hold: use a function of NumPy "
        "(FunctionTransformer(numpy.log1p)), or compute the column before the stream"
    )


def _is_missing(value: Any) -> bool:
    return (
        value is None or (isinstance(value, float) and math.isnan(value)) or type(value).__name__ == "NAType"
    )
