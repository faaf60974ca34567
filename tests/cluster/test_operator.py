"""KEDA's operator, its adapter and the real autoscaler, moved by `penstock scaler` on a real Kafka."""

import base64
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from penstock.connectors.embedded.kafka import EmbeddedKafka
from penstock.connectors.embedded.secured import SecureFolder
from penstock.connectors.kafka.admin.admin import KafkaAdmin
from penstock.connectors.kafka.client import ClientConfig
from penstock.connectors.kafka.reports import ReportWriter
from penstock.engine.scaling.report_message import encode_status
from penstock.engine.telemetry.worker_status import ModelIdentity, WorkerState, WorkerStatus
from tests.bundles import write_stump
from tests.cluster.api import Object, await_
from tests.cluster.keda import start_keda
from tests.cluster.names import Names
from tests.cluster.node import Node, Nothing, Running
from tests.cluster.plane import ControlPlane
from tests.cluster.pods import Pod
from tests.cluster.releases import Helm, Values
from tests.cluster.report import Report
from tests.stream import Stream, event, event_schema

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(900)]
HelmMaker = Callable[..., Helm]
broker = "kafka.example:9092"  # as the settings call it: the chart refuses this machine's own address
cooldown_s = 10


@pytest.fixture(scope="module")
def names(plane: ControlPlane) -> Iterator[Names]:
    """KEDA runs from here on."""
    made = Names()
    start_keda(plane, made)
    yield made
    made.close()


def settings(topic: str, **kafka: Any) -> Values:
    return {
        "scaler": {"replicas": 1},
        "keda": {"cooldownPeriod": cooldown_s, "pollingInterval": 5},
        "settings": {
            "kafka": {"bootstrap_servers": broker, "group": f"{topic}-group", **kafka},
            "input": {"topic": topic},
            "output": {"predictions": f"{topic}-p", "explanations": f"{topic}-e", "dead_letters": f"{topic}-d", "status": f"{topic}-s"},
            "scaling": {"max_age_s": 10, "max_replicas": 6},
        },
    }  # fmt: skip


def replicas(plane: ControlPlane, mine: Helm) -> int:
    found: int = plane.api.get("StatefulSet", "prod-worker", mine.namespace)["spec"]["replicas"]
    return found


def autoscaler(plane: ControlPlane, mine: Helm) -> Object | None:
    return plane.api.find("HorizontalPodAutoscaler", "keda-hpa-prod-worker", mine.namespace)


def until(
    plane: ControlPlane, mine: Helm, wanted: Callable[[int], bool], timeout_s: float, name: str
) -> float:
    """Until the number is as wanted; how long that took, in seconds."""
    began_s = time.monotonic()
    await_(lambda: wanted(replicas(plane, mine)) or None, timeout_s, name)
    return time.monotonic() - began_s


def write(servers: str, topic: str, counts: dict[int, int]) -> None:
    producer = Producer({"bootstrap.servers": servers})
    for partition, count in counts.items():
        for _ in range(count):
            producer.produce(topic, value=b"x", partition=partition)
    assert producer.flush(30) == 0


def finish(servers: str, topic: str, offsets: dict[int, int]) -> None:
    consumer = Consumer(
        {"bootstrap.servers": servers, "group.id": f"{topic}-group", "enable.auto.commit": False}
    )
    consumer.commit(offsets=[TopicPartition(topic, *place) for place in offsets.items()], asynchronous=False)
    consumer.close()


def report_capacity(servers: str, topic: str, records_per_s: float) -> None:
    """What one worker can do, as a worker of before has said."""
    status = WorkerStatus(
        worker="w", group=f"{topic}-group", topic=topic, at_ms=1, state=WorkerState.STOPPED,
        model=ModelIdentity(name="m", version="1", digest="d", device="cpu"), startup_s=0.0,
        capacity_records_per_s=records_per_s, finished_records_per_s=0.0, busy_ratio=0.0, in_flight_batches=0, records=0,
    )  # fmt: skip
    writer = ReportWriter(ClientConfig(bootstrap_servers=servers), f"{topic}-s")
    writer.send(worker="w", payload=encode_status(status))
    writer.close(timeout_s=30)


