"""Rows on which KNNImputer takes any of several rows of training that are equally near: what it answers hangs on their order."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.impute import KNNImputer
from sklearn.metrics.pairwise import nan_euclidean_distances
from sklearn.pipeline import FeatureUnion, Pipeline

from penstock.engine.models.packaging.sklearn.columns import branches
from penstock.engine.models.packaging.sklearn.inputs import Rows, then
from penstock.engine.models.packaging.sklearn.members import members

_near = 1e-9
"""Squares of distances so near each other, relative to the squares that they are differences of, count as equal."""


def undecided(model: Any, rows: Rows) -> Callable[[Any], NDArray[np.bool_]] | None:
    """Which rows (R,) of the original's are so; None: no KNNImputer is in the model."""
    found = [*_imputers(model, rows)]
    if not found:
        return None

    def of(given: Any) -> NDArray[np.bool_]:
        return np.asarray(
            np.any([_ties(step, np.asarray(at.apply(given), dtype=np.float64)) for step, at in found], axis=0)
        )

    return of


def _imputers(model: Any, rows: Rows) -> Iterator[tuple[KNNImputer, Rows]]:
    """Each with what it is given."""
    if isinstance(model, KNNImputer):
        yield model, rows
    elif isinstance(model, Pipeline):
        for _, step in model.steps:
            yield from _imputers(step, rows)
            if hasattr(step, "transform"):
                rows = then(step, rows)
    elif isinstance(model, ColumnTransformer):
        for _, step, places in branches(model):
            yield from _imputers(step, rows.chosen(places))
    elif isinstance(model, FeatureUnion):
        for _, step in model.transformer_list:
            yield from _imputers(step, rows)
    else:
        for each in members(model):
            yield from _imputers(each, rows)


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
