"""Stand-ins for classifiers of pairs of classes, and for votes by majority."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, is_classifier
from sklearn.ensemble import BaggingClassifier, VotingClassifier
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.pipeline import Pipeline

from penstock.engine.models.packaging.sklearn.step_stand_ins import Chosen
from penstock.schemas.errors import ConfigError


class Pairs(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Votes of a classifier for each pair of classes, and how sure they are to break ties."""

    def __init__(self, members: list[Any], shares: list[bool], classes_: NDArray[Any]) -> None:
        """`members`: of each pair a stand-in of its margin, or a classifier of probabilities, which `shares` says."""
        self.members = members
        self.shares = shares
        self.classes_ = classes_


class Majority(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Each member's weight goes to the class that it says: (N, K) shares of the weights."""

    def __init__(self, members: list[Any], weights: NDArray[np.float64], classes_: NDArray[Any]) -> None:
        """`members`: classifiers whose classes are places of `classes_`; `weights` (M,)."""
        self.members = members
        self.weights = weights
        self.classes_ = classes_


class Rest(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Each class told from all others: probabilities over their sum, or what each decides."""

    def __init__(self, members: list[Any], shares: bool, classes_: NDArray[Any]) -> None:
        """`members`: for each class a classifier of probabilities (`shares`), or a stand-in of its margin; of two classes that of the
        second alone."""
        self.members = members
        self.shares = shares
        self.classes_ = classes_


def weights_of(model: VotingClassifier) -> NDArray[np.float64]:
    """Of the members that were not dropped, (M,)."""
    count = len(model.estimators_)
    if model.weights is None:
        return np.ones(count)
    given = np.asarray(model.weights, dtype=np.float64)
    return given if len(given) == count else np.asarray(model._weights_not_none, dtype=np.float64)


def shares_of(votes: NDArray[np.int64], weights: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Of places of classes that members voted for (N, M) the share of the weights that each class has, (N, K)."""
    found = (votes[:, :, None] == np.arange(count)) * weights[None, :, None]
    return np.asarray(found.sum(axis=1) / weights.sum(), dtype=np.float64)


def committee(model: Any) -> Any | None:
    """What stands for such a fitted classifier; None for any other. Raises ConfigError where there is no way."""
    if isinstance(model, VotingClassifier) and model.voting == "hard":
        from penstock.engine.models.packaging.sklearn.stand_ins import stand_in

        members = [stand_in(each) or each for each in model.estimators_]
        return Majority(members, weights_of(model), model.classes_)
    if isinstance(model, BaggingClassifier) and not hasattr(model.estimators_[0], "predict_proba"):
        return _bag(model)
    if isinstance(model, OneVsOneClassifier):
        return _pairs(model)
    return None


def against_the_rest(model: OneVsRestClassifier) -> Any | None:
    """What stands for a fitted one whose members stand for theirs already; None where it may stand for itself."""
    from penstock.engine.models.packaging.sklearn.stand_ins import (
        LinearDecision,
        LinearScores,
        margin,
        stand_in,
    )

    lines = [stand_in(each) or each for each in model.estimators_]
    if model.multilabel_ or any(type(each).__name__ == "_ConstantPredictor" for each in lines):
        return None
    decide = [_decides(each) for each in lines]
    if all(decide):
        return Rest([margin(each, "OneVsRestClassifier") for each in lines], False, model.classes_)
    if any(decide) or len(lines) < 3:
        return None
    sigmoids = [each.scores for each in lines if isinstance(each, LinearDecision) and each.shares in ("each", "softmax") and len(each.scores.coef) == 1]  # fmt: skip
    if len(sigmoids) < len(lines):
        return Rest(lines, True, model.classes_)
    coef, intercept = (
        np.concatenate([getattr(each, name) for each in sigmoids]) for name in ("coef", "intercept")
    )
    return LinearDecision(LinearScores(coef, intercept), model.classes_, shares="rest")


def _decides(member: Any) -> bool:
    """Whether a stand-in answers what it decides, and no probabilities."""
    from penstock.engine.models.packaging.sklearn.stand_ins import KernelDecision, LinearDecision

    last = member.steps[-1][1] if isinstance(member, Pipeline) else member
    decides = isinstance(last, (KernelDecision, Pairs)) or (isinstance(last, Rest) and not last.shares)
    return decides or (isinstance(last, LinearDecision) and not last.shares)


def _bag(model: BaggingClassifier) -> Majority:
    """Its members say classes alone, by their places: each has a vote."""
    from penstock.engine.models.packaging.sklearn.stand_ins import stand_in

    members = []
    for each, places in zip(model.estimators_, model.estimators_features_, strict=True):
        if isinstance(each, Pipeline):
            raise ConfigError(
                "BaggingClassifier around a pipeline without probabilities has no operators: let the pipeline's steps stand before the "
                "BaggingClassifier"
            )
        member = stand_in(each) or each
        if not np.array_equal(places, np.arange(model.n_features_in_)):
            member = Pipeline([("chosen", Chosen(np.asarray(places, dtype=np.int64))), ("member", member)])
        members.append(member)
    return Majority(members, np.ones(len(members)), model.classes_)


def _pairs(model: OneVsOneClassifier) -> Pairs:
    from penstock.engine.models.packaging.sklearn.stand_ins import margin, stand_in

    members, shares = [], []
    for each in model.estimators_:
        if not is_classifier(each) or model.pairwise_indices_ is not None:
            raise ConfigError(
                f"OneVsOneClassifier asks a {type(each).__name__} about pairs of classes: package it with a classifier of its own"
            )
        shared = not hasattr(each, "decision_function")
        members.append((stand_in(each) or each) if shared else margin(each, "OneVsOneClassifier"))
        shares.append(shared)
    return Pairs(members, shares, model.classes_)
