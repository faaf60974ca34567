"""Neighbours, alike or weighted by 1 over their distance: what stands for them in a surrogate."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.neighbors import (
    KNeighborsClassifier,
    KNeighborsRegressor,
    RadiusNeighborsClassifier,
    RadiusNeighborsRegressor,
)

from penstock.schemas.errors import ConfigError

cells_max: Final = 1 << 22
"""Rows kept from training times columns."""
_powers: Final = {
    "euclidean": 2.0, "l2": 2.0, "manhattan": 1.0, "cityblock": 1.0, "l1": 1.0, "chebyshev": np.inf, "infinity": np.inf,
}  # fmt: skip
"""Of which power the distance is the root, by the metric's name."""


class Neighbours(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """The mean of what near rows of training say; weighted by the inverse of their distance, where some are the row itself, of
    those alone."""

    def __init__(
        self,
        rows: NDArray[np.float64],
        answers: NDArray[np.float64],
        power: float,
        count: int | None,
        radius: float,
        outlier: NDArray[np.float64] | None,
        weighted: bool,
    ) -> None:
        """`rows` (M, F) say `answers` (M, K); distances are of the `power`-th power; the `count` nearest are asked, or with
        None all within the `radius`. `outlier` (K,): what is said where nobody is near; None: NaN.
        `weighted`: by 1 over the distance."""
        self.rows = rows
        self.answers = answers
        self.power = power
        self.count = count
        self.radius = radius
        self.outlier = outlier
        self.weighted = weighted


class NeighbourValues(RegressorMixin, Neighbours):  # type: ignore[misc]  # scikit-learn has no types
    """Of numbers: (N, K)."""


class NeighbourShares(ClassifierMixin, Neighbours):  # type: ignore[misc]  # scikit-learn has no types
    """Of classes: shares of one."""

    def __init__(
        self,
        rows: NDArray[np.float64],
        answers: NDArray[np.float64],
        power: float,
        count: int | None,
        radius: float,
        outlier: NDArray[np.float64] | None,
        weighted: bool,
        classes_: NDArray[Any],
    ) -> None:
        """`answers`: 1 in the column of a row's class; `classes_`: as the original calls them."""
        super().__init__(rows, answers, power, count, radius, outlier, weighted)
        self.classes_ = classes_


def neighbour_model(model: Any) -> Any | None:
    """What stands for fitted neighbours; None for any other, and where skl2onnx may know a way. Raises ConfigError where there is
    none."""
    nearest = isinstance(model, (KNeighborsClassifier, KNeighborsRegressor))
    if not nearest and not isinstance(model, (RadiusNeighborsClassifier, RadiusNeighborsRegressor)):
        return None
    kind = type(model).__name__
    if callable(model.weights):
        raise ConfigError(
            f"{kind} weighs its neighbours by a Python function, which no ONNX graph can hold: use weights='distance'"
        )
    weighted = model.weights == "distance"
    power = _power(model, kind, refuses=weighted)
    if power is None:
        return None
    rows = np.asarray(
        model._fit_X.toarray() if hasattr(model._fit_X, "toarray") else model._fit_X, dtype=np.float64
    )
    if rows.size > cells_max:
        if not weighted:
            return None
        raise ConfigError(
            f"{kind} compares a record with {len(rows):,} rows of {rows.shape[1]} columns, more than {cells_max:,} numbers: fit it on "
            "a sample"
        )
    count = int(model.n_neighbors) if nearest else None
    radius = np.inf if nearest else float(model.radius)
    if isinstance(model, (KNeighborsRegressor, RadiusNeighborsRegressor)):
        answers = np.asarray(model._y, dtype=np.float64)
        return NeighbourValues(rows, answers.reshape(len(answers), -1), power, count, radius, None, weighted)
    classes = np.asarray(model.classes_)
    shares = np.eye(len(classes))[np.asarray(model._y).reshape(-1)]
    return NeighbourShares(rows, shares, power, count, radius, _outlier(model, classes), weighted, classes)


def _power(model: Any, kind: str, *, refuses: bool) -> float | None:
    name = model.effective_metric_
    more = {key: value for key, value in (model.effective_metric_params_ or {}).items() if value is not None}
    if name == "minkowski" and set(more) <= {"p"}:
        return float(more.get("p", model.p))
    if isinstance(name, str) and name in _powers and not set(more) - {"p"}:
        return _powers[name]
    if not refuses:
        return None
    said = "a Python function" if callable(name) else f"metric={name!r}"
    if isinstance(name, str) and {*more} - {"p"}:
        said += f" and metric_params of {', '.join(sorted({*more} - {'p'}))}"
    raise ConfigError(
        f"{kind} with weights='distance' has no operators for {said}: use metric='euclidean', 'manhattan', 'chebyshev' or 'minkowski' "
        "on scaled columns (of cosines: 'euclidean' behind a Normalizer)"
    )


def _outlier(model: Any, classes: NDArray[Any]) -> NDArray[np.float64] | None:
    label = getattr(model, "outlier_label_", None)
    if label is None:
        return None
    found: NDArray[np.float64] = (classes == np.asarray(label).reshape(-1)[0]).astype(np.float64)
    if not found.any():
        raise ConfigError(
            f"RadiusNeighborsClassifier(outlier_label={label[0]!r}) calls records without a neighbour by a class that training did not "
            "have: name one that it had, or leave outlier_label out, and such records are set aside"
        )
    return found