def test_zero_one_many_zero_through_an_outage(
    plane: ControlPlane,
    names: Names,
    helm: HelmMaker,
    start_kafka: Callable[..., EmbeddedKafka],
    tmp_path: Path,
    report: Report,
) -> None:
    kafka = start_kafka()
    servers, topic = kafka.bootstrap_servers, "loop"
    KafkaAdmin(ClientConfig(bootstrap_servers=servers), timeout_s=30.0).create_topics(
        {topic: 4, f"{topic}-p": 4, f"{topic}-e": 4, f"{topic}-d": 1}
    )
    KafkaAdmin(ClientConfig(bootstrap_servers=servers), timeout_s=30.0).create_topics(
        {f"{topic}-s": 1}, properties={"cleanup.policy": "compact"}
    )
    write(servers, topic, {0: 1})
    finish(servers, topic, dict.fromkeys(range(4), 0) | {0: 1})
    report_capacity(servers, topic, 2.5)
    mine = helm("loop")

    def start(pod: Object) -> Running:
        is_scaler = pod["metadata"]["labels"]["app.kubernetes.io/component"] == "scaler"
        return Pod(pod, plane.api, tmp_path, {broker: servers}, names) if is_scaler else Nothing()

    with Node(plane.api, mine.namespace, start=start):
        mine.install("prod", settings(topic))
        hpa = await_(lambda: autoscaler(plane, mine), 120, "an autoscaler")
        assert (hpa["spec"]["minReplicas"], hpa["spec"]["maxReplicas"]) == (1, 6)
        to_zero_s = until(plane, mine, lambda n: n == 0, 180, "nothing to do, no worker")
        write(servers, topic, {0: 1})
        to_one_s = until(plane, mine, lambda n: n >= 1, 60, "the first record's worker")
        # 400 records and more at 2.5 a second and worker: as many workers as there are partitions.
        write(servers, topic, dict.fromkeys(range(4), 100))
        to_many_s = until(plane, mine, lambda n: n == 4, 180, "a worker for each partition")
        kafka.kill_node(1)
        outage_s = 45.0
        end_s = time.monotonic() + outage_s
        while time.monotonic() < end_s:
            assert replicas(plane, mine) == 4, "the number is held while the broker is away"
            time.sleep(1.0)
        kafka.start_node(1)

        def healthy() -> bool:
            conditions = plane.api.get("ScaledObject", "prod-worker", mine.namespace)["status"]["conditions"]
            return {each["type"]: each["status"] for each in conditions}["Ready"] == "True"

        await_(lambda: healthy() or None, 120, "KEDA's trust")
        assert replicas(plane, mine) == 4
        finish(servers, topic, dict.fromkeys(range(4), 100) | {0: 102})
        down_s = until(plane, mine, lambda n: n == 0, 400, "all is done, no worker")
    report.note(
        "loop",
        f"nothing to do, to 0 after {to_zero_s:.0f} s; first record to 1 in {to_one_s:.2f} s; a backlog to 4 (a worker for each partition) in {to_many_s:.0f} s; finished, to 0 in {down_s:.0f} s (`cooldownPeriod` {cooldown_s} s)",
    )
    report.note(
        "outage", f"broker killed for {outage_s:.0f} s: 4 stays 4, and the number moves again afterwards"
    )


def secret(plane: ControlPlane, mine: Helm, name: str, texts: dict[str, str]) -> None:
    data = {key: base64.b64encode(text.encode()).decode() for key, text in texts.items()}
    plane.api.make("Secret", {"metadata": {"name": name}, "data": data}, mine.namespace)


