"""From offsets and reports to a demand: what counts as lag, as a rate, as a capacity, and what does not."""

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass, replace

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine.scaling.collector import Collector
from penstock.engine.scaling.flow import Flow, stall_s
from penstock.engine.scaling.forecast import Arrivals
from penstock.engine.scaling.lag import Movement, PartitionLag, compare, measure, with_foreign
from penstock.engine.scaling.report_message import Report, decode_status, encode_status
from penstock.engine.scaling.reports import ReportBook, Reporter
from penstock.engine.telemetry.worker_status import ModelIdentity, Position, WorkerState, WorkerStatus
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
    stamped_by_broker: bool = False

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
    reporter = Reporter(
        lambda worker, payload: sent.append(decode_status(payload or b"")), clock=clock, every_s=5
    )
    reporter(status_with(state=WorkerState.STARTING))
    reporter(status_with(state=WorkerState.RUNNING))
    reporter(status_with(state=WorkerState.RUNNING, assigned=(1,)))
    for _ in range(12):
        clock.sleep(1)
        reporter(status_with(state=WorkerState.RUNNING, assigned=(1,)))
    assert [report.state for report in sent] == ["starting", "running", "running", "running", "running"]


def test_a_worker_that_stops_leaves_what_it_could_do_and_nothing_under_its_name() -> None:
    topic: dict[str, bytes | None] = {}
    for name in ("w-0", "w-1"):
        reporter = Reporter(topic.__setitem__, clock=HandClock())
        for state in (WorkerState.RUNNING, WorkerState.STOPPED):
            reporter(status_with(worker=name, state=state, explain_records_per_s=70.0, explained_ratio=1.0))
    assert topic["w-0"] is None
    assert topic["w-1"] is None
    (left,) = [value for value in topic.values() if value is not None]
    book = ReportBook(group="g")
    book.read(left, now_ms=9_000_000)
    assert rate_of(book, now_ms=9_000_000) == 70


def book_of(*statuses: WorkerStatus) -> ReportBook:
    book = ReportBook(group="g", fresh_s=30)
    for one in statuses:
        book.read(encode_status(one), now_ms=max(one.at_ms, 0))
    return book


def rate_of(book: ReportBook, *, now_ms: int) -> float | None:
    capacity = book.capacity(now_ms=now_ms)
    return capacity.records_per_s if capacity else None


def test_capacity_is_the_low_percentile_of_those_that_report() -> None:
    workers = [status_with(worker=f"w{i}", capacity_records_per_s=float(100 + i)) for i in range(10)]
    assert rate_of(book_of(*workers), now_ms=1_000_000) == 101


def test_reports_of_workers_that_left_still_say_what_a_worker_can_do() -> None:
    old = status_with(worker="a", at_ms=500_000, capacity_records_per_s=70.0, startup_s=9.0)
    newer = status_with(worker="b", at_ms=600_000, capacity_records_per_s=80.0, startup_s=4.0)
    unknown = status_with(
        worker="c", at_ms=990_000, capacity_records_per_s=0.0, startup_s=0.0, state=WorkerState.STARTING
    )
    book = book_of(old, newer, unknown)
    assert rate_of(book, now_ms=1_000_000) == 80
    assert book.startup_s(now_ms=1_000_000) == 4
    assert [report.worker for report in book.fresh(now_ms=1_000_000)] == ["c"]


def test_only_the_newest_report_of_our_own_group_counts() -> None:
    book = book_of(
        status_with(capacity_records_per_s=60.0, at_ms=800_000),
        status_with(capacity_records_per_s=70.0, at_ms=900_000),
        status_with(worker="x", group="other", capacity_records_per_s=1.0),
    )
    book.read(None, now_ms=2_000_000)
    book.read(b"no report", now_ms=2_000_000)
    assert rate_of(book, now_ms=900_000) == 70
    assert book.unreadable == 1


@given(
    name=st.sampled_from(["startup_s", "capacity_records_per_s", "finished_records_per_s", "busy_ratio"]),
    number=st.floats().filter(lambda number: not 0 <= number <= 1e12),
)
def test_a_report_with_a_number_that_cannot_be_is_passed_over(name: str, number: float) -> None:
    book = book_of(status_with(worker="good", capacity_records_per_s=70.0, startup_s=3.0))
    book.read(encode_status(status_with(worker="forged", **{name: number})), now_ms=1_000_000)
    assert book.unreadable == 1
    assert rate_of(book, now_ms=1_000_000) == 70
    assert book.startup_s(now_ms=1_000_000) == 3


