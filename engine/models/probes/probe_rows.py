"""Rows to try a model on: from files, and made up where models tend to go wrong."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.engine.codec.tables.frames import RowReader
from penstock.engine.features.narrowing import widened
from penstock.engine.features.policies import ends_of, outside, unseen_code
from penstock.engine.features.signature import Feature, ModelInput, Signature
from penstock.engine.features.values import boolean_names, number_names
from penstock.engine.models.bundle.arrays import from_npy
from penstock.engine.models.bundle.manifest import Labels, ModelOutput
from penstock.engine.trees.forest import Forest
from penstock.schemas.distribution import how_to_install
from penstock.schemas.errors import ConfigError

file_bytes_max = 1 << 30
made_up_rows = 512
sentinel_share = 0.1
words_a_row = 20
"""In a row made up, of the words of its texts."""
decimals_max = 10


def read_rows(path: Path, signature: Signature, schema: dict[str, Any] | None = None) -> NDArray[np.float64]:
    """The rows of a .npy, .csv or .parquet file as matrix rows (R, F) in float64; a category is its code, missing is NaN.

    Tables are read by column name; a .npy file holds the matrix itself. `schema`: as `rows_of_table` takes it. Raises ConfigError.
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
        return rows_of_table(_read_table(path, signature), signature, origin=str(path), schema=schema)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error


def table_given(rows: Any) -> Any:
    """What somebody gave as rows; the path of a .parquet file becomes its data frame, which keeps the types of its columns.

    Raises ConfigError.
    """
    if not isinstance(rows, (str, Path)) or Path(rows).suffix != ".parquet":
        return rows
    try:
        if Path(rows).stat().st_size > file_bytes_max:
            raise ConfigError(f"{rows} is longer than {file_bytes_max} bytes")
        return _read_table(Path(rows), None)
    except OSError as error:
        raise ConfigError(f"cannot read {rows}: {error.strerror}") from error


def columns_of(rows: Any) -> tuple[str, ...]:
    """How the columns of what somebody gave as rows are called; none of what is no table. Raises ConfigError."""
    if isinstance(rows, (str, Path)):
        if Path(rows).suffix != ".csv":
            return ()
        try:
            import pandas

            rows = pandas.read_csv(rows, nrows=0)
        except (ImportError, ValueError, OSError, UnicodeDecodeError):  # said where the rows are read
            return ()
    return tuple(str(name) for name in rows.columns) if hasattr(rows, "columns") else ()


def rows_of_table(
    table: Any, signature: Signature, *, origin: str, schema: dict[str, Any] | None = None
) -> NDArray[np.float64]:
    """The matrix rows (R, F) of a data frame whose columns are called as the features' fields, or as the features.

    What a value is, the reader of every other table says: NaN is missing, and unseen_code a category that the feature's
    table does not hold. Doubles, whatever the model takes. `schema`: of the stream's records in Avro: times have to be in its units.

    Raises ConfigError that names the row and the field.
    """
    doubles = ModelInput(name="rows", dtype="float64", start=0, width=signature.width)
    parts, before = [], 0
    reader = RowReader(replace(signature, inputs=(doubles,), cuts=()), schema=schema)
    for count, (matrix, _, faults) in reader.read(table):
        if faults:
            place, fault = faults[0]
            raise ConfigError(f"{origin}, row {before + place + 1}: {fault.detail}")
        parts.append(matrix.astype(np.float64))
        before += count
    return np.concatenate(parts)


