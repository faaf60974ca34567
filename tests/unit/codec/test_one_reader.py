"""One reader decides what a value is: whatever door a row comes in by, the outcome is the same."""

import io
import json
import math
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pandas
import pyarrow
import pytest

from penstock.engine.codec.decode import make_decoder
from penstock.engine.codec.tables.frames import RowReader
from penstock.engine.features.signature import Feature, ModelInput, Signature
from penstock.engine.models.probes.probe_rows import rows_of_table, rows_that_pass
from penstock.engine.ports import Decoded
from penstock.engine.settings.model import parse_settings
from penstock.schemas.errors import ConfigError
from penstock.schemas.reasons import Reason
from penstock.schemas.records import Records

Outcome = float | Reason

tables: dict[str, tuple[str, ...]] = {
    "texts": ("A", "B", "3", "x"),
    "whole": ("3", "-7", "12"),
    "decimals": ("2.5", "3.0", "0.1"),
    "flags": ("False", "True"),
    "mixed": ("A", "true", "3", "2.5"),
    "zip codes": ("007", "0x3", "3e0"),
}
values: list[Any] = [
    None, True, False, 3, 0, -7, 12, 3.0, 2.5, 0.1, -0.0, 1e300, 10**17, math.nan, math.inf, -math.inf, "A", "a", "3", "3.0",
    "True", "true", "007", "", "ü", Decimal("3.00"), Decimal("0.1"), Decimal("-7"),
]  # fmt: skip


def numbers() -> list[Feature]:
    feature = Feature(name="x", kind="number")
    missing: list[Any] = ["nan", "reject", 0.5]
    infinite: list[Any] = ["pass", "reject"]
    return [replace(feature, missing=m, infinite=i) for m in missing for i in infinite]


def categories(table: str) -> list[Feature]:
    feature = Feature(name="x", kind="category", categories=tables[table])
    missing: list[Any] = ["nan", "reject", 1]
    unseen: list[Any] = ["nan", "reject", 0]
    return [replace(feature, missing=m, unseen=u) for m in missing for u in unseen]


def expected(feature: Feature, value: Any) -> Outcome:
    """The rules, written down a second time and as plainly as they are meant."""
    if value is None or value != value:
        if feature.missing == "reject":
            return Reason.MISSING_VALUE
        return math.nan if feature.missing == "nan" else float(feature.missing)
    if feature.kind == "number":
        if isinstance(value, str):
            return Reason.WRONG_TYPE
        if math.isinf(value) and feature.infinite == "reject":
            return Reason.NOT_FINITE
        return float(value)
    code = code_of(feature.categories, value)
    if code is None:
        return Reason.WRONG_TYPE
    if code >= 0:
        return float(code)
    if feature.unseen == "reject":
        return Reason.UNSEEN_CATEGORY
    return math.nan if feature.unseen == "nan" else float(feature.unseen)


def code_of(names: tuple[str, ...], value: Any) -> int | None:
    """The place of the value in a table, -1 where it has none, None where the table holds nothing of its kind."""
    if isinstance(value, str):
        return names.index(value) if value in names else -1
    if isinstance(value, bool):
        flags = {place: name.lower() for place, name in enumerate(names) if name in ("True", "true", "False")}
        return (
            next((place for place, name in flags.items() if name == str(value).lower()), -1)
            if flags
            else None
        )
    known = {
        float(name): place
        for place, name in enumerate(names)
        if name in ("3", "-7", "12", "2.5", "3.0", "0.1")
    }
    return known.get(float(value), -1) if known else None


def signature(feature: Feature) -> Signature:
    return Signature(features=(feature,), inputs=(ModelInput(name="i", dtype="float64", start=0, width=1),))


def settings(**more: Any) -> Any:
    tree: dict[str, Any] = {
        "kafka": {"bootstrap_servers": "localhost:9092", "group": "g"},
        "input": {"topic": "t", **more},
        "output": {"predictions": "p", "dead_letters": "d"},
        "model": {"path": "m"},
    }
    return parse_settings(tree, origin="test", folder=Path("/nowhere"))


def records(payloads: list[bytes | None]) -> Records:
    count = len(payloads)
    return Records(
        topic="t",
        partitions=np.zeros(count, dtype=np.int32),
        offsets=np.arange(count, dtype=np.int64),
        timestamps_ms=np.zeros(count, dtype=np.int64),
        keys=[None] * count,
        values=payloads,
    )