@pytest.mark.parametrize("at_ms", [2**62, 4_600_000, 1])
def test_a_worker_whose_clock_is_an_hour_off_counts_as_soon_as_it_is_heard_again(at_ms: int) -> None:
    book = ReportBook(group="g")
    for second in range(0, 20, 5):
        book.read(encode_status(status_with(at_ms=at_ms + second)), now_ms=1_000_000 + 1000 * second)
        assert len(book.fresh(now_ms=1_000_000 + 1000 * second)) == (second > 0)
    assert book.fresh(now_ms=1_050_000) == []


def test_old_reports_read_from_the_topics_beginning_are_nobody() -> None:
    book = ReportBook(group="g")
    for at_ms in range(1000, 100_000, 5000):
        book.read(encode_status(status_with(at_ms=at_ms)), now_ms=1_000_000)
    assert book.fresh(now_ms=1_000_000) == []


def test_the_newest_report_of_a_worker_counts_whatever_its_clock_says() -> None:
    book = ReportBook(group="g")
    book.read(encode_status(status_with(at_ms=2**62, capacity_records_per_s=1e9)), now_ms=1_000_000)
    book.read(encode_status(status_with(at_ms=1_000_000, capacity_records_per_s=70.0)), now_ms=1_000_000)
    assert rate_of(book, now_ms=1_000_000) == 70


@given(message=st.binary(max_size=80), cut=st.integers(0, 200))
def test_no_message_ends_the_scaler(message: bytes, cut: int) -> None:
    book, whole = ReportBook(group="g"), encode_status(status_with())
    for value in (message, whole[:10] + message, whole[: len(whole) - 1 - cut % len(whole)], whole + message):
        book.read(value, now_ms=1_000_000)
        capacity, startup_s = rate_of(book, now_ms=1_000_000), book.startup_s(now_ms=1_000_000)
        assert capacity is None or 0 <= capacity <= 1e12
        assert 0 <= startup_s <= 1e12


def test_the_book_is_bounded_and_drops_the_oldest() -> None:
    book = ReportBook(group="g", workers_max=2)
    for i in range(3):
        book.read(encode_status(status_with(worker=f"w{i}", at_ms=1_000_000 + i)), now_ms=1_000_000 + i)
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


def test_a_group_that_stands_still_is_not_taken_for_a_saturated_one() -> None:
    flow = Flow(window_s=30)
    for second in range(0, 200, 2):
        done = 100 * min(second, 60)
        flow.add(
            measure([Reading(committed=done, end=10**6)], now_ms=0, start="earliest"), now_s=float(second)
        )
        capacity = flow.saturated_capacity()
        assert capacity is None or capacity > 60


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
    assert observation.snapshot.backlog.tolist() == [100, 0, 0]
    assert observation.event_age_s == 10
    assert observation.snapshot.oldest_age_s == 0, "it has been seen to wait for no time yet"
    assert observation.snapshot.capacity_records_per_s == 250
    assert observation.snapshot.partitions == 3
    assert observation.snapshot.replicas_now == 2
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
    assert collector.observe().snapshot.replicas_now == 3


def group_of(clock: HandClock, readings: list[Reading], messages: list[bytes] | None = None) -> Collector:
    return Collector(
        read_offsets=lambda: readings, read_reports=lambda: messages or [], book=ReportBook(group="g"), start="earliest",
        workers_per_replica=1, clock=clock, topic="t",
    )  # fmt: skip


@pytest.mark.parametrize("ahead_s", [-3600, 0, 3600])
def test_age_is_the_time_in_the_log_whatever_the_records_own_stamps_say(ahead_s: int) -> None:
    clock, readings = HandClock(), list[Reading]()
    collector = group_of(clock, readings)
    for second in range(0, 60, 2):  # caught up but for what came in the last two seconds
        stamp_ms = clock.wall_ms() + 1000 * ahead_s
        readings[:] = [
            Reading(
                end=50 * second, committed=max(50 * second - 50, 0), oldest_unfinished_timestamp_ms=stamp_ms
            )
        ]
        assert collector.observe().snapshot.oldest_age_s <= 4
        clock.sleep(2)
    for second in range(2, 40, 2):  # nothing is finished any more
        readings[:] = [
            Reading(end=3000 + 50 * second, committed=2900, oldest_unfinished_timestamp_ms=stamp_ms)
        ]
        age_s = collector.observe().snapshot.oldest_age_s
        assert second - 2 <= age_s <= second + 4
        clock.sleep(2)


