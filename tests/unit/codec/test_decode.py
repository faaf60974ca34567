"""The decoder: every record becomes one row or one rejection, and a bad one changes nothing for its neighbours."""

import io
import json
import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine.codec.decode import RowDecoder, make_decoder
from penstock.engine.codec.framing import confluent_prefix, single_object_prefix
from penstock.engine.features.signature import Feature, ModelInput, Signature
from penstock.engine.ports import Decoded
from penstock.engine.settings.model import Settings, parse_settings
from penstock.schemas.errors import ConfigError, RecordError, UnavailableError
from penstock.schemas.reasons import Reason, Stage
from penstock.schemas.records import Records

record_bytes_max = 4000

new: Any = {"type": "record", "name": "Trip", "namespace": "demo", "fields": [
    {"name": "id", "type": "string"},
    {"name": "distance", "type": "double"},
    {"name": "tip", "type": ["null", "double"], "default": None},
    {"name": "card", "type": {"type": "enum", "name": "Card", "symbols": ["VISA", "AMEX", "OTHER"]}},
    {"name": "weather", "type": {"type": "record", "name": "Weather", "fields": [
        {"name": "temp", "type": "float"}, {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}}]}},
    {"name": "speeds", "type": {"type": "array", "items": "double"}},
    {"name": "city", "type": "string", "default": "Oslo"},
    {"name": "fare", "type": "double", "default": 2.5},
]}  # fmt: skip
"""The reader's schema, and that of new writers."""

old: Any = {"type": "record", "name": "Trip", "namespace": "demo", "fields": [
    {"name": "card", "type": {"type": "enum", "name": "Card", "symbols": ["AMEX", "VISA"]}},
    {"name": "distance", "type": "int"},
    {"name": "gone", "type": {"type": "map", "values": "bytes"}},
    {"name": "weather", "type": {"type": "record", "name": "Weather", "fields": [
        {"name": "at", "type": "long"}, {"name": "temp", "type": "int"}]}},
    {"name": "speeds", "type": {"type": "array", "items": "float"}},
    {"name": "id", "type": "string"},
]}  # fmt: skip
"""An older writer's: other order, narrower types, a field too many, some missing."""

narrow: Any = {**new, "fields": [field for field in new["fields"] if field["name"] != "distance"]}
"""A writer's that lacks a field for which the reader has no default."""

other: Any = {
    "type": "record",
    "name": "Trip",
    "namespace": "demo",
    "fields": [{"name": "distance", "type": "string"}],
}
"""A writer's that does not resolve."""

signature = Signature(
    features=(
        Feature(name="distance", kind="number"),
        Feature(name="tip", kind="number", missing="reject", infinite="pass"),
        Feature(name="card", kind="category", categories=("VISA", "AMEX", "OTHER")),
        Feature(name="temp", field="weather.temp", kind="number"),
        Feature(name="at", field="weather.at", kind="number"),
        Feature(name="speeds", kind="vector", width=3),
        Feature(name="city", kind="category", categories=("Oslo", "Bergen"), unseen="reject"),
        Feature(name="fare", kind="number", missing=-1.0),
    ),
    inputs=(ModelInput(name="x", dtype="float64", start=0, width=10),),
)


class Schemas:
    """A registry that a test fills; `asked` counts what was looked up."""

    def __init__(self, known: dict[int, Any]) -> None:
        self.known = known
        self.asked: list[int] = []
        self.down = False

    def schema(self, schema_id: int) -> Any:
        self.asked.append(schema_id)
        if self.down:
            raise UnavailableError("the registry is down")
        if schema_id not in self.known:
            detail = f"the registry does not know schema id {schema_id}"
            raise RecordError(stage=Stage.DECODE, reason=Reason.UNKNOWN_SCHEMA, detail=detail)
        return self.known[schema_id]


