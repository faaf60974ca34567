"""The embedded Kafka: a real one, whose nodes can be hurt, and of which nothing stays."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from penstock.connectors.embedded.cluster import free_ports
from penstock.connectors.embedded.kafka import EmbeddedKafka
from penstock.connectors.kafka.admin.admin import KafkaAdmin
from penstock.connectors.kafka.admin.group_offsets import KafkaOffsets
from penstock.connectors.kafka.client import ClientConfig, consumer_config, producer_config
from penstock.schemas.errors import ConfigError, InvariantError

pytestmark = pytest.mark.kafka


StartKafka = Callable[..., EmbeddedKafka]


@pytest.fixture(scope="module")
def one(start_kafka: StartKafka) -> Iterator[EmbeddedKafka]:
    kafka = start_kafka()
    yield kafka
    kafka.close()


def write(bootstrap_servers: str, topic: str, *values: bytes) -> None:
    producer = Producer(producer_config(ClientConfig(bootstrap_servers=bootstrap_servers)))
    faults = []
    for value in values:
        producer.produce(topic, value, on_delivery=lambda error, _: faults.append(error))
    assert producer.flush(30) == 0
    assert faults == [None] * len(values)


def read(bootstrap_servers: str, topic: str, count: int) -> list[bytes | None]:
    config = consumer_config(ClientConfig(bootstrap_servers=bootstrap_servers)) | {"group.id": "reader"}
    consumer = Consumer(config)
    consumer.assign([TopicPartition(topic, 0, 0)])
    values: list[bytes | None] = []
    for _ in range(600):
        message = consumer.poll(0.1)
        if message is not None and message.error() is None:
            values.append(message.value())
        if len(values) == count:
            break
    consumer.close()
    return values


def commit(bootstrap_servers: str, group: str, topic: str, offset: int) -> None:
    config = consumer_config(ClientConfig(bootstrap_servers=bootstrap_servers)) | {"group.id": group}
    consumer = Consumer(config)
    consumer.commit(offsets=[TopicPartition(topic, 0, offset)], asynchronous=False)
    consumer.close()


def ended(pid: int) -> bool:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], 30.0)[0])
    finally:
        os.close(handle)


@pytest.mark.parametrize("end", ["stop_node", "kill_node"])
def test_a_node_comes_back_with_its_data_on_its_port(one: EmbeddedKafka, end: str) -> None:
    admin = KafkaAdmin(ClientConfig(bootstrap_servers=one.bootstrap_servers))
    topic, group = f"kept-{end}", f"group-{end}"
    admin.create_topics({topic: 1})
    write(one.bootstrap_servers, topic, b"before")
    commit(one.bootstrap_servers, group, topic, 1)
    address, pid = one.bootstrap_servers, one.pid(1)
    assert pid is not None
    getattr(one, end)(1)
    assert one.pid(1) is None
    assert ended(pid)
    one.start_node(1)
    assert one.bootstrap_servers == address
    # At once: the group's coordinator is only loading, which has crashed clients that asked in another way.
    with closing(KafkaOffsets(ClientConfig(bootstrap_servers=address), group, timeout_s=30.0)) as offsets:
        assert [row.committed for row in offsets.read(topic)] == [1]
    write(address, topic, b"after")
    assert read(address, topic, 2) == [b"before", b"after"]


def test_misuse_is_told_apart_from_trouble(one: EmbeddedKafka) -> None:
    with pytest.raises(InvariantError, match="runs already"):
        one.start_node(1)
    with pytest.raises(InvariantError, match="runs already"):
        one.start()
    with pytest.raises(ConfigError, match="no node 2"):
        one.kill_node(2)
    with pytest.raises(ConfigError, match="1 to 9 nodes"):
        EmbeddedKafka(nodes=0)
    with pytest.raises(InvariantError, match="not running"):
        _ = EmbeddedKafka().bootstrap_servers


def test_nothing_stays_after_closing(start_kafka: StartKafka) -> None:
    kafka = start_kafka()
    pid, folder = kafka.pid(1), kafka.folder
    assert pid is not None
    assert folder.is_dir()
    unpacked = {entry for entry in os.listdir(folder.parent) if entry != folder.name}
    admin = KafkaAdmin(ClientConfig(bootstrap_servers=kafka.bootstrap_servers))
    admin.create_topics({"packed": 1}, properties={"compression.type": "zstd"})  # unpacks a library somewhere
    write(kafka.bootstrap_servers, "packed", b"x" * 1000)
    kafka.close()
    assert ended(pid)
    assert not folder.exists()
    new = {entry for entry in os.listdir(folder.parent) if "zstd" in entry or str(pid) in entry} - unpacked
    assert new == set()
    assert list(Path("/tmp").glob(f"hsperfdata_*/{pid}")) == []


def test_three_nodes_lose_one_and_go_on(start_kafka: StartKafka) -> None:
    kafka = start_kafka(nodes=3)
    try:
        admin = KafkaAdmin(ClientConfig(bootstrap_servers=kafka.bootstrap_servers), timeout_s=30)
        assert admin.broker_ids() == {1, 2, 3}
        admin.create_topics({"three": 1}, replication=3)
        write(kafka.bootstrap_servers, "three", b"1")
        for number, value in ((1, b"2"), (2, b"3")):
            kafka.kill_node(number)
            write(kafka.bootstrap_servers, "three", value)  # two of three copies are enough
            kafka.start_node(number)
        assert read(kafka.bootstrap_servers, "three", 3) == [b"1", b"2", b"3"]
    finally:
        kafka.close()


def test_kept_data_are_there_the_next_time_on_the_same_port(start_kafka: StartKafka, tmp_path: Path) -> None:
    kafka = start_kafka(data=tmp_path / "data")
    address = kafka.bootstrap_servers
    KafkaAdmin(ClientConfig(bootstrap_servers=address)).create_topics({"kept": 1})
    write(address, "kept", b"value")
    with pytest.raises(ConfigError, match="may be running already"):
        EmbeddedKafka(data=tmp_path / "data").start()
    kafka.close()
    with pytest.raises(ConfigError, match="made with 1, not 3 nodes"):
        EmbeddedKafka(data=tmp_path / "data", nodes=3).start()
    with EmbeddedKafka(data=tmp_path / "data") as again:
        assert again.bootstrap_servers == address
        assert read(address, "kept", 1) == [b"value"]
    other = free_ports(1)[0]
    with EmbeddedKafka(data=tmp_path / "data", port=other) as moved:
        assert moved.bootstrap_servers == f"127.0.0.1:{other}"
        assert read(moved.bootstrap_servers, "kept", 1) == [b"value"]


def broker_command(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "penstock", "broker", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def command(one: EmbeddedKafka) -> Iterator["subprocess.Popen[str]"]:
    with broker_command("--json") as process:
        yield process
        process.kill()


def announced(process: "subprocess.Popen[str]") -> tuple[int, Path]:
    """The node's process id, and the folder, of a command that is ready."""
    assert process.stdout is not None
    text = ""
    while not text.endswith("\n}\n"):
        line = process.stdout.readline()
        assert line, process.stderr and process.stderr.read()
        text += line
    told = json.loads(text)
    KafkaAdmin(ClientConfig(bootstrap_servers=told["bootstrap_servers"])).cluster_id()
    return told["nodes"][0]["pid"], Path(told["folder"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_ends_on_a_signal(command: "subprocess.Popen[str]", number: signal.Signals) -> None:
    pid, folder = announced(command)
    command.send_signal(number)
    assert command.wait(30) == 0
    assert ended(pid)
    assert not folder.exists()


def test_killing_the_command_leaves_nothing(command: "subprocess.Popen[str]") -> None:
    pid, folder = announced(command)
    keeper = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    command.kill()
    assert ended(pid)
    assert ended(keeper)
    assert not folder.exists()


def test_the_command_says_when_its_node_ends_by_itself(command: "subprocess.Popen[str]") -> None:
    pid, folder = announced(command)
    os.kill(pid, signal.SIGKILL)
    assert command.wait(30) == 1
    assert command.stderr is not None
    assert "node 1 was ended by SIGKILL" in command.stderr.read()
    assert not folder.exists()


def test_the_command_makes_topics_and_starts_a_dead_node_again(one: EmbeddedKafka) -> None:
    with broker_command("--json", "--restart", "--topic", "events:3", "--topic", "plain") as process:
        try:
            pid, _ = announced(process)
            os.kill(pid, signal.SIGKILL)
            assert process.stderr is not None
            said: list[str] = []
            while not said or "is back" not in said[-1]:
                line = process.stderr.readline()
                assert line, said
                said.append(line)
            assert any("node 1 was ended by SIGKILL; starting it again" in line for line in said)
            (ready,) = [line for line in said if line.startswith("Kafka is ready: ")]
            admin = KafkaAdmin(ClientConfig(bootstrap_servers=ready.split()[3]), timeout_s=30.0)
            assert admin.partition_counts(["events", "plain"]) == {"events": 3, "plain": 6}
        finally:
            process.terminate()
            assert process.wait(30) == 0


@pytest.mark.slow
def test_of_three_nodes_two_serve_on(one: EmbeddedKafka) -> None:
    with broker_command("--json", "--nodes", "3") as process:
        try:
            pid, _ = announced(process)
            os.kill(pid, signal.SIGKILL)
            assert process.stderr is not None
            said = ""
            while "serve on" not in said:
                line = process.stderr.readline()
                assert line, said
                said += line
            assert "node 1 was ended by SIGKILL; the others serve on" in said
            assert process.poll() is None
        finally:
            process.terminate()
            assert process.wait(60) == 0


@pytest.mark.parametrize("word", ["", ":3", "events:", "events:0", "events:x", "events:99999999"])
def test_a_topic_that_is_none_is_one_sentence(word: str) -> None:
    with broker_command("--topic", word) as process:
        _, err = process.communicate(timeout=30)
    assert process.returncode == 2
    assert err.startswith(f"penstock broker: --topic {word} is not NAME or NAME:PARTITIONS")
    assert err.count("\n") == 1


def test_a_port_that_is_taken_is_one_sentence(one: EmbeddedKafka) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with broker_command("--port", str(port)) as process:
            out, err = process.communicate(timeout=30)
    assert process.returncode == 2
    assert out == "starting Apache Kafka ...\n"
    assert err == f"penstock broker: port {port} is not free for Kafka, so choose another one\n"
