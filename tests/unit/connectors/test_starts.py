"""Where a member begins: within the polling thread's patience, however slow the coordinator is, and in the end."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, TopicPartition

from penstock.connectors.kafka.reading import starts as starts_module
from penstock.connectors.kafka.reading.commits import offset_note
from penstock.connectors.kafka.reading.starts import Recreated, Start, Starts, own_commit_s, slow_first_s
from penstock.connectors.kafka.reading.topic_watch import TopicFacts
from penstock.schemas.errors import PenstockError
from tests.clocks import HandClock

polling_max_s = 0.2
facts = TopicFacts(id="t1", partitions=4, asked_at_s=0.0)


class HandAside:
    """Aside in a clock's time: a call takes as long as it moves the clock, and whoever waits for it moves it that far again."""

    def __init__(self, clock: HandClock) -> None:
        self._clock = clock
        self._end: tuple[float, Exception | None] | None = None
        self.closed = False

    def run(self, call: Callable[[], None], timeout_s: float) -> bool:
        assert self._end is None
        assert not self.closed
        error, began_s = None, self._clock.now_s
        try:
            call()
        except KafkaException as failed:
            error = failed
        self._end = self._clock.now_s, error
        self._clock.now_s = began_s
        return self.wait(timeout_s)

    def wait(self, timeout_s: float) -> bool:
        assert self._end is not None
        ends_s, error = self._end
        self._clock.sleep(max(min(ends_s - self._clock.now_s, timeout_s), 0.0))
        if self._clock.now_s < ends_s - 1e-9:
            return False
        self._end = None
        if error is not None:
            raise error
        return True

    def close(self) -> None:
        self.closed = True


