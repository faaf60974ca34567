"""The Rust package treeshap, from XGBoost's own JSON. It is built from source, which needs Cargo."""

from importlib.metadata import version as version_of

import numpy as np
from treeshap import ShapExplainer, TreeEnsemble

row_by_row = True


def path_dependent(folder):
    explainer = ShapExplainer(model(folder))
    return lambda rows: explainer.explain(rows.astype(np.float64)).shap_values


def interventional(folder):
    background = np.load(folder / "background.npy").astype(np.float64)
    explainer = ShapExplainer(model(folder), "interventional", background, len(background))
    return lambda rows: explainer.explain(rows.astype(np.float64)).shap_values


def model(folder):
    return TreeEnsemble.from_file(str(folder / "model.json"), "xgboost")


def version() -> str:
    return version_of("treeshap")
