"""The engine's clients of the memory broker: a group member and the two kinds of producer."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal, Protocol

from penstock.connectors.delivery.at_least_once import Tally
from penstock.connectors.delivery.producer_port import (
    AbortableError,
    BrokenError,
    FencedProducerError,
    UnfinishedError,
)
from penstock.connectors.memory.group import Membership
from penstock.connectors.memory.log import State, Transaction, joined
from penstock.connectors.memory.state import Broker, Fault, Point
from penstock.schemas.errors import ConfigError, FencedError, InvariantError, UnavailableError
from penstock.schemas.records import Outgoing, Records

Start = Literal["earliest", "latest", "error"]


class AssignmentListener(Protocol):
    """penstock.engine.ports.AssignmentListener by shape."""

    def on_assigned(self, partitions: Sequence[int]) -> None:
        """Newly ours."""

    def on_revoked(self, partitions: Sequence[int]) -> None:
        """About to go."""

    def on_lost(self, partitions: Sequence[int]) -> None:
        """Gone already."""


class MemorySource:
    """One member of a group (penstock.engine.ports.Source by shape)."""

    def __init__(
        self,
        broker: Broker,
        *,
        group: str,
        topic: str,
        listener: AssignmentListener,
        start: Start,
        exactly_once: bool,
        max_poll_interval_s: float,
    ) -> None:
        self._broker = broker
        self._topic = topic
        self._group = group
        self._listener = listener
        self._start = start
        self._exactly_once = exactly_once
        self._expires_after_s = max_poll_interval_s
        self._positions: dict[int, int] = {}
        self._turn = 0
        self._held: set[int] = set()  # of those assigned
        self._paused = False
        self._closed = False
        self._topic_id = broker.topic_id(topic)
        with broker.locked():
            self._member = broker.group(group).join(topic, max_poll_interval_s)

    @property
    def member(self) -> str:
        """This member's id, as `MemoryBroker.expire` takes it."""
        return self._member

    def poll(self, records_max: int, timeout_s: float) -> Records | None:
        """As penstock.engine.ports.Source asks."""
        if self._closed:
            raise InvariantError("a closed source was polled")
        match self._broker.take_fault(Point.POLL):
            case None:
                pass
            case Fault.FENCED:
                raise FencedError(f"another member of group {self._group} took this one's name")
            case _:
                raise UnavailableError("the broker does not answer")
        self._compare_topic()
        self._rebalance()
        clock = self._broker.clock
        deadline_s = clock.monotonic_s() + timeout_s
        with self._broker.locked():
            while (records := self._fetch(records_max)) is None:
                left_s = deadline_s - clock.monotonic_s()
                if left_s <= 0 or not self._broker.wait_for_change(left_s):
                    return self._fetch(records_max)
            return records

    def pause(self) -> None:
        """As penstock.engine.ports.Source asks."""
        self._paused = True

    def resume(self) -> None:
        """As penstock.engine.ports.Source asks."""
        self._paused = False

    def hold(self, partitions: Collection[int]) -> None:
        """As penstock.engine.ports.Source asks."""
        self._held = set(partitions) & self._positions.keys()

    def seek(self, positions: Mapping[int, int]) -> None:
        """As penstock.engine.ports.Source asks."""
        self._positions.update({p: offset for p, offset in positions.items() if p in self._positions})

    def membership(self) -> Membership:
        """As penstock.engine.ports.Source asks."""
        with self._broker.locked():
            membership = self._broker.group(self._group).membership(self._member)
        if membership is None:
            raise UnavailableError(f"not a member of group {self._group} yet")
        return replace(membership, topic_id=self._topic_id)

    def commit(self, positions: Mapping[int, int]) -> None:
        """As penstock.engine.ports.Source asks."""
        if self._exactly_once:
            raise InvariantError("in exactly-once the sink commits, inside the transaction")
        with self._broker.locked():
            membership = self._broker.group(self._group).membership(self._member)
            if membership is not None:
                self._broker.commit(self._topic, positions, replace(membership, topic_id=self._topic_id))

    def ends(self, partitions: Iterable[int]) -> dict[int, int]:
        """The log end of those partitions that are ours."""
        return {p: self._broker.bounds(self._topic, p)[1] for p in partitions if p in self._positions}

    def close(self, timeout_s: float) -> None:
        """As penstock.engine.ports.Source asks; tells the listener of what it still holds."""
        if self._closed:
            return
        self._closed = True
        held = tuple(sorted(self._positions))
        if held:
            self._listener.on_revoked(held)
        with self._broker.locked():
            self._positions.clear()
            self._broker.group(self._group).leave(self._member)

    def _rebalance(self) -> None:
        broker = self._broker
        with broker.locked():
            orders = broker.group(self._group).sync(self._member)
        if orders.expelled:
            held = tuple(sorted(self._positions))
            self._positions.clear()
            self._held.clear()
            if held:
                self._listener.on_lost(held)
            with broker.locked():
                self._member = broker.group(self._group).join(self._topic, self._expires_after_s)
                orders = broker.group(self._group).sync(self._member)
        if orders.revoke:
            self._listener.on_revoked(orders.revoke)
            with broker.locked():
                for partition in orders.revoke:
                    self._positions.pop(partition, None)
                    self._held.discard(partition)
                broker.group(self._group).release(self._member, orders.revoke)
                orders = broker.group(self._group).sync(self._member)
        if orders.grant:
            positions = {partition: self._first(partition) for partition in orders.grant}
            self._positions.update(positions)
            self._listener.on_assigned(orders.grant)

    def _compare_topic(self) -> None:
        """A topic that was made anew is read from its beginning."""
        topic_id = self._broker.topic_id(self._topic)
        if topic_id == self._topic_id:
            return
        self._topic_id = topic_id
        held = sorted(self._positions)
        self._positions.clear()
        self._held.clear()
        if held:
            self._listener.on_lost(held)
            kept = [p for p in held if p < self._broker.partitions(self._topic)]
            self._positions = {p: self._broker.bounds(self._topic, p)[0] for p in kept}
            self._listener.on_assigned(kept)

    def _first(self, partition: int) -> int:
        with self._broker.locked():
            group = self._broker.group(self._group)
            committed = group.committed.get((self._topic, partition))
            earliest, _ = self._broker.bounds(self._topic, partition)
            if committed is not None:
                noted = group.committed_topic_ids.get((self._topic, partition))
                return committed if noted in (None, self._topic_id) else earliest
            if self._start == "earliest" or any(topic == self._topic for topic, _ in group.committed):
                return earliest
            if self._start == "error":
                raise ConfigError(
                    f"group {self._group} has no committed offset for any partition of {self._topic}"
                )
            for each in range(self._broker.partitions(self._topic)):  # decided once, for all of them
                group.committed[self._topic, each] = self._broker.bounds(self._topic, each)[1]
                group.committed_topic_ids[self._topic, each] = self._topic_id
            return group.committed[self._topic, partition]

    def _fetch(self, records_max: int) -> Records | None:
        order = sorted(self._positions.keys() - self._held)
        if self._paused or not order:
            return None
        self._turn = (self._turn + 1) % len(order)
        order = order[self._turn :] + order[: self._turn]  # nobody starves when records_max is small
        reads = self._broker.fetch(self._topic, {p: self._positions[p] for p in order}, records_max)
        for partition, read in reads.items():
            self._positions[partition] = read.position
        full = {partition: read for partition, read in reads.items() if read.values}
        if not full:
            return None
        return joined(self._topic, full, self._topic_id)


