"""The memory broker's own promises: shares, silence, logs with transactions, bounds."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.connectors.memory.broker import Fault, MemoryBroker, Point
from penstock.connectors.memory.clients import MemoryProducer
from penstock.connectors.memory.log import PartitionLog, State, Transaction, finish
from penstock.connectors.partitioner import murmur2
from penstock.engine.ports import Delivery
from penstock.schemas.errors import AbortedError, ConfigError, FencedError, UnavailableError
from penstock.schemas.records import Outgoing


class SimulatedClock:
    """Time that moves when someone waits."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_ms(self) -> int:
        return int(self.now_s * 1000)

    def sleep(self, duration_s: float) -> None:
        self.now_s += duration_s


class Held:
    """What a member was told."""

    def __init__(self) -> None:
        self.partitions: set[int] = set()
        self.lost: set[int] = set()

    def on_assigned(self, partitions: Sequence[int]) -> None:
        assert not self.partitions & set(partitions)
        self.partitions |= set(partitions)

    def on_revoked(self, partitions: Sequence[int]) -> None:
        assert self.partitions >= set(partitions)
        self.partitions -= set(partitions)

    def on_lost(self, partitions: Sequence[int]) -> None:
        self.partitions -= set(partitions)
        self.lost |= set(partitions)


def broker(clock: SimulatedClock, *, retention_bytes: int = 1 << 20) -> MemoryBroker:
    return MemoryBroker(
        clock, wait=lambda _, duration_s: clock.sleep(duration_s), retention_bytes=retention_bytes
    )


def outgoing(topic: str, values: list[bytes | None], partition: int = 0) -> Outgoing:
    return Outgoing(
        topic=topic,
        keys=[None] * len(values),
        values=values,
        partitions=np.full(len(values), partition, np.int32),
    )


@pytest.mark.parametrize(
    ("key", "digest"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_kafka_s(key: bytes, digest: int) -> None:
    assert murmur2(key) == digest & 0xFFFFFFFF


class TestGroups:
    @given(
        partitions=st.integers(1, 9),
        steps=st.lists(
            st.tuples(st.sampled_from(["join", "leave", "poll", "poll", "expire"]), st.integers(0, 5)),
            max_size=40,
        ),
    )
    def test_a_partition_has_one_holder_and_the_shares_become_even(
        self, partitions: int, steps: list[tuple[str, int]]
    ) -> None:
        clock = SimulatedClock()
        kafka = broker(clock)
        kafka.create_topic("t", partitions)
        members = []
        for step, which in steps:
            if step == "join":
                held = Held()
                members.append((kafka.source(group="g", topic="t", listener=held), held))
            elif members:
                source, held = members[which % len(members)]
                if step == "leave":
                    source.close(0.0)
                    members.remove((source, held))
                elif step == "expire":
                    kafka.expire("g", source.member)
                else:
                    source.poll(1, 0.0)
        for _ in range(4):
            for source, _held in members:
                source.poll(1, 0.0)
        shares = [held.partitions for _, held in members]
        for place, share in enumerate(shares):
            assert not any(share & other for other in shares[place + 1 :])
        if members:
            assert set().union(*shares) == set(range(partitions))
            assert max(map(len, shares)) - min(map(len, shares)) <= 1

    def test_a_newcomer_takes_no_more_than_its_share(self) -> None:
        kafka = broker(SimulatedClock())
        kafka.create_topic("t", 6)
        one, two, three = Held(), Held(), Held()
        sources = [kafka.source(group="g", topic="t", listener=held) for held in (one, two)]
        for source in sources * 3:
            source.poll(1, 0.0)
        before = [set(one.partitions), set(two.partitions)]
        sources.append(kafka.source(group="g", topic="t", listener=three))
        for source in sources * 3:
            source.poll(1, 0.0)
        assert [len(h.partitions) for h in (one, two, three)] == [2, 2, 2]
        assert one.partitions < before[0]
        assert two.partitions < before[1]

    def test_a_silent_member_loses_its_partitions_and_is_told_when_it_comes_back(self) -> None:
        clock = SimulatedClock()
        kafka = broker(clock)
        kafka.create_topic("t", 2)
        silent, other = Held(), Held()
        first = kafka.source(group="g", topic="t", listener=silent, max_poll_interval_s=10.0)
        first.poll(1, 0.0)
        assert silent.partitions == {0, 1}
        second = kafka.source(group="g", topic="t", listener=other, max_poll_interval_s=100.0)
        clock.sleep(11.0)
        second.poll(1, 0.0)
        assert other.partitions == {0, 1}
        stale = first.membership if silent.partitions else None
        assert stale is not None
        with pytest.raises(UnavailableError):
            stale()
        first.poll(1, 0.0)
        assert silent.lost == {0, 1}

    def test_new_partitions_are_shared_out(self) -> None:
        kafka = broker(SimulatedClock())
        kafka.create_topic("t", 1)
        held = Held()
        source = kafka.source(group="g", topic="t", listener=held)
        source.poll(1, 0.0)
        kafka.create_topic("t", 3)
        source.poll(1, 0.0)
        assert held.partitions == {0, 1, 2}


class TestLog:
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["plain", "a", "b", "commit a", "commit b", "abort a", "abort b"]),
                st.integers(1, 4),
            ),
            max_size=30,
        ),
        st.integers(1, 5),
    )
    def test_a_committed_read_sees_what_is_committed_in_order_up_to_the_first_open_transaction(
        self, steps: list[tuple[str, int]], records_max: int
    ) -> None:
        log = PartitionLog(1 << 30)
        transactions: dict[str, Transaction] = {}
        written: list[tuple[int, bytes, Transaction | None]] = []
        number = 0
        for step, count in steps:
            word, _, name = step.partition(" ")
            if word in ("commit", "abort"):
                if (done := transactions.pop(name, None)) is not None:
                    finish(done, State.COMMITTED if word == "commit" else State.ABORTED)
                continue
            transaction = None
            if word != "plain":
                transaction = transactions.setdefault(word, Transaction(began_s=0.0))
            values: list[bytes | None] = [b"%d" % (number + n) for n in range(count)]
            number += count
            first = log.append(
                keys=[None] * count, values=values, timestamps_ms=[0] * count, transaction=transaction
            )
            written += [(first + n, v, transaction) for n, v in enumerate(values) if v is not None]
        stable = min((o for o, _, t in written if t and t.state is State.OPEN), default=log.end)
        expected = [(o, v) for o, v, t in written if o < stable and (t is None or t.state is State.COMMITTED)]
        assert log.stable_end == stable
        position, found = 0, []
        while True:
            read = log.read(position, records_max)
            assert len(read.values) <= records_max
            found += list(zip(read.offsets.tolist(), read.values, strict=True))
            if read.position == position:
                break
            position = read.position
        assert found == expected
        assert position == stable

    def test_what_does_not_fit_goes_from_the_front_and_reading_there_is_an_error(self) -> None:
        kafka = broker(SimulatedClock(), retention_bytes=20_000)
        kafka.create_topic("t", 1)
        held = Held()
        source = kafka.source(group="g", topic="t", listener=held)
        source.poll(1, 0.0)
        writer = kafka.writer("t")
        for _ in range(100):
            writer.write([bytes(1000)])
        earliest, end = kafka.bounds("t", 0)
        assert end == 100
        assert 0 < end - earliest <= 20
        with pytest.raises(ConfigError, match="partition 0"):
            source.poll(1, 0.0)


