"""Who else computes SHAP values of trees: each peer made ready for one model, as a call from rows to values."""

import contextlib
import importlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np
import onnxruntime as ort
import pandas
import xgboost
from numpy.typing import NDArray

from engine.explain.forest import Forest
from engine.explain.fused_shap import FusedShap
from engine.explain.leaf_tables import LeafTables
from engine.explain.onnx_write import write_forest
from engine.explain.tensor_graph import GraphShap
from engine.explain.tree_shap import TreeShap
from engine.models.device import Device
from engine.models.from_xgboost import read_xgboost
from engine.models.session import choose_device

Rows = NDArray[np.float32]
Explain = Callable[[Rows], NDArray[np.float64]]
"""Rows (n, F) to SHAP values (n, F)."""
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Peer:
    """`make` returns None where the peer's package is not installed, and raises ConfigError where there is no GPU for it."""

    name: str
    make: Callable[[Workload], Explain | None]
    interventional: bool = False
    same_trees: bool = True


def workload(trees: int, depth: int, *, rows: int, background: int) -> Workload:
    """A boosted model of nearly full trees: noisy target, 8 % missing values, every feature used."""
    rng = np.random.default_rng(trees * 100 + depth)
    X = rng.normal(size=(_train_rows + rows, _features)).astype(np.float32)
    signal = X[:, 0] * X[:, 1] + np.sin(3 * X[:, 2:10]).sum(axis=1) + np.abs(X[:, 10:]).sum(axis=1)
    X[rng.random(X.shape) < 0.08] = np.nan
    train = xgboost.DMatrix(X[:_train_rows], signal[:_train_rows] + rng.normal(size=_train_rows))
    settings = {"max_depth": depth, "eta": 0.05, "min_child_weight": 1, "tree_method": "hist"}
    booster = xgboost.train(settings, train, num_boost_round=trees)
    booster.set_param({"nthread": 1})
    forest = read_xgboost(bytes(booster.save_raw("json"))).forest
    return Workload(
        name=f"{trees}x{depth}",
        trees=trees,
        depth=depth,
        booster=booster,
        forest=forest,
        onnx=write_forest(forest).SerializeToString(),
        rows=X[_train_rows:],
        background=X[:background],
    )


def predictor(work: Workload) -> Explain:
    """ONNX Runtime's plain prediction of the same model, one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(work.onnx, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda rows: session.run(None, {name: rows})[0]


def _penstock(work: Workload) -> Explain:
    explainer = TreeShap.from_onnx(work.onnx)
    return lambda rows: explainer.shap_values(rows)[0]


def _penstock_exact(work: Workload) -> Explain:
    explainer = TreeShap.from_onnx(work.onnx)
    return lambda rows: explainer.shap_values(rows, precision="float64")[0]


def _penstock_interventional(work: Workload) -> Explain:
    explainer = TreeShap.from_onnx(work.onnx, background=work.background)
    return lambda rows: explainer.shap_values(rows)[0]


def _cuda_graph(work: Workload) -> Explain:
    explainer = GraphShap(LeafTables.of(work.forest), device=choose_device("cuda:0"))
    return lambda rows: explainer.contributions(rows)[0][:, :, 0]


def _cuda_fused(work: Workload) -> Explain:
    explainer = FusedShap(LeafTables.of(work.forest), device=Device(cuda=0))
    return lambda rows: explainer.contributions(rows)[0][:, :, 0]


def _xgboost(work: Workload) -> Explain:
    def explain(rows: Rows) -> NDArray[np.float64]:
        # The DMatrix is part of the price: every micro-batch needs one.
        matrix = xgboost.DMatrix(rows, nthread=1)
        return np.asarray(work.booster.predict(matrix, pred_contribs=True)[:, :-1], dtype=np.float64)

    return explain


def _lightgbm(work: Workload) -> Explain:
    """A model of the same size, its own: LightGBM cannot read the other."""
    target = work.booster.inplace_predict(work.rows)
    settings = {
        "objective": "regression", "num_leaves": 2**work.depth, "max_depth": work.depth, "min_data_in_leaf": 1,
        "verbose": -1, "num_threads": 1,
    }  # fmt: skip
    booster = lightgbm.train(settings, lightgbm.Dataset(work.rows, target), num_boost_round=work.trees)
    return lambda rows: np.asarray(booster.predict(rows, pred_contrib=True, num_threads=1))[:, :-1]


def _shap(work: Workload) -> Explain | None:
    package = _installed("shap")
    if package is None:
        return None
    explainer = package.TreeExplainer(_as_shap_trees(work.forest))
    return lambda rows: np.asarray(explainer.shap_values(rows, check_additivity=False)).reshape(len(rows), -1)


def _shap_interventional(work: Workload) -> Explain | None:
    package = _installed("shap")
    if package is None:
        return None
    explainer = package.TreeExplainer(_as_shap_trees(work.forest), work.background)
    return lambda rows: np.asarray(explainer.shap_values(rows, check_additivity=False)).reshape(len(rows), -1)


def _as_shap_trees(forest: Forest) -> dict[str, Any]:
    """The same trees for shap's own C code; an XGBoost model it would hand back to XGBoost."""
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


def _shapiq(work: Workload) -> Explain | None:
    package = _installed("shapiq")
    if package is None:
        return None
    regressor = xgboost.XGBRegressor()  # a bare Booster it does not take
    regressor.load_model(work.booster.save_raw("ubj"))
    explainer = package.TreeExplainer(model=regressor, max_order=1, index="SV")

    def explain(rows: Rows) -> NDArray[np.float64]:
        return np.stack([explainer.explain(row).get_n_order_values(1) for row in rows])

    return explain


def _woodelf(work: Workload) -> Explain | None:
    package = _installed("woodelf")
    if package is None:
        return None
    return _quietly(package.WoodelfExplainer(work.booster))


def _woodelf_interventional(work: Workload) -> Explain | None:
    package = _installed("woodelf")
    if package is None:
        return None
    return _quietly(package.WoodelfExplainer(work.booster, _frame(work.background)))


def _quietly(explainer: Any) -> Explain:
    """Without the progress and times that woodelf prints at every call."""

    def explain(rows: Rows) -> NDArray[np.float64]:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return np.asarray(explainer.shap_values(_frame(rows)), dtype=np.float64)

    return explain


def _frame(rows: Rows) -> pandas.DataFrame:
    return pandas.DataFrame(rows, columns=[f"f{column}" for column in range(rows.shape[1])])


def _installed(name: str) -> Any | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


peers = (
    Peer(name="penstock", make=_penstock),
    Peer(name="penstock float64", make=_penstock_exact),
    Peer(name="penstock cuda graph", make=_cuda_graph),
    Peer(name="penstock cuda fused", make=_cuda_fused),
    Peer(name="shap", make=_shap),
    Peer(name="xgboost", make=_xgboost),
    Peer(name="lightgbm", make=_lightgbm, same_trees=False),
    Peer(name="shapiq", make=_shapiq),
    Peer(name="woodelf", make=_woodelf),
    Peer(name="penstock interventional", make=_penstock_interventional, interventional=True),
    Peer(name="shap interventional", make=_shap_interventional, interventional=True),
    Peer(name="woodelf interventional", make=_woodelf_interventional, interventional=True),
)
