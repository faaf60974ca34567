"""Steps that stand for scikit-learn's in a surrogate, and compute in the numbers' own precision."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.feature_selection import SelectorMixin
from sklearn.impute import SimpleImputer
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import (
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    StandardScaler,
    TargetEncoder,
)

from penstock.schemas.errors import ConfigError

_foreign_errors = (ValueError, TypeError, RuntimeError, AttributeError, LookupError, ArithmeticError)


class FeatureTable(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Columns that depend on one feature each, and take a known value for each of its values."""

    def __init__(
        self,
        keys: Sequence[NDArray[np.float64] | None],
        tables: Sequence[NDArray[np.float64]],
        order: NDArray[np.int64],
    ) -> None:
        """Of each input column: its numbers, or None where it is a code, and a row of output values for each of them, one
        for any other number and one for a missing value. `order`: from all these values, side by side, to the output."""
        self.keys = keys
        self.tables = tables
        self.order = order

    def transform(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        """The output columns of matrix rows."""
        parts = []
        for column, (keys, table) in enumerate(zip(self.keys, self.tables, strict=True)):
            values = X[:, column]
            known = np.arange(len(table) - 2, dtype=np.float64) if keys is None else keys
            place = np.full(len(values), len(known))
            for number, key in enumerate(known.tolist()):
                place[values == key] = number
            place[np.isnan(values)] = len(known) + 1
            parts.append(table[place])
        return np.concatenate(parts, axis=1)[:, self.order]


class NamedFunction(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A function of NumPy, of each number for itself."""

    def __init__(self, function: str) -> None:
        """`function`: its name."""
        self.function = function


class Chosen(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Some of the columns, in an order of their own."""

    def __init__(self, columns: NDArray[np.int64], narrow: bool = False) -> None:
        """`columns` by place; `narrow`: what follows computes in float32, as the original does with columns of that type."""
        self.columns = columns
        self.narrow = narrow
        self.is_given_doubles = True


class GivenWords(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Stands where a vectorizer stood: the columns of its words, as a sparse matrix."""

    def __init__(self, columns: NDArray[np.int64] | None = None) -> None:
        """`columns` by place; None: all that it is given."""
        self.columns = columns

    def fit(self, X: Any, y: Any = None) -> "GivenWords":
        """Nothing is learned."""
        return self

    def __sklearn_is_fitted__(self) -> bool:
        """Always."""
        return True

    def transform(self, X: Any) -> Any:
        """The same numbers, sparse."""
        rows = np.asarray(X, dtype=np.float64)
        return sparse.csr_matrix(rows if self.columns is None else rows[:, self.columns])


class Scaled(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Each number times a factor, in the precision that the branch was given its columns in."""

    def __init__(self, factor: float, begin: Chosen) -> None:
        """`factor`: the weight of a branch, 1 without one; `begin`: how the branch begins."""
        self.factor = factor
        self.begin = begin


class Filled(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Columns with a number in place of what is missing, and after them marks of where it was."""

    def __init__(
        self, columns: NDArray[np.int64], values: NDArray[np.float64], marks: NDArray[np.int64], marker: float
    ) -> None:
        """`columns` are kept, with `values` for them; `marks`: columns whose gaps are marked; `marker`: NaN, or the number
        that stands for a gap."""
        self.columns = columns
        self.values = values
        self.marks = marks
        self.marker = marker


class Projection(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A step that is sums of products of its columns: (N, K)."""

    def __init__(self, coef: NDArray[np.float64], intercept: NDArray[np.float64]) -> None:
        """`coef` (K, F), `intercept` (K,)."""
        self.coef = coef
        self.intercept = intercept


class Marks(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """1 where a number is missing, else 0, of some columns."""

    def __init__(self, columns: NDArray[np.int64], marker: float) -> None:
        """`columns` by place; `marker`: NaN, or the number that stands for a gap."""
        self.columns = columns
        self.marker = marker


class Bins(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """The number of the bin that each value falls into, or a column for each bin."""

    def __init__(self, edges: list[NDArray[np.float64]], one_hot: bool) -> None:
        """`edges`: of each column those between its bins, ascending; a value on one belongs to the upper bin."""
        self.edges = edges
        self.one_hot = one_hot


class Above(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """1 where a number lies above a threshold, else 0."""

    def __init__(self, threshold: float) -> None:
        """`threshold` is not above itself."""
        self.threshold = threshold


class Narrow(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Doubles to float32, for what follows takes no doubles."""


class Quantiles(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Where each number lies among the quantiles of training, from 0 to 1, or as a normal deviate."""

    def __init__(self, quantiles: NDArray[np.float64], shares: NDArray[np.float64], normal: bool) -> None:
        """`quantiles` (Q, F), of `shares` (Q,), ascending."""
        self.quantiles = quantiles
        self.shares = shares
        self.normal = normal


class Normalized(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Each row divided by its norm."""

    def __init__(self, norm: str) -> None:
        """`norm`: l1, l2 or max."""
        self.norm = norm


class Powers(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """The power transform of Yeo and Johnson, or of Box and Cox, of each column, then a line."""

    def __init__(
        self,
        exponents: NDArray[np.float64],
        mean: NDArray[np.float64],
        scale: NDArray[np.float64],
        positive: bool,
    ) -> None:
        """`exponents`, `mean` and `scale` (F,); `positive`: that of Box and Cox, of numbers above 0."""
        self.exponents = exponents
        self.mean = mean
        self.scale = scale
        self.positive = positive


class Products(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Products of columns."""

    def __init__(self, factors: NDArray[np.int64]) -> None:
        """`factors` (K, D): of each output the places of what is multiplied; the width of a row stands for 1."""
        self.factors = factors


def step_stand_in(step: Any) -> Any | None:
    """What stands for a fitted step of numbers; None where it may stand for itself."""
    if isinstance(step, GivenWords):
        return NamedFunction("identity") if step.columns is None else Chosen(step.columns)
    if isinstance(step, SelectorMixin):
        return Chosen(np.asarray(step.get_support(indices=True), dtype=np.int64))
    if isinstance(step, QuantileTransformer):
        quantiles = np.asarray(step.quantiles_, dtype=np.float64)
        return Quantiles(quantiles, np.asarray(step.references_), step.output_distribution == "normal")
    if isinstance(step, PowerTransformer):
        return _powers(step)
    if isinstance(step, Normalizer):
        return Normalized(step.norm)
    if isinstance(step, TfidfTransformer):
        return _weighted(step)
    if isinstance(step, PolynomialFeatures):
        return Products(_factors(np.asarray(step.powers_)))
    if isinstance(step, (OneHotEncoder, OrdinalEncoder, TargetEncoder)):
        return _encoded(step)
    return None


def _weighted(step: TfidfTransformer) -> Any:
    """Counts times their weights, each row divided by its norm; one of zeros stays as it is."""
    if step.sublinear_tf:
        raise ConfigError(
            "TfidfTransformer(sublinear_tf=True) has no operators over columns of numbers: train it without, or let it stand right behind "
            "CountVectorizer in one branch"
        )
    steps: list[tuple[str, Any]] = []
    if step.use_idf:
        scaler = StandardScaler(with_mean=False)
        scaler.scale_, scaler.mean_ = 1.0 / np.asarray(step.idf_, dtype=np.float64), None
        scaler.n_features_in_ = len(scaler.scale_)
        steps.append(("weights", scaler))
    steps.append(("norm", NamedFunction("identity") if step.norm is None else Normalized(step.norm)))
    return Pipeline(steps)


def filled_of(model: SimpleImputer) -> Filled | None:
    """Of an imputer of numbers; None of texts."""
    values = np.asarray(model.statistics_)
    if values.dtype == object and all(isinstance(each, (int, float)) for each in values.tolist()):
        values = values.astype(np.float64)
    if values.dtype.kind not in "fiu" or not isinstance(model.missing_values, (int, float)):
        return None
    kept = np.arange(len(values)) if model.keep_empty_features else np.flatnonzero(~np.isnan(values))
    marks = (
        np.empty(0, dtype=np.int64) if model.indicator_ is None else np.asarray(model.indicator_.features_)
    )
    filling = np.nan_to_num(values[kept].astype(np.float64))  # of an empty column that is kept: 0
    return Filled(kept, filling, marks.astype(np.int64), float(model.missing_values))


def _powers(step: PowerTransformer) -> Powers:
    exponents = np.asarray(step.lambdas_, dtype=np.float64)
    mean, scale = np.zeros(len(exponents)), np.ones(len(exponents))
    if step.standardize:
        mean, scale = step._scaler.mean_, step._scaler.scale_
    return Powers(exponents, np.asarray(mean), np.asarray(scale), step.method == "box-cox")


def is_idle(step: Any) -> bool:
    """Whether it passes on what it is given."""
    return step is None or (isinstance(step, str) and step == "passthrough")


def in_row(steps: Sequence[tuple[str, Any]]) -> Any:
    """A pipeline of the steps that do something."""
    kept = [(name, step) for name, step in steps if not is_idle(step)]
    return Pipeline(kept or [("same", NamedFunction("identity"))])


def side_by_side(branches: Sequence[tuple[str, Any, NDArray[np.int64], bool]], weights: Any) -> Any:
    """Branches of a table of columns: name, step, places of its columns and whether it computes in float32."""
    parts: list[tuple[str, Any]] = []
    for name, step, places, narrow in branches:
        steps: list[tuple[str, Any]] = [("columns", Chosen(places, narrow)), ("step", step)]
        if narrow or (weights or {}).get(name, 1.0) != 1.0:
            steps.append(("weight", Scaled(float((weights or {}).get(name, 1.0)), steps[0][1])))
        parts.append((name, in_row(steps)))
    return FeatureUnion(parts) if len(parts) > 1 else parts[0][1]


def _factors(powers: NDArray[np.int64]) -> NDArray[np.int64]:
    width = powers.shape[1]
    degree = max(int(powers.sum(axis=1).max(initial=0)), 1)
    factors = np.full((len(powers), degree), width, dtype=np.int64)
    for number, row in enumerate(powers):
        places = np.repeat(np.arange(width), row)
        factors[number, : len(places)] = places
    return factors


def _encoded(step: Any) -> FeatureTable | None:
    """An encoder of numbers that other steps made; what it refuses becomes NaN. None where it is one of texts."""
    known = []
    for categories in step.categories_:
        try:
            numbers = np.asarray(categories, dtype=np.float64)
        except (TypeError, ValueError):
            return None
        known.append(numbers[~np.isnan(numbers)])
    if any(not len(each) for each in known):
        return None
    usual = np.array([each[0] for each in known])
    width = _transformed(step, usual[None]).shape[1]
    widths = _widths(step, width, len(known))
    starts = np.concatenate(([0], np.cumsum(widths)[:-1]))
    tables = []
    for column, keys in enumerate(known):
        mine = np.arange(starts[column], starts[column] + widths[column])
        parts = []
        for value in (*keys.tolist(), float(keys.max()) + 0.5, np.nan):
            row = usual.copy()
            row[column] = value
            try:
                parts.append(_transformed(step, row[None])[:, mine])
            except _foreign_errors:
                parts.append(np.full((1, len(mine)), np.nan))
        tables.append(np.concatenate(parts))
    return FeatureTable(known, tables, np.arange(width))


def _widths(step: Any, width: int, columns: int) -> list[int]:
    if isinstance(step, OneHotEncoder):
        return [int(each) for each in step._n_features_outs]
    return [width // columns] * columns


def _transformed(step: Any, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    texts = any(np.asarray(each).dtype == object for each in getattr(step, "categories_", ()))
    made = step.transform(rows.astype(object) if texts else rows)
    return np.asarray(made.toarray() if hasattr(made, "toarray") else made, dtype=np.float64)
