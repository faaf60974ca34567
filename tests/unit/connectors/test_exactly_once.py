"""The exactly-once sink under every fault a broker can have, from one seed: nothing is lost, doubled or out of order."""

import random
from collections import deque
from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest

from penstock.connectors.delivery.exactly_once import TransactionalSink
from penstock.connectors.delivery.producer_port import AbortableError, BrokenError, UnfinishedError
from penstock.connectors.memory.broker import Fault, MemoryBroker, Point
from penstock.connectors.memory.clients import MemoryProducer, MemorySource
from penstock.engine.ports import Delivery
from penstock.schemas.errors import AbortedError, FencedError, InvariantError, UnavailableError
from penstock.schemas.records import Outgoing, Records

partitions = 3
points = [
    Point.INITIALISE,
    Point.PRODUCE,
    Point.OFFSETS,
    Point.FLUSH,
    Point.COMMIT,
    Point.ABORT,
    Point.COMMITTED,
]
faults = [Fault.UNAVAILABLE, Fault.ABORTABLE, Fault.UNKNOWN_DONE, Fault.UNKNOWN_UNDONE]


class SimulatedClock:
    """Time that moves when someone waits."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_ms(self) -> int:
        return int(self.now_s * 1000)

    def sleep(self, duration_s: float) -> None:
        self.now_s += max(duration_s, 0.001)


class Worker:
    """The engine's loop without the engine: poll, submit, advance, and rewind when told."""

    def __init__(self, world: "World", slot: int) -> None:
        self.world = world
        self.slot = slot
        self.start()

    def start(self) -> None:
        self.held: Records | None = None  # polled and not submitted
        self.pending: deque[Records] = deque()
        self.sink: TransactionalSink = self.world.broker.exactly_once_sink(
            group="g",
            topic="in",
            transactional_ids=(f"g-{self.slot}-a", f"g-{self.slot}-b"),
            start_timeout_s=3600.0,
        )
        self.source: MemorySource = self.world.broker.source(
            group="g", topic="in", listener=self, max_poll_interval_s=60.0
        )

    def turn(self) -> None:
        if self.held is not None:
            self.source.pause()
            assert self.source.poll(1, 0.0) is None
        else:
            self.source.resume()
            self.held = self.source.poll(self.world.random.randint(1, 9), 0.0)
        if self.held is not None and self.sink.has_room():
            records, self.held = self.held, None
            out = Outgoing(
                topic="out", keys=records.keys, values=records.values, partitions=records.partitions
            )
            self.pending.append(records)
            self.sink.submit(Delivery(outgoing=[out], positions=after(records)), self.source.membership())
        self.settle(0.1 if self.world.random.random() < 0.5 else 0.0)

    def settle(self, timeout_s: float) -> None:
        try:
            for _ in range(self.sink.advance(timeout_s)):
                self.pending.popleft()
        except AbortedError:
            self.world.aborts += 1
            self.rewind()

    def rewind(self) -> None:
        again: dict[int, int] = {}
        for records in [*self.pending, *([self.held] if self.held is not None else [])]:
            for partition, offset in zip(records.partitions.tolist(), records.offsets.tolist(), strict=True):
                again[partition] = min(offset, again.get(partition, offset))
        self.pending.clear()
        self.held = None
        self.source.seek(again)

    def on_assigned(self, partitions: Sequence[int]) -> None:
        pass

    def on_revoked(self, partitions: Sequence[int]) -> None:
        if self.world.random.random() < 0.5:
            for _ in range(20):
                self.settle(0.1)
        self.give_up()

    def on_lost(self, partitions: Sequence[int]) -> None:
        self.give_up()

    def give_up(self) -> None:
        for _ in range(self.sink.abort()):
            self.pending.popleft()
        self.rewind()


def after(records: Records) -> dict[int, int]:
    return {
        partition: int(records.offsets[records.partitions == partition].max()) + 1
        for partition in np.unique(records.partitions).tolist()
    }


