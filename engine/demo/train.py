"""Trains the demo's model on the first months and packages it."""

import warnings
from pathlib import Path

import lightgbm as lgb
import numpy as np

from penstock.engine.demo.flights import Departures, categories, departure_schema, feature_names
from penstock.engine.models.packaging.package import PackageReport, package

classes = ("on_time", "late")
trees = 100


def train_and_package(departures: Departures, out: Path) -> PackageReport:
    """A LightGBM classifier of departures, as a bundle with its reader's schema. The same departures give the same bytes."""
    import json

    known = ~np.isnan(departures.late)
    table = departures.features()[known].copy()
    for name in categories:
        table[name] = table[name].astype("category")
    model = lgb.LGBMClassifier(
        n_estimators=trees,
        max_depth=6,
        num_leaves=31,
        learning_rate=0.08,
        min_child_samples=60,
        cat_smooth=30.0,
        colsample_bytree=0.8,
        deterministic=True,
        force_row_wise=True,
        random_state=2013,
        n_jobs=1,
        verbose=-1,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # LightGBM's and pandas' views on each other's releases
        model.fit(table, departures.late[known].astype(np.int64))
    schema = out.parent / "departure.avsc"
    schema.parent.mkdir(parents=True, exist_ok=True)
    schema.write_text(json.dumps(departure_schema(), indent=2))
    fields = [{"name": name, "unseen": "nan"} for name in feature_names if name in categories]
    return package(
        model.booster_,
        out,
        name="flight-delay",
        version="1",
        feature_names=list(feature_names),
        features=fields,
        classes=classes,
        rows=table.head(2000),
        input_schema=schema,
    )
