"""Stand-ins for kernel regressions, kernel maps and other steps that are known functions of the whole row."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, TransformerMixin
from sklearn.cluster import Birch, BisectingKMeans, FeatureAgglomeration, KMeans, MiniBatchKMeans
from sklearn.covariance import EllipticEnvelope
from sklearn.cross_decomposition import CCA, PLSSVD, PLSCanonical, PLSRegression
from sklearn.decomposition import MiniBatchSparsePCA, SparsePCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.feature_selection import SelectorMixin
from sklearn.isotonic import IsotonicRegression
from sklearn.kernel_approximation import (
    AdditiveChi2Sampler,
    Nystroem,
    PolynomialCountSketch,
    RBFSampler,
    SkewedChi2Sampler,
)
from sklearn.kernel_ridge import KernelRidge
from sklearn.neighbors import NearestCentroid, NeighborhoodComponentsAnalysis
from sklearn.neural_network import BernoulliRBM
from sklearn.random_projection import GaussianRandomProjection, SparseRandomProjection
from sklearn.semi_supervised import LabelPropagation, LabelSpreading

from penstock.engine.models.packaging.sklearn.step_stand_ins import Projection
from penstock.schemas.errors import ConfigError

kernel_cells_max = 1 << 22
"""Rows kept from training times columns."""
sketch_max = 1024
"""Components of a sketch: a matrix of its square is kept."""
_linear = (
    CCA, PLSCanonical, PLSRegression, PLSSVD, SparsePCA, MiniBatchSparsePCA, NeighborhoodComponentsAnalysis,
    GaussianRandomProjection, SparseRandomProjection, LinearDiscriminantAnalysis, FeatureAgglomeration,
)  # fmt: skip
"""What they make of a row is sums of products, and tried on rows before that is believed."""
_names = {"poly": "polynomial"}
_known = ("linear", "rbf", "polynomial", "sigmoid", "laplacian", "cosine")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Kernel:
    """How alike two rows are, as scikit-learn's pairwise kernels have it."""

    name: str
    gamma: float
    degree: float
    coef0: float


