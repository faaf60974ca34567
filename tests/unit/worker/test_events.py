"""Every state change has its line, its count, its place in /status, and its row in docs/operations.md."""

import json
import logging
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from penstock.engine.pipeline.batcher import Batch, CloseReason, Poll
from penstock.engine.pipeline.compute import Finished, Held
from penstock.engine.pipeline.hooks import Waiting
from penstock.engine.pipeline.ledger import Ledger
from penstock.engine.pipeline.scorer import Outcome
from penstock.engine.telemetry.events import Event, EventLog, Repeated, seconds
from penstock.engine.telemetry.metrics import Metrics
from penstock.engine.telemetry.status import StatusBoard
from penstock.engine.telemetry.worker_status import ModelIdentity, WorkerState
from penstock.engine.worker.careful_reading import carefully_read
from penstock.engine.worker.telemetry import Observer
from penstock.schemas.reading import Reading
from penstock.schemas.reasons import Reason, Stage
from penstock.schemas.records import Records, Rejection
from penstock.schemas.waits import WaitKind
from tests.clocks import HandClock as StillClock

root = Path(__file__).parents[3]


class HandClock(StillClock):
    """Its wall clock goes along."""

    def wall_ms(self) -> int:
        return round(self.now_s * 1000)


nothing = Waiting(batcher=0, compute=0, delivery=0)


class NoValues:
    """A model without features."""

    features: tuple[str, ...] = ()
    rows = 0
    missing = unseen = np.zeros(0, np.int64)


@dataclass(frozen=True, kw_only=True)
class Known:
    """penstock.engine.pipeline.hooks.Contact as a test sets it."""

    address: str = "kafka:9092"
    answer_age_s: float = 0.1
    fault: str = ""
    partitions: int | None = 2
    members: str = ""
    outputs: Mapping[str, int] = field(default_factory=dict)