class MemoryProducer:
    """penstock.connectors.delivery.producer_port.TransactionalProducer over the memory broker, with the injected faults."""

    def __init__(self, broker: Broker, transactional_id: str, topic: str, timeout_s: float) -> None:
        self._broker = broker
        self._id = transactional_id
        self._topic = topic
        self._timeout_s = timeout_s
        self._epoch = -1
        self._transaction: Transaction | None = None

    def initialise(self, timeout_s: float) -> None:
        """As TransactionalProducer asks; likewise below."""
        self._faulty(Point.INITIALISE, timeout_s, self._initialise)

    def begin(self) -> None:
        self._transaction = self._broker.begin(self._id, self._epoch, self._timeout_s)

    def produce(self, outgoing: Outgoing, start: int, timeout_s: float) -> int:
        def append() -> None:
            self._broker.check_epoch(self._id, self._epoch)
            self._broker.append_outgoing(outgoing, self._broker.partitions(self._topic), self._transaction)

        self._faulty(Point.PRODUCE, timeout_s, append)
        return len(outgoing)

    def send_offsets(self, positions: Mapping[int, int], membership: object, timeout_s: float) -> None:
        def hold() -> None:
            if not isinstance(membership, Membership) or self._transaction is None:
                raise InvariantError("offsets were sent without a membership or a transaction")
            self._broker.check_epoch(self._id, self._epoch)
            self._broker.hold_offsets(self._transaction, self._topic, positions, membership)

        self._faulty(Point.OFFSETS, timeout_s, hold)

    def flush(self, timeout_s: float) -> None:
        self._faulty(Point.FLUSH, timeout_s, lambda: None)

    def commit(self, timeout_s: float) -> None:
        self._faulty(
            Point.COMMIT, timeout_s, lambda: self._broker.end(self._id, self._epoch, State.COMMITTED)
        )

    def abort(self, timeout_s: float) -> None:
        self._faulty(Point.ABORT, timeout_s, lambda: self._broker.end(self._id, self._epoch, State.ABORTED))

    def suspect(self) -> bool:
        return False

    def close(self) -> None:
        self._transaction = None

    def _initialise(self) -> None:
        self._epoch = self._broker.initialise(self._id)

    def _faulty(self, point: Point, timeout_s: float, act: Callable[[], None]) -> None:
        match self._broker.take_fault(point):
            case None:
                act()
            case Fault.UNAVAILABLE:
                self._broker.clock.sleep(timeout_s)
                raise UnfinishedError(f"{point}: no answer yet")
            case Fault.ABORTABLE:
                raise AbortableError(f"{point}: this transaction cannot be committed")
            case Fault.UNKNOWN_DONE:
                act()
                raise BrokenError(f"{point}: the answer was lost")
            case Fault.UNKNOWN_UNDONE:
                raise BrokenError(f"{point}: the request was lost")
            case Fault.FENCED:
                self._broker.initialise(self._id)
                raise FencedProducerError(f"{point}: a newer producer uses {self._id}")


class MemoryAcknowledger:
    """penstock.connectors.delivery.at_least_once.AcknowledgingProducer over the memory broker, with the injected faults of PRODUCE."""

    def __init__(self, broker: Broker, topic: str) -> None:
        self._broker = broker
        self._topic = topic

    def produce(self, outgoing: Outgoing, start: int, tally: Tally, timeout_s: float) -> int:
        """As AcknowledgingProducer asks; likewise below."""
        fault = self._broker.take_fault(Point.PRODUCE)
        if fault is Fault.UNAVAILABLE:
            self._broker.clock.sleep(timeout_s)
            return start
        if fault in (None, Fault.UNKNOWN_DONE):
            self._broker.append_outgoing(outgoing, self._broker.partitions(self._topic), None)
        tally.queued += len(outgoing)
        tally.reported += len(outgoing)
        tally.failed += 0 if fault is None else len(outgoing)
        return len(outgoing)

    def serve(self, timeout_s: float) -> None:
        self._broker.clock.sleep(timeout_s)

    def close(self) -> None:
        pass
