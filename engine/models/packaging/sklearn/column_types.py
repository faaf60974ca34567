"""The types that columns had in the data frames of a model, where it computes otherwise in them than in double precision."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.engine.features.signature import Feature
from penstock.schemas.errors import ConfigError

rows_tried_max = 256
given_rows_max = 64
_foreign_errors = (
    ValueError, TypeError, RuntimeError, AttributeError, LookupError, AssertionError, NameError, ArithmeticError
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ColumnType:
    """A type other than double precision."""

    name: str
    cast: Callable[[NDArray[np.float64]], Any]
    """From numbers as records hold them to what the original is given; ValueError where it has no such values."""
    is_flag: bool = False
    """Whether it knows two values alone: 0, and all else."""


def _as_floats(kind: np.dtype[Any]) -> ColumnType:
    def cast(values: NDArray[np.float64]) -> Any:
        with np.errstate(over="ignore"):
            return values.astype(kind)

    return ColumnType(name=str(kind), cast=cast)


def _as_whole(kind: np.dtype[Any]) -> ColumnType:
    def cast(values: NDArray[np.float64]) -> Any:
        with np.errstate(invalid="ignore"):
            return values.astype(kind)

    return ColumnType(name=str(kind), cast=cast)


def _flags(values: NDArray[np.float64]) -> Any:
    if np.isnan(values).any():
        raise ValueError("a column of booleans holds no missing value")
    return values != 0


def _objects(values: NDArray[np.float64]) -> Any:
    made = np.empty(len(values), dtype=object)
    made[:] = [int(value) if value.is_integer() else value for value in values.tolist()]
    return made


def _flag_objects(values: NDArray[np.float64]) -> Any:
    made = np.empty(len(values), dtype=object)
    made[:] = [bool(value) if value in (0.0, 1.0) else value for value in values.tolist()]
    return made


float32 = _as_floats(np.dtype(np.float32))
flags = ColumnType(name="bool", cast=_flags, is_flag=True)
objects = ColumnType(name="object, of numbers", cast=_objects)
flag_objects = ColumnType(name="object, of booleans", cast=_flag_objects)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GivenColumn:
    """A column of numbers or booleans in a data frame that somebody gave."""

    kind: str
    """Its type, as pandas calls it."""
    values: Any
    """A few of its values that are not missing, in that type, (V,)."""
    numbers: NDArray[np.float64]
    """The same as records hold them, (V,)."""
    nearest: ColumnType | None
    """What repeats its type in rows made up; None: doubles do."""
    others: tuple[ColumnType, ...] = field(default=())
    """Types that may stand for it besides doubles, where they make no difference to the model."""


def given_columns(tables: Sequence[Any], names: Sequence[str]) -> dict[int, GivenColumn]:
    """By place in `names`, the columns of numbers that data frames among `tables` hold in another type than float64."""
    found: dict[int, GivenColumn] = {}
    for table in tables:
        if not hasattr(table, "iloc"):
            continue
        columns = [str(name) for name in table.columns]
        for place, name in enumerate(names):
            if place not in found and columns.count(name) == 1:
                column = _given(table.iloc[:, columns.index(name)])
                if column is not None:
                    found[place] = column
    return found


def types_known(tables: Sequence[Any], names: Sequence[str], *, named: bool) -> bool:
    """Whether something among `tables` tells the types of all these columns: a data frame, or of a model that knows no names an
    array."""
    return any(
        set(names) <= {str(name) for name in table.columns}
        if hasattr(table, "iloc")
        else not named and isinstance(table, np.ndarray)
        for table in tables
    )


def _given(series: Any) -> GivenColumn | None:
    kind = series.dtype
    present = series[series.notna()].drop_duplicates().head(rows_tried_max)
    if hasattr(kind, "categories") or getattr(kind, "kind", "O") in "mMcUS" or not len(present):
        return None
    nearest: ColumnType | None = None
    others: tuple[ColumnType, ...] = ()
    if isinstance(kind, np.dtype) and kind.kind == "O":
        values = present.tolist()
        if all(isinstance(value, (bool, np.bool_)) for value in values):
            nearest, others = flag_objects, (flag_objects,)
        elif all(isinstance(value, (int, float, np.integer, np.floating)) for value in values):
            nearest, others = objects, (objects,)
        else:
            return None
    elif getattr(kind, "kind", "O") not in "fiub":
        return None
    elif not isinstance(kind, np.dtype):  # Int64, boolean, Float32, ...
        pass
    elif kind.kind == "b":
        nearest, others = flags, (float32, flags)
    elif kind.kind == "f":
        if kind == np.float64:
            return None
        nearest, others = _as_floats(kind), (float32,)
    else:
        nearest, others = _as_whole(kind), (float32,)
        present = _with_farther(present, kind)
    numbers = np.array([float(value) for value in present.tolist()], dtype=np.float64)
    if isinstance(kind, np.dtype) and kind.kind in "iu" and not (numbers.astype(np.float32) == numbers).all():
        others = ()
    return GivenColumn(kind=str(kind), values=present, numbers=numbers, nearest=nearest, others=others)


def _with_farther(present: Any, kind: np.dtype[Any]) -> Any:
    """The values, and twice the least and the greatest of them, which records may hold as well."""
    import pandas

    bounds = np.iinfo(kind)
    ends = [int(present.min()), int(present.max())]
    farther = [min(max(2 * end, int(bounds.min)), int(bounds.max)) for end in ends]
    return pandas.concat([present, pandas.Series(farther, dtype=kind)], ignore_index=True)


def refusal(name: str, kind: str) -> ConfigError:
    """For a column (no name: the array) whose type no record has and no other type stands for."""
    which, cure = (f"column {name}", f"{{{name!r}: 'float64'}}") if name else ("the array", "'float64'")
    return ConfigError(
        f"{which} is of type {kind} in the rows given, and the model computes with it in that type, where numbers wrap "
        f"around or lose digits as no record does: train it on X.astype({cure})"
    )


def same_columns(one: Any, other: Any) -> bool:
    """Whether two matrices that the steps made hold the same numbers."""
    try:
        first, second = (
            np.asarray(each.toarray() if hasattr(each, "toarray") else each, dtype=np.float64)
            for each in (one, other)
        )
    except (ValueError, TypeError):
        return False
    return bool(np.array_equal(first, second, equal_nan=True))


def tried(ask: Callable[[], Any]) -> Any:
    """What the steps make of rows; None where they refuse them."""
    try:
        return ask()
    except _foreign_errors:
        return None


def given_numbers(tables: Sequence[Any], features: Sequence[Feature]) -> NDArray[np.float64]:
    """The first rows that were given (R, F), where all features are numbers; else none."""
    names = [feature.name for feature in features]
    for table in tables if all(feature.kind == "number" for feature in features) else ():
        columns = [str(name) for name in getattr(table, "columns", ())]
        if hasattr(table, "iloc") and all(columns.count(name) == 1 for name in names):
            try:
                return np.asarray(table[names].iloc[:given_rows_max], dtype=np.float64)
            except (ValueError, TypeError):  # texts among them
                continue
        if isinstance(table, np.ndarray) and table.shape[1:] == (len(names),) and table.dtype.kind in "fiub":
            return table[:given_rows_max].astype(np.float64)
    return np.zeros((0, sum(feature.width for feature in features)))


def why_rounded(inputs: Iterable[Any]) -> str:
    """Why answers may depend on their last digits, of a model of these inputs; nothing where they need not."""
    if not any(each.type is not None and each.type.name == float32.name for each in inputs):
        return ""
    return "the original computes in single precision on float32 columns, so that its own rounding decides: train it on float64"
