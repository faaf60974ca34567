"""Gaussian processes: what stands for them in a surrogate, and which kernels have operators."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.gaussian_process import GaussianProcessClassifier, GaussianProcessRegressor, kernels
from sklearn.multiclass import OneVsRestClassifier

from penstock.schemas.errors import ConfigError

cells_max: Final = 1 << 22
"""Rows kept from training times columns, or times themselves."""
pairwise: Final = {"linear": "linear", "rbf": "rbf", "poly": "polynomial", "polynomial": "polynomial", "sigmoid": "sigmoid", "laplacian": "laplacian"}  # fmt: skip


class Processes(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A Gaussian process for the second of two classes, or one for each class against the rest."""

    def __init__(self, fitted: Sequence[Any], classes_: NDArray[Any]) -> None:
        """`fitted`: scikit-learn's processes of two classes; `classes_`: as the original calls them."""
        self.fitted = fitted
        self.classes_ = classes_


class ProcessMean(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """The mean of a Gaussian process: (N, K)."""

    def __init__(self, fitted: Any) -> None:
        """A fitted GaussianProcessRegressor."""
        self.fitted = fitted
        self.weights = np.asarray(fitted.alpha_, dtype=np.float64).reshape(len(fitted.X_train_), -1)


def process_model(model: Any) -> Processes | ProcessMean | None:
    """What stands for a fitted Gaussian process; None for any other. Raises ConfigError where there is no way."""
    if isinstance(model, GaussianProcessRegressor):
        rows = _table_of(model, "GaussianProcessRegressor")
        if rows.size > cells_max:
            raise ConfigError(
                f"GaussianProcessRegressor compares a record with {len(rows):,} rows of {rows.shape[1]} columns, more than "
                f"{cells_max:,} numbers: fit it on a sample, or use KernelRidge behind Nystroem"
            )
        try:
            _refuse(model.kernel_, "GaussianProcessRegressor")
        except ConfigError:  # skl2onnx may have operators for it
            return None
        return ProcessMean(model)
    if not isinstance(model, GaussianProcessClassifier):
        return None
    inner = model.base_estimator_
    if hasattr(inner, "estimators_") and not isinstance(inner, OneVsRestClassifier):
        raise ConfigError(
            "GaussianProcessClassifier(multi_class='one_vs_one') answers classes alone, without probabilities: use 'one_vs_rest'"
        )
    fitted = list(inner.estimators_) if isinstance(inner, OneVsRestClassifier) else [inner]
    for each in fitted:
        rows = _table_of(each, "GaussianProcessClassifier")
        if max(rows.size, len(rows) ** 2) > cells_max:
            raise ConfigError(
                f"GaussianProcessClassifier compares a record with {len(rows):,} rows of {rows.shape[1]} columns, and each of these "
                f"with the others: more than {cells_max:,} numbers; fit it on a sample, or use SVC behind CalibratedClassifierCV"
            )
        _refuse(each.kernel_, "GaussianProcessClassifier")
    return Processes(fitted, np.asarray(model.classes_))


def _table_of(process: Any, name: str) -> NDArray[Any]:
    rows = np.asarray(process.X_train_)
    if rows.ndim != 2 or rows.dtype.kind not in "fiub":
        raise ConfigError(f"{name} was trained on what is no table of numbers: its kernel has no operators")
    return rows


def _refuse(kernel: Any, whose: str) -> None:
    """Raises ConfigError for a kernel without operators."""
    inner = [getattr(kernel, name) for name in ("k1", "k2") if hasattr(kernel, name)]
    inner += [kernel.kernel] if isinstance(kernel, kernels.Exponentiation) else []
    for each in inner:
        _refuse(each, whose)
    if type(kernel) not in _known or (
        isinstance(kernel, kernels.Matern) and kernel.nu not in (0.5, 1.5, 2.5, np.inf)
    ):
        raise ConfigError(
            f"{whose} has the kernel {str(kernel)[:80]}, which has no operators: use RBF, Matern of nu 0.5, 1.5, 2.5 or "
            "inf, RationalQuadratic, ExpSineSquared, DotProduct, PairwiseKernel, and sums, products and powers of them"
        )
    if isinstance(kernel, kernels.PairwiseKernel) and kernel.metric not in pairwise:
        raise ConfigError(
            f"{whose} compares rows by PairwiseKernel(metric={kernel.metric!r}), which has no operators: use one of "
            f"{', '.join(pairwise)}"
        )


_known: Final = (
    kernels.Sum, kernels.Product, kernels.Exponentiation, kernels.ConstantKernel, kernels.WhiteKernel, kernels.RBF, kernels.Matern,
    kernels.RationalQuadratic, kernels.ExpSineSquared, kernels.DotProduct, kernels.PairwiseKernel,
)  # fmt: skip
