"""`penstock top` and `penstock tail`, the pages and /metrics beside two workers on a real broker: all tell the same numbers, and they
are those of a count of the topics."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Producer, TopicPartition
from prometheus_client.parser import text_string_to_metric_families

from penstock.connectors.embedded.cluster import free_ports
from tests.bundles import write_linear

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]
good, bad = 300, 7
many = int(os.environ.get("PENSTOCK_AGREE_RECORDS", "5000"))
"""Records of the longer run, one of a hundred of them bad."""
poison: tuple[bytes | None, ...] = (
    b"no json",
    b'{"x": 1}',
    b'{"a": "one", "b": 2.0, "c": 3.0}',
    b'{"a": 1.0, "b": ',
)


@pytest.fixture
def settings(kafka: str, new_topic: Callable[..., str], tmp_path: Path) -> Path:
    write_linear(tmp_path / "model")
    topics = {end: new_topic(f"top-{end}", partitions=2) for end in ("in", "out", "why", "dead")}
    tree = {
        "kafka": {"bootstrap_servers": kafka, "group": topics["in"]},
        "input": {"topic": topics["in"], "format": "json"},
        "output": {
            "predictions": topics["out"],
            "explanations": topics["why"],
            "dead_letters": topics["dead"],
            "format": "json",
        },
        "model": {"path": "model"},
        "workers": 2,
        "http": {"port": free_ports(1)[0]},
    }
    path = tmp_path / "penstock.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def command(*words: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "penstock", *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )  # fmt: skip


@pytest.fixture
def worker(settings: Path, tmp_path: Path) -> Iterator[None]:
    with (tmp_path / "worker.log").open("wb") as log:
        running = subprocess.Popen(
            [sys.executable, "-P", "-m", "penstock", "run", str(settings)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )  # fmt: skip
    yield
    running.send_signal(signal.SIGTERM)
    running.wait(60)


def test_the_numbers_agree_with_what_was_sent(kafka: str, settings: Path, worker: None) -> None:
    topic = yaml.safe_load(settings.read_text())["input"]["topic"]
    producer = Producer({"bootstrap.servers": kafka})

    def send(count: int, value: bytes) -> None:
        for number in range(count):
            producer.produce(topic, value=value, key=f"k{number}")
        assert producer.flush(30) == 0

    record = json.dumps({"a": 1.0, "b": 2.0, "c": -3.0}).encode()
    watched: list[str] = []
    sent = 0
    with command("tail", settings, "--json", "--records", good) as tail:
        assert tail.stdout is not None
        reading = threading.Thread(target=lambda: watched.extend(tail.stdout or ()))
        reading.start()
        send(bad, b"no json")
        while tail.poll() is None:  # it begins at the end: those that came before are not its own
            send(good // 10, record)
            sent += good // 10
            reading.join(1.0)
            assert sent < 20 * good
        reading.join()
        assert tail.wait() == 0, tail.stderr and tail.stderr.read()
    results = [json.loads(line) for line in watched]
    assert len({(each["partition"], each["offset"]) for each in results}) == good
    assert all(each["label"] in ("no", "yes") and len(each["reasons"]) == 3 for each in results)

    for number in range(many):
        is_bad = number % 100 == 99
        producer.produce(
            topic, value=poison[number // 100 % len(poison)] if is_bad else record, key=f"k{number}"
        )
        producer.poll(0)
    assert producer.flush(60) == 0
    sent, rejected = sent + many - many // 100, bad + many // 100
    port = yaml.safe_load(settings.read_text())["http"]["port"]
    until_s = time.monotonic() + 30 + many / 500
    while page(port, "flow")["totals"]["finished"] < sent + rejected:
        assert time.monotonic() < until_s, page(port, "flow")["totals"]
        time.sleep(0.25)
    by_reason = agreed(kafka, yaml.safe_load(settings.read_text())["output"], port, sent)
    assert sum(by_reason.values()) == rejected
    assert len(by_reason) > 2

    with command("top", settings, "--json", "--seconds", "4") as top:
        out, error = top.communicate(timeout=60)
    assert top.returncode == 0, error
    frame = json.loads(out.splitlines()[-1])
    assert (frame["predicted"], frame["rejected"]) == (sent, rejected)
    assert frame["read"] == sent + rejected + frame["dropped"]  # what a rebalance took away was read again
    assert (frame["in_flight"], frame["missing"], frame["objective_s"]) == (0, 0, 0.05)
    assert {each["partition"] for each in frame["partitions"]} == {0, 1}
    assert all(os.uname().nodename in each["owner"] for each in frame["partitions"])


def page(port: int, name: str) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/{name}", timeout=10) as answer:
        return json.loads(answer.read())


def agreed(kafka: str, topics: dict[str, Any], port: int, predicted: int) -> Counter[str]:
    """Set aside by reason, as the topics, the pages and /metrics all have it; they have the same of everything else too."""
    outcomes, explained, letters = (
        stored(kafka, topics[name]) for name in ("predictions", "explanations", "dead_letters")
    )
    places = [
        {(each["source"]["partition"], each["source"]["offset"]) for each in some}
        for some in (outcomes, explained, letters)
    ]
    assert [len(each) for each in places] == [len(outcomes), len(explained), len(letters)]  # each once
    assert places[0] == places[1]
    assert not places[0] & places[2]
    assert len(outcomes) == predicted
    by_reason = Counter(each["reason"] for each in letters)

    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    counted: Counter[tuple[str, str]] = Counter()
    for family in families:
        for each in family.samples:
            label = each.labels.get("outcome") or each.labels.get("reason") or ""
            counted[each.name, label] += int(each.value) if each.name.endswith("_records_total") else 0
    told = {
        name: counted["penstock_records_total", name]
        for name in ("predicted", "explained", "rejected", "skipped")
    }
    assert told == {"predicted": predicted, "explained": predicted, "rejected": len(letters), "skipped": 0}
    assert {
        label: count for (name, label), count in counted.items() if count and name == "penstock_rejected_records_total"
    } == by_reason  # fmt: skip

    totals = page(port, "flow")["totals"]
    assert totals == {**told, "finished": predicted + len(letters), "in_flight": 0}
    health = page(port, "health")
    assert {each["reason"]: each["records"] for each in health["rejected"]} == by_reason
    assert health["lag_records"] == 0
    return by_reason


def stored(kafka: str, topic: str) -> list[Any]:
    """Everything that is committed on a topic, read by Kafka's client alone."""
    consumer = Consumer(
        {
            "bootstrap.servers": kafka, "group.id": "count", "isolation.level": "read_committed", "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )  # fmt: skip
    partitions = list(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
    consumer.assign([TopicPartition(topic, each, OFFSET_BEGINNING) for each in partitions])
    found: list[Any] = []
    ends: set[int | None] = set()
    until_s = time.monotonic() + 60
    while len(ends) < len(partitions):
        assert time.monotonic() < until_s
        for message in consumer.consume(1000, timeout=1.0):
            error = message.error()
            if error is None:
                found.append(json.loads(message.value() or b"{}"))
            else:
                assert error.code() == KafkaError._PARTITION_EOF, error
                ends.add(message.partition())
    consumer.close()
    return found
