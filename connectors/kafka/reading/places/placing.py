"""Partitions come, begin and go: the client's callbacks, and what the listener and the parts of reading are told."""

from collections.abc import Callable, Mapping
from typing import Final

from confluent_kafka import Consumer, TopicPartition

from penstock.connectors.delivery.producer_port import Clock
from penstock.connectors.kafka.reading.assignment import Assignment, AssignmentListener
from penstock.connectors.kafka.reading.careful import CarefulReading
from penstock.connectors.kafka.reading.starts import Starts
from penstock.connectors.kafka.reading.topic_watch import TopicFacts, TopicWatch

facts_timeout_s: Final = 0.05  # how long the polling thread waits for the topic's id
hurry_s: Final = 2.0
"""After an assignment; so long its places are looked up with `hurried_poll_s` between two turns, then with `placing_poll_s`."""
hurried_poll_s: Final = 0.01
placing_poll_s: Final = 0.1
unplaced_told_s: Final = 10.0  # a look-up that takes longer is said


class Placing:
    """Which partitions are ours, from the client's callbacks. Polling thread only.

    Promises: the listener hears of a partition before any record of it, and of its going before it moves. A partition begins at
    once where the coordinator says so soon; else it waits, paused, and one is looked up at each turn, so that the others go on.
    """

    def __init__(
        self,
        starts: Starts,
        watch: TopicWatch,
        *,
        ours: Assignment,
        listener: AssignmentListener,
        careful: CarefulReading | None,
        facts_by: Callable[[TopicFacts], TopicFacts],
        begun: Callable[[Mapping[int, int]], None],
        hand_over: Callable[[set[int]], None],
        gone: Callable[[set[int]], None],
        lost: Callable[[], None],
        clock: Clock,
    ) -> None:
        """`facts_by`: the facts of the topic that is being read, once a newer answer about it is taken in. `begun` hears where
        partitions begin, before the listener does; `hand_over`: another member gets partitions once we have let
        go of them; `gone` lets go of what is known of partitions; `lost` hears that the group
        goes on without us."""
        self._starts = starts
        self._watch = watch
        self._ours = ours
        self._listener = listener
        self._careful = careful
        self._facts_by = facts_by
        self._begun = begun
        self._hand_over = hand_over
        self._gone = gone
        self._lost = lost
        self._clock = clock
        self._facts_since_s = 0.0  # older answers may be about another topic than the assignment is
        self._unplaced_since_s: dict[int, float] = {}
        self._closed = False

    @property
    def poll_max_s(self) -> float:
        """How long a poll may wait while a partition has not begun."""
        hurried = self._clock.monotonic_s() < self._facts_since_s + hurry_s
        return hurried_poll_s if hurried else placing_poll_s

    def unplaced_s(self) -> dict[int, float]:
        """Partitions of which it is being found out for too long where they begin, and for how long; about once a second."""
        now_s, before = self._clock.monotonic_s(), self._unplaced_since_s
        self._unplaced_since_s = since = {p: before.get(p, now_s) for p in self._ours.unplaced}
        return {p: now_s - since_s for p, since_s in since.items() if now_s - since_s >= unplaced_told_s}

    def turn(self) -> None:
        """Begin what could not be begun when it was assigned: one partition each time."""
        facts = self._watch.since(max(self._facts_since_s, self._starts.facts_since_s))
        if facts is None:
            return
        starts = self._starts.one(self._ours.unplaced, self._facts_by(facts), decides=self._holds_first)
        if self._careful:
            self._careful.begin(starts, self._ours.seek, self._begin)
            return
        self._begin({partition: at for partition, at in starts.items() if self._ours.seek(partition, at)})

    def tell_assigned(self, starts: Mapping[int, int]) -> None:
        """These begin, each at its offset or at OFFSET_BEGINNING."""
        if starts:
            self._begun(starts)
            self._ours.owned |= starts.keys()
            self._listener.on_assigned(sorted(starts))

    def on_assign(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        """The client's callback."""
        partitions = {place.partition for place in places}
        self._starts.anew()
        self._facts_since_s = self._clock.monotonic_s()
        starts: dict[int, int] = {}
        soon = bool(partitions) and self._careful is None
        if soon and (facts := self._watch.since(self._facts_since_s, facts_timeout_s)) is not None:
            decides = self._holds_first or 0 in partitions
            starts = self._starts.soon(partitions, self._facts_by(facts), decides=decides)
        self._ours.take(partitions, starts)
        self.tell_assigned(starts)

    def on_revoke(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        """The client's callback."""
        partitions = {place.partition for place in places}
        try:
            told = sorted(partitions & self._ours.owned)
            if told and not self._closed:
                self._listener.on_revoked(told)
            self._hand_over(partitions)
        finally:
            self._gone(partitions)

    def on_lost(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        """The client's callback."""
        partitions = {place.partition for place in places}
        told = sorted(partitions & self._ours.owned)
        self._gone(partitions)
        if not self._closed:
            self._lost()
        if told and not self._closed:
            self._listener.on_lost(told)

    def close(self) -> None:
        """The listener hears of what is still held, and of nothing after that."""
        self._closed = True
        held = sorted(self._ours.owned)
        self._ours.owned.clear()
        self._ours.unplaced.clear()
        if held:
            self._listener.on_revoked(held)
            self._hand_over(set(held))

    def _begin(self, placed: Mapping[int, int]) -> None:
        self._ours.place(placed)
        self.tell_assigned(placed)

    @property
    def _holds_first(self) -> bool:
        return 0 in self._ours.owned or 0 in self._ours.unplaced
