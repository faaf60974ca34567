"""The polling thread's loop over a source, a sink and a compute side that do as they are told."""

from collections.abc import Callable
from typing import Any

import pytest

from penstock.engine.pipeline.compute import Held
from penstock.engine.pipeline.hooks import Pausing, paused_by_operator
from penstock.schemas.errors import (
    AbortedError,
    InvariantError,
    PenstockError,
    TooManyRejectedError,
    UnavailableError,
)
from penstock.schemas.records import Records
from penstock.schemas.waits import WaitKind
from tests.hand_loop import Loop, records, rows_max


@pytest.fixture
def loop() -> Loop:
    return Loop()


def test_what_is_polled_is_delivered_with_exactly_its_positions(loop: Loop) -> None:
    loop.source.coming += [records((0, 5), (0, 6), (1, 2)), records((0, 9))]  # 7 and 8 are markers
    loop.turns(4)
    assert loop.delivered() == [b"0:5", b"0:6", b"1:2", b"0:9"]
    assert [dict(delivery.positions) for delivery in loop.sink.delivered] == [{0: 7, 1: 3}, {0: 10}]
    assert loop.source.committed == []
    assert loop.pipeline.quiet


def test_at_least_once_the_source_commits_what_was_delivered_and_nothing_more() -> None:
    loop = Loop(commits_by_source=True, commit_interval_s=0.0)
    loop.sink.eager = False
    loop.source.coming += [records((0, 0), (1, 0)), records((0, 1))]
    loop.turns(3)
    assert loop.source.committed == []
    loop.sink.answers.append(1)
    loop.turns(1)
    assert loop.source.committed[-1].keys() == {0, 1}
    assert loop.source.committed[-1][0] in (1, 2)
    loop.sink.eager = True
    loop.turns(2)
    assert loop.source.committed[-1] == {0: 2, 1: 1}


def test_at_least_once_commits_come_at_intervals_and_before_a_partition_goes() -> None:
    loop = Loop(commits_by_source=True, commit_interval_s=5.0)
    loop.source.coming += [records((0, offset)) for offset in range(3)]
    loop.turns(10)
    assert len(loop.delivered()) == 3
    assert loop.source.committed == []
    loop.pipeline.on_revoked([1])
    assert loop.source.committed == [{0: 3}]
    loop.turns(2)
    loop.clock.sleep(10.0)
    loop.turns(2)
    assert len(loop.source.committed) == 1  # nothing new
    loop.source.coming += [records((0, 3))]
    loop.turns(4)
    loop.clock.sleep(10.0)
    loop.turns(1)
    assert loop.source.committed == [{0: 3}, {0: 4}]


def test_at_least_once_commits_what_is_left_when_it_stops() -> None:
    loop = Loop(commits_by_source=True, commit_interval_s=5.0)
    loop.source.coming += [records((0, 0))]
    loop.pipeline.run(until=lambda: bool(loop.sink.delivered))
    assert loop.source.committed == [{0: 1}]


def test_a_small_delivery_waits_for_the_one_on_its_way_and_a_large_one_does_not() -> None:
    loop = Loop(beside_records_min=3)
    loop.sink.eager = False
    loop.sink.room = 2
    loop.source.coming += [records((0, 0)), records((0, 1), (0, 2))]
    loop.turns(8)
    assert [len(delivery.positions) for delivery in loop.sink.pending] == [1]
    loop.source.coming += [records((0, 3))]
    loop.turns(4)
    assert [dict(delivery.positions) for delivery in loop.sink.pending] == [{0: 1}, {0: 4}]


def test_at_low_load_what_was_polled_is_awaited_and_delivered_at_once() -> None:
    loop = Loop(quick_compute_s=1.0)
    loop.compute.takes_time = True
    loop.source.coming += [records((0, 0), (0, 1))]
    loop.turns(1)
    assert [dict(delivery.positions) for delivery in loop.sink.delivered] == [{0: 2}]


