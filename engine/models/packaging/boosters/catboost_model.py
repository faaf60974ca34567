"""CatBoost: a live model, a .cbm or its JSON, with categories, as trees over the features."""

import ast
import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from penstock.engine.features.overrides import table_features
from penstock.engine.features.signature import Feature
from penstock.engine.models.packaging.boosters.forest_model import of_forest, with_sentinel, without_markers
from penstock.engine.models.packaging.converted import (
    Converted,
    PackageOptions,
    foreign_text,
    missing_library,
)
from penstock.engine.models.packaging.trial import try_file
from penstock.engine.trees.readers.catboost import CatboostColumns, read_catboost, read_columns
from penstock.schemas.errors import ConfigError

_hashes_in: Final = re.compile(r"cat_features_hashes\s*=\s*(\{.*?\n\})", re.DOTALL)
_of_its_python: Final = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError)
"""What its part in Python raises over parameters that are none, and over bytes of its C++ that are no text."""
_strange: Final = "\x00no such category"
"""Stands for a category that no table holds."""


def catboost_file(data: bytes, wishes: PackageOptions, *, kind: Literal["cbm", "json"]) -> Converted:
    """A model file. Raises ConfigError."""
    if kind == "json":
        read_columns(data)  # ours first: CatBoost takes its process down over some files
    catboost = _imported()
    try_file("catboost", data, format_name=kind)
    model = catboost.CatBoost()
    with TemporaryDirectory() as folder:
        path = Path(folder, "model")
        path.write_bytes(data)
        with _in_silence("CatBoost refuses the model"):
            model.load_model(str(path), format=kind)
    return catboost_model(model, wishes)


def catboost_model(model: Any, wishes: PackageOptions) -> Converted:
    """A fitted CatBoost, CatBoostClassifier, CatBoostRegressor or CatBoostRanker. Raises ConfigError."""
    catboost = _imported()
    columns = read_columns(_as_json(model))
    features = _features(columns, wishes)
    border = model.get_probability_threshold() if hasattr(model, "get_probability_threshold") else None
    if columns.loss in ("Logloss", "CrossEntropy") and border not in (None, 0.5):
        raise ConfigError(
            f"the CatBoost model calls a record the second class from a probability of {border:g} on, a bundle from 0.5: "
            "set_probability_threshold(0.5), and decide where the predictions are read"
        )
    tables = {
        column: feature.categories
        for column, feature in zip(range(len(columns.names)), features, strict=True)
        if feature.kind == "category"
    }
    hashed = _hashes(sorted({name for table in tables.values() for name in table}))
    hashes = {
        column: np.array([hashed[name] for name in table], dtype=np.int32) for column, table in tables.items()
    }
    read = read_catboost(columns, hashes, classes=wishes.classes)
    method = "RawFormulaVal"
    if read.forest.labels:
        method = "Probability"
    elif read.exponential:
        method = "Exponent"

    def predict(rows: NDArray[np.float64]) -> NDArray[np.generic]:
        frame = _frame(without_markers(rows, features, besides=None), columns.names, tables)
        with _in_silence("the original model cannot predict the rows"):
            pool = catboost.Pool(frame, cat_features=list(tables))
            return np.asarray(model.predict(pool, prediction_type=method, thread_count=1))

    return of_forest(
        read.forest,
        exponential=read.exponential,
        source=f"catboost {catboost.__version__}",
        features=features,
        predict=predict,
        compared_with=f"predict, {method}",
        meaning="rank" if read.ranks else None,
    )


def _features(columns: CatboostColumns, wishes: PackageOptions) -> tuple[Feature, ...]:
    names = wishes.feature_names or columns.names
    if len(names) != len(columns.names):
        raise ConfigError(f"{len(names)} features are named, the model takes {len(columns.names)}")
    features = table_features(names, tables={}, categorical=columns.categorical, overrides=wishes.overrides)
    for column, feature in enumerate(features):
        if feature.width != 1 or (feature.kind == "category") != (column in columns.categorical):
            raise ConfigError(
                f"feature {feature.name} is not what the CatBoost model takes in column {column}: "
                f"{'a category' if column in columns.categorical else 'a number'}"
            )
    said = {str(item.get("name")) for item in wishes.overrides if "missing" in item}
    # CatBoost itself refuses a category that is missing.
    features = tuple(
        replace(feature, missing="reject")
        if feature.kind == "category" and feature.missing == "nan" and feature.name not in said
        else feature
        for feature in features
    )
    return with_sentinel(features, wishes.missing)


def _frame(rows: NDArray[np.float64], names: Sequence[str], tables: Mapping[int, tuple[str, ...]]) -> Any:
    import pandas

    columns: dict[str, Any] = {}
    for column, name in enumerate(names):
        values = rows[:, column]
        if column in tables:
            texts = np.array([*tables[column], _strange], dtype=object)
            known = (values >= 0) & (values < len(tables[column]))
            values = texts[np.where(known, values, len(texts) - 1).astype(np.int64)]
        columns[name] = values
    return pandas.DataFrame(columns)


def _hashes(categories: Sequence[str]) -> dict[str, int]:
    """What CatBoost's own hash makes of each, read from what it exports of a small model."""
    if not categories:
        return {}
    import pandas

    catboost = _imported()
    table = pandas.DataFrame({"category": [*categories, _strange]})
    pool = catboost.Pool(table, np.arange(len(table), dtype=np.float64), cat_features=[0])
    model = catboost.CatBoost(
        {"iterations": 1, "depth": 1, "verbose": False, "allow_writing_files": False, "thread_count": 1}
    ).fit(pool)
    with TemporaryDirectory() as folder:
        path = Path(folder, "model.py")
        model.save_model(str(path), format="python", pool=pool)
        found = _hashes_in.search(path.read_text(encoding="utf-8"))
    try:
        hashed = {  # each character stands for a byte of UTF-8
            str(name).encode("latin-1").decode("utf-8"): int(value)
            for name, value in ast.literal_eval(found[1] if found else "").items()
        }
        return {name: hashed[name] for name in categories}
    except (ValueError, SyntaxError, KeyError) as error:
        raise ConfigError(f"CatBoost does not say how it hashes category {error}") from error


def _as_json(model: Any) -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder, "model.json")
        with _in_silence("CatBoost cannot say the model in JSON"):
            model.save_model(str(path), format="json")
        return path.read_bytes()


@contextmanager
def _in_silence(refused: str) -> Iterator[None]:
    """CatBoost writes nothing to standard error: neither its log nor a warning of Python's. Raises ConfigError, `refused` with
    its reason, where it raises."""
    from catboost import core

    quiet = core.log_fixup(io.StringIO(), io.StringIO()) if hasattr(core, "log_fixup") else nullcontext()
    try:
        with warnings.catch_warnings(), quiet:
            warnings.simplefilter("ignore")
            yield
    except (core.CatBoostError, *_of_its_python) as error:
        raise ConfigError(f"{refused}: {_reason(error)}") from error


def _imported() -> Any:
    try:
        import catboost
    except ImportError as error:
        raise ConfigError(missing_library("catboost", extra="catboost")) from error
    return catboost


def _reason(error: Exception) -> str:
    """The sentence behind the place in the C++ code."""
    if isinstance(error, _of_its_python) and not isinstance(error, UnicodeDecodeError):
        return f"it is malformed: {type(error).__name__} {error}"[:300]
    lines = foreign_text(error).strip().splitlines() or ["it says nothing more"]
    return re.sub(r"^\S*\.(?:cpp|h):\d+:\s*", "", lines[0])[:300]
