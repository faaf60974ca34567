"""From offsets and reports to a demand: what counts as lag, as a rate, as a capacity, and what does not."""

import contextlib
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine.scaling.collector import Collector, Flow
from penstock.engine.scaling.lag import Movement, PartitionLag, compare, measure
from penstock.engine.scaling.reports import Report, ReportBook, Reporter, decode_status, encode_status
from penstock.engine.telemetry.status import ModelIdentity, Position, WorkerState, WorkerStatus
from penstock.schemas.errors import RecordError, UnavailableError


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a broker says of one partition."""

    partition: int = 0
    earliest: int = 0
    end: int = 100
    committed: int | None = 40
    oldest_unfinished_timestamp_ms: int | None = 1_000
    owner: str | None = "w"
    open_offsets: int = 0
    fault: str = ""
    topic_id: str | None = "new"
    committed_topic_id: str | None = None

    @property
    def high(self) -> int:
        return self.end + self.open_offsets


def lag_of(reading: Reading, *, start: str = "earliest") -> PartitionLag:
    (lag,) = measure([reading], now_ms=3_500, start=start)  # type: ignore[arg-type]
    return lag


def test_lag_is_from_the_commit_to_the_end_and_as_old_as_the_oldest_unfinished_record() -> None:
    lag = lag_of(Reading())
    assert (lag.lag_records, lag.lag_seconds, lag.movement) == (60, 2.5, Movement.BEHIND)


def test_offsets_without_a_record_are_no_lag() -> None:
    markers_only = Reading(committed=99, end=100, oldest_unfinished_timestamp_ms=None)
    lag = lag_of(markers_only)
    assert (lag.lag_records, lag.lag_seconds, lag.movement) == (0, 0.0, Movement.CAUGHT_UP)


def test_what_retention_deleted_is_no_lag() -> None:
    assert lag_of(Reading(committed=10, earliest=90)).lag_records == 10


@pytest.mark.parametrize(("start", "expected"), [("earliest", 70), ("latest", 0), ("error", 70)])
def test_without_a_commit_the_lag_is_what_the_group_would_read(start: str, expected: int) -> None:
    assert lag_of(Reading(committed=None, earliest=30), start=start).lag_records == expected


def test_clocks_that_run_ahead_and_missing_timestamps_give_no_age() -> None:
    assert lag_of(Reading(oldest_unfinished_timestamp_ms=9_000)).lag_seconds == 0
    assert lag_of(Reading(oldest_unfinished_timestamp_ms=-1)).lag_seconds == 0
    assert lag_of(Reading(oldest_unfinished_timestamp_ms=-1)).lag_records == 60


def test_two_readings_tell_stuck_from_moving() -> None:
    before = [
        lag_of(Reading(partition=0, committed=40)),
        lag_of(Reading(partition=1, committed=40)),
        lag_of(Reading(partition=2, committed=40, owner=None)),
        lag_of(Reading(partition=3, committed=100, oldest_unfinished_timestamp_ms=None)),
    ]
    after = [
        lag_of(Reading(partition=0, committed=41)),
        lag_of(Reading(partition=1, committed=40)),
        lag_of(Reading(partition=2, committed=40, owner=None)),
        lag_of(Reading(partition=3, committed=100, end=110)),  # has only just arrived
        lag_of(Reading(partition=4, committed=40)),  # was not there before
    ]
    assert [lag.movement for lag in compare(before, after)] == [
        Movement.MOVING, Movement.STUCK, Movement.UNOWNED, Movement.MOVING, Movement.BEHIND,
    ]  # fmt: skip
    notes = [lag.note for lag in compare(before, after)]
    assert [bool(note) for note in notes] == [False, True, True, False, False]
    assert "from offset 40 on" in notes[1]
    assert "nobody reads it, from offset 40 on" in notes[2]


status = WorkerStatus(
    worker="g-host-0",
    group="g",
    topic="t",
    at_ms=1_000_000,
    state=WorkerState.RUNNING,
    model=ModelIdentity(name="m", version="1", digest="d1", device="cpu"),
    startup_s=1.5,
    capacity_records_per_s=1234.5,
    finished_records_per_s=100.0,
    busy_ratio=0.25,
    in_flight_batches=1,
    records=5,
    assigned=(0, 3),
    positions=(Position(partition=3, offset=17, oldest_timestamp_ms=-1),),
)


def status_with(**changes: object) -> WorkerStatus:
    values = {name: getattr(status, name) for name in WorkerStatus.__dataclass_fields__}
    return WorkerStatus(**{**values, **changes})


def test_a_report_says_what_the_status_said() -> None:
    report = decode_status(encode_status(status))
    assert (report.worker, report.group, report.at_ms, report.state) == (
        "g-host-0",
        "g",
        1_000_000,
        "running",
    )
    assert (report.capacity_records_per_s, report.startup_s, report.model_digest) == (1234.5, 1.5, "d1")
    (position,) = report.positions
    assert (position.topic, position.partition, position.offset, position.oldest_timestamp_ms) == (
        "t",
        3,
        17,
        -1,
    )


@pytest.mark.parametrize("state", list(WorkerState))
def test_every_state_can_be_reported(state: WorkerState) -> None:
    report = decode_status(encode_status(status_with(state=state, model=None)))
    expected = "starting" if state in (WorkerState.WARMING, WorkerState.JOINING) else str(state)
    assert report.state == expected


@given(st.binary(max_size=64), st.integers(0, 200))
def test_bytes_that_are_no_report_are_refused_or_read_but_never_crash(noise: bytes, cut: int) -> None:
    whole = encode_status(status)
    for payload in (noise, whole[:cut] + noise, whole + noise):
        if payload == whole:
            continue
        with contextlib.suppress(RecordError):
            assert isinstance(decode_status(payload), Report)


def test_trailing_bytes_are_refused() -> None:
    with pytest.raises(RecordError):
        decode_status(encode_status(status) + b"x")


def test_a_worker_reports_at_once_at_every_change_and_else_now_and_then() -> None:
    clock, sent = HandClock(), list[Report]()
    reporter = Reporter(lambda worker, payload: sent.append(decode_status(payload)), clock=clock, every_s=5)
    reporter(status_with(state=WorkerState.STARTING))
    reporter(status_with(state=WorkerState.RUNNING))
    reporter(status_with(state=WorkerState.RUNNING, assigned=(1,)))
    for _ in range(12):
        clock.sleep(1)
        reporter(status_with(state=WorkerState.RUNNING, assigned=(1,)))
    assert [report.state for report in sent] == ["starting", "running", "running", "running", "running"]


def book_of(*statuses: WorkerStatus) -> ReportBook:
    book = ReportBook(group="g", fresh_s=30)
    for one in statuses:
        book.read(encode_status(one), now_ms=2_000_000)
    return book


def test_capacity_is_the_low_percentile_of_those_that_report() -> None:
    workers = [status_with(worker=f"w{i}", capacity_records_per_s=float(100 + i)) for i in range(10)]
    assert book_of(*workers).capacity_records_per_s(now_ms=1_000_000) == 101


def test_reports_of_workers_that_left_still_say_what_a_worker_can_do() -> None:
    old = status_with(worker="a", at_ms=500_000, capacity_records_per_s=70.0, startup_s=9.0)
    newer = status_with(worker="b", at_ms=600_000, capacity_records_per_s=80.0, startup_s=4.0)
    unknown = status_with(
        worker="c", at_ms=990_000, capacity_records_per_s=0.0, startup_s=0.0, state=WorkerState.STARTING
    )
    book = book_of(old, newer, unknown)
    assert book.capacity_records_per_s(now_ms=1_000_000) == 80
    assert book.startup_s(now_ms=1_000_000) == 4
    assert [report.worker for report in book.fresh(now_ms=1_000_000)] == ["c"]


def test_only_the_newest_report_of_our_own_group_counts() -> None:
    book = book_of(
        status_with(capacity_records_per_s=70.0, at_ms=900_000),
        status_with(capacity_records_per_s=60.0, at_ms=800_000),
        status_with(worker="x", group="other", capacity_records_per_s=1.0),
    )
    book.read(None, now_ms=2_000_000)
    book.read(b"no report", now_ms=2_000_000)
    assert book.capacity_records_per_s(now_ms=900_000) == 70
    assert book.unreadable == 1


@given(
    name=st.sampled_from(["startup_s", "capacity_records_per_s", "finished_records_per_s", "busy_ratio"]),
    number=st.floats().filter(lambda number: not 0 <= number <= 1e12),
)
def test_a_report_with_a_number_that_cannot_be_is_passed_over(name: str, number: float) -> None:
    book = book_of(status_with(worker="good", capacity_records_per_s=70.0, startup_s=3.0))
    book.read(encode_status(status_with(worker="forged", **{name: number})), now_ms=1_000_000)
    assert book.unreadable == 1
    assert book.capacity_records_per_s(now_ms=1_000_000) == 70
    assert book.startup_s(now_ms=1_000_000) == 3


@pytest.mark.parametrize("at_ms", [2**62, 1_400_000])
def test_a_report_from_the_future_does_not_stand_before_the_true_ones(
    at_ms: int, caplog: pytest.LogCaptureFixture
) -> None:
    book = ReportBook(group="g")
    for _ in range(2):
        book.read(encode_status(status_with(at_ms=at_ms, capacity_records_per_s=1e9)), now_ms=1_000_000)
    book.read(encode_status(status_with(at_ms=1_000_000, capacity_records_per_s=70.0)), now_ms=1_000_000)
    assert book.capacity_records_per_s(now_ms=1_000_000) == 70
    assert book.unreadable == 2
    assert len(caplog.records) == 1
    assert str(at_ms) in caplog.text


@given(message=st.binary(max_size=80), cut=st.integers(0, 200))
def test_no_message_ends_the_scaler(message: bytes, cut: int) -> None:
    book, whole = ReportBook(group="g"), encode_status(status_with())
    for value in (message, whole[:10] + message, whole[: len(whole) - 1 - cut % len(whole)], whole + message):
        book.read(value, now_ms=1_000_000)
        capacity, startup_s = book.capacity_records_per_s(now_ms=1_000_000), book.startup_s(now_ms=1_000_000)
        assert capacity is None or 0 <= capacity <= 1e12
        assert 0 <= startup_s <= 1e12


def test_the_book_is_bounded_and_drops_the_oldest() -> None:
    book = ReportBook(group="g", workers_max=2)
    for i in range(3):
        book.read(encode_status(status_with(worker=f"w{i}", at_ms=1_000_000 + i)), now_ms=2_000_000)
    assert sorted(report.worker for report in book.fresh(now_ms=1_000_000)) == ["w1", "w2"]


def reading_at(
    second: float, *, arrives: float, finishes: float, backlog: int, partition: int = 0
) -> Reading:
    committed = int(finishes * second)
    return Reading(
        partition=partition, committed=committed, end=int(arrives * second) + backlog, owner=f"w{partition}"
    )


def flow_of(*, arrives: float, finishes: float, backlog: int, seconds: int = 60, partitions: int = 1) -> Flow:
    flow = Flow(window_s=30)
    for second in range(0, seconds, 2):
        readings = [
            reading_at(second, arrives=arrives, finishes=finishes, backlog=backlog, partition=p)
            for p in range(partitions)
        ]
        flow.add(measure(readings, now_ms=0, start="earliest"), now_s=float(second))
    return flow


def test_rates_come_from_the_growth_of_the_offsets_over_all_partitions() -> None:
    arrived, finished = flow_of(arrives=100, finishes=90, backlog=10, partitions=3).rates()
    assert arrived == pytest.approx(300)
    assert finished == pytest.approx(270)


def test_one_sample_is_no_rate() -> None:
    assert flow_of(arrives=100, finishes=90, backlog=10, seconds=1).rates() == (0.0, 0.0)


def test_an_offset_that_goes_back_counts_for_nothing() -> None:
    flow = Flow(window_s=30)
    for second, end in enumerate((1_000_000, 1_000_100, 50, 150)):
        flow.add(measure([Reading(end=end)], now_ms=0, start="earliest"), now_s=float(second))
    assert flow.rates()[0] == pytest.approx(200 / 3)


def test_saturated_workers_show_their_capacity_and_those_that_keep_up_do_not() -> None:
    assert flow_of(
        arrives=500, finishes=100, backlog=2000, partitions=2
    ).saturated_capacity() == pytest.approx(100)
    assert flow_of(arrives=100, finishes=100, backlog=50).saturated_capacity() is None
    assert flow_of(arrives=500, finishes=100, backlog=2000, seconds=20).saturated_capacity() is None
    assert flow_of(arrives=500, finishes=0, backlog=2000).saturated_capacity() is None


class HandClock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_ms(self) -> int:
        return int(self.now_s * 1000)

    def sleep(self, duration_s: float) -> None:
        self.now_s += duration_s


def test_an_observation_joins_offsets_and_reports() -> None:
    clock, messages = HandClock(), [encode_status(status_with(capacity_records_per_s=250.0))]
    readings = [
        Reading(partition=0, end=140, oldest_unfinished_timestamp_ms=990_000),
        Reading(partition=1, committed=100, oldest_unfinished_timestamp_ms=None, owner="v"),
        Reading(partition=2, committed=100, oldest_unfinished_timestamp_ms=None, owner="u"),
    ]
    collector = Collector(
        read_offsets=lambda: readings,
        read_reports=lambda: messages,
        book=ReportBook(group="g"),
        start="earliest",
        workers_per_replica=2,
        clock=clock,
    )
    observation = collector.observe()
    assert observation.demand.backlog_records == 100
    assert observation.demand.oldest_age_s == 10
    assert observation.demand.capacity_records_per_s == 250
    assert observation.demand.partitions == 3
    assert observation.demand.replicas_now == 2
    assert observation.workers_reporting == 1


def test_workers_that_share_an_owner_name_are_counted_by_their_reports() -> None:
    messages = [encode_status(status_with(worker=f"w{i}")) for i in range(3)]
    collector = Collector(
        read_offsets=lambda: [Reading()],
        read_reports=lambda: messages,
        book=ReportBook(group="g"),
        start="earliest",
        workers_per_replica=1,
        clock=HandClock(),
    )
    assert collector.observe().demand.replicas_now == 3


def test_a_broker_that_does_not_answer_is_no_observation() -> None:
    def unreachable() -> list[Reading]:
        raise UnavailableError("no broker")

    collector = Collector(
        read_offsets=unreachable,
        read_reports=list,
        book=ReportBook(group="g"),
        start="earliest",
        workers_per_replica=1,
        clock=HandClock(),
    )
    with pytest.raises(UnavailableError):
        collector.observe()


def test_a_group_that_has_begun_begins_new_partitions_at_their_beginning_whatever_start_says() -> None:
    begun = [
        Reading(partition=0, committed=10, end=10, oldest_unfinished_timestamp_ms=None),
        Reading(partition=1, committed=None, end=7),
    ]
    assert [lag.lag_records for lag in measure(begun, now_ms=0, start="latest")] == [0, 7]
    fresh = [Reading(partition=0, committed=None, end=10), Reading(partition=1, committed=None, end=7)]
    assert [lag.lag_records for lag in measure(fresh, now_ms=0, start="latest")] == [0, 0]


@pytest.mark.parametrize(
    ("reading", "records", "movement", "note"),
    [
        (Reading(fault="bad checksum"), 60, Movement.UNREADABLE, "offset 40 cannot be read: bad checksum"),
        (Reading(committed=10_000), 100, Movement.OUT_OF_RANGE, "at offset 10000, but the partition ends at 100"),
        (Reading(committed=40, earliest=50), 50, Movement.OUT_OF_RANGE, "offsets 40 to 49 were deleted"),
        (Reading(committed_topic_id="old"), 100, Movement.OUT_OF_RANGE, "an earlier topic of this name"),
    ],
)  # fmt: skip
def test_what_no_worker_gets_past_is_said_and_its_age_is_unknown(
    reading: Reading, records: int, movement: Movement, note: str
) -> None:
    lag = lag_of(reading)
    assert (lag.lag_records, lag.lag_seconds, lag.movement) == (records, None, movement)
    assert note in lag.note
    other = Reading(partition=1)
    both = measure([reading, other], now_ms=3_500, start="earliest")
    assert both[1] == measure([other], now_ms=3_500, start="earliest")[0]  # and hides nothing of the others


def test_offsets_behind_an_open_transaction_are_shown_beside_the_lag() -> None:
    caught_up = Reading(committed=100, open_offsets=5_001, oldest_unfinished_timestamp_ms=None)
    lag = lag_of(caught_up)
    assert (lag.lag_records, lag.open_offsets, lag.movement) == (0, 5_001, Movement.CAUGHT_UP)
    assert lag.note == "5,001 offsets are behind an open transaction of a producer"
