"""`penstock top` and `penstock tail` beside a worker on a real broker: their numbers are those of a count of the topics."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from confluent_kafka import Producer

from penstock.connectors.embedded.cluster import free_ports
from tests.bundles import write_linear

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]
good, bad = 300, 7


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
        },
        "model": {"path": "model"},
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

    with command("top", settings, "--json", "--seconds", "4") as top:
        out, error = top.communicate(timeout=60)
    assert top.returncode == 0, error
    frame = json.loads(out.splitlines()[-1])
    assert (frame["read"], frame["predicted"], frame["rejected"]) == (sent + bad, sent, bad)
    assert (frame["in_flight"], frame["missing"], frame["objective_s"]) == (0, 0, 0.05)
    assert {each["partition"] for each in frame["partitions"]} == {0, 1}
    assert all(os.uname().nodename in each["owner"] for each in frame["partitions"])
