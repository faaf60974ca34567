"""LIME of tree ensembles in closed form: what its sampling converges to, without the sampling.

Weighted, the perturbed records' features are independent (see lime_bins), so the coefficient of feature j in the weighted
least squares is E[f | j stays] - E[f | j leaves]. Over the leaves of the trees both are sums of products over the features on
the path: the shares of the background's values, in the record's bin and outside of it, that pass the path's tests.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

from penstock.engine.explain.lime.bins import Bins, find_bins
from penstock.engine.explain.sampled.explainer import representatives
from penstock.engine.explain.tree.outputs import TreeOutputs
from penstock.engine.explain.tree.reference import (
    Paths,
    add_to_features,
    leaf_paths,
    lone_leaves,
    products_of_others,
    row_chunks,
    satisfied,
)
from penstock.engine.explain.tree.tree_shap import as_rows
from penstock.engine.features.signature import Signature
from penstock.engine.ports import Attributions, Predictions
from penstock.engine.trees.forest import Forest
from penstock.schemas.errors import ConfigError

background_rows_max = 1024
table_cells_max = 1 << 25
"""Path elements times bins: a quarter of a gigabyte for each of the two tables."""


class LimeTreeExplainer:
    """The Explainer port; values are coefficients of the local surrogate, in the raw score: what staying in the record's own
    bin adds, on average over the perturbed records. `base` is the surrogate where every feature has left, and
    `additivity_error` is the surrogate at the record less the model's raw score: how well the surrogate fits there.

    A feature whose bin holds none of the background's values, or all of them, cannot be told about and gets 0.
    """

    def __init__(
        self, forest: Forest, signature: Signature, background: NDArray[np.generic], *, output: str
    ) -> None:
        """Raises ConfigError: no such output, or tables too large."""
        rows = as_rows(representatives(background, background_rows_max), forest.features)
        self._forest = forest
        self._outputs = TreeOutputs(forest, output)
        self._bins = find_bins(rows, signature)
        self._digest = hashlib.sha256(rows.tobytes()).hexdigest()
        groups = list(leaf_paths(forest))
        cells = sum(paths.feature.size for paths in groups) * self._bins.count
        if cells > table_cells_max:
            raise ConfigError(
                f"explain.method lime: the trees need tables of {cells} cells, more than {table_cells_max}"
            )
        self._groups = [(paths, *_tables(forest, paths, rows, self._bins)) for paths in groups]
        self._lone = forest.base_values + lone_leaves(forest)

    def explain(self, matrix: NDArray[np.generic], predictions: Predictions) -> Attributions:
        """One explanation a row; with `all`, every output of the first row, then of the second, and so on."""
        rows = as_rows(matrix, self._forest.features)
        values, mean = self._moments(rows)
        places = self._bins.of(rows)
        stay = self._bins.stay[np.arange(rows.shape[1]), places]  # (n, F)
        base = mean - np.einsum("nfk,nf->nk", values, stay)
        raw = self._forest.raw_scores(rows)
        index, picked, start, score = self._outputs.picked(values, base, raw, predictions)
        return Attributions(
            values=picked,
            base=start,
            output_index=index,
            output_name=self._forest.output_name,
            additivity_error=start + picked.sum(axis=1) - score,
            sampling_error=None,
            method="lime",
            space=self._forest.space,
            background=self._digest,
        )

    def _moments(self, rows: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Coefficients (n, F, K), and the mean score over the weighted perturbed records, (n, K)."""
        forest, bins = self._forest, self._bins
        values = np.zeros((len(rows), forest.features, forest.outputs))
        mean = np.tile(self._lone, (len(rows), 1))
        for paths, passing, change in self._groups:
            element = np.arange(paths.feature.size).reshape(paths.feature.shape) * bins.count
            for part in row_chunks(len(rows), paths.feature.size):
                at = element + bins.of(rows[part])[:, paths.feature]  # (r, P, D)
                factor = passing[at]
                others = products_of_others(factor)
                mean[part] += (others[..., 0] * factor[..., 0]) @ forest.leaf_values[paths.leaf_row]
                add_to_features(values[part], paths, forest, others * change[at])
        return values, mean


def _tables(
    forest: Forest, paths: Paths, rows: NDArray[np.float32], bins: Bins
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For each element of the paths and each bin of a record, flat: the chance that a weighted perturbed record passes, and
    how much more that is when its feature stays than when it leaves."""
    elements = paths.feature.size
    passing = np.zeros(elements * bins.count)
    feature = paths.feature.reshape(-1)
    places = bins.of(rows)
    offset = np.arange(elements) * bins.count
    for part in row_chunks(len(rows), max(elements, len(paths.node))):
        passed = satisfied(forest, paths, rows[part]).reshape(-1, elements)
        for row, place in zip(passed, places[part][:, feature], strict=True):
            passing[offset + place] += row
    passing = passing.reshape(elements, bins.count) / len(rows)
    share, stay = bins.share[feature], bins.stay[feature]  # (elements, bins)
    total = passing.sum(axis=1, keepdims=True)
    told = (share > 0) & (share < 1)
    inside = np.divide(passing, share, out=np.tile(total, (1, bins.count)), where=told)
    outside = np.divide(total - passing, 1 - share, out=np.tile(total, (1, bins.count)), where=told)
    return (stay * inside + (1 - stay) * outside).reshape(-1), (inside - outside).reshape(-1)