def read_expected(
    answers: Any, outputs: Sequence[ModelOutput], labels: Labels | None
) -> dict[str, NDArray[np.float64]]:
    """The original's answers, each (R, K), by the output of the model that they belong to. Raises ConfigError.

    A table has a column for each class, or one called as an output (or output[0], output[1], ...); a matrix, and a table
    with other names, belongs to the first output that is as wide. One column may stand for the second of two classes.
    """
    if isinstance(answers, (str, Path)):
        answers = _read_answers(Path(answers))
    if hasattr(answers, "columns"):
        found = {}
        names = {str(name): name for name in answers.columns}
        for output in outputs:
            wanted = (
                [output.name] if output.width == 1 else [f"{output.name}[{k}]" for k in range(output.width)]
            )
            if (
                labels is not None
                and len(labels.classes) == output.width
                and set(labels.classes) <= set(names)
            ):
                wanted = list(labels.classes)
            if set(wanted) <= set(names):
                found[output.name] = _numbers(answers[[names[name] for name in wanted]])
        if found:
            return found
    matrix = _numbers(answers)
    matrix = matrix.reshape(len(matrix), -1)
    for output in outputs:
        if output.width == matrix.shape[1]:
            return {output.name: matrix}
        if output.width == 2 and matrix.shape[1] == 1 and labels is not None:
            return {output.name: np.concatenate((1 - matrix, matrix), axis=1)}
    widths = ", ".join(f"{output.name} with {output.width}" for output in outputs)
    raise ConfigError(
        f"the expected answers have {matrix.shape[1]} columns, which no output of the model has: {widths}"
    )


def _numbers(values: Any) -> NDArray[np.float64]:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError("the expected answers are not numbers") from error


def _read_answers(path: Path) -> Any:
    if path.suffix not in (".npy", ".csv", ".parquet"):
        raise ConfigError(f"{path} is neither .npy nor .csv nor .parquet")
    try:
        if path.stat().st_size > file_bytes_max:
            raise ConfigError(f"{path} is longer than {file_bytes_max} bytes")
        return (
            from_npy(path.read_bytes(), name=str(path)) if path.suffix == ".npy" else _read_table(path, None)
        )
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error