def settings(tmp_path: Path = Path("/nowhere"), registry: bool = True, **changes: Any) -> Settings:
    tree: dict[str, Any] = {
        "kafka": {"bootstrap_servers": "localhost:9092", "group": "g"},
        "input": {"topic": "trips", **changes},
        "output": {"predictions": "p", "dead_letters": "d"},
        "model": {"path": "m"},
    }
    if registry:
        tree["registry"] = {"url": "http://localhost:8081"}
    return parse_settings(tree, origin="test", folder=tmp_path)


def records(values: Sequence[bytes | None]) -> Records:
    return Records(
        topic="trips",
        partitions=np.zeros(len(values), dtype=np.int32),
        offsets=np.arange(len(values), dtype=np.int64),
        timestamps_ms=np.zeros(len(values), dtype=np.int64),
        keys=[None] * len(values),
        values=list(values),
    )


def body(schema: Any, datum: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), datum)
    return out.getvalue()


def new_trip(place: int, **changes: Any) -> dict[str, Any]:
    return {
        "id": f"trip-{place}", "distance": place * 1.5, "tip": 0.5, "card": "OTHER", "speeds": [1.0, 2.0, math.pi * place],
        "weather": {"temp": -3.5, "at": 1_700_000_000_000 + place}, "city": "Bergen", "fare": 10.0, **changes,
    }  # fmt: skip


def new_row(place: int) -> list[float]:
    return [place * 1.5, 0.5, 2.0, -3.5, 1_700_000_000_000.0 + place, 1.0, 2.0, math.pi * place, 1.0, 10.0]


def old_trip(place: int) -> dict[str, Any]:
    return {
        "id": "t", "distance": place, "card": "AMEX", "gone": {"a": b"1"}, "speeds": [1.0, 2.0, 3.0],
        "weather": {"temp": 7, "at": place},
    }  # fmt: skip


recursive: Any = {
    **new,
    "fields": [{"name": "next", "type": ["null", "Trip"], "default": None}, *new["fields"]],
}
"""A schema that only the slow path takes; its records are those of `new` behind one byte."""


def registered(place: int, **changes: Any) -> bytes:
    return confluent_prefix(1) + body(new, new_trip(place, **changes))


def decoder(schemas: Schemas | None = None, **changes: Any) -> RowDecoder:
    schemas = schemas or Schemas({1: new, 2: old, 3: other, 4: narrow})
    return make_decoder(settings(**changes), signature, new, schemas, record_bytes_max)


def slow_decoder() -> RowDecoder:
    return make_decoder(
        settings(), signature, recursive, Schemas({1: recursive, 3: other, 4: narrow}), record_bytes_max
    )


def slowed(value: bytes | None) -> bytes | None:
    """The same record of the recursive schema."""
    return value if value is None or len(value) < 5 else value[:5] + b"\0" + value[5:]


def reasons(decoded: Decoded) -> dict[int, Reason]:
    return {rejection.index: rejection.reason for rejection in decoded.rejections}


def test_records_of_one_schema_become_rows() -> None:
    decoded = decoder().decode(records([registered(place) for place in range(20)]))
    assert decoded.matrix.dtype == np.float64
    assert decoded.matrix.flags.c_contiguous
    assert decoded.matrix.tolist() == [new_row(place) for place in range(20)]
    assert decoded.rows.tolist() == list(range(20))
    assert decoded.rejections == []


def test_old_and_new_writers_may_be_mixed() -> None:
    tolerant = Signature(
        features=tuple(
            Feature(name="tip", kind="number") if feature.name == "tip" else feature
            for feature in signature.features
        ),
        inputs=signature.inputs,
    )
    reader = make_decoder(settings(), tolerant, new, Schemas({1: new, 2: old}), record_bytes_max)
    values = [
        registered(place) if place % 3 else confluent_prefix(2) + body(old, old_trip(place))
        for place in range(12)
    ]
    decoded = reader.decode(records(values))
    assert decoded.rejections == []
    expected = [
        new_row(place) if place % 3 else [place, math.nan, 1.0, 7.0, place, 1.0, 2.0, 3.0, 0.0, 2.5]
        for place in range(12)
    ]
    np.testing.assert_array_equal(decoded.matrix, np.array(expected))
    assert decoded.rows.tolist() == list(range(12))


