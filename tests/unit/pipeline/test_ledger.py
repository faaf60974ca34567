"""What may be committed: the ledger against a reference that remembers every offset."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine.pipeline.ledger import Account, Ledger, Span
from penstock.schemas.errors import InvariantError


def test_a_position_waits_for_the_oldest_unfinished_span() -> None:
    ledger = Ledger()
    ledger.assign([0])
    first = ledger.open(partition=0, first=0, next=10, oldest_timestamp_ms=100, records=3)
    second = ledger.open(partition=0, first=10, next=20, oldest_timestamp_ms=200, records=3)

    ledger.settle([second])
    assert ledger.positions() == {}
    assert ledger.oldest_unfinished_ms() == {0: 100}

    ledger.settle([first])
    assert ledger.positions() == {0: 20}
    assert ledger.oldest_unfinished_ms() == {0: -1}


def test_work_from_before_a_revocation_settles_nothing() -> None:
    ledger = Ledger()
    ledger.assign([0, 1])
    old = ledger.open(partition=0, first=0, next=5, oldest_timestamp_ms=1, records=3)
    ledger.revoke([0])
    assert ledger.account() == Account(read=3, settled=0, in_flight=0, dropped=3)
    ledger.settle([old])
    assert ledger.positions() == {}
    assert ledger.account() == Account(
        read=3, settled=3, in_flight=0, dropped=0
    )  # it was delivered all the same

    ledger.assign([0])
    ledger.open(partition=0, first=0, next=5, oldest_timestamp_ms=1, records=3)
    ledger.settle([old])
    assert ledger.positions() == {}


def test_a_rewind_names_the_first_unfinished_offset_of_every_partition() -> None:
    ledger = Ledger()
    ledger.assign([0, 1, 2])
    done = ledger.open(partition=0, first=0, next=4, oldest_timestamp_ms=1, records=3)
    ledger.open(partition=0, first=4, next=9, oldest_timestamp_ms=1, records=3)
    ledger.open(partition=1, first=7, next=8, oldest_timestamp_ms=1, records=3)
    ledger.settle([done])
    assert ledger.rewind() == {0: 4, 1: 7}
    assert ledger.unfinished() == 0
    assert ledger.positions() == {0: 4}


@pytest.mark.parametrize(("first", "next_"), [(5, 8), (10, 10)])
def test_records_out_of_order_are_a_contradiction(first: int, next_: int) -> None:
    ledger = Ledger()
    ledger.assign([0])
    ledger.open(partition=0, first=0, next=10, oldest_timestamp_ms=1, records=3)
    with pytest.raises(InvariantError):
        ledger.open(partition=0, first=first, next=next_, oldest_timestamp_ms=1, records=3)
    with pytest.raises(InvariantError):
        ledger.open(partition=3, first=0, next=1, oldest_timestamp_ms=1, records=3)


@dataclass
class Reference:
    """Every offset by itself: open until delivered."""

    start: int
    polled: int
    delivered: set[int] = field(default_factory=set)

    def position(self) -> int:
        offset = self.start
        while offset in self.delivered:
            offset += 1
        return offset


actions = st.lists(
    st.one_of(
        st.tuples(st.just("open"), st.integers(0, 2), st.integers(1, 5)),
        st.tuples(st.just("settle"), st.integers(0, 30), st.just(0)),
        st.tuples(st.just("rewind"), st.just(0), st.just(0)),
        st.tuples(st.just("revoke"), st.integers(0, 2), st.just(0)),
    ),
    max_size=60,
)


@given(actions)
def test_positions_equal_those_of_a_ledger_that_remembers_every_offset(
    steps: list[tuple[str, int, int]],
) -> None:
    ledger = Ledger()
    ledger.assign([0, 1, 2])
    reference = {partition: Reference(start=0, polled=0) for partition in range(3)}
    opened: list[Span] = []
    following: list[Span] = []  # with those settled out of turn
    read = settled = 0
    for action, number, size in steps:
        if action == "open":
            truth = reference[number]
            opened.append(
                ledger.open(
                    partition=number,
                    first=truth.polled,
                    next=truth.polled + size,
                    oldest_timestamp_ms=0,
                    records=size,
                )
            )
            following.append(opened[-1])
            truth.polled += size
            read += size
        elif action == "settle" and opened:
            span = opened.pop(number % len(opened))
            ledger.settle([span])
            settled += span.next - span.first
            reference[span.partition].delivered.update(range(span.first, span.next))
        elif action == "rewind":
            expected = {p: t.position() for p, t in reference.items() if t.position() < t.polled}
            assert ledger.rewind() == expected
            opened.clear()
            following.clear()
            for truth in reference.values():
                truth.polled = truth.position()
                truth.delivered = {offset for offset in truth.delivered if offset < truth.polled}
        elif action == "revoke":
            ledger.revoke([number])
            ledger.assign([number])
            opened = [span for span in opened if span.partition != number]
            following = [span for span in following if span.partition != number]
            reference[number] = Reference(start=reference[number].polled, polled=reference[number].polled)
        expected = {p: t.position() for p, t in reference.items() if t.position() > t.start}
        assert ledger.positions() == expected
        behind = [span for span in following if span.first >= reference[span.partition].position()]
        assert ledger.unfinished() == len(behind)
        in_flight = sum(span.next - span.first for span in opened)
        account = ledger.account()
        assert (account.read, account.settled, account.in_flight) == (read, settled, in_flight)
        assert account.dropped == read - settled - in_flight
