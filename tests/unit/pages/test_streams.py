"""Changes make the document that they are of, and who does not read them is let go."""

import itertools
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import hypothesis.strategies as st
import orjson
from hypothesis import given, settings

from penstock.engine.clock import SystemClock
from penstock.engine.pages.serving.live import Live, difference
from penstock.engine.pages.serving.streams import Streams

names = st.sampled_from(["limit", "state", "totals", "records_per_s"])
values = st.one_of(st.integers(), st.text(max_size=5), st.lists(st.integers(), max_size=3), st.none())
plain = st.dictionaries(names, values)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """A document and a later one: the same members, a longer series that may have lost its beginning, more records in front."""
    members = draw(st.lists(names, unique=True))
    documents: list[dict[str, Any]] = [{name: draw(values) for name in members} for _ in range(2)]
    old, new = documents
    times = draw(st.lists(st.integers(0, 100), unique=True).map(sorted))
    cut, kept = draw(st.integers(0, len(times))), draw(st.integers(0, len(times)))
    for document, known in ((old, times[:kept]), (new, times[min(cut, kept) :])):
        document["series"] = {"at_ms": known, "lag_s": [float(each) for each in known]}
    listed = draw(st.lists(st.integers(), unique=True, max_size=8))
    fresh = draw(st.integers(0, len(listed)))
    old["records"], new["records"] = listed[fresh:], listed
    return old, new


def applied(document: dict[str, Any], change: dict[str, Any], points: int, records: int) -> dict[str, Any]:
    """As live.js does it, with bounds as they are in this document."""
    found = {**document, **change["set"]}
    found["series"] = {
        name: (column + change["append"].get(name, []))[-points:] if points else []
        for name, column in document["series"].items()
    }
    if change["prepend"]:
        found["records"] = [*change["prepend"], *found["records"]][:records]
    return found


@given(pairs())
@settings(max_examples=300, deadline=None)
def test_a_change_turns_the_document_before_into_the_one_after(
    pair: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    old, new = pair
    change = difference(old, new)
    assert applied(old, change, len(new["series"]["at_ms"]), len(new["records"])) == new


def test_time_alone_is_no_change() -> None:
    assert not any(difference({"at_ms": 1, "state": "running"}, {"at_ms": 2, "state": "running"}).values())


def test_who_missed_few_changes_gets_those_and_who_missed_many_the_whole() -> None:
    numbers: Iterator[int] = iter(range(1000))
    live = Live(lambda _: {"count": next(numbers)}, boot="b")
    live.begin("flow", "")
    frames = [live.change("flow") for _ in range(59)]
    numbers = itertools.repeat(59)
    first, _ = live.begin("flow", "b-50")
    assert first == b"".join(each for each in frames[50:] if each)
    for lost in ("b-3", "b-60", "b-x", "other-50", "", "b-" + "9" * 30):
        first, _ = live.begin("flow", lost)
        assert b"event: snapshot" in first
        assert orjson.loads(first.split(b"data: ")[1]) == {"count": 59}


def test_who_does_not_read_is_let_go_and_the_others_go_on() -> None:
    number = 0

    def build(_: str) -> dict[str, Any]:
        nonlocal number
        number += 1
        return {
            "number": number,
            "text": str(number % 10) * 100_000,
        }  # a reader on a busy machine has seconds before it is late

    told: list[str] = []
    streams = Streams(Live(build, boot="b"), clock=SystemClock(), refused=told.append)
    ours, theirs = socket.socketpair()
    mute_ours, mute_theirs = socket.socketpair()
    mute_ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    streams.start()
    try:
        for connection in (ours, mute_ours):
            answer = streams.open("flow", "", {})
            assert answer.take_over is not None
            answer.take_over(connection)
        seen = 0

        def read() -> None:
            nonlocal seen
            while piece := theirs.recv(1 << 20):
                seen += piece.count(b"event: change")

        reader = threading.Thread(target=read)
        reader.start()
        until_s = time.monotonic() + 60
        while not told or seen < 3:
            assert time.monotonic() < until_s, (told, seen)
            time.sleep(0.05)
        assert told == ["a page did not read what it asked for"]
        assert mute_ours.fileno() == -1
        assert ours.fileno() != -1
    finally:
        streams.close()
        reader.join(10)
        theirs.close()
        mute_theirs.close()