Poison = tuple[Callable[[int], bytes | None], set[Reason]]


def spliced(place: int, at: bytes, by: bytes) -> bytes:
    whole = registered(place)
    assert whole.count(at) == 1
    return whole.replace(at, by)


poison: dict[str, Poison] = {
    "null value": (lambda _: None, {Reason.NULL_VALUE}),
    "no bytes": (lambda _: b"", {Reason.BAD_FRAMING}),
    "short header": (lambda _: b"\0\0\0\0", {Reason.BAD_FRAMING}),
    "other magic": (lambda place: b"\1" + registered(place)[1:], {Reason.BAD_FRAMING}),
    "negative id": (lambda place: b"\0\xff\xff\xff\xff" + registered(place)[5:], {Reason.BAD_FRAMING}),
    "unknown id": (lambda place: confluent_prefix(99) + registered(place)[5:], {Reason.UNKNOWN_SCHEMA}),
    "incompatible writer": (lambda _: confluent_prefix(3) + body(other, {"distance": "far"}), {Reason.INCOMPATIBLE_SCHEMA}),
    "writer without a field": (
        lambda place: confluent_prefix(4) + body(narrow, new_trip(place)), {Reason.INCOMPATIBLE_SCHEMA}),
    "only a header": (lambda _: confluent_prefix(1), {Reason.TRUNCATED}),
    "truncated": (lambda place: registered(place)[:-3], {Reason.TRUNCATED}),
    "trailing": (lambda place: registered(place) + b"\0", {Reason.TRAILING_BYTES}),
    "too long": (lambda place: registered(place, id="x" * record_bytes_max), {Reason.RECORD_TOO_LONG}),
    "union index": (
        lambda place: spliced(place, struct.pack("<d", place * 1.5) + b"\2", struct.pack("<d", place * 1.5) + b"\6"),
        {Reason.CORRUPT},
    ),
    "enum index": (
        lambda place: spliced(place, struct.pack("<d", 0.5) + b"\4", struct.pack("<d", 0.5) + b"\x08"), {Reason.CORRUPT}),
    "endless number": (lambda _: confluent_prefix(1) + b"\xff" * 40, {Reason.CORRUPT}),
    "negative length": (lambda place: confluent_prefix(1) + b"\1" + registered(place)[6:], {Reason.CORRUPT}),
    "huge length": (
        lambda place: confluent_prefix(1) + b"\xfe\xff\xff\xff\x0f" + registered(place)[6:],
        {Reason.CORRUPT, Reason.TRUNCATED, Reason.LIMIT_EXCEEDED},
    ),
    "no text": (lambda place: spliced(place, b"Bergen", b"\xff\xfe\xfd\xfc\xfb\xfa"), {Reason.CORRUPT}),
    "array bomb": (
        lambda place: spliced(place, struct.pack("<fq", 0, 0)[:0] + b"\6" + struct.pack("<dd", 1, 2), b"\xfe\xff\xff\xff\xff\x7f" + struct.pack("<dd", 1, 2)),
        {Reason.CORRUPT, Reason.TRUNCATED, Reason.LIMIT_EXCEEDED},
    ),
    "vector of two": (lambda place: registered(place, speeds=[1.0, 2.0]), {Reason.WRONG_TYPE}),
    "vector of four": (lambda place: registered(place, speeds=[1.0] * 4), {Reason.WRONG_TYPE}),
    "missing": (lambda place: registered(place, tip=None), {Reason.MISSING_VALUE}),
    "NaN": (lambda place: registered(place, tip=math.nan), {Reason.MISSING_VALUE}),
    "infinite": (lambda place: registered(place, distance=-math.inf), {Reason.NOT_FINITE}),
    "unseen": (lambda place: registered(place, city="Tromsø"), {Reason.UNSEEN_CATEGORY}),
}  # fmt: skip


