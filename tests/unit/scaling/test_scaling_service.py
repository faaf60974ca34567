"""KEDA's wire contract, in the order in which KEDA calls, over real gRPC."""

import contextlib
import importlib.util
import json
import logging
import math
import queue
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import jsonschema
import orjson
import pytest
from google.protobuf import descriptor_pb2
from prometheus_client import CollectorRegistry

from penstock.engine.clock import SystemClock
from penstock.engine.pages.scaler import scaler_document, scaler_pages
from penstock.engine.pages.sentences import static_folder
from penstock.engine.scaling.collector import Collector
from penstock.engine.scaling.keda_service import (
    KedaService,
    Published,
    metric_name,
    streams_max,
)
from penstock.engine.scaling.loop import ScalerLoop, idle_look_every_s, sample_every_s, stale_after_s
from penstock.engine.scaling.planner import Bounds, Need
from penstock.engine.scaling.reports import ReportBook
from penstock.engine.scaling.steadier import Plan
from penstock.engine.scaling.tls import require_tls_files
from penstock.engine.settings.tls_files import TlsFiles
from penstock.engine.telemetry.http_server import HttpServer
from penstock.engine.telemetry.scaler_metrics import ScalerMetrics
from penstock.schemas.errors import ConfigError, UnavailableError
from penstock.schemas.externalscaler import (
    GetMetricSpecResponse,
    GetMetricsRequest,
    GetMetricsResponse,
    IsActiveResponse,
    ScaledObjectRef,
    file_descriptor,
)

root = Path(__file__).parents[3]
keda_deadline_s = 3.0


class HandClock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_ms(self) -> int:
        return int(self.now_s * 1000)

    def sleep(self, duration_s: float) -> None:
        self.now_s += duration_s


class Keda:
    """The four calls, as KEDA's client makes them."""

    def __init__(self, channel: grpc.Channel) -> None:
        def unary(name: str, answer: Any) -> Callable[..., Any]:
            call = channel.unary_unary(
                f"/externalscaler.ExternalScaler/{name}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=answer.FromString,
            )
            return lambda request: call(request, timeout=keda_deadline_s)

        self.is_active = unary("IsActive", IsActiveResponse)
        self.metric_spec = unary("GetMetricSpec", GetMetricSpecResponse)
        self.metrics = unary("GetMetrics", GetMetricsResponse)
        self.stream_is_active = channel.unary_stream(
            "/externalscaler.ExternalScaler/StreamIsActive",
            request_serializer=ScaledObjectRef.SerializeToString,
            response_deserializer=IsActiveResponse.FromString,
        )


ref = ScaledObjectRef(name="penstock", namespace="ns", scalerMetadata={"scalerAddress": "x:1", "group": "g"})


def plan_of(replicas: int) -> Plan:
    need = Need(
        replicas=replicas, load=replicas, enough=replicas, active=replicas > 0, rate_term=0.5, packing_term=0, drain_term=0.0,
        drain_s=30.0, bound="rate",
    )  # fmt: skip
    return Plan(replicas=replicas, published=replicas, active=replicas > 0, bound="rate", why="", need=need)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def published(clock: HandClock) -> Published:
    return Published(clock=clock, age_max_s=15)


@pytest.fixture
def service(published: Published) -> Iterator[KedaService]:
    service = KedaService(published, group="g", host="127.0.0.1", port=0)
    service.start()
    yield service
    service.close()


@pytest.fixture
def keda(service: KedaService) -> Iterator[Keda]:
    with grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        yield Keda(channel)


def poll(keda: Keda) -> tuple[float, bool]:
    """One round of KEDA's polling loop: the specs, then for each the value and the activity; old and new fields agree."""
    (spec,) = keda.metric_spec(ref).metricSpecs
    assert (spec.targetSize, spec.targetSizeFloat) == (1, 1.0)
    (value,) = keda.metrics(GetMetricsRequest(scaledObjectRef=ref, metricName=spec.metricName)).metricValues
    assert value.metricName == spec.metricName
    assert value.metricValue == math.ceil(value.metricValueFloat)
    taken = value.metricValueFloat if value.metricValueFloat > 0 else float(value.metricValue)
    return taken, keda.is_active(ref).result


def code_of(call: Callable[[], Any]) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code()


