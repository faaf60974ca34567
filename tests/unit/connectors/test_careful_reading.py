"""A member that reads carefully: its client is let at no stored batch that was not looked at by hand."""

import pytest
from confluent_kafka import Consumer

from penstock.connectors.kafka.client import ClientConfig
from penstock.connectors.kafka.group import group_settings
from penstock.connectors.kafka.reading.batch_looks import Look
from penstock.connectors.kafka.reading.careful import Careful, ends_after_s, passed_patience_s
from penstock.connectors.kafka.reading.doubts import UnreadablePolicy
from penstock.connectors.kafka.wire.batches import StoredBatch
from penstock.engine.clock import SystemClock
from penstock.schemas.errors import ConfigError
from tests.unit.connectors.test_kafka_source import Member, by_hand, message


class Place:
    """Stored logs: batches of ten up to the end, of which some are broken; and what a careful member told of them."""

    def __init__(self, *broken: int, end: int = 10_000) -> None:
        self.broken = broken
        self.end = end
        self.told: list[tuple[int, int, str, bool]] = []
        self.careful = Careful(pause_s=0.5, tell=self.tell)

    def tell(self, partition: int, offset: int, what: str, notable: bool) -> None:
        self.told.append((partition, offset, what, notable))

    def of(self, partition: int, offset: int) -> Look | None:
        base = offset - offset % 10
        if base >= self.end:
            return Look(offset=offset, asked_at_s=0.0)
        stored = StoredBatch(
            base=base, control=False, delta=9, count=10, size=100, magic=2, stored_crc=1, computed_crc=2 if base in self.broken else 1,
            whole=True, follows=None, end=self.end,
        )  # fmt: skip
        return Look(offset=offset, asked_at_s=0.0, batch=stored)


class HandClock(SystemClock):
    now_s = 100.0

    def monotonic_s(self) -> float:
        return self.now_s


def careful_member(
    monkeypatch: pytest.MonkeyPatch, place: Place, *, unreadable: UnreadablePolicy = "set_aside"
) -> tuple[Member, HandClock, list[tuple[str, int]]]:
    """The member, its clock, and where its client is sent or let at, in order."""
    by_hand(monkeypatch)
    clock = HandClock()
    member = Member(unreadable, place.careful, clock)
    sent: list[tuple[str, int]] = []
    monkeypatch.setattr(member.consumer, "seek", lambda place: sent.append(("seek", place.offset)))
    monkeypatch.setattr(
        member.consumer,
        "incremental_assign",
        lambda places: sent.extend(("assign", p.offset) for p in places),
    )
    monkeypatch.setattr(member.looks, "of", place.of)
    member.consumer.assigned_now(0)
    return member, clock, sent


def test_a_careful_member_does_not_show_its_client_what_is_broken_where_it_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was committed up to 1000; the batches of 1000 and 1010 are broken, and so is that of 1030."""
    place = Place(1000, 1010, 1030)
    member, clock, sent = careful_member(monkeypatch, place)
    assert (member.consumer.paused, member.told.held) == ({0}, set())
    rows = []
    for _ in range(6):
        if (found := member.source.poll(10, 0.0)) is not None:
            rows += [(u.first, u.next) for u in found.unreadable.values()]
    assert rows == [(1000, 1020)]
    assert [where for how, where in sent if how == "seek"] == [1020]
    assert member.consumer.paused == set()
    assert member.told.held == {0}
    for offset in range(1020, 1030):
        assert not member.source.careful_over
        member.consumer.first.append(message(0, offset))
        assert member.source.poll(10, 0.0) is not None
    found = member.source.poll(10, 0.0)  # before its client asks for more
    assert found is not None
    assert [(u.first, u.next) for u in found.unreadable.values()] == [(1030, 1040)]
    assert sent[-1] == ("assign", 1040)
    assert [(offset, "passed over" in what) for _, offset, what, _ in place.told] == [
        (1020, True),
        (1040, True),
    ]
    clock.now_s += passed_patience_s
    assert member.source.careful_over


def test_a_careful_member_whose_partitions_are_sound_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place()
    member, clock, sent = careful_member(monkeypatch, place)
    assert member.source.poll(10, 0.0) is None
    assert [where for how, where in sent if how == "seek"] == [1000]
    assert place.told == [(0, 1000, "the batch stored there is sound", False)]
    member.consumer.first.append(message(0, 1000))
    found = member.source.poll(10, 0.0)
    assert found is not None
    assert (found.offsets.tolist(), found.unreadable) == ([1000], {})
    assert not member.source.careful_over
    clock.now_s += ends_after_s
    assert member.source.careful_over


@pytest.mark.parametrize("broken", [(), (1000,), (1010,), (1020,)])
def test_careful_reading_is_over_when_all_is_read_that_was_there_when_it_began(
    monkeypatch: pytest.MonkeyPatch, broken: tuple[int, ...]
) -> None:
    """Whatever the predecessor's client died of was among that: nobody reads slowly any longer."""
    place = Place(*broken, end=1030)
    member, _, _ = careful_member(monkeypatch, place)
    for _ in range(4):
        member.source.poll(10, 0.0)
    place.end = 2000  # what comes later killed nobody
    for base in (1000, 1010, 1020):
        for offset in range(base, base + 10) if base not in broken else ():
            assert not member.source.careful_over
            member.consumer.first.append(message(0, offset))
            member.source.poll(10, 0.0)
        member.source.poll(10, 0.0)
    assert member.source.careful_over


