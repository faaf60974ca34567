"""`penstock lag` and `penstock scaler` against a real broker."""

import json
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from penstock.connectors.kafka.client import ClientConfig
from penstock.connectors.kafka.reports import ReportReader, ReportWriter
from penstock.engine.cli.commands.scaler import serve
from penstock.engine.cli.main import main
from penstock.engine.hints.causes import Hints
from penstock.engine.pages.documents.hints import hints_told
from penstock.engine.scaling.keda_service import metric_name
from penstock.engine.scaling.report_message import encode_status
from penstock.engine.settings.model import Settings, load_settings
from penstock.engine.telemetry.http_server import HttpServer, json_answer
from penstock.engine.telemetry.worker_status import ModelIdentity, WorkerState, WorkerStatus
from penstock.schemas.errors import ConfigError
from penstock.schemas.externalscaler import (
    GetMetricsRequest,
    GetMetricsResponse,
    IsActiveResponse,
    ScaledObjectRef,
)

pytestmark = pytest.mark.kafka
slow_machine_s = 1.0  # of a machine that does much else at the time

SettingsFile = Callable[..., Path]


@pytest.fixture
def settings_file(kafka: str, tmp_path: Path) -> SettingsFile:
    """Writes a penstock.yaml for a topic and a group."""

    def write(topic: str, group: str, status: str | None = None) -> Path:
        path = tmp_path / "penstock.yaml"
        path.write_text(
            f"""
kafka: {{bootstrap_servers: "{kafka}", group: {group}}}
input: {{topic: {topic}}}
output: {{predictions: {topic}-p, dead_letters: {topic}-d, status: {status or "null"}}}
model: {{path: unused}}
http: {{port: 0}}
scaling: {{port: 0, max_age_s: 10, max_replicas: 5}}
"""
        )
        return path

    return write


def produce(kafka: str, topic: str, counts: dict[int, int], *, transaction: bool = False) -> None:
    settings: dict[str, Any] = {"bootstrap.servers": kafka}
    producer = Producer(settings | ({"transactional.id": f"{topic}-writer"} if transaction else {}))
    if transaction:
        producer.init_transactions(30)
        producer.begin_transaction()
    for partition, count in counts.items():
        for _ in range(count):
            producer.produce(topic, value=b"x", partition=partition)
    assert producer.flush(30) == 0
    if transaction:
        producer.commit_transaction(30)


def commit(kafka: str, group: str, topic: str, positions: dict[int, int]) -> None:
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": group, "enable.auto.commit": False})
    places = [TopicPartition(topic, partition, offset) for partition, offset in positions.items()]
    consumer.commit(offsets=places, asynchronous=False)
    consumer.close()


