"""Pipelines that end in trees, and averages of them, as one tree ensemble over the features themselves.

The preprocessing disappears into the tests of the trees; what cannot be moved there exactly is refused, with the reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    BaggingRegressor,
    IsolationForest,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.tree import DecisionTreeClassifier

from penstock.engine.models.packaging.sklearn.boosters import is_xgboost
from penstock.engine.models.packaging.sklearn.columns import Column, Input, columns_after, function_name
from penstock.engine.models.packaging.sklearn.inputs import Rows, gives_sparse, then
from penstock.engine.models.packaging.sklearn.members import members, wrapped
from penstock.engine.models.packaging.sklearn.moved_tests import Mover, NotFoldedError
from penstock.engine.models.packaging.sklearn.moved_trees import Columns, moved_trees
from penstock.engine.models.packaging.sklearn.tails.calibration import calibrated_sums
from penstock.engine.models.packaging.sklearn.tails.isolation import isolation_sums
from penstock.engine.models.packaging.sklearn.tails.sums import Tail, TreeSum
from penstock.engine.trees.forest import Forest, PostTransform
from penstock.engine.trees.readers.assemble import Tree, join_trees, narrowed
from penstock.engine.trees.readers.sklearn import is_trees, read_sklearn_trees
from penstock.engine.trees.table_file import table_nodes_min
from penstock.schemas.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Folded:
    """A model as trees over its features."""

    forest: Forest
    cuts: tuple[tuple[float, ...], ...]
    """Signature.cuts."""
    exponential: bool
    """The answer is exp(raw score)."""
    tail: Tail | None
    """What else the answer is of the forest's sums, which then know no classes."""


def fold(
    model: Any, inputs: list[Input], columns: list[Column], rows: Rows, labels: tuple[str, ...]
) -> Folded:
    """The model as one ensemble over `inputs`. Raises NotFoldedError, or ConfigError, saying what stands against it."""
    found = _fold(model, columns, inputs, rows)
    count = len(inputs)
    numbers = {place for place, given in enumerate(inputs) if not given.is_discrete}
    rounded = {
        place for place, given in enumerate(inputs) if given.type is not None and given.type.name == "float32"
    }
    trees, cuts = narrowed(list(found.trees), count, numbers=numbers, rounded=rounded)
    outputs = len(found.base)
    if bool(labels) != bool(found.classes) or (labels and len(labels) != found.classes):
        raise NotFoldedError("its trees know other classes than the model")
    labels = () if found.tail else labels
    forest = join_trees(
        trees,
        features=count,
        outputs=outputs,
        base_values=found.base.tolist(),
        post_transform=found.post,
        labels=labels,
        output_name="probabilities" if labels else "value",
    )
    if found.tail and forest.nodes >= table_nodes_min:
        raise NotFoldedError(
            f"its {forest.nodes:,} nodes are too many for a graph, and a table of trees answers their sum alone"
        )
    # Codes lie on either side of any threshold between them, whatever the rounding.
    cuts = tuple(
        () if given.is_category else of_column for given, of_column in zip(inputs, cuts, strict=True)
    )
    return Folded(
        forest=forest, cuts=cuts if any(cuts) else (), exponential=found.exponential, tail=found.tail
    )


def _fold(model: Any, columns: list[Column], inputs: list[Input], rows: Rows) -> TreeSum:
    if isinstance(model, Pipeline):
        for _, step in model.steps[:-1]:
            columns = columns_after(step, columns, inputs, rows.apply)
            rows = then(step, rows)
        return _fold(model.steps[-1][1], columns, inputs, rows)
    if type(model).__name__ in wrapped or hasattr(model, "best_estimator_"):
        return _fold(members(model)[0], columns, inputs, rows)
    if isinstance(model, (VotingClassifier, VotingRegressor)):
        return _vote(model, columns, inputs, rows)
    if isinstance(model, (BaggingClassifier, BaggingRegressor)):
        return _bag(model, columns, inputs, rows)
    if isinstance(model, AdaBoostClassifier):
        return _ada(model, columns, inputs, rows)
    if isinstance(model, CalibratedClassifierCV):
        return calibrated_sums(model, lambda each: _fold(each, columns, inputs, rows), rows.apply)
    if isinstance(model, MultiOutputRegressor):
        return _side_by_side([_fold(each, columns, inputs, rows) for each in model.estimators_])
    if isinstance(model, TransformedTargetRegressor):
        return _target(model, columns, inputs, rows)
    tail = None
    if isinstance(model, IsolationForest):
        forest, tail = isolation_sums(model, rows.apply)
        how, exponential = Columns(), False
    else:
        forest, how, exponential = _read(model)
    if is_xgboost(model) and gives_sparse(rows):  # what is not written in a sparse matrix is missing
        if how.marker is not None:
            raise NotFoldedError(
                "its booster has a number for missing values, and takes zeros for missing too"
            )
        how = replace(how, marks_zeros=True)
    mover = Mover(columns, inputs, rows.values_applied)
    return TreeSum(
        trees=moved_trees(forest, how, mover),
        base=forest.base_values,
        post=forest.post_transform,
        classes=len(forest.labels),
        exponential=exponential,
        tail=tail,
    )


