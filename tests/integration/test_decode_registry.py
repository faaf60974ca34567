"""The decoder with a registry over real HTTP: floods, outages, and contracts registered at start."""

import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pytest

from penstock.connectors.registry.client import Registry, unknown_burst_max
from penstock.connectors.registry.exchange import RegistryConfig
from penstock.engine.clock import SystemClock
from penstock.engine.codec.contracts import contract, output_prefixes
from penstock.engine.codec.decode import make_decoder
from penstock.engine.codec.framing import confluent_prefix, confluent_schema_id
from penstock.engine.features.signature import Feature, ModelInput, Signature
from penstock.engine.settings.model import parse_settings
from penstock.schemas.errors import UnavailableError
from penstock.schemas.reasons import Reason
from penstock.schemas.records import Records
from tests.registry_server import Fault, RegistryServer, registry_server

point: Any = {"type": "record", "name": "Point", "fields": [{"name": "x", "type": "double"}]}
wider: Any = {**point, "fields": [{"name": "y", "type": "string"}, *point["fields"]]}
signature = Signature(
    features=(Feature(name="x", kind="number"),),
    inputs=(ModelInput(name="in", dtype="float64", start=0, width=1),),
)


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    with registry_server() as running:
        yield running


@pytest.fixture
def registry(server: RegistryServer) -> Iterator[Registry]:
    clock = SystemClock()
    config = RegistryConfig(url=server.url, timeout_s=0.5)
    client = Registry(config, monotonic_s=clock.monotonic_s, sleep=clock.sleep)
    yield client
    client.close()


def decoder(server: RegistryServer, registry: Registry) -> Any:
    settings = parse_settings(
        {
            "kafka": {"bootstrap_servers": "localhost:9092", "group": "g"},
            "registry": {"url": server.url},
            "input": {"topic": "points"},
            "output": {"predictions": "p", "dead_letters": "d"},
            "model": {"path": "m"},
        },
        origin="test",
        folder=Path(),
    )
    return make_decoder(settings, signature, point, registry, 1 << 20)


def message(schema_id: int, schema: Any, **datum: Any) -> bytes:
    out = io.BytesIO(confluent_prefix(schema_id))
    out.seek(5)
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), datum)
    return out.getvalue()


def records(values: list[bytes | None]) -> Records:
    return Records(
        topic="points",
        partitions=np.zeros(len(values), dtype=np.int32),
        offsets=np.arange(len(values), dtype=np.int64),
        timestamps_ms=np.zeros(len(values), dtype=np.int64),
        keys=[None] * len(values),
        values=values,
    )


def test_a_flood_of_unknown_ids_is_set_aside_and_good_records_pass(
    server: RegistryServer, registry: Registry
) -> None:
    good = server.publish("points-value", point)
    reader = decoder(server, registry)
    reader.decode(records([message(good, point, x=0.0)]))
    passed = 0
    for start in range(1000, 31_000, 1000):
        flood: list[bytes | None] = [
            confluent_prefix(schema_id) + b"?" for schema_id in range(start, start + 1000)
        ]
        decoded = reader.decode(records([*flood, message(good, point, x=1.5)]))
        assert {rejection.reason for rejection in decoded.rejections} == {Reason.UNKNOWN_SCHEMA}
        assert len(decoded.rejections) == 1000
        passed += len(decoded.rows)
    assert passed == 30
    assert server.calls.total() <= 1 + unknown_burst_max + 20 + 6  # a call a second, and this takes no 20 s


@pytest.mark.parametrize("fault", ["500", "hang", "garbage", "redirect"])
def test_a_new_schema_waits_for_the_registry_and_known_ones_do_not(
    server: RegistryServer, registry: Registry, fault: Fault
) -> None:
    first, second = server.publish("points-value", point), server.publish("points-value", wider)
    reader = decoder(server, registry)
    old = message(first, point, x=1.0)
    reader.decode(records([old]))
    server.fault = fault
    assert reader.decode(records([old])).matrix.tolist() == [[1.0]]
    mixed = records([old, message(second, wider, y="a", x=2.0)])
    with pytest.raises(UnavailableError):
        reader.decode(mixed)
    server.fault = None
    end_s = time.monotonic() + 15
    while True:  # a call that hangs goes on in the background, and the next one waits for it
        try:
            decoded = reader.decode(mixed)
            break
        except UnavailableError:
            assert time.monotonic() < end_s
            time.sleep(0.05)
    assert decoded.matrix.tolist() == [[1.0], [2.0]]


def test_contracts_are_registered_and_every_worker_gets_the_same_ids(
    server: RegistryServer, registry: Registry
) -> None:
    first, second = (
        output_prefixes(
            predictions="p", explanations="e", dead_letters="d", framing="confluent", registrar=registry
        )
        for _ in range(2)
    )
    assert first == second
    schema_id = confluent_schema_id(first.dead_letters)
    assert schema_id is not None
    assert registry.schema(schema_id) == contract("dead_letter")
    assert set(server.compatibility.values()) == {"BACKWARD"}
    assert set(server.compatibility) == {"p-value", "e-value", "d-value"}