class _Likeness(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """How alike a row is to some rows, weighted: (N, K)."""

    def __init__(self, kernel: Kernel, vectors: NDArray[np.float64], weights: NDArray[np.float64]) -> None:
        """`vectors` (M, F), `weights` (M, K)."""
        self.kernel = kernel
        self.vectors = vectors
        self.weights = weights


class KernelMap(TransformerMixin, _Likeness):  # type: ignore[misc]  # scikit-learn has no types
    """As a step."""


class KernelAnswer(RegressorMixin, _Likeness):  # type: ignore[misc]  # scikit-learn has no types
    """As what a model answers."""


class Distances(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """How far a row is from some places: (N, K)."""

    def __init__(self, places: NDArray[np.float64]) -> None:
        """`places` (K, F)."""
        self.places = places


class Isotone(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Lines between known points of one number, level beyond them: (N, 1)."""

    def __init__(self, fitted: IsotonicRegression) -> None:
        """A fitted one."""
        self.fitted = fitted


class KernelShares(ClassifierMixin, _Likeness):  # type: ignore[misc]  # scikit-learn has no types
    """The same as shares of one, of classes."""

    def __init__(
        self,
        kernel: Kernel,
        vectors: NDArray[np.float64],
        weights: NDArray[np.float64],
        classes_: NDArray[Any],
    ) -> None:
        """`classes_`: as the original calls them."""
        super().__init__(kernel, vectors, weights)
        self.classes_ = classes_


class Waves(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Cosines of sums of products, of the numbers or of their logarithms."""

    def __init__(
        self, weights: NDArray[np.float64], offset: NDArray[np.float64], scale: float, skew: float | None
    ) -> None:
        """`weights` (F, K), `offset` (K,); `skew`: added before the logarithm, None: there is none."""
        self.weights = weights
        self.offset = offset
        self.scale = scale
        self.skew = skew


class Chi2Steps(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Of each number its root, and waves of its logarithm; of 0 zeros."""

    def __init__(self, interval: float, steps: int, width: int) -> None:
        """`steps` of `interval`, of `width` columns."""
        self.interval = interval
        self.steps = steps
        self.width = width


class Sketch(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A count sketch of products of columns, by the Fourier transforms of sketches of the columns."""

    def __init__(self, hashed: NDArray[np.float64], constant: NDArray[np.float64]) -> None:
        """`hashed` (D, F, K): of each factor what a column adds to each component; `constant` (D, K): whatever the row."""
        self.hashed = hashed
        self.constant = constant


class Hidden(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Sigmoids of sums of products."""

    def __init__(self, scores: Projection) -> None:
        """`scores`: the sums."""
        self.scores = scores


class Ellipse(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A number less the squared distance from a middle, in units of a covariance: (N, 1)."""

    def __init__(self, middle: NDArray[np.float64], precision: NDArray[np.float64], offset: float) -> None:
        """`middle` (F,), `precision` (F, F), `offset`: what is taken off the negative distance."""
        self.middle = middle
        self.precision = precision
        self.offset = offset


class Centroids(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Probabilities by the distance from the middle of each class; the class by that distance too, or by the bare one."""

    def __init__(
        self,
        middles: NDArray[np.float64],
        scale: NDArray[np.float64],
        priors: NDArray[np.float64],
        bare: bool,
        classes_: NDArray[Any],
    ) -> None:
        """`middles` (K, F); `scale` (F,): what columns are divided by; `priors` (K,); `bare`: the class is that of the
        nearest middle before columns are divided."""  # fmt: skip
        self.middles = middles
        self.scale = scale
        self.priors = priors
        self.bare = bare
        self.classes_ = classes_


def kernel_model(model: Any) -> Any | None:
    """What stands for such a fitted model; None for any other. Raises ConfigError, naming it, where there is no way."""
    if isinstance(model, KernelRidge):
        weights = np.asarray(model.dual_coef_, dtype=np.float64)
        vectors = _vectors(model, model.X_fit_)
        return KernelAnswer(_kernel(model, vectors), vectors, weights.reshape(len(weights), -1))
    if isinstance(model, (LabelPropagation, LabelSpreading)):
        if model.kernel != "rbf":
            raise ConfigError(
                f"{type(model).__name__}(kernel={model.kernel!r}) asks for neighbours: use kernel='rbf', or KNeighborsClassifier"
            )
        vectors = _vectors(model, model.X_)
        kernel = Kernel(name="rbf", gamma=float(model.gamma), degree=1.0, coef0=0.0)
        return KernelShares(
            kernel, vectors, np.asarray(model.label_distributions_, dtype=np.float64), model.classes_
        )
    if isinstance(model, EllipticEnvelope):
        return Ellipse(
            np.asarray(model.location_, dtype=np.float64),
            np.asarray(model.get_precision(), dtype=np.float64),
            float(model.offset_),
        )
    if isinstance(model, NearestCentroid):
        return _centroids(model)
    if isinstance(model, IsotonicRegression):
        if model.out_of_bounds != "clip":
            raise ConfigError(
                f"IsotonicRegression(out_of_bounds={model.out_of_bounds!r}) has no answer beyond the numbers of training: use 'clip'"
            )
        return Isotone(model)
    if isinstance(model, (CCA, PLSCanonical)):
        from penstock.engine.models.packaging.sklearn.stand_ins import LinearScores

        coef, intercept = _line(model, model.predict)
        return LinearScores(coef, intercept)
    return None


def kernel_step(step: Any) -> Any | None:
    """What stands for such a fitted step; None for any other. Raises ConfigError, naming it, where there is no way."""
    if isinstance(step, _linear) and hasattr(step, "transform"):
        return Projection(*_line(step, step.transform))
    if isinstance(step, (KMeans, MiniBatchKMeans, BisectingKMeans)):
        return Distances(np.asarray(step.cluster_centers_, dtype=np.float64))
    if isinstance(step, Birch):
        return Distances(np.asarray(step.subcluster_centers_, dtype=np.float64))
    if isinstance(step, Nystroem):
        vectors = _vectors(step, step.components_)
        weights = np.ascontiguousarray(np.asarray(step.normalization_, dtype=np.float64).T)
        return KernelMap(_kernel(step, vectors), vectors, weights)
    if isinstance(step, (RBFSampler, SkewedChi2Sampler)):
        weights = np.asarray(step.random_weights_, dtype=np.float64)
        offset = np.asarray(step.random_offset_, dtype=np.float64)
        skew = float(step.skewedness) if isinstance(step, SkewedChi2Sampler) else None
        return Waves(weights, offset, float(np.sqrt(2.0 / step.n_components)), skew)
    if isinstance(step, AdditiveChi2Sampler):
        steps = int(step.sample_steps)
        interval = step.sample_interval or {1: 0.8, 2: 0.5, 3: 0.4}[steps]
        return Chi2Steps(float(interval), steps, int(step.n_features_in_))
    if isinstance(step, PolynomialCountSketch):
        return _sketch(step)
    if isinstance(step, BernoulliRBM):
        return Hidden(Projection(np.asarray(step.components_), np.asarray(step.intercept_hidden_)))
    if hasattr(step, "predict") and not isinstance(step, SelectorMixin) and not is_own(step):
        raise ConfigError(
            f"{type(step).__name__} stands before another step, which is given what its transform makes: that has no operators; let it "
            "be the last step, or the member of a StackingRegressor or StackingClassifier"
        )
    return None


def is_own(step: Any) -> bool:
    """Whether it stands for another already."""
    return type(step).__module__.startswith("penstock.")


def _vectors(model: Any, rows: Any) -> NDArray[np.float64]:
    vectors = np.asarray(rows.toarray() if hasattr(rows, "toarray") else rows, dtype=np.float64)
    if vectors.size > kernel_cells_max:
        raise ConfigError(
            f"{type(model).__name__} compares a record with {len(vectors):,} rows of {vectors.shape[1]} columns, more than "
            f"{kernel_cells_max:,} numbers: fit it on a sample"
        )
    return vectors


def _kernel(model: Any, vectors: NDArray[np.float64]) -> Kernel:
    name = _names.get(model.kernel, model.kernel) if isinstance(model.kernel, str) else None
    if name not in _known:
        shown = repr(model.kernel) if isinstance(model.kernel, str) else "a Python function"
        raise ConfigError(
            f"{type(model).__name__} compares rows by {shown}, which has no operators: use one of {', '.join(_known)}"
        )
    given = dict(getattr(model, "kernel_params", None) or {}) if isinstance(model, Nystroem) else {}
    found = {
        key: given.get(key, getattr(model, key))
        for key in ("gamma", "degree", "coef0")
        if given.get(key, getattr(model, key)) is not None
    }
    return Kernel(
        name=str(name),
        gamma=float(found.get("gamma", 1.0 / vectors.shape[1])),
        degree=float(found.get("degree", 3)),
        coef0=float(found.get("coef0", 1)),
    )


def _line(step: Any, made: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights (K, F) and intercept (K,) of a linear step. Raises ConfigError where it is none."""
    width = int(step.n_features_in_)

    def of(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        found = made(rows)
        dense = np.asarray(found.toarray() if hasattr(found, "toarray") else found, dtype=np.float64)
        return dense.reshape(len(rows), -1)

    at_zero = of(np.zeros((1, width)))[0]
    coef = (of(np.eye(width)) - at_zero).T
    rows = np.random.default_rng(0).normal(size=(16, width))
    wanted = of(rows)
    if not np.allclose(
        rows @ coef.T + at_zero, wanted, rtol=1e-8, atol=1e-8 * np.abs(wanted).max(initial=1.0)
    ):
        raise ConfigError(f"{type(step).__name__} makes no sums of products here: use PCA")
    return np.ascontiguousarray(coef), at_zero


def _sketch(step: PolynomialCountSketch) -> Sketch:
    count, places, signs = int(step.n_components), step.indexHash_, step.bitHash_
    if count > sketch_max:
        raise ConfigError(
            f"PolynomialCountSketch of {count:,} components: {sketch_max:,} are the most; use fewer"
        )
    degree, width = places.shape
    hashed = np.zeros((degree, width, count))
    for factor in range(degree):
        hashed[factor, np.arange(width), places[factor]] = signs[factor]
    if step.coef0 == 0:
        return Sketch(hashed * np.sqrt(step.gamma), np.zeros((degree, count)))
    return Sketch(hashed[:, :-1] * np.sqrt(step.gamma), hashed[:, -1] * np.sqrt(step.coef0))


def _centroids(model: NearestCentroid) -> Centroids:
    if model.metric != "euclidean" or not hasattr(model, "predict_proba"):
        raise ConfigError(
            "NearestCentroid answers classes alone, without probabilities: with metric='euclidean' scikit-learn 1.6 and later has "
            "them; else use LinearDiscriminantAnalysis"
        )
    spread = np.asarray(model.within_class_std_dev_, dtype=np.float64)
    priors = np.asarray(model.class_prior_, dtype=np.float64)
    return Centroids(
        np.asarray(model.centroids_, dtype=np.float64),
        np.where(spread != 0, spread, 1.0),
        priors,
        bool(np.isclose(priors, 1 / len(priors)).all()),
        model.classes_,
    )
