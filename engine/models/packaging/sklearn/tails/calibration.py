"""Calibrated classifiers of trees: what is explained is the mean of the folds' scores; probabilities are a function of those.

Of one fold calibrated by a sigmoid the log odds are a straight line of the trees' sum, and so trees themselves.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import AdaBoostClassifier
from sklearn.pipeline import Pipeline

from penstock.engine.models.bundle.manifest import Meaning
from penstock.engine.models.packaging.sklearn.boosters import is_booster, is_xgboost
from penstock.engine.models.packaging.sklearn.moved_tests import NotFoldedError
from penstock.engine.models.packaging.sklearn.operators.calibrators import add_calibrator, mean_of_shares
from penstock.engine.models.packaging.sklearn.operators.nodes import Nodes
from penstock.engine.models.packaging.sklearn.tails.sums import Tail, TreeSum
from penstock.engine.trees.forest import PostTransform
from penstock.engine.trees.readers.assemble import Tree

_calibrated = (
    "explanations are of mean_log_odds, the mean over {count} folds of what the sigmoids are taken of, in which they add up exactly; "
    "the probabilities are the mean of the {count} sigmoids, which is no sum of the features' parts"
)
_before = (
    "explanations are of uncalibrated, the {what} before calibration{mean}, in which they add up exactly: what calibration makes of "
    "it is no sum of the features' parts"
)
_knots = ("X_thresholds_", "y_thresholds_")
_digits_apart = 1e-13
Link = Literal["", "sigmoid", "softmax"]
_whats = {"probability": "probability", "log_odds": "log odds", "decision": "decision function"}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Scored:
    """A member, its trees scaled to the scores that its calibrators are given but for a link."""

    sums: TreeSum
    """One sum, the second class's, or one for each class."""
    link: Link
    """What the calibrators are given of the sums: "", their "sigmoid" or their "softmax"."""
    meaning: Meaning
    """Of the sums."""
    calibrators: Sequence[Any]


def calibrated_sums(
    model: CalibratedClassifierCV, fold: Callable[[Any], TreeSum], apply: Callable[[Any], Any]
) -> TreeSum:
    """The trees of all members, and what calibration makes of their sums. `fold`: a member as trees that add up; `apply`: from
    the original's rows to those that the members are given. Raises NotFoldedError, ConfigError."""
    if model.method not in ("sigmoid", "isotonic"):
        raise NotFoldedError(f"it is calibrated by {model.method}")
    classes = len(model.classes_)
    members = [
        _scored(each.estimator, fold(each.estimator), each.calibrators, classes)
        for each in model.calibrated_classifiers_
    ]
    plain = model.method == "sigmoid" and not any(each.link for each in members)
    if plain:
        members = [replace(each, sums=_through_sigmoid(each), meaning="log_odds") for each in members]
    if plain and len(members) == 1 and classes == 2:
        return replace(members[0].sums, post=PostTransform.LOGISTIC, classes=2)
    return _with_tail(members, classes, plain=plain, ask=_asking(model, apply, plain=plain))


def _scored(estimator: Any, found: TreeSum, calibrators: Sequence[Any], classes: int) -> _Scored:
    if found.tail is not None or found.exponential or found.classes != classes:
        raise NotFoldedError("a calibrated member knows other classes, or is no sum of trees")
    width = len(found.base)
    if found.post is PostTransform.NONE and width == classes:
        if classes == 2:  # the second class's share alone is calibrated
            trees = [replace(tree, values=tree.values[:, 1:]) for tree in found.trees]
            found = replace(found, trees=trees, base=found.base[1:])
        return _Scored(sums=found, link="", meaning="probability", calibrators=calibrators)
    is_of_classes = (found.post is PostTransform.LOGISTIC and width == 1 and classes == 2) or (
        found.post is PostTransform.SOFTMAX and width == classes
    )
    if not is_of_classes:
        raise NotFoldedError("a calibrated member puts each class through a sigmoid of its own")
    if not hasattr(estimator, "decision_function"):
        link: Link = "sigmoid" if width == 1 else "softmax"
        return _Scored(sums=found, link=link, meaning="log_odds", calibrators=calibrators)
    last = _last(estimator)
    meaning: Meaning = "decision" if isinstance(last, AdaBoostClassifier) else "log_odds"
    if getattr(last, "loss", "") == "exponential":
        found = _times(found, 0.5)  # its decision function is half the log odds
    if isinstance(last, AdaBoostClassifier) and classes > 2:
        found = _times(found, classes - 1.0)
    return _Scored(sums=found, link="", meaning=meaning, calibrators=calibrators)


def _through_sigmoid(member: _Scored) -> TreeSum:
    """The sums that sigmoids are taken of: -(a * score + b)."""
    slopes = np.array([-float(each.a_) for each in member.calibrators])
    starts = np.array([-float(each.b_) for each in member.calibrators])
    trees = [replace(tree, values=tree.values * slopes) for tree in member.sums.trees]
    return replace(member.sums, trees=trees, base=member.sums.base * slopes + starts)


