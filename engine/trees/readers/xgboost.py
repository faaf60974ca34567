"""XGBoost: its own JSON read into the canonical form.

Traps on the way: tests are `<`, not `<=`; a category in the set goes right; base_score is stored before the link
function, as a number in old files and as a list in new ones; covers are sums of hessians; DART trees have weights; and
early stopping leaves trees in the file that the scikit-learn classes do not use.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.engine.trees.forest import Forest, PostTransform
from penstock.engine.trees.readers.assemble import Tree, join_trees
from penstock.engine.trees.readers.ubjson import is_ubjson, read_ubjson
from penstock.schemas.errors import ConfigError

_identity = (
    "reg:squarederror", "reg:linear", "reg:squaredlogerror", "reg:absoluteerror", "reg:pseudohubererror",
    "reg:quantileerror", "rank:ndcg", "rank:map", "rank:pairwise", "binary:logitraw",
)  # fmt: skip
_exponential = ("count:poisson", "reg:gamma", "reg:tweedie", "survival:cox", "survival:aft")
_share_min = 1e-6
_integer_types = {12: np.int8, 13: np.int16, 14: np.int32, 15: np.int64}


@dataclass(frozen=True, kw_only=True, slots=True)
class XgboostModel:
    """What the JSON says."""

    forest: Forest
    exponential: bool
    """The answer is exp(raw score)."""
    feature_names: tuple[str, ...] | None
    categories: Mapping[int, tuple[str, ...]]
    """Tables of the categorical features, by column."""
    unsure: "Mapping[int, UnsureTable]"
    """By column, tables that the file does not tell for certain."""
    categorical: tuple[int, ...]
    """Columns with category tests, with or without a table."""
    rounds: int
    rounds_in_file: int
    early_stopped: bool
    """Training went on after the best round, and the model was not told to forget it."""


def read_xgboost(
    data: bytes, *, classes: Sequence[str] | None = None, stop_at_best: bool | None = None
) -> XgboostModel:
    """A model in XGBoost's format, JSON or Universal Binary JSON.

    `stop_at_best`: use the trees up to the best round of early stopping, as XGBModel.predict does, or all, as
    Booster.predict does; None: as the kind of object that wrote the file does. Raises ConfigError for what is malformed
    or cannot be kept exactly.
    """
    try:
        return _read(xgboost_tree(data)["learner"], classes, stop_at_best)
    except (KeyError, ValueError, IndexError, TypeError, AttributeError, ArithmeticError) as error:
        raise ConfigError(f"the XGBoost model is malformed: {type(error).__name__} {error}") from error


def xgboost_tree(data: bytes) -> Mapping[str, Any]:
    """The object in the file. Raises ConfigError, naming what it is instead of an XGBoost model."""
    if not data.strip():
        raise ConfigError("the file is empty")
    try:
        tree = read_ubjson(data) if is_ubjson(data) else json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"the file is no XGBoost model, or is cut off: {error}") from error
    if isinstance(tree, dict) and isinstance(tree.get("learner"), dict):
        return tree
    if isinstance(tree, dict) and "tree_info" in tree:
        raise ConfigError(
            "the file is what LightGBM's dump_model says, which is for reading only; save the model with save_model (.txt)"
        )
    if isinstance(tree, dict) and ("oblivious_trees" in tree or "features_info" in tree):
        raise ConfigError("the file is a CatBoost model in JSON, and no XGBoost model")
    if isinstance(tree, list) or (isinstance(tree, dict) and "nodeid" in tree):
        raise ConfigError(
            "the file is what XGBoost's dump_model says, which is for reading only; save the model with save_model (.json)"
        )
    raise ConfigError("the file is JSON, but no XGBoost model: it has no learner")


def _read(
    learner: Mapping[str, Any], classes: Sequence[str] | None, stop_at_best: bool | None
) -> XgboostModel:
    booster = learner["gradient_booster"]
    if not isinstance(booster, Mapping):
        raise ConfigError("the XGBoost model is malformed: its booster is no object")
    weights = None
    if booster["name"] == "dart":
        weights, booster = booster["weight_drop"], booster["gbtree"]
    if booster["name"] != "gbtree":
        raise ConfigError(
            f"an XGBoost model of {booster['name']} is not made of trees: alone it is packaged as a line, inside another model it "
            "is not"
        )
    model, facts = booster["model"], learner["learner_model_param"]
    objective = Objective.parse(learner["objective"]["name"])
    outputs = max(int(facts["num_class"]), int(facts.get("num_target", 1)), 1)
    base_values = [objective.margin(score) for score in base_scores(facts["base_score"])]
    ends = [int(each) for each in model["iteration_indptr"]]
    if (
        ends[0] != 0
        or any(later < earlier for earlier, later in pairwise(ends))
        or not ends[-1] == len(model["trees"]) == len(model["tree_info"])
    ):  # XGBoost would find that out as it predicts, and says it on its own
        raise ConfigError("the XGBoost model is malformed: its rounds do not end where its trees do")
    rounds_in_file = len(ends) - 1
    attributes = learner.get("attributes", {})
    best = int(attributes["best_iteration"]) + 1 if "best_iteration" in attributes else rounds_in_file
    stops = "scikit_learn" in attributes if stop_at_best is None else stop_at_best
    rounds = min(best, rounds_in_file) if stops else rounds_in_file
    count = ends[rounds]
    trees = [
        _tree(tree, 1.0 if weights is None else float(weights[number]), int(model["tree_info"][number]))
        for number, tree in enumerate(model["trees"][:count])
    ]
    labels = class_labels(objective, facts, outputs, classes)
    forest = join_trees(
        trees,
        features=int(facts["num_feature"]),
        outputs=outputs,
        base_values=base_values if len(base_values) == outputs else base_values * outputs,
        post_transform=objective.post_transform,
        labels=labels,
        output_name="probabilities" if labels else "value",
    )
    types = learner.get("feature_types") or []
    tables, unsure = _tables(model.get("cats"))
    tested = np.unique(forest.feature[forest.set_index >= 0]).tolist()
    return XgboostModel(
        forest=forest,
        exponential=objective.exponential,
        feature_names=tuple(learner["feature_names"]) if learner.get("feature_names") else None,
        categories=tables,
        unsure=unsure,
        categorical=tuple(sorted({*tested, *(index for index, kind in enumerate(types) if kind == "c")})),
        rounds=rounds,
        rounds_in_file=rounds_in_file,
        early_stopped=best < rounds_in_file,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Objective:
    """How raw scores become answers."""

    post_transform: PostTransform = PostTransform.NONE
    is_classifier: bool = False
    exponential: bool = False

    @staticmethod
    def parse(name: str) -> "Objective":
        """By its name. Raises ConfigError for one whose output no bundle keeps."""
        if name in _identity:
            return Objective()
        if name in _exponential:
            return Objective(exponential=True)
        if name in ("binary:logistic", "reg:logistic"):
            return Objective(post_transform=PostTransform.LOGISTIC, is_classifier=name == "binary:logistic")
        if name in ("multi:softprob", "multi:softmax"):
            return Objective(post_transform=PostTransform.SOFTMAX, is_classifier=True)
        cure = "; train binary:logistic" if name == "binary:hinge" else ""
        raise ConfigError(f"XGBoost objective {name} has an output that no bundle can keep{cure}")

    def margin(self, base_score: float) -> float:
        """The raw score that a stored base_score stands for. Raises ConfigError where it is not finite."""
        if (
            self.post_transform is PostTransform.LOGISTIC
        ):  # XGBoost keeps it off 0 and 1, which it is where all answers were one
            share = min(max(base_score, _share_min), 1.0 - _share_min)
            return math.log(share / (1.0 - share))
        if self.exponential and base_score <= 0.0:
            raise ConfigError(
                f"the XGBoost model has a base_score of {base_score:g}, whose logarithm it begins with: it was trained on answers that are "
                "all 0; train it on others"
            )
        return math.log(base_score) if self.exponential else base_score


def class_labels(
    objective: Objective, facts: Mapping[str, Any], outputs: int, classes: Sequence[str] | None
) -> tuple[str, ...]:
    """A classifier's classes in column order: those given, else their numbers; none for any other model. A probability that was
    trained as a number (reg:logistic) is of two classes where they are given.

    `facts` is the model's `learner_model_param`. Raises ConfigError when as many names were not given as there are classes.
    """
    # Of several targets each is a question of its own, not one class of several.
    told = bool(classes) and objective.post_transform is PostTransform.LOGISTIC
    if not (objective.is_classifier or told) or int(facts.get("num_target", 1)) > 1:
        return ()
    known = max(outputs, 2)
    labels = tuple(classes) if classes else tuple(str(index) for index in range(known))
    if len(labels) != known:
        raise ConfigError(f"{len(labels)} class names were given, the model has {known} classes")
    return labels


def base_scores(text: str) -> list[float]:
    """base_score as the file spells it: a number, or a list of them."""
    return [float(part) for part in text.strip().removeprefix("[").removesuffix("]").split(",")]


def _tree(tree: Mapping[str, Any], weight: float, output: int) -> Tree:
    left, right = (np.array(tree[f"{side}_children"], dtype=np.int64) for side in ("left", "right"))
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and refused as a leaf
        condition = np.array(tree["split_conditions"], dtype=np.float32)
    if np.isnan(condition).any():
        raise ConfigError("an XGBoost tree has a threshold or a leaf that is NaN")
    default_left = np.array(tree["default_left"], dtype=np.int64) != 0
    sets = _sets(tree)
    in_set = np.isin(np.arange(len(left)), list(sets))
    is_leaf = left < 0
    values = np.where(is_leaf, condition.astype(np.float64) * weight, 0.0)
    width = int(tree["tree_param"]["size_leaf_vector"])
    if width > 1:
        values = _vectors(tree, is_leaf, right, width) * weight
    if len({len(left), len(right), len(condition), len(default_left)}) != 1:
        raise ConfigError("an XGBoost tree has arrays of different lengths")
    with np.errstate(invalid="ignore"):  # what is no number here is refused with the ensemble
        cover = np.array(tree["sum_hessian"], dtype=np.float64)
    return Tree(
        feature=np.array(tree["split_indices"], dtype=np.int64),
        # x < t is x <= the float32 before t.
        threshold=np.nextafter(condition, np.float32(-np.inf)),
        yes=np.where(in_set, right, left),
        no=np.where(in_set, left, right),
        missing_yes=np.where(in_set, ~default_left, default_left),
        cover=cover,
        values=values,
        output=output,
        sets=sets,
    )


def _vectors(
    tree: Mapping[str, Any], is_leaf: NDArray[np.bool_], right: NDArray[np.int64], width: int
) -> NDArray[np.float64]:
    """What the leaves of a tree say of every output (m, K): the right child of a leaf is the number of its vector, and
    before XGBoost 3.1 the vectors of all nodes stood in one list."""
    values = np.zeros((len(is_leaf), width))
    if "leaf_weights" not in tree:
        values[is_leaf] = np.array(tree["base_weights"], dtype=np.float32).reshape(-1, width)[is_leaf]
        return values
    vectors = np.array(tree["leaf_weights"], dtype=np.float32).reshape(-1, width)
    if (right[is_leaf] < 0).any():
        raise ConfigError("an XGBoost tree has a leaf without a vector")
    values[is_leaf] = vectors[right[is_leaf]]
    return values


def _sets(tree: Mapping[str, Any]) -> dict[int, NDArray[np.float32]]:
    members = tree.get("categories", [])
    places = zip(
        tree.get("categories_nodes", []),
        tree.get("categories_segments", []),
        tree.get("categories_sizes", []),
        strict=True,
    )
    return {
        int(node): np.sort(np.array(members[start : start + size], dtype=np.float32))
        for node, start, size in places
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class UnsureTable:
    """Names of categories beyond ASCII. XGBoost 3.2 counts the characters of pandas' where it stores bytes, so that the last bytes are
    cut off and the names lie elsewhere than it says; of other frames they are whole, and the file does not tell which."""

    text: bytes
    ends: tuple[int, ...]

    def is_of(self, categories: Sequence[str]) -> bool:
        """Whether these categories, in this order, are written so."""
        stored = [name.encode("utf-8", "surrogatepass") for name in categories]
        text = b"".join(stored)
        whole = text == self.text and self.ends == tuple(accumulate(map(len, stored), initial=0))
        ends = tuple(accumulate(map(len, categories), initial=0))
        return whole or (self.ends == ends and self.text == text[: ends[-1]])


def _tables(
    cats: Mapping[str, Any] | None,
) -> tuple[dict[int, tuple[str, ...]], dict[int, UnsureTable]]:
    """The category tables that XGBoost 3.1 and later keep of a data frame: strings as offsets into UTF-8, or numbers; and
    those that are not certain."""
    tables: dict[int, tuple[str, ...]] = {}
    unsure: dict[int, UnsureTable] = {}
    for column, table in enumerate((cats or {}).get("enc", [])):
        if "type" in table:
            if table["type"] not in _integer_types:
                raise ConfigError(f"the categories of column {column} are of a type that is not known")
            tables[column] = tuple(str(value) for value in table["values"])
        elif len(table["offsets"]):
            text = bytes(int(value) & 0xFF for value in list(table["values"]))
            ends = tuple(int(end) for end in list(table["offsets"]))
            if text.isascii():
                tables[column] = tuple(text[start:stop].decode() for start, stop in pairwise(ends))
            elif len(ends) > 1:
                unsure[column] = UnsureTable(text=text, ends=ends)
    return {column: table for column, table in tables.items() if table}, unsure