def test_a_polling_round_reads_the_replicas(keda: Keda, published: Published) -> None:
    published.publish(plan_of(7))
    assert poll(keda) == (7.0, True)
    published.publish(plan_of(9))
    assert poll(keda) == (9.0, True)


def test_zero_is_zero_in_both_fields(keda: Keda, published: Published) -> None:
    published.publish(plan_of(0))
    assert poll(keda) == (0.0, False)


def test_the_metric_name_fits_into_a_url_path() -> None:
    assert set(metric_name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_an_unknown_metric_is_not_found(keda: Keda, published: Published) -> None:
    published.publish(plan_of(7))
    request = GetMetricsRequest(scaledObjectRef=ref, metricName="s0-other")
    assert code_of(lambda: keda.metrics(request)) is grpc.StatusCode.NOT_FOUND


def test_a_scaled_object_of_another_group_is_refused(keda: Keda, published: Published) -> None:
    published.publish(plan_of(7))
    astray = ScaledObjectRef(name="x", namespace="ns", scalerMetadata={"group": "other"})
    assert code_of(lambda: keda.is_active(astray)) is grpc.StatusCode.INVALID_ARGUMENT
    assert code_of(lambda: list(keda.stream_is_active(astray))) is grpc.StatusCode.INVALID_ARGUMENT


def test_before_the_first_plan_and_after_it_is_stale_the_values_are_unavailable_but_the_spec_is_there(
    keda: Keda, published: Published, clock: HandClock
) -> None:
    request = GetMetricsRequest(scaledObjectRef=ref, metricName=metric_name)

    def is_held() -> bool:
        assert len(keda.metric_spec(ref).metricSpecs) == 1
        codes = {code_of(lambda: keda.metrics(request)), code_of(lambda: keda.is_active(ref))}
        return codes == {grpc.StatusCode.UNAVAILABLE}

    assert is_held()
    published.publish(plan_of(7))
    clock.sleep(15)
    assert poll(keda) == (7.0, True)
    clock.sleep(0.1)
    assert is_held()
    published.publish(plan_of(6))
    assert poll(keda) == (6.0, True)


def test_a_stream_says_it_at_once_then_at_every_change_and_ends_with_ok(
    service: KedaService, keda: Keda, published: Published
) -> None:
    published.publish(plan_of(0))
    stream = keda.stream_is_active(ref)
    assert next(stream).result is False
    published.publish(plan_of(0))
    published.publish(plan_of(1))
    assert next(stream).result is True
    published.publish(plan_of(5))
    published.publish(plan_of(0))
    assert next(stream).result is False
    service.close()
    assert list(stream) == []
    assert stream.code() is grpc.StatusCode.OK


def test_a_plan_that_changes_nothing_about_activity_wakes_nobody(published: Published) -> None:
    wanted, heard = _set(), queue.SimpleQueue[bool]()

    def listen() -> None:
        for active in published.activity(wanted):
            heard.put(active)

    listener = threading.Thread(target=listen)
    listener.start()
    published.publish(plan_of(1))
    assert heard.get(timeout=5) is True
    for replicas in range(2, 200):
        published.publish(plan_of(replicas))
    published.publish(plan_of(0))
    assert heard.get(timeout=5) is False
    published.close()
    listener.join(5)
    assert heard.empty()


def test_a_stream_opened_before_the_first_plan_waits_for_it(keda: Keda, published: Published) -> None:
    stream = keda.stream_is_active(ref)
    published.publish(plan_of(1))
    assert next(stream).result is True


def test_streams_are_bounded_and_never_starve_the_calls(keda: Keda, published: Published) -> None:
    published.publish(plan_of(3))
    streams = [keda.stream_is_active(ref) for _ in range(streams_max)]
    for stream in streams:
        assert next(stream).result is True
    assert poll(keda) == (3.0, True)
    assert code_of(lambda: list(keda.stream_is_active(ref))) is grpc.StatusCode.RESOURCE_EXHAUSTED
    ended = threading.Event()
    streams[0].add_callback(ended.set)
    streams[0].cancel()
    assert ended.wait(5)
    deadline = threading.Event()
    for _ in range(100):  # the server learns of a cancelled stream a little later than the client
        again = keda.stream_is_active(ref)
        try:
            assert next(again).result is True
            break
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # noqa: PT017
            deadline.wait(0.05)
    else:
        pytest.fail("the place of a cancelled stream is never free again")


def test_a_port_that_is_taken_is_a_clear_error(service: KedaService, clock: HandClock) -> None:
    published = Published(clock=clock, age_max_s=15)
    with pytest.raises(ConfigError, match=f"127.0.0.1:{service.port}"):
        KedaService(published, group="g", host="127.0.0.1", port=service.port)


def make_certificate(folder: Path) -> TlsFiles:
    files = TlsFiles(certificate=folder / "tls.crt", key=folder / "tls.key", client_ca=folder / "tls.crt")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", str(files.key), "-out", str(files.certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    return files


def test_with_certificates_only_clients_that_show_one_are_answered(
    published: Published, tmp_path: Path
) -> None:
    files = make_certificate(tmp_path)
    published.publish(plan_of(2))
    service = KedaService(published, group="g", host="127.0.0.1", port=0, tls=files)
    service.start()
    try:
        authority, key = files.certificate.read_bytes(), files.key.read_bytes()
        both = grpc.ssl_channel_credentials(authority, key, authority)
        with grpc.secure_channel(f"localhost:{service.port}", both) as channel:
            assert poll(Keda(channel)) == (2.0, True)
        with grpc.secure_channel(
            f"localhost:{service.port}", grpc.ssl_channel_credentials(authority)
        ) as channel:
            assert code_of(lambda: Keda(channel).is_active(ref)) is grpc.StatusCode.UNAVAILABLE
    finally:
        service.close()


def test_a_certificate_that_was_exchanged_is_shown_to_who_connects_next(
    published: Published, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "new").mkdir()
    files, new = make_certificate(tmp_path), make_certificate(tmp_path / "new")
    served = TlsFiles(certificate=files.certificate, key=files.key)
    published.publish(plan_of(2))
    service = KedaService(published, group="g", host="127.0.0.1", port=0, tls=served)
    service.start()

    def trusting(authority: bytes) -> bool:
        with grpc.secure_channel(
            f"localhost:{service.port}", grpc.ssl_channel_credentials(authority),
            options=(("grpc.use_local_subchannel_pool", 1),),
        ) as channel:  # fmt: skip
            try:
                return poll(Keda(channel)) == (2.0, True)
            except grpc.RpcError:
                return False

    try:
        old_authority, new_authority = files.certificate.read_bytes(), new.certificate.read_bytes()
        assert trusting(old_authority)
        files.key.write_text("-----BEGIN PRIVATE KEY-----\nhalf")
        assert trusting(old_authority), "what cannot be used is not taken"
        assert "the certificate before stays" in caplog.text
        files.key.write_bytes(new.key.read_bytes())
        files.certificate.write_bytes(new_authority)
        assert trusting(new_authority)
        assert not trusting(old_authority)
    finally:
        service.close()


def test_the_health_service_tells_whether_the_number_can_be_trusted(
    service: KedaService, published: Published, clock: HandClock
) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert check(b"", timeout=keda_deadline_s) == b"\x08\x02"
        published.publish(plan_of(1))
        assert check(b"", timeout=keda_deadline_s) == b"\x08\x01"
        name = b"externalscaler.ExternalScaler"
        assert check(b"\x0a" + bytes([len(name)]) + name, timeout=keda_deadline_s) == b"\x08\x01"
        clock.sleep(16)
        assert check(b"", timeout=keda_deadline_s) == b"\x08\x02"
        assert code_of(lambda: check(b"\x0a\x01x", timeout=keda_deadline_s)) is grpc.StatusCode.NOT_FOUND
        assert code_of(lambda: check(b"\xff", timeout=keda_deadline_s)) is grpc.StatusCode.INVALID_ARGUMENT


def test_the_spec_is_streamed_once_and_the_stream_ends_with_ok(service: KedaService) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        stream = channel.unary_stream(
            "/externalscaler.ExternalScaler/StreamMetricSpec",
            request_serializer=ScaledObjectRef.SerializeToString,
            response_deserializer=GetMetricSpecResponse.FromString,
        )(ref)
        assert next(stream).metricSpecs[0].metricName == metric_name
        service.close()
        assert list(stream) == []
        assert stream.code() is grpc.StatusCode.OK


def test_answers_come_within_50_ms(service: KedaService, published: Published) -> None:
    published.publish(plan_of(7))
    request = GetMetricsRequest(scaledObjectRef=ref, metricName=metric_name)
    with grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        keda = Keda(channel)
        keda.metrics(request)
        took_s = []
        for _ in range(50):
            begin_s = time.monotonic()
            keda.metrics(request)
            took_s.append(time.monotonic() - begin_s)
    assert sorted(took_s)[len(took_s) // 2] < 0.05


def test_certificates_that_are_not_there_are_a_clear_error(published: Published, tmp_path: Path) -> None:
    files = TlsFiles(certificate=tmp_path / "no.crt", key=tmp_path / "no.key")
    with pytest.raises(ConfigError, match="cannot read"):
        KedaService(published, group="g", host="127.0.0.1", port=0, tls=files)


class Broker:
    """Offsets as a test wants them."""

    def __init__(self) -> None:
        self.readings: list[Any] = []
        self.down = False
        self.why = "no broker"
        self.read_at_s: list[float] = []

    def read(self) -> list[Any]:
        self.read_at_s.append(time.monotonic())
        if self.down:
            raise UnavailableError(self.why)
        return self.readings

    def ends(self) -> dict[int, int]:
        if self.down:
            raise UnavailableError(self.why)
        return {reading.partition: reading.end for reading in self.readings}


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def loop(broker: Broker, published: Published, clock: HandClock) -> ScalerLoop:
    collector = Collector(
        read_offsets=broker.read,
        read_ends=broker.ends,
        read_reports=list,
        book=ReportBook(group="g"),
        start="earliest",
        workers_per_replica=1,
        clock=clock,
    )
    return ScalerLoop(
        collector=collector,
        bounds=Bounds(max_age_s=30, min_replicas=0, max_replicas=10),
        published=published,
        metrics=ScalerMetrics(CollectorRegistry()),
        topic="t",
        clock=clock,
    )


class Reading:
    """One partition with ten records that nobody has read."""

    partition, earliest, end = 0, 0, 10
    committed: int | None = None
    oldest_unfinished_timestamp_ms: int | None = 999_000
    owner: str | None = None
    high, fault, topic_id, committed_topic_id, stamped_by_broker = 10, "", None, None, True


def exposition(loop: ScalerLoop) -> dict[str, float]:
    lines = loop.routes()["/metrics"]().body.decode().splitlines()
    return {
        line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if not line.startswith("#")
    }


def test_the_loop_publishes_shows_every_term_and_holds_when_the_broker_is_gone(
    loop: ScalerLoop, broker: Broker, keda: Keda, clock: HandClock
) -> None:
    assert loop.routes()["/ready"]().status == 503
    broker.readings = [Reading]
    loop.turn()
    assert poll(keda) == (1.0, True)
    shown = exposition(loop)
    assert shown["penstock_required_replicas"] == 1
    assert shown["penstock_scaling_backlog_records"] == 10
    assert shown["penstock_scaling_oldest_age_seconds"] == 1
    assert shown['penstock_scaling_bound{bound="capacity_unknown"}'] == 1
    assert shown['penstock_scaling_bound{bound="rate"}'] == 0
    assert shown['penstock_group_lag_records{partition="0",topic="t"}'] == 10
    assert loop.routes()["/ready"]().status == 200
    assert loop.status()["plan"]["replicas"] == 1

    broker.down = True
    clock.sleep(stale_after_s + 1)
    loop.turn()
    assert code_of(lambda: poll(keda)) is grpc.StatusCode.UNAVAILABLE
    shown = exposition(loop)
    assert shown["penstock_required_replicas"] == 1, "the last good value"
    assert shown["penstock_scaling_stale"] == 1
    assert shown["penstock_scaling_reading_failures_total"] == 1
    assert loop.routes()["/ready"]().status == 503
    assert loop.status()["trusted"] is False

    broker.down = False
    loop.turn()
    assert poll(keda) == (1.0, True)


def test_the_first_exposition_has_no_nan_and_no_infinity(loop: ScalerLoop) -> None:
    assert all(math.isfinite(value) for value in exposition(loop).values())


def test_the_loop_runs_until_stopped(loop: ScalerLoop, broker: Broker, published: Published) -> None:
    broker.readings = [Reading]
    stop = threading.Event()
    runner = threading.Thread(target=loop.run, args=(stop,))
    runner.start()
    assert next(published.activity(_set())) is True
    stop.set()
    runner.join(5)
    assert not runner.is_alive()


class _Done(Reading):
    """All of it is finished."""

    committed, oldest_unfinished_timestamp_ms = 10, None


class _OneMore(Reading):
    """One more came behind it."""

    committed, end, high = 10, 11, 11


@pytest.mark.parametrize("comes", ["a record", "nothing", "an outage"])
def test_while_nothing_is_to_do_the_first_record_brings_the_next_turn_at_once(
    loop: ScalerLoop, broker: Broker, published: Published, clock: HandClock, comes: str
) -> None:
    """The clock stands, so that no turn is due by itself."""
    broker.readings = [_Done]
    loop.turn()
    assert published.current().active is False
    stop, told = threading.Event(), published.activity(_set())
    assert next(told) is False
    runner = threading.Thread(target=loop.run, args=(stop,))
    runner.start()
    try:
        while len(broker.read_at_s) < 2:  # the runner's own first turn
            time.sleep(0.01)
        if comes == "nothing":
            time.sleep(5 * idle_look_every_s)
            assert len(broker.read_at_s) == 2
            clock.sleep(sample_every_s)  # a turn is due
        elif comes == "a record":
            broker.readings = [_OneMore]
            assert next(told) is True
        else:
            broker.down = True
        end_s = time.monotonic() + 50 * idle_look_every_s
        while len(broker.read_at_s) < 3:
            assert time.monotonic() < end_s
            time.sleep(0.01)
    finally:
        stop.set()
        runner.join(5)
    assert (loop.status()["fault"] == broker.why) == (comes == "an outage")


def _set() -> threading.Event:
    wanted = threading.Event()
    wanted.set()
    return wanted


def test_the_page_says_each_decision_with_its_numbers(loop: ScalerLoop, broker: Broker) -> None:
    schema = json.loads((static_folder.parent / "schema.json").read_text())
    form = {"$schema": schema["$schema"], "$defs": schema["$defs"], "$ref": "#/$defs/scaling"}
    check = jsonschema.Draft202012Validator(form).validate
    before = scaler_document(loop.status(), loop.turns(), 5)
    check(json.loads(orjson.dumps(before)))
    assert before["summary"][0]["code"] == "scaling.none_yet"
    broker.readings = [Reading]
    loop.turn()
    found = scaler_document(loop.status(), loop.turns(), 5)
    check(json.loads(orjson.dumps(found)))
    assert (found["wanted"], found["asked"], found["running"]) == (1, 1, 0)
    assert found["summary"][1]["code"] == "scaling.unknown_capacity"
    (decision,) = found["decisions"]
    assert (decision["from"], decision["to"]) == (0, 1)
    assert "10 wait" in decision["text"]["text"]
    assert [found["series"][name] for name in ("running", "wanted")] == [[0], [1]]
    assert found["series"]["forecast_records_per_s"] == [None]  # the first one is for later
    with (
        scaler_pages(loop, hosts=(), clock=SystemClock()) as reader,
        HttpServer(loop.routes(), host="127.0.0.1", port=0, reader=reader) as server,
    ):
        for path in ("/", "/scaling", "/api/v1/scaling", "/status"):
            with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=5) as answer:
                assert answer.status == 200
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f"http://127.0.0.1:{server.port}/api/v1/records/t/0/1", timeout=5)