def test_lag_is_told_per_partition_and_commit_markers_are_none(
    kafka: str,
    new_topic: Callable[..., str],
    settings_file: SettingsFile,
    capsys: pytest.CaptureFixture[str],
) -> None:
    topic = new_topic("lag", partitions=3)
    group = f"{topic}-group"
    produce(kafka, topic, {0: 10, 1: 5})
    produce(kafka, topic, {2: 4}, transaction=True)
    commit(kafka, group, topic, {0: 7, 2: 4})
    nobody = ["--url", "http://127.0.0.1:1"]
    assert main(["lag", str(settings_file(topic, group)), "--json", "--over", "0", *nobody]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["lag_records"] == 8
    assert (told["hints"], "nobody answers" in told["hints_unknown"]) == (None, True)
    assert [
        (p["partition"], p["committed"], p["lag_records"], p["movement"]) for p in told["partitions"]
    ] == [
        (0, 7, 3, "unowned"),
        (1, None, 5, "unowned"),
        (2, 4, 0, "caught up"),  # offset 4 is the marker of the transaction
    ]
    assert 0 < told["lag_seconds"] < 300

    document = hints_told(Hints(seen_s=600, age_s=1), workers=True)
    with HttpServer({"/api/v1/hints": lambda: json_answer(document)}, host="127.0.0.1", port=0) as server:
        engine = ["--url", f"http://127.0.0.1:{server.port}"]
        assert main(["lag", str(settings_file(topic, group)), "--over", "0", *engine]) == 0
    printed = capsys.readouterr().out
    assert "unowned" in printed
    assert document["summary"][0]["text"] in printed


def test_partitions_of_another_programs_consumer_are_said_to_be_its(
    kafka: str,
    new_topic: Callable[..., str],
    settings_file: SettingsFile,
    capsys: pytest.CaptureFixture[str],
) -> None:
    topic = new_topic("foreign", partitions=2)
    group = f"{topic}-group"
    produce(kafka, topic, {0: 3})
    stranger = Consumer(
        {
            "bootstrap.servers": kafka,
            "group.id": group,
            "client.id": "nightly-export",
            "auto.offset.reset": "earliest",
        }
    )
    with closing(stranger):
        stranger.subscribe([topic])
        read = 0
        until_s = time.monotonic() + 60
        while read < 3 or len(stranger.assignment()) < 2:
            assert time.monotonic() < until_s
            read += stranger.poll(0.2) is not None
        stranger.commit(asynchronous=False)  # all is read, and nothing of it predicted
        asked = ["lag", str(settings_file(topic, group)), "--over", "0", "--url", "http://127.0.0.1:1"]
        assert main(asked) == 0
        printed = " ".join(capsys.readouterr().out.split())
        assert "caught up" not in printed
        assert "partition 0: owned by nightly-export@" in printed
        assert main([*asked, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
    assert told["foreign"] == [0, 1]
    assert {each["movement"] for each in told["partitions"]} == {"foreign"}


def test_a_topic_that_is_not_there_is_one_sentence(
    settings_file: SettingsFile, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lag", str(settings_file("no-such-topic", "g"))]) == 2
    assert "no-such-topic" in capsys.readouterr().err


def report(worker: str, group: str, capacity: float) -> bytes:
    return encode_status(
        WorkerStatus(
            worker=worker,
            group=group,
            topic="t",
            at_ms=1,
            state=WorkerState.STOPPED,
            model=ModelIdentity(name="m", version="1", digest="d", device="cpu"),
            startup_s=0.0,
            capacity_records_per_s=capacity,
            finished_records_per_s=0.0,
            busy_ratio=0.0,
            in_flight_batches=0,
            records=0,
        )
    )


def write_report(kafka: str, topic: str, payload: bytes) -> None:
    with closing(ReportWriter(ClientConfig(bootstrap_servers=kafka), topic)) as writer:
        writer.send(worker="w", payload=payload)
        writer.close(timeout_s=30)


def test_reports_are_read_from_the_beginning_and_then_as_they_come(
    kafka: str, new_topic: Callable[..., str]
) -> None:
    topic = new_topic("status", **{"cleanup.policy": "compact"})
    write_report(kafka, topic, b"one")
    with closing(ReportReader(ClientConfig(bootstrap_servers=kafka), topic)) as reader:
        assert list(read_until(reader, 1)) == [b"one"]
        write_report(kafka, topic, b"two")
        assert list(read_until(reader, 1)) == [b"two"]


def read_until(reader: ReportReader, count: int) -> Iterator[bytes | None]:
    pause = threading.Event()
    for _ in range(300):
        for value in reader.read():
            yield value
            count -= 1
        if count <= 0:
            return
        pause.wait(0.05)
    pytest.fail("no report came")


def test_a_status_topic_that_is_not_there_is_a_clear_error(kafka: str) -> None:
    with (
        closing(ReportReader(ClientConfig(bootstrap_servers=kafka), "no-such-status")) as reader,
        pytest.raises(ConfigError, match="no-such-status"),
    ):
        reader.read()


class Scaler:
    """A scaler on a thread."""

    def __init__(self, settings: Settings) -> None:
        self.stop = threading.Event()
        self._said: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._thread = threading.Thread(
            target=serve, args=(settings,), kwargs={"stop": self.stop, "say": self._said.put}
        )

    def __enter__(self) -> "Scaler":
        self._thread.start()
        line = self._said.get(timeout=30)
        self.port = int(line.split(" KEDA at ")[1].split(",")[0].rsplit(":", 1)[1])
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive()


def test_the_scaler_tells_keda_what_it_takes_to_drain_the_backlog(
    kafka: str, new_topic: Callable[..., str], settings_file: SettingsFile
) -> None:
    topic, status = new_topic("in", partitions=4), new_topic("status", **{"cleanup.policy": "compact"})
    produce(kafka, topic, dict.fromkeys(range(4), 100))
    # 400 records at 2.5 a second and worker, in the 48 s that a new worker takes while nobody has said so: 3.3 replicas
    write_report(kafka, status, report("w", "g-scaler", 2.5))
    settings = load_settings(settings_file(topic, "g-scaler", status), environ={})
    with Scaler(settings) as scaler, grpc.insecure_channel(f"127.0.0.1:{scaler.port}") as channel:
        ask = channel.unary_unary(
            "/externalscaler.ExternalScaler/GetMetrics",
            request_serializer=GetMetricsRequest.SerializeToString,
            response_deserializer=GetMetricsResponse.FromString,
        )
        request = GetMetricsRequest(scaledObjectRef=ScaledObjectRef(name="x"), metricName=metric_name)
        pause, seen = threading.Event(), 0.0
        for _ in range(200):
            try:
                seen = ask(request, timeout=3).metricValues[0].metricValueFloat
            except grpc.RpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE, error  # noqa: PT017  not read yet
            if seen >= 3:
                break
            pause.wait(0.1)
        assert 3 <= seen <= 4, "four partitions are the most that can help"


def test_the_first_record_wakes_keda_within_a_second(
    kafka: str, new_topic: Callable[..., str], settings_file: SettingsFile
) -> None:
    topic = new_topic("in", partitions=4)
    group = f"{topic}-group"
    produce(kafka, topic, {0: 1})
    commit(kafka, group, topic, {0: 1})
    settings = load_settings(settings_file(topic, group), environ={})
    with Scaler(settings) as scaler, grpc.insecure_channel(f"127.0.0.1:{scaler.port}") as channel:
        stream = channel.unary_stream(
            "/externalscaler.ExternalScaler/StreamIsActive",
            request_serializer=ScaledObjectRef.SerializeToString,
            response_deserializer=IsActiveResponse.FromString,
        )(ScaledObjectRef(name="x"), timeout=300)
        told = (message.result for message in stream)
        assert next(told) is False
        produce(kafka, topic, {0: 1})
        begin_s = time.monotonic()
        assert next(told) is True
        took_s = time.monotonic() - begin_s
        stream.cancel()
    print(f"woken after {took_s:.2f} s")
    assert took_s < 1.0 + slow_machine_s
