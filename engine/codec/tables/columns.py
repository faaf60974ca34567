"""Rows as columns (a data frame, an Arrow table, a file of a batch) to matrix rows, by the rules of the record readers."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.engine.codec.object_rows import ObjectRows, no_features, without_faults
from penstock.engine.codec.tables.time_units import require_unit, units_of
from penstock.engine.features.signature import Feature, ModelInput, Signature
from penstock.schemas.errors import ConfigError, RecordError

_missing_code: Final = -1


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Numbers:
    """A column of one numeric or boolean type."""

    values: NDArray[Any]  # (N,) of kind f, i, u or b
    missing: NDArray[np.bool_] | None = None  # (N,); None: no value is missing, NaN apart
    unit: str | None = None
    """Of dates and times, as numpy writes it: D, s, ms, us, ns."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Distinct:
    """A column of any one type, as its different values and which of them stands where; -1 is a missing value."""

    values: Sequence[Any]
    codes: NDArray[np.integer[Any]]  # (N,)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Values:
    """A column of Python values of whatever types; None is missing."""

    values: Sequence[Any]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Vectors:
    """A column of vectors that all have the same length and no gap."""

    values: NDArray[np.float64]  # (N, width)


Column = Numbers | Distinct | Values | Vectors


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureColumns:
    """Where a table keeps a feature: one column, or for a vector perhaps one for each of its numbers."""

    feature: Feature
    start: int
    """First matrix column."""
    names: tuple[str, ...]


def find_columns(
    signature: Signature,
    names: Sequence[str],
    *,
    origin: str,
    nested: Callable[[str], bool] = lambda _: False,
) -> tuple[FeatureColumns, ...]:
    """The columns of a table that the model takes; all others are ignored.

    A feature stands in the column of its field's name, else of its own name, else (`nested` says whether a path leads
    somewhere) inside columns of objects; a vector may stand in one column for each number, name[0], name[1], ... Raises
    ConfigError that names every feature that is nowhere, and a column that stands there twice.
    """
    known = set(names)
    if len(known) != len(names):
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise ConfigError(f"{origin} has two columns called {twice}")
    found, absent, start = [], [], 0
    for feature in signature.features:
        chosen: tuple[str, ...] | None = None
        for name in (".".join(feature.path), feature.name):
            if name in known:
                chosen = (name,)
                break
        if chosen is None and nested(feature.field):
            chosen = (feature.field,)
        if chosen is None and feature.kind == "vector" and known.issuperset(feature.columns):
            chosen = feature.columns
        if chosen is None:
            absent.append(feature.field)
        else:
            found.append(FeatureColumns(feature=feature, start=start, names=chosen))
        start += feature.width
    if absent:
        raise ConfigError(_absent(absent, names, origin))
    return tuple(found)


def _absent(absent: Sequence[str], names: Sequence[str], origin: str) -> str:
    shown = ", ".join(absent[:5]) + (f" and {len(absent) - 5} more" if len(absent) > 5 else "")
    near = difflib.get_close_matches(absent[0], names, n=1)
    hint = f"; the nearest to {absent[0]} is {near[0]}" if near else ""
    return f"{origin} has no column {shown}, which the model takes{hint}"


class ColumnRows:
    """Reads the features of a signature from columns.

    What a value is to a feature is asked of ObjectRows, once for every different value of a column: numbers, whose meaning
    is plain, go straight into the matrix.
    """

    def __init__(self, signature: Signature, schema: dict[str, Any] | None = None) -> None:
        """`schema`: of the stream's records in Avro, which says the units of times."""
        self._units = units_of(signature, schema)
        self._width = signature.width
        self._dtype = signature.record_dtype
        self._readers = {feature.name: _OneFeature(feature) for feature in signature.features}

    def read(
        self,
        plan: Sequence[FeatureColumns],
        columns: Mapping[str, Column],
        count: int,
        without: NDArray[np.bool_] | None = None,
    ) -> tuple[NDArray[np.generic], NDArray[np.int64], list[tuple[int, RecordError]]]:
        """`(matrix (R, F), rows (R,) ascending places, faults by ascending place)`; R + faults = count.

        `without`: (count,) which rows have no feature's field, not even as null; each is a fault (NO_FEATURES). None: none.

        NaN is missing and features.policies.unseen_code an unseen category, as every reader leaves them. Raises ConfigError for
        times in another unit than the schema has.
        """
        for each in plan:
            for name in each.names if self._units else ():
                require_unit(name, getattr(columns[name], "unit", None), self._units.get(each.feature.name))
        matrix = np.full((count, self._width), np.nan, dtype=self._dtype)
        faults: dict[int, RecordError] = {}
        with np.errstate(
            over="ignore", invalid="ignore"
        ):  # a double past float32 becomes an infinity, which has its own policy
            for each in plan:
                feature = each.feature
                if len(each.names) > 1:
                    parts = [
                        self._readers[feature.name].numbers(columns[name], faults) for name in each.names
                    ]
                    numbers = np.stack(parts, axis=1)
                else:
                    numbers = self._readers[feature.name].read(columns[each.names[0]], faults)
                if numbers.ndim == 1:
                    matrix[:, each.start] = numbers
                else:
                    matrix[:, each.start : each.start + feature.width] = numbers
        if without is not None:
            for place in np.flatnonzero(without).tolist():
                faults.setdefault(place, no_features())
        return without_faults(matrix, faults)


