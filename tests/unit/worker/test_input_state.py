"""Every state of the input has its line, its metric and its place in /status."""

import logging

import pytest
from prometheus_client import CollectorRegistry

from penstock.engine.telemetry.events import Event, EventLog
from penstock.engine.telemetry.metrics import Metrics
from penstock.engine.worker.input_state import InputState
from penstock.schemas.reading import Reading
from tests.clocks import HandClock


class World:
    def __init__(self) -> None:
        self.clock = HandClock()
        self.registry = CollectorRegistry()
        self.events: list[Event] = []
        log = EventLog(logger=logging.getLogger("penstock.test"), count=self.events.append, clock=self.clock)
        self.state = InputState(metrics=Metrics(self.registry), events=log, topic="in", clock=self.clock)

    def value(self, name: str) -> float | None:
        return self.registry.get_sample_value(name)


@pytest.mark.parametrize(
    ("reading", "event", "metric", "value"),
    [
        (Reading(doubts={3: "offset 7 cannot be read (checksum)"}), Event.INPUT_UNREADABLE, None, 0),
        (Reading(stalled_s={3: 31.0}), Event.INPUT_STALLED, "penstock_stalled_partitions", 1),
        (Reading(open_transactions={3: 5001}), Event.OPEN_TRANSACTION, "penstock_open_transaction_offsets", 5001),
    ],
)  # fmt: skip
def test_a_state_is_told_once_and_each_minute_and_shown_while_it_lasts(
    reading: Reading, event: Event, metric: str | None, value: float
) -> None:
    world = World()
    for _ in range(70):
        (wait,) = world.state.look(reading)
        world.clock.sleep(1.0)
    assert (wait.partition, str(wait.kind)) == (3, str(event).removeprefix("input_"))
    assert world.events == [event, event]
    if metric is not None:
        assert world.value(metric) == value
    assert world.state.look(Reading()) == []
    assert world.events[2:] == [Event.INPUT_GOES_ON]
    if metric is not None:
        assert world.value(metric) == 0


def test_a_partition_that_does_not_begin_is_told_and_where_it_begins_or_goes_others_say() -> None:
    world = World()
    for _ in range(70):
        (wait,) = world.state.look(Reading(unplaced_s={3: 10.0}))
        world.clock.sleep(1.0)
    assert (wait.partition, str(wait.kind)) == (3, "stalled")
    assert "could not be found out for 10 s" in wait.reason
    assert world.value("penstock_stalled_partitions") == 1
    assert world.state.look(Reading()) == []
    assert world.events == [Event.INPUT_STALLED, Event.INPUT_STALLED]
    assert world.value("penstock_stalled_partitions") == 0


def test_what_is_counted_is_counted_once() -> None:
    world = World()
    for _ in range(3):
        world.state.look(Reading(unreadable_offsets=7, recreations=1, lost_offsets=5))
    assert world.value("penstock_unreadable_offsets_total") == 7
    assert world.value("penstock_topic_recreations_total") == 1
    assert world.value("penstock_lost_offsets_total") == 5
    assert world.events == [Event.INPUT_LOST, Event.TOPIC_RECREATED]


def test_of_a_partition_that_went_to_another_worker_nobody_says_that_it_is_read_again() -> None:
    world = World()
    world.state.look(Reading(doubts={3: "offset 7 cannot be read (checksum)", 4: "offset 9 cannot be read"}))
    world.state.forget([3])
    assert [wait.partition for wait in world.state.look(Reading(doubts={4: "offset 9 cannot be read"}))] == [
        4
    ]
    world.state.look(Reading())
    assert world.events == [Event.INPUT_UNREADABLE, Event.INPUT_UNREADABLE, Event.INPUT_GOES_ON]
