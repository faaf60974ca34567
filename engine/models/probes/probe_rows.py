"""Rows to try a model on: from files, and made up where models tend to go wrong."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.engine.codec.tables.frames import RowReader
from penstock.engine.features.policies import FeaturePolicies
from penstock.engine.features.signature import ModelInput, Signature
from penstock.engine.features.values import boolean_names, number_names
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
    """The matrix rows (R, F) of a data frame whose columns are called as the features' fields, or as the features.

    What a value is, the reader of every other table says: NaN is missing, and unseen_code a category that the feature's
    table does not hold. Doubles, whatever the model takes. Raises ConfigError that names the row and the field.
    """
    doubles = ModelInput(name="rows", dtype="float64", start=0, width=signature.width)
    parts, before = [], 0
    for count, (matrix, _, faults) in RowReader(replace(signature, inputs=(doubles,))).read(table):
        if faults:
            place, fault = faults[0]
            raise ConfigError(f"{origin}, row {before + place + 1}: {fault.detail}")
        parts.append(matrix.astype(np.float64))
        before += count
    return np.concatenate(parts)


def _read_table(path: Path, signature: Signature) -> Any:
    try:
        import pandas  # comes with the package extra only
    except ImportError as error:
        raise ConfigError(f"reading tables needs pandas: {how_to_install('package')}") from error
    try:
        if path.suffix == ".parquet":
            return pandas.read_parquet(path)
        return pandas.read_csv(path, dtype=_texts(signature))
    except (ValueError, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as a table: {error}") from error


def _texts(signature: Signature) -> dict[str, type]:
    """The columns of a file of texts that are texts; those whose categories are all numbers, or booleans, are such."""
    texts = [
        feature
        for feature in signature.features
        if len(number_names(feature)) + len(boolean_names(feature)) < len(feature.categories)
    ]
    return {name: str for feature in texts for name in (feature.name, ".".join(feature.path))}


def rows_that_pass(rows: NDArray[np.float64], signature: Signature) -> NDArray[np.float64]:
    """The rows as the stream would hand them to the model: policies applied, rejected rows left out."""
    passing, _, _ = FeaturePolicies(signature).apply(rows.copy(), np.arange(len(rows), dtype=np.int64))
    return np.asarray(passing, dtype=np.float64)


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
