"""Which types are built from .skops files: scikit-learn's own, those that are named, and no others."""

from pathlib import Path
from typing import Any

import pytest
import skops.io
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from penstock.engine.models.packaging.package import package
from penstock.engine.models.packaging.sklearn.stored.skops_files import is_trusted, load_skops
from penstock.schemas.errors import ConfigError
from tests.sklearn_cases import families
from tests.sklearn_tables import kinds, table

_dumped = (
    "one-hot, random forest",
    "one-hot, XGBoost",
    "one-hot, LightGBM",
    "ordinal, histogram boosting by category",
    "calibrated pipelines of logistic",
    "soft vote with a line",
    "stacking",
    "grid search",
    "neighbours",
    "bins, forest",
    "one-class SVM",
    "isolation forest",
)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", _dumped)
def test_models_of_scikit_learn_need_no_trust(family: str) -> None:
    build, target = families[family]
    frame = table(kinds[0], 60, 1, training=True)
    data = skops.io.dumps(build(kinds[0]).fit(frame, target(frame)))
    assert hasattr(load_skops(data), "predict")


@pytest.mark.parametrize(
    "name",
    [
        "os.system", "builtins.eval", "builtins.exec", "sklearnx.Model", "sklearn_evil.Model", "sklearn", "sklearn.externals.joblib.load",
        "sklearn.datasets.fetch_openml", "sklearn.utils._testing.assert_run_python_script", "sklearn..Model", "sklearn.tree._tree.Tree\n",
        "numpy.load", "functools.reduce", "subprocess.Popen", "sklearn.utils.tests.x.Y",
    ],
)  # fmt: skip
def test_what_is_not_scikit_learns_own_is_not_trusted(name: str) -> None:
    assert not is_trusted(name)


def _doubled(rows: Any) -> Any:
    return rows * 2


def test_a_strange_type_is_named_with_the_option_that_trusts_it(tmp_path: Path) -> None:
    frame = table(kinds[0], 60, 1, training=True)[["amount", "age"]]
    model = make_pipeline(FunctionTransformer(_doubled), Ridge()).fit(frame, frame["age"])
    path = tmp_path / "model.skops"
    skops.io.dump(model, path)
    name = f"{_doubled.__module__}._doubled"
    with pytest.raises(ConfigError, match=f"give --trust {name}"):
        package(path, tmp_path / "bundle")
    with pytest.raises(
        ConfigError, match="applies the Python function _doubled"
    ):  # built, and refused for what it is
        package(path, tmp_path / "bundle", trusted=[name])
    with pytest.raises(ConfigError, match="full name of one type"):
        package(path, tmp_path / "bundle", trusted=["tests.*"])
