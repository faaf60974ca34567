"""A sink that said it has room takes the next delivery, whatever another thread learns between the two calls."""

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from penstock.connectors.delivery.at_least_once import AtLeastOnceSink, Tally
from penstock.connectors.delivery.exactly_once import TransactionalSink
from penstock.connectors.delivery.producer_port import UnfinishedError
from penstock.schemas.errors import InvariantError, UnavailableError
from penstock.schemas.records import Outgoing
from tests.clocks import HandClock


class Transactions:
    """A producer that does everything at once, or never begins; `suspected` is what another thread has learnt."""

    def __init__(self, *, begins: bool = True) -> None:
        self.begins, self.suspected, self.done = begins, False, 0

    def initialise(self, timeout_s: float) -> None:
        if not self.begins:
            raise UnfinishedError("no answer yet")

    def begin(self) -> None: ...
    def produce(self, outgoing: Outgoing, start: int, timeout_s: float) -> int:
        return len(outgoing)

    def send_offsets(self, positions: Mapping[int, int], membership: object, timeout_s: float) -> None: ...
    def flush(self, timeout_s: float) -> None: ...
    def commit(self, timeout_s: float) -> None:
        self.done += 1

    def abort(self, timeout_s: float) -> None: ...
    def suspect(self) -> bool:
        return self.suspected

    def close(self) -> None: ...


class Messages:
    def produce(self, outgoing: Outgoing, start: int, tally: Tally, timeout_s: float) -> int:
        tally.queued += len(outgoing) - start
        tally.reported = tally.queued
        return len(outgoing)

    def serve(self, timeout_s: float) -> None: ...
    def close(self) -> None: ...


def delivery(offset: int) -> Any:
    outgoing = Outgoing(topic="out", partitions=np.zeros(1, np.int32), keys=[None], values=[b"v"])
    return SimpleNamespace(outgoing=[outgoing], positions={0: offset})


def transactional(
    made: list[Transactions], *, begins: bool = True, stopping: Callable[[], bool] = lambda: False
) -> TransactionalSink:
    clock = HandClock()

    def make() -> Any:
        made.append(Transactions(begins=begins))
        return made[-1]

    return TransactionalSink(
        producers={"a": make, "b": make},
        read_committed=lambda partitions, timeout_s: {},
        clock=clock,
        transaction_timeout_s=10.0,
        stopping=stopping,
    )


def test_a_producer_that_turns_suspect_after_there_was_room_takes_one_more_delivery() -> None:
    made: list[Transactions] = []
    sink = transactional(made)
    assert sink.has_room()
    for producer in made:
        producer.suspected = True
    sink.submit(delivery(1), None)
    assert sink.advance(0.1) == 1
    assert sum(producer.done for producer in made[:2]) == 1
    assert sink.has_room()
    assert len(made) == 4  # and then each is made anew
    sink.submit(delivery(2), None)
    assert sink.advance(0.1) == 1
    assert sum(producer.done for producer in made[2:]) == 1


def test_what_was_not_asked_for_room_is_refused() -> None:
    made: list[Transactions] = []
    sink = transactional(made)
    for producer in made:
        producer.commit = never  # type: ignore[method-assign]
    for offset in (1, 2):
        assert sink.has_room()
        sink.submit(delivery(offset), None)
    assert not sink.has_room()
    with pytest.raises(InvariantError):
        sink.submit(delivery(3), None)


def never(timeout_s: float) -> None:
    raise UnfinishedError("no answer yet")


def test_topics_that_grow_after_there_was_room_get_one_more_delivery_from_the_old_producer() -> None:
    made: list[Messages] = []
    outdated = False

    def make() -> Any:
        nonlocal outdated
        outdated = False
        made.append(Messages())
        return made[-1]

    sink = AtLeastOnceSink(make=make, clock=HandClock(), outdated=lambda: outdated)
    for offset in (1, 2):
        assert sink.has_room()
        outdated = offset == 2  # behind a delivery that is under way, too
        sink.submit(delivery(offset), None)
    assert len(made) == 1
    assert sink.advance(0.1) == 2
    assert sink.has_room()
    assert len(made) == 2


def test_a_stop_is_heard_while_transactions_are_initialised() -> None:
    asked = iter([False, False, True])
    made: list[Transactions] = []
    with pytest.raises(UnavailableError, match="asked to stop"):
        transactional(made, begins=False, stopping=lambda: next(asked))
