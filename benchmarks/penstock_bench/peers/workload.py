"""What every contestant of a bench is given: one model, in each of the forms that somebody wants."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import lightgbm as lgb
import numpy as np

from penstock.engine.codec.contracts import contract
from penstock.engine.models.packaging.package import package
from penstock_bench.peers.records import event_schema, features

trees: Final = 100
depth: Final = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """The files of one model, 100 trees x depth 6 on 30 features, as each contestant wants to have it."""

    bundle: Path
    onnx: Path
    booster: Path
    events: Path
    predictions: Path


def make_workload(folder: Path) -> Workload:
    """Train and package the model; seconds."""
    rng = np.random.default_rng(7)
    X = rng.normal(size=(20_000, features)).astype(np.float32)
    y = X[:, 0] * X[:, 1] + np.sin(2 * X[:, 2]) + X[:, 3:8].sum(axis=1) + rng.normal(size=len(X))
    settings = {
        "objective": "regression", "num_leaves": 1 << depth, "max_depth": depth, "min_data_in_leaf": 5, "verbose": -1,
        "num_threads": 1,
    }  # fmt: skip
    model = lgb.train(settings, lgb.Dataset(X, y), num_boost_round=trees)
    found = Workload(
        bundle=folder / "bundle",
        onnx=folder / "bundle" / "model.onnx",
        booster=folder / "booster.txt",
        events=folder / "event.avsc",
        predictions=folder / "prediction.avsc",
    )
    found.events.write_text(json.dumps(event_schema()), encoding="utf-8")
    found.predictions.write_text(json.dumps(contract("prediction")), encoding="utf-8")
    model.save_model(found.booster)
    package(
        model,
        found.bundle,
        feature_names=[f"f{i}" for i in range(features)],
        rows=X[:500],
        input_schema=found.events,
    )
    return found
