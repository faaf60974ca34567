"""A deployment with its admin port, on a real Kafka: paused, resumed, restarted and drained; nothing lost, all of it audited."""

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from confluent_kafka import Producer

from penstock.connectors.kafka.audit import read_audit
from penstock.connectors.kafka.client import ClientConfig
from penstock.connectors.kafka.simple import KafkaReader
from penstock.engine.clock import SystemClock
from penstock.schemas.errors import UnavailableError
from tests.bundles import write_linear

pytestmark = pytest.mark.kafka

token = "operations-canary-" + "t" * 40
partitions = 4


class Deployment:
    """`penstock run` with two workers and an admin port."""

    def __init__(self, kafka: str, new_topic: Callable[..., str], folder: Path) -> None:
        self.config = ClientConfig(bootstrap_servers=kafka)
        self.topics = {name: new_topic(name, partitions=partitions) for name in ("in", "out", "dead")}
        self.audit = new_topic("audit")
        self.names = [feature.name for feature in write_linear(folder / "model").signature.features]
        (folder / "token").write_text(token)
        (folder / "key").write_text("canary-" + "k" * 40)
        self.settings = folder / "penstock.yaml"
        self.settings.write_text(yaml.safe_dump({
            "kafka": {"bootstrap_servers": kafka, "group": self.topics["in"]},
            "input": {"topic": self.topics["in"], "format": "json"},
            "output": {"predictions": self.topics["out"], "dead_letters": self.topics["dead"], "format": "json"},
            "model": {"path": "model", "device": "cpu"},
            "workers": 2,
            "http": {"port": 0},
            "admin": {
                "port": 0, "audit_topic": self.audit, "audit_key_file": "key",
                "tokens": [{"name": "ops", "role": "admin", "file": "token"}],
            },
        }))  # fmt: skip
        self.log = folder / "log"
        self.producer = Producer({"bootstrap.servers": kafka})
        self.sent = 0
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "penstock", "run", str(self.settings)], stderr=log, stdout=log
            )

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def port(self) -> int:
        self.until(lambda: "/api/v1/state" in self.said())
        return int(self.said().split("/api/v1/state")[0].rsplit(":", 1)[1])

    def ask(
        self, method: str, path: str, body: Any = None, bearer: str = token, port: int | None = None
    ) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port(), timeout=20)
        try:
            headers = {"Authorization": f"Bearer {bearer}", "Content-Type": "application/json"}
            connection.request(method, f"/api/v1/{path}", None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def send(self, count: int) -> None:
        """So many records, in turn to each partition."""
        for _ in range(count):
            value = json.dumps(dict.fromkeys(self.names, float(self.sent))).encode()
            self.producer.produce(self.topics["in"], value, partition=self.sent % partitions)
            self.sent += 1
        assert self.producer.flush(30) == 0

    def places(self) -> list[tuple[int, int]]:
        """Of which records there are predictions."""
        reader = KafkaReader(self.config, self.topics["out"], SystemClock())
        try:
            values = [value for part in reader.read_to_end(60) for value in part.values]
        finally:
            reader.close()
        sources = [json.loads(value or b"")["source"] for value in values]
        return [(each["partition"], each["offset"]) for each in sources]

    def until(self, met: Callable[[], bool], timeout_s: float = 60.0) -> None:
        end_s = time.monotonic() + timeout_s
        while True:
            try:
                if met():
                    return
            except UnavailableError:
                pass
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < end_s, self.said()
            time.sleep(0.1)


@pytest.fixture
def deployment(kafka: str, new_topic: Callable[..., str], tmp_path: Path) -> Iterator[Deployment]:
    running = Deployment(kafka, new_topic, tmp_path)
    yield running
    if running.process.poll() is None:
        running.process.kill()
        running.process.wait(30)


def replays_over_http(deployment: Deployment) -> None:
    """Two letters of three go back by one plan, however often it is asked for; both are as bad as before."""

    def letters() -> int:
        reader = KafkaReader(deployment.config, deployment.topics["dead"], SystemClock())
        try:
            return sum(len(part.values) for part in reader.read_to_end(60))
        finally:
            reader.close()

    def settled(plan: str) -> dict[str, Any]:
        found: dict[str, Any] = {}

        def met() -> bool:
            found.update(deployment.ask("GET", "replays")[1]["replays"][0])
            return found["state"] not in ("looking", "putting_back")

        deployment.until(met)
        assert found["plan"] == plan
        return found

    def send(value: bytes) -> None:
        deployment.producer.produce(deployment.topics["in"], value, partition=0)
        assert deployment.producer.flush(30) == 0

    for value in (b"broken", b"broken", b"[]"):
        send(value)
    deployment.until(lambda: letters() == 3)
    found = settled(deployment.ask("POST", "replay", {"dry_run": True, "reasons": ["corrupt"]})[1]["plan"])
    assert (found["state"], found["letters_read"], found["to_replay"]["replayed"]) == ("ready", 3, 2), found
    send(b"broken")  # what comes after the look is not of its plan
    deployment.until(lambda: letters() == 4)
    status, _ = deployment.ask("POST", "replay", {"plan": found["plan"]})
    assert status == 202
    assert settled(found["plan"])["replayed"]["replayed"] == 2
    assert deployment.ask("POST", "replay", {"plan": found["plan"]})[1]["state"] == "done"
    deployment.until(lambda: letters() == 6)


def tries_a_record(deployment: Deployment) -> None:
    """From its page, in a process of its own: the served model says again what the stream said, and of another value what that
    makes; nothing is sent."""
    written = len(deployment.places())
    port = int(deployment.said().split("and health on http://")[1].split()[0].rsplit(":", 1)[1])
    place = {"topic": deployment.topics["in"], "partition": 0, "offset": 5}
    found: dict[str, Any] = {}

    def ask(**more: Any) -> dict[str, Any]:
        def answered() -> bool:
            found.clear()
            found.update(deployment.ask("POST", "trial", {**place, **more}, port=port)[1])
            return found.get("state") != "starting"

        deployment.until(answered)
        assert found.get("state") == "done", found
        return found

    assert deployment.ask("POST", "trial", place, bearer="x" * 50, port=port)[0] == 401
    again = ask()
    assert (
        again["after"]["features"][0]["value"] == 20.0
    )  # record 20 of those that go to four partitions in turn
    began_s = time.monotonic()
    for value in range(10):
        changed = ask(column=0, value=value)
        assert changed["changed"]["before"] == 20.0
        assert changed["summary"][0]["code"] in ("trial.raises", "trial.lowers"), changed
    assert (time.monotonic() - began_s) / 10 < 1.0  # ten times what one may take
    assert len(deployment.places()) == written


def test_what_an_operator_asks_for_is_done_loses_nothing_and_is_audited(deployment: Deployment) -> None:
    deployment.send(400)
    deployment.until(lambda: len(deployment.places()) == 400)
    replays_over_http(deployment)
    tries_a_record(deployment)
    assert deployment.ask("POST", "pause", {"partitions": [1, 3]}) == (
        200,
        {"paused": [1, 3], "log_level": None},
    )
    time.sleep(1.5)  # the workers look twice a second
    deployment.send(400)
    deployment.until(lambda: len(deployment.places()) == 600)
    time.sleep(1.0)
    counts = [sum(partition == p for p, _ in deployment.places()) for partition in range(partitions)]
    assert counts == [200, 100, 200, 100]

    assert (
        deployment.ask("POST", "restart", {"worker": "all"})[0] == 200
    )  # what starts anew is paused as well
    deployment.until(lambda: deployment.said().count("to be replaced as asked") == 2)
    time.sleep(4.0)
    assert len(deployment.places()) == 600, deployment.said()
    assert deployment.ask("POST", "drain", {}, bearer="x" * 50)[0] == 401
    assert deployment.ask("POST", "resume", {"partitions": "all"})[0] == 200
    deployment.until(lambda: len(deployment.places()) == 800)
    assert deployment.ask("POST", "log-level", {"level": "debug"})[0] == 200
    assert deployment.ask("POST", "drain", {})[0] == 200
    assert deployment.process.wait(60) == 0
    found = deployment.places()
    assert len(found) == len(set(found)) == 800  # each once

    records = [
        json.loads(value or b"")
        for _, _, value in read_audit(deployment.config, deployment.audit, SystemClock())
    ]
    tried = [(each["event"], each["action"]) for each in records if each["action"] == "trial"]
    assert tried[0] == ("refused", "trial")
    assert tried[1:] == [("allowed", "trial"), ("done", "trial")] * (len(tried) // 2)
    assert len(tried) >= 23
    assert [(each["event"], each["action"]) for each in records] == [
        ("started", ""), *[(event, "replay") for _ in range(3) for event in ("allowed", "done")], *tried, ("allowed", "pause"), ("done", "pause"), ("allowed", "restart"), ("done", "restart"), ("refused", "drain"),
        ("allowed", "resume"), ("done", "resume"), ("allowed", "log-level"), ("done", "log-level"), ("allowed", "drain"), ("done", "drain"),
        ("stopped", ""),
    ]  # fmt: skip
    for each in records:
        assert each["hash"] in deployment.said()  # a line each
    assert token not in deployment.said()

    def verify(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "penstock", "audit", "verify", str(deployment.settings), *more],
            capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "COLUMNS": "250"},
        )  # fmt: skip

    whole = verify("--holds", records[-1]["hash"])
    assert whole.returncode == 0, whole.stdout + whole.stderr
    assert f"{19 + len(tried)} records of {deployment.audit}: nothing was altered" in whole.stdout
    deployment.producer.produce(
        deployment.audit, json.dumps(records[12 + len(tried)] | {"who": "nobody"}).encode(), partition=0
    )
    assert deployment.producer.flush(30) == 0
    altered = verify()
    assert altered.returncode == 1
    assert f"partition 0 offset {19 + len(tried)}: was changed: its hash does not fit" in altered.stdout