def test_at_low_load_a_turn_waits_for_the_delivery_and_then_takes_what_has_come() -> None:
    loop = Loop(quick_compute_s=1.0)
    loop.compute.takes_time, loop.sink.eager = True, False
    loop.source.coming += [records((0, 0))]
    loop.turns(1)
    began_s, polls = loop.clock.now_s, len(loop.source.polls)
    loop.turns(10)
    assert len(loop.source.polls) == polls + 10  # it polls on, so that the membership survives
    assert 0.08 < loop.clock.now_s - began_s < 0.15
    loop.source.coming += [records((0, 1), (0, 2), (1, 0))]
    loop.sink.eager = True
    loop.turns(2)
    assert [dict(delivery.positions) for delivery in loop.sink.delivered] == [{0: 1}, {0: 3, 1: 1}]


def test_at_least_once_at_low_load_only_the_next_record_is_waited_for() -> None:
    loop = Loop(commits_by_source=True, quick_compute_s=1.0, quick_deliveries_max=8)
    loop.compute.takes_time, loop.sink.eager, loop.sink.room = True, False, 8
    loop.source.coming += [records((0, 0)), records((0, 1)), records((1, 0))]
    began_s = loop.clock.now_s
    loop.turns(3)
    assert [dict(delivery.positions) for delivery in loop.sink.pending] == [{0: 1}, {0: 2}, {1: 1}]
    assert loop.clock.now_s - began_s < 0.002  # nobody waited for an acknowledgement
    loop.turns(5)
    assert all(0 < timeout_s <= 0.2 for _, timeout_s in loop.source.polls[-5:])
    assert loop.source.committed == []
    loop.sink.eager = True
    loop.turns(1)
    loop.clock.sleep(1.0)
    loop.turns(1)
    assert loop.source.committed == [{0: 2, 1: 1}]


def test_at_least_once_the_broker_sets_the_pace_when_several_deliveries_are_on_their_way() -> None:
    loop = Loop(commits_by_source=True, quick_compute_s=1.0, quick_deliveries_max=2)
    loop.compute.takes_time, loop.sink.eager, loop.sink.room = True, False, 8
    loop.source.coming += [records((0, 0)), records((0, 1))]
    loop.turns(2)
    began_s = loop.clock.now_s
    loop.turns(1)
    assert loop.clock.now_s - began_s > 0.009  # for an acknowledgement
    assert loop.source.polls[-1][1] == 0.0


@pytest.mark.parametrize("limits", [{"quick_compute_s": 0.0}, {"beside_records_min": 1}])
def test_where_batches_take_long_or_are_large_they_are_polled_beside_the_delivery(
    limits: dict[str, Any],
) -> None:
    loop = Loop(**limits)
    loop.compute.takes_time, loop.sink.eager = True, False
    loop.source.coming += [records((0, 0), (0, 1))]
    loop.turns(1)
    assert loop.sink.pending == []  # not waited for: more may be there to poll
    loop.turns(1)
    assert len(loop.sink.pending) == 1
    began_s = loop.clock.now_s
    loop.turns(10)
    assert loop.clock.now_s - began_s < 0.05


def test_finished_batches_share_a_delivery(loop: Loop) -> None:
    loop.sink.room = 0
    loop.source.coming += [records((0, offset)) for offset in range(4)]
    loop.turns(6)
    loop.sink.room = 1
    loop.turns(2)
    assert [dict(delivery.positions) for delivery in loop.sink.delivered] == [{0: 4}]
    assert loop.delivered() == [b"0:%d" % offset for offset in range(4)]