def outcomes(decoded: Decoded, count: int) -> list[Outcome]:
    found: dict[int, Outcome] = {each.index: each.reason for each in decoded.rejections}
    found |= {int(row): float(decoded.matrix[place, 0]) for place, row in enumerate(decoded.rows)}
    return [found[place] for place in range(count)]


def by_json(feature: Feature, value: Any) -> Outcome:
    shown = float(value) if isinstance(value, Decimal) else value
    config = settings(format="json", json={"nan": "missing"})
    decoder = make_decoder(config, signature(feature), None, None, 1 << 20)
    return outcomes(decoder.decode(records([json.dumps({"x": shown}).encode()])), 1)[0]


avro_types: dict[type, Any] = {
    bool: "boolean", int: "long", float: "double", str: "string", type(None): "double",
    Decimal: {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
}  # fmt: skip


def by_avro(feature: Feature, value: Any, *, recursive: bool) -> Outcome:
    kind = avro_types[type(value)]
    if (value is None or value != value) and feature.kind == "category":
        kind, value = "string", None  # among Avro's texts there is no NaN
    if isinstance(value, Decimal):
        kind = {**kind, "scale": 2 if value != Decimal("0.1") else 1}
    schema: Any = {"type": "record", "name": "R", "fields": [{"name": "x", "type": ["null", kind]}]}
    datum = {"x": value}
    if recursive:
        schema["fields"].append({"name": "next", "type": ["null", "R"]})
        datum["next"] = None
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), datum)
    try:
        decoder = make_decoder(settings(framing="none"), signature(feature), schema, None, 1 << 20)
    except ConfigError as error:
        return _wrong_type(error)  # an Avro schema says it of every record at once
    decoded = decoder.decode(records([out.getvalue()]))
    assert decoder.reference_records == int(recursive)
    return outcomes(decoded, 1)[0]


def _wrong_type(error: ConfigError) -> Reason:
    assert "field x is not a" in str(error)
    return Reason.WRONG_TYPE


def by_rows(feature: Feature, rows: Any, count: int) -> list[Outcome]:
    [(_, decoded)] = RowReader(signature(feature)).blocks(rows)
    return outcomes(decoded, count)


def by_table(feature: Feature, frame: Any) -> list[Outcome]:
    """As `penstock package --rows` reads it: what the stream would reject is refused, or left out."""
    try:
        rows = rows_of_table(frame, signature(feature), origin="the table")
    except ConfigError as error:
        return [_wrong_type(error)]
    passing = rows_that_pass(rows, signature(feature))
    return [float(value) for value in passing[:, 0]]


def arrow(value: Any) -> Any:
    kind = pyarrow.float64() if value is None else None
    return pyarrow.table({"x": pyarrow.array([value], type=kind, from_pandas=False)})


doors: dict[str, Callable[[Feature, Any], Outcome]] = {
    "JSON stream": by_json,
    "Avro stream, native": lambda feature, value: by_avro(feature, value, recursive=False),
    "Avro stream, reference": lambda feature, value: by_avro(feature, value, recursive=True),
    "dictionaries": lambda feature, value: by_rows(feature, [{"x": value}], 1)[0],
    "numpy values in dictionaries": lambda feature, value: by_rows(feature, [{"x": _as_numpy(value)}], 1)[0],
    "pandas": lambda feature, value: by_rows(feature, pandas.DataFrame({"x": pandas.Series([value])}), 1)[0],
    "pandas objects": lambda feature, value: by_rows(
        feature, pandas.DataFrame({"x": pandas.Series([value, None, value], dtype=object)}), 3
    )[0],
    "pandas categorical": lambda feature, value: by_rows(
        feature, pandas.DataFrame({"x": pandas.Categorical([value])}), 1
    )[0],
    "Arrow": lambda feature, value: by_rows(feature, arrow(value), 1)[0],
}


def _as_numpy(value: Any) -> Any:
    return np.array([value])[0] if isinstance(value, bool | int | float | str) else value


def same(one: Outcome, other: Outcome) -> bool:
    return one == other or (one != one and other != other)


kinds = {"numbers": numbers(), **{name: categories(name) for name in tables}}


