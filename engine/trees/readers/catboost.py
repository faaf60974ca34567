"""CatBoost's JSON read into the canonical form, categories included.

Categories stand in the file as hashes; whoever reads it brings those of the tables.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.engine.trees.class_names import class_names
from penstock.engine.trees.forest import Forest, PostTransform
from penstock.engine.trees.readers.assemble import join_trees
from penstock.engine.trees.readers.catboost_ctr import Statistics, counting
from penstock.engine.trees.readers.catboost_trees import Grower, Test
from penstock.schemas.errors import ConfigError

_plain: Final = frozenset(
    {
        "RMSE",
        "MAE",
        "Quantile",
        "MAPE",
        "Lq",
        "Huber",
        "Expectile",
        "LogLinQuantile",
        "LogCosh",
        "MultiRMSE",
        "MultiQuantile",
    }
)
_ranks: Final = frozenset(
    {
        "YetiRank",
        "YetiRankPairwise",
        "PairLogit",
        "PairLogitPairwise",
        "QueryRMSE",
        "QuerySoftMax",
        "LambdaMart",
        "StochasticRank",
    }
)
_exponential: Final = frozenset({"Poisson", "Tweedie"})
_malformed: Final = (
    KeyError,
    ValueError,
    IndexError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class CatboostColumns:
    """What the trees compare, column by column."""

    names: tuple[str, ...]
    categorical: tuple[int, ...]
    loss: str
    classes: tuple[str, ...]
    """Of a classifier."""
    tree: Mapping[str, Any]
    """The file's object."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CatboostModel:
    """What the JSON says."""

    forest: Forest
    exponential: bool
    """The answer is exp(raw score)."""
    ranks: bool


def read_columns(data: bytes) -> CatboostColumns:
    """The columns of a model in CatBoost's JSON. Raises ConfigError for what is malformed or cannot be kept."""
    try:
        tree = json.loads(data)
        info, about = tree["features_info"], tree["model_info"]
        for kind in ("text_features", "embedding_features"):
            if info.get(kind):
                named = info[kind][0].get("feature_id") or kind
                raise ConfigError(
                    f"the CatBoost model reads {kind.replace('_', ' ')} ({str(named)[:60]}), which no bundle can keep"
                )
        floats, cats = info.get("float_features", []), info.get("categorical_features", [])
        places = {int(item["flat_feature_index"]): item for item in (*floats, *cats)}
        if sorted(places) != list(range(len(places))):
            raise ConfigError("the CatBoost model has features that do not stand side by side")
        names = tuple(places[index].get("feature_id") or f"f{index}" for index in range(len(places)))
        loss = about.get("params", {}).get("loss_function", {}).get("type", "RMSE")
        classes = class_names(about.get("class_params", {}).get("class_names", ()))
        return CatboostColumns(
            names=names,
            categorical=tuple(int(item["flat_feature_index"]) for item in cats),
            loss=str(loss),
            classes=classes,
            tree=tree,
        )
    except _malformed as error:
        raise ConfigError(f"the CatBoost model is malformed: {type(error).__name__} {error}") from error


def read_catboost(
    columns: CatboostColumns,
    hashes: Mapping[int, NDArray[np.int32]],
    *,
    classes: Sequence[str] | None = None,
) -> CatboostModel:
    """The trees. `hashes`: by column of categories, those of the table that the codes count in.

    Raises ConfigError for what is malformed or cannot be kept exactly, also where a table lacks categories that the model
    has met.
    """
    loss = columns.loss
    labels = tuple(classes or columns.classes) if _is_classifier(loss) else ()
    if loss == "CrossEntropy" and not labels:  # trained on shares, of which its file names no classes
        labels = ("0", "1")
    if not (labels or loss in _plain or loss in _ranks or loss in _exponential):
        raise ConfigError(f"CatBoost's loss {loss[:40]} has an output that no bundle can keep")
    try:
        scale, bias = columns.tree["scale_and_bias"]
        bias = [float(each) for each in (bias if isinstance(bias, list) else [bias])]
        tests = _tests(columns.tree, hashes)
        grower = Grower(tests, outputs=len(bias), scale=float(scale))
        for tree in columns.tree.get("oblivious_trees", ()):
            grower.oblivious(tree)
        for tree in columns.tree.get("trees", ()):
            grower.nested(tree)
        known = 2 if len(bias) == 1 else len(bias)
        if labels and len(labels) != known:
            raise ConfigError(f"{len(labels)} class names were given, the model has {known} classes")
        forest = join_trees(
            grower.trees,
            features=len(columns.names),
            outputs=len(bias),
            base_values=bias,
            post_transform=_post(loss),
            labels=labels,
            output_name="probabilities" if labels else "value",
        )
    except _malformed as error:
        raise ConfigError(f"the CatBoost model is malformed: {type(error).__name__} {error}") from error
    return CatboostModel(forest=forest, exponential=loss in _exponential, ranks=loss in _ranks)


def _is_classifier(loss: str) -> bool:
    return loss in ("Logloss", "CrossEntropy", "MultiClass", "MultiClassOneVsAll")


def _post(loss: str) -> PostTransform:
    if loss in ("Logloss", "CrossEntropy", "MultiClassOneVsAll"):
        return PostTransform.LOGISTIC
    return PostTransform.SOFTMAX if loss == "MultiClass" else PostTransform.NONE


def _tests(tree: Mapping[str, Any], hashes: Mapping[int, NDArray[np.int32]]) -> list[Test]:
    """By split_index: borders of numbers, then single categories, then statistics."""
    info = tree["features_info"]
    floats, cats = info.get("float_features", []), info.get("categorical_features", [])
    statistics = Statistics(floats, cats, hashes, tree.get("ctr_data") or {})
    above = np.array([False, True])
    tests = [
        Test(elements=(statistics.number(index, border),), truth=above)
        for index, feature in enumerate(floats)
        for border in feature.get("borders") or ()
    ]
    for index, feature in enumerate(cats):
        element = statistics.category(index)
        for value in feature.get("values") or ():
            truth = np.append(hashes[element.column] == np.int32(value), False)
            tests.append(Test(elements=(element,), truth=truth))
    for ctr in info.get("ctrs") or ():
        elements, values = statistics.of(ctr)
        tests += [
            Test(
                elements=elements,
                truth=values > np.float32(border),
                is_of_target=ctr["ctr_type"] not in counting,
            )
            for border in ctr.get("borders") or ()
        ]
    return tests