class TestBackPressure:
    def fill(self, loop: Loop) -> None:
        loop.compute.work = 0
        loop.source.coming += [
            records(*((0, o) for o in range(n, n + rows_max))) for n in range(0, 800, rows_max)
        ]

    def test_a_compute_side_that_is_stuck_pauses_the_source_and_polling_goes_on(self, loop: Loop) -> None:
        self.fill(loop)
        loop.turns(10)
        began_s = loop.clock.now_s
        while loop.clock.now_s < began_s + 1.0:
            loop.turns(1)
        assert not loop.source.fetches()
        polled = len(loop.source.polls)
        before_s = loop.clock.now_s
        loop.turns(50)
        assert len(loop.source.polls) >= polled + 50
        assert (loop.clock.now_s - before_s) / 50 < 0.2
        assert all(timeout_s <= 0.2 for _, timeout_s in loop.source.polls)
        assert loop.watched.waiting.batcher <= rows_max
        assert loop.watched.waiting.compute <= rows_max * loop.compute.batches_max

        loop.compute.work = 10**6
        loop.turns(800)
        assert loop.source.fetches()
        assert loop.delivered() == [b"0:%d" % offset for offset in range(800)]

    def test_a_short_stall_is_sat_out(self, loop: Loop) -> None:
        """Pausing throws away what is fetched already."""
        self.fill(loop)
        loop.turns(10)
        loop.clock.now_s += 0.1
        loop.turns(1)
        assert loop.source.fetches()

    def test_a_sink_that_is_stuck_stops_the_polling_too(self) -> None:
        loop = Loop(delivery_records_max=20)
        self.fill(loop)
        loop.compute.work, loop.sink.eager = 10**6, False
        loop.turns(600)
        assert not loop.source.fetches()
        assert loop.watched.waiting.delivery <= 3 * 20 + rows_max
        assert loop.watched.waiting.compute <= rows_max * loop.compute.batches_max
        loop.sink.eager = True
        loop.turns(800)
        assert loop.delivered() == [b"0:%d" % offset for offset in range(800)]


class TestAborts:
    def test_every_partition_is_read_again_from_its_first_unfinished_record(self, loop: Loop) -> None:
        loop.source.coming += [records((0, 0), (1, 4)), records((0, 1), (0, 2)), records((1, 5))]
        loop.turns(1)
        assert loop.delivered() == [b"0:0", b"1:4"]
        loop.sink.eager = False
        loop.turns(3)
        loop.sink.answers.append(AbortedError("no"))
        loop.turns(1)
        assert loop.source.sought == [{0: 1, 1: 5}]
        assert loop.watched.causes == ["abort"]
        assert loop.pipeline.quiet

    def test_after_an_abort_the_broker_is_left_alone_for_a_while(self, loop: Loop) -> None:
        loop.source.coming.append(records((0, 0)))
        loop.sink.answers += [AbortedError("no")]
        loop.turns(1)
        asked = len(loop.source.coming)
        loop.source.coming.append(records((0, 0)))
        loop.turns(1)
        assert len(loop.source.coming) == asked + 1
        assert not loop.source.fetches()
        loop.clock.now_s += 0.1
        loop.turns(2)
        assert loop.delivered() == [b"0:0"]

    def test_too_many_in_a_row_end_the_worker_and_a_success_between_them_does_not(self) -> None:
        loop = Loop(aborts_in_a_row_max=2)

        def again(answer: int | PenstockError) -> None:
            loop.source.coming.append(records((0, len(loop.sink.delivered))))
            loop.sink.answers.append(answer)
            loop.clock.now_s += 10.0
            loop.turns(1)

        for answer in (AbortedError("1"), AbortedError("2"), 1, AbortedError("3"), AbortedError("4")):
            again(answer)
        with pytest.raises(UnavailableError):
            again(AbortedError("5"))

    def test_inside_a_poll_nothing_of_that_poll_is_kept(self, loop: Loop) -> None:
        """The client polled a record of a partition that stays, then came a rebalance whose drain was aborted."""
        loop.source.coming.append(records((0, 0), (1, 0)))
        loop.sink.eager = False
        loop.turns(1)

        def torn() -> Records:
            loop.sink.answers.append(AbortedError("no"))
            loop.pipeline.on_revoked([1])
            return records((0, 1))

        loop.source.coming.append(torn)
        loop.turns(1)
        assert loop.source.sought == [{0: 0}]
        loop.sink.eager = True
        loop.clock.now_s += 1.0
        loop.source.coming.append(records((0, 0), (0, 1)))
        loop.turns(2)
        assert loop.delivered() == [b"0:0", b"0:1"]


