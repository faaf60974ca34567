"""scikit-learn trees and forests read into the canonical form, so that nothing is lost on the way.

Thresholds are float64 while rows are float32; where a missing value goes stands beside each node and is dropped by the
usual converter; covers are the weights of the training rows.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.ensemble._iforest import _average_path_length
from sklearn.tree import (
    DecisionTreeClassifier,
    DecisionTreeRegressor,
    ExtraTreeClassifier,
    ExtraTreeRegressor,
)

from penstock.engine.trees.class_names import class_names
from penstock.engine.trees.forest import Forest, PostTransform
from penstock.engine.trees.readers.assemble import Tree, bits_set, float32_at_most, join_trees, narrowed
from penstock.schemas.errors import ConfigError

single_trees = (DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor)
averaging_forests = (RandomForestClassifier, RandomForestRegressor, ExtraTreesClassifier, ExtraTreesRegressor)
gradient_boosting = (GradientBoostingClassifier, GradientBoostingRegressor)
histogram_boosting = (HistGradientBoostingClassifier, HistGradientBoostingRegressor)
tree_kinds = (*single_trees, *averaging_forests, *gradient_boosting, *histogram_boosting)


@dataclass(frozen=True, kw_only=True, slots=True)
class SklearnTrees:
    """What the estimator holds."""

    forest: Forest
    exponential: bool = False
    """The answer is exp(raw score)."""
    categories: Mapping[int, Sequence[Any]] | None = None
    """Categories, as the estimator was given them, of each categorical column."""
    cuts: tuple[tuple[float, ...], ...] = ()
    """The thresholds of trees that compare doubles, column by column: Signature.cuts."""


def is_trees(estimator: object) -> bool:
    """Whether read_sklearn_trees knows this kind of estimator."""
    return isinstance(estimator, (*single_trees, *averaging_forests, *gradient_boosting, *histogram_boosting))


def read_sklearn_trees(estimator: Any, classes: Sequence[str] | None = None) -> SklearnTrees:
    """A fitted tree, forest or boosted ensemble. Raises ConfigError for what cannot be kept exactly."""
    try:
        labels = _labels(estimator, classes)
        if isinstance(estimator, histogram_boosting):
            return _histogram_boosting(estimator, labels)
        if isinstance(estimator, gradient_boosting):
            return _gradient_boosting(estimator, labels)
        members = [estimator] if isinstance(estimator, single_trees) else estimator.estimators_
        outputs = members[0].tree_.value.shape[2 if labels else 1]
        trees = (_averaged(member.tree_, len(members), classifier=bool(labels)) for member in members)
        return SklearnTrees(
            forest=_joined(trees, estimator.n_features_in_, outputs, labels, PostTransform.NONE)
        )
    except (AttributeError, KeyError, IndexError, TypeError) as error:
        raise ConfigError(f"the estimator is not fitted, or malformed: {error}") from error


def _labels(estimator: Any, classes: Sequence[str] | None) -> tuple[str, ...]:
    known = getattr(estimator, "classes_", None)
    if known is None:
        return ()
    if isinstance(known, list):
        raise ConfigError("a classifier with several targets has no place in a bundle")
    labels = tuple(classes) if classes else class_names(known.tolist())
    if len(labels) != len(known):
        raise ConfigError(f"{len(labels)} class names were given, the model has {len(known)} classes")
    return labels


def _joined(
    trees: Iterable[Tree],
    features: int,
    outputs: int,
    labels: tuple[str, ...],
    post_transform: PostTransform,
    base_values: Sequence[float] | None = None,
) -> Forest:
    return join_trees(
        trees,
        features=features,
        outputs=outputs,
        base_values=[0.0] * outputs if base_values is None else base_values,
        post_transform=post_transform,
        labels=labels,
        output_name="probabilities" if labels else "value",
    )


def _averaged(tree: Any, members: int, *, classifier: bool) -> Tree:
    values = np.asarray(tree.value, dtype=np.float64)
    if classifier:  # (m, 1, classes): shares, or counts in older versions
        values = values[:, 0, :]
        values = values / values.sum(axis=1, keepdims=True)
    else:  # (m, targets, 1)
        values = values[:, :, 0]
    return _tree(tree, values / members, 0)


def _tree(tree: Any, values: NDArray[np.float64], output: int) -> Tree:
    nodes = len(tree.children_left)
    missing = tree.missing_go_to_left
    return Tree(
        feature=np.asarray(tree.feature, dtype=np.int64),
        threshold=float32_at_most(np.asarray(tree.threshold, dtype=np.float64)),
        yes=np.asarray(tree.children_left, dtype=np.int64),
        no=np.asarray(tree.children_right, dtype=np.int64),
        missing_yes=np.zeros(nodes, dtype=np.bool_) if missing is None else np.asarray(missing) != 0,
        cover=np.asarray(tree.weighted_n_node_samples, dtype=np.float64),
        values=values,
        output=output,
    )


def _gradient_boosting(estimator: Any, labels: tuple[str, ...]) -> SklearnTrees:
    if estimator.init_ != "zero" and not isinstance(estimator.init_, (DummyClassifier, DummyRegressor)):
        raise ConfigError("gradient boosting that starts from another model is not one tree ensemble")
    # Exponential loss halves the log odds.
    scale = 2.0 if estimator.loss == "exponential" else 1.0
    outputs = estimator.estimators_.shape[1]
    trees = [
        _tree(member.tree_, scale * estimator.learning_rate * member.tree_.value[:, 0, 0], output)
        for stage in estimator.estimators_
        for output, member in enumerate(stage)
    ]
    post = PostTransform.NONE
    if labels:
        post = PostTransform.LOGISTIC if outputs == 1 else PostTransform.SOFTMAX
    start = estimator._raw_predict_init(np.zeros((1, estimator.n_features_in_), dtype=np.float32))
    base = scale * np.asarray(start, dtype=np.float64).reshape(-1)
    return SklearnTrees(forest=_joined(trees, estimator.n_features_in_, outputs, labels, post, base.tolist()))


def read_isolation(estimator: Any) -> tuple[Forest, float]:
    """An IsolationForest as trees whose sum is the length of the paths of a row, and the length that halves its score."""
    try:
        trees = []
        for number, (member, columns) in enumerate(
            zip(estimator.estimators_, estimator.estimators_features_, strict=True)
        ):
            lengths = (
                np.asarray(estimator._decision_path_lengths[number], dtype=np.float64)
                + estimator._average_path_length_per_tree[number]
                - 1.0
            )
            tree = _tree(member.tree_, lengths, 0)
            inner = tree.yes >= 0
            feature = np.where(inner, np.asarray(columns)[np.where(inner, tree.feature, 0)], -1)
            trees.append(replace(tree, feature=feature))
        unit = len(trees) * float(_average_path_length(np.array([estimator._max_samples]))[0])
        forest = _joined(trees, estimator.n_features_in_, 1, (), PostTransform.NONE)
    except (AttributeError, KeyError, IndexError, TypeError) as error:
        raise ConfigError(f"the isolation forest is not fitted, or malformed: {error}") from error
    return forest, unit


def _histogram_boosting(estimator: Any, labels: tuple[str, ...]) -> SklearnTrees:
    baseline = np.asarray(estimator._baseline_prediction, dtype=np.float64).reshape(-1)
    link = type(estimator._loss.link).__name__
    posts = {
        "IdentityLink": PostTransform.NONE,
        "LogLink": PostTransform.NONE,
        "LogitLink": PostTransform.LOGISTIC,
        "MultinomialLogit": PostTransform.SOFTMAX,
    }
    if link not in posts:
        raise ConfigError(f"histogram boosting with {link} has an output that no bundle can keep")
    is_categorical = estimator.is_categorical_
    columns = np.arange(estimator.n_features_in_)
    categories: dict[int, Sequence[Any]] = {}
    if is_categorical is not None and is_categorical.any():
        # Inside, the encoded categorical columns come first.
        encoder = estimator._preprocessor.named_transformers_["encoder"]
        columns = np.concatenate((np.flatnonzero(is_categorical), np.flatnonzero(~is_categorical)))
        categories = {
            int(column): [value for value in table.tolist() if value == value and value is not None]
            for column, table in zip(np.flatnonzero(is_categorical), encoder.categories_, strict=True)
        }
    trees = [
        _histogram_tree(predictor, columns, output)
        for stage in estimator._predictors
        for output, predictor in enumerate(stage)
    ]
    trees, cuts = narrowed(trees, estimator.n_features_in_)
    return SklearnTrees(
        forest=_joined(
            trees, estimator.n_features_in_, len(baseline), labels, posts[link], baseline.tolist()
        ),
        exponential=link == "LogLink",
        categories=categories,
        cuts=cuts,
    )


def _histogram_tree(predictor: Any, columns: NDArray[np.int64], output: int) -> Tree:
    # An unseen category goes where a missing one goes; it arrives as a missing one.
    nodes = predictor.nodes
    is_leaf = nodes["is_leaf"] != 0
    feature = columns[nodes["feature_idx"].astype(np.int64)]
    in_set = (nodes["is_categorical"] != 0) & ~is_leaf
    missing_left = nodes["missing_go_to_left"] != 0
    sets = {
        node: bits_set(predictor.raw_left_cat_bitsets[int(nodes["bitset_idx"][node])])
        for node in np.flatnonzero(in_set).tolist()
    }
    return Tree(
        feature=feature,
        threshold=np.asarray(nodes["num_threshold"], dtype=np.float64),
        yes=np.where(is_leaf, -1, nodes["left"].astype(np.int64)),
        no=np.where(is_leaf, -1, nodes["right"].astype(np.int64)),
        missing_yes=missing_left,
        cover=np.asarray(nodes["count"], dtype=np.float64),
        values=np.asarray(nodes["value"], dtype=np.float64),
        output=output,
        sets=sets,
    )