@pytest.mark.parametrize("door", list(doors))
@pytest.mark.parametrize("kind", list(kinds))
def test_every_door_gives_the_same_outcome(kind: str, door: str) -> None:
    for feature in kinds[kind]:
        for value in values:
            found = doors[door](feature, value)
            assert same(found, expected(feature, value)), (door, feature, value, found)


@pytest.mark.parametrize("kind", list(kinds))
def test_rows_to_package_with_are_read_as_the_stream_reads_them(kind: str) -> None:
    for feature in kinds[kind]:
        for value in values:
            frame = pandas.DataFrame({"x": pandas.Series([value], dtype=object)})
            read: list[Outcome | None] = [*by_table(feature, frame)]
            [found] = read or [None]
            wanted = expected(feature, value)
            if found is None:
                assert wanted in (Reason.MISSING_VALUE, Reason.NOT_FINITE, Reason.UNSEEN_CATEGORY), value
            else:
                assert same(found, wanted), (feature, value, found)


moment = datetime(2026, 11, 29, 22, 41, 48, 250_000, tzinfo=UTC)
day, clock, span = moment.date(), moment.time(), timedelta(days=1, milliseconds=250)
per_s = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
whole_s = {"at": 1_795_992_108, "clock": 81_708, "span": 86_400}


def number_in(what: str, unit: str) -> int:
    """Of the moment, its time of day or the span, in units; whole seconds and a quarter."""
    return whole_s[what] * per_s[unit] + per_s[unit] // 4


times: dict[str, tuple[str, Any, int]] = {
    "date": ("date", day, 20_786),
    **{f"timestamp-{name}": ("at", moment, number_in("at", unit)) for name, unit in (("millis", "ms"), ("micros", "us"))},
    **{f"time-{name}": ("clock", clock, number_in("clock", unit)) for name, unit in (("millis", "ms"), ("micros", "us"))},
}  # fmt: skip
"""By the logical type: what it says, as Python has it, and the number that Avro stores."""


def time_tables(logical: str) -> dict[str, Any]:
    """The time as each kind of table keeps it in the units of the logical type, and a missing one behind it."""
    kind, value, _ = times[logical]
    unit = {"millis": "ms", "micros": "us"}.get(logical.rpartition("-")[2], "us")
    if kind == "date":
        arrays = {
            "Arrow date32": pyarrow.array([day, None], pyarrow.date32()),
            "Arrow date64": pyarrow.array([day, None], pyarrow.date64()),
            "Arrow dictionary": pyarrow.array([day, None], pyarrow.date32()).dictionary_encode(),
        }
        numpy_array = np.array([day, "NaT"], "datetime64[D]")
    elif kind == "clock":
        arrow_kind = pyarrow.time32("ms") if unit == "ms" else pyarrow.time64("us")
        arrays = {"Arrow time": pyarrow.array([clock, None], arrow_kind)}
        numpy_array = np.array([number_in("clock", unit), "NaT"], f"timedelta64[{unit}]")
    else:
        arrays = {
            "Arrow timestamp": pyarrow.array([moment, None], pyarrow.timestamp(unit, tz="UTC")),
            "Arrow timestamp without zone": pyarrow.array(
                [moment.replace(tzinfo=None), None], pyarrow.timestamp(unit)
            ),
            "Arrow timestamp elsewhere": pyarrow.array(
                [moment, None], pyarrow.timestamp(unit, tz="Asia/Tokyo")
            ),
            "Arrow dictionary": pyarrow.array([moment, None], pyarrow.timestamp(unit)).dictionary_encode(),
        }
        numpy_array = np.array([moment.replace(tzinfo=None), None], f"datetime64[{unit}]")
    tables: dict[str, Any] = {name: pyarrow.table({"x": array}) for name, array in arrays.items()}
    tables |= {f"pandas of {name}": pandas.DataFrame({"x": pandas.Series(array, dtype=pandas.ArrowDtype(array.type))}) for name, array in arrays.items() if "dictionary" not in name}  # fmt: skip
    structured = np.zeros(2, dtype=[("x", numpy_array.dtype)])
    structured["x"] = numpy_array
    tables["numpy structured"] = structured
    tables["numpy in dictionaries"] = [{"x": each} for each in numpy_array]
    if kind != "date":
        series = pandas.Series(numpy_array)
        tables |= {"pandas": pandas.DataFrame({"x": series}), "pandas categorical": pandas.DataFrame({"x": series.astype("category")})}  # fmt: skip
        tables["pandas objects"] = pandas.DataFrame({"x": series.astype(object)})
    if kind == "at":
        zoned = pandas.Series(numpy_array).dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo")
        tables["pandas with a zone"] = pandas.DataFrame({"x": zoned})
    if kind == "date" or unit == "us":  # Python's own objects are kept in microseconds
        tables["Python objects"] = [{"x": value}, {"x": None}]
        tables["pandas Python objects"] = pandas.DataFrame({"x": pandas.Series([value, None], dtype=object)})
    return tables


