"""Whatever a person has rows in (numpy, pandas, polars, Arrow, dictionaries) as decoded rows, a block at a time."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.engine.codec.object_rows import ObjectRows, without_faults
from penstock.engine.codec.tables.arrow import (
    arrow,
    arrow_columns,
    column_of,
    is_time_type,
    leads_somewhere,
    rows_without_fields,
    top_columns,
)
from penstock.engine.codec.tables.columns import Column, ColumnRows, Distinct, Numbers, Values, find_columns
from penstock.engine.features.policies import FeaturePolicies, unseen_code
from penstock.engine.features.signature import Signature
from penstock.engine.features.times import time_number, time_numbers
from penstock.engine.ports import Decoded
from penstock.schemas.errors import ConfigError, RecordError
from penstock.schemas.records import Rejection

block_rows: Final = 1 << 14
"""Decoded at a time, so that rows of any number take little memory beside themselves and their results."""
block_numbers: Final = 1 << 24
"""No more than about so many numbers of theirs at a time: wide rows, such as those of texts, come in smaller blocks."""

Faults = Sequence[tuple[int, RecordError]]
Read = tuple[NDArray[np.generic], NDArray[np.int64], Faults]


class RowReader:
    """Rows in any form to blocks of decoded rows, as the stream's decoder would leave them."""

    def __init__(self, signature: Signature, schema: dict[str, Any] | None = None) -> None:
        """`schema`: of the stream's records in Avro, which says the units of times."""
        self._signature = signature
        self._objects = ObjectRows(signature)
        self._columns = ColumnRows(signature, schema)
        self._policies = FeaturePolicies(signature)
        self._block_rows = max(64, min(block_rows, block_numbers // signature.width))

    def blocks(self, rows: Any) -> Iterator[tuple[int, Decoded]]:
        """How many rows a block has, and what became of them; at least one block, in order.

        Takes a matrix (R, F) of numbers, in the order of the model's columns and a category as its code; a structured
        array; a pandas data frame; anything that speaks Arrow's PyCapsule or the data frame protocol; a sequence of
        dictionaries by field name. Raises ConfigError for anything else, and for a table without a needed column.
        """
        for count, read in self.read(rows):
            yield count, self.decoded(*read)

    def decoded(self, matrix: NDArray[np.generic], rows: NDArray[np.int64], faults: Faults) -> Decoded:
        """What a reader found, after the features' policies."""
        rejections = [
            Rejection(index=place, stage=fault.stage, reason=fault.reason, detail=fault.detail)
            for place, fault in faults
        ]
        matrix, rows, rejected = self._policies.apply(matrix, rows)
        rejections = sorted([*rejections, *rejected], key=lambda rejection: rejection.index)
        return Decoded(matrix=np.ascontiguousarray(matrix), rows=rows, rejections=rejections)

    def read(self, rows: Any) -> Iterator[tuple[int, Read]]:
        """As blocks, before the policies: NaN is missing, and unseen_code an unseen category."""
        if isinstance(rows, np.ndarray):
            yield from self._array(rows)
        elif _is_pandas(rows):
            yield from self._pandas(rows)
        elif hasattr(rows, "__arrow_c_stream__") or hasattr(rows, "__arrow_c_array__"):
            yield from self._arrow(_arrow_table(rows))
        elif hasattr(rows, "__dataframe__"):
            arrow("a data frame of this kind")
            from pyarrow.interchange import from_dataframe

            yield from self._arrow(from_dataframe(rows))
        elif isinstance(rows, Sequence) and not isinstance(rows, (str, bytes)):
            yield from self._sequence(rows)
        else:
            raise ConfigError(_not_rows(rows))

    def _sequence(self, rows: Sequence[Any]) -> Iterator[tuple[int, Read]]:
        rows = [*rows] if not isinstance(rows, list) else rows
        if all(type(row) is dict for row in rows):
            for part in _slices(len(rows), self._block_rows):
                yield part.stop - part.start, self._dictionaries(rows[part])
            return
        named = [_names_of(row) for row in rows]
        if any(names is not None for names in named):
            for place, names in enumerate(named):
                if names is None:
                    raise ConfigError(f"row {place} is {_kind(rows[place])}, and others have names")
                if len(set(names)) < len(names):
                    raise ConfigError(f"row {place} has a name twice")
            yield from self._sequence([_by_name(row) for row in rows])
            return
        yield from self._array(_matrix_of(rows))

    def _dictionaries(self, records: Sequence[dict[str, Any]]) -> Read:
        count = len(records)
        matrix = np.full((count, self._signature.width), np.nan, dtype=self._signature.record_dtype)
        faults: dict[int, RecordError] = {}
        self._objects.fill(records, np.arange(count, dtype=np.int64), matrix, faults)
        return without_faults(matrix, faults)

    def _array(self, array: NDArray[Any]) -> Iterator[tuple[int, Read]]:
        if array.dtype.names:
            if array.ndim != 1:
                raise ConfigError(
                    f"a structured array is one of rows, (n,), not of shape {array.shape}: ravel() it first"
                )
            plan = find_columns(self._signature, array.dtype.names, origin="the array")
            for part in _slices(len(array), self._block_rows):
                some = array[part]
                columns = {name: _array_column(some[name]) for each in plan for name in each.names}
                yield len(some), self._columns.read(plan, columns, len(some))
            return
        width = self._signature.width
        if array.ndim != 2 or array.shape[1] != width:
            hint = "; one row alone is rows[None, :]" if array.shape == (width,) else ""
            raise ConfigError(
                f"rows are a matrix of {width} columns, not an array of shape {array.shape}{hint}"
            )
        if array.dtype.kind not in "fiub":
            plan = find_columns(self._signature, self._signature.columns, origin="the array")
            if any(feature.kind in ("vector", "text") for feature in self._signature.features):
                raise ConfigError(
                    "an array of objects cannot hold the vectors or texts of this model: give a table or dictionaries"
                )
            for part in _slices(len(array), self._block_rows):
                some = array[part]
                columns = {each.names[0]: _array_column(some[:, each.start]) for each in plan}
                yield len(some), self._columns.read(plan, columns, len(some))
            return
        for part in _slices(len(array), self._block_rows):
            yield part.stop - part.start, self._matrix(array[part])

    def _matrix(self, part: NDArray[Any]) -> Read:
        """Matrix rows as they are: NaN is missing, and of a category what is no code of its table is unseen."""
        with np.errstate(over="ignore", invalid="ignore"):
            numbers = part if part.dtype == np.float32 else part.astype(np.float64)
            if isinstance(numbers, np.ma.MaskedArray):
                numbers = numbers.filled(np.nan)
            matrix = np.array(numbers, dtype=self._signature.record_dtype, order="C")
        for column, feature in enumerate(self._signature.column_features):
            if feature.kind == "category":
                codes = matrix[:, column]
                known = np.isnan(codes) | (
                    (codes >= 0) & (codes < len(feature.categories)) & (codes == np.floor(codes))
                )
                matrix[~known, column] = unseen_code
        return matrix, np.arange(len(part), dtype=np.int64), []

    def _pandas(self, frame: Any) -> Iterator[tuple[int, Read]]:
        names = [str(name) for name in frame.columns]
        plan = find_columns(self._signature, names, origin="the data frame")
        chosen = {name: names.index(name) for each in plan for name in each.names}
        for part in _slices(len(frame), self._block_rows):
            columns = {name: _pandas_column(frame.iloc[part, place]) for name, place in chosen.items()}
            yield part.stop - part.start, self._columns.read(plan, columns, part.stop - part.start)

    def _arrow(self, table: Any) -> Iterator[tuple[int, Read]]:
        schema = table.schema
        plan = find_columns(
            self._signature,
            schema.names,
            origin="the table",
            nested=lambda path: leads_somewhere(schema, path),
        )
        table = table.select(top_columns(plan, schema.names))
        batches = table.combine_chunks().to_batches(max_chunksize=self._block_rows)
        if not batches:
            yield 0, self._dictionaries([])
        for batch in batches:
            without = rows_without_fields(batch, plan)
            yield (
                batch.num_rows,
                self._columns.read(plan, arrow_columns(batch, plan), batch.num_rows, without),
            )


def _slices(count: int, rows: int) -> list[slice]:
    return [slice(start, min(start + rows, count)) for start in range(0, max(count, 1), rows)]


def _array_column(values: NDArray[Any]) -> Column:
    """A column of an array; what a mask hides is missing."""
    hidden = np.ma.getmaskarray(values) if isinstance(values, np.ma.MaskedArray) else None
    values = np.ma.getdata(values)
    if values.ndim > 1:
        if values.dtype.kind in "mM":
            return Values(values=[[*map(time_number, row)] for row in values])
        return Values(values=values.tolist())
    if values.dtype.kind in "fiub":
        return Numbers(values=values, missing=hidden)
    if values.dtype.kind in "mM":
        numbers, missing = time_numbers(values)
        gone = [each for each in (missing, hidden) if each is not None]
        unit, _ = np.datetime_data(values.dtype)
        return Numbers(values=numbers, missing=np.logical_or.reduce(gone) if gone else None, unit=unit)
    if hidden is None:
        return Values(values=values.tolist())
    return Values(
        values=[None if gone else value for gone, value in zip(hidden, values.tolist(), strict=True)]
    )


def _names_of(row: Any) -> tuple[Any, ...] | None:
    """The names that a row brings for its values: of a dictionary of whatever kind, a named tuple or a pandas Series; else None."""
    if isinstance(row, Mapping):
        return tuple(row)
    if isinstance(row, tuple):
        return getattr(row, "_fields", None)
    if type(row).__module__.partition(".")[0] != "pandas" or not hasattr(row, "items"):
        return None
    names = tuple(row.keys())
    return names if any(isinstance(name, str) for name in names) else None  # else it only counts them


def _by_name(row: Any) -> dict[str, Any]:
    """A row that brings names as a plain dictionary: one that makes up what it does not hold would make up a feature."""
    if isinstance(row, tuple):
        return dict(zip(row._fields, row, strict=True))  # type: ignore[attr-defined]
    return {str(name): value for name, value in row.items()}


def _matrix_of(rows: Sequence[Any]) -> NDArray[Any]:
    """Rows without names as a matrix; of texts and numbers together each stays what it is."""
    try:
        array = np.ma.stack(rows) if any(map(np.ma.isMaskedArray, rows)) else np.asarray(rows)
        return array if array.dtype.kind not in "US" else np.array(rows, dtype=object)
    except ValueError as error:
        raise ConfigError("the rows are not all of one length") from error


def _is_pandas(rows: Any) -> bool:
    kind = type(rows)
    return (
        kind.__module__.partition(".")[0] == "pandas" and hasattr(rows, "iloc") and hasattr(rows, "columns")
    )


def _pandas_column(series: Any) -> Column:
    """A column of a data frame, by its type; without Arrow, which pandas need not have."""
    kind = series.dtype
    if isinstance(kind, np.dtype) and kind.kind in "fiubmM":
        return _array_column(series.to_numpy())
    if type(kind).__name__ == "ArrowDtype" and is_time_type(kind.pyarrow_dtype):
        chunks = series.array.__arrow_array__()
        return column_of(chunks.combine_chunks() if hasattr(chunks, "combine_chunks") else chunks)
    if type(kind).__name__ == "DatetimeTZDtype":
        return _array_column(series.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy())
    if hasattr(kind, "categories"):
        return Distinct(values=kind.categories.tolist(), codes=series.cat.codes.to_numpy().astype(np.int64))
    if getattr(kind, "kind", "O") in "fiub" and not isinstance(
        kind, np.dtype
    ):  # Int64, boolean, Float32, ...
        missing = series.isna().to_numpy(dtype=np.bool_)
        filled = series.fillna(False if kind.kind == "b" else 0) if missing.any() else series
        return Numbers(values=filled.to_numpy(dtype=getattr(kind, "numpy_dtype", None)), missing=missing)
    if str(kind) in ("str", "string") or type(kind).__name__ == "StringDtype":
        codes, values = series.factorize()
        return Distinct(values=[*map(str, values)], codes=codes.astype(np.int64))
    missing = series.isna().to_numpy(dtype=np.bool_)
    values = [None if gone else value for gone, value in zip(missing, series.astype(object), strict=True)]
    return Values(values=values)


def _arrow_table(rows: Any) -> Any:
    pa = arrow("a table")
    try:
        return (
            pa.table(rows)
            if hasattr(rows, "__arrow_c_stream__")
            else pa.Table.from_batches([pa.record_batch(rows)])
        )
    except (pa.ArrowInvalid, pa.ArrowTypeError, ValueError, TypeError) as error:
        raise ConfigError(f"{_kind(rows)} does not give a table: {error}") from error


def _kind(value: Any) -> str:
    kind = type(value)
    return (
        f"a {kind.__name__}" if kind.__module__ == "builtins" else f"a {kind.__module__}.{kind.__qualname__}"
    )


def _not_rows(rows: Any) -> str:
    hint = ""
    if isinstance(rows, str) or hasattr(rows, "__fspath__"):
        hint = "; files are scored by `penstock score`"
    elif isinstance(rows, Mapping):
        columns = rows and all(
            hasattr(value, "__len__") and not isinstance(value, str | bytes) for value in rows.values()
        )
        hint = (
            "; of columns by name pandas.DataFrame(...) makes a table"
            if columns
            else "; one record alone is a list of one dictionary"
        )
    elif hasattr(rows, "collect"):
        hint = "; collect() it first"
    elif hasattr(rows, "toarray"):
        hint = "; toarray() it first"
    elif hasattr(rows, "__array__"):
        hint = "; numpy.asarray(...) it first"
    elif hasattr(rows, "__next__"):
        hint = "; list(...) it first"
    return f"rows are a matrix, a pandas, polars or Arrow table, or a list of dictionaries, not {_kind(rows)}{hint}"
