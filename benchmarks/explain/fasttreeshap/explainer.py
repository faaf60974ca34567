"""FastTreeSHAP, both of its algorithms, on one job, from the plain arrays that it takes for a model."""

from importlib.metadata import version as version_of

import fasttreeshap
import numpy as np

row_by_row = False


def v1(folder):
    return made(folder, "v1")


def v2(folder):
    return made(folder, "v2")


def made(folder, algorithm):
    trees = np.load(folder / "trees.npz")
    names = sorted({name.split(".", 1)[1] for name in trees.files} - {"base_offset"})
    count = len(trees.files) // len(names)
    model = {"trees": [{name: trees[f"{tree}.{name}"] for name in names} for tree in range(count)]}
    explainer = fasttreeshap.TreeExplainer(model, algorithm=algorithm, n_jobs=1)
    return lambda rows: explainer.shap_values(rows, check_additivity=False).reshape(len(rows), -1)


def version() -> str:
    return version_of("fasttreeshap")