class TestRebalances:
    def revoked(self, loop: Loop, *partitions: int, lost: bool = False) -> Callable[[], None]:
        def happen() -> None:
            (loop.pipeline.on_lost if lost else loop.pipeline.on_revoked)(partitions)

        return happen

    def test_what_is_in_flight_is_finished_before_a_partition_goes(self, loop: Loop) -> None:
        loop.sink.eager, loop.compute.work = False, 0
        loop.source.coming += [records((0, 0), (1, 0)), records((0, 1))]
        loop.turns(2)
        loop.sink.eager, loop.compute.work = True, 10
        loop.source.coming.append(self.revoked(loop, 1))
        loop.turns(1)
        assert loop.delivered() == [b"0:0", b"1:0"]
        assert loop.source.sought == [{0: 1}]  # what the batcher held was not in flight

    def test_when_the_budget_is_spent_all_of_it_is_dropped_and_what_stays_is_read_again(self) -> None:
        loop = Loop(drain_budget_s=3.0)
        loop.compute.work = 0
        loop.source.coming += [records((0, 7), (1, 0)), self.revoked(loop, 1)]
        loop.turns(1)
        began_s = loop.clock.now_s
        loop.turns(1)
        assert 3.0 <= loop.clock.now_s - began_s < 3.5
        assert loop.source.sought == [{0: 7}]
        assert loop.watched.causes == ["revoke"]
        assert loop.delivered() == []

    def test_of_a_lost_partition_nothing_is_delivered_any_more(self, loop: Loop) -> None:
        loop.sink.eager = False
        loop.source.coming += [records((0, 0), (1, 0)), self.revoked(loop, 0, 1, lost=True)]
        loop.turns(2)
        loop.sink.eager = True
        loop.turns(3)
        assert loop.sink.aborts == 1
        assert loop.delivered() == []
        assert loop.source.sought == []

    def test_a_commit_that_was_done_all_the_same_is_not_read_again(self, loop: Loop) -> None:
        loop.sink.eager, loop.sink.done_at_abort = False, 1
        loop.source.coming += [records((0, 0), (1, 0)), self.revoked(loop, 1, lost=True)]
        loop.turns(2)
        assert loop.delivered() == [b"0:0", b"1:0"]
        assert loop.source.sought == []

    def test_records_of_the_same_poll_that_follow_dropped_ones_are_read_again_as_well(
        self, loop: Loop
    ) -> None:
        loop.sink.eager = False
        loop.source.coming.append(records((0, 0), (1, 0)))
        loop.turns(1)

        def torn() -> Records:
            loop.pipeline.on_lost([1])
            loop.pipeline.on_assigned([2])
            return records((0, 1), (2, 30), (2, 31))

        loop.source.coming.append(torn)
        loop.turns(1)
        assert loop.source.sought == [{0: 0, 2: 30}]
        assert loop.pipeline.quiet

    def test_without_a_membership_a_delivery_waits(self, loop: Loop) -> None:
        loop.source.joined = False
        loop.source.coming.append(records((0, 0)))
        loop.turns(5)
        assert loop.sink.pending == []
        loop.source.joined = True
        loop.turns(2)
        assert loop.delivered() == [b"0:0"]


class TestTheEnd:
    def test_a_stop_finishes_what_is_in_flight(self, loop: Loop) -> None:
        loop.source.coming.append(records((0, 0)))
        loop.sink.eager = False
        loop.turns(2)
        loop.pipeline.request_stop()
        loop.sink.answers += [0, 0, 1]
        loop.pipeline.run()
        assert loop.delivered() == [b"0:0"]

    def test_a_stop_takes_no_longer_than_the_budget(self) -> None:
        loop = Loop(drain_budget_s=2.0)
        loop.source.coming.append(records((0, 0)))
        loop.compute.work = 0
        loop.turns(1)
        loop.pipeline.request_stop()
        began_s = loop.clock.now_s
        loop.pipeline.run()
        assert 2.0 <= loop.clock.now_s - began_s < 2.5
        loop.pipeline.close(1.0)
        assert (loop.sink.closes, loop.sink.pending) == (1, [])
        assert loop.delivered() == []

    def test_a_second_stop_does_not_wait(self, loop: Loop) -> None:
        loop.source.coming.append(records((0, 0)))
        loop.compute.work = 0
        loop.turns(1)
        loop.pipeline.request_stop()
        loop.pipeline.request_stop()
        began_s = loop.clock.now_s
        loop.pipeline.run()
        assert loop.clock.now_s - began_s < 0.1
        loop.pipeline.close(1.0)
        assert (loop.sink.closes, loop.sink.pending) == (1, [])

    def test_a_fault_commits_nothing_of_its_batch(self, loop: Loop) -> None:
        loop.source.coming += [records((0, 0)), records((0, 1))]
        loop.turns(1)
        loop.compute.error = InvariantError("no")
        with pytest.raises(InvariantError):
            loop.pipeline.run()
        assert loop.delivered() == [b"0:0"]
        loop.pipeline.close(1.0)
        assert (loop.sink.closes, loop.sink.pending) == (1, [])

    def test_closed_it_lets_go_of_the_source(self, loop: Loop) -> None:
        loop.pipeline.close(1.0)
        assert loop.source.closed