def test_the_reasons_are_served_over_http(loop: ScalerLoop, broker: Broker) -> None:
    broker.readings = [Reading]
    loop.turn()
    with (
        HttpServer(loop.routes(), host="127.0.0.1", port=0) as server,
        urllib.request.urlopen(f"http://127.0.0.1:{server.port}/status", timeout=5) as answer,
    ):
        status = json.load(answer)
    assert status["demand"]["backlog_records"] == 10
    assert status["plan"]["bound"] == "capacity_unknown"
    assert status["required_replicas"] == 1
    (decision,) = status["decisions"]
    assert (decision["from"], decision["to"], decision["bound"]) == (0, 1, "capacity_unknown")
    assert status["partitions"][0]["movement"] == "unowned"


def test_the_messages_are_those_of_the_proto(tmp_path: Path) -> None:
    if importlib.util.find_spec("grpc_tools") is None:
        pytest.skip("grpcio-tools is not installed")
    out = tmp_path / "set"
    subprocess.run(
        [sys.executable, "-P", "-W", "ignore", "-m", "grpc_tools.protoc", "-I.", f"--descriptor_set_out={out}", "externalscaler.proto"],
        check=True, cwd=root / "schemas", capture_output=True,
    )  # fmt: skip
    (expected,) = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
    del expected.service[:]
    assert file_descriptor() == expected


