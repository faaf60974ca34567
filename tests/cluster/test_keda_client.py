"""KEDA's own client of external-push scalers against `penstock scaler` on a real Kafka."""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from confluent_kafka import Consumer, Producer, TopicPartition

from penstock.connectors.embedded.cluster import free_ports
from penstock.connectors.embedded.secured import SecureFolder
from tests.cluster.api import await_
from tests.cluster.built import Programs
from tests.cluster.keda import KedaClient, metric, pem
from tests.cluster.report import Report

pytestmark = pytest.mark.kafka
wake_s = 1.0
slow_machine_s = 4.0  # of a machine that does much else at the time
NewTopic = Callable[..., str]


class Scaler:
    """`penstock scaler` in a process, which may be stopped and started again on its port."""

    def __init__(self, folder: Path, kafka: str, topic: str, **scaling: Any) -> None:
        self.port, self._folder, self._topic, self._kafka = free_ports(1)[0], folder, topic, kafka
        tree = {
            "kafka": {"bootstrap_servers": kafka, "group": f"{topic}-group"},
            "input": {"topic": topic},
            "output": {"predictions": f"{topic}-p", "dead_letters": f"{topic}-d"},
            "model": {"path": "unused"}, "http": {"port": 0},
            "scaling": {"port": self.port, "max_age_s": 10, "max_replicas": 5, **scaling},
        }  # fmt: skip
        (folder / "penstock.yaml").write_text(yaml.safe_dump(tree))
        self.start()

    def start(self) -> None:
        with (self._folder / "scaler.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "penstock", "scaler", str(self._folder / "penstock.yaml")],
                stdout=log,
                stderr=log,
            )

    def stop(self) -> int:
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(30)

    def produce(self, count: int) -> float:
        """Write so many records; when the first was acknowledged, in ms since 1970."""
        producer = Producer({"bootstrap.servers": self._kafka})
        for _ in range(count):
            producer.produce(self._topic, value=b"x", partition=0)
        assert producer.flush(30) == 0
        return time.time() * 1000

    def finish(self, offset: int) -> None:
        """All before the offset is done, says the group."""
        consumer = Consumer(
            {
                "bootstrap.servers": self._kafka,
                "group.id": f"{self._topic}-group",
                "enable.auto.commit": False,
            }
        )
        consumer.commit(offsets=[TopicPartition(self._topic, 0, offset)], asynchronous=False)
        consumer.close()

    @property
    def trigger(self) -> dict[str, str]:
        return {"scalerAddress": f"127.0.0.1:{self.port}", "group": f"{self._topic}-group"}


@pytest.fixture
def scaler(kafka: str, new_topic: NewTopic, tmp_path: Path) -> Iterator[Scaler]:
    """Its topic's one record is finished: nothing to do."""
    made = Scaler(tmp_path, kafka, new_topic("in", partitions=4))
    made.produce(1)
    made.finish(1)
    yield made
    made.stop()


def answered(client: KedaClient) -> dict[str, Any] | None:
    found = client.metrics()
    return None if "error" in found else found


def test_specs_metrics_and_activity(built: Programs, scaler: Scaler, report: Report) -> None:
    with KedaClient(built, scaler.trigger) as client:
        idle = await_(lambda: answered(client), 60, "a number")
        assert (idle["active"], idle["values"][0]["value"]) == (False, "0")
        assert client.specs() == [{
            "type": "External",
            "external": {"metric": {"name": metric}, "target": {"type": "AverageValue", "averageValue": "1"}},
        }]  # fmt: skip
        scaler.produce(1)
        await_(lambda: client.metrics().get("active") or None, 60, "work")
        # KEDA asks for the number first and for the activity after it: work seen between the two shows in the next answer.
        busy = client.metrics()
        assert busy["values"][0]["value"] == "1", "nobody has measured a worker: one, until somebody has"
        assert "NotFound" in client.metrics("s0-another")["error"]
        took = sorted(client.metrics()["took_ms"] for _ in range(50))
    assert took[25] < 250
    report.note(
        "client",
        f"specs, metrics and activity as they should be; both calls together take {took[25]:.1f} ms (median of 50, at most {took[-1]:.0f})",
    )


def test_a_trigger_of_another_group_is_refused(built: Programs, scaler: Scaler) -> None:
    with KedaClient(built, {**scaler.trigger, "group": "another"}) as client:
        await_(lambda: "another group" in client.metrics()["error"] or None, 60, "a refusal")