away = Held(kind=WaitKind.REGISTRY, reason="the registry is away")


def test_a_partition_that_must_wait_stands_still_and_the_others_go_on(loop: Loop) -> None:
    loop.compute.waiting = {1: away}
    loop.source.coming += [records((0, 0), (1, 0), (1, 1))]
    loop.turns(4)
    assert loop.source.held == {1}
    assert loop.source.sought == [{0: 0, 1: 0}]
    assert loop.watched.held == {1: away}
    assert loop.watched.causes == ["hold"]
    loop.source.coming += [records((0, 0), (0, 1))]
    loop.turns(4)
    assert loop.delivered() == [b"0:0", b"0:1"]
    loop.compute.waiting = {}
    loop.turns(1)
    assert loop.source.held == set()
    assert loop.source.sought[-1] == {1: 0}
    assert loop.watched.held == {}
    loop.source.coming += [records((1, 0), (1, 1))]
    loop.turns(4)
    assert loop.delivered() == [b"0:0", b"0:1", b"1:0", b"1:1"]


def test_what_is_finished_is_delivered_before_a_partition_stands_still(loop: Loop) -> None:
    loop.sink.eager = False
    loop.source.coming += [records((0, 0), (1, 0))]
    loop.turns(3)
    assert len(loop.sink.pending) == 1
    loop.compute.waiting = {1: away}
    loop.source.coming += [records((1, 1)), records((0, 1))]
    loop.turns(5)
    assert loop.source.held == set()  # the first delivery is on its way
    assert loop.source.sought == []
    loop.sink.eager = True
    loop.turns(3)
    assert loop.source.held == {1}
    assert loop.source.sought == [{0: 1, 1: 1}]
    assert loop.delivered() == [b"0:0", b"1:0"]


def test_an_abort_while_a_partition_is_about_to_stand_still_reads_everything_again(loop: Loop) -> None:
    loop.sink.eager = False
    loop.source.coming += [records((0, 0), (1, 0))]
    loop.turns(3)
    loop.compute.waiting = {1: away}
    loop.source.coming += [records((1, 1))]
    loop.turns(3)
    loop.sink.answers.append(AbortedError("no"))
    loop.turns(3)
    assert loop.source.sought[0] == {0: 0, 1: 0}
    assert loop.source.held == set()  # what is read again shows whether it must wait
    loop.compute.waiting = {}
    loop.clock.sleep(5.0)
    loop.sink.eager = True
    loop.source.coming += [records((0, 0), (1, 0), (1, 1))]
    loop.turns(6)
    assert loop.delivered() == [b"0:0", b"1:0", b"1:1"]
    assert loop.source.held == set()


def test_a_partition_that_goes_to_another_worker_is_not_waited_for_here(loop: Loop) -> None:
    loop.compute.waiting = {1: away}
    loop.source.coming += [records((1, 0))]
    loop.turns(3)
    assert loop.source.held == {1}
    loop.pipeline.on_revoked([1])
    assert loop.compute.let_go_of == [1]
    loop.compute.waiting = {}
    loop.pipeline.on_assigned([1])
    loop.source.coming += [records((1, 0))]
    loop.turns(3)
    assert loop.delivered() == [b"1:0"]