class TestTransactions:
    def test_an_overdue_transaction_is_ended_and_its_producer_is_fenced(self) -> None:
        clock = SimulatedClock()
        kafka = broker(clock)
        kafka.create_topic("in", 1)
        kafka.create_topic("out", 1)
        producer = MemoryProducer(kafka, "id", "in", 10.0)
        producer.initialise(1.0)
        producer.begin()
        producer.produce(outgoing("out", [b"late"]), 0, 1.0)
        assert kafka.bounds("out", 0) == (0, 0)
        clock.sleep(10.0)
        kafka.writer("out").write([b"after"])
        assert [v for r in kafka.reader("out").read_to_end(1.0) for v in r.values] == [b"after"]

    def test_offsets_show_lag_owner_and_age(self) -> None:
        clock = SimulatedClock()
        kafka = broker(clock)
        kafka.create_topic("in", 2)
        kafka.writer("in").write([b"a", b"b"], partition=0, timestamp_ms=77)
        source = kafka.source(group="g", topic="in", listener=Held(), exactly_once=False)
        source.poll(10, 0.0)
        source.commit({0: 1})
        rows = kafka.offsets("g").read("in")
        assert [(r.partition, r.earliest, r.end, r.committed) for r in rows] == [
            (0, 0, 2, 1),
            (1, 0, 0, None),
        ]
        assert [r.oldest_unfinished_timestamp_ms for r in rows] == [77, None]
        assert [r.owner for r in rows] == [source.member] * 2
        assert source.ends([0, 1, 5]) == {0: 2, 1: 0}


class TestFaults:
    @pytest.mark.parametrize(
        ("fault", "error"), [(Fault.FENCED, FencedError), (Fault.UNAVAILABLE, UnavailableError)]
    )
    def test_a_poll_can_fail(self, fault: Fault, error: type[Exception]) -> None:
        kafka = broker(SimulatedClock())
        kafka.create_topic("t", 1)
        source = kafka.source(group="g", topic="t", listener=Held())
        kafka.inject(Point.POLL, fault)
        with pytest.raises(error):
            source.poll(1, 0.0)
        source.poll(1, 0.0)

    def test_at_least_once_a_refused_delivery_is_reported_and_the_sink_goes_on(self) -> None:
        kafka = broker(SimulatedClock())
        kafka.create_topic("in", 1)
        kafka.create_topic("out", 1)
        sink = kafka.at_least_once_sink(topic="in")
        kafka.inject(Point.PRODUCE, Fault.ABORTABLE)
        sink.submit(Delivery(outgoing=[outgoing("out", [b"x"])], positions={0: 1}), None)
        with pytest.raises(AbortedError):
            sink.advance(0.0)
        assert sink.has_room()
        sink.submit(Delivery(outgoing=[outgoing("out", [b"y"])], positions={0: 1}), None)
        assert sink.advance(0.0) == 1
        assert [v for r in kafka.reader("out").read_to_end(1.0) for v in r.values] == [b"y"]


@pytest.mark.parametrize("what", ["expelled", "recreated"])
def test_a_partition_that_was_lost_while_it_stood_still_is_read_again(what: str) -> None:
    """Whoever held it hears that it is lost, and knows nothing of it any more."""
    kafka = broker(SimulatedClock())
    kafka.create_topic("t", 1)
    source = kafka.source(group="g", topic="t", listener=Held())
    source.poll(1, 0.0)
    source.hold([0])
    if what == "expelled":
        kafka.expire("g", source.member)
    else:
        kafka.recreate_topic("t", 1)
    source.poll(1, 0.0)
    kafka.writer("t").write([b"v"])
    found = source.poll(1, 0.0)
    assert found is not None
    assert found.values == [b"v"]
