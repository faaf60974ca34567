"""Whole workers where the stored bytes are broken, and where their topic is made anew: every offset has one outcome."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from penstock.connectors.embedded.kafka import EmbeddedKafka
from penstock.connectors.kafka.admin.admin import KafkaAdmin
from tests.bundles import write_stump
from tests.stream import Seen, Stream, event, event_schema, partitions

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(300)]
count = 400

OpenStream = Callable[..., Stream]


@pytest.fixture(scope="module")
def broker(start_kafka: Callable[..., EmbeddedKafka]) -> EmbeddedKafka:
    return start_kafka()


@pytest.fixture
def open_stream(tmp_path: Path, broker: EmbeddedKafka) -> Iterator[OpenStream]:
    write_stump(tmp_path / "model", input_schema=orjson.dumps(event_schema))
    opened: list[Stream] = []

    def make(**changes: Any) -> Stream:
        name = f"broken-{time.time_ns()}"
        stream = Stream(
            tmp_path, broker.bootstrap_servers, name, tmp_path / "model", explained=False, **changes
        )
        opened.append(stream)
        return stream

    yield make
    for stream in opened:
        stream.close()


def fed(stream: Stream, numbers: range, stem: bytes) -> None:
    stream.feed([event(n) for n in numbers], per_s=1e6, keys=[stem + b"%d" % n for n in numbers])
    assert stream._feeder is not None
    stream._feeder.join()


def outcomes(stream: Stream, output: str) -> list[Seen]:
    from penstock.engine.codec.contracts import contract

    decoded = stream._decoded(stream._read(stream.outputs[output]), contract(output.removesuffix("s")))
    return [seen for rows in decoded.values() for seen in rows]


def test_a_broken_batch_is_one_letter_and_all_else_is_predicted_once(
    open_stream: OpenStream, broker: EmbeddedKafka
) -> None:
    predicted_around_a_broken_batch(open_stream, broker, count=400, stem=b"a")


def test_a_client_that_dies_of_a_broken_batch_is_followed_by_one_that_goes_carefully(
    open_stream: OpenStream, broker: EmbeddedKafka
) -> None:
    """Astray behind the wrong checksum, the client takes these keys' zeros for a message of an old format, and an assertion
    ends its process: nearly always. Sent back soon enough it does not get there; the outcomes are the same."""
    for _ in range(4):
        said = predicted_around_a_broken_batch(open_stream, broker, count=80, stem=bytes(1000) + b"a")
        if "the next one reads carefully" in said:
            return
    pytest.fail("the client did not die in four attempts")


def predicted_around_a_broken_batch(
    open_stream: OpenStream, broker: EmbeddedKafka, *, count: int, stem: bytes
) -> str:
    """What the worker said of a stream one batch of which was broken on the broker's disk, its outcomes looked at."""
    stream = open_stream(input={"unreadable": "set_aside"})
    fed(stream, range(count), stem)
    key = stem + b"%d" % (count // 2)  # its batch is broken, and what the batch holds is lost with it
    (segment,) = (p for p in broker.folder.glob(f"node-1/*/{stream.name}-*/*.log") if key in p.read_bytes())
    stored = bytearray(segment.read_bytes())
    stored[stored.index(key) + len(key) + 3] ^= 0xFF
    segment.write_bytes(stored)
    broken = int(segment.parent.name.rsplit("-", 1)[1])
    fed(stream, range(count, 2 * count), b"b")  # and readable batches behind it
    stream.start("w")
    stream.expected = 2 * count
    stream.wait(1.0, 150.0)
    stream.await_readers(30.0)
    predictions, letters = outcomes(stream, "predictions"), outcomes(stream, "dead_letters")
    (letter,) = letters
    assert (letter.place[0], letter.body["reason"], letter.body["payload"]) == (broken, "unreadable", None)
    first = letter.place[1]
    last = int(letter.body["detail"].split(" to ")[1].split(" ")[0])
    ranges = {(broken, offset) for offset in range(first, last + 1)}
    places = [seen.place for seen in predictions]
    assert len(places) == len(set(places)) == 2 * count - len(ranges)
    assert not set(places) & ranges
    said: str = stream.said()
    return said


def test_a_topic_made_anew_under_a_running_worker_loses_nothing(open_stream: OpenStream) -> None:
    stream = open_stream(kafka={"client": {"topic.metadata.refresh.interval.ms": 1000}})
    fed(stream, range(count), b"old")
    stream.start("w")
    stream.wait(1.0, 60.0)
    admin = KafkaAdmin(stream.config, timeout_s=30.0)
    admin.delete_topics([stream.name])
    admin.create_topics({stream.name: partitions})
    fed(stream, range(2 * count), b"new")
    end_s = time.monotonic() + 60.0
    wanted = {b"new%d" % number for number in range(2 * count)}
    while True:
        seen = outcomes(stream, "predictions")
        if {each.key for each in seen} >= wanted:
            break
        assert time.monotonic() < end_s, f"{len(wanted - {e.key for e in seen})} are missing\n{stream.said()}"
        time.sleep(0.5)
    ids = {each.body["source"]["topic_id"] for each in seen if each.key in wanted}
    old = {each.body["source"]["topic_id"] for each in seen if each.key not in wanted}
    assert len(old) == 1
    newest = [each for each in seen if each.body["source"]["topic_id"] in ids - old]
    assert {each.key for each in newest} == wanted
    assert len({each.place for each in newest}) == len(newest)  # once each under the new id
