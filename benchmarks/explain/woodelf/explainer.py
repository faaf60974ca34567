"""WOODELF by its explainer of XGBoost models, without the progress and times that it prints at every call."""

import contextlib
import io
from importlib.metadata import version as version_of

import numpy as np
import pandas
import woodelf
import xgboost

row_by_row = False


def path_dependent(folder):
    return quiet(woodelf.WoodelfExplainer(booster(folder)))


def interventional(folder):
    return quiet(woodelf.WoodelfExplainer(booster(folder), frame(np.load(folder / "background.npy"))))


def booster(folder):
    read = xgboost.Booster({"nthread": 1})
    read.load_model(folder / "model.json")
    return read


def quiet(explainer):
    def explain(rows):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return np.asarray(explainer.shap_values(frame(rows)))

    return explain


def frame(rows):
    return pandas.DataFrame(rows, columns=[f"f{column}" for column in range(rows.shape[1])])


def version() -> str:
    return version_of("woodelf-explainer")
