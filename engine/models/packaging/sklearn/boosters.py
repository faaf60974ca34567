"""Boosters inside scikit-learn models: live XGBoost and LightGBM estimators read into the canonical form."""

import math
from dataclasses import dataclass
from typing import Any

from penstock.engine.trees.forest import Forest
from penstock.engine.trees.readers.lightgbm import LightgbmModel, read_lightgbm
from penstock.engine.trees.readers.xgboost import XgboostModel, read_xgboost


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveXgboost:
    """What the estimator holds."""

    read: XgboostModel
    marker: float | None
    """The number that it takes for a missing value, where that is not NaN."""


def is_booster(model: Any) -> bool:
    """Whether it is a scikit-learn estimator of XGBoost or LightGBM."""
    module = type(model).__module__.partition(".")[0]
    return (module == "xgboost" and hasattr(model, "get_booster")) or (
        module == "lightgbm" and hasattr(model, "booster_")
    )


def is_xgboost(model: Any) -> bool:
    """Whether it is a scikit-learn estimator of XGBoost."""
    return is_booster(model) and hasattr(model, "get_booster")


def read_live_xgboost(model: Any) -> LiveXgboost:
    """A fitted XGBModel. Raises ConfigError for what cannot be kept exactly."""
    data = bytes(model.get_booster().save_raw("json"))
    marker = getattr(model, "missing", None)
    return LiveXgboost(
        read=read_xgboost(data, stop_at_best=True),
        marker=None if marker is None or math.isnan(marker) else float(marker),
    )


def read_live_lightgbm(model: Any) -> LightgbmModel:
    """A fitted LGBMModel. Raises ConfigError for what cannot be kept exactly."""
    return read_lightgbm(model.booster_.model_to_string())


def forest_of_booster(model: Any) -> tuple[Forest, tuple[tuple[float, ...], ...], bool, float | None]:
    """The trees of either, their cuts (Signature.cuts), whether the answer is exp(raw score), and the marker."""
    if type(model).__module__.partition(".")[0] == "xgboost":
        live = read_live_xgboost(model)
        return live.read.forest, (), live.read.exponential, live.marker
    read = read_live_lightgbm(model)
    return read.forest, read.cuts, read.exponential, None


def booster_types() -> tuple[type, ...]:
    """The estimator classes of those of both libraries that are installed."""
    found: list[type] = []
    try:
        import xgboost

        found += [
            xgboost.XGBClassifier,
            xgboost.XGBRegressor,
            xgboost.XGBRFClassifier,
            xgboost.XGBRFRegressor,
        ]
    except ImportError:
        pass
    try:
        import lightgbm

        found += [lightgbm.LGBMClassifier, lightgbm.LGBMRegressor]
    except ImportError:
        pass
    return tuple(found)
