"""Who computes SHAP values of trees: in this process as a call from rows to values, or in one of its own."""

import contextlib
import importlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np
import onnxruntime as ort
import xgboost
from numpy.typing import NDArray

from penstock.engine.explain.tree.fused_shap import FusedShap
from penstock.engine.explain.tree.leaf_tables import LeafTables
from penstock.engine.explain.tree.tensor_graph import GraphShap
from penstock.engine.explain.tree.tree_shap import TreeShap
from penstock.engine.gpu.device import Device
from penstock.engine.models.runtime.session import choose_device
from penstock_bench.explain.outside import Outside
from penstock_bench.explain.workload import Rows, Workload, as_plain_trees

Explain = Callable[[Rows], NDArray[np.float64]]
"""Rows (n, F) to SHAP values (n, F)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Peer:
    """`make` returns None where the peer's package is not installed, and raises ConfigError where there is no GPU for it; an
    `outside` one has an environment of its own.

    `deep`: also asked about trees of up to 64 tests on a path, which cost others memory without end.
    `row_by_row`: so slow that fewer rows may stand for a batch.
    """

    name: str
    make: Callable[[Workload], Explain | None] | None = None
    outside: Outside | None = None
    interventional: bool = False
    same_trees: bool = True
    deep: bool = False
    row_by_row: bool = False


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
    explainer = package.TreeExplainer(as_plain_trees(work.forest))
    return lambda rows: np.asarray(explainer.shap_values(rows, check_additivity=False)).reshape(len(rows), -1)


def _shap_interventional(work: Workload) -> Explain | None:
    package = _installed("shap")
    if package is None:
        return None
    explainer = package.TreeExplainer(as_plain_trees(work.forest), work.background)

    def explain(rows: Rows) -> NDArray[np.float64]:
        with contextlib.redirect_stderr(io.StringIO()):  # a bar of progress, where it takes long
            values = explainer.shap_values(rows, check_additivity=False)
        return np.asarray(values).reshape(len(rows), -1)

    return explain


def _installed(name: str) -> Any | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


peers = (
    Peer(name="penstock", make=_penstock, deep=True),
    Peer(name="penstock float64", make=_penstock_exact, deep=True),
    Peer(name="penstock cuda graph", make=_cuda_graph),
    Peer(name="penstock cuda fused", make=_cuda_fused),
    Peer(name="shap", make=_shap, deep=True),
    Peer(name="xgboost", make=_xgboost, deep=True),
    Peer(name="lightgbm", make=_lightgbm, same_trees=False),
    Peer(name="fasttreeshap v1", outside=Outside(folder="fasttreeshap", maker="v1"), deep=True),
    Peer(name="fasttreeshap v2", outside=Outside(folder="fasttreeshap", maker="v2")),
    Peer(name="shapiq", outside=Outside(folder="shapiq", maker="path_dependent"), deep=True),
    Peer(name="treeshap", outside=Outside(folder="treeshap", maker="path_dependent")),
    Peer(name="woodelf", outside=Outside(folder="woodelf", maker="path_dependent")),
    Peer(name="penstock interventional", make=_penstock_interventional, interventional=True),
    Peer(name="shap interventional", make=_shap_interventional, interventional=True, row_by_row=True),
    Peer(
        name="woodelf interventional",
        outside=Outside(folder="woodelf", maker="interventional"),
        interventional=True,
    ),
)