def _read_table(path: Path, signature: Signature | None) -> Any:
    try:
        import pandas  # comes with the package extra only
    except ImportError as error:
        raise ConfigError(f"reading tables needs pandas: {how_to_install('package')}") from error
    try:
        if path.suffix == ".parquet":
            return pandas.read_parquet(path)
        return pandas.read_csv(path, dtype=None if signature is None else _texts(signature))
    except (ValueError, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as a table: {error}") from error


def _texts(signature: Signature) -> dict[str, type]:
    """The columns of a file of texts that are texts; those whose categories are all numbers, or booleans, are such."""
    texts = [
        feature
        for feature in signature.features
        if feature.kind == "text"
        or len(number_names(feature)) + len(boolean_names(feature)) < len(feature.categories)
    ]
    return {name: str for feature in texts for name in (feature.name, ".".join(feature.path))}


def rows_that_pass(rows: NDArray[np.float64], signature: Signature) -> NDArray[np.float64]:
    """The rows as the stream would hand them to the model: policies applied, rejected rows left out.

    A number that means a missing value stays where missing values are passed on, for the original to see.
    """
    filled, kept = policies_applied(rows, signature)
    return filled[kept]


def policies_applied(
    rows: NDArray[np.float64], signature: Signature
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """All rows with replacements for missing values and unseen categories, and which of them no policy rejects (R,)."""
    filled = rows.copy()
    kept = np.ones(len(rows), dtype=np.bool_)
    for column, feature in enumerate(signature.column_features):
        values = filled[:, column]
        missing = np.isnan(values)
        if feature.sentinel is not None:
            missing |= values.astype(np.float32) == np.float32(feature.sentinel)
        if feature.within:
            kept &= missing | ~outside(values, *ends_of(feature))
        if feature.missing == "reject":
            kept &= ~missing
        elif feature.missing != "nan":
            values[missing] = feature.missing
        if feature.infinite == "reject":
            with np.errstate(over="ignore"):
                kept &= ~np.isinf(values.astype(signature.dtype))
        if feature.kind == "category":
            unseen = values == unseen_code
            if feature.unseen == "reject":
                kept &= ~unseen
            else:
                values[unseen] = np.nan if feature.unseen == "nan" else feature.unseen
    return filled, kept


def rows_made_up(
    signature: Signature, forest: Forest | None, given: NDArray[np.float64], *, seed: int = 0
) -> NDArray[np.float64]:
    """Rows where a conversion shows its faults, as the model takes them: on every threshold and one float to either side,
    missing, any category.

    Starts from the given rows where there are some. Missing values appear only where a feature may be NaN.
    """
    random = np.random.default_rng(seed)
    width = signature.width
    texts = sum(feature.width for feature in signature.features if feature.kind == "text")
    absent = 1.0 - min(0.5, words_a_row / max(texts, 1))
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
        _into_ranges(feature, rows[:, column], random)
        if feature.kind == "text":
            rows[random.random(made_up_rows) < absent, column] = 0.0
            rows[:, column] = np.abs(rows[:, column])
        if feature.may_be_nan:
            rows[random.random(made_up_rows) < 0.15, column] = np.nan
    return rows_that_pass(_whole_where_needed(rows, signature), signature)


def records_made_up(
    signature: Signature, forest: Forest | None, given: NDArray[np.float64], *, seed: int = 0
) -> NDArray[np.float64]:
    """Rows as records might hold them: doubles on the thresholds and next to them, and numbers shaped like the given ones.

    Shaped alike means: in their range, with as many decimals, or (without given rows) near a threshold with few decimals.
    """
    random = np.random.default_rng(seed)
    rows = rows_made_up(signature, forest, given, seed=seed)
    if signature.dtype == np.float32:
        rows = widened(rows.astype(np.float32), signature)
    shaped = rows.copy()
    for column, feature in enumerate(signature.column_features):
        if feature.kind in ("category", "text") or not len(rows):
            continue
        seen = given[np.isfinite(given[:, column]), column] if len(given) else np.empty(0)
        if len(seen):
            values = random.uniform(seen.min(), seen.max(), len(rows)).round(_decimals(seen))
        else:
            steps = 10.0 ** -random.integers(0, 5, len(rows))
            values = np.round(rows[:, column] / steps + random.integers(-1, 2, len(rows))) * steps
        _into_ranges(feature, rows[:, column], random)
        _into_ranges(feature, values, random)
        numbers = ~np.isnan(shaped[:, column])
        shaped[numbers, column] = values[numbers]
        if feature.sentinel is not None:
            shaped[random.random(len(rows)) < sentinel_share, column] = feature.sentinel
    return np.concatenate((rows, rows_that_pass(_whole_where_needed(shaped, signature), signature)))


def _into_ranges(feature: Feature, values: NDArray[np.float64], random: np.random.Generator) -> None:
    """Numbers outside the ranges that a feature takes become ends of these, in place: else hardly a row would be left."""
    ends = np.array([end for each in feature.within for end in each if np.isfinite(end)])
    if len(ends):
        away = outside(values, *ends_of(feature))
        values[away] = random.choice(ends, int(away.sum()))


def _decimals(values: NDArray[np.float64]) -> int:
    """How many decimals the values are written with; enough for all where there is no end."""
    return next((places for places in range(decimals_max) if (values.round(places) == values).all()), 15)


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
    with np.errstate(over="ignore"):  # past the last float is infinity
        below, above = (np.nextafter(picked, np.float32(end)) for end in (-np.inf, np.inf))
    return np.where(side < 0, below, np.where(side > 0, above, picked)).astype(np.float64)


def _whole_where_needed(rows: NDArray[np.float64], signature: Signature) -> NDArray[np.float64]:
    for model_input in signature.inputs:
        if model_input.dtype in ("int64", "int32", "bool"):
            part = rows[:, model_input.start : model_input.start + model_input.width]
            part[:] = part > 0 if model_input.dtype == "bool" else np.rint(part)
    return rows