rounds, at_once = 4, 5


def test_the_first_record_is_pushed_within_a_second(
    built: Programs, kafka: str, new_topic: NewTopic, tmp_path: Path, report: Report
) -> None:
    """Each scaler has a topic of its own, since one that had work a moment ago has it for two minutes more."""
    waits_s: list[float] = []
    chance = random.Random(16)
    for turn in range(rounds):
        with ExitStack() as held:
            scalers, clients = [], []
            for number in range(at_once):
                folder = tmp_path / f"{turn}-{number}"
                folder.mkdir()
                scalers.append(Scaler(folder, kafka, new_topic("in", partitions=4)))
                held.callback(scalers[-1].stop)
                scalers[-1].produce(1)
                scalers[-1].finish(1)
                clients.append(held.enter_context(KedaClient(built, scalers[-1].trigger)))
            for client in clients:
                await_(lambda client=client: answered(client), 60, "a number")  # type: ignore[misc]
                client.run()
                assert client.next("active")["active"] is False
            for scaler, client in zip(scalers, clients, strict=True):
                time.sleep(chance.uniform(0.0, 0.5))
                written_ms = scaler.produce(1)
                told = client.next("active")
                assert told["active"] is True
                waits_s.append((told["at_ms"] - written_ms) / 1000)
    assert max(waits_s) < wake_s + slow_machine_s
    report.note(
        "push",
        f"{min(waits_s):.2f} to {max(waits_s):.2f} s after the broker's acknowledgement, {sorted(waits_s)[len(waits_s) // 2]:.2f} in the middle; "
        f"{sum(each <= wake_s for each in waits_s)} of {len(waits_s)} within {wake_s:g} s",
    )


def test_a_scaler_that_ends_ends_its_streams_well(built: Programs, scaler: Scaler, report: Report) -> None:
    with KedaClient(built, scaler.trigger) as client:
        await_(lambda: answered(client), 60, "a number")
        client.run()
        client.next("active")
        before = client.errors()
        assert scaler.stop() == 0
        stopped_ms = time.time() * 1000
        backoff = client.next("log", 30)
        assert '"duration":"2s"' in backoff["line"], (
            "the stream's end was an error: KEDA would wait longer and longer"
        )
        assert client.errors() == before
        scaler.start()
        again = client.next("active", 120)
    report.note(
        "ended",
        f"the stream ends with OK, KEDA asks again after 2 s; told again {(again['at_ms'] - stopped_ms) / 1000:.1f} s after the end of the first",
    )


def test_tls_on_both_sides(
    built: Programs, kafka: str, new_topic: NewTopic, tmp_path: Path, report: Report
) -> None:
    authority, stranger = SecureFolder(tmp_path / "tls", users={}), SecureFolder(tmp_path / "other", users={})
    for each in (authority, stranger):
        each.make()
        each.issue("keda", common_name="keda")
    authority.issue("scaler", common_name="scaler", addresses=("IP:127.0.0.1",))
    at = lambda name: authority.folder / name  # noqa: E731
    scaler = Scaler(
        tmp_path, kafka, new_topic("in"),
        certificate_file=str(at("scaler.pem")), key_file=str(at("scaler.key")), client_ca_file=str(at("ca.pem")),
    )  # fmt: skip
    right = {
        "caCert": pem(at("ca.pem")),
        "tlsClientCert": pem(at("keda.pem")),
        "tlsClientKey": pem(at("keda.key")),
    }
    wrong = {
        "no certificate": {"caCert": right["caCert"]},
        "of another authority": right | {
            "tlsClientCert": pem(stranger.folder / "keda.pem"), "tlsClientKey": pem(stranger.folder / "keda.key")},
        "for another server": right | {"caCert": pem(stranger.folder / "ca.pem")},
    }  # fmt: skip
    try:
        with KedaClient(built, scaler.trigger | {"enableTLS": "true"}, right) as client:
            await_(lambda: answered(client), 60, "a number")
            assert len(client.specs()) == 1
        for name, auth in wrong.items():
            with KedaClient(built, scaler.trigger | {"enableTLS": "true"}, auth) as client:
                assert "error" in client.metrics(), name
        with KedaClient(built, scaler.trigger) as client:
            assert "error" in client.metrics(), "without TLS"
    finally:
        scaler.stop()
    report.note("secured", f"its certificate opens; {', '.join(wrong)} and plain text do not")
