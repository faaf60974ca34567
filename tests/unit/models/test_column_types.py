"""Columns of every type that a data frame has, behind transformers: the bundle answers a record as the original answers the
data frame, in the frame's own types, or is refused by the column's name.

The oracle is the original on the frame itself; the bundle reads the same rows as JSON. PENSTOCK_MATRIX=all runs every case.
"""

import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    StandardScaler,
    TargetEncoder,
)
from sklearn.tree import DecisionTreeRegressor

from penstock.engine.models.packaging.package import package
from penstock.engine.models.packaging.parity import ParityError
from penstock.schemas.errors import ConfigError
from tests.unit.models.test_sklearn_matrix import original_answers, served

_asked = os.environ.get("PENSTOCK_MATRIX", "20")
Make = Callable[[np.random.Generator, int], pd.Series]


def _whole(kind: str, most: int) -> Make:
    return lambda random, rows: pd.Series(random.integers(1, most, rows).astype(kind))


def _numbers(kind: str) -> Make:
    return lambda random, rows: pd.Series(np.round(np.exp(random.normal(3, 1, rows)), 2).astype(kind))


def _choice(values: list[Any], kind: Any) -> Make:
    return lambda random, rows: pd.Series(
        [values[k] for k in random.integers(0, len(values), rows)], dtype=kind
    )


columns: dict[str, Make] = {
    "bool": _choice([False, True], "bool"),
    "int8": _whole("int8", 120),
    "uint8": _whole("uint8", 250),
    "int16": _whole("int16", 30_000),
    "uint16": _whole("uint16", 60_000),
    "int32": _whole("int32", 2_000_000_000),
    "int64": _whole("int64", 5_000_000_000),
    "float16": _numbers("float16"),
    "float32": _numbers("float32"),
    "float64": _numbers("float64"),
    "Int64": _choice([1, 2, 7, 30, None], "Int64"),
    "Int8": _choice([1, 2, 7, 30, None], "Int8"),
    "Float64": _choice([1.25, 2.5, 7.75, None], "Float64"),
    "boolean": _choice([False, True], "boolean"),
    "objects of booleans": _choice([False, True], object),
    "objects of numbers": _choice([1, 2, 3, 4], object),
    "string": _choice(["a", "b", "c"], "string"),
    "string with gaps": _choice(["a", "b", "c", None], "string"),
    "objects of texts": _choice(["a", "b", "c", None], object),
    "category": _choice(["a", "b", "c"], pd.CategoricalDtype(["c", "b", "a"])),
    "category of numbers": _choice([7, 1, 3], pd.CategoricalDtype([7, 1, 3])),
}
steps: dict[str, Callable[[], Any]] = {
    "passed on": lambda: "passthrough",
    "log1p": lambda: FunctionTransformer(np.log1p),
    "exp, checked": lambda: FunctionTransformer(np.exp, validate=True),
    "square": lambda: FunctionTransformer(np.square),
    "negative": lambda: FunctionTransformer(np.negative),
    "reciprocal": lambda: FunctionTransformer(np.reciprocal),
    "sqrt": lambda: FunctionTransformer(np.sqrt),
    "standard scaler": StandardScaler,
    "min-max scaler": MinMaxScaler,
    "one-hot": lambda: OneHotEncoder(handle_unknown="ignore"),
    "ordinal": lambda: OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
    "target encoder": lambda: TargetEncoder(random_state=0),
}
models: dict[str, Callable[[], Any]] = {
    "tree": lambda: DecisionTreeRegressor(max_depth=6, random_state=0),
    "line": lambda: Ridge(),
}
_every = [(column, step, model) for column in columns for step in steps for model in models]
_order = np.random.default_rng(1).permutation(len(_every)).tolist()
_found_wrong = [
    ("bool", "log1p", "line"), ("bool", "negative", "tree"), ("uint8", "square", "tree"), ("int16", "square", "line"),
    ("int64", "square", "tree"), ("uint8", "negative", "line"), ("float16", "sqrt", "line"), ("float16", "standard scaler", "line"),
    ("objects of booleans", "one-hot", "tree"), ("objects of numbers", "ordinal", "line"), ("float64", "one-hot", "line"),
    ("float32", "one-hot", "tree"), ("int8", "ordinal", "tree"), ("float32", "target encoder", "tree"),
]  # fmt: skip
_chosen = _every if _asked == "all" else [*_found_wrong, *(_every[place] for place in _order[: int(_asked)])]