def time_by_avro(feature: Feature, logical: str, number: int, *, recursive: bool) -> Outcome:
    kind = "int" if logical in ("date", "time-millis") else "long"
    fields: list[Any] = [{"name": "x", "type": ["null", {"type": kind, "logicalType": logical}]}]
    plain: list[Any] = [{"name": "x", "type": ["null", kind]}]
    datum: dict[str, Any] = {"x": number}
    if recursive:
        fields.append({"name": "next", "type": ["null", "R"]})
        plain.append({"name": "next", "type": ["null", "R"]})
        datum["next"] = None
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema({"type": "record", "name": "R", "fields": plain}), datum)  # fmt: skip
    schema = {"type": "record", "name": "R", "fields": fields}
    try:
        decoder = make_decoder(settings(framing="none"), signature(feature), schema, None, 1 << 20)
    except ConfigError as error:
        return _wrong_type(error)
    return outcomes(decoder.decode(records([out.getvalue()])), 1)[0]


@pytest.mark.parametrize("logical", list(times))
def test_a_date_or_time_is_the_same_number_by_every_door(logical: str) -> None:
    _, _, number = times[logical]
    table = Feature(name="x", kind="category", categories=(str(number), "other"))
    other = Feature(name="x", kind="category", categories=("A", "B"))
    cases = [*numbers(), *(replace(each, missing=m, unseen=u) for each in (table, other) for m in ("nan", "reject", 1) for u in ("nan", "reject", 0))]  # fmt: skip
    for feature in cases:
        wanted = expected_time(feature, number)
        assert same(by_json(feature, number), wanted)
        for recursive in (False, True):
            assert same(time_by_avro(feature, logical, number, recursive=recursive), wanted)
        for door, rows in time_tables(logical).items():
            first, second = by_rows(feature, rows, 2)
            assert same(first, wanted), (door, feature, first, wanted)
            assert same(second, expected(feature, None)), (door, feature, second)


def expected_time(feature: Feature, number: int) -> Outcome:
    if feature.kind == "number":
        return float(number)
    return 0.0 if feature.categories[0] == str(number) else Reason.WRONG_TYPE


@pytest.mark.parametrize("unit", list(per_s))
def test_units_that_avro_does_not_have_are_those_that_the_column_has(unit: str) -> None:
    feature = Feature(name="x", kind="number")
    for what, array in (
        ("at", np.array([number_in("at", unit)], f"datetime64[{unit}]")),
        ("span", np.array([number_in("span", unit)], f"timedelta64[{unit}]")),
    ):
        for rows in (
            pandas.DataFrame({"x": pandas.Series(array)}), pyarrow.table({"x": pyarrow.array(array)}), [{"x": array[0]}],
        ):  # fmt: skip
            assert by_rows(feature, rows, 1) == [float(number_in(what, unit))]
    assert by_rows(feature, [{"x": span}], 1) == [number_in("span", "us")]


@pytest.mark.parametrize("logical", list(times))
def test_times_in_other_units_than_the_records_have_are_refused(logical: str) -> None:
    feature = Feature(name="x", field="inner.x", kind="number")
    kind = "int" if logical in ("date", "time-millis") else "long"
    inner = {"type": "record", "name": "I", "fields": [{"name": "x", "type": ["null", {"type": kind, "logicalType": logical}]}]}  # fmt: skip
    schema = {"type": "record", "name": "R", "fields": [{"name": "inner", "type": inner}]}
    reader = RowReader(replace(signature(feature)), schema)
    for rows in time_tables(logical).values():
        if not isinstance(rows, list):
            names = {"x": "inner.x"}
            if isinstance(rows, np.ndarray):
                continue
            renamed = (
                rows.rename_columns(names) if isinstance(rows, pyarrow.Table) else rows.rename(columns=names)
            )
            assert [count for count, _ in reader.blocks(renamed)] == [2]
    strange = pandas.DataFrame({"inner.x": pandas.Series(np.array([1], "datetime64[ns]"))})
    with pytest.raises(
        ConfigError,
        match=r"column inner\.x holds times in nanoseconds, and the schema of the model's records",
    ):
        [*reader.blocks(strange)]
    assert [count for count, _ in RowReader(signature(feature)).blocks(strange)] == [1]