def test_what_was_there_before_the_scaler_is_as_old_as_the_brokers_stamp_says() -> None:
    clock = HandClock()
    stamped = Reading(oldest_unfinished_timestamp_ms=clock.wall_ms() - 600_000, stamped_by_broker=True)
    assert group_of(clock, [stamped]).observe().snapshot.oldest_age_s == 600
    produced = Reading(oldest_unfinished_timestamp_ms=clock.wall_ms() - 600_000)
    assert group_of(clock, [produced]).observe().snapshot.oldest_age_s == 0


def test_a_partition_too_fast_for_any_worker_does_not_make_the_group_old_for_ever() -> None:
    clock, readings = HandClock(), list[Reading]()
    collector = group_of(clock, readings, [encode_status(status_with(capacity_records_per_s=100.0))])
    for second in range(0, 300, 2):
        readings[:] = [
            Reading(
                partition=0, end=500 * second + 10, committed=100 * second, oldest_unfinished_timestamp_ms=0
            ),
            Reading(
                partition=1, end=10 * second + 10, committed=10 * second, oldest_unfinished_timestamp_ms=0
            ),
        ]
        observation = collector.observe()
        clock.sleep(2)
    assert observation.snapshot.oldest_age_s <= 5
    assert observation.waited_s[0] > 100


def test_a_partition_that_stands_still_does_not_make_the_group_old_for_ever() -> None:
    """Neither the time to drain in, nor whether more workers help, is judged by it; /status and the metrics show its age."""
    clock, readings = HandClock(), list[Reading]()
    collector = group_of(clock, readings, [encode_status(status_with(capacity_records_per_s=100.0))])
    for second in range(0, 300, 2):
        moving = 10 * second
        readings[:] = [
            Reading(partition=0, end=moving + 110, committed=7, oldest_unfinished_timestamp_ms=0),
            Reading(partition=1, end=moving + 10, committed=moving, oldest_unfinished_timestamp_ms=0),
        ]
        observation = collector.observe()
        clock.sleep(2)
    assert set(observation.snapshot.left_out) == {0}
    assert observation.snapshot.oldest_age_s <= 5
    assert observation.capacity is not None
    assert observation.capacity.records_per_s == 100, (
        "what waits in it does not make the worker look saturated"
    )
    assert observation.waited_s[0] > 100


