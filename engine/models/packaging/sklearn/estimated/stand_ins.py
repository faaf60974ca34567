"""Stand-ins for imputers by neighbours and by regressions, and for splines, and what of them cannot be packaged."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PPoly
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.impute import KNNImputer, MissingIndicator
from sklearn.pipeline import FeatureUnion
from sklearn.preprocessing import SplineTransformer

from penstock.engine.models.packaging.sklearn.step_stand_ins import Marks, filled_of
from penstock.schemas.errors import ConfigError

neighbour_cells_max = 1 << 18
"""Rows of training times columns that a record with a missing value is compared with."""


class Neighbourly(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Missing numbers become the mean of those of the nearest rows of training."""

    def __init__(
        self, rows: NDArray[np.float64], columns: NDArray[np.int64], count: int, weighted: bool
    ) -> None:
        """`rows` (M, F) of training, NaN where they miss a value; `columns` are kept; the `count` nearest count,
        `weighted` by the inverse of their distance."""
        self.rows = rows
        self.columns = columns
        self.count = count
        self.weighted = weighted


class Regressed(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Missing numbers are filled, and then estimated in turn from the other columns."""

    def __init__(self, filled: Any, columns: NDArray[np.int64], turns: list["Turn"]) -> None:
        """`filled`: the first step, whose columns are those of the input at `columns`, in order."""
        self.filled = filled
        self.columns = columns
        self.turns = turns


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Turn:
    """One estimate of one column."""

    column: int
    given: NDArray[np.int64]
    """The columns that the regressor is given."""
    regressor: Any
    low: float
    high: float
    """What it says is cut off there."""


class Splines(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Of each column the values of its basis splines: polynomials between knots."""

    def __init__(self, pieces: list["Pieces"], beyond: str, last: bool, zeros: bool) -> None:
        """`beyond`: constant, linear, continue or periodic. `last`: whether each column's last spline is kept; `zeros`: a
        missing value has zeros."""
        self.pieces = pieces
        self.beyond = beyond
        self.last = last
        self.zeros = zeros

    @property
    def width(self) -> int:
        """Columns that come out."""
        return sum(each.coefficients.shape[2] - (not self.last) for each in self.pieces)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Pieces:
    """The basis splines of one column."""

    knots: NDArray[np.float64]
    """(P + 1,) ascending; a number on one belongs to the piece above it."""
    coefficients: NDArray[np.float64]
    """(D + 1, P, J): of each of J splines the polynomial of a piece, highest power first, in what a number has above the
    piece's lower knot."""
    slopes: tuple[NDArray[np.float64], NDArray[np.float64]]
    """(J,) at the first and at the last knot."""


def estimated_stand_in(step: Any) -> Any | None:
    """What stands for such a step, fitted; None for any other. Raises ConfigError, naming it, where there is no way."""
    if isinstance(step, KNNImputer):
        return _marked(step, _neighbourly(step))
    if type(step).__name__ == "IterativeImputer" and type(step).__module__.startswith("sklearn."):
        return _marked(step, _regressed(step))
    if isinstance(step, SplineTransformer):
        return _splines(step)
    return None


def _marked(step: Any, filled: Any) -> Any:
    indicator: MissingIndicator | None = step.indicator_
    if indicator is None:
        return filled
    marks = Marks(np.asarray(indicator.features_, dtype=np.int64), np.nan)
    return FeatureUnion([("filled", filled), ("marks", marks)])


def _check_marker(step: Any) -> None:
    if not (isinstance(step.missing_values, float) and np.isnan(step.missing_values)):
        raise ConfigError(
            f"{type(step).__name__}(missing_values={step.missing_values!r}) has no operators: train it with NaN for missing values"
        )


def _neighbourly(step: KNNImputer) -> Neighbourly:
    _check_marker(step)
    if step.metric != "nan_euclidean" or step.weights not in ("uniform", "distance"):
        raise ConfigError(
            "KNNImputer looks for neighbours by a Python function, which no ONNX graph can hold: use metric='nan_euclidean' and "
            "weights='uniform' or 'distance'"
        )
    rows = np.asarray(step._fit_X, dtype=np.float64)
    if rows.size > neighbour_cells_max:
        raise ConfigError(
            f"KNNImputer compares a record with {len(rows):,} rows of training of {rows.shape[1]} columns, more than "
            f"{neighbour_cells_max:,} numbers: fit it on a sample, or use SimpleImputer(add_indicator=True)"
        )
    if step.keep_empty_features and not step._valid_mask.all():
        raise ConfigError(
            "KNNImputer(keep_empty_features=True) keeps a column that training never had: leave it out"
        )
    columns = np.flatnonzero(step._valid_mask)
    return Neighbourly(rows, columns, int(step.n_neighbors), step.weights == "distance")


def _regressed(step: Any) -> Regressed:
    from penstock.engine.models.packaging.sklearn.stand_ins import stand_in

    _check_marker(step)
    if step.sample_posterior:
        raise ConfigError(
            "IterativeImputer(sample_posterior=True) fills in by lot: no bundle repeats that; train it without"
        )
    empty = np.asarray(step._is_empty_feature)
    if step.keep_empty_features and empty.any():
        raise ConfigError(
            "IterativeImputer(keep_empty_features=True) keeps a column that training never had: leave it out"
        )
    filled = filled_of(step.initial_imputer_)
    if filled is None:
        raise ConfigError("IterativeImputer begins with an imputation of texts: encode them before it")
    turns = [
        Turn(
            column=int(each.feat_idx),
            given=np.asarray(each.neighbor_feat_idx, dtype=np.int64),
            regressor=stand_in(each.estimator) or each.estimator,
            low=float(step._min_value[each.feat_idx]),
            high=float(step._max_value[each.feat_idx]),
        )
        for each in (step.imputation_sequence_ if step.n_iter_ else ())
    ]
    return Regressed(filled, np.flatnonzero(~empty), turns)


def _splines(step: SplineTransformer) -> Splines:
    if step.extrapolation == "error":
        raise ConfigError(
            "SplineTransformer(extrapolation='error') refuses numbers beyond those of training, which no bundle repeats: use "
            "'constant', 'linear' or 'continue'"
        )
    pieces = []
    for spline in step.bsplines_:
        first, end = spline.k, len(spline.t) - spline.k - 1
        made = [
            PPoly.from_spline((spline.t, np.ascontiguousarray(column), spline.k)).c[:, first:end]
            for column in np.asarray(spline.c, dtype=np.float64).T
        ]
        knots = np.asarray(spline.t[first : end + 1], dtype=np.float64)
        slopes = [np.asarray(spline(knots[at], nu=1), dtype=np.float64) for at in (0, -1)]
        pieces.append(Pieces(knots=knots, coefficients=np.stack(made, axis=2), slopes=(slopes[0], slopes[1])))
    zeros = getattr(step, "handle_missing", "error") == "zeros"
    return Splines(pieces, step.extrapolation, bool(step.include_bias), zeros)
