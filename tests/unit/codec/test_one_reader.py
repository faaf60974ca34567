"""One reader decides what a value is: whatever door a row comes in by, the outcome is the same."""

import io
import json
import math
from collections.abc import Callable
from dataclasses import replace
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
            [found] = by_table(feature, frame) or [None]
            wanted = expected(feature, value)
            if found is None:
                assert wanted in (Reason.MISSING_VALUE, Reason.NOT_FINITE, Reason.UNSEEN_CATEGORY), value
            else:
                assert same(found, wanted), (feature, value, found)


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