class House:
    """A worker's telemetry with everything around it in hand."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.clock.now_s = 1000.0
        self.metrics = Metrics(CollectorRegistry())
        logger = logging.getLogger("penstock.worker")
        count = self.metrics.events
        self.events = EventLog(
            logger=logger, count=lambda event: count.labels(event=event).inc(), clock=self.clock
        )
        self.board = StatusBoard(
            worker="w", group="g", topic="in", clock=self.clock, rows_max=8, events=self.events.newest
        )
        self.board.verified(ModelIdentity(name="m", version="1", digest="d", device="cpu"))
        self.board.set_state(WorkerState.JOINING)
        self.contact, self.member, self.ends = Known(), True, {0: 10, 1: 10}
        self.reading = Reading()
        self.hooks = Observer(
            metrics=self.metrics, board=self.board, clock=self.clock, topic="in", ends=lambda _: self.ends,
            report=lambda _: None, on_rebalance=lambda: None, reference_records=lambda: 0, events=self.events, values=NoValues(),  # type: ignore[arg-type]  # what is read of them
            contact=lambda _: self.contact, member=lambda: self.member, reading=lambda: self.reading,
        )  # fmt: skip
        self.ledger = Ledger()

    def read(self, reading: Reading) -> None:
        """The source says this of its reading."""
        self.reading = reading
        self.turns(1)

    def turns(self, seconds_: float, waiting: Waiting = nothing) -> None:
        for _ in range(round(seconds_)):
            self.clock.sleep(1.01)
            if self.contact.fault:
                self.contact = replace(self.contact, answer_age_s=self.contact.answer_age_s + 1.01)
            self.hooks.turn(ledger=self.ledger, waiting=waiting)

    def assign(self, *partitions: int) -> None:
        self.ledger.assign(partitions)
        self.hooks.rebalanced(assigned=self.ledger.assigned())

    def give_up(self, *partitions: int, lost: bool = False) -> None:
        self.ledger.revoke(partitions)
        self.hooks.rebalanced(assigned=self.ledger.assigned(), lost=lost)

    def away(self) -> None:
        self.contact = Known(fault="connection refused")

    def deliver(self, *reasons: Reason, timestamp_ms: int = 0) -> None:
        count = max(len(reasons), 1)
        records = Records(
            topic="in", partitions=np.zeros(count, np.int32), offsets=np.arange(5, 5 + count, dtype=np.int64),
            timestamps_ms=np.full(count, timestamp_ms, np.int64), keys=[None] * count, values=[b""] * count,
        )  # fmt: skip
        span = self.ledger.open(partition=0, first=5, next=5 + count, oldest_timestamp_ms=0, records=count)
        rejections = tuple(
            Rejection(index=index, stage=Stage.DECODE, reason=reason, detail="a detail")
            for index, reason in enumerate(reasons)
        )
        outcome = Outcome(
            outgoing=(), predicted=count - len(reasons), explained=0, skipped=0, rejections=rejections,
            bad=np.zeros(count, np.bool_), stage_s={},
        )  # fmt: skip
        poll = Poll(records=records, spans=(span,), polled_at_s=0.0)
        batch = Batch(polls=(poll,), generation=0, reason=CloseReason.IDLE)
        done = Finished(batch=batch, outcome=outcome, busy_s=0.001)
        self.hooks.delivered([done], took_s=0.01)
        self.ledger.revoke([0])
        self.ledger.assign([0])


def _kafka_back(house: House) -> None:
    house.away()
    house.turns(8)
    house.contact = Known()
    house.turns(1)


def _joining(house: House) -> None:
    house.member = False
    house.contact = Known(members="the group is preparing_rebalance; other members: other (10.0.0.7)")
    house.turns(12)


def _new_partitions(house: House) -> None:
    house.turns(1)
    house.contact = Known(partitions=4)
    house.turns(1)


def _assigned(house: House) -> None:
    house.assign(0, 1)
    house.turns(2)


def _revoked(house: House) -> None:
    house.assign(0, 1)
    house.give_up(1)


def _partitions_lost(house: House) -> None:
    house.assign(0, 1)
    house.give_up(0, 1, lost=True)


def _goes_on(house: House) -> None:
    house.assign(0, 1)
    house.hooks.holding({1: Held(kind=WaitKind.REGISTRY, reason="the registry answered 500")})
    house.turns(5)
    house.hooks.holding({})


def _kafka_lost(house: House) -> None:
    house.away()
    house.turns(8, Waiting(batcher=4, compute=2, delivery=1))


ways: dict[Event, tuple[Callable[[House], object], str, int]] = {
    Event.MODEL_LOADED: (
        lambda house: house.events.note(Event.MODEL_LOADED, "model m 1, digest d, on cpu with native is verified and warm"),
        "digest d", logging.INFO,
    ),  # that a start says so is proved in test_hot_path.py
    Event.JOINING: (_joining, "joining the group for 1. s: .* other \\(10.0.0.7\\)", logging.WARNING),
    Event.ASSIGNED: (_assigned, "assigned partitions 0, 1 of in; 2 owned now", logging.INFO),
    Event.REVOKED: (_revoked, "gave back partitions 1 of in; 1 owned now", logging.INFO),
    Event.PARTITIONS_LOST: (_partitions_lost, "lost partitions 0, 1 of in", logging.WARNING),
    Event.FIRST_RECORD: (
        lambda house: (house.assign(0), house.deliver())[1], "partition 0, offset 5", logging.INFO
    ),
    Event.NEW_PARTITIONS: (_new_partitions, "has 4 partitions now, 2 before", logging.WARNING),
    Event.KAFKA_LOST: (
        _kafka_lost, "Kafka at kafka:9092 has not answered since 00:16:.. UTC: connection refused; 7 records", logging.WARNING,
    ),
    Event.KAFKA_BACK: (_kafka_back, "Kafka at kafka:9092 answers again after [89] s", logging.WARNING),
    Event.REJECTED: (
        lambda house: (house.assign(0), house.deliver(Reason.CORRUPT))[1],
        "the first record rejected for corrupt: partition 0, offset 5: a detail", logging.WARNING,
    ),
    Event.PARTITION_WAITS: (
        lambda house: (house.assign(0, 1), house.hooks.holding({1: Held(kind=WaitKind.REGISTRY, reason="HTTP 429")}))[1],
        "partition 1 waits: HTTP 429; other partitions go on", logging.WARNING,
    ),
    Event.PARTITION_GOES_ON: (_goes_on, "partition 1 goes on after 5 s", logging.WARNING),
    Event.PARTITION_STOPPED: (
        lambda house: (house.assign(0, 1), house.hooks.holding({1: Held(kind=WaitKind.STOPPED, reason="all bad", stopped=True)}))[1],
        "partition 1 is stopped: all bad", logging.ERROR,
    ),
    Event.INPUT_UNREADABLE: (
        lambda house: house.read(Reading(doubts={1: "offset 7 cannot be read (checksum)"})),
        "partition 1: offset 7 cannot be read", logging.WARNING,
    ),
    Event.INPUT_LOST: (
        lambda house: house.read(Reading(lost_offsets=17)),
        "17 offsets of topic in were deleted before the group read them", logging.WARNING,
    ),
    Event.INPUT_STALLED: (
        lambda house: house.read(Reading(stalled_s={1: 31.0})), "partition 1: records wait, .* for 31 s", logging.WARNING,
    ),
    Event.OPEN_TRANSACTION: (
        lambda house: house.read(Reading(open_transactions={1: 5001})), "partition 1: 5,001 offsets wait", logging.WARNING,
    ),
    Event.INPUT_GOES_ON: (
        lambda house: (house.read(Reading(stalled_s={1: 31.0})), house.read(Reading()))[1],
        "partition 1 is read again", logging.WARNING,
    ),
    Event.TOPIC_RECREATED: (
        lambda house: house.read(Reading(recreations=1)), "topic in was deleted and made anew", logging.WARNING,
    ),
    Event.CAREFUL_READING: (
        lambda house: carefully_read(1, slot=0, run_folder=Path("nowhere"), events=house.events),
        "the last worker died, .* this one reads carefully", logging.WARNING,
    ),
    Event.DRAINING: (lambda house: house.hooks.draining(), "asked to stop", logging.INFO),
    Event.STOPPED: (lambda house: house.hooks.stopped(unfinished=0), "stopped with nothing unfinished", logging.INFO),
}  # fmt: skip


@pytest.mark.parametrize("event", list(Event))
def test_each_event_has_its_line_its_metric_its_place_in_the_status_and_its_row(
    event: Event, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "penstock.worker")
    house = House()
    provoke, said, level = ways[event]
    provoke(house)
    lines = [record for record in caplog.records if re.search(said, record.getMessage())]
    assert [record.levelno for record in lines] == [level], caplog.text
    assert house.metrics.registry.get_sample_value("penstock_events_total", {"event": event}) == 1
    status = json.loads(json.dumps(house.board.status().as_dict()))
    assert [each["event"] for each in status["events"]].count(event) == 1
    table = (root / "docs" / "operations.md").read_text(encoding="utf-8")
    assert len(re.findall(rf"^\| `{event}` \|", table, re.MULTILINE)) == 1


def test_with_the_cluster_away_the_worker_is_not_ready_and_claims_no_lag() -> None:
    house = House()
    house.assign(0, 1)
    house.turns(1)
    value = house.metrics.registry.get_sample_value
    place = {"topic": "in", "partition": "0"}
    assert house.board.ready().ok
    assert value("penstock_lag_seconds", place) == 0
    house.away()
    house.turns(7)
    assert value("penstock_broker_reachable") == 0
    assert (value("penstock_broker_answer_age_seconds") or 0) > 5
    assert math.isnan(value("penstock_lag_seconds", place) or 0)
    assert math.isnan(value("penstock_lag_records", place) or 0)
    kafka = house.board.status().kafka
    assert kafka is not None
    assert (kafka.reachable, kafka.fault) == (False, "connection refused")
    assert house.board.ready().ok  # for 10 s the pod stays where it is
    house.turns(5)
    assert "kafka:9092 has not answered" in house.board.ready().reason
    assert house.board.live().ok  # to kill it would not bring the cluster back
    house.contact = Known()
    house.turns(1)
    assert house.board.ready().ok
    assert value("penstock_broker_reachable") == 1


def test_an_end_that_is_not_known_is_no_lag_of_nothing() -> None:
    house = House()
    house.ends = {1: 10}
    house.assign(0, 1)
    house.turns(1)
    value = house.metrics.registry.get_sample_value
    assert math.isnan(value("penstock_lag_seconds", {"topic": "in", "partition": "0"}) or 0)
    assert value("penstock_lag_seconds", {"topic": "in", "partition": "1"}) == 0


def test_a_worker_that_is_put_out_of_its_group_is_joining_again() -> None:
    house = House()
    house.assign(0)
    house.turns(1)
    house.member = False
    house.give_up(0, lost=True)
    house.turns(1)
    assert house.board.state is WorkerState.JOINING
    assert not house.board.ready().ok
    house.member = True
    house.turns(1)
    assert house.board.ready().reason.startswith("running as a spare")


def test_when_every_partition_waits_the_worker_is_not_ready_and_the_status_says_for_what() -> None:
    house = House()
    house.assign(0, 1)
    house.hooks.holding({0: Held(kind=WaitKind.REGISTRY, reason="HTTP 500")})
    house.turns(1)
    assert house.board.ready().ok
    (wait,) = house.board.status().waits_for
    assert (wait.partition, wait.kind, wait.reason) == (0, WaitKind.REGISTRY, "HTTP 500")
    house.hooks.holding(
        {
            0: Held(kind=WaitKind.REGISTRY, reason="HTTP 500"),
            1: Held(kind=WaitKind.REGISTRY, reason="HTTP 429"),
        }
    )
    assert not house.board.ready().ok
    value = house.metrics.registry.get_sample_value
    assert value("penstock_held_partitions", {"state": "waits"}) == 2


def test_a_wait_is_told_of_once_a_minute_and_a_refusal_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "penstock.worker")
    house = House()
    house.assign(0)
    house.hooks.holding({0: Held(kind=WaitKind.REGISTRY, reason="HTTP 401", someone_must_act=True)})
    house.turns(125)
    waits = [record for record in caplog.records if "partition 0 waits" in record.getMessage()]
    assert [record.levelno for record in waits] == [logging.ERROR] * 3


def test_a_healthy_hour_and_one_full_of_bad_records_log_at_most_twenty_lines(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "penstock.worker")
    house = House()
    house.assign(0, 1)
    for _ in range(600):
        house.turns(6)
        house.deliver(Reason.CORRUPT, Reason.NULL_VALUE)
    assert len(caplog.records) <= 20, caplog.text
    told = [int(count) for count in re.findall(r"(\d+) more records rejected for corrupt", caplog.text)]
    assert told
    assert max(told) > 100  # counted, not only sampled


def test_one_time_stamp_of_1970_does_not_ruin_the_sum() -> None:
    house = House()
    house.clock.wall_ms = lambda: 1_800_000_000_000  # type: ignore[method-assign]
    house.assign(0)
    house.deliver(timestamp_ms=0)
    house.deliver(timestamp_ms=1_799_999_999_000)
    value = house.metrics.registry.get_sample_value
    assert value("penstock_end_to_end_seconds_sum") == 1.0
    assert value("penstock_end_to_end_seconds_count") == 1
    assert value("penstock_end_to_end_left_out_total") == 1


def test_repeated_things_are_told_at_growing_intervals_and_none_is_left_uncounted() -> None:
    repeated = Repeated(first_s=60, max_s=600)
    told = [(second, count) for second in range(3600) if (count := repeated.add(1, float(second)))]
    assert [second for second, _ in told] == [0, 60, 180, 420, 900, 1500, 2100, 2700, 3300]
    assert sum(count for _, count in told) == 3301


@pytest.mark.parametrize(
    ("duration_s", "said"), [(0.4, "0 s"), (119, "119 s"), (190, "3 min 10 s"), (7500, "2 h 5 min")]
)
def test_durations_are_said_as_people_say_them(duration_s: float, said: str) -> None:
    assert seconds(duration_s) == said


def test_the_lag_of_a_partition_that_stands_still_is_not_known() -> None:
    """Nothing of it is in hand, and where it ends was last heard when it was fetched."""
    house = House()
    house.assign(0, 1)
    house.hooks.holding({1: Held(kind=WaitKind.STOPPED, reason="too many", stopped=True)})
    house.turns(2)

    def lag_s(partition: int) -> float:
        return house.metrics.lag_seconds.labels(topic="in", partition=str(partition))._value.get()

    assert lag_s(0) == 0
    assert math.isnan(lag_s(1))
    house.hooks.holding({})
    house.turns(2)
    assert lag_s(1) == 0


def test_an_output_topic_that_grows_has_its_line_its_metric_and_the_rule_in_words(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "penstock.worker")
    house = House()
    house.contact = Known(outputs={"out": 2})
    house.turns(1)
    value = house.metrics.registry.get_sample_value
    assert value("penstock_output_partitions", {"topic": "out"}) == 2
    assert not caplog.records
    house.contact = Known(outputs={"out": 4})
    house.turns(1)
    assert value("penstock_output_partitions", {"topic": "out"}) == 4
    house.contact = Known(outputs={"out": 4}, partitions=4)
    house.turns(1)
    house.contact = Known(outputs={"out": 6}, partitions=6)
    house.turns(1)
    said = [record.getMessage() for record in caplog.records if "output topic" in record.getMessage()]
    assert [words.partition(": ")[2] for words in said] == [
        "records go to it by their key, since the input has another number",
        "records keep their partition number",
    ]
    assert "the output topic out has 4 partitions now, 2 before" in said[0]


def test_a_topic_that_was_made_anew_is_not_called_a_group_that_had_gone_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "penstock.worker")
    house = House()
    house.assign(0, 1)
    house.turns(2)
    caplog.clear()
    house.reading = Reading(recreations=1)  # the source counts it, then says that its partitions are lost
    house.give_up(0, 1, lost=True)
    house.assign(0, 1)
    house.turns(2)
    said = [record.getMessage() for record in caplog.records]
    assert "topic in was deleted and made anew" in said[0]
    assert not any("the group had gone on" in each for each in said)
    caplog.clear()
    house.give_up(1, lost=True)
    assert "the group had gone on" in caplog.text


def test_partitions_that_come_one_after_the_other_are_one_rebalance() -> None:
    house = House()

    def rebalances() -> float | None:
        return house.metrics.registry.get_sample_value("penstock_rebalances_total")

    for partition in (3, 1, 2, 0):  # each placed by itself, while the coordinator is slow
        house.clock.sleep(0.1)
        house.assign(partition)
    assert rebalances() == 1
    house.turns(2)
    house.assign(4)
    assert rebalances() == 2
    house.give_up(4, lost=True)
    assert rebalances() == 3
    house.assign(4)
    assert rebalances() == 4
