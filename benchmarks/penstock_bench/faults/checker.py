"""Judges a run by the broker's journal alone: every record counted, every value compared. Shares no code with the engine."""

import itertools
import re
from collections import defaultdict
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from penstock_bench.faults.journal import (
    Deleted,
    Ended,
    Journal,
    Kind,
    MadeAnew,
    OffsetsCommitted,
    OffsetsReset,
    Place,
    Resolved,
    Sent,
    Spoilt,
    Written,
)
from penstock_bench.faults.outcomes import OutcomeReader

findings_max = 5
mistaken_max_s = 45.0
"""So long after a topic was made anew its records may come under the old id as well: then its name is looked up again, and
both the answer and what was sent before it may be slow."""


class Fault(StrEnum):
    """What can be wrong with a run."""

    LOST = "lost"  # a record has no outcome in the end
    SKIPPED = "skipped"  # the group's offset passed a record without an outcome
    DOUBLED = "doubled"
    TORN = "torn"  # the messages of one record, or its offset, do not stand and fall together
    DISORDERED = "disordered"
    WRONG = "wrong value"
    PHANTOM = "phantom"  # an outcome of something that is no readable record
    SILENT = "silent"  # something happened that a person has to hear of, and nobody said it
    HUNG = "hung"
    CRASHED = "crashed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, in a sentence."""

    fault: Fault
    what: str

    def __str__(self) -> str:
        return f"{self.fault}: {self.what}"


