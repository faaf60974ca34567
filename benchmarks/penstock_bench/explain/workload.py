"""What `penstock bench explain` explains: models in every form that a contestant wants, and rows that they have not seen."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import xgboost
from numpy.typing import NDArray

from penstock.engine.trees.forest import Forest
from penstock.engine.trees.onnx.write import write_forest
from penstock.engine.trees.readers.xgboost import read_xgboost

Rows = NDArray[np.float32]
_features, _train_rows = 28, 20_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """One model, as every peer wants to have it, and rows that it has not seen."""

    name: str
    trees: int
    depth: int
    booster: xgboost.Booster
    forest: Forest
    onnx: bytes
    rows: Rows
    background: Rows


def workload(trees: int, depth: int, *, rows: int, background: int, holes: bool = True) -> Workload:
    """A boosted model of nearly full trees: noisy target, every feature used, and with `holes` 8 % missing values."""
    rng = np.random.default_rng(trees * 100 + depth)
    X = rng.normal(size=(_train_rows + rows, _features)).astype(np.float32)
    signal = X[:, 0] * X[:, 1] + np.sin(3 * X[:, 2:10]).sum(axis=1) + np.abs(X[:, 10:]).sum(axis=1)
    if holes:
        X[rng.random(X.shape) < 0.08] = np.nan
    target = signal[:_train_rows] + rng.normal(size=_train_rows)
    settings = {"max_depth": depth, "eta": 0.05, "min_child_weight": 1}
    booster = _trained(X[:_train_rows], target, trees, settings)
    return _workload(f"{trees}x{depth}", trees, depth, booster, X[_train_rows:], X[:background])


def deep_workload(depth: int, *, rows: int, background: int) -> Workload:
    """Chains of `depth` tests, as one-hot columns make of trees. Half of the rows are outliers: many columns at once are on,
    so that they pass what next to no row in training passed."""
    rng = np.random.default_rng(depth)
    columns = depth + 8
    code = rng.integers(0, columns, _train_rows)
    X = np.eye(columns, dtype=np.float32)[code]
    target = rng.normal(size=columns)[code] * 5 + rng.normal(size=_train_rows)
    settings = {"max_depth": depth, "eta": 0.3, "min_child_weight": 0, "lambda": 0}
    booster = _trained(X, target, 10, settings)
    chosen = np.eye(columns, dtype=np.float32)[rng.integers(0, columns, rows)]
    outliers = np.arange(rows) % 2 == 1
    chosen[outliers] = rng.random((int(outliers.sum()), columns)) < 0.5
    chosen[1] = 1
    # Off the thresholds, where `<` and `<=` differ, which some readers of XGBoost's models confuse.
    return _workload(f"10x{depth}", 10, depth, booster, chosen * 3 - 1, X[:background])


def complete(rows: Rows) -> Rows:
    """The rows with 0 for every missing value: some packages do not know what to do with those."""
    return np.nan_to_num(rows, nan=0.0)


def as_plain_trees(forest: Forest) -> dict[str, Any]:
    """The trees as shap's own C code takes them; an XGBoost model it would hand back to XGBoost."""
    ends = [*forest.roots[1:].tolist(), forest.nodes]
    trees = []
    for start, end in zip(forest.roots.tolist(), ends, strict=True):
        part = slice(start, end)
        leaf = forest.leaf[part] >= 0
        yes, no = np.where(leaf, -1, forest.yes[part] - start), np.where(leaf, -1, forest.no[part] - start)
        cover = np.ones(end - start) if forest.cover is None else forest.cover[part]
        trees.append({
            "children_left": yes,
            "children_right": no,
            "children_default": np.where(forest.missing_yes[part] != 0, yes, no),
            "features": np.where(leaf, -2, forest.feature[part]),
            "thresholds": forest.threshold[part].astype(np.float64),
            "values": np.where(leaf, forest.leaf_values[forest.leaf[part], 0], 0.0)[:, None],
            "node_sample_weight": cover,
        })  # fmt: skip
    return {"trees": trees, "base_offset": float(forest.base_values[0])}


def _trained(X: Rows, target: NDArray[np.float64], trees: int, settings: dict[str, float]) -> xgboost.Booster:
    booster = xgboost.train(
        {**settings, "tree_method": "hist"}, xgboost.DMatrix(X, target), num_boost_round=trees
    )
    booster.set_param({"nthread": 1})
    return booster


def _workload(
    name: str, trees: int, depth: int, booster: xgboost.Booster, rows: Rows, background: Rows
) -> Workload:
    forest = read_xgboost(bytes(booster.save_raw("json"))).forest
    return Workload(
        name=name,
        trees=trees,
        depth=depth,
        booster=booster,
        forest=forest,
        onnx=write_forest(forest).SerializeToString(),
        rows=rows,
        background=background,
    )