def _frame(column: str, seed: int, rows: int = 120) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    return pd.DataFrame({"a": columns[column](random, rows), "x": np.round(random.normal(size=rows), 2)})


def _target(frame: pd.DataFrame) -> NDArray[np.float64]:
    codes, _ = pd.factorize(frame["a"], sort=False)
    return np.asarray((codes % 5) * 1.0 + 3.0 * frame["x"].to_numpy())


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    found = []
    for row in frame.astype(object).to_dict("records"):
        record = {}
        for name, value in row.items():
            missing = value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))
            record[str(name)] = None if missing else value.item() if isinstance(value, np.generic) else value
        found.append(record)
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("column", "step", "model"), _chosen)
def test_a_record_is_answered_as_the_frame_is_in_its_own_types(
    column: str, step: str, model: str, tmp_path: Path
) -> None:
    training = _frame(column, 1)
    parts = ColumnTransformer([("a", steps[step](), ["a"]), ("x", "passthrough", ["x"])])
    pipeline = Pipeline([("columns", parts), ("model", models[model]())])
    try:
        pipeline.fit(training, _target(training))
    except (ValueError, TypeError, ArithmeticError) as error:
        pytest.skip(f"cannot be trained: {error}")
    refused = ""
    try:
        report = package(pipeline, tmp_path / "bundle", background=training[:20], rows=training)
    except (ConfigError, ParityError) as error:
        refused = str(error)
    if refused:
        assert re.search(
            r"column a is of type|(?<!Runtime )refuses|NumPy's|original model cannot|field a is not", refused
        )
        assert "\n" not in refused
        pytest.xfail(f"refused: {refused}")
    records = _frame(column, 2)
    places, found = served(report.bundle, _records(records))
    (output,) = [name for name in found.outputs if not name.startswith("log_")]
    kept = records.iloc[places]
    assert len(kept) or step == "one-hot"
    wanted = original_answers(pipeline, report.parity.compared[output], kept)
    off = np.abs(found.outputs[output] - wanted) / np.maximum(1.0, np.abs(wanted))
    assert off.max(initial=0.0) <= 1e-5


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "what"), [("uint8", "the array is of type uint8"), ("float32", ""), ("int64", "")]
)
def test_an_array_tells_its_type_as_well(kind: str, what: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x = random.integers(0, 200, (100, 3)).astype(kind)
    model = make_pipeline(FunctionTransformer(np.square), Ridge()).fit(x, x.astype(float).sum(axis=1))
    if what:
        with pytest.raises(ConfigError, match=what):
            package(model, tmp_path / "bundle", background=x, rows=x)
        return
    report = package(model, tmp_path / "bundle", background=x, rows=x)
    assert not [note for note in report.notes if "double precision" in note]


@pytest.mark.filterwarnings("ignore")
def test_without_a_frame_it_is_said_what_a_function_is_taken_to_compute_with(tmp_path: Path) -> None:
    frame = pd.DataFrame({"n": np.arange(40.0), "m": np.arange(40.0) % 7})
    parts = ColumnTransformer([("n", FunctionTransformer(np.log1p), ["n"]), ("m", StandardScaler(), ["m"])])
    model = make_pipeline(parts, Ridge()).fit(frame, frame["n"])
    (note,) = [each for each in package(model, tmp_path / "bare").notes if "FunctionTransformer" in each]
    assert "n is taken for double precision" in note
    told = package(model, tmp_path / "told", background=frame)
    assert not [each for each in told.notes if "FunctionTransformer" in each]
    assert told.parity.rows_as_given == len(frame)