def test_the_number_is_there_as_json_for_the_metrics_api_trigger_and_is_no_number_when_stale(
    loop: ScalerLoop, broker: Broker, clock: HandClock
) -> None:
    answer = loop.routes()["/replicas"]
    assert answer().status == 503
    broker.readings = [Reading]
    loop.turn()
    assert json.loads(answer().body) == {"required_replicas": 1, "active": True}
    clock.sleep(stale_after_s + 1)
    assert answer().status == 503


def test_each_new_reason_is_logged_once_and_shown_while_the_number_is_held(
    loop: ScalerLoop, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="penstock.scaler")
    broker.readings = [Reading]
    loop.turn()
    caplog.clear()
    broker.down = True
    for why in (
        "no answer in 4 s",
        "no answer in 5 s",
        "password refused",
        "password refused",
        "no answer in 4 s",
    ):
        broker.why = why
        loop.turn()
    assert [record.message.rsplit(": ", 1)[1] for record in caplog.records] == [
        "no answer in 4 s", "password refused", "no answer in 4 s",
    ]  # fmt: skip
    assert exposition(loop)['penstock_scaling_fault{reason="broker"}'] == 1
    broker.down = False
    loop.turn()
    assert "can be read again" in caplog.messages[-1]
    assert exposition(loop)['penstock_scaling_fault{reason="broker"}'] == 0


