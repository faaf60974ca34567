"""A delivery goes to the client in pieces: every message once, in the order of its partition, however often there is no room."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.connectors.kafka import producers
from penstock.connectors.kafka.client import ClientConfig
from penstock.connectors.kafka.producers import KafkaTransactionalProducer
from penstock.schemas.records import Outgoing

Sent = tuple[bytes | None, bytes | None]
messages_per_call = 100  # in place of the thousands that a user has


class Client:
    """Takes messages; `acknowledged` says at which calls of `flush` everything is acknowledged."""

    def __init__(self, acknowledged: Sequence[bool]) -> None:
        self.sent: dict[int, list[Sent]] = defaultdict(list)
        self.calls: list[int] = []
        self.most_bytes = 0
        self._queued: list[int] = []
        self._acknowledged = iter(acknowledged)

    def purge(self) -> None: ...
    def poll(self, timeout_s: float) -> None: ...

    def flush(self, timeout_s: float) -> int:
        if next(self._acknowledged, True):
            self._queued.clear()
        return len(self._queued)

    def __len__(self) -> int:
        return len(self._queued)

    def produce_batch(self, topic: str, messages: Sequence[Any], target: int, on_delivery: Any) -> int:
        self.sent[target] += [(message["value"], message["key"]) for message in messages]
        self.calls.append(len(messages))
        self._queued += [len(m["value"] or b"") + len(m["key"] or b"") for m in messages]
        if len(self._queued) > len(messages):  # a piece that goes into an empty queue always has room
            self.most_bytes = max(self.most_bytes, sum(self._queued))
        return len(messages)


@given(
    rows=st.integers(0, 3 * messages_per_call),
    partitions=st.integers(1, 5),
    input_partitions=st.sampled_from((0, 3)),
    keys=st.sampled_from(("none", "some", "all")),
    tombstones=st.booleans(),
    bytes_max=st.sampled_from((1_000, 40_000, 1 << 20)),
    acknowledged=st.lists(st.booleans(), max_size=12),
    seed=st.integers(0, 99),
)
def test_every_message_is_queued_once_and_in_order(
    rows: int,
    partitions: int,
    input_partitions: int,
    keys: str,
    tombstones: bool,
    bytes_max: int,
    acknowledged: list[bool],
    seed: int,
) -> None:
    chance = np.random.default_rng(seed)
    targets = chance.integers(0, partitions, rows, dtype=np.int32)
    outgoing = Outgoing(
        topic="out",
        partitions=targets,
        keys=[None if keys == "none" or (keys == "some" and i % 3) else b"k%d" % i for i in range(rows)],
        values=[None if tombstones and i % 5 == 0 else b"v%d" % i * (i % 7) for i in range(rows)],
    )
    client = Client(acknowledged)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(producers, "open_client", lambda *_: client)
        patched.setattr(producers, "messages_per_call", messages_per_call)
        producer = KafkaTransactionalProducer(
            ClientConfig(bootstrap_servers="b:1"), transactional_id="x", topic="in",
            partition_counts={"in": input_partitions or partitions, "out": partitions},
            transaction_timeout_s=10.0, memory_bytes_max=bytes_max,
        )  # fmt: skip
        done = 0
        for _ in range(rows + len(acknowledged) + 1):
            before, done = done, producer.produce(outgoing, done, 0.0)
            assert done >= before
            if done == rows:
                break
    assert done == rows

    by_key = input_partitions not in (0, partitions)
    wanted: dict[int, list[Sent]] = defaultdict(list)
    for target, value, key in zip(targets.tolist(), outgoing.values, outgoing.keys, strict=True):
        wanted[-1 if by_key else target].append((value, key))
    assert client.sent == wanted
    assert max(client.calls, default=0) <= messages_per_call
    assert client.most_bytes <= bytes_max
