"""shapiq's explainer of trees: Shapley values, a row at a time, as its interface is."""

from importlib.metadata import version as version_of

import numpy as np
import shapiq
import xgboost

row_by_row = True


def path_dependent(folder):
    regressor = xgboost.XGBRegressor()  # a bare Booster it does not take
    regressor.load_model(folder / "model.json")
    regressor.base_score = (
        None  # of a loaded model it is a text, on which shapiq stumbles; it then asks for the intercept
    )
    explainer = shapiq.TreeExplainer(model=regressor, max_order=1, index="SV")
    return lambda rows: np.stack([explainer.explain(row).get_n_order_values(1) for row in rows])


def version() -> str:
    return version_of("shapiq")