def test_a_topic_without_partitions_holds_the_number(
    loop: ScalerLoop, broker: Broker, keda: Keda, clock: HandClock
) -> None:
    broker.readings = [Reading]
    loop.turn()
    broker.readings = []
    loop.turn()
    assert poll(keda) == (1.0, True)
    clock.sleep(stale_after_s + 1)
    loop.turn()
    assert code_of(lambda: poll(keda)) is grpc.StatusCode.UNAVAILABLE
    shown = exposition(loop)
    assert shown['penstock_scaling_fault{reason="no_partitions"}'] == 1
    assert shown["penstock_required_replicas"] == 1
    assert "has no partitions" in loop.status()["fault"]


def test_what_is_no_number_holds_the_number(
    loop: ScalerLoop, broker: Broker, keda: Keda, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.readings = [Reading]
    loop.turn()
    monkeypatch.setattr(ReportBook, "startup_s", lambda *_, **__: math.nan)
    loop.turn()
    assert poll(keda) == (1.0, True)
    assert exposition(loop)['penstock_scaling_fault{reason="not_a_number"}'] == 1


def test_a_blind_scaler_is_dead_only_while_the_cluster_answers_others(
    broker: Broker, published: Published, clock: HandClock
) -> None:
    heard_s = [0.0]
    collector = Collector(
        read_offsets=broker.read, read_reports=list, book=ReportBook(group="g"), start="earliest", workers_per_replica=1,
        clock=clock,
    )  # fmt: skip
    loop = ScalerLoop(
        collector=collector, bounds=Bounds(max_age_s=30, min_replicas=0, max_replicas=10), published=published,
        metrics=ScalerMetrics(CollectorRegistry()), topic="t", clock=clock, cluster_age_s=lambda: heard_s[0],
    )  # fmt: skip

    def turns(seconds: int) -> int:
        for _ in range(seconds // 2):
            loop.turn()
            clock.sleep(2)
        return int(loop.routes()["/live"]().status)

    broker.readings = [Reading]
    loop.turn()
    broker.down, heard_s[0] = True, 1000.0
    assert turns(600) == 200, "the cluster is away: a restart would not help"
    heard_s[0] = 0.0
    assert turns(50) == 200
    assert turns(20) == 503
    broker.down = False
    assert turns(2) == 200


def test_partitions_that_are_too_fast_or_stand_still_are_named(
    loop: ScalerLoop, broker: Broker, clock: HandClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Part(Reading):
        def __init__(self, partition: int, end: int, committed: int) -> None:
            self.partition, self.end, self.high, self.committed = partition, end, end, committed
            self.owner = "w-0"

    for second in range(0, 300, 2):
        broker.readings = [Part(4, 1000, 10), Part(7, 2000 + 10 * second, 10 * second)]
        loop.turn()
        clock.sleep(2)
    (line,) = [line for line in caplog.messages if "left out" in line]
    assert line.startswith("partition 4 is left out of the number: no record was finished for")
    assert exposition(loop)["penstock_scaling_left_out_partitions"] == 1
    assert loop.status()["demand"]["left_out"].keys() == {"0"}


class StallingProxy:
    """Passes bytes between a client and the service until it is told to stand still; the connections stay open."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._still = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def stall(self) -> None:
        self._still.set()

    def close(self) -> None:
        for each in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._port))
                self._open += [client, server]
                for source, target in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=(source, target), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if not self._still.is_set():
                    target.sendall(data)


def test_peers_that_are_dead_give_their_streams_back(published: Published) -> None:
    published.publish(plan_of(1))
    service = KedaService(published, group="g", host="127.0.0.1", port=0, keepalive_s=1.0)
    service.start()
    proxy = StallingProxy(service.port)
    try:
        with (
            grpc.insecure_channel(f"127.0.0.1:{proxy.port}") as dead,
            grpc.insecure_channel(f"127.0.0.1:{service.port}") as alive,
        ):
            held = [Keda(dead).stream_is_active(ref) for _ in range(streams_max)]
            for stream in held:
                assert next(iter(stream)).result is True
            keda = Keda(alive)
            assert (
                code_of(lambda: next(iter(keda.stream_is_active(ref)))) is grpc.StatusCode.RESOURCE_EXHAUSTED
            )
            proxy.stall()
            deadline_s = time.monotonic() + 20

            def freed() -> bool:
                stream = keda.stream_is_active(ref)
                try:
                    return bool(next(iter(stream)).result)
                except grpc.RpcError:
                    return False
                finally:
                    stream.cancel()

            while not freed():
                assert time.monotonic() < deadline_s, "the dead peers hold all streams"
                threading.Event().wait(0.2)
    finally:
        proxy.close()
        service.close()


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\xff", b"garbage", b"\x0a\x02\xff\xfe", bytes(1000)])
def test_garbage_is_refused_in_one_word_and_logs_nothing(
    service: KedaService, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        for name in ("IsActive", "GetMetricSpec", "GetMetrics"):
            call = channel.unary_unary(f"/externalscaler.ExternalScaler/{name}")
            assert code_of(partial(call, data, timeout=keda_deadline_s)) is grpc.StatusCode.INVALID_ARGUMENT
        stream = channel.unary_stream("/externalscaler.ExternalScaler/StreamIsActive")
        assert (
            code_of(lambda: list(stream(data, timeout=keda_deadline_s))) is grpc.StatusCode.INVALID_ARGUMENT
        )
    assert not caplog.records


def test_a_file_that_is_no_certificate_is_named_with_its_setting(tmp_path: Path) -> None:
    good = make_certificate(tmp_path)
    (tmp_path / "other").mkdir()
    other = make_certificate(tmp_path / "other")
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("-----BEGIN CERTIFICATE-----\nxxxx\n-----END CERTIFICATE-----\n")
    binary = tmp_path / "binary.der"
    binary.write_bytes(bytes(range(256)))
    assert good.client_ca is not None
    for files, sentence in (
        (TlsFiles(certificate=good.certificate, key=other.key), "scaling.key_file: .* is not the key of"),
        (
            TlsFiles(certificate=garbage, key=good.key),
            "scaling.certificate_file: .* hold no certificate with its key",
        ),
        (TlsFiles(certificate=good.certificate, key=binary), "scaling.key_file: .* is not in PEM form"),
        (
            TlsFiles(certificate=good.certificate, key=good.key, client_ca=garbage),
            "scaling.client_ca_file: .* holds no",
        ),
        (
            TlsFiles(certificate=good.certificate, key=good.key, client_ca=tmp_path),
            "scaling.client_ca_file: cannot read",
        ),
    ):
        with pytest.raises(ConfigError, match=sentence):
            require_tls_files(files)
    require_tls_files(good)