Side = tuple[Callable[[], RowDecoder], Callable[[bytes | None], bytes | None]]
sides: list[Any] = [
    pytest.param((decoder, lambda value: value), id="native"),
    pytest.param((slow_decoder, slowed), id="reference"),
]


@pytest.mark.parametrize("side", sides)
@pytest.mark.parametrize("kind", list(poison))
def test_each_kind_of_poison_is_one_rejection_with_its_reason(kind: str, side: Side) -> None:
    make_side, write = side
    make, expected = poison[kind]
    decoded = make_side().decode(records([write(registered(0)), write(make(1)), write(registered(2))]))
    assert decoded.rows.tolist() == [0, 2]
    [rejection] = decoded.rejections
    assert rejection.index == 1
    assert rejection.reason in expected
    assert not any(said in rejection.detail for said in ("trip-1", "Troms"))


@pytest.mark.parametrize("side", sides)
@given(batch=st.lists(st.sampled_from([None, None, None, *poison]), max_size=40))
def test_poison_is_set_aside_exactly_and_its_neighbours_are_equal_to_the_bit(
    side: Side, batch: list[str | None]
) -> None:
    make_side, write = side
    values = [
        registered(place) if kind is None else poison[kind][0](place) for place, kind in enumerate(batch)
    ]
    good = [place for place, kind in enumerate(batch) if kind is None]
    clean = decoder().decode(records([registered(place) for place in good]))

    decoded = make_side().decode(records([write(value) for value in values]))

    assert decoded.matrix.tobytes() == clean.matrix.tobytes()
    assert decoded.rows.tolist() == good
    assert [rejection.index for rejection in decoded.rejections] == [
        place for place, kind in enumerate(batch) if kind is not None
    ]
    for place, reason in reasons(decoded).items():
        assert reason in poison[str(batch[place])][1]


@pytest.mark.parametrize("side", sides)
@given(start=st.integers(0, 200), noise=st.binary(min_size=1, max_size=30), insert=st.booleans())
def test_mutated_bytes_never_disturb_a_neighbour(side: Side, start: int, noise: bytes, insert: bool) -> None:
    make_side, write = side
    whole = registered(1)
    start %= len(whole)
    mutant = whole[:start] + noise + whole[start + (0 if insert else len(noise)) :]
    decoded = make_side().decode(records([write(registered(0)), write(mutant), write(registered(2))]))
    assert {0, 2} <= set(decoded.rows.tolist())
    assert len(decoded.rows) + len(decoded.rejections) == 3
    assert decoded.matrix[0].tolist() == new_row(0)
    assert decoded.matrix[-1].tolist() == new_row(2)


def test_the_slow_path_is_counted_and_bounded() -> None:
    reader = slow_decoder()
    deep = registered(1)[:5] + b"\2" * 3900 + b"\0" + registered(1)[5:]
    endless = registered(1)[:5] + b"\2" * 3990
    decoded = reader.decode(records([slowed(registered(0)), deep, endless, slowed(registered(3))]))
    assert decoded.rows.tolist() == [0, 3]
    assert set(reasons(decoded).values()) == {Reason.LIMIT_EXCEEDED}
    assert reader.reference_records == 4
    fast = decoder()
    fast.decode(records([registered(0)]))
    assert fast.reference_records == 0


def test_decimals_are_numbers() -> None:
    money: Any = {"type": "record", "name": "Sale", "fields": [
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}}]}  # fmt: skip
    one = Signature(
        features=(Feature(name="price", kind="number"),),
        inputs=(ModelInput(name="x", dtype="float64", start=0, width=1),),
    )
    reader = make_decoder(settings(), one, money, Schemas({1: money}), record_bytes_max)
    decoded = reader.decode(records([confluent_prefix(1) + body(money, {"price": Decimal("-12.34")})]))
    assert decoded.matrix.tolist() == [[-12.34]]