def _with_tail(
    members: Sequence[_Scored], classes: int, *, plain: bool, ask: Callable[[Any], NDArray[np.float64]]
) -> TreeSum:
    width, count = len(members[0].sums.base), len(members)
    if len({each.meaning for each in members}) > 1:
        raise NotFoldedError("its members' scores are not of one kind")
    trees: list[Tree] = []
    for number, each in enumerate(members):
        for tree in each.sums.trees:
            values = np.zeros((len(tree.feature), width * count))
            values[:, number * width : (number + 1) * width] = tree.values
            trees.append(replace(tree, values=values))

    def add(graph: Nodes, raw: str) -> str:
        parts = []
        for number, each in enumerate(members):
            places = np.arange(number * width, (number + 1) * width)
            scores = graph.node("Gather", [raw, graph.tensor(places)], axis=1)
            if each.link:
                scores = (
                    graph.node("Sigmoid", [scores])
                    if each.link == "sigmoid"
                    else graph.node("Softmax", [scores], axis=1)
                )
            columns = []
            for place, calibrator in enumerate(each.calibrators):
                column = scores if width == 1 else graph.node("Gather", [scores, graph.tensor(np.array([place]))], axis=1)  # fmt: skip
                columns.append(
                    graph.node("Sigmoid", [column])
                    if plain
                    else add_calibrator(graph, calibrator, column, np.float64)
                )
            parts.append(columns)
        return mean_of_shares(graph, parts, classes, np.float64)

    meaning = members[0].meaning
    mean = f" (the mean over {count} folds)" if count > 1 else ""
    note = _calibrated.format(count=count) if plain else _before.format(what=_whats[meaning], mean=mean)
    tail = Tail(
        name="probabilities",
        width=classes,
        meaning="probability",
        sums="mean_log_odds" if plain else "uncalibrated",
        sums_meaning=meaning,
        weights=np.tile(np.eye(width) / count, (count, 1)),
        whole=None if classes > 2 else 1.0 if meaning == "probability" else 0.0,
        add=add,
        ask=ask,
        asks="the scores of calibrated_classifiers_",
        note=note,
        decided_by_rounding=_steepest([each for member in members for each in member.calibrators]),
    )
    base = np.concatenate([each.sums.base for each in members])
    return TreeSum(trees=trees, base=base, classes=classes, tail=tail)


def _steepest(calibrators: Sequence[Any]) -> str:
    """Of isotonic ones the highest step between scores that are one to a sum but for its last digits; nothing where there is none."""
    steps = []
    for each in calibrators:
        scores, shares = (np.asarray(getattr(each, name, ()), dtype=np.float64) for name in _knots)
        apart = np.diff(scores)
        near = apart <= _digits_apart * np.maximum(1.0, np.abs(scores[1:]))
        steps += [*zip(np.diff(shares)[near].tolist(), apart[near].tolist(), strict=True)]
    step, between = max(steps, default=(0.0, 0.0))
    if step <= 0.0:
        return ""
    return (
        f"two knots of its isotonic calibration are {between:.0e} apart and {step:.2g} of the probability, so that the last digit of a sum "
        "decides which is taken: calibrate by method='sigmoid', or on more rows"
    )


def _asking(
    model: CalibratedClassifierCV, apply: Callable[[Any], Any], *, plain: bool
) -> Callable[[Any], NDArray[np.float64]]:
    """The same mean by the members' own methods."""

    def ask(rows: Any) -> NDArray[np.float64]:
        given, found = apply(rows), []
        for each in model.calibrated_classifiers_:
            scores = _scores_of(each.estimator, given)
            if plain:
                for place, calibrator in enumerate(each.calibrators):
                    scores[:, place] = -(calibrator.a_ * scores[:, place] + calibrator.b_)
            found.append(scores)
        return np.asarray(np.mean(found, axis=0))

    return ask


def _scores_of(estimator: Any, rows: Any) -> NDArray[np.float64]:
    """A member's scores before any link, (R, K): of two classes the second's."""
    if isinstance(estimator, Pipeline):
        for _, step in estimator.steps[:-1]:
            if step is not None and not isinstance(step, str):
                rows = step.transform(rows)
        return _scores_of(estimator.steps[-1][1], rows)
    if hasattr(estimator, "best_estimator_"):
        return _scores_of(estimator.best_estimator_, rows)
    if is_xgboost(estimator):
        found = estimator.predict(rows, output_margin=True)
    elif is_booster(estimator):
        found = estimator.predict(rows, raw_score=True)
    elif hasattr(estimator, "decision_function"):
        found = estimator.decision_function(rows)
    else:
        found = estimator.predict_proba(rows)
        found = found[:, 1] if found.shape[1] == 2 else found
    found = np.array(found, dtype=np.float64)
    return found.reshape(len(found), -1)


def _last(estimator: Any) -> Any:
    while True:
        if isinstance(estimator, Pipeline):
            estimator = estimator.steps[-1][1]
        elif hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_
        else:
            return estimator


def _times(found: TreeSum, factor: float) -> TreeSum:
    trees = [replace(tree, values=tree.values * factor) for tree in found.trees]
    return replace(found, trees=trees, base=found.base * factor)
