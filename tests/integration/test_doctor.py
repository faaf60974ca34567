"""`penstock doctor` on a real broker: of the causes that are injected the first one named is right, and healthy it names none."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from prometheus_client import CollectorRegistry

from penstock.connectors.embedded.cluster import free_ports
from penstock.connectors.embedded.kafka import EmbeddedKafka
from penstock.connectors.embedded.secured import SecureFolder
from penstock.connectors.kafka.admin.admin import KafkaAdmin
from penstock.connectors.kafka.client import ClientConfig
from penstock.engine.cli.main import main
from penstock.engine.codec.contracts import contract
from penstock.engine.codec.framing import single_object_prefix
from penstock.engine.dead_letters.message import DeadLetterEncoder, ModelIdentity
from penstock.engine.telemetry.metrics import Metrics
from penstock.engine.telemetry.port_routes import serve_worker
from penstock.engine.telemetry.status import StatusBoard
from penstock.engine.telemetry.worker_status import ModelIdentity as ServedIdentity
from penstock.engine.telemetry.worker_status import WorkerState
from penstock.schemas.reasons import Reason, Stage
from penstock.schemas.records import Records, Rejection
from tests.bundles import write_linear
from tests.clocks import HandClock
from tests.registry_server import RegistryServer
from tests.stream import children

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(600)]

right_share_min = 0.95  # 19 of 20
partitions = 2
good = json.dumps({"a": 1.0, "b": 2.0, "c": 3.0}).encode()
other = json.dumps({"x": 1.0, "y": 2.0}).encode()


@dataclass(kw_only=True)
class House:
    """A secured broker, and pipelines on it, one for each cause."""

    kafka: EmbeddedKafka
    folder: Path
    count: int = 0
    admin: KafkaAdmin = field(init=False)
    raw: AdminClient = field(init=False)

    def __post_init__(self) -> None:
        self.servers = self.kafka.bootstrap_servers
        self.admin = KafkaAdmin(ClientConfig(bootstrap_servers=self.servers), timeout_s=30.0)
        self.raw = AdminClient({"bootstrap.servers": self.servers})
        write_linear(self.folder / "model")

    def pipeline(self, **changes: Any) -> "Pipeline":
        self.count += 1
        return Pipeline(self, f"doctor{self.count}", changes)


class Pipeline:
    """Topics, settings and a group of their own."""

    def __init__(self, house: House, name: str, changes: dict[str, Any]) -> None:
        self.house, self.name, self.group = house, name, f"{name}-group"
        self.topics = {f"{name}-{end}": partitions for end in ("in", "out", "dead")}
        tree: dict[str, Any] = {
            "kafka": {"bootstrap_servers": house.servers, "group": self.group},
            "input": {"topic": f"{name}-in", "format": "json"},
            "output": {"predictions": f"{name}-out", "dead_letters": f"{name}-dead"},
            "model": {"path": str(house.folder / "model"), "device": "cpu"},
            "objective": {"batch_rows_max": 64},
            "http": {"port": 0},
            "scaling": {"max_age_s": 1.0},
        }
        for section, values in changes.items():
            tree[section] = {**tree.get(section, {}), **values}
        self.tree = tree

    def create(self, **properties: dict[str, str]) -> "Pipeline":
        for topic, count in self.topics.items():
            end = topic.rpartition("-")[2]
            self.house.admin.create_topics({topic: count}, properties=properties.get(end, {}))
        return self

    @property
    def input(self) -> str:
        return f"{self.name}-in"

    @property
    def file(self) -> Path:
        path = self.house.folder / f"{self.name}.yaml"
        path.write_text(yaml.safe_dump(self.tree))
        return path

    def produce(
        self, value: bytes, count: int, *, partition: int | None = None, age_s: float = 0.0, **client: Any
    ) -> None:
        producer = Producer({"bootstrap.servers": self.house.servers, "linger.ms": 5, **client})
        stamp = int((time.time() - age_s) * 1000)
        refused: list[Any] = []

        def reported(error: Any, _: Any) -> None:
            refused.extend([error] if error else [])

        for number in range(count):
            target = number % partitions if partition is None else partition
            producer.produce(self.input, value=value, partition=target, timestamp=stamp, on_delivery=reported)
        assert producer.flush(30) == 0
        assert not refused

    def commit(self, *offsets: int) -> None:
        with closing(Consumer({"bootstrap.servers": self.house.servers, "group.id": self.group})) as consumer:
            places = [TopicPartition(self.input, p, offset) for p, offset in enumerate(offsets)]
            consumer.commit(offsets=places, asynchronous=False)

    def letters(self, reason: Reason, offsets: range, partition: int) -> None:
        records = Records(
            topic=self.input,
            partitions=np.full(len(offsets), partition, dtype=np.int32),
            offsets=np.array(offsets, dtype=np.int64),
            timestamps_ms=np.zeros(len(offsets), dtype=np.int64),
            keys=[None] * len(offsets),
            values=[good] * len(offsets),
        )
        encode = DeadLetterEncoder(
            prefix=single_object_prefix(contract("dead_letter")), cluster="c",
            model=ModelIdentity(name="m", version="1", digest="d"), worker="w", message_bytes_max=1_000_000,
        )  # fmt: skip
        rejections = [
            Rejection(index=place, stage=Stage.ENCODE, reason=reason, detail="as the test wants it")
            for place in range(len(offsets))
        ]
        producer = Producer({"bootstrap.servers": self.house.servers})
        for value in encode(records, rejections, at_ms=1):
            producer.produce(f"{self.name}-dead", value=value, partition=partition)
        assert producer.flush(30) == 0

    @contextmanager
    def member(self, name: str) -> Iterator[None]:
        """Somebody joins the group, owns its partitions, and commits nothing."""
        ended = threading.Event()
        consumer = Consumer({
            "bootstrap.servers": self.house.servers, "group.id": self.group, "client.id": name, "enable.auto.commit": False,
            "auto.offset.reset": "earliest", "session.timeout.ms": 6000,
        })  # fmt: skip
        owned = threading.Event()
        consumer.subscribe([self.input], on_assign=lambda *_: owned.set())

        def poll() -> None:
            while not ended.is_set():
                consumer.poll(0.1)
            consumer.close()

        polling = threading.Thread(target=poll)
        polling.start()
        try:
            assert owned.wait(30)
            yield
        finally:
            ended.set()
            polling.join(30)

    @contextmanager
    def busy_worker(self, *, infer_s: float, explain_s: float) -> Iterator[None]:
        """A worker as its port shows it, which computes all of its time; its place in the group is held by a member."""
        clock, metrics = HandClock(), Metrics(CollectorRegistry())
        name = f"{self.group}-here-0"
        board = StatusBoard(worker=name, group=self.group, topic=self.input, clock=clock, rows_max=64)
        board.verified(ServedIdentity(name="m", version="1", digest="d", device="cpu"))
        board.set_state(WorkerState.JOINING)
        board.rebalanced([0, 1])
        board.membership(True)
        clock.now_s += 10.0
        board.beat(in_flight_batches=1)
        board.finished(rows=100, busy_s=9.9)
        metrics.stage_seconds.labels(stage="infer").observe(infer_s)
        metrics.stage_seconds.labels(stage="explain").observe(explain_s)
        (port,) = free_ports(1)
        self.tree["http"] = {"port": port}
        with serve_worker(metrics=metrics, board=board, host="127.0.0.1", port=port), self.member(name):
            yield

    @contextmanager
    def running(self) -> Iterator["subprocess.Popen[bytes]"]:
        """`penstock run`, with a port to ask."""
        (port,) = free_ports(1)
        self.tree["http"] = {"port": port}
        self.tree["kafka"]["client"] = {"session.timeout.ms": 30_000}
        log = self.house.folder / f"{self.name}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "penstock", "run", str(self.file)], stdout=out, stderr=out
            )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()

    def said(self) -> str:
        return (self.house.folder / f"{self.name}.log").read_text(errors="replace")

    def await_said(self, words: str) -> None:
        end_s = time.monotonic() + 90
        while words not in self.said():
            assert time.monotonic() < end_s, self.said()
            time.sleep(0.1)


@pytest.fixture(scope="module")
def house(
    start_kafka: Callable[..., EmbeddedKafka], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    kafka = start_kafka(secure=tmp_path_factory.mktemp("secure"))
    yield House(kafka=kafka, folder=tmp_path_factory.mktemp("doctor"))
    kafka.close()


Doctor = Callable[..., dict[str, Any]]


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str]) -> Doctor:
    def ask(pipeline: Pipeline, *, over_s: float = 0.5) -> dict[str, Any]:
        code = main(["doctor", str(pipeline.file), "--over", str(over_s), "--json"])
        told: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert code == (0 if told["ok"] else 1)
        return told

    return ask


Injected = Callable[[House, ExitStack, pytest.MonkeyPatch], Pipeline]


def _users(house: House, **changes: Any) -> Pipeline:
    """Over TLS with a password."""
    secure = house.kafka.secure
    assert secure is not None
    pipeline = house.pipeline()
    pipeline.tree["kafka"]["bootstrap_servers"] = house.kafka.users_bootstrap_servers
    pipeline.tree["kafka"]["security"] = {
        "protocol": "SASL_SSL", "mechanism": "SCRAM-SHA-256", "username": "worker", "password": secure.users["worker"],
        "ca_file": str(secure.folder / "ca.pem"), **changes,
    }  # fmt: skip
    return pipeline


def _broker_away(house: House, *_: Any) -> Pipeline:
    (port,) = free_ports(1)
    return house.pipeline(kafka={"bootstrap_servers": f"127.0.0.1:{port}"})


def _plain_at_tls(house: House, *_: Any) -> Pipeline:
    return house.pipeline(kafka={"bootstrap_servers": house.kafka.users_bootstrap_servers})


def _wrong_password(house: House, *_: Any) -> Pipeline:
    return _users(house, password="canary")


def _wrong_authority(house: House, *_: Any) -> Pipeline:
    alien = house.folder / "alien"
    SecureFolder(alien).make()
    return _users(house, ca_file=str(alien / "ca.pem"))


def _lacking(kept: Callable[[dict[str, Any]], bool]) -> Injected:
    def inject(house: House, held: ExitStack, _: pytest.MonkeyPatch) -> Pipeline:
        from tests.integration.test_permissions import Guarded

        pipeline = _users(house).create()
        done = subprocess.run(
            [sys.executable, "-m", "penstock", "acl", str(pipeline.file), "--json", "--role", "worker", "--principal", "User:worker"],
            capture_output=True, timeout=60, check=True,
        )  # fmt: skip
        entries = [each for each in json.loads(done.stdout)["roles"]["worker"] if kept(each)]
        guarded = Guarded.__new__(Guarded)
        guarded.admin = house.raw
        held.enter_context(guarded.allowed(entries))
        return pipeline

    return inject


def _topic_missing(house: House, *_: Any) -> Pipeline:
    pipeline = house.pipeline()
    del pipeline.topics[pipeline.input]
    return pipeline.create()


def _other_partitions(house: House, *_: Any) -> Pipeline:
    pipeline = house.pipeline()
    pipeline.topics[f"{pipeline.name}-out"] = 3
    return pipeline.create()


def _other_records(house: House, *_: Any) -> Pipeline:
    pipeline = house.pipeline().create()
    pipeline.produce(other, 20)
    return pipeline


def _all_rejected(house: House, *_: Any) -> Pipeline:
    pipeline = house.pipeline().create()
    pipeline.produce(good, 60, partition=0)
    pipeline.commit(50, 0)
    pipeline.letters(Reason.CORRUPT, range(10, 50), 0)
    return pipeline


def _registry(fault: Any) -> Injected:
    def inject(house: House, held: ExitStack, _: pytest.MonkeyPatch) -> Pipeline:
        server = RegistryServer()
        held.callback(server.close)
        server.fault = fault
        return house.pipeline(registry={"url": server.url}).create()

    return inject


def _registry_away(house: House, *_: Any) -> Pipeline:
    (port,) = free_ports(1)
    return house.pipeline(registry={"url": f"http://127.0.0.1:{port}"}).create()


def _poison(house: House, *_: Any) -> Pipeline:
    """A real worker meets it, and gives up behind the letters."""
    pipeline = house.pipeline(dead_letters={"run_max": 30}).create()
    pipeline.produce(b"broken", 120, partition=0)
    pipeline.produce(b"broken", 120, partition=1)
    pipeline.produce(good, 40)
    with pipeline.running() as process:
        assert process.wait(90) == 1, pipeline.said()
    pipeline.tree["http"] = {"port": 0}
    return pipeline


def _open_transaction(house: House, held: ExitStack, _: pytest.MonkeyPatch) -> Pipeline:
    pipeline = house.pipeline().create()
    producer = Producer({"bootstrap.servers": house.servers, "transactional.id": f"{pipeline.name}-hangs"})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(pipeline.input, value=good, partition=0)
    assert producer.flush(30) == 0
    held.callback(producer.abort_transaction, 30)
    return pipeline


def _no_worker(house: House, *_: Any) -> Pipeline:
    pipeline = house.pipeline().create()
    pipeline.produce(good, 20)
    return pipeline


def _hung(house: House, held: ExitStack, _: pytest.MonkeyPatch) -> Pipeline:
    pipeline = house.pipeline().create()
    pipeline.produce(good, 20)
    process = held.enter_context(pipeline.running())
    pipeline.await_said("first record finished")
    (child,) = children(process)
    os.kill(child, signal.SIGSTOP)
    held.callback(os.kill, child, signal.SIGCONT)
    return pipeline


def _stranger(house: House, held: ExitStack, _: pytest.MonkeyPatch) -> Pipeline:
    pipeline = house.pipeline().create()
    pipeline.produce(good, 20)
    held.enter_context(pipeline.member("console-consumer"))
    return pipeline


def _at_capacity(house: House, held: ExitStack, _: pytest.MonkeyPatch) -> Pipeline:
    pipeline = house.pipeline().create()
    pipeline.produce(good, 400, age_s=60)
    held.enter_context(pipeline.busy_worker(infer_s=9.0, explain_s=0.5))
    return pipeline


def _slow_explainer(house: House, held: ExitStack, _: pytest.MonkeyPatch) -> Pipeline:
    pipeline = house.pipeline().create()
    pipeline.produce(good, 400, age_s=60)
    held.enter_context(pipeline.busy_worker(infer_s=0.5, explain_s=9.0))
    return pipeline


def _hot(house: House, held: ExitStack, _: pytest.MonkeyPatch) -> Pipeline:
    pipeline = house.pipeline().create()
    pipeline.produce(good, 400, age_s=60, partition=1)
    held.enter_context(pipeline.busy_worker(infer_s=9.0, explain_s=0.5))
    return pipeline


def _retention(house: House, *_: Any) -> Pipeline:
    pipeline = house.pipeline().create()
    pipeline.produce(good, 40)
    pipeline.commit(5, 5)
    gone = house.raw.delete_records([TopicPartition(pipeline.input, 0, 15)])
    for future in gone.values():
        future.result(30)
    return pipeline


def _letters_compacted(house: House, *_: Any) -> Pipeline:
    return house.pipeline().create(dead={"cleanup.policy": "compact"})


def _no_keys(house: House, *_: Any) -> Pipeline:
    pipeline = house.pipeline().create(out={"cleanup.policy": "compact"})
    pipeline.produce(good, 60, partition=0)
    pipeline.commit(50, 0)
    pipeline.letters(Reason.NO_KEY, range(50), 0)
    return pipeline


def _too_long(house: House, *_: Any) -> Pipeline:
    pipeline = house.pipeline().create()
    pipeline.produce(good, 60, partition=0)
    pipeline.commit(50, 0)
    pipeline.letters(Reason.OUTPUT_TOO_LONG, range(50), 0)
    return pipeline


def _digest(house: House, *_: Any) -> Pipeline:
    return house.pipeline(model={"digest": "0" * 64}).create()


def _disk(house: House, _: ExitStack, patch: pytest.MonkeyPatch) -> Pipeline:
    class Usage:
        free = 1 << 20

    patch.setattr("shutil.disk_usage", lambda folder: Usage)
    return house.pipeline().create()


def _clock(house: House, *_: Any) -> Pipeline:
    pipeline = house.pipeline().create()
    pipeline.produce(good, 10, age_s=-1800)  # brokers refuse more than an hour
    pipeline.commit(5, 5)
    return pipeline


injected: dict[str, tuple[Injected, str]] = {
    "broker away": (_broker_away, "broker_away"),
    "plain client at a TLS port": (_plain_at_tls, "access"),
    "wrong password": (_wrong_password, "access"),
    "wrong authority": (_wrong_authority, "access"),
    "no Read on the input": (_lacking(lambda e: not e["resource_name"].endswith("-in")), "permission"),
    "no Write on the output": (_lacking(lambda e: not e["resource_name"].endswith("-out")), "permission"),
    "no Read on the group": (_lacking(lambda e: e["resource_type"] != "Group"), "permission"),
    "input topic missing": (_topic_missing, "topic_missing"),
    "output with other partitions": (_other_partitions, "output_partitions"),
    "records of another kind": (_other_records, "records_rejected"),
    "nearly all records rejected": (_all_rejected, "records_rejected"),
    "registry away": (_registry_away, "registry"),
    "registry says 401": (_registry("401"), "registry"),
    "registry says 404 to all": (_registry("garbage"), "registry"),
    "poison stopped a partition": (_poison, "partition_stopped"),
    "open transaction on the input": (_open_transaction, "open_transaction"),
    "no worker": (_no_worker, "no_worker"),
    "hung worker": (_hung, "worker_hung"),
    "a stranger in the group": (_stranger, "foreign_member"),
    "at capacity": (_at_capacity, "at_capacity"),
    "slow explainer": (_slow_explainer, "slow_explainer"),
    "hot partition": (_hot, "hot_partition"),
    "retention passed the commit": (_retention, "range_lost"),
    "dead letters compacted": (_letters_compacted, "output_topic"),
    "compacted output, no keys": (_no_keys, "results_refused"),
    "results too long": (_too_long, "results_refused"),
    "digest is not the pinned one": (_digest, "model"),
    "disk full": (_disk, "disk_full"),
    "a producer's clock is ahead": (_clock, "clock"),
}


def test_the_first_cause_named_is_right(house: House, doctor: Doctor) -> None:
    assert len(injected) >= 20
    lines, right = [], 0
    for name, (inject, cause) in injected.items():
        with ExitStack() as held, pytest.MonkeyPatch.context() as patch:
            began_s = time.monotonic()
            pipeline = inject(house, held, patch)
            made_s = time.monotonic() - began_s
            told = doctor(pipeline)
            took_s = time.monotonic() - began_s - made_s
        found = [wrong["cause"] for wrong in told["wrong"]]
        right += found[:1] == [cause]
        lines.append(f"{name:<34} {cause:<18} {found} {made_s:.1f} + {took_s:.1f} s")
        assert "canary" not in json.dumps(told)
    print("\n".join(lines))
    assert right >= right_share_min * len(injected), "\n".join(lines)


def test_on_a_healthy_pipeline_none_is_named(
    house: House, doctor: Doctor, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline = house.pipeline().create()
    pipeline.produce(good, 200)
    pipeline.produce(b"one bad record", 1)
    with pipeline.running():
        pipeline.await_said("first record finished")
        time.sleep(1.0)
        told = doctor(pipeline)
        assert told["wrong"] == []
        assert told["not_seen"] == []
        assert "forecast" in [each["what"] for each in told["seen"]]
        assert main(["doctor", str(pipeline.file), "--over", "0.5"]) == 0
    page = capsys.readouterr().out
    assert "Nothing is wrong" in page
    assert "\x1b" not in page
    assert all(len(line) <= 80 for line in page.splitlines())


def test_the_page_is_80_columns_without_escapes_and_names_evidence_and_cure(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline = house.pipeline().create()
    pipeline.produce(other, 20)
    assert main(["doctor", str(pipeline.file), "--over", "0"]) == 1
    page = capsys.readouterr().out
    assert page.startswith("1. the records do not fit the model: no_features")
    assert "   seen  of the newest 20 records" in page
    assert "   cure  the producer sends other records" in page
    assert "\x1b" not in page
    assert all(len(line) <= 80 and line == line.rstrip() for line in page.splitlines())


def test_what_cannot_be_asked_is_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(tmp_path / "none.yaml")]) == 2
    assert "cannot read" in capsys.readouterr().err
