"""Arrow's arrays as columns of a table. Needs pyarrow, which comes with an extra."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.engine.codec.tables.columns import Column, Distinct, FeatureColumns, Numbers, Values, Vectors
from penstock.engine.features.fields import field_path
from penstock.engine.features.values import Unreadable
from penstock.schemas.distribution import how_to_install
from penstock.schemas.errors import ConfigError

_no_text: Final = Unreadable(detail="bytes that are not UTF-8, which text is")


def arrow(what: str) -> Any:
    """The pyarrow package. Raises ConfigError that says how to install it; `what` needs it."""
    try:
        import pyarrow
    except ImportError as error:
        raise ConfigError(f"{what} needs pyarrow: {how_to_install('score')}") from error
    return pyarrow


def leads_somewhere(schema: Any, path: str) -> bool:
    """Whether a dotted path leads through columns of objects to one of their fields."""
    pa = arrow("a table")
    first, *rest = field_path(path)
    index = schema.get_field_index(first)
    if not rest or index < 0:
        return False
    kind = schema.field(index).type
    for part in rest:
        if not pa.types.is_struct(kind) or kind.get_field_index(part) < 0:
            return False
        kind = kind.field(kind.get_field_index(part)).type
    return True


def top_columns(plan: Sequence[FeatureColumns], names: Sequence[str]) -> list[str]:
    """The table's own columns that the plan reads, in the table's order."""
    known = set(names)
    wanted = {name if name in known else field_path(name)[0] for place in plan for name in place.names}
    return [name for name in names if name in wanted]


def arrow_columns(batch: Any, plan: Sequence[FeatureColumns]) -> dict[str, Column]:
    """The plan's columns of a pyarrow.RecordBatch."""
    known = set(batch.schema.names)
    found: dict[str, Column] = {}
    for place in plan:
        for name in place.names:
            if name in known:
                found[name] = column_of(batch.column(name))
            else:
                first, *rest = field_path(name)
                found[name] = column_of(_inside(batch.column(first), rest))
    return found


def rows_without_fields(batch: Any, plan: Sequence[FeatureColumns]) -> NDArray[np.bool_] | None:
    """(N,) whether a row of a pyarrow.RecordBatch has none of the plan's fields, since whatever they stand in is null there.

    None where no row can be so: every row has the table's own columns, be it as null.
    """
    names = {name for place in plan for name in place.names}
    if names & set(batch.schema.names):
        return None
    without = np.ones(batch.num_rows, dtype=np.bool_)
    for first, *between in {tuple(field_path(name)[:-1]) for name in names}:
        around = _inside(batch.column(first), between)
        without &= around.is_null().to_numpy(zero_copy_only=False)
    return without


def _inside(array: Any, path: Sequence[str]) -> Any:
    import pyarrow.compute as pc

    return pc.struct_field(array, [*path]) if path else array


def column_of(array: Any) -> Column:
    """One pyarrow.Array as a column: numbers as they lie there, anything else as its different values."""
    pa = arrow("a table")
    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        array, kind = array.storage, array.storage.type
    unit = None
    if is_time_type(kind):
        unit = _unit(pa, kind)
        array, kind = _time_numbers(pa, array), pa.int64()
    if pa.types.is_null(kind):
        return Distinct(values=(), codes=np.full(len(array), -1))
    if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        missing = None
        if array.null_count:
            missing = array.is_null().to_numpy(zero_copy_only=False)
            array = array.fill_null(False if pa.types.is_boolean(kind) else 0)
        return Numbers(values=array.to_numpy(zero_copy_only=False), missing=missing, unit=unit)
    if _is_list(pa, kind):
        return _lists(pa, array)
    if pa.types.is_struct(kind) or pa.types.is_map(kind) or pa.types.is_union(kind):
        return Values(values=array.to_pylist())
    return _distinct(pa, array)


def is_time_type(kind: Any) -> bool:
    """Whether an Arrow type is one of dates, times or durations, or a dictionary of such."""
    pa = arrow("a table")
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(
        pa.types.is_timestamp(kind)
        or pa.types.is_date(kind)
        or pa.types.is_time(kind)
        or pa.types.is_duration(kind)
    )


def _unit(pa: Any, kind: Any) -> str:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return "D" if pa.types.is_date(kind) else str(kind.unit)


def _time_numbers(pa: Any, array: Any) -> Any:
    """As penstock.engine.features.times has them: a date in days, anything else in its own units."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_date64(array.type):
        array = array.cast(pa.date32())
    if array.type.bit_width == 32:
        array = array.cast(pa.int32())
    return array.cast(pa.int64())


def _distinct(pa: Any, array: Any) -> Column:
    if not pa.types.is_dictionary(array.type):
        try:
            array = array.dictionary_encode()
        except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
            return Values(values=array.to_pylist())
    indices = array.indices
    if indices.null_count:
        indices = indices.cast(pa.int64()).fill_null(
            -1
        )  # their own type may be unsigned, as that of polars is
    return Distinct(
        values=_values_of(array.dictionary), codes=indices.to_numpy(zero_copy_only=False).astype(np.int64)
    )


def _values_of(array: Any) -> list[Any]:
    """As Python values; a text that is none is an Unreadable in its place, so that only its rows are at fault."""
    try:
        return list(array.to_pylist())
    except UnicodeDecodeError:
        return [_text(value) for value in array.cast(arrow("a table").large_binary()).to_pylist()]


def _text(value: bytes | None) -> str | Unreadable | None:
    try:
        return None if value is None else value.decode("utf-8")
    except UnicodeDecodeError:
        return _no_text


def valid_texts(batch: Any) -> Any:
    """The batch with U+FFFD in place of what is no UTF-8 in its columns of texts."""
    pa = arrow("a table")
    columns = []
    for column in batch.columns:
        try:
            column.validate(full=True)
        except pa.ArrowInvalid:
            if not pa.types.is_string(column.type) and not pa.types.is_large_string(column.type):
                raise
            values = column.cast(pa.large_binary()).to_pylist()
            texts = [None if value is None else value.decode("utf-8", "replace") for value in values]
            column = pa.array(texts, column.type)
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _is_list(pa: Any, kind: Any) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _lists(pa: Any, array: Any) -> Column:
    """Vectors where every one is there, as long as the others, and of numbers without a gap; else Python lists."""
    if is_time_type(array.type.value_type):
        return Values(values=_time_lists(pa, array))
    flat = array.flatten()
    count = len(array)
    plain = pa.types.is_floating(flat.type) or pa.types.is_integer(flat.type)
    if count and plain and not array.null_count and not flat.null_count and len(flat) % count == 0:
        width = len(flat) // count
        if pa.types.is_fixed_size_list(array.type):
            same = True
        else:
            lengths = array.value_lengths().to_numpy(zero_copy_only=False)
            same = bool((lengths == width).all())
        if same and width:
            numbers = flat.to_numpy(zero_copy_only=False).astype(np.float64)
            return Vectors(values=numbers.reshape(count, width))
    return Values(values=array.to_pylist())


def _time_lists(pa: Any, array: Any) -> list[list[int | None] | None]:
    """Lists of dates or times, each as its number."""
    return [_time_numbers(pa, each.values).to_pylist() if each.is_valid else None for each in array]