class World:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.clock = SimulatedClock()
        self.broker = MemoryBroker(self.clock, wait=lambda _, duration_s: self.clock.sleep(duration_s))
        self.broker.create_topic("in", partitions)
        self.broker.create_topic("out", partitions)
        self.written = 0
        self.aborts = 0
        self.workers = [Worker(self, 0), Worker(self, 1)]

    def run(self, turns: int) -> "World":
        for _ in range(turns):
            self.step()
        for _ in range(3000):
            if self.finished():
                self.clock.sleep(60.0)  # transactions of killed workers end, and hide nothing any more
                return self
            for worker in self.workers:
                self.guard(worker)
            self.clock.sleep(0.05)  # who was killed is missed at last
        raise AssertionError("the work was not finished")

    def step(self) -> None:
        chance = self.random.random()
        if chance < 0.2:
            values = [b"%08d" % (self.written + n) for n in range(self.random.randint(1, 12))]
            self.written += len(values)
            self.broker.writer("in").write(values, keys=[b"%d" % self.random.randint(0, 9) for _ in values])
        elif chance < 0.3:
            self.broker.inject(
                self.random.choice(points), self.random.choice(faults), times=self.random.randint(1, 2)
            )
        elif chance < 0.32:
            self.broker.expire("g", self.random.choice(self.workers).source.member)
        elif chance < 0.33:
            self.random.choice(self.workers).start()  # killed: nothing is closed, nobody is told
        elif chance < 0.34:
            self.clock.sleep(40.0)
        else:
            self.guard(self.random.choice(self.workers))

    def guard(self, worker: Worker) -> None:
        try:
            worker.turn()
        except (FencedError, UnavailableError):
            worker.start()

    def finished(self) -> bool:
        rows = self.broker.offsets("g").read("in")
        return all(row.end in (0, row.committed) for row in rows)


@pytest.mark.parametrize("seed", range(60))
def test_each_input_comes_out_once_and_in_order(seed: int) -> None:
    world = World(seed).run(turns=400)
    latest: dict[bytes, bytes] = {}
    found = []
    for records in world.broker.reader("out").read_to_end(1.0):
        for key, value in zip(records.keys, records.values, strict=True):
            assert key is not None
            assert value is not None
            assert latest.get(key, b"") < value, f"seed={seed}: order"
            latest[key] = value
            found.append(int(value))
    assert sorted(found) == list(range(world.written)), f"seed={seed}"


def test_the_faults_do_happen() -> None:
    assert sum(World(seed).run(turns=400).aborts for seed in range(5)) > 5


