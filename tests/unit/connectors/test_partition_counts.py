"""Topics that get other partitions: whoever sends is replaced between two deliveries, never in the middle of one."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from penstock.connectors.delivery.at_least_once import AtLeastOnceSink, Tally
from penstock.connectors.kafka import contact as contact_module
from penstock.connectors.kafka import producers
from penstock.connectors.kafka.client import ClientConfig
from penstock.connectors.kafka.contact import KafkaContact
from penstock.connectors.kafka.partition_counts import PartitionCounts
from penstock.connectors.kafka.producers import KafkaTransactionalProducer
from penstock.schemas.records import Outgoing
from tests.clocks import HandClock


def test_what_was_given_out_does_not_change() -> None:
    counts = PartitionCounts({"in": 2, "out": 2})
    before = counts.now()
    counts.learn("out", 4)
    counts.learn("somebody's", 9)
    assert (dict(before), dict(counts)) == ({"in": 2, "out": 2}, {"in": 2, "out": 4})


class Client:
    def __init__(self, properties: dict[str, Any]) -> None:
        self.sent: list[tuple[str, int]] = []

    def purge(self) -> None: ...
    def poll(self, timeout_s: float) -> None: ...

    def __len__(self) -> int:
        return 0

    def produce_batch(self, topic: str, messages: Sequence[Any], target: int, on_delivery: Any) -> int:
        self.sent += [(topic, target)] * len(messages)
        return len(messages)


def outgoing(*partitions: int) -> Outgoing:
    return Outgoing(
        topic="out", partitions=np.array(partitions, dtype=np.int32), keys=[b"k"] * len(partitions),
        values=[b"v"] * len(partitions),
    )  # fmt: skip


def test_a_producer_keeps_to_the_numbers_it_was_made_for_and_is_suspect_when_they_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(producers, "open_client", lambda _, properties: Client(properties))
    counts = PartitionCounts({"in": 2, "out": 2})

    def make() -> KafkaTransactionalProducer:
        return KafkaTransactionalProducer(
            ClientConfig(bootstrap_servers="b:1"), transactional_id="x", topic="in", partition_counts=counts,
            transaction_timeout_s=10.0, memory_bytes_max=1 << 20,
        )  # fmt: skip

    old = make()
    assert not old.suspect()
    counts.learn("out", 4)
    old.produce(outgoing(0, 1), 0, 0.0)
    assert old.suspect()
    new = make()
    new.produce(outgoing(0, 1), 0, 0.0)
    assert not new.suspect()
    counts.learn("in", 4)
    newest = make()
    newest.produce(outgoing(3), 0, 0.0)
    sent = [p._queue.client.sent for p in (old, new, newest)]  # type: ignore[attr-defined]
    assert sent == [[("out", 0), ("out", 1)], [("out", -1), ("out", -1)], [("out", 3)]]
    for each in (old, new, newest):
        each.close()


class Acknowledger:
    def __init__(self) -> None:
        self.closed = False
        self.tallies: list[Tally] = []

    def produce(self, outgoing: Outgoing, start: int, tally: Tally, timeout_s: float) -> int:
        tally.queued += len(outgoing) - start
        self.tallies.append(tally)
        return len(outgoing)

    def serve(self, timeout_s: float) -> None: ...

    def close(self) -> None:
        self.closed = True


def test_at_least_once_what_is_under_way_ends_where_it_began() -> None:
    made: list[Acknowledger] = []
    outdated = False

    def make() -> Acknowledger:
        nonlocal outdated
        outdated = False
        made.append(Acknowledger())
        return made[-1]

    sink = AtLeastOnceSink(make=make, clock=HandClock(), outdated=lambda: outdated)
    sink.submit(SimpleNamespace(outgoing=[outgoing(0)], positions={0: 1}), None)
    outdated = True
    assert not sink.has_room()
    assert len(made) == 1
    made[0].tallies[0].reported = 1
    assert sink.advance(0.0) == 1
    assert sink.has_room()
    assert [each.closed for each in made] == [True, False]


def test_each_topic_is_asked_for_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Cluster:
        def __init__(self, properties: dict[str, Any]) -> None: ...

        def list_topics(self, topic: str, timeout: float) -> Any:
            asked.append(topic)
            partitions = dict.fromkeys(range(4 if topic == "out" else 2))
            return SimpleNamespace(topics={topic: SimpleNamespace(error=None, partitions=partitions)})

    monkeypatch.setattr(contact_module, "open_client", lambda _, properties: Cluster(properties))
    counts = PartitionCounts({"in": 2, "out": 2, "dead": 2})
    clock = HandClock()
    contact = KafkaContact(
        ClientConfig(bootstrap_servers="b:1"), topic="in", group="g", member="w", monotonic_s=clock.monotonic_s,
        counts=counts,
    )  # fmt: skip
    contact.close()
    contact._thread.join(5)
    for _ in range(4):
        contact._ask()
    assert asked[-4:].count("in") == 2
    assert set(asked) == {"in", "out", "dead"}
    assert contact.contact(asks_for_members=False).outputs == {"out": 4, "dead": 2}
