"""Whatever a client does with an error, every offset that can be read is read once, and none of them is set aside."""

import random
from dataclasses import dataclass
from typing import Any

import pytest

from penstock.connectors.kafka.reading.doubts import (
    GivenUp,
    ReadDoubts,
    ReadFault,
    Return,
    retry_s,
    unreadable_patience_s,
)
from penstock.schemas.records import Unreadable

far = 7_202_157_857_259_592_843  # what garbage looks like when it is taken for an offset


@dataclass(frozen=True)
class Batch:
    first: int
    count: int
    bad: bool


class Client:
    """Reads a log of batches and jumps: with an error its position goes anywhere, and it brings records from there."""

    def __init__(self, chance: random.Random, batches: list[Batch]) -> None:
        self._chance = chance
        self._batches = batches
        self.end = batches[-1].first + batches[-1].count
        self.position = 0

    def fetch(self) -> list[tuple[str, int]]:
        """Events in their order: ("record", offset), ("unreadable" or "out of range" or "other", offset)."""
        if self.position > self.end:
            return [("out of range", self.position)]
        events: list[tuple[str, int]] = []
        for batch in self._batches:
            if batch.first + batch.count <= self.position or self._chance.random() < 0.1:
                if batch.first + batch.count > self.position:
                    break  # the response was full
                continue
            if self._chance.random() < 0.02:
                return [*events, ("other", self.position)]
            if batch.bad:
                events.append(("unreadable", batch.first))
                jump = self._chance.choice([batch.first, batch.first + 1, batch.first + 3 * batch.count, far])
                self.position = jump
                if self._chance.random() < 0.5:
                    events.append(("unreadable", far))
                if self._chance.random() < 0.7 and jump < self.end:
                    events += self.fetch()
                elif jump >= self.end:
                    events.append(("out of range", jump))
                return events
            last = batch.first + batch.count
            events += [("record", offset) for offset in range(max(batch.first, self.position), last)]
            self.position = last
        return events


def log(chance: random.Random) -> list[Batch]:
    batches, at = [], 0
    for _ in range(chance.randrange(1, 25)):
        count = chance.randrange(1, 9)
        batches.append(Batch(first=at, count=count, bad=chance.random() < 0.2))
        at += count
    return batches


faults = {
    "unreadable": ReadFault.UNREADABLE,
    "out of range": ReadFault.OUT_OF_RANGE,
    "other": ReadFault.OTHER,
}


@pytest.mark.parametrize("seed", range(300))
def test_every_offset_has_one_outcome_and_no_readable_one_is_set_aside(seed: int) -> None:
    chance = random.Random(seed)
    batches = log(chance)
    client, doubts = Client(chance, batches), ReadDoubts(policy="set_aside")
    head, now_s, outcomes = 0, 0.0, dict[int, str]()

    def take(offsets: range | tuple[int], outcome: str) -> None:
        for offset in offsets:
            assert offset not in outcomes, f"seed={seed}: {offset} twice"
            outcomes[offset] = outcome

    for _ in range(5_000):
        now_s += 0.01
        for kind, offset in client.fetch():
            if kind == "record":
                assert offset >= head, f"seed={seed}"
                if 0 in doubts and (passed := doubts.settled(0)) is not None:
                    take(range(passed.first, passed.next), "aside")
                take((offset,), "read")
                head = offset + 1
                continue
            answer = doubts.report(
                0, head=head, fault=faults[kind], offset=offset, why=kind, end=client.end, now_s=now_s
            )
            assert not isinstance(answer, GivenUp), f"seed={seed}: {answer}"
            if isinstance(answer, Unreadable):
                take(range(answer.first, answer.next), "aside")
                head = client.position = answer.next
            else:
                now_s = max(now_s, answer.at_s)
                client.position = answer.offset
            break  # nothing that was fetched with the error or after it is looked at
        if head >= client.end:
            break
    bad = {offset for b in batches if b.bad for offset in range(b.first, b.first + b.count)}
    assert outcomes.keys() == set(range(client.end)), f"seed={seed}"
    assert {offset for offset, outcome in outcomes.items() if outcome == "aside"} == bad, f"seed={seed}"


def test_where_it_is_to_stop_it_gives_up_at_the_offset_after_its_patience() -> None:
    doubts, now_s = ReadDoubts(policy="stop"), 0.0
    report: dict[str, Any] = {
        "head": 5,
        "fault": ReadFault.UNREADABLE,
        "offset": 5,
        "why": "checksum",
        "end": 9,
    }
    while isinstance(answer := doubts.report(0, now_s=now_s, **report), Return):
        assert answer.offset == 5
        now_s += retry_s
    assert answer is GivenUp.UNREADABLE
    assert now_s == pytest.approx(unreadable_patience_s)


def test_an_offset_that_is_asked_for_and_is_not_there_is_told_from_one_that_was_garbage() -> None:
    doubts = ReadDoubts(policy="stop")
    report: dict[str, Any] = {
        "head": 5,
        "fault": ReadFault.OUT_OF_RANGE,
        "why": "gone",
        "end": 9,
        "now_s": 0.0,
    }
    assert isinstance(doubts.report(0, offset=far, **report), Return)
    assert isinstance(doubts.report(0, offset=far, **report), Return)
    assert doubts.report(0, offset=5, **report) is GivenUp.OUT_OF_RANGE


def test_garbage_taken_for_an_offset_costs_no_wait_once_while_the_end_of_a_range_is_looked_for() -> None:
    doubts, now_s = ReadDoubts(policy="set_aside"), 0.0
    report: dict[str, Any] = {"head": 5, "why": "checksum", "end": 99}
    bad, astray = ReadFault.UNREADABLE, ReadFault.OUT_OF_RANGE
    while (answer := doubts.report(0, fault=bad, offset=5, now_s=now_s, **report)) != Return(
        offset=6, at_s=now_s
    ):
        assert isinstance(answer, Return)
        now_s += retry_s
    assert doubts.report(0, fault=astray, offset=far, now_s=now_s, **report) == Return(offset=6, at_s=now_s)
    again = doubts.report(0, fault=astray, offset=far, now_s=now_s, **report)
    assert again == Return(
        offset=6, at_s=now_s + retry_s
    )  # a client that says nothing else is not asked without end
