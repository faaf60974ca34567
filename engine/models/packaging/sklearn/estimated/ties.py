"""Rows on which neighbours are any of several rows of training that are equally near: what is answered hangs on their order."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.impute import KNNImputer
from sklearn.metrics.pairwise import nan_euclidean_distances
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import FeatureUnion, Pipeline

from penstock.engine.models.packaging.sklearn.columns import branches
from penstock.engine.models.packaging.sklearn.inputs import Rows, then
from penstock.engine.models.packaging.sklearn.members import members

_near = 1e-9
"""Squares of distances so near each other, relative to the squares that they are differences of, count as equal."""
_same = 1e-12
"""Distances so near each other, relative to themselves, count as equal where they were found by differences."""


def undecided(model: Any, rows: Rows) -> Callable[[Any], NDArray[np.bool_]] | None:
    """Which rows (R,) of the original's are so; None: no neighbours are in the model."""
    found = [*_neighbourly(model, rows)]
    if not found:
        return None

    def of(given: Any) -> NDArray[np.bool_]:
        return np.asarray(np.any([_ties_of(step, at.apply(given)) for step, at in found], axis=0))

    return of


def _neighbourly(model: Any, rows: Rows) -> Iterator[tuple[Any, Rows]]:
    """Each imputer and model of neighbours with what it is given."""
    if isinstance(model, (KNNImputer, KNeighborsClassifier, KNeighborsRegressor)):
        yield model, rows
    elif isinstance(model, Pipeline):
        for _, step in model.steps:
            yield from _neighbourly(step, rows)
            if hasattr(step, "transform"):
                rows = then(step, rows)
    elif isinstance(model, ColumnTransformer):
        for _, step, places in branches(model):
            yield from _neighbourly(step, rows.chosen(places))
    elif isinstance(model, FeatureUnion):
        for _, step in model.transformer_list:
            yield from _neighbourly(step, rows)
    else:
        for each in members(model):
            yield from _neighbourly(each, rows)


def _ties_of(step: Any, made: Any) -> NDArray[np.bool_]:
    rows = np.asarray(made.toarray() if hasattr(made, "toarray") else made, dtype=np.float64)
    return _ties(step, rows) if isinstance(step, KNNImputer) else _ties_of_nearest(step, rows)


def _ties_of_nearest(step: Any, rows: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether the last neighbour is no nearer than the next one, or rounding decides what is at no distance at all."""
    kept = step._fit_X
    count = min(int(step.n_neighbors) + 1, kept.shape[0])
    apart, _ = step.kneighbors(rows, n_neighbors=count)
    found = np.zeros(len(rows), dtype=np.bool_)
    by_products = step._fit_method == "brute" and step.effective_metric_ in ("euclidean", "l2", "sqeuclidean")
    noise = np.zeros(len(rows))
    if by_products:
        most = (
            kept.multiply(kept).sum(axis=1).max()
            if hasattr(kept, "multiply")
            else (kept**2).sum(axis=1).max()
        )
        noise = _near * (1.0 + (rows**2).sum(axis=1) + float(most))
    if count > step.n_neighbors:
        last, after = apart[:, -2], apart[:, -1]
        found = (after - last <= _same * after) | (after**2 - last**2 <= noise)
    if by_products and step.weights == "distance":
        found |= apart[:, 0] ** 2 <= noise
    return np.asarray(found)


def _ties(step: KNNImputer, rows: NDArray[np.float64]) -> NDArray[np.bool_]:
    apart = nan_euclidean_distances(rows, step._fit_X, squared=True)
    apart[np.isnan(apart)] = np.inf
    noise = _near * (1.0 + np.nansum(rows**2, axis=1) + np.nansum(step._fit_X**2, axis=1).max())
    found = np.zeros(len(rows), dtype=np.bool_)
    for column in np.flatnonzero(np.isnan(rows).any(axis=0) & step._valid_mask).tolist():
        of_donors = np.sort(apart[:, ~step._mask_fit_X[:, column]], axis=1)
        count = int(step.n_neighbors)
        tie = np.zeros(len(rows), dtype=np.bool_)
        if of_donors.shape[1] > count:
            last, after = of_donors[:, count - 1], of_donors[:, count]
            with np.errstate(invalid="ignore"):
                tie = np.isfinite(last) & (after - last <= noise)
        if step.weights == "distance":  # 1 over what rounding leaves of nothing
            tie |= of_donors[:, 0] <= noise
        found |= tie & np.isnan(rows[:, column])
    return found