class _OneFeature:
    """Reads one feature; what is not plainly a number is asked of the reader of records, as a record of this field alone."""

    def __init__(self, feature: Feature) -> None:
        self._feature = feature
        self._rows = _rows_of(feature)
        self._number = Feature(name=feature.name, field=feature.field, kind="number")
        self._element = _rows_of(self._number)

    def read(self, column: Column, faults: dict[int, RecordError]) -> NDArray[Any]:
        """(N,), or (N, width) of a vector."""
        feature = self._feature
        if isinstance(column, Vectors):
            if feature.kind == "vector" and column.values.shape[1] == feature.width:
                return column.values
            column = Values(values=column.values.tolist())
        if feature.kind == "number":
            return self.numbers(column, faults)
        return _asked(self._rows, feature, _distinct(column), faults)

    def numbers(self, column: Column, faults: dict[int, RecordError]) -> NDArray[Any]:
        """(N,) numbers, whatever kind the feature is of."""
        if not isinstance(column, Numbers):
            return _asked(self._element, self._number, _distinct(column), faults)
        values = column.values
        if values.dtype != np.float32:  # as a record's numbers are: doubles, before anything is narrowed
            values = values.astype(np.float64)
        if column.missing is not None:
            values = np.where(column.missing, values.dtype.type(np.nan), values)
        return values


def _rows_of(feature: Feature) -> ObjectRows:
    alone = ModelInput(name=feature.name, dtype="float64", start=0, width=feature.width)
    return ObjectRows(Signature(features=(feature,), inputs=(alone,)))


def _distinct(column: Column) -> Distinct:
    if isinstance(column, Distinct):
        return column
    if isinstance(column, Numbers):
        values, codes = np.unique(column.values, return_inverse=True)
        codes = codes.reshape(-1).astype(np.int64)
        if column.missing is not None:
            codes[column.missing] = _missing_code
        if column.values.dtype.kind == "f":
            codes[np.isnan(column.values)] = _missing_code
        return Distinct(values=values.tolist(), codes=codes)
    values_list = column.values if isinstance(column, Values) else column.values.tolist()
    return Distinct(values=values_list, codes=np.arange(len(values_list)))


def _asked(
    rows: ObjectRows, feature: Feature, column: Distinct, faults: dict[int, RecordError]
) -> NDArray[np.float64]:
    """What the reader of records makes of each different value, put where the value stands."""
    count = len(column.values)
    found = np.full((count + 1, feature.width), np.nan)  # the last row is what a missing value is
    wrong: dict[int, RecordError] = {}
    records = [_record(feature, value) for value in [*column.values, None]]
    rows.fill(records, np.arange(count + 1, dtype=np.int64), found, wrong)
    codes = np.where(column.codes < 0, count, column.codes)
    if wrong:
        bad = np.zeros(count + 1, dtype=np.bool_)
        bad[list(wrong)] = True
        for place in np.flatnonzero(bad[codes]).tolist():
            faults.setdefault(place, wrong[int(codes[place])])
    numbers = found[codes]
    return numbers if feature.kind in ("vector", "text") else numbers[:, 0]


def _record(feature: Feature, value: Any) -> dict[str, Any]:
    record: Any = value
    for part in reversed(feature.path):
        record = {part: record}
    return dict(record)
