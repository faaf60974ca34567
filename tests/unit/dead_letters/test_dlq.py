"""Dead letters looked through and put back: each once, whatever is chosen in whatever order, and however it is cut short."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine.cli.commands.dlq import parse_place
from penstock.engine.dead_letters.letters import LetterFilter, find_letter, summarise
from penstock.engine.dead_letters.replay import (
    Message,
    Offsets,
    Replay,
    note_characters_max,
    replay,
    replayed_header,
)
from penstock.engine.dead_letters.selection import parse_since
from penstock.schemas.errors import ConfigError, PenstockError, UnavailableError
from penstock.schemas.reasons import Reason
from tests.letters import Log, Returns, Stored, letter, sources, topic


def run(log: Log, returns: Returns, wanted: LetterFilter | None = None, **changes: object) -> Replay:
    arguments: dict[str, object] = {
        "topic": topic,
        "again": False,
        "dry_run": False,
        "source": Log(),
        **changes,
    }
    return replay(log, arguments.pop("source"), returns, wanted or LetterFilter(), **arguments)  # type: ignore[arg-type]


@given(
    ranges=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 40)), max_size=15),
    probe=st.integers(0, 400),
)
def test_offsets_are_the_set_of_what_was_put_in(ranges: list[tuple[int, int]], probe: int) -> None:
    kept, plain = Offsets(), set[int]()
    for start, length in ranges:
        kept.put(start, start + length)
        plain |= set(range(start, start + length))
    again = Offsets(*kept.commit())
    assert (probe in kept) == (probe in again) == (probe in plain)
    position, _ = kept.commit()
    assert position not in plain
    assert set(range(position)) <= plain
    assert kept.commit() == again.commit()


@pytest.mark.parametrize("note", ["x", "r2:abc", "r1:~~~", "r1:00"])
def test_a_note_of_another_making_is_refused(note: str) -> None:
    with pytest.raises(PenstockError, match="this version"):
        Offsets(3, note)


def test_a_record_goes_back_as_it_was() -> None:
    returns = Returns()
    report = run(Log([Stored(1, 9, b"key", letter(7, source_partition=3))]), returns)
    assert report.replayed == 1
    assert returns.put_back == [
        Message(
            partition=3,
            key=b"key",
            value=b"payload",
            headers=(("trace", b"1"), ("empty", None), (replayed_header, b"departures/3/7")),
        )
    ]


@given(data=st.data())
def test_each_letter_goes_back_once_whatever_is_chosen_and_wherever_it_is_cut_short(
    data: st.DataObject,
) -> None:
    reasons = [Reason.CORRUPT, Reason.NULL_VALUE, Reason.UNSEEN_CATEGORY]
    kinds = data.draw(st.lists(st.sampled_from([*reasons, None]), max_size=30))
    gaps = data.draw(st.lists(st.integers(1, 4), min_size=len(kinds), max_size=len(kinds)))
    log, offset = Log(), 0
    for place, (kind, gap) in enumerate(zip(kinds, gaps, strict=True)):
        offset += gap
        log.messages.append(
            Stored(place % 2, offset, None, b"none" if kind is None else letter(place, reason=kind))
        )
    returns = Returns()
    for _ in range(data.draw(st.integers(0, 5))):
        chosen = data.draw(st.lists(st.sampled_from(reasons), max_size=2))
        returns.fails_at = data.draw(st.none() | st.just(0))
        before = list(returns.put_back)
        try:
            run(log, returns, LetterFilter(reasons=frozenset(map(str, chosen))))
        except UnavailableError:
            assert returns.put_back == before
        log.messages = log.messages[data.draw(st.integers(0, 2)) :]  # retention
    assert len(set(sources(returns))) == len(sources(returns))
    returns.fails_at = None
    run(log, returns)
    found = sources(returns)
    assert sorted(set(found)) == sorted(found)
    left = {
        int(place)
        for place, kind in enumerate(kinds)
        if kind is not None and _still_there(log, kinds, gaps, place)
    }
    assert left <= set(found)
    assert run(log, returns).replayed == 0


def _still_there(log: Log, kinds: Sequence[object], gaps: Sequence[int], place: int) -> bool:
    return any(stored.offset == sum(gaps[: place + 1]) for stored in log.messages)


def test_a_replay_cut_short_goes_on_where_it_stopped() -> None:
    log = Log([Stored(0, place, None, letter(place)) for place in range(1200)])
    returns = Returns(fails_at=1)
    with pytest.raises(UnavailableError):
        run(log, returns)
    assert len(returns.put_back) == 500
    returns.fails_at = None
    assert run(log, returns).replayed == 700
    assert sources(returns) == [*range(1200)]
    assert returns.committed == {0: (1200, "")}


def test_markers_between_letters_do_not_scatter_the_note() -> None:
    log = Log([Stored(0, 2 * place + 1, None, letter(place)) for place in range(5000)])
    returns = Returns()
    run(log, returns)
    assert returns.committed == {0: (2 * 4999 + 2, "")}


def test_what_cannot_be_remembered_is_not_put_back() -> None:
    rng = np.random.default_rng(1)
    log = Log([
        Stored(0, place, None, letter(place, reason=Reason.CORRUPT if rng.random() < 0.5 else Reason.NULL_VALUE))
        for place in range(40_000)
    ])  # fmt: skip
    returns = Returns()
    with pytest.raises(PenstockError, match="too scattered"):
        run(log, returns, LetterFilter(reasons=frozenset({"corrupt"})))
    assert all(len(note) <= note_characters_max for _, note in returns.committed.values())
    remembered = len(returns.put_back)
    assert remembered > 5000
    run(log, returns)
    assert sorted(sources(returns)) == [*range(40_000)]


def test_a_dry_run_claims_and_changes_nothing() -> None:
    returns = Returns()
    report = run(Log([Stored(0, 0, None, letter(0))]), returns, dry_run=True)
    assert report.replayed == 1
    assert (returns.claims, returns.put_back, returns.committed) == (0, [], {})


def test_again_puts_back_what_was_put_back() -> None:
    log, returns = Log([Stored(0, 0, None, letter(0))]), Returns()
    assert [
        run(log, returns).replayed,
        run(log, returns).already,
        run(log, returns, again=True).replayed,
    ] == [1, 1, 1]


def test_letters_of_another_topic_are_passed_over() -> None:
    returns = Returns()
    report = run(Log([Stored(0, 0, None, letter(0, of="arrivals"))]), returns)
    assert (report.foreign, report.replayed) == (1, 0)


def test_a_payload_left_at_the_source_is_fetched_from_there_if_it_is_the_same() -> None:
    long = b"x" * 5000
    log = Log(
        [Stored(0, place, None, letter(place, value=long, message_bytes_max=2000)) for place in range(3)]
    )
    source = Log([Stored(0, 0, b"k0", long, (("h", b"1"),)), Stored(0, 1, b"k1", b"another")])
    returns = Returns()
    report = run(log, returns, source=source)
    assert (report.replayed, report.gone) == (1, 2)
    [message] = returns.put_back
    assert (message.key, message.value) == (b"k0", long)
    assert message.headers[0] == ("h", b"1")
    assert hashlib.sha256(message.value or b"").digest() == hashlib.sha256(long).digest()


def test_a_null_value_goes_back_as_null() -> None:
    returns = Returns()
    run(Log([Stored(0, 0, b"k", letter(0, value=None, reason=Reason.NULL_VALUE))]), returns)
    assert returns.put_back[0].value is None


def test_filters_narrow_by_reason_time_and_place() -> None:
    log = Log([
        Stored(0, 0, None, letter(0)), Stored(0, 1, None, letter(1, reason=Reason.TRUNCATED)),
        Stored(1, 0, None, letter(1, source_partition=4)), Stored(1, 1, None, b"no letter"),
    ])  # fmt: skip
    assert summarise(log, LetterFilter(), newest_max=1).letters == 3
    assert summarise(log, LetterFilter(reasons=frozenset({"truncated"})), newest_max=1).letters == 1
    assert summarise(log, LetterFilter(stages=frozenset({"infer"})), newest_max=1).letters == 0
    assert summarise(log, LetterFilter(since_ms=1001), newest_max=1).letters == 2
    assert summarise(log, LetterFilter(partition=4), newest_max=1).by_partition == {4: 1}
    found = find_letter(log, partition=0, offset=1)
    assert found is not None
    assert found.dead.reason == "truncated"
    assert find_letter(log, partition=9, offset=1) is None


def test_times_and_places_are_read_and_refused() -> None:
    assert parse_since("2h", 10_000_000, name="--since") == 10_000_000 - 7_200_000
    assert parse_since("1970-01-01T00:00:10", 0, name="--since") == 10_000
    assert parse_since("1970-01-01T01:00:10+01:00", 0, name="--since") == 10_000
    assert parse_place("3:1042") == (3, 1042)
    for broken in ("", "h", "yesterday", "-1h", "9" * 5000 + "s"):
        with pytest.raises(ConfigError, match="--since"):
            parse_since(broken, 0, name="--since")
    for broken in ("", "3", "3:", "a:b", "-1:2"):
        with pytest.raises(ConfigError, match="3:1042"):
            parse_place(broken)


@dataclass
class Narrow(Returns):
    """A topic that takes messages of a length; longer ones come back, with what went in one batch with them."""

    bytes_max: int = 10

    def put(self, messages: Sequence[Message], notes: Mapping[int, tuple[int, str]]) -> Sequence[int]:
        refused = {place for place, each in enumerate(messages) if len(each.value or b"") > self.bytes_max}
        if refused:
            return sorted(refused | {min(place + 1, len(messages) - 1) for place in refused})
        return super().put(messages, notes)


def test_a_letter_longer_than_the_input_topic_takes_is_named_and_the_rest_goes_on() -> None:
    values = [b"short", b"x" * 100, b"short", b"y" * 100, b"short"]
    letters = [letter(place, value=value) for place, value in enumerate(values)]
    log = Log(
        [Stored(partition=0, offset=offset, key=b"k", value=value) for offset, value in enumerate(letters)]
    )
    returns = Narrow()
    report = run(log, returns)
    assert (report.replayed, report.refused, report.refused_first) == (3, 2, [(0, 1), (0, 3)])
    assert [message.value for message in returns.put_back] == [b"short"] * 3
    assert report.by_reason == {"corrupt": 3}
    again = run(log, returns)  # they stay letters, to be put back once the topic takes them
    assert (again.replayed, again.already, again.refused) == (0, 3, 2)
    returns.bytes_max = 1000
    assert run(log, returns).replayed == 2