@pytest.mark.parametrize(("partitions", "turn_s"), [(2, 150), (5, 40), (12, 20)])
def test_a_partition_whose_worker_is_busy_with_others_waits_its_turn_and_is_work(
    partitions: int, turn_s: int
) -> None:
    """A slow model's worker works off what it fetched of one partition before it comes to the next."""
    clock, readings = HandClock(), list[Reading]()
    collector = group_of(clock, readings, [encode_status(status_with(capacity_records_per_s=100.0))])
    assert turn_s * (partitions - 1) > stall_s
    done = [0] * partitions
    for second in range(0, 2 * partitions * turn_s, 2):
        done[second // turn_s % partitions] += 180
        readings[:] = [
            Reading(partition=number, end=1_000_000, committed=finished, oldest_unfinished_timestamp_ms=0)
            for number, finished in enumerate(done)
        ]
        assert collector.observe().snapshot.left_out == {}, second
        clock.sleep(2)


def test_offsets_without_records_are_no_arrivals_and_no_backlog() -> None:
    clock, readings = HandClock(), list[Reading]()
    half = encode_status(status_with(at_ms=1_000_000, records_per_offset=0.5, finished_records_per_s=10.0))
    messages = [half]
    collector = group_of(clock, readings, messages)
    for second in range(0, 130, 2):  # each record in a transaction of its own: a marker behind every one
        readings[:] = [
            Reading(end=200 * second + 100, committed=200 * second, oldest_unfinished_timestamp_ms=0)
        ]
        messages[:] = [encode_status(status_with(at_ms=clock.wall_ms(), records_per_offset=0.5))]
        snapshot = collector.observe().snapshot
        clock.sleep(2)
    assert snapshot.backlog.sum() == 50
    assert snapshot.arrivals_now.sum() == pytest.approx(100)


def test_capacity_is_what_was_seen_of_the_model_in_force_by_kind_of_work() -> None:
    seen = {"predict_records_per_s": 1000.0, "explain_records_per_s": 100.0, "capacity_measured": True}
    old = status_with(worker="a", at_ms=900_000, capacity_records_per_s=5e6, **seen)
    guess = status_with(worker="b", at_ms=990_000, capacity_records_per_s=9999.0, explained_ratio=1.0)
    assert rate_of(book_of(old, guess), now_ms=1_000_000) == pytest.approx(100), (
        "seen by one that has left; all explained"
    )
    half = status_with(worker="b", at_ms=990_000, capacity_records_per_s=9999.0, explained_ratio=0.5)
    assert rate_of(book_of(old, half), now_ms=1_000_000) == pytest.approx(2 / (1 / 1000 + 1 / 100))
    other = status_with(
        worker="b", at_ms=990_000, capacity_records_per_s=7.0, model=ModelIdentity(name="m", version="2", digest="d2", device="cpu")
    )  # fmt: skip
    book = book_of(old, other)
    assert rate_of(book, now_ms=1_000_000) == 7, "the last model's capacity says nothing of this one"
    capacity = book.capacity(now_ms=1_000_000)
    assert capacity is not None
    assert not capacity.measured


def test_a_report_of_the_version_before_is_read() -> None:
    from penstock.engine.codec.contracts import older_contracts
    from penstock.engine.codec.framing import single_object_prefix

    (before,) = older_contracts("worker_status")
    out = io.BytesIO()
    out.write(single_object_prefix(before))
    fastavro.schemaless_writer(
        out,
        fastavro.parse_schema(before),
        {
            "worker": "w", "group": "g", "at_ms": 5, "state": "running", "model_digest": "d", "startup_s": 1.0,
            "capacity_records_per_s": 9.0, "finished_records_per_s": 1.0, "busy_ratio": 0.5, "positions": [],
        },
    )  # fmt: skip
    report = decode_status(out.getvalue())
    assert (report.capacity_records_per_s, report.capacity_measured, report.records_per_offset) == (
        9.0,
        False,
        1.0,
    )


def arrivals_of(rate: Callable[[float], float], *, until_s: float = 1200.0) -> Arrivals:
    arrivals, end = Arrivals(), 0.0
    for second in range(0, int(until_s), 2):
        end += 2 * rate(second)
        arrivals.add({0: int(end)}, now_s=float(second))
    return arrivals


def test_a_ramp_is_forecast_and_a_step_is_not_taken_for_one() -> None:
    ramp = arrivals_of(lambda s: 1000 + s)
    assert ramp.ahead(120.0).sum() == pytest.approx(2199 + 120, rel=0.05)
    assert arrivals_of(lambda _: 1000).ahead(120.0).sum() == pytest.approx(1000, rel=0.01)
    for ago_s in (20, 60, 200, 400):
        step = arrivals_of(lambda s, ago_s=ago_s: 1000 if s < 1200 - ago_s else 10_000)  # type: ignore[misc]
        assert step.ahead(120.0).sum() == pytest.approx(10_000, rel=0.1)
    assert arrivals_of(lambda s: max(2000 - s, 100)).ahead(120.0).sum() <= 900


def test_what_used_to_burst_is_expected_to_burst() -> None:
    bursts = arrivals_of(lambda s: 1500 if s % 240 < 60 else 1000, until_s=3620.0)
    assert bursts.ahead(180.0).sum() == pytest.approx(1500, rel=0.1)


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


def test_what_another_program_owns_is_not_caught_up_however_little_waits_there() -> None:
    done = Reading(committed=100, oldest_unfinished_timestamp_ms=None, owner="rdkafka@10.0.0.9")
    readings = [
        done, replace(done, partition=1, owner="g-here-0@10.0.0.1"), replace(done, partition=2, owner=None),
        replace(done, partition=3, committed=40, oldest_unfinished_timestamp_ms=1_000, open_offsets=7),
        replace(done, partition=4, fault="bad checksum"),
    ]  # fmt: skip
    lags = measure(readings, now_ms=3_500, start="earliest")
    assert lags[0].movement is Movement.CAUGHT_UP  # the scaler's view
    told = with_foreign(lags, lambda client_id: client_id.startswith("g-"))
    assert [each.movement for each in told] == [
        Movement.FOREIGN, Movement.CAUGHT_UP, Movement.CAUGHT_UP, Movement.FOREIGN, Movement.UNREADABLE,
    ]  # fmt: skip
    assert "owned by rdkafka@10.0.0.9, which is no worker of this group" in told[0].note
    assert told[3].note.startswith("7 offsets are behind an open transaction of a producer; owned by rdkafka")
    assert "owned by rdkafka" in told[4].note
    assert compare(told, told) == told
