"""Fitted estimators inside others: what is inside, and copies with something else inside."""

import copy
from typing import Any

import numpy as np

wrapped = {
    "SelfTrainingClassifier": "estimator_",
    "FrozenEstimator": "estimator",
    "RANSACRegressor": "estimator_",
}
"""Estimators that answer what one inside them answers, and how that is called."""


def members(model: Any) -> list[Any]:
    """Fitted estimators inside a model that are given what it is given."""
    if type(model).__name__ in wrapped:  # first: a frozen one has the attributes of what is inside
        return [getattr(model, wrapped[type(model).__name__])]
    if hasattr(model, "best_estimator_"):
        return [model.best_estimator_]
    if hasattr(model, "calibrated_classifiers_"):
        return [each.estimator for each in model.calibrated_classifiers_]
    if hasattr(model, "regressor_"):
        return [model.regressor_]
    if any(name in type(model).__name__ for name in ("Voting", "Stacking", "MultiOutput", "OneVsRest")):
        return [each for each in model.estimators_ if not isinstance(each, str)]
    return []


def with_members(model: Any, inner: list[Any]) -> Any:
    """A copy of the model with these in place of its members; of a search, and of training by itself, what it found."""
    if hasattr(model, "best_estimator_") or type(model).__name__ in wrapped:
        return inner[0]
    copied = copy.copy(model)
    if hasattr(model, "calibrated_classifiers_"):
        copied.calibrated_classifiers_ = []
        for old, new in zip(model.calibrated_classifiers_, inner, strict=True):
            each = copy.copy(old)
            each.estimator = new
            copied.calibrated_classifiers_.append(each)
    elif hasattr(model, "regressor_"):
        copied.regressor_ = inner[0]
    else:
        copied.estimators_ = inner
    if isinstance(getattr(model, "weights", None), list):
        copied.weights = np.asarray(model.weights, dtype=np.float64)  # skl2onnx takes no list
    if hasattr(model, "flatten_transform"):
        copied.flatten_transform = False  # of transform() alone, and all that skl2onnx takes
        if copied.weights is not None:
            # skl2onnx sums an array, and has no place for the weights of members that were dropped.
            copied.weights = np.asarray(model._weights_not_none, dtype=np.float64)
    return copied
