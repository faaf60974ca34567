"""The schema registry client against a real HTTP server with faults."""

import base64
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from penstock.connectors.registry.client import (
    Registry,
    unknown_burst_max,
    unknown_first_s,
    unknown_kept_s,
    unsure_max,
    unsure_waits_s,
)
from penstock.connectors.registry.exchange import RegistryConfig, attempts_max, calls_max
from penstock.schemas.errors import AccessRefusedError, ConfigError, RecordError, UnavailableError
from penstock.schemas.reasons import Reason
from tests.registry_server import Fault, RegistryServer, registry_server

point = {"type": "record", "name": "Point", "namespace": "geo", "fields": [{"name": "x", "type": "double"}]}


class Clock:
    """A clock that moves when it is told to, or when someone sleeps."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic_s(self) -> float:
        return self.now_s

    def sleep(self, duration_s: float) -> None:
        self.now_s += duration_s


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    with registry_server() as running:
        yield running


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry(server: RegistryServer, clock: Clock) -> Iterator[Registry]:
    client = make(server, clock)
    yield client
    client.close()


def make(server: RegistryServer, clock: Clock, **changes: Any) -> Registry:
    config = RegistryConfig(**{"url": server.url, "timeout_s": 2.0, **changes})
    return Registry(config, monotonic_s=clock.monotonic_s, sleep=clock.sleep)


def test_a_schema_is_asked_for_once(server: RegistryServer, registry: Registry) -> None:
    schema_id = server.publish("points-value", point)
    assert registry.schema(schema_id) == point
    server.fault = "500"
    assert registry.schema(schema_id) == point
    assert server.calls.total() == 1


def test_an_unknown_id_is_the_records_fault_and_is_remembered_for_a_while(
    server: RegistryServer, registry: Registry, clock: Clock
) -> None:
    asked = 0
    for kept_s in (unknown_first_s, unknown_kept_s):
        for _ in range(3):
            with pytest.raises(RecordError) as caught:
                registry.schema(7)
            assert caught.value.reason is Reason.UNKNOWN_SCHEMA
        assert server.calls.total() == asked + (1 if asked else 1 + len(unsure_waits_s))
        asked = server.calls.total()
        if kept_s == unknown_first_s:
            clock.now_s += kept_s + 1
    for other in range(6):
        server.publish(f"other-{other}", {"type": "record", "name": f"R{other}", "fields": []})
    assert server.publish("points-value", point) == 7
    clock.now_s += unknown_kept_s + 1
    assert registry.schema(7) == point


def test_a_flood_of_unknown_ids_costs_the_registry_about_a_call_a_second(
    server: RegistryServer, registry: Registry, clock: Clock
) -> None:
    for schema_id in range(1000, 101_000):
        clock.now_s += 1e-4  # 100,000 ids in ten seconds
        with pytest.raises(RecordError) as caught:
            registry.schema(schema_id)
        assert caught.value.reason is Reason.UNKNOWN_SCHEMA
    assert server.calls.total() <= unknown_burst_max + 10 + 1 + unsure_max * len(unsure_waits_s)


def test_a_schema_that_a_node_has_not_heard_of_yet_is_waited_for(
    server: RegistryServer, registry: Registry
) -> None:
    for number in range(unsure_max + 2):  # they turn out to be known, so patience is never used up
        schema_id = server.publish("points-value", point | {"name": f"P{number}"})
        server.late[schema_id] = len(unsure_waits_s)
        assert registry.schema(schema_id)["name"] == f"P{number}"


def test_good_records_are_lost_to_a_late_node_for_seconds_at_most(
    server: RegistryServer, registry: Registry, clock: Clock
) -> None:
    schema_id = server.publish("points-value", point)
    server.late[schema_id] = len(unsure_waits_s) + 1
    with pytest.raises(RecordError):
        registry.schema(schema_id)
    clock.now_s += unknown_first_s
    assert registry.schema(schema_id) == point


def test_a_reference_to_a_deleted_version_is_read_and_one_that_is_gone_is_the_records_fault(
    server: RegistryServer, registry: Registry
) -> None:
    server.publish("point", point)
    server.deleted.add(("point", 1))
    trip = {"type": "record", "name": "Trip", "fields": [{"name": "start", "type": "geo.Point"}]}
    known = server.publish("trip", trip, references=[{"name": "geo.Point", "subject": "point", "version": 1}])
    assert registry.schema(known)["fields"][0]["type"]["name"] == "Point"
    for subject, version in (("point", 2), ("never", 1)):
        named = [{"name": "geo.Point", "subject": subject, "version": version}]
        gone = server.publish("trip", trip | {"name": f"T{subject}"}, references=named)
        for _ in range(2):
            with pytest.raises(RecordError, match=f"refers to version {version} of {subject}") as caught:
                registry.schema(gone)
            assert caught.value.reason is Reason.UNKNOWN_SCHEMA


def test_known_ids_are_fetched_however_many_they_are(server: RegistryServer, registry: Registry) -> None:
    ids = [
        server.publish("points-value", {"type": "record", "name": f"R{i}", "fields": []}) for i in range(50)
    ]
    assert [registry.schema(schema_id)["name"] for schema_id in ids] == [f"R{i}" for i in range(50)]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("500", "answered 500"),
        ("429", "answered 429"),
        ("401", "answered 401"),
        ("404", "answered 404"),
        ("garbage", "not JSON"),
        ("redirect", "not followed"),
        ("huge", "longer than"),
        ("empty", "has no schema"),
        ("hang_up", "cannot be asked"),
    ],
)
def test_no_believable_answer_is_not_the_records_fault_and_heals(
    server: RegistryServer, registry: Registry, fault: Fault, said: str
) -> None:
    schema_id = server.publish("points-value", point)
    server.fault = fault
    with pytest.raises(UnavailableError, match=said):
        registry.schema(schema_id)
    server.fault = None
    assert registry.schema(schema_id) == point


@pytest.mark.parametrize(("fault", "refused"), [("401", True), ("404", True), ("500", False), ("429", False)])
def test_what_will_not_pass_by_itself_is_told_from_what_may(
    server: RegistryServer, registry: Registry, fault: Fault, refused: bool
) -> None:
    """A 404 that is not in a registry's own words is another server's."""
    schema_id = server.publish("points-value", point)
    server.fault = fault
    with pytest.raises(UnavailableError) as caught:
        registry.schema(schema_id)
    assert isinstance(caught.value, AccessRefusedError) == refused


def test_an_id_whose_question_hangs_holds_nobody_up_again(server: RegistryServer, clock: Clock) -> None:
    """The question goes on by itself, and its answer is there when somebody asks again."""
    registry = make(server, clock, timeout_s=20.0)
    known, slow = (
        server.publish("points-value", point),
        server.publish("others-value", point | {"name": "Other"}),
    )
    registry.schema(known)
    server.fault = "hang"
    with pytest.raises(UnavailableError, match="has not answered yet"):
        registry.schema(slow)
    took_s = []
    for _ in range(50):
        began_s = time.monotonic()
        with pytest.raises(UnavailableError, match="has not answered yet"):
            registry.schema(slow)
        assert registry.schema(known) == point
        took_s.append(time.monotonic() - began_s)
    assert sorted(took_s)[25] < 0.1  # any one of them may wait for a busy machine
    server.fault = None
    server.released.set()
    registry.close()


@pytest.mark.parametrize("fault", ["hang", "trickle"])
def test_a_registry_that_hangs_is_given_up_in_time(
    server: RegistryServer, clock: Clock, fault: Fault
) -> None:
    registry = make(server, clock, timeout_s=0.2)
    schema_id = server.publish("points-value", point)
    server.fault = fault
    for _ in range(calls_max + 2):  # more than may be under way at once
        began_s = time.monotonic()
        with pytest.raises(UnavailableError):
            registry.schema(schema_id)
        assert time.monotonic() - began_s < 1.0
    registry.close()


def test_a_registry_that_is_not_there_is_unavailable(clock: Clock) -> None:
    with registry_server() as gone:
        pass
    registry = make(gone, clock)
    with pytest.raises(UnavailableError):
        registry.schema(1)
    registry.close()


@pytest.mark.parametrize("entry", [{"kind": "PROTOBUF"}, {"text": "{not json"}])
def test_what_is_no_avro_schema_is_incompatible(
    server: RegistryServer, registry: Registry, entry: dict[str, str]
) -> None:
    schema_id = server.publish("points-value", point, **entry)
    with pytest.raises(RecordError) as caught:
        registry.schema(schema_id)
    assert caught.value.reason is Reason.INCOMPATIBLE_SCHEMA


def test_references_are_put_where_they_are_first_used(server: RegistryServer, registry: Registry) -> None:
    server.publish("unit", {"type": "enum", "name": "Unit", "namespace": "geo", "symbols": ["m", "ft"]})
    far = {"type": "record", "name": "Far", "namespace": "geo", "fields": [
        {"name": "at", "type": "Point"}, {"name": "unit", "type": ["null", "Unit"]}]}  # fmt: skip
    server.publish("point", point)
    server.publish("far", far, references=[
        {"name": "geo.Point", "subject": "point", "version": 1}, {"name": "geo.Unit", "subject": "unit", "version": 1}])  # fmt: skip
    trip = {"type": "record", "name": "Trip", "fields": [
        {"name": "start", "type": "geo.Point"}, {"name": "ends", "type": {"type": "array", "items": "geo.Far"}}]}  # fmt: skip
    schema_id = server.publish("trip", trip, references=[
        {"name": "geo.Point", "subject": "point", "version": 1}, {"name": "geo.Far", "subject": "far", "version": 1}])  # fmt: skip

    whole = registry.schema(schema_id)

    assert whole["fields"][0]["type"]["name"] == "Point"
    inner = whole["fields"][1]["type"]["items"]
    assert inner["fields"][0]["type"] == "geo.Point"
    assert inner["fields"][1]["type"][1]["symbols"] == ["m", "ft"]


def test_a_name_that_stands_for_nothing_is_incompatible(server: RegistryServer, registry: Registry) -> None:
    schema_id = server.publish(
        "trip", {"type": "record", "name": "T", "fields": [{"name": "a", "type": "geo.Point"}]}
    )
    with pytest.raises(RecordError, match=r"geo\.Point, which is defined nowhere"):
        registry.schema(schema_id)


def test_references_in_a_circle_end(server: RegistryServer, registry: Registry) -> None:
    left = {"type": "record", "name": "Left", "fields": [{"name": "r", "type": ["null", "Right"]}]}
    right = {"type": "record", "name": "Right", "fields": [{"name": "l", "type": ["null", "Left"]}]}
    server.publish("right", right, references=[{"name": "Left", "subject": "left", "version": 1}])
    schema_id = server.publish("left", left, references=[{"name": "Right", "subject": "right", "version": 1}])
    whole = registry.schema(schema_id)
    assert whole["fields"][0]["type"][1]["fields"][0]["type"][1] == "Left"


def test_a_schema_nested_without_end_is_refused(server: RegistryServer, registry: Registry) -> None:
    schema: Any = "double"
    for _ in range(500):
        schema = {"type": "array", "items": schema}
    schema_id = server.publish("deep", schema)
    with pytest.raises(RecordError) as caught:
        registry.schema(schema_id)
    assert caught.value.reason is Reason.INCOMPATIBLE_SCHEMA


def test_a_contract_is_registered_once_with_backward_compatibility(
    server: RegistryServer, registry: Registry
) -> None:
    first = registry.ensure("scores/eu-value", point)
    assert server.compatibility == {"scores/eu-value": "BACKWARD"}
    server.compatibility["scores/eu-value"] = "FULL"
    assert registry.ensure("scores/eu-value", point) == first
    wider = {**point, "fields": [*point["fields"], {"name": "y", "type": "double", "default": 0.0}]}
    assert registry.ensure("scores/eu-value", wider) != first
    assert server.compatibility == {"scores/eu-value": "FULL"}  # what a person set is left alone
    latest = registry.latest("scores/eu-value")
    assert latest is not None
    assert (latest.version, latest.schema) == (2, wider)


def test_a_registered_contract_needs_no_right_to_write(server: RegistryServer, registry: Registry) -> None:
    schema_id = server.publish("scores-value", None, text=json.dumps(point, separators=(",", ":")))
    assert registry.ensure("scores-value", point) == schema_id
    assert list(server.calls) == ["POST /subjects/scores-value"]


def test_an_incompatible_contract_stops_the_start(server: RegistryServer, registry: Registry) -> None:
    server.refuses_changes = True
    with pytest.raises(ConfigError, match="scores-value"):
        registry.ensure("scores-value", point)


def test_what_a_start_would_be_told_can_be_asked_without_changing_anything(
    server: RegistryServer, registry: Registry
) -> None:
    assert not registry.has("scores-value", point)
    wider = {**point, "fields": [*point["fields"], {"name": "y", "type": "double", "default": 0.0}]}
    server.publish("scores-value", None, text=json.dumps(point, separators=(",", ":")))
    assert registry.has("scores-value", point)
    assert not registry.has("scores-value", wider)
    server.refuses_changes = True
    with pytest.raises(ConfigError, match="not compatible with what is registered under scores-value"):
        registry.has("scores-value", wider)
    server.fault = "403"
    with pytest.raises(ConfigError, match="does not let this user"):
        registry.has("scores-value", wider)
    assert not [call for call in server.calls if call.startswith("PUT") or call.endswith("/versions")]
    assert server.compatibility == {}


def test_a_user_who_may_not_stops_the_start(server: RegistryServer, registry: Registry) -> None:
    server.fault = "401"
    with pytest.raises(ConfigError, match="does not let this user"):
        registry.ensure("scores-value", point)


def test_start_repeats_and_then_gives_up(server: RegistryServer, registry: Registry, clock: Clock) -> None:
    server.fault, server.faults_left = "500", attempts_max - 1
    assert registry.ensure("scores-value", point) == 1
    server.fault, server.faults_left = "hang_up", None
    before = server.calls.total()
    with pytest.raises(UnavailableError):
        registry.latest("scores-value")
    assert server.calls.total() - before == attempts_max
    assert clock.now_s > 1.0  # with pauses between


def test_a_subject_without_versions_has_no_latest(registry: Registry) -> None:
    assert registry.latest("nothing-value") is None


def test_basic_auth_is_sent_and_never_shown(server: RegistryServer, clock: Clock) -> None:
    config = RegistryConfig(url=server.url, username="ada", password="s3cret-canary")
    registry = Registry(config, monotonic_s=clock.monotonic_s, sleep=clock.sleep)
    registry.latest("nothing-value")
    assert server.headers[0]["Authorization"] == "Basic " + base64.b64encode(b"ada:s3cret-canary").decode()
    assert "s3cret-canary" not in repr(config)
    registry.close()


def test_an_address_that_is_none_stops_the_start(clock: Clock) -> None:
    with pytest.raises(ConfigError, match=r"registry\.url"):
        Registry(RegistryConfig(url="http://[::1"), monotonic_s=clock.monotonic_s, sleep=clock.sleep)
    for url in ("http://ada:CANARY@[::bad", "http://ada:CANARY@host"):
        with pytest.raises(ConfigError) as caught:
            Registry(RegistryConfig(url=url), monotonic_s=clock.monotonic_s, sleep=clock.sleep)
        assert "CANARY" not in str(caught.value)