def _read(model: Any) -> tuple[Forest, Columns, bool]:
    """A tree ensemble, how it compares its columns, and whether its answer is exp(raw score)."""
    module = type(model).__module__.partition(".")[0]
    if module == "xgboost":
        from penstock.engine.models.packaging.sklearn.boosters import read_live_xgboost

        xgboost = read_live_xgboost(model)
        if xgboost.read.categorical:
            raise NotFoldedError("its booster takes categories as codes")
        return xgboost.read.forest, Columns(marker=xgboost.marker), xgboost.read.exponential
    if module == "lightgbm":
        from penstock.engine.models.packaging.sklearn.boosters import read_live_lightgbm

        lightgbm = read_live_lightgbm(model)
        if lightgbm.categorical:
            raise NotFoldedError("its booster takes categories as codes")
        return lightgbm.forest, Columns(narrow=False, cuts=lightgbm.cuts), lightgbm.exponential
    if not is_trees(model):
        raise NotFoldedError(f"{type(model).__name__} is no tree ensemble")
    read = read_sklearn_trees(model)
    tables = {}
    for column, values in (read.categories or {}).items():
        known = (
            np.array(values, dtype=np.float64)
            if all(isinstance(value, (int, float)) for value in values)
            else None
        )
        if known is None or (np.diff(known) <= 0).any():
            raise NotFoldedError("its trees take categories that are no ascending numbers")
        tables[column] = known
    histogram = hasattr(model, "_predictors")
    return read.forest, Columns(narrow=not histogram, cuts=read.cuts, tables=tables), read.exponential


def _vote(model: Any, columns: list[Column], inputs: list[Input], rows: Rows) -> TreeSum:
    if getattr(model, "voting", "soft") != "soft":
        raise NotFoldedError("a vote by majority is no average")
    weights = model._weights_not_none
    members = [_fold(each, columns, inputs, rows) for each in model.estimators_]
    return _average(
        members, np.ones(len(members)) if weights is None else np.asarray(weights, dtype=np.float64)
    )


def _bag(model: Any, columns: list[Column], inputs: list[Input], rows: Rows) -> TreeSum:
    members = []
    for each, places in zip(model.estimators_, model.estimators_features_, strict=True):
        chosen = [int(place) for place in places]
        members.append(_fold(each, [columns[place] for place in chosen], inputs, rows.chosen(chosen)))
    return _average(members, np.ones(len(members)))


def _average(members: Sequence[TreeSum], weights: NDArray[np.float64]) -> TreeSum:
    first = members[0]
    for each in members:
        if not each.is_linear:
            raise NotFoldedError("it averages what boosted trees make of their sums")
        if each.base.shape != first.base.shape or each.classes != first.classes:
            raise NotFoldedError("its members know different classes")
    shares = weights / weights.sum()
    return replace(
        first,
        trees=[
            replace(tree, values=tree.values * share)
            for each, share in zip(members, shares.tolist(), strict=True)
            for tree in each.trees
        ],
        base=np.sum([each.base * share for each, share in zip(members, shares, strict=True)], axis=0),
    )


def _ada(model: Any, columns: list[Column], inputs: list[Input], rows: Rows) -> TreeSum:
    """Each tree votes for its most likely class; the votes' sum is put through a softmax."""
    count = int(model.n_classes_)
    total = float(np.sum(model.estimator_weights_))
    trees: list[Tree] = []
    for each, weight in zip(model.estimators_, model.estimator_weights_.tolist(), strict=False):
        if not isinstance(each, DecisionTreeClassifier) or len(each.classes_) != count:
            raise NotFoldedError("it boosts other models than trees that know all classes")
        for tree in _fold(each, columns, inputs, rows).trees:
            chosen = tree.values.argmax(axis=1)
            if count == 2:
                votes = np.where(chosen == 1, 2.0, -2.0)[:, None] * weight / total
            else:
                votes = np.where(np.arange(count) == chosen[:, None], 1.0, -1.0 / (count - 1)) * weight
                votes = votes / (total * (count - 1))
            trees.append(replace(tree, values=votes))
    post = PostTransform.LOGISTIC if count == 2 else PostTransform.SOFTMAX
    return TreeSum(trees=trees, base=np.zeros(1 if count == 2 else count), post=post, classes=count)


def _side_by_side(members: Sequence[TreeSum]) -> TreeSum:
    if not all(each.is_linear and not each.classes and len(each.base) == 1 for each in members):
        raise NotFoldedError("it has several outputs that are no plain sums of trees")
    count = len(members)
    trees = []
    for place, each in enumerate(members):
        for tree in each.trees:
            values = np.zeros((len(tree.feature), count))
            values[:, place] = tree.values[:, 0]
            trees.append(replace(tree, values=values))
    return TreeSum(trees=trees, base=np.concatenate([each.base for each in members]))


def _target(
    model: TransformedTargetRegressor, columns: list[Column], inputs: list[Input], rows: Rows
) -> TreeSum:
    found = _fold(model.regressor_, columns, inputs, rows)
    transformer = model.transformer_
    if isinstance(transformer, FunctionTransformer):
        if transformer.inverse_func is np.exp and not found.exponential:
            return replace(found, exponential=True)
        if function_name(transformer) == "identity" and transformer.inverse_func is None:
            return found
    elif found.is_linear and hasattr(transformer, "inverse_transform") and hasattr(transformer, "scale_"):
        at = transformer.inverse_transform(np.array([[0.0], [1.0]])).reshape(-1)
        slope = float(at[1] - at[0])
        if len(found.base) == 1 and type(transformer).__module__.startswith("sklearn.preprocessing"):
            trees = [replace(tree, values=tree.values * slope) for tree in found.trees]
            return replace(found, trees=trees, base=found.base * slope + float(at[0]))
    raise NotFoldedError("what it makes of its trees' sum is neither that sum, scaled, nor its exponential")


def refused_because(error: ConfigError) -> str:
    """Why a model is not explained as trees, as a note says it."""
    return f"its trees are not explained as trees, and its explanations are sampled: {error}"
