"""Mixtures of normal distributions: what stands for them in a surrogate."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.mixture import BayesianGaussianMixture, GaussianMixture


class Mixture(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Of a mixture of normal distributions, how likely each has made the row."""

    def __init__(
        self, means: NDArray[np.float64], factors: NDArray[np.float64], offsets: NDArray[np.float64]
    ) -> None:
        """`means` (K, F); `factors` (K, F, F): what a row less its mean is multiplied by; `offsets` (K,): logarithms of what
        does not depend on the row."""
        self.means = means
        self.factors = factors
        self.offsets = offsets
        self.classes_ = np.arange(len(means))


def mixture_model(model: Any) -> Mixture | None:
    """What stands for a fitted mixture; None for any other model."""
    if not isinstance(model, (GaussianMixture, BayesianGaussianMixture)):
        return None
    means = np.asarray(model.means_, dtype=np.float64)
    (count, width), given = means.shape, np.asarray(model.precisions_cholesky_, dtype=np.float64)
    if model.covariance_type == "full":
        factors = given
    elif model.covariance_type == "tied":
        factors = np.broadcast_to(given, (count, width, width)).copy()
    else:  # one number for each column, or one for all of them
        factors = np.eye(width) * np.broadcast_to(given.reshape(count, -1, 1), (count, width, 1))
    # At the middle of a component nothing depends on the row: its weight and its volume, whatever they are estimated from.
    offsets = np.diagonal(model._estimate_weighted_log_prob(means))
    return Mixture(means, factors, offsets)
