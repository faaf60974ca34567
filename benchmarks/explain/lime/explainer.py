"""The lime package for tables, as its tutorial has it: quartiles, 5,000 perturbed records a row."""

from importlib.metadata import version as version_of

import numpy as np
import xgboost
from lime.lime_tabular import LimeTabularExplainer

row_by_row = True


def coefficients(folder):
    booster = xgboost.Booster({"nthread": 1})
    booster.load_model(folder / "model.json")
    background = np.load(folder / "background.npy")
    features = background.shape[1]
    explainer = LimeTabularExplainer(background, mode="regression", random_state=1)

    def of(row):
        found = explainer.explain_instance(row, booster.inplace_predict, num_features=features)
        values = np.zeros(features)
        for feature, value in found.as_map()[1]:
            values[feature] = value
        return values

    return lambda rows: np.stack([of(row) for row in rows])


def version() -> str:
    return version_of("lime")