class Checker:
    """One journal, entry by entry."""

    def __init__(self, journal: Journal, *, finished: bool = True) -> None:
        """`finished`: the run came to its end, so that nothing may be missing."""
        self._finished = finished
        self._journal = journal
        self._once = journal.mode == "exactly_once"
        self._reader = OutcomeReader(journal.output_format)
        self.findings: list[Finding] = []
        self._topic_id = journal.topic_id
        self._made_anew: list[tuple[str, float]] = []
        self._written: dict[Place, Written] = {}
        self._by_partition: dict[tuple[str, int], list[int]] = defaultdict(list)  # offsets that can be read
        self._spoilt: set[Place] = set()
        self._earliest: dict[tuple[str, int], int] = defaultdict(int)
        self._next: dict[tuple[str, int], int] = {}  # what the group has committed
        self._begins: dict[
            tuple[str, int], int
        ] = {}  # where the group began; other partitions it is owed from 0 on
        self._reset_over: dict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
        self._open: dict[int, list[tuple[Sent, dict[str, Any]]]] = defaultdict(list)
        self._outcomes: dict[Place, list[tuple[str, int | None]]] = defaultdict(list)  # topic, transaction
        self._order: dict[tuple[str, int, str, int], list[tuple[int, int]]] = defaultdict(list)
        """Of each output partition and input partition: place in the log, and the offset that it is about."""
        self._first_commit = True
        self._known_before = False  # of a partition that is there again something was committed before

    def check(self) -> list[Finding]:
        """What is wrong, the first few of it."""
        for entry in self._journal.entries:
            match entry:
                case Written():
                    self._written[entry.place] = entry
                    if entry.visible:
                        self._readable(entry.place)
                case Resolved():
                    for place in entry.places:
                        if entry.committed and place in self._written:
                            self._readable(place)
                case Sent():
                    self._sent(entry)
                case Ended():
                    self._ended(entry)
                case OffsetsCommitted():
                    self._offsets(entry.offsets, entry.topic_id, None)
                case OffsetsReset():
                    self._reset(entry)
                case Deleted():
                    key = entry.topic_id, entry.partition
                    self._earliest[key] = max(self._earliest[key], entry.before)
                case Spoilt():
                    self._spoilt.add(entry.place)
                case MadeAnew():
                    self._topic_id = entry.topic_id
                    self._made_anew.append((entry.topic_id, entry.at_s))
                    self._known_before = any(p < entry.partitions for _, p in self._next)
        self._in_order()
        if self._finished:
            self._all_there()
            self._all_said()
        return self.findings[:findings_max]

    def _find(self, fault: Fault, what: str, *, when: bool = True) -> None:
        if when and len(self.findings) < findings_max:
            self.findings.append(Finding(fault, what))

    def _readable(self, place: Place) -> None:
        self._by_partition[place[:2]].append(place[2])

    def _sent(self, sent: Sent) -> None:
        try:
            message = self._reader.message(sent.topic, sent.value)
        except (ValueError, EOFError, KeyError, IndexError) as error:
            self._find(Fault.WRONG, f"a message of {sent.topic} cannot be read: {error}")
            return
        if sent.transaction is None:
            self._visible(sent, message)
        else:
            self._open[sent.transaction].append((sent, message))

    def _ended(self, ended: Ended) -> None:
        messages = self._open.pop(ended.transaction, [])
        if not ended.committed:
            return
        for sent, message in messages:
            self._visible(sent, message)
        self._offsets(ended.offsets, ended.topic_id, ended.transaction)
        if messages and not ended.offsets:
            self._find(Fault.TORN, f"transaction {ended.transaction} made results visible without offsets")

    def _visible(self, sent: Sent, message: dict[str, Any]) -> None:
        source = message["source"]
        topic_id, partition, offset = source["topic_id"] or "", source["partition"], source["offset"]
        place: Place = (topic_id, partition, offset)
        unreadable = self._reader.letter_range(message) if sent.topic == "d" else None
        if unreadable is not None:
            self._visible_range(sent, place, unreadable)
            return
        fault = self._fault(sent, message, place)
        if fault is not None and self._mistaken(sent, message, place):
            return
        if fault is not None:
            self._find(*fault)
        if place in self._written:
            self._note(sent, place)

    def _mistaken(self, sent: Sent, message: dict[str, Any], place: Place) -> bool:
        """Whether this is the outcome of a record of a topic that was made anew so recently that the old name was believed."""
        return any(
            self._fault(sent, message, (i, place[1], place[2])) is None for i in self._newer(sent, place)
        )

    def _mistaken_for_spoilt(self, sent: Sent, place: Place) -> bool:
        """The same of an offset that was set aside: it cannot be read in the newer topic."""
        return any((i, place[1], place[2]) in self._spoilt for i in self._newer(sent, place))

    def _newer(self, sent: Sent, place: Place) -> list[str]:
        """Ids of topics made anew so recently that this message may be about them."""
        return [i for i, made_s in self._made_anew if i != place[0] and sent.at_s - made_s < mistaken_max_s]

    def _fault(self, sent: Sent, message: dict[str, Any], place: Place) -> tuple[Fault, str] | None:
        """What is wrong with a message as the outcome of the record there."""
        written = self._written.get(place)
        if written is None or (not written.visible and place[2] not in self._by_partition[place[:2]]):
            return Fault.PHANTOM, f"{sent.topic} has an outcome of {place}, which is no readable record"
        if sent.topic == "d":
            fault = self._reader.letter_fault(message, written.kind)
        elif written.kind is Kind.GOOD:
            fault = self._reader.result_fault(sent.topic, message, written.number, written.weight)
        else:
            fault = f"a result of a record that is {written.kind}"
        if sent.key != written.key:
            fault = fault or f"its key is {sent.key!r}, not {written.key!r}"
        return (Fault.WRONG, f"{place} in {sent.topic}: {fault}") if fault else None

    def _visible_range(self, sent: Sent, place: Place, found: tuple[int, int]) -> None:
        first, last = found
        for offset in range(first, last + 1):
            one = (place[0], place[1], offset)
            if one in self._spoilt:
                self._note(sent, one)
            elif offset in self._by_partition[one[:2]] and not self._mistaken_for_spoilt(
                sent, one
            ):  # else no record stands there
                self._find(Fault.WRONG, f"{one} was set aside as unreadable, and it is not")

    def _note(self, sent: Sent, place: Place) -> None:
        seen = self._outcomes[place]
        again = any(topic == sent.topic for topic, _ in seen)
        if again and (self._once or self._journal.calm):
            self._find(Fault.DOUBLED, f"{place} comes twice in {sent.topic}")
        if self._once and any(transaction != sent.transaction for _, transaction in seen) and not again:
            self._find(Fault.TORN, f"the messages of {place} are of two transactions")
        seen.append((sent.topic, sent.transaction))
        # At least once: what comes again comes late, as a letter too, if it was spoilt meanwhile.
        if not again and (self._once or place not in self._spoilt):
            self._order[sent.topic, sent.partition, place[0], place[1]].append((sent.at, place[2]))

    def _in_order(self) -> None:
        if not self._once and not self._journal.whole:
            return
        for (topic, *_, partition), found in self._order.items():
            offsets = [offset for _, offset in sorted(found)]
            for before, after in itertools.pairwise(offsets):
                if after <= before:
                    what = f"offset {after} of partition {partition} comes behind {before} in {topic}"
                    self._find(Fault.DISORDERED, what)
                    break

    def _offsets(
        self, offsets: tuple[tuple[int, int], ...], topic_id: str | None, transaction: int | None
    ) -> None:
        first, self._first_commit = self._first_commit, False
        for partition, offset in offsets:
            key = topic_id or "", partition
            before = self._next.get(key)
            if first and self._journal.start == "latest" and transaction is None:
                self._next[key] = self._begins[key] = offset  # where the group begins
                continue
            if first:
                self._begins[key] = offset if transaction is None else self._earliest[key]
            if before is None:
                before = self._earliest[key]
            if key[0] == self._topic_id:  # else they went with their topic
                for passed in self._between(key, before, offset):
                    self._passed((*key, passed), transaction)
            if offset < before and key in self._next:
                back = f"the group's offset of {key} went back from {before} to {offset}"
                self._find(Fault.DOUBLED, back, when=self._once)
            self._next[key] = offset

    def _between(self, key: tuple[str, int], start: int, stop: int) -> list[int]:
        return [offset for offset in self._by_partition[key] if start <= offset < stop]

    def _passed(self, place: Place, transaction: int | None) -> None:
        """The group's offset goes beyond this record: all of its messages must be there, by the same transaction."""
        seen = self._outcomes.get(place, [])
        fault = self._lacks(place, {topic for topic, _ in seen})
        if fault:
            self._find(Fault.SKIPPED, f"the group's offset passed {place}: {fault}")
        elif self._once and any(by != transaction for _, by in seen):
            self._find(Fault.TORN, f"{place} and its offset are of two transactions")

    def _lacks(self, place: Place, topics: set[str]) -> str:
        if not topics:
            return "it has no outcome"
        if place in self._spoilt and not self._once:
            return ""  # it may have been read before it was spoilt, and again after that
        if "d" in topics:
            return "it has a result and a letter" if len(topics) > 1 else ""
        return "" if topics == {"p", "e"} else f"it has only {sorted(topics)}"

    def _reset(self, reset: OffsetsReset) -> None:
        key = reset.topic_id, reset.partition
        before = self._next.get(key, 0)
        passed = [o for o in self._between(key, before, reset.offset) if not self._outcomes.get((*key, o))]
        kept = [offset for offset in passed if offset >= self._earliest[key]]
        if kept:
            self._find(Fault.LOST, f"a reset of {key} to {reset.offset} passed {kept}, which could be read")
        if passed and not (f"partition {reset.partition}" in reset.said and "deleted before" in reset.said):
            self._find(Fault.SILENT, f"nobody said that {passed} of {key} were deleted before they were read")
        self._reset_over[key].append((before, reset.offset - 1))
        self._next[key] = reset.offset

    def _all_said(self) -> None:
        there = any(key[0] == self._topic_id for key in self._by_partition)
        if there and self._known_before and not any(self._topic_id in said for said in self._journal.said):
            self._find(Fault.SILENT, f"nobody said that the topic was made anew, as {self._topic_id}")
        for key, offsets in self._by_partition.items():
            # What is not committed yet is said by whoever reads on from there.
            gone = range(self._begins.get(key, 0), min(self._earliest[key], self._next.get(key, 0)))
            silent = {o for o in offsets if o in gone and not self._outcomes.get((*key, o))}
            for first, last in self._said_deleted(key[1]) + self._reset_over[key]:
                silent.difference_update(range(first, last + 1))
            if silent and key[0] == self._topic_id and not self._first_commit:
                what = f"nobody said that {sorted(silent)[:5]} of {key} were deleted before they were read"
                self._find(Fault.SILENT, what)

    def _said_deleted(self, partition: int) -> list[tuple[int, int]]:
        """Ranges of a partition of which somebody said that they were deleted before they were read."""
        sentence = re.compile(rf"partition {partition}: offsets (\d+) to (\d+) were deleted before")
        return [
            (int(found[1]), int(found[2])) for said in self._journal.said for found in sentence.finditer(said)
        ]

    def _all_there(self) -> None:
        for key, offsets in self._by_partition.items():
            if key[0] != self._topic_id:
                continue
            start = self._next.get(key)
            start = self._earliest[key] if start is None else max(start, self._earliest[key])
            missing = [o for o in offsets if o >= start and not self._outcomes.get((*key, o))]
            if missing:
                self._find(Fault.LOST, f"{key} has no outcome of {missing[:5]} ({len(missing)} records)")
        for transaction, messages in itertools.islice(self._open.items(), 1):
            self._find(Fault.HUNG, f"transaction {transaction} with {len(messages)} messages never ended")
