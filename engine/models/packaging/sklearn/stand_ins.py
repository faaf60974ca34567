"""Estimators that stand for one of scikit-learn's in a surrogate, because skl2onnx has no operator for it or loses digits."""

import copy
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.decomposition import FactorAnalysis, FastICA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    IsolationForest,
    StackingClassifier,
)
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection._classification_threshold import BaseThresholdClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import RegressorChain
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import Binarizer, FunctionTransformer, KBinsDiscretizer
from sklearn.svm import SVC, SVR, NuSVC, NuSVR, OneClassSVM
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.validation import check_is_fitted

from penstock.engine.models.packaging.sklearn.boosters import is_booster
from penstock.engine.models.packaging.sklearn.columns import function_name
from penstock.engine.models.packaging.sklearn.committees.stand_ins import against_the_rest, committee
from penstock.engine.models.packaging.sklearn.kernels.machines import KernelChances, classes_max
from penstock.engine.models.packaging.sklearn.kernels.mixtures import mixture_model
from penstock.engine.models.packaging.sklearn.kernels.neighbours import neighbour_model
from penstock.engine.models.packaging.sklearn.kernels.processes import process_model
from penstock.engine.models.packaging.sklearn.kernels.stand_ins import kernel_model
from penstock.engine.models.packaging.sklearn.members import members, with_members
from penstock.engine.models.packaging.sklearn.step_stand_ins import (
    Above,
    Bins,
    Marks,
    Narrow,
    Projection,
    filled_of,
)
from penstock.schemas.errors import ConfigError

Shares = Literal["", "softmax", "each", "rest", "clipped"]
"""Softmax (of two classes the sigmoid), a sigmoid of each score over their sum (where that is 0, `each` has no answer, `rest` answers
0), or each score from -1 to 1 as a share."""