def test_real_workers_on_a_secured_broker_from_zero_and_back(
    plane: ControlPlane,
    names: Names,
    helm: HelmMaker,
    start_kafka: Callable[..., EmbeddedKafka],
    tmp_path: Path,
    report: Report,
) -> None:
    kafka = start_kafka(secure=tmp_path / "secure", settings={"super.users": "User:ANONYMOUS;User:worker"})
    authority, records = tmp_path / "secure" / "ca.pem", 3000
    password = (tmp_path / "secure" / "worker.password").read_text().strip()
    write_stump(tmp_path / "model", input_schema=json.dumps(event_schema).encode())
    mine = helm("real")
    tls = SecureFolder(tmp_path / "scaler-tls", users={})
    tls.make()
    tls.issue("scaler", common_name="scaler", addresses=(f"DNS:prod-scaler.{mine.namespace}.svc",))
    tls.issue("keda", common_name="keda")
    at = lambda name: (tls.folder / name).read_text()  # noqa: E731
    secret(plane, mine, "kafka-login", {"PENSTOCK_KAFKA__SECURITY__PASSWORD": password})
    secret(plane, mine, "kafka-tls", {"ca.crt": authority.read_text()})
    secret(
        plane,
        mine,
        "scaler-tls",
        {"tls.crt": at("scaler.pem"), "tls.key": at("scaler.key"), "ca.crt": at("ca.pem")},
    )
    secret(
        plane,
        mine,
        "keda-tls",
        {"tls.crt": at("keda.pem"), "tls.key": at("keda.key"), "ca.crt": at("ca.pem")},
    )
    stream = Stream(tmp_path, kafka.bootstrap_servers, "real", tmp_path / "model")
    KafkaAdmin(stream.config, timeout_s=30.0).create_topics(
        {"real-s": 1}, properties={"cleanup.policy": "compact"}
    )
    security = {
        "protocol": "SASL_SSL",
        "mechanism": "SCRAM-SHA-512",
        "username": "worker",
        "ca_file": "/etc/kafka-tls/ca.crt",
    }
    values = settings("real", security=security) | {
        "secretName": "kafka-login",
        "extraVolumes": [{"name": "kafka-tls", "secret": {"secretName": "kafka-tls"}}],
        "extraVolumeMounts": [{"name": "kafka-tls", "mountPath": "/etc/kafka-tls", "readOnly": True}],
        "image": {"holds": [str(tmp_path)]},
    }  # fmt: skip
    values["scaler"] |= {"tls": {"secretName": "scaler-tls", "clientAuthority": True}}
    values["keda"] |= {"tls": {"secretName": "keda-tls", "clientCertificate": True}}
    values["settings"] |= {"model": {"path": str(tmp_path / "model")}}
    pods: list[Pod] = []

    def start(pod: Object) -> Running:
        pods.append(Pod(pod, plane.api, tmp_path, {broker: kafka.users_bootstrap_servers}, names))
        return pods[-1]

    try:
        with Node(plane.api, mine.namespace, start=start) as node:
            mine.install("prod", values)
            await_(lambda: autoscaler(plane, mine), 120, "an autoscaler")
            until(plane, mine, lambda n: n == 0, 180, "nothing to do, no worker")
            began = len(pods)
            stream.feed([event(number) for number in range(records)], per_s=100.0)
            written_s = time.monotonic()
            to_one_s = until(plane, mine, lambda n: n >= 1, 60, "the first record's worker")
            await_(lambda: stream.committed() > 0 or None, 120, "the first commit", every_s=0.5)
            first_s = time.monotonic() - written_s
            await_(lambda: stream.committed() == records or None, 240, "all records", every_s=1.0)
            down_s = until(plane, mine, lambda n: n == 0, 400, "all is done, no worker")
            await_(
                lambda: all(each.ended() for each in pods if each.component == "worker") or None,
                60,
                "the workers' ends",
            )
            workers = [each for each in pods[began:] if each.component == "worker"]
            assert {each.code for each in workers} == {0}
            assert node.forced == 0
        assert stream.books().check() == []
    finally:
        stream.close()
    report.note(
        "workers",
        f"SASL_SSL to the broker, TLS on both sides between KEDA and the scaler: first record to 1 in {to_one_s:.2f} s, to the first commit {first_s:.1f} s; {records} records, 0 lost, 0 doubled; to 0 in {down_s:.0f} s after the last, every worker drained with exit code 0",
    )