def test_a_schema_in_which_few_bytes_stand_for_many_items_stops_the_start() -> None:
    bomb: Any = {
        **recursive,
        "fields": [*recursive["fields"], {"name": "b", "type": {"type": "array", "items": "null"}}],
    }
    with pytest.raises(ConfigError, match="the input schema cannot be read"):
        make_decoder(settings(), signature, bomb, Schemas({}), record_bytes_max)


def test_records_without_a_value_may_be_skipped() -> None:
    decoded = decoder(null_value="skip").decode(records([None, registered(1), None, b""]))
    assert decoded.rows.tolist() == [1]
    assert reasons(decoded) == {3: Reason.BAD_FRAMING}


@pytest.mark.parametrize("values", [[], [None], [b""]])
def test_a_batch_without_a_row_has_an_empty_matrix(values: list[bytes | None]) -> None:
    decoded = decoder().decode(records(values))
    assert decoded.matrix.shape == (0, signature.width)
    assert decoded.matrix.dtype == signature.dtype
    assert len(decoded.rows) == 0
    assert len(decoded.rejections) == len(values)


def test_a_registry_that_is_down_is_not_the_records_fault() -> None:
    schemas = Schemas({1: new, 2: old})
    reader = decoder(schemas)
    reader.decode(records([registered(0)]))
    schemas.down = True
    assert reader.decode(records([registered(0)])).rows.tolist() == [0]  # what is known needs no registry
    with pytest.raises(UnavailableError):
        reader.decode(records([registered(0), confluent_prefix(2) + body(old, old_trip(0))]))


@pytest.mark.parametrize("away_first", [True, False])
def test_of_a_batch_that_waits_for_a_schema_nothing_is_counted_until_it_is_read(away_first: bool) -> None:
    schemas = Schemas({1: recursive, 2: recursive})
    reader = make_decoder(settings(), signature, recursive, schemas, record_bytes_max)
    here = slowed(registered(0, city="Nowhere"))
    assert here is not None
    reader.decode(records([here]))
    away = confluent_prefix(2) + here[5:]
    batch = records([away, here] if away_first else [here, away])
    schemas.down = True
    for ask in (reader.decode, reader.require):
        with pytest.raises(UnavailableError):
            ask(batch)
    schemas.down = False
    reader.require(batch)
    assert (reader.reference_records, reader.counts.rows) == (1, 1)
    reader.decode(batch)
    assert (reader.reference_records, reader.counts.rows) == (3, 3)
    assert reader.counts.unseen.sum() == 3


def test_a_schema_is_compiled_once_and_an_unknown_one_asked_again() -> None:
    schemas = Schemas({1: new, 3: other})
    reader = decoder(schemas)
    for _ in range(3):
        reader.decode(records([registered(0), confluent_prefix(3) + b"\0", confluent_prefix(4) + b"\0"]))
    assert schemas.asked.count(1) == 1
    assert schemas.asked.count(3) == 1
    assert schemas.asked.count(4) == 3
    schemas.known[4] = new
    assert reader.decode(records([confluent_prefix(4) + registered(7)[5:]])).rows.tolist() == [0]


def test_without_a_registry_the_fingerprint_names_the_writers_schema(tmp_path: Path) -> None:
    (tmp_path / "old.avsc").write_bytes(json.dumps(old).encode())
    config = settings(tmp_path, registry=False, writer_schemas=".")
    reader = make_decoder(config, signature, new, None, record_bytes_max)
    values = [
        single_object_prefix(new) + body(new, new_trip(0)),
        single_object_prefix(old)
        + body(old, old_trip(1)),  # its tip is missing, which is rejected: so it was read
        single_object_prefix(other) + body(other, {"distance": "far"}),
        b"\xc3\x02" + body(new, new_trip(3)),
    ]
    decoded = reader.decode(records(values))
    assert decoded.matrix.tolist() == [new_row(0)]
    assert reasons(decoded) == {1: Reason.MISSING_VALUE, 2: Reason.UNKNOWN_SCHEMA, 3: Reason.BAD_FRAMING}


