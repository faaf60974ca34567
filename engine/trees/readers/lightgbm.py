"""LightGBM: its text format read into the canonical form, routing and all.

Traps on the way: thresholds and rows are float64; a missing value means something else at each node
(None: it counts as zero; NaN: the default side; Zero: zeros are missing too); category tests are bit sets, and a
missing category always fails them.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.engine.trees.forest import Forest, PostTransform
from penstock.engine.trees.readers.assemble import Tree, bits_set, join_trees, narrowed
from penstock.schemas.errors import ConfigError

_is_categorical, _default_left, _missing_shift = 1, 2, 2
_missing_none, _missing_zero, _missing_nan = 0, 1, 2
_zero_reach = float(np.float32(1e-35))
"""LightGBM takes every number up to this for zero."""

_parameter = re.compile(r"\[[^:\[\]\s]+: .*\]")

_identity = (
    "regression",
    "regression_l1",
    "huber",
    "fair",
    "quantile",
    "mape",
    "lambdarank",
    "rank_xendcg",
    "custom",
)
_exponential = ("poisson", "gamma", "tweedie")


@dataclass(frozen=True, kw_only=True, slots=True)
class LightgbmModel:
    """What the text says."""

    forest: Forest
    exponential: bool
    """The answer is exp(raw score)."""
    feature_names: tuple[str, ...]
    categories: Mapping[int, tuple[str, ...]]
    """Tables of the categorical features, by column; of ordered ones too, whose codes are compared as numbers."""
    unowned_tables: tuple[tuple[str, ...], ...]
    """Tables that it keeps without saying whose they are: then `categories` is empty."""
    categorical: tuple[int, ...]
    """Columns with category tests, with or without a table."""
    codes_max: Mapping[int, int]
    """By column the largest code of a categorical one that training had."""
    ranks: bool
    """Its answer is a score to sort by."""
    cuts: tuple[tuple[float, ...], ...]
    """The thresholds in double precision, column by column: Signature.cuts."""


def read_lightgbm(
    text: str, *, classes: Sequence[str] | None = None, table_columns: Sequence[int] | None = None
) -> LightgbmModel:
    """A model in LightGBM's text format. `table_columns`: the columns that were categories in its data frame, ascending, where
    that is known. Raises ConfigError for what is malformed or cannot be kept exactly."""
    try:
        return _read(text, classes, table_columns)
    except (KeyError, ValueError, IndexError, TypeError, ArithmeticError) as error:
        raise ConfigError(f"the LightGBM model is malformed: {type(error).__name__} {error}") from error


def _read(text: str, classes: Sequence[str] | None, table_columns: Sequence[int] | None) -> LightgbmModel:
    head, *blocks = text.split("\nTree=")
    if head.lstrip()[:1] in ("{", "["):
        raise ConfigError(
            "the file is JSON: what LightGBM's dump_model says is for reading only; save the model with save_model (.txt)"
        )
    header = _members(head)
    if not head.startswith("tree") or not blocks:
        raise ConfigError("the file is not a LightGBM text model with trees in it")
    if "\nend of trees" not in blocks[-1]:
        raise ConfigError("the LightGBM model is cut off: its trees do not end")
    if "\nend of parameters" not in blocks[-1]:  # LightGBM itself reads past the end of such a file
        raise ConfigError("the LightGBM model is cut off: its parameters do not end")
    blocks[-1], behind = blocks[-1].split("\nend of trees", 1)
    _require_parameters(behind)
    if "tree_sizes" in header:
        _require_places(header["tree_sizes"], blocks)
    outputs = int(header["num_tree_per_iteration"])
    if int(header.get("num_class", outputs)) != outputs:
        raise ConfigError(
            f"the LightGBM model is malformed: it is of {header['num_class']} classes with {outputs} trees an iteration"
        )
    features = int(header["max_feature_idx"]) + 1
    if len(blocks) % outputs:
        raise ConfigError(f"the LightGBM model has {len(blocks)} trees for {outputs} outputs")
    objective = _Objective.parse(header.get("objective", "custom"))
    scale = objective.scale
    if "average_output" in header:
        scale *= outputs / len(blocks)
    trees = [_tree(_members(block), scale, number % outputs) for number, block in enumerate(blocks)]
    trees, cuts = narrowed(trees, features)
    labels: tuple[str, ...] = ()
    if objective.is_classifier or (classes and objective.post_transform is PostTransform.LOGISTIC):
        count = max(outputs, 2)
        labels = tuple(classes) if classes else tuple(str(index) for index in range(count))
        if len(labels) != count:
            raise ConfigError(f"{len(labels)} class names were given, the model has {count} classes")
    forest = join_trees(
        trees,
        features=features,
        outputs=outputs,
        base_values=[0.0] * outputs,
        post_transform=objective.post_transform,
        labels=labels,
        output_name="probabilities" if labels else "value",
    )
    infos = header.get("feature_infos", "").split(" ")
    categorical = tuple(index for index, info in enumerate(infos) if ":" in info and not info.startswith("["))
    tested = np.unique(forest.feature[forest.set_index >= 0]).tolist()
    tables = _tables(text)
    owners = _owners(tables, infos, categorical, table_columns)
    return LightgbmModel(
        forest=forest,
        exponential=objective.exponential,
        feature_names=tuple(header["feature_names"].split(" ")),
        categories=dict(zip(owners, tables, strict=False)),
        unowned_tables=() if len(owners) == len(tables) else tuple(tables),
        categorical=tuple(sorted({*categorical, *tested})),
        codes_max={column: _codes(infos[column]) for column in categorical},
        ranks=header.get("objective", "").split(" ")[0] in ("lambdarank", "rank_xendcg"),
        cuts=cuts,
    )


def _require_places(sizes: str, blocks: Sequence[str]) -> None:
    """Raises ConfigError where the trees do not stand where the header says: LightGBM looks there, past the end of the file too."""
    said = [int(size) for size in sizes.split()]
    # what follows the last tree says nothing of where one begins
    stand = [len(f"Tree={block}\n".encode()) for block in blocks[:-1]]
    if len(said) != len(blocks) or said[:-1] != stand:
        raise ConfigError(
            "the LightGBM model is malformed: its trees are not as long as its tree_sizes say; save it again with save_model"
        )


def _require_parameters(behind: str) -> None:
    """Raises ConfigError for a parameter that LightGBM cannot take apart: it reads past the end of one, which may end the process or
    not, as its memory happens to be."""
    inside = False
    for line in behind.split("\n"):
        if line == "end of parameters":
            return
        if inside and line and not _parameter.fullmatch(line):
            raise ConfigError(f"the LightGBM model is malformed: {line[:80]!r} is no parameter")
        inside = inside or line == "parameters:"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Objective:
    """How raw scores become answers."""

    post_transform: PostTransform = PostTransform.NONE
    is_classifier: bool = False
    scale: float = 1.0
    exponential: bool = False

    @staticmethod
    def parse(text: str) -> "_Objective":
        name, *words = text.split(" ")
        options = dict(word.split(":", 1) for word in words if ":" in word)
        if name in _identity and "sqrt" not in words:
            return _Objective()
        if name in _exponential:
            return _Objective(exponential=True)
        if name in ("binary", "multiclassova"):
            sigmoid = float(options.get("sigmoid", 1.0))
            return _Objective(post_transform=PostTransform.LOGISTIC, is_classifier=True, scale=sigmoid)
        if name == "multiclass":
            return _Objective(post_transform=PostTransform.SOFTMAX, is_classifier=True)
        if name == "cross_entropy":
            return _Objective(post_transform=PostTransform.LOGISTIC)
        cure = ": train cross_entropy" if text.startswith("cross_entropy_lambda") else ""
        if "sqrt" in words:
            cure = ": train without reg_sqrt, on the root of what is predicted, and square the answers downstream"
        raise ConfigError(f"LightGBM objective {text!r} has an output that no bundle can keep{cure}")


def _members(block: str) -> dict[str, str]:
    lines = (line.split("=", 1) for line in block.split("\n")[1:] if line)
    return {line[0]: line[1] if len(line) == 2 else "" for line in lines}


def _tree(members: Mapping[str, str], scale: float, output: int) -> Tree:
    if members.get("is_linear", "0") != "0":
        raise ConfigError("LightGBM's linear trees have no ONNX operator: train with linear_tree=False")
    leaf_values = _numbers(members["leaf_value"], float) * scale
    leaves = len(leaf_values)
    if int(members["num_leaves"]) != leaves:
        raise ConfigError("a LightGBM tree does not have the leaves it promises")
    if leaves == 1:
        return Tree(
            feature=np.array([-1]),
            threshold=np.zeros(1),
            yes=np.array([-1]),
            no=np.array([-1]),
            missing_yes=np.zeros(1, dtype=np.bool_),
            cover=np.ones(1),  # a tree that asks nothing explains nothing, whatever it saw
            values=leaf_values,
            output=output,
        )
    inner = leaves - 1
    decision = _numbers(members["decision_type"], int)
    threshold = _numbers(members["threshold"], float)
    children = [_numbers(members[side], int) for side in ("left_child", "right_child")]
    arrays = [_numbers(members["split_feature"], int), decision, threshold, *children]
    if any(len(array) != inner for array in arrays):
        raise ConfigError("a LightGBM tree does not have the splits it promises")
    # Inner node i stays i; leaf j, which LightGBM writes as ~j, becomes inner + j.
    left, right = (np.where(child >= 0, child, inner + ~child) for child in children)
    in_set = (decision & _is_categorical) != 0
    nothing = np.full(leaves, -1)
    return Tree(
        feature=np.concatenate((arrays[0], nothing)),
        threshold=np.concatenate((_thresholds(threshold), np.zeros(leaves))),
        yes=np.concatenate((left, nothing)),
        no=np.concatenate((right, nothing)),
        missing_yes=np.concatenate((_missing_left(decision, threshold), np.zeros(leaves, dtype=np.bool_))),
        cover=_covers(members, inner),
        values=np.concatenate((np.zeros(inner), leaf_values)),
        output=output,
        sets=_sets(members, threshold, in_set),
    )


def _missing_left(decision: NDArray[np.int64], threshold: NDArray[np.float64]) -> NDArray[np.bool_]:
    in_set = (decision & _is_categorical) != 0
    default_left = (decision & _default_left) != 0
    kind = decision >> _missing_shift
    zeros_default = (kind == _missing_zero) & ~in_set
    zero_passes = threshold >= 0.0
    if (zeros_default & (default_left != zero_passes)).any():
        raise ConfigError(
            "the LightGBM model was trained with zero_as_missing and sends zeros where their value would not: "
            "one test of a tree cannot say that; train with NaN for missing values"
        )
    return np.where(in_set, False, np.where(kind == _missing_none, zero_passes, default_left))


def _thresholds(threshold: NDArray[np.float64]) -> NDArray[np.float64]:
    """Thresholds for numbers as they come: LightGBM puts 0 for every number within its reach of zero, and compares then."""
    passed = np.where((threshold >= 0) & (threshold <= _zero_reach), _zero_reach, threshold)
    below = np.nextafter(-_zero_reach, -np.inf)
    return np.where((threshold >= -_zero_reach) & (threshold < 0), below, passed)


def _sets(
    members: Mapping[str, str], threshold: NDArray[np.float64], in_set: NDArray[np.bool_]
) -> dict[int, NDArray[np.float32]]:
    if not in_set.any():
        return {}
    bounds = _numbers(members["cat_boundaries"], int)
    given = _numbers(members["cat_threshold"], int)
    words = given.astype(np.uint32)
    if (words != given).any() or bounds.min() < 0 or bounds.max() > len(words) or (np.diff(bounds) < 0).any():
        raise ConfigError("the LightGBM model is malformed: its sets of categories are not where it says")
    sets = {}
    for node in np.flatnonzero(in_set).tolist():
        number = int(threshold[node])
        if not 0 <= number < len(bounds) - 1:
            raise ConfigError(f"the LightGBM model is malformed: it has no set of categories {number}")
        sets[node] = bits_set(words[bounds[number] : bounds[number + 1]])
    return sets


def _covers(members: Mapping[str, str], inner: int) -> NDArray[np.float64] | None:
    if "internal_count" not in members or "leaf_count" not in members:
        return None
    counts = np.concatenate([_numbers(members[name], float) for name in ("internal_count", "leaf_count")])
    return counts if len(counts) == 2 * inner + 1 and (counts > 0).all() else None


def _numbers(text: str, kind: type[int] | type[float]) -> NDArray[Any]:
    return np.array([kind(word) for word in text.split()], dtype=np.int64 if kind is int else np.float64)


def _tables(text: str) -> list[tuple[str, ...]]:
    """The tables that a pandas-trained model keeps: one for each categorical column of its data frame, in column order."""
    _, found, line = text.rpartition("\npandas_categorical:")
    tables = json.loads(line.split("\n", 1)[0]) if found else None
    return [
        tuple(category if isinstance(category, str) else json.dumps(category) for category in table)
        for table in tables or ()
    ]


def _owners(
    tables: Sequence[tuple[str, ...]],
    infos: Sequence[str],
    categorical: Sequence[int],
    table_columns: Sequence[int] | None,
) -> list[int]:
    """The columns that the tables belong to; none where that is not sure."""
    if table_columns is not None and len(table_columns) == len(tables):
        return [*table_columns]
    if len(categorical) == len(tables):
        fits = all(_codes(infos[at]) < len(table) for at, table in zip(categorical, tables, strict=True))
        return [*categorical] if fits else []
    # One that never varied is called none, whatever it was; an ordered one looks like numbers that are its codes.
    longest = max(map(len, tables), default=0)
    perhaps = {column for column, info in enumerate(infos) if info == "none" or _may_be_codes(info, longest)}
    columns = sorted({*categorical, *perhaps})
    return columns if len(columns) == len(tables) else []


def _codes(info: str) -> int:
    """The largest code of a categorical column."""
    return max(int(code) for code in info.split(":"))


def _may_be_codes(info: str, longest: int) -> bool:
    if not info.startswith("["):
        return False
    low, high = (float(end) for end in info.strip("[]").split(":"))
    return low >= 0 and low.is_integer() and high.is_integer() and high < longest