class TestOneFault:
    @pytest.fixture
    def world(self) -> World:
        made = World(0)
        made.workers.clear()
        made.broker.expire("g")
        return made

    def sink(self, world: World) -> TransactionalSink:
        return world.broker.exactly_once_sink(group="g", topic="in", transactional_ids=("x", "y"))

    def member(self, world: World) -> MemorySource:
        class Silent:
            def on_assigned(self, partitions: Sequence[int]) -> None: ...
            def on_revoked(self, partitions: Sequence[int]) -> None: ...
            def on_lost(self, partitions: Sequence[int]) -> None: ...

        source = world.broker.source(group="g", topic="in", listener=Silent())
        source.poll(1, 0.0)
        return source

    def one(self, number: int) -> Delivery:
        out = Outgoing(topic="out", keys=[b"k"], values=[b"%d" % number], partitions=np.zeros(1, np.int32))
        return Delivery(outgoing=[out], positions={0: number + 1})

    def test_a_producer_whose_commit_ended_unclear_is_replaced(self, world: World) -> None:
        sink, source = self.sink(world), self.member(world)
        world.broker.inject(Point.COMMIT, Fault.UNKNOWN_DONE)
        sink.submit(self.one(0), source.membership())
        assert sink.advance(1.0) == 1
        assert sink.renewals == 1

    def test_an_impatient_broker_is_waited_for(self, world: World) -> None:
        sink, source = self.sink(world), self.member(world)
        world.broker.inject(Point.COMMIT, Fault.UNAVAILABLE, times=3)
        sink.submit(self.one(0), source.membership())
        assert sum(sink.advance(0.1) for _ in range(10)) == 1
        assert sink.renewals == 0

    def test_a_commit_that_never_answers_is_resolved_within_the_transaction_s_time(
        self, world: World
    ) -> None:
        sink, source = self.sink(world), self.member(world)
        world.broker.inject(Point.COMMIT, Fault.UNAVAILABLE, times=1000)
        sink.submit(self.one(0), source.membership())
        began_s = world.clock.now_s
        with pytest.raises(AbortedError):
            sum(sink.advance(0.1) for _ in range(1000))
        assert world.clock.now_s - began_s < 30.0
        assert sink.renewals == 1

    def test_a_refused_commit_that_was_done_all_the_same_is_delivered(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The broker commits and says an error of the kind that asks for an abort; the abort it then refuses."""
        commit = MemoryProducer.commit

        def commits_and_lies(producer: MemoryProducer, timeout_s: float) -> None:
            commit(producer, timeout_s)
            raise AbortableError("an error that says that nothing was done")

        def refused(producer: MemoryProducer, timeout_s: float) -> None:
            raise BrokenError("the transaction is in another state")

        sink, source = self.sink(world), self.member(world)
        with monkeypatch.context() as patched:
            patched.setattr(MemoryProducer, "commit", commits_and_lies)
            patched.setattr(MemoryProducer, "abort", refused)
            sink.submit(self.one(0), source.membership())
            assert sink.advance(1.0) == 1
        assert sink.renewals == 1
        sink.submit(self.one(1), source.membership())
        assert sink.advance(1.0) == 1

    def test_without_a_verdict_abort_says_so(self, world: World) -> None:
        sink, source = self.sink(world), self.member(world)
        world.broker.inject(Point.COMMIT, Fault.UNKNOWN_DONE)
        world.broker.inject(Point.COMMITTED, Fault.UNAVAILABLE, times=1000)
        sink.submit(self.one(0), source.membership())
        assert sink.advance(0.1) == 0
        with pytest.raises(UnavailableError):
            sink.abort()

    def test_a_start_that_is_not_answered_ends(self, world: World) -> None:
        world.broker.inject(Point.INITIALISE, Fault.UNAVAILABLE, times=10_000)
        with pytest.raises(UnavailableError):
            world.broker.exactly_once_sink(
                group="g", topic="in", transactional_ids=("x", "y"), start_timeout_s=5.0
            )

    def test_without_room_nothing_is_taken(self, world: World) -> None:
        sink, source = self.sink(world), self.member(world)
        world.broker.inject(Point.FLUSH, Fault.UNAVAILABLE, times=100)
        for number in range(2):
            sink.submit(self.one(number), source.membership())
        assert not sink.has_room()
        with pytest.raises(InvariantError):
            sink.submit(self.one(2), source.membership())

    def test_closed_it_has_no_room_and_leaves_nothing_open(self, world: World) -> None:
        sink, source = self.sink(world), self.member(world)
        sink.submit(self.one(0), source.membership())
        sink.close(1.0)
        sink.close(1.0)
        assert not sink.has_room()
        world.broker.writer("out").write([b"after"], partition=0)
        assert [v for r in world.broker.reader("out").read_to_end(1.0) for v in r.values] == [b"after"]

    def test_a_transaction_whose_abort_failed_is_ended_before_the_next_begins(self, world: World) -> None:
        """Else readers would stand before it until its time-out, while the other producer does all the work."""
        sink, source = self.sink(world), self.member(world)
        world.broker.inject(Point.FLUSH, Fault.UNAVAILABLE)
        world.broker.inject(Point.ABORT, Fault.UNKNOWN_UNDONE)
        sink.submit(self.one(0), source.membership())
        assert sink.advance(0.0) == 0
        world.broker.inject(Point.INITIALISE, Fault.UNAVAILABLE, times=3)  # its successor takes a while
        assert sink.abort() == 0
        while not sink.has_room():
            pass
        world.broker.writer("out").write([b"after"], partition=0)
        assert [v for r in world.broker.reader("out").read_to_end(1.0) for v in r.values] == [b"after"]
        assert sink.renewals == 1


class OneRecord:
    """A member of a group on one partition, and deliveries of its one record."""

    def __init__(self) -> None:
        self.clock = SimulatedClock()
        self.broker = MemoryBroker(self.clock)
        for topic in ("in", "out"):
            self.broker.create_topic(topic, partitions=1)
        self.broker.writer("in").write([b"a"])
        self.source = self.broker.source(group="g", topic="in", listener=self)
        assert self.source.poll(1, 1.0) is not None
        self.sink = self.broker.exactly_once_sink(group="g", topic="in", transactional_ids=("a",))

    def on_assigned(self, partitions: Sequence[int]) -> None: ...
    def on_revoked(self, partitions: Sequence[int]) -> None: ...
    def on_lost(self, partitions: Sequence[int]) -> None: ...

    def deliver(self) -> int:
        """How many were delivered."""
        for _ in range(100):
            if self.sink.has_room():
                break
            self.clock.sleep(0.1)
        out = Outgoing(topic="out", keys=[None], values=[b"x"], partitions=np.zeros(1, np.int32))
        self.sink.submit(Delivery(outgoing=[out], positions={0: 1}), self.source.membership())
        return self.sink.advance(5.0)


def test_a_producer_that_was_never_replaced_is_fenced_by_somebody_else() -> None:
    one = OneRecord()
    assert one.deliver() == 1
    one.broker.inject(Point.OFFSETS, Fault.FENCED)
    with pytest.raises(FencedError):
        one.deliver()


def test_one_that_was_just_renewed_may_be_fenced_by_the_one_it_replaced_and_not_for_ever() -> None:
    one = OneRecord()
    one.broker.inject(Point.COMMIT, Fault.UNKNOWN_UNDONE)
    with pytest.raises(AbortedError):
        one.deliver()
    for _ in range(2):
        one.broker.inject(Point.OFFSETS, Fault.FENCED)
        with pytest.raises(AbortedError):
            one.deliver()
    one.broker.inject(Point.OFFSETS, Fault.FENCED)
    with pytest.raises(FencedError):
        one.deliver()


class DisturbedProducer(MemoryProducer):
    """Its connection breaks with its commit, which is carried out all the same."""

    def __init__(self, broker: MemoryBroker, transactional_id: str) -> None:
        super().__init__(broker, transactional_id, "in", 30.0)
        self._disturbed = False
        self._begun = False
        self._asked = False

    def initialise(self, timeout_s: float) -> None:
        if not self._asked:
            self._asked = True
            raise UnfinishedError("the broker has not answered yet (initialise)")
        super().initialise(timeout_s)

    def commit(self, timeout_s: float) -> None:
        if self._begun:  # asked for the second time, it has ended
            self._begun = False
            self._disturbed = True
            return
        super().commit(timeout_s)
        self._begun = True
        raise UnfinishedError("the broker has not answered yet (commit)")

    def abort(self, timeout_s: float) -> None:
        if self._begun:
            raise BrokenError("cannot abort: still about to commit")
        super().abort(timeout_s)

    def suspect(self) -> bool:
        return self._disturbed


def test_a_commit_under_way_is_awaited_when_the_delivery_before_it_lost_its_producer() -> None:
    clock = SimulatedClock()
    broker = MemoryBroker(clock, wait=lambda _, wait_s: clock.sleep(wait_s))
    for topic in ("in", "out"):
        broker.create_topic(topic, 1)
    broker.writer("in").write([b"first", b"second"])
    source = broker.source(group="g", topic="in", listener=Ignoring())
    sink = TransactionalSink(
        producers={name: partial(DisturbedProducer, broker, name) for name in ("a", "b")},
        read_committed=lambda p, timeout_s: broker.stable_offsets("g", "in", p, timeout_s),
        clock=clock,
        transaction_timeout_s=30.0,
    )
    for _ in range(2):
        records = source.poll(1, 0.0)
        assert records is not None
        out = Outgoing(topic="out", keys=records.keys, values=records.values, partitions=records.partitions)
        sink.submit(Delivery(outgoing=[out], positions=after(records)), source.membership())
    delivered = 0
    for _ in range(20):
        delivered += sink.advance(0.1)  # raises AbortedError where the second one is given up
    assert delivered == 2
    assert [v for r in broker.reader("out").read_to_end(1.0) for v in r.values] == [b"first", b"second"]


@pytest.mark.parametrize("suspect", [False, True])
def test_a_producer_with_a_request_that_may_still_act_begins_no_other_transaction(suspect: bool) -> None:
    clock = SimulatedClock()
    broker = MemoryBroker(clock, wait=lambda _, wait_s: clock.sleep(wait_s))
    for topic in ("in", "out"):
        broker.create_topic(topic, 1)
    broker.writer("in").write([b"%d" % number for number in range(6)])
    source = broker.source(group="g", topic="in", listener=Ignoring())
    used: list[object] = []

    class Producer(MemoryProducer):
        def begin(self) -> None:
            used.append(self)
            super().begin()

        def suspect(self) -> bool:
            return suspect and self in used

    sink = TransactionalSink(
        producers={name: partial(Producer, broker, name, "in", 30.0) for name in ("a", "b")},
        read_committed=lambda p, timeout_s: broker.stable_offsets("g", "in", p, timeout_s),
        clock=clock,
        transaction_timeout_s=30.0,
    )
    for _ in range(6):
        records = source.poll(1, 0.0)
        assert records is not None
        out = Outgoing(topic="out", keys=records.keys, values=records.values, partitions=records.partitions)
        assert sink.has_room()
        sink.submit(Delivery(outgoing=[out], positions=after(records)), source.membership())
        assert sink.advance(0.1) == 1
    assert len(used) == 6
    assert (len(set(map(id, used))) == 6) == suspect


class Ignoring:
    def on_assigned(self, partitions: Sequence[int]) -> None: ...
    def on_revoked(self, partitions: Sequence[int]) -> None: ...
    def on_lost(self, partitions: Sequence[int]) -> None: ...