def test_without_framing_records_are_of_the_readers_schema() -> None:
    reader = make_decoder(settings(registry=False, framing="none"), signature, new, None, record_bytes_max)
    decoded = reader.decode(records([body(new, new_trip(0)), b"", body(new, new_trip(2))]))
    assert decoded.matrix.tolist() == [new_row(0), new_row(2)]
    assert reasons(decoded) == {1: Reason.TRUNCATED}


def test_json_records_pass_the_same_policies() -> None:
    reader = make_decoder(settings(registry=False, format="json"), signature, None, None, record_bytes_max)
    odd: list[dict[str, Any]] = [{}, {"city": "X"}, {}, {"tip": None}]
    trips = [json.dumps(new_trip(place, **changes)).encode() for place, changes in enumerate(odd)]
    decoded = reader.decode(records([*trips, None, b"{", b" " * (record_bytes_max + 1)]))
    assert decoded.matrix.tolist() == [new_row(0), new_row(2)]
    assert reasons(decoded) == {
        1: Reason.UNSEEN_CATEGORY, 3: Reason.MISSING_VALUE, 4: Reason.NULL_VALUE, 5: Reason.CORRUPT, 6: Reason.RECORD_TOO_LONG,
    }  # fmt: skip


def test_without_a_readers_schema_each_writers_is_read_as_it_is() -> None:
    reader = make_decoder(settings(), signature, None, Schemas({1: new, 2: old}), record_bytes_max)
    decoded = reader.decode(records([registered(0), confluent_prefix(2) + body(old, old_trip(1))]))
    assert decoded.matrix.tolist() == [new_row(0)]
    assert reasons(decoded) == {
        1: Reason.INCOMPATIBLE_SCHEMA
    }  # the old one lacks fields that the model needs
    with pytest.raises(ConfigError, match=r"input\.schema is missing"):
        make_decoder(settings(registry=False), signature, None, None, record_bytes_max)


def test_a_schema_that_lacks_a_field_stops_the_start() -> None:
    with pytest.raises(
        ConfigError, match=r"field weather\.temp is missing|weather is missing|field weather.temp"
    ):
        make_decoder(
            settings(), signature, {**new, "fields": new["fields"][:4]}, Schemas({}), record_bytes_max
        )


def test_a_topic_of_several_types_is_read_for_the_chosen_one() -> None:
    event: Any = {
        "type": "record",
        "name": "Refund",
        "namespace": "demo",
        "fields": [{"name": "sum", "type": "double"}],
    }
    both: Any = [new, event]
    schemas = Schemas({1: new, 5: event, 6: both})
    values = [
        registered(0),
        confluent_prefix(5) + body(event, {"sum": 1.0}),
        confluent_prefix(6) + b"\2" + body(event, {"sum": 1.0}),
        confluent_prefix(6) + b"\0" + body(new, new_trip(3)),
    ]
    for reader_schema in (new, None):
        chosen = make_decoder(
            settings(record_type="demo.Trip"), signature, reader_schema, schemas, record_bytes_max
        )
        decoded = chosen.decode(records(values))
        assert decoded.rows.tolist() == [0, 3]
        assert decoded.matrix.tolist() == [new_row(0), new_row(3)]
        assert decoded.rejections == []
        unchosen = make_decoder(settings(), signature, reader_schema, schemas, record_bytes_max)
        decoded = unchosen.decode(records(values))
        assert decoded.rows.tolist() == [0, 3]
        assert set(reasons(decoded)) == {1, 2}
        assert set(reasons(decoded).values()) <= {Reason.INCOMPATIBLE_SCHEMA, Reason.NO_FEATURES}