class Coordinator:
    """Answers after `answer_s`; what waits for less gets nothing and has waited."""

    def __init__(self, answer_s: float, commits: dict[int, int]) -> None:
        self.clock, self.answer_s, self.commits = HandClock(), answer_s, commits

    def _wait(self, timeout: float) -> None:
        self.clock.sleep(min(timeout, self.answer_s))
        if timeout < self.answer_s:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    def committed(self, places: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        self._wait(timeout)
        return [TopicPartition("t", p.partition, self.commits.get(p.partition, -1001)) for p in places]

    def offsets_for_times(self, places: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        self._wait(timeout)
        return [TopicPartition("t", place.partition, 100 + place.partition) for place in places]

    def list_topics(self, topic: str, timeout: float) -> None:
        self._wait(timeout)

    def commit(self, *, offsets: list[TopicPartition], asynchronous: bool) -> None:
        assert asynchronous
        self.commits |= {place.partition: place.offset for place in offsets}


def starts_of(
    consumer: Any,
    start: Start,
    clock: HandClock,
    *,
    fail: Callable[[PenstockError], None] = lambda error: None,
    recreated: Recreated = "read",
) -> Starts:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(starts_module, "Aside", lambda name: HandAside(clock))
        return Starts(
            consumer,
            group="g",
            topic="t",
            start=start,
            recreated=recreated,
            fail=fail,
            open_other=lambda: consumer,
            clock=clock,
        )


def begin(
    coordinator: Coordinator, start: Start, *, between_s: float = 0.01
) -> tuple[dict[int, int], list[PenstockError]]:
    """What is found in the end; asserts that no call waits longer than a poll may. `between_s`: two calls."""
    failures: list[PenstockError] = []
    consumer: Any = coordinator
    starts = starts_of(consumer, start, coordinator.clock, fail=failures.append)
    clock = coordinator.clock
    found: dict[int, int] = {}
    for turn in range(200):
        before_s = clock.now_s
        waiting = set(range(4)) - found.keys()
        found |= (
            starts.soon(waiting, facts, decides=True)
            if turn == 0
            else starts.one(waiting, facts, decides=True)
        )
        assert clock.now_s - before_s <= polling_max_s, f"turn {turn}"
        if len(found) == 4 or failures:
            break
        clock.sleep(between_s)
    return found, failures


@pytest.mark.parametrize("answer_s", [0.001, 0.04, 0.08, 0.14])
@pytest.mark.parametrize("start", ["earliest", "latest", "error"])
@pytest.mark.parametrize("commits", [{}, {0: 7}, {0: 7, 1: 8, 2: 9, 3: 10}], ids=["none", "one", "all"])
def test_no_call_waits_longer_than_a_poll_may_and_all_are_placed(
    answer_s: float, start: Start, commits: dict[int, int]
) -> None:
    found, failures = begin(Coordinator(answer_s, dict(commits)), start)
    if start == "error" and not commits:
        assert "no committed offset for any partition" in str(failures[0])
        return
    assert not failures
    if not commits:  # the same for both: this coordinator is asked for beginnings or ends
        assert found == {p: 100 + p for p in range(4)}
        return
    assert found == {p: commits.get(p, OFFSET_BEGINNING) for p in range(4)}


@pytest.mark.parametrize("answer_s", [0.16, 0.3, 0.9])
@pytest.mark.parametrize("start", ["earliest", "latest"])
@pytest.mark.parametrize("commits", [{}, {0: 7}, {0: 7, 1: 8, 2: 9, 3: 10}], ids=["none", "one", "all"])
def test_brokers_that_are_further_away_than_a_poll_may_wait_are_heard_all_the_same(
    answer_s: float, start: Start, commits: dict[int, int]
) -> None:
    """Whatever was asked was given up before its answer came: no partition ever began."""
    coordinator = Coordinator(answer_s, dict(commits))
    found, failures = begin(coordinator, start, between_s=0.1)
    assert not failures
    assert found == {p: commits.get(p, OFFSET_BEGINNING) if commits else 100 + p for p in range(4)}
    assert coordinator.clock.now_s < 30


def test_a_partition_whose_answer_is_held_back_takes_a_fifth_of_the_questions_time_at_most() -> None:
    """An open transaction of a predecessor, for a minute: the others are asked about meanwhile, also where one answer had been
    slow once, and the polling thread is not held up by any question."""
    coordinator = Coordinator(0.001, {0: 7})
    consumer: Any = coordinator
    clock = coordinator.clock
    starts = starts_of(consumer, "earliest", clock)
    coordinator.answer_s = 0.5
    while not starts.one({0}, facts, decides=True):
        clock.sleep(0.1)
    coordinator.answer_s = 1e9
    asked: list[float] = []
    committed = coordinator.committed

    def noted(places: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        asked.append(timeout)
        return committed(places, timeout)

    coordinator.committed = noted  # type: ignore[method-assign]
    began_s = clock.now_s
    while clock.now_s <= began_s + 60:
        before_s = clock.now_s
        assert starts.one({0}, facts, decides=True) == {}
        assert clock.now_s - before_s <= polling_max_s
        clock.sleep(0.1)
    slow = [timeout_s for timeout_s in asked if timeout_s >= slow_first_s]
    assert len(slow) >= 2
    assert sum(slow) < 0.2 * 60


def test_what_was_asked_before_an_assignment_is_not_believed_after_it() -> None:
    """The answer is under way while the partition goes to another member, which commits, and comes back."""
    coordinator = Coordinator(0.9, {0: 7})
    consumer: Any = coordinator
    clock = coordinator.clock
    starts = starts_of(consumer, "earliest", clock)
    while starts._asked is None or starts._asked.timeout_s < 0.9:
        assert starts.one({0}, facts, decides=True) == {}
        clock.sleep(0.1)
    coordinator.commits = {0: 50}
    starts.anew()
    assert starts.soon({0}, facts, decides=True) == {}
    found: dict[int, int] = {}
    while not found:
        found = starts.one({0}, facts, decides=True)
        clock.sleep(0.1)
    assert found == {0: 50}


def test_a_commit_of_another_program_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """A consumer of something else in the group takes partitions, commits, and leaves: its records are not predicted."""

    class Noted(Coordinator):
        def committed(self, places: list[TopicPartition], timeout: float) -> list[TopicPartition]:
            notes = {1: "", 2: "by hand"}
            return [
                TopicPartition(
                    "t", p.partition, self.commits[p.partition], notes.get(p.partition, offset_note("t1"))
                )
                for p in places
            ]

    coordinator: Any = Noted(0.001, {0: 7, 1: 8, 2: 9, 3: 0})
    starts = starts_of(coordinator, "earliest", coordinator.clock)
    for _ in range(3):
        assert starts.soon({0, 1, 2, 3}, facts, decides=True) == {0: 7, 1: 8, 2: 9, 3: 0}
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert "was not written by Penstock: partition 1 at offset 8, partition 2 at offset 9;" in said[0]


def test_a_member_that_commits_meanwhile_decides_for_the_group() -> None:
    """Between the look at the ends and their commit: then what the other one committed holds."""
    coordinator = Coordinator(0.001, {})
    consumer: Any = coordinator
    starts = starts_of(consumer, "latest", coordinator.clock)
    assert starts.soon({0, 1}, facts, decides=True) == {}
    assert starts.one({0, 1}, facts, decides=True) == {}  # nobody has a commit
    assert starts.one({0, 1}, facts, decides=True) == {}  # the ends are known
    coordinator.commits = {2: 50}
    assert starts.one({0, 1}, facts, decides=True) == {0: OFFSET_BEGINNING, 1: OFFSET_BEGINNING}
    assert coordinator.commits == {2: 50}


def test_earliest_is_committed_for_the_whole_group_before_anything_is_read() -> None:
    """So a partition that is idle until its first record was deleted is known to miss that record."""
    coordinator = Coordinator(0.001, {})
    found, failures = begin(coordinator, "earliest")
    assert not failures
    assert coordinator.commits == found == {p: 100 + p for p in range(4)}


def test_earliest_begins_although_a_partition_is_away() -> None:
    """It has no commit then, and begins at its beginning; the others wait for nothing."""
    coordinator = Coordinator(0.001, {})
    answers = coordinator.offsets_for_times
    coordinator.offsets_for_times = lambda places, timeout: answers(places[:3], timeout)  # type: ignore[method-assign]
    found, failures = begin(coordinator, "earliest")
    assert not failures
    assert found == {0: 100, 1: 101, 2: 102, 3: OFFSET_BEGINNING}


class Slow(Coordinator):
    """What one member sees of the coordinator: its own commits at once, those of others after so many questions."""

    def __init__(self, log: list[tuple["Slow", dict[int, int]]], late: int) -> None:
        super().__init__(0.001, {})
        self._log, self._late, self._asked = log, late, 0

    def committed(self, places: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        self._asked += 1
        self.commits = {}
        for member, offsets in self._log:
            if member is self or self._asked > self._late:
                self.commits |= offsets
        return super().committed(places, timeout)

    def offsets_for_times(self, places: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        by = 10 * self._asked + len(self._log)  # records come, and are deleted
        return [TopicPartition("t", place.partition, 100 + place.partition + by) for place in places]

    def commit(self, *, offsets: list[TopicPartition], asynchronous: bool) -> None:
        self._log.append((self, {place.partition: place.offset for place in offsets}))


@pytest.mark.parametrize("start", ["earliest", "latest"])
@pytest.mark.parametrize("order", ["ab", "ba", "aab", "bbba"])
@pytest.mark.parametrize("late", [0, 1, 3, 10])
def test_of_several_members_one_commits_once_where_the_group_begins(
    start: Start, order: str, late: int
) -> None:
    """Each member finds other offsets, and of two commits the one that comes last would move the group."""
    log: list[tuple[Slow, dict[int, int]]] = []
    mine = {"a": {0, 2}, "b": {1, 3}}
    members = {}
    for name in mine:
        consumer: Any = Slow(log, late if name == "b" else 0)
        members[name] = starts_of(consumer, start, consumer.clock)
    begun = {name: members[name].soon(mine[name], facts, decides=name == "a") for name in sorted(mine)}
    for name in order * 40:
        waiting = mine[name] - begun[name].keys()
        if waiting:
            begun[name] |= members[name].one(waiting, facts, decides=name == "a")
    ((_, committed),) = log
    assert begun["a"] | begun["b"] == committed


class Late(Coordinator):
    """Commits are on their way for `late_s`; the ends move all the while."""

    def __init__(self, late_s: float) -> None:
        super().__init__(0.001, {})
        self.late_s = late_s
        self.sent: list[tuple[float, dict[int, int]]] = []

    def committed(self, places: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        for at_s, offsets in self.sent:
            if at_s + self.late_s <= self.clock.now_s:
                self.commits |= offsets
        return super().committed(places, timeout)

    def offsets_for_times(self, places: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        self._wait(timeout)
        end = int(10 * self.clock.now_s)
        return [
            TopicPartition("t", p.partition, 0 if p.offset == OFFSET_BEGINNING else end + p.partition)
            for p in places
        ]

    def commit(self, *, offsets: list[TopicPartition], asynchronous: bool) -> None:
        self.sent.append((self.clock.now_s, {place.partition: place.offset for place in offsets}))


@pytest.mark.parametrize("start", ["earliest", "latest"])
@pytest.mark.parametrize("late_s", [0.0, 1.0, own_commit_s - 1, own_commit_s + 1, 3.5 * own_commit_s])
def test_where_a_group_begins_is_decided_once_however_late_its_commit_arrives(
    start: Start, late_s: float
) -> None:
    """The one that is sent again says the same: with other ends, it would pass over what came since the first."""
    coordinator = Late(late_s)
    found, failures = begin(coordinator, start, between_s=0.3)
    assert not failures
    assert len(coordinator.sent) == 1 + int(late_s / own_commit_s)
    assert all(offsets == coordinator.sent[0][1] == found for _, offsets in coordinator.sent)


def test_a_topic_that_was_made_anew_begins_at_its_beginning() -> None:
    """Also while the commit of where the group begins in the old one is on its way: all of its records came after that."""
    coordinator = Late(1e9)
    consumer: Any = coordinator
    starts = starts_of(consumer, "latest", coordinator.clock)
    newer = replace(facts, id="t2", partitions=2)
    for there, turns in ((facts, 30), (newer, 60)):
        for _ in range(turns):
            starts.one(set(range(there.partitions)), there, decides=True)
            coordinator.clock.sleep(1.0)
    sent = [offsets for _, offsets in coordinator.sent]
    assert [len(offsets) for offsets in sent[:4]] == [4, 4, 4, 2]
    assert min(sent[2].values()) > 0
    assert all(offsets == {0: 0, 1: 0} for offsets in sent[3:])


def test_a_member_that_decides_no_more_forgets_what_it_decided() -> None:
    """Another one may have decided since; what it sent itself was of a generation that is over."""
    coordinator = Late(1e9)
    consumer: Any = coordinator
    starts = starts_of(consumer, "latest", coordinator.clock)
    for decides in (True, False, True):
        for _ in range(15):
            starts.one({0, 1}, facts, decides=decides)
            coordinator.clock.sleep(1.0)
    first, *_, last = (offsets for _, offsets in coordinator.sent)
    assert min(last.values()) > max(first.values())


class Noted(Coordinator):
    """Partition 0, which another member owns, has a commit of the topic that was there before."""

    def committed(self, places: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        found = super().committed(places, timeout)
        return [
            TopicPartition("t", 0, 7, offset_note("t0")) if place.partition == 0 else place for place in found
        ]


@pytest.mark.parametrize("recreated", ["read", "stop"])
def test_a_member_without_commits_hears_of_a_topic_made_anew_from_those_of_others(
    recreated: Recreated, caplog: pytest.LogCaptureFixture
) -> None:
    """With `stop` it must not read on because the partitions that it happens to own have none."""
    coordinator = Noted(0.001, {})
    consumer: Any = coordinator
    failures: list[PenstockError] = []
    starts = starts_of(consumer, "earliest", coordinator.clock, fail=failures.append, recreated=recreated)
    found = starts.soon({1, 2}, facts, decides=False)
    for _ in range(6):
        there = replace(facts, asked_at_s=starts.facts_since_s)
        found |= starts.one({1, 2} - found.keys(), there, decides=False) if len(found) < 2 else {}
    told = [each.getMessage() for each in caplog.records if "made anew" in each.getMessage()]
    if recreated == "stop":
        assert found == {}
        assert "its id was t0 and is t1" in str(failures[0])
    else:
        assert found == dict.fromkeys((1, 2), OFFSET_BEGINNING)
        assert failures == []
        assert len(told) == 1
        assert "(id t0, then t1): partitions [1, 2]" in told[0]


@pytest.mark.parametrize("recreated", ["read", "stop"])
@pytest.mark.parametrize("newer", ["the commit", "the topic"])
@pytest.mark.parametrize("owned", [{0}, {1, 2}])  # with a commit of its own, and with those of others
def test_which_is_newer_a_topic_or_a_commit_of_another_is_not_judged_by_an_answer_from_before(
    owned: set[int], newer: str, recreated: Recreated, caplog: pytest.LogCaptureFixture
) -> None:
    """Another member may have heard of the new topic first, and committed in it: its offsets are to be believed."""
    coordinator = Noted(0.001, {})
    consumer: Any = coordinator
    failures: list[PenstockError] = []
    starts = starts_of(consumer, "earliest", coordinator.clock, fail=failures.append, recreated=recreated)
    coordinator.clock.sleep(5.0)
    since_s = coordinator.clock.now_s
    stale = replace(facts, asked_at_s=since_s)  # as an assignment asks for them, just before the commits
    found = starts.soon(owned, stale, decides=0 in owned)
    for _ in range(6):
        found |= starts.one(owned, stale, decides=0 in owned)
    assert (found, failures) == ({}, [])
    assert "made anew" not in caplog.text
    assert since_s < starts.facts_since_s <= coordinator.clock.now_s
    for _ in range(6):
        there = replace(facts, id="t0" if newer == "the commit" else "t1", asked_at_s=starts.facts_since_s)
        found |= starts.one(owned - found.keys(), there, decides=0 in owned) if owned - found.keys() else {}
    if newer == "the commit":
        assert found == ({0: 7} if 0 in owned else dict.fromkeys(owned, OFFSET_BEGINNING))
        assert "made anew" not in caplog.text
        assert failures == []
    elif recreated == "stop":
        assert found == {}
        assert "its id was t0 and is t1" in str(failures[0])
    else:
        assert found == dict.fromkeys(owned, OFFSET_BEGINNING)
        assert caplog.text.count("(id t0, then t1)") == 1