class LinearScores(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Weights times the row, and an intercept: (N, K)."""

    def __init__(self, coef: NDArray[np.float64], intercept: NDArray[np.float64]) -> None:
        """`coef` (K, F), `intercept` (K,)."""
        self.coef = coef
        self.intercept = intercept


class LinearDecision(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A linear classifier that answers its decision function, and the class which that speaks for."""

    def __init__(self, scores: LinearScores, classes_: NDArray[Any], shares: Shares) -> None:
        """`classes_`: as the original calls them. `shares`: what makes probabilities of the scores; "" leaves them."""
        self.scores = scores
        self.classes_ = classes_
        self.shares = shares


class KernelScores(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """The decision function of a kernel machine of one margin, or its answers: (N, 1)."""

    def __init__(self, machine: Any) -> None:
        """A fitted SVC of two classes, a OneClassSVM, or a regression."""
        self.machine = machine


class KernelDecision(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A kernel machine that answers its decision function, and the class which that speaks for."""

    def __init__(self, machine: Any, classes_: NDArray[Any]) -> None:
        """A fitted SVC or NuSVC without probabilities; `classes_`: as the original calls them."""
        self.machine = machine
        self.classes_ = classes_


class TreeMargin(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """The raw scores of boosted trees: (N, K)."""

    def __init__(self, trees: Any) -> None:
        """A fitted boosting classifier."""
        self.trees = trees


class Isolation(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """The decision function of an isolation forest: (N, 1)."""

    def __init__(self, forest: IsolationForest) -> None:
        """A fitted one."""
        self.forest = forest


class Constant(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """The same numbers for every row: (N, K)."""

    def __init__(self, values: NDArray[np.float64]) -> None:
        """`values` (K,)."""
        self.values = values


class ConstantShares(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """The same probabilities for every row."""

    def __init__(self, values: NDArray[np.float64], classes_: NDArray[Any]) -> None:
        """`values` (K,), of `classes_` in order."""
        self.values = values
        self.classes_ = classes_


class Calibrated(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """The mean of what calibrators make of their members' scores."""

    def __init__(self, scores: list[Any], calibrators: list[list[Any]], classes_: NDArray[Any]) -> None:
        """`scores`: stand-ins whose first output is a score for each calibrator, or estimators with probabilities."""
        self.scores = scores
        self.calibrators = calibrators
        self.classes_ = classes_


class Median(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """The weighted median of what regressors answer."""

    def __init__(self, regressors: list[Any], weights: NDArray[np.float64]) -> None:
        """`weights` (M,), of the regressors in order."""
        self.regressors = regressors
        self.weights = weights


class Votes(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Weighted votes of trees for classes, put through a softmax."""

    def __init__(self, trees: list[Any], weights: NDArray[np.float64], classes_: NDArray[Any]) -> None:
        """`weights` (M,), of the trees in order; `classes_`: as the original calls them, all known to each tree."""
        self.trees = trees
        self.weights = weights
        self.classes_ = classes_


class Stacked(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A classifier of what others answer."""

    def __init__(
        self, below: list[tuple[Any, bool]], final: Any, passes_on: bool, classes_: NDArray[Any]
    ) -> None:
        """`below`: stand-ins, and whether their first number is left out; `passes_on`: `final` gets the row as well."""
        self.below = below
        self.final = final
        self.passes_on = passes_on
        self.classes_ = classes_


class Chained(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Regressors of which each is given the row and what those before it answer: (N, K)."""

    def __init__(self, regressors: list[Any], order: NDArray[np.int64]) -> None:
        """`order` (K,): the place of each one's answer."""
        self.regressors = regressors
        self.order = order


class Retargeted(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A function of NumPy, by name, or a straight line, of what a regressor answers."""

    def __init__(self, regressor: Any, function: str, slope: float, offset: float) -> None:
        """`function` of slope * answer + offset."""
        self.regressor = regressor
        self.function = function
        self.slope = slope
        self.offset = offset


def stand_in(model: Any) -> Any | None:
    """What stands for a fitted estimator; None where it may stand for itself. Raises ConfigError for what has no place."""
    if isinstance(model, DummyRegressor):
        return Constant(np.asarray(model.constant_, dtype=np.float64).reshape(-1))
    if isinstance(model, DummyClassifier):
        if model.strategy in ("stratified", "uniform"):
            raise ConfigError(
                f"DummyClassifier(strategy={model.strategy!r}) answers by lot: no bundle repeats that"
            )
        shares = model.predict_proba(np.zeros((1, 1)))[0]
        return ConstantShares(np.asarray(shares, dtype=np.float64), model.classes_)
    if isinstance(model, SimpleImputer):
        return filled_of(model)
    if isinstance(model, MissingIndicator) and isinstance(model.missing_values, (int, float)):
        return Marks(np.asarray(model.features_, dtype=np.int64), float(model.missing_values))
    if isinstance(model, (FastICA, FactorAnalysis)):
        width = int(model.n_features_in_)
        at_zero = model.transform(np.zeros((1, width)))
        return Projection((model.transform(np.eye(width)) - at_zero).T, at_zero[0])
    if isinstance(model, BaseThresholdClassifier):
        raise ConfigError(
            f"{type(model).__name__} calls classes by a threshold of its own, which no bundle holds: package its estimator_, "
            "and compare the probability with the threshold where the prediction is used"
        )
    if isinstance(model, KBinsDiscretizer):
        return Bins(
            [np.asarray(edges[1:-1], dtype=np.float64) for edges in model.bin_edges_],
            model.encode != "ordinal",
        )
    if isinstance(model, Binarizer):
        return Above(float(model.threshold))
    if isinstance(model, (OneClassSVM, SVR, NuSVR)) and _is_kernel(model):
        return KernelScores(model)
    if isinstance(model, (SVC, NuSVC)) and _is_kernel(model) and not hasattr(model, "predict_proba"):
        return KernelDecision(model, model.classes_)
    if isinstance(model, (SVC, NuSVC)) and _is_kernel(model) and len(model.classes_) <= classes_max:
        return KernelChances(model, model.classes_)
    if isinstance(model, CalibratedClassifierCV):
        return _calibrated(model)
    if isinstance(model, StackingClassifier) and "predict" not in model.stack_method_:
        return _stacked(model)
    if isinstance(model, RegressorChain):
        inner = [stand_in(each) or each for each in model.estimators_]
        return Chained(inner, np.asarray(model.order_, dtype=np.int64))
    if isinstance(model, AdaBoostRegressor):
        return Median(list(model.estimators_), np.asarray(model.estimator_weights_)[: len(model.estimators_)])
    if isinstance(model, AdaBoostClassifier) and all(
        isinstance(each, DecisionTreeClassifier) and len(each.classes_) == len(model.classes_)
        for each in model.estimators_
    ):
        weights = np.asarray(model.estimator_weights_)[: len(model.estimators_)]
        return Votes(list(model.estimators_), weights / np.sum(model.estimator_weights_), model.classes_)
    if isinstance(model, TransformedTargetRegressor):
        return _retargeted(model)
    if isinstance(model, IsolationForest):
        return Isolation(model)
    near = neighbour_model(model)
    if near is not None:
        return near
    if hasattr(getattr(model, "_fit_X", None), "toarray"):  # neighbours among rows that were sparse
        dense = copy.copy(model)
        dense._fit_X = model._fit_X.toarray()
        return dense
    found = committee(model) or kernel_model(model) or process_model(model) or mixture_model(model)
    if found is not None:
        return found
    if isinstance(model, OneVsRestClassifier):
        return against_the_rest(model)
    linear = _linear(model)
    if linear is not None and isinstance(model, LinearDiscriminantAnalysis):
        return LinearDecision(linear, model.classes_, shares="softmax")
    if linear is not None and not hasattr(model, "predict_proba"):
        return LinearDecision(linear, model.classes_, shares="")
    if linear is not None and isinstance(model, (LogisticRegression, SGDClassifier)):
        return LinearDecision(linear, model.classes_, shares=_shares(model))
    return None


def _stacked(model: StackingClassifier) -> Stacked:
    below = []
    methods = [method for method in model.stack_method_ if method != "drop"]
    for each, method in zip(model.estimators_, methods, strict=True):
        shares = method == "predict_proba"
        score = each if shares else margin(each, "StackingClassifier")
        below.append((score, shares and len(model.classes_) == 2))
    final = model.final_estimator_
    return Stacked(below, stand_in(final) or final, bool(model.passthrough), model.classes_)


def narrowed_last(model: Any) -> Any:
    """A copy whose steps compute in doubles, and whose last ones take float32."""
    if isinstance(model, Pipeline):
        name, last = model.steps[-1]
        return Pipeline([*model.steps[:-1], ("narrow", Narrow()), (name, last)])
    inner = members(model)
    return with_members(model, [narrowed_last(each) for each in inner]) if inner else model


def _is_kernel(model: Any) -> bool:
    return isinstance(model.kernel, str) and model.kernel in ("linear", "rbf", "poly", "sigmoid")


def _linear(model: Any) -> LinearScores | None:
    """The decision function of a linear classifier."""
    known = isinstance(getattr(model, "coef_", None), np.ndarray) and isinstance(model, ClassifierMixin)
    if not known or not type(model).__module__.startswith("sklearn.") or isinstance(model, (SVC, NuSVC)):
        return None
    if not hasattr(model, "decision_function"):
        return None
    check_is_fitted(model)
    coef = np.atleast_2d(np.asarray(model.coef_, dtype=np.float64))
    return LinearScores(
        coef, np.broadcast_to(np.asarray(model.intercept_, dtype=np.float64).reshape(-1), len(coef))
    )


def _shares(model: Any) -> Shares:
    """How it makes probabilities of its decision function."""
    if isinstance(model, SGDClassifier):
        return "clipped" if model.loss == "modified_huber" else "each"
    several = len(model.classes_) > 2
    ways = (getattr(model, "multi_class", "auto"), model.solver)
    return "each" if "ovr" in ways or (several and "liblinear" in ways) else "softmax"


def _calibrated(model: CalibratedClassifierCV) -> Calibrated:
    if model.method not in ("sigmoid", "isotonic"):
        raise ConfigError(
            f"CalibratedClassifierCV(method={model.method!r}) has no operators yet: use sigmoid or isotonic"
        )
    scores, calibrators = [], []
    for each in model.calibrated_classifiers_:
        scores.append(margin(each.estimator, "CalibratedClassifierCV"))
        calibrators.append(list(each.calibrators))
    return Calibrated(scores, calibrators, model.classes_)


def margin(model: Any, asked_by: str) -> Any:
    """What a calibrator is given: the decision function where there is one, else probabilities. Raises ConfigError, naming who
    asks for it, where there is no way."""
    if isinstance(model, Pipeline):
        return Pipeline([*model.steps[:-1], (model.steps[-1][0], margin(model.steps[-1][1], asked_by))])
    if isinstance(model, LinearDecision):
        return model.scores
    if isinstance(model, (KernelDecision, KernelChances)) and len(model.classes_) == 2:
        return KernelScores(model.machine)
    if not hasattr(model, "decision_function"):
        return model
    linear = _linear(model)
    if linear is not None:
        return linear
    if isinstance(model, (GradientBoostingClassifier, HistGradientBoostingClassifier)) or is_booster(model):
        return TreeMargin(model)
    if isinstance(model, (SVC, NuSVC)) and len(model.classes_) == 2 and _is_kernel(model):
        return KernelScores(model)
    raise ConfigError(
        f"{asked_by} reads the decision function of {type(model).__name__}, which has no operators: give it a linear model, "
        "trees or a model of probabilities alone"
    )


def _retargeted(model: TransformedTargetRegressor) -> Retargeted:
    transformer = model.transformer_
    if isinstance(transformer, FunctionTransformer):
        inverse = (
            FunctionTransformer(transformer.inverse_func)
            if transformer.inverse_func
            else FunctionTransformer()
        )
        name = function_name(inverse)
        if name is None or (transformer.func is not None and transformer.inverse_func is None):
            raise ConfigError(
                "TransformedTargetRegressor puts its answers through a Python function, which no ONNX graph can hold: use a "
                "function of NumPy, as inverse_func=numpy.expm1"
            )
        return Retargeted(model.regressor_, name, 1.0, 0.0)
    known = ("StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler")
    is_known = type(transformer).__name__ in known and type(transformer).__module__.startswith("sklearn.")
    if not is_known or transformer.n_features_in_ != 1:
        raise ConfigError(
            f"TransformedTargetRegressor puts its answers through {type(transformer).__name__} backwards, which has no "
            "operators: use a scaler of one target, or a function of NumPy"
        )
    ends = transformer.inverse_transform(np.array([[0.0], [1.0]])).reshape(-1)
    return Retargeted(model.regressor_, "identity", float(ends[1] - ends[0]), float(ends[0]))
