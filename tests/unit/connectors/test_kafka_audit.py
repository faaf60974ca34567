"""The audit's writer without a broker: a record that it cannot queue is the last of its chain."""

import pytest

from penstock.connectors.kafka import audit
from penstock.connectors.kafka.audit import KafkaAuditWriter
from penstock.connectors.kafka.client import ClientConfig


def opened() -> KafkaAuditWriter:
    return KafkaAuditWriter(ClientConfig(bootstrap_servers="127.0.0.1:1"), "audit")


def send(writer: KafkaAuditWriter, value: bytes = b"x") -> bool:
    return writer.send(b"chain", value, lambda: None)


def test_nothing_is_queued_behind_a_record_that_was_not_until_it_is_renewed() -> None:
    writer = opened()
    assert send(writer)
    assert not send(writer, b"x" * 2_000_000)
    assert "longer than" in writer.fault
    assert not send(writer)
    writer.turn(0.0)
    assert not send(writer)
    writer.renew()
    assert writer.fault == ""
    assert send(writer)
    assert writer.close(0.0) == 1


def test_a_full_queue_is_a_fault_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "queue_messages_max", 1)
    writer = opened()
    assert [send(writer) for _ in range(3)] == [True, False, False]
    assert "full" in writer.fault
    assert writer.close(0.0) == 1