def test_a_partition_of_bad_records_stops_alone_and_behind_its_letters(loop: Loop) -> None:
    loop.watched.stops = {1: "too many, from offset 0 on"}
    loop.source.coming += [records((0, 0), (1, 0), (1, 1))]
    loop.turns(6)
    assert loop.delivered() == [b"0:0", b"1:0", b"1:1"]  # with the letters among them
    stopped = Held(kind=WaitKind.STOPPED, reason="too many, from offset 0 on", stopped=True)
    assert loop.watched.held == {1: stopped}
    assert loop.source.held == {1}
    loop.source.coming += [records((0, 1), (0, 2))]
    loop.turns(4)
    assert loop.delivered()[-2:] == [b"0:1", b"0:2"]
    assert loop.watched.held == {1: stopped}


def test_when_every_partition_is_stopped_the_worker_ends_with_its_letters_committed() -> None:
    loop = Loop(commits_by_source=True, commit_interval_s=60.0)
    loop.watched.stops = {0: "zero", 1: "one"}
    loop.source.coming += [records((0, 0), (1, 0))]
    with pytest.raises(TooManyRejectedError, match="partition 0: zero"):
        loop.turns(6)
    assert loop.source.committed == [{0: 1, 1: 1}]


@pytest.mark.parametrize("cause", ["abort", "lost"])
def test_a_partition_of_bad_records_does_not_stop_while_its_letters_are_not_delivered(
    loop: Loop, cause: str
) -> None:
    """What was dropped with them comes again, and is judged again."""
    loop.sink.eager = False
    loop.watched.stops = {1: "too many"}
    loop.source.coming += [records((0, 0), (1, 0))]
    loop.turns(2)
    if cause == "abort":
        loop.sink.answers.append(AbortedError("no"))
        loop.turns(1)
    else:
        loop.pipeline.on_lost([0])
        loop.pipeline.on_assigned([0])
    loop.sink.eager = True
    loop.clock.sleep(5.0)
    loop.turns(2)
    assert loop.source.held == set()
    loop.watched.stops = {1: "too many"}
    loop.source.coming += [records((1, 0))]
    loop.turns(3)
    assert loop.delivered() == [b"1:0"]
    assert loop.source.held == {1}


def test_a_partition_that_an_operator_pauses_is_held_and_what_is_in_flight_is_finished() -> None:
    loop = Loop()
    loop.source.coming += [records((0, 0), (1, 0))]
    loop.compute.takes_time = True
    loop.turns(1)
    loop.asked = Pausing(partitions=frozenset({1, 7}))
    loop.turns(6)
    assert loop.source.held == {1}  # 7 is not ours
    assert sorted(value or b"" for value in loop.delivered()) == [b"0:0", b"1:0"]
    assert loop.watched.held == {1: paused_by_operator}
    loop.asked = Pausing(everything=True)
    loop.turns(1)
    assert loop.source.held == {0, 1}
    loop.asked = Pausing()
    loop.turns(1)
    assert loop.source.held == set()
    assert loop.watched.held == {}
    assert loop.source.sought == []  # reading goes on where it stood


def test_a_partition_that_comes_while_everything_is_paused_is_paused_too() -> None:
    loop = Loop()
    loop.asked = Pausing(everything=True)
    loop.turns(1)
    assert loop.source.held == {0, 1}
    loop.pipeline.on_revoked([1])
    loop.pipeline.on_assigned([1, 2])
    assert loop.source.held == {0, 1, 2}  # at once: the same poll may bring records of them


def test_what_waits_for_a_reason_of_its_own_stays_held_when_a_pause_ends() -> None:
    loop = Loop()
    loop.compute.waiting = {0: Held(kind=WaitKind.REGISTRY, reason="no schema")}
    loop.source.coming += [records((0, 5)), records((1, 0))]
    loop.turns(6)
    assert loop.source.held == {0}
    loop.asked = Pausing(everything=True)
    loop.turns(2)
    assert loop.source.held == {0, 1}
    loop.asked = Pausing()
    loop.turns(2)
    assert loop.source.held == {0}
