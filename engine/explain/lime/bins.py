"""The words in which LIME explains: of each feature, whether a perturbed record stays in the record's own bin.

Bins are those of the `lime` package for tables: quartiles of a number, the value itself of a category; missing is a bin.
Perturbed records draw every feature on its own from the background rows' values of it. LIME weighs a perturbed record by
exp(-d / (2 w^2)), d the features that left their bin, w = 0.75 sqrt(F). Both are products over the features, so that weighted
records are again independent: a feature stays with the chance `stay`.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.engine.features.signature import Signature

_width_squared_per_feature = 0.75**2


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Bins:
    """The bins of F features, and the background's share in each."""

    edges: tuple[NDArray[np.float64], ...]  # of each feature: upper ends of all bins but the last
    share: NDArray[
        np.float64
    ]  # (F, bins), 0 beyond a feature's own; the last of all is that of missing values
    stay: NDArray[np.float64]  # (F, bins) chance, weights included, that a record of this bin stays in it
    leaving: float  # weight of one feature that left its bin

    @property
    def count(self) -> int:
        """Bins a feature, padded to the most that any has."""
        return int(self.share.shape[1])

    def of(self, rows: NDArray[np.generic]) -> NDArray[np.int64]:
        """The bins of rows (R, F), (R, F)."""
        places = np.empty(rows.shape, dtype=np.int64)
        for feature, edges in enumerate(self.edges):
            column = rows[:, feature].astype(np.float64)
            places[:, feature] = np.searchsorted(edges, column, side="left")
            places[np.isnan(column), feature] = self.count - 1
        return places


def find_bins(background: NDArray[np.generic], signature: Signature) -> Bins:
    """The bins of the background rows (n, F), n of them at least 1."""
    edges = []
    for column, feature in zip(background.T, signature.column_features, strict=True):
        values = column[~np.isnan(column.astype(np.float64))].astype(np.float64)
        if feature.kind == "category":
            edges.append(np.arange(len(feature.categories) - 1, dtype=np.float64))
        elif len(values) == 0:
            edges.append(np.empty(0))
        else:
            edges.append(np.unique(np.quantile(values, [0.25, 0.5, 0.75], method="inverted_cdf")))
    features, most = background.shape[1], max(len(each) for each in edges) + 2
    leaving = math.exp(-1 / (2 * _width_squared_per_feature * features))
    empty = np.zeros((features, most))
    bins = Bins(edges=tuple(edges), share=empty, stay=empty, leaving=leaving)
    places = bins.of(background)
    counts = np.stack([np.bincount(places[:, feature], minlength=most) for feature in range(features)])
    share = counts / len(background)
    stay = share / (share + leaving * (1 - share))
    return Bins(edges=tuple(edges), share=share, stay=stay, leaving=leaving)