def test_a_list_of_times_is_a_vector_of_numbers() -> None:
    feature = Feature(name="x", kind="vector", width=2)
    two = Signature(features=(feature,), inputs=(ModelInput(name="i", dtype="float64", start=0, width=2),))
    array = pyarrow.array([[moment, moment], None], pyarrow.list_(pyarrow.timestamp("ms")))
    [(_, decoded)] = RowReader(two).blocks(pyarrow.table({"x": array}))
    assert decoded.matrix[0].tolist() == [float(number_in("at", "ms"))] * 2


def test_a_time_is_no_text_and_a_text_that_looks_like_one_no_time() -> None:
    feature = Feature(name="x", kind="number")
    assert by_rows(feature, [{"x": moment.isoformat()}], 1) == [Reason.WRONG_TYPE]
    assert by_json(feature, moment.isoformat()) is Reason.WRONG_TYPE


def test_there_are_enough_cases() -> None:
    per_door = sum(map(len, kinds.values())) * len(values)
    assert per_door >= 500
    assert per_door * len(doors) >= 10_000


def test_a_vector_is_the_same_by_every_door() -> None:
    feature = Feature(name="x", kind="vector", width=2)
    two = Signature(features=(feature,), inputs=(ModelInput(name="i", dtype="float64", start=0, width=2),))
    rows = [[1.0, 2.0], [1, None], None, [1.0], [1.0, "2"], 3.0]
    documents: list[bytes | None] = [json.dumps({"x": value}).encode() for value in rows]
    stream = make_decoder(settings(format="json"), two, None, None, 1 << 20).decode(records(documents))
    [(_, objects)] = RowReader(two).blocks([{"x": value} for value in rows])
    [(_, frame)] = RowReader(two).blocks(pandas.DataFrame({"x": pandas.Series(rows, dtype=object)}))
    for decoded in (objects, frame):
        np.testing.assert_array_equal(decoded.matrix, stream.matrix)
        assert decoded.rows.tolist() == stream.rows.tolist() == [0, 1, 2]
        assert [(r.index, r.reason, r.detail) for r in decoded.rejections] == [
            (r.index, r.reason, r.detail) for r in stream.rejections
        ]


@pytest.mark.parametrize("seed", range(20))
def test_objects_that_are_null_are_the_same_in_a_table_and_in_records(seed: int) -> None:
    """A row that has no field of the model at all, since what they stand in is null, is rejected by either door."""
    chance = np.random.default_rng(seed)
    feature_x, feature_z = (Feature(name=name, field=name, kind="number") for name in ("a.x", "b.c.z"))
    inputs = tuple(
        ModelInput(name=name, dtype="float64", start=place, width=1)
        for place, name in enumerate(("a.x", "b.c.z"))
    )
    signature = Signature(features=(feature_x, feature_z), inputs=inputs)

    def some(value: Any) -> Any:
        return None if chance.random() < 0.4 else value

    records = [
        {"a": some({"x": some(1.5)}), "b": some({"c": some({"z": some(2.5)})}), "id": row}
        for row in range(40)
    ]
    kinds = [
        ("a", pyarrow.struct([("x", pyarrow.float64())])),
        ("b", pyarrow.struct([("c", pyarrow.struct([("z", pyarrow.float64())]))])),
        ("id", pyarrow.int64()),
    ]
    table = pyarrow.Table.from_pylist(records, schema=pyarrow.schema(kinds))
    reader = RowReader(signature)
    ((_, by_table),) = reader.blocks(table)
    ((_, by_record),) = reader.blocks(records)
    assert by_table.rows.tolist() == by_record.rows.tolist()
    np.testing.assert_array_equal(by_table.matrix, by_record.matrix)
    reasons = [(each.index, each.reason) for each in by_table.rejections]
    assert reasons == [(each.index, each.reason) for each in by_record.rejections]
    assert Reason.NO_FEATURES in {reason for _, reason in reasons}