def test_a_chosen_type_that_the_input_schema_is_not_stops_the_start() -> None:
    with pytest.raises(
        ConfigError, match=r"input.record_type is Tripp; the input schema describes demo.Trip"
    ):
        decoder(record_type="Tripp")


def test_records_without_a_feature_are_skipped_where_the_settings_say_so() -> None:
    one = Signature(
        features=(Feature(name="tip", kind="number"),),
        inputs=(ModelInput(name="x", dtype="float64", start=0, width=1),),
    )
    values: list[bytes | None] = [b'{"tip": 1}', b"{}", b'{"tips": 2}', b"[", b'{"tip": null}']
    for policy, rows, bad in (
        ("reject", [0, 4], [1, 2, 3]),
        ("skip", [0, 4], [3]),
        ("score", [0, 1, 2, 4], [3]),
    ):
        config = settings(registry=False, format="json", no_features=policy)
        decoded = make_decoder(config, one, None, None, record_bytes_max).decode(records(values))
        assert decoded.rows.tolist() == rows
        assert sorted(reasons(decoded)) == bad


@pytest.mark.parametrize(
    ("framing", "value", "said"),
    [
        ("confluent", b'{"distance": 1}', "input.format: json"),
        ("confluent", single_object_prefix(new) + b"...", "input.framing: single_object"),
        ("confluent", b"\0" * 8 + b"\7abc", "8 bytes"),
        ("confluent", b"Obj\x01....", "Avro file"),
        ("confluent", b"\x1f\x8b........", "compression.type"),
        ("single_object", confluent_prefix(7) + b"12345678", "input.framing: confluent"),
        ("single_object", b'{"distance": 1}', "input.format: json"),
    ],
)
def test_a_foreign_framing_is_named_with_its_cure(framing: str, value: bytes, said: str) -> None:
    schemas = Schemas({1: new})
    reader = make_decoder(settings(framing=framing), signature, new, schemas, record_bytes_max)
    [rejection] = reader.decode(records([value])).rejections
    assert rejection.reason is Reason.BAD_FRAMING
    assert said in rejection.detail
    assert schemas.asked == []


def test_a_schema_id_in_the_record_headers_is_named() -> None:
    batch = replace(
        records([registered(0), body(new, new_trip(1))]),
        headers=lambda index: [("__value_schema_id", b"\1" + bytes(16))] if index else [],
    )
    decoded = decoder().decode(batch)
    assert decoded.rows.tolist() == [0]
    [rejection] = decoded.rejections
    assert rejection.reason is Reason.BAD_FRAMING
    assert "__value_schema_id" in rejection.detail


def test_missing_and_unseen_values_are_counted_by_feature(caplog: pytest.LogCaptureFixture) -> None:
    three = Signature(
        features=(
            Feature(name="tip", kind="number", missing=0.0),
            Feature(name="v", kind="vector", width=2),
            Feature(name="city", field="to.city", kind="category", categories=("Oslo",)),
        ),
        inputs=(ModelInput(name="x", dtype="float32", start=0, width=4),),
    )
    values = [b'{"tip": 1}', b'{"tip": null, "v": [1, null]}', b'{"tip": 2, "to": {"city": "Rome"}}', b"{"]
    reader = make_decoder(settings(registry=False, format="json"), three, None, None, record_bytes_max)
    reader.decode(records(values))
    counts = reader.counts
    assert counts.features == ("tip", "v", "city")
    assert (counts.rows, counts.missing.tolist(), counts.unseen.tolist()) == (3, [1, 5, 2], [0, 0, 1])

    with caplog.at_level("WARNING", logger="penstock.decoder"):
        reader.decode(records([b'{"tip": 1, "v": [1, 2]}'] * 990))
        assert caplog.records == []
        reader = make_decoder(settings(registry=False, format="json"), three, None, None, record_bytes_max)
        for _ in range(4):
            reader.decode(records([b'{"tip": 1, "v": [1, 2]}'] * 600))
    [line] = caplog.records
    assert "first 1200 records: city (field to.city)." in line.getMessage()