def test_careful_reading_is_over_where_nothing_but_markers_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a log that ends with a transaction: no record has the last offset."""
    place = Place(end=1010)
    member, _, _ = careful_member(monkeypatch, place)
    member.source.poll(10, 0.0)
    for offset in range(1000, 1009):
        assert not member.source.careful_over
        if offset == 1008:
            place.end = 1000  # a look passes over markers, and finds nothing behind them
        member.consumer.first.append(message(0, offset))
        member.source.poll(10, 0.0)
        member.source.poll(10, 0.0)
    assert member.source.careful_over


def test_careful_reading_is_not_over_while_a_partition_has_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(end=1000)
    looked = {0}
    monkeypatch.setattr(
        place,
        "of",
        lambda partition, offset: Look(offset=offset, asked_at_s=0.0) if partition in looked else None,
    )
    by_hand(monkeypatch)
    member = Member("set_aside", place.careful, HandClock())
    monkeypatch.setattr(member.looks, "of", place.of)
    member.consumer.assigned_now(0, 1)
    for _ in range(4):
        member.source.poll(10, 0.0)
    assert (member.told.held, member.source.careful_over) == ({0}, False)
    looked.add(1)
    for _ in range(4):
        member.source.poll(10, 0.0)
    assert (member.told.held, member.source.careful_over) == ({0, 1}, True)


@pytest.mark.parametrize(
    ("look", "why"),
    [(None, "no answer in 15 s"), (Look(offset=1000, asked_at_s=0.0, fault="denied"), "denied")],
)
def test_a_careful_member_that_gets_no_look_says_so_and_reads_on(
    monkeypatch: pytest.MonkeyPatch, look: Look | None, why: str
) -> None:
    place = Place(1000)
    monkeypatch.setattr(place, "of", lambda partition, offset: look)
    member, clock, sent = careful_member(monkeypatch, place)
    for _ in range(3):
        assert member.source.poll(10, 0.0) is None
    assert (member.told.held, member.consumer.paused) == (set(), {0})
    clock.now_s += 20.0
    assert member.source.poll(10, 0.0) is None
    assert (member.told.held, member.consumer.paused) == ({0}, set())
    assert [where for how, where in sent if how == "seek"] == [1000]
    assert f"could not be looked at by hand ({why})" in place.told[0][2]


def test_a_careful_member_that_is_sent_back_looks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction was aborted, and with it the letter."""
    member, _, sent = careful_member(monkeypatch, Place(1000))
    for _ in range(6):
        found = member.source.poll(10, 0.0)
        if found is not None:
            assert [(u.first, u.next) for u in found.unreadable.values()] == [(1000, 1010)]
            member.source.seek({0: 1000})
    assert [where for _, where in sent].count(1010) > 1


def test_a_careful_member_stops_at_what_is_broken_where_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    member, _, sent = careful_member(monkeypatch, Place(1000), unreadable="stop")
    assert member.source.poll(10, 0.0) is None
    assert member.source.poll(10, 0.0) is None
    with pytest.raises(ConfigError, match=r"stored at offset 1000 cannot be read \(the batch stored at"):
        member.source.poll(10, 0.0)
    assert [where for how, where in sent if how == "seek"] == []


def test_a_careful_client_fetches_single_batches() -> None:
    settings = group_settings(
        ClientConfig(bootstrap_servers="nowhere:1", properties={"queued.min.messages": 5000}),
        group="g", protocol="consumer", max_poll_interval_s=60.0, memory_bytes_max=64 << 20, single_batches_s=2.0,
    )  # fmt: skip
    wanted = {"max.partition.fetch.bytes": 1, "queued.min.messages": 1, "fetch.queue.backoff.ms": 2000}
    assert settings.items() >= wanted.items()
    Consumer(
        {name: value for name, value in settings.items() if name != "logger"}
    ).close()  # which takes them
