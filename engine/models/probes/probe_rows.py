"""Rows to try a model on: from files, and made up where models tend to go wrong."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.engine.features.signature import Feature, Signature
from penstock.engine.models.bundle.arrays import from_npy
from penstock.engine.trees.forest import Forest
from penstock.schemas.distribution import how_to_install
from penstock.schemas.errors import ConfigError

file_bytes_max = 1 << 30
made_up_rows = 512


def read_rows(path: Path, signature: Signature) -> NDArray[np.float64]:
    """The rows of a .npy, .csv or .parquet file as matrix rows (R, F) in float64; a category is its code, missing is NaN.

    Tables are read by column name; a .npy file holds the matrix itself. Raises ConfigError.
    """
    try:
        if path.stat().st_size > file_bytes_max:
            raise ConfigError(f"{path} is longer than {file_bytes_max} bytes")
        if path.suffix == ".npy":
            matrix = from_npy(path.read_bytes(), name=str(path)).astype(np.float64)
            if matrix.ndim != 2 or matrix.shape[1] != signature.width:
                raise ConfigError(f"{path} is not rows of {signature.width} columns")
            return matrix
        if path.suffix not in (".csv", ".parquet"):
            raise ConfigError(f"{path} is neither .npy nor .csv nor .parquet")
        return rows_of_table(_read_table(path, signature), signature, origin=str(path))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error


def rows_of_table(table: Any, signature: Signature, *, origin: str) -> NDArray[np.float64]:
    """The matrix rows of a pandas data frame whose columns are called as the features, or as their fields."""
    columns = []
    for feature in signature.features:
        names = feature.columns if feature.kind == "vector" else (feature.name,)
        for name in names:
            found = name if name in table.columns else feature.field
            if found not in table.columns:
                raise ConfigError(f"{origin} has no column {name}")
            columns.append(_column(table[found], feature, origin))
    return np.stack(columns, axis=1)


def _column(series: Any, feature: Feature, origin: str) -> NDArray[np.float64]:
    if feature.kind == "category":
        codes = {category: code for code, category in enumerate(feature.categories)}
        texts = series.astype(object)
        return np.array(
            [codes.get(_text(value), np.nan) if present else np.nan
             for value, present in zip(texts, series.notna(), strict=True)],
            dtype=np.float64,
        )  # fmt: skip
    try:
        return np.asarray(series.astype("float64"), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"column {series.name} of {origin} does not hold numbers") from error


def _text(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # a column of whole numbers with gaps is read as floats
    return str(value)


def _read_table(path: Path, signature: Signature) -> Any:
    try:
        import pandas  # comes with the package extra only
    except ImportError as error:
        raise ConfigError(f"reading tables needs pandas: {how_to_install('package')}") from error
    try:
        if path.suffix == ".parquet":
            return pandas.read_parquet(path)
        texts = {feature.name: str for feature in signature.features if feature.kind == "category"}
        return pandas.read_csv(path, dtype=texts)
    except (ValueError, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as a table: {error}") from error


def rows_that_pass(rows: NDArray[np.float64], signature: Signature) -> NDArray[np.float64]:
    """The rows as the stream would hand them to the model: policies applied, rejected rows left out."""
    filled = rows.copy()
    kept = np.ones(len(rows), dtype=np.bool_)
    for column, feature in enumerate(signature.column_features):
        missing = np.isnan(filled[:, column])
        if feature.missing == "reject":
            kept &= ~missing
        elif feature.missing != "nan":
            filled[missing, column] = feature.missing
        if feature.infinite == "reject":
            kept &= ~np.isinf(filled[:, column])
    return filled[kept]


def rows_made_up(
    signature: Signature, forest: Forest | None, given: NDArray[np.float64], *, seed: int = 0
) -> NDArray[np.float64]:
    """Rows where a conversion shows its faults: on every threshold and one float to either side, missing, any category.

    Starts from the given rows where there are some. Missing values appear only where a feature may be NaN.
    """
    random = np.random.default_rng(seed)
    width = signature.width
    if len(given):
        rows = given[random.integers(0, len(given), made_up_rows)].copy()
    else:
        rows = random.normal(size=(made_up_rows, width))
    for column, feature in enumerate(signature.column_features):
        touched = random.random(made_up_rows) < 0.5 if len(given) else np.ones(made_up_rows, dtype=np.bool_)
        if feature.kind == "category":
            values = random.integers(0, len(feature.categories), made_up_rows).astype(np.float64)
        else:
            values = _around_thresholds(forest, column, made_up_rows, random)
            touched &= ~np.isnan(values)
        rows[touched, column] = values[touched]
        if feature.may_be_nan:
            rows[random.random(made_up_rows) < 0.15, column] = np.nan
    return rows_that_pass(_whole_where_needed(rows, signature), signature)


def rows_mixed(rows: NDArray[np.generic], count: int, *, seed: int = 0) -> NDArray[np.generic]:
    """`count` rows, each column of each from some row given (R, F): few rows over and over would measure the branch
    predictor, not the model."""
    random = np.random.default_rng(seed)
    return rows[random.integers(0, len(rows), (count, rows.shape[1])), np.arange(rows.shape[1])]


def _around_thresholds(
    forest: Forest | None, column: int, count: int, random: np.random.Generator
) -> NDArray[np.float64]:
    if forest is None:
        return np.full(count, np.nan)
    thresholds = forest.threshold[(forest.feature == column) & (forest.set_index < 0)]
    thresholds = thresholds[np.isfinite(thresholds)]
    if not len(thresholds):
        return np.full(count, np.nan)
    picked = random.choice(thresholds, count)
    side = random.integers(-1, 2, count)
    below, above = (np.nextafter(picked, np.float32(end)) for end in (-np.inf, np.inf))
    return np.where(side < 0, below, np.where(side > 0, above, picked)).astype(np.float64)


def _whole_where_needed(rows: NDArray[np.float64], signature: Signature) -> NDArray[np.float64]:
    for model_input in signature.inputs:
        if model_input.dtype in ("int64", "int32", "bool"):
            part = rows[:, model_input.start : model_input.start + model_input.width]
            part[:] = part > 0 if model_input.dtype == "bool" else np.rint(part)
    return rows
