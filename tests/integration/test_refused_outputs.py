"""Records that a client library would not write and topics that take less than usual, on a real Kafka."""

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import KafkaError, Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, not re-exported
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from penstock.connectors.kafka.admin.topic_settings import (
    broker_message_bytes_max,
    envelope_bytes,
    read_topic_settings,
)
from penstock.connectors.kafka.client import ClientConfig
from penstock.connectors.kafka.simple import KafkaReader
from penstock.engine.cli.main import main
from penstock.engine.clock import SystemClock
from penstock.engine.codec.contracts import contract
from penstock.engine.codec.framing import single_object_prefix
from penstock.engine.dead_letters.message import DeadLetterEncoder, DeadLetterReader, ModelIdentity
from penstock.engine.ports import Predictions
from penstock.engine.settings.explain_policy import HasHeader
from penstock.schemas.reasons import Reason, Stage
from penstock.schemas.records import Rejection
from tests.integration.test_poison import by_key, good, write_bundle
from tests.raw_produce import RawRecord, produce_raw
from tests.stream import Stream

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]
bad_name = b"tr\xff\xfeace"
shown_name = "tr\\xff\\xfeace"


@pytest.fixture
def open_stream(kafka: str, tmp_path: Path) -> Iterator[Callable[..., Stream]]:
    write_bundle(tmp_path / "model")
    opened: list[Stream] = []

    def make(*, topics: dict[str, dict[str, str]] | None = None, **changes: Any) -> Stream:
        """`topics`: settings of topics by what they are for; "input" is the input."""
        name = f"refused-{time.time_ns()}"
        stream = Stream(tmp_path, kafka, name, tmp_path / "model", explained=False, **changes)
        opened.append(stream)
        client = AdminClient({"bootstrap.servers": kafka})
        for role, properties in (topics or {}).items():
            alter(client, stream.outputs.get(role, name), properties)
        return stream

    yield make
    for stream in opened:
        stream.close()


def alter(client: AdminClient, topic: str, properties: dict[str, str]) -> None:
    entries = [
        ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
        for key, value in properties.items()
    ]
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    for altered in client.incremental_alter_configs([resource]).values():
        altered.result(30)
    await_told(client, ConfigResource(ResourceType.TOPIC, topic), properties)


def await_told(client: AdminClient, resource: ConfigResource, properties: dict[str, str]) -> None:
    """Until the broker tells what the controller was told."""
    deadline_s = time.monotonic() + 20
    while time.monotonic() < deadline_s:
        [answer] = client.describe_configs([resource]).values()
        told = answer.result(30)
        if all(told[key].value == value for key, value in properties.items()):
            return
    raise AssertionError(f"{resource} does not tell of {properties}")


def produce_long(servers: str, topic: str, **message: Any) -> None:
    """Until the broker takes it: a topic's new bound counts a moment after it is told."""
    producer = Producer({"bootstrap.servers": servers, "message.max.bytes": 20_000_000})
    deadline_s, failed = time.monotonic() + 20, [True]
    while failed and time.monotonic() < deadline_s:
        failed.clear()
        producer.produce(
            topic, on_delivery=lambda error, _: failed.append(True) if error else None, **message
        )
        assert producer.flush(30) == 0
    assert not failed


def read_all(servers: str, topic: str) -> list[Any]:
    reader = KafkaReader(ClientConfig(bootstrap_servers=servers), topic, SystemClock())
    try:
        return reader.read_to_end(30.0)
    finally:
        reader.close()


def test_a_header_name_that_is_no_text_is_read_however_often_it_is_asked_for(
    kafka: str, new_topic: Callable[..., str]
) -> None:
    topic = new_topic("names")
    headers = [(b"ok", b"1"), (bad_name, b"2"), (b"", None), (b"\xfe", b""), (b"traceparent", b"00-1")]
    produce_raw(kafka, topic, [RawRecord(value=b"plain")] * 3 + [RawRecord(value=b"x", headers=headers)] * 2)
    expected = [
        ("ok", b"1"),
        (shown_name, b"2"),
        ("", None),
        ("[a name that is no UTF-8]", b""),
        ("traceparent", b"00-1"),
    ]
    for asked_whether_any in (False, True):
        [records] = read_all(kafka, topic)
        if asked_whether_any:
            assert records.any_headers()
        for _ in range(3):
            assert [list(records.headers(place)) for place in range(3)] == [[], [], []]
            assert list(records.headers(3)) == expected
            # of the one that `any_headers` came upon nothing more is told, and of the other the first name is
            assert list(records.headers(4)) == expected
        none = Predictions(outputs={}, labels=None, classes=())
        assert (
            HasHeader("traceparent").select(records, np.arange(5), none).tolist() == [False] * 3 + [True] * 2
        )
        encode = DeadLetterEncoder(
            prefix=single_object_prefix(contract("dead_letter")), cluster="c",
            model=ModelIdentity(name="m", version="1", digest="d"), worker="w", message_bytes_max=100_000,
        )  # fmt: skip
        killed = Rejection(index=3, stage=Stage.INFER, reason=Reason.KILLED_WORKER, detail="died on it twice")
        [letter] = encode(records, [killed], 5)
        assert list(DeadLetterReader().read(letter).headers) == expected
    [records] = read_all(kafka, topic)
    assert not records.slice(0, 3).take(np.arange(3)).headers(0)


@pytest.mark.parametrize("delivery", ["exactly_once", "at_least_once"])
def test_one_odd_record_stops_nothing(kafka: str, open_stream: Callable[..., Stream], delivery: str) -> None:
    stream = open_stream(
        topics={"input": {"max.message.bytes": "20000000"}},
        kafka={"delivery": delivery},
        explain={"policy": "header:traceparent"},
    )
    odd = [(bad_name, b"1"), (b"traceparent", b"00-2"), (b"\xff", None)]
    produce_raw(kafka, stream.name, [RawRecord(value=good(1), key=b"good and odd", headers=odd)])
    produce_raw(kafka, stream.name, [RawRecord(value=b"bad", key=b"bad and odd", headers=odd)])
    long_key = {name: name.encode() + b"k" * 1_500_000 for name in ("good", "bad")}
    produce_long(kafka, stream.name, value=good(2), key=long_key["good"], partition=0)
    produce_long(kafka, stream.name, value=b"bad", key=long_key["bad"], partition=1, headers=[("h", b"1")])
    stream.feed(
        [good(number) for number in range(20)], per_s=1e6, keys=[b"%d" % number for number in range(20)]
    )
    stream.expected += 4
    stream.start("a")
    stream.wait(1.0, 60.0)
    books = stream.books()
    books.inputs = {place: key for place, key in books.inputs.items() if len(key or b"") < 1000}
    found = by_key(books.predictions)
    letters = [seen for rows in books.letters.values() for seen in rows]
    expected = {b"good and odd", *(b"%d" % number for number in range(20))}
    assert found.keys() == expected, f"{books.inputs}\n{[each.body for each in letters]}\n{stream.said()}"[
        :6000
    ]
    assert {(seen.body["reason"], seen.key) for seen in letters} == {
        ("bad_framing", b"bad and odd"), ("output_too_long", None), ("bad_framing", None),
    }  # fmt: skip
    [carried] = [
        list(records.headers(place))
        for records in read_all(kafka, stream.outputs["predictions"])
        for place in range(len(records))
        if records.keys[place] == b"good and odd"
    ]
    assert carried == [("traceparent", b"00-2")]
    of_odd = next(seen for seen in letters if seen.key == b"bad and odd")
    assert [header["key"] for header in of_odd.body["headers"]][:2] == [shown_name, "traceparent"]
    for name, payload, reason in (("good", good(2), "output_too_long"), ("bad", b"bad", "bad_framing")):
        body = next(s.body for s in letters if s.key is None and s.body["reason"] == reason)
        assert body["payload"] == payload
        digest = hashlib.sha256(long_key[name]).hexdigest()
        assert body["detail"].startswith(
            f"[key left at the source: {len(long_key[name])} bytes, sha256 {digest}] "
        )


def test_a_key_left_at_the_source_comes_back_with_a_replay(
    kafka: str, open_stream: Callable[..., Stream]
) -> None:
    stream = open_stream(topics={"input": {"max.message.bytes": "20000000"}})
    key = b"k" * 1_500_000
    produce_long(kafka, stream.name, value=b"bad", key=key, partition=1, headers=[("h", b"1")])
    stream.expected = 1
    stream.start("a")
    stream.wait(1.0, 60.0)
    stream.close()
    assert main(["dlq", "replay", str(stream.settings), "--yes"]) == 0
    back = [
        (records.keys[place], records.values[place])
        for records in read_all(kafka, stream.name)
        for place in range(len(records))
        if dict(records.headers(place)).get("penstock-replayed-from")
    ]
    assert back == [(key, b"bad")]


@pytest.mark.parametrize("delivery", ["exactly_once", "at_least_once"])
def test_what_the_output_topics_take_is_read_before(
    open_stream: Callable[..., Stream], delivery: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Small batches for one topic, short letters for another, no message without a key for the third."""
    stream = open_stream(
        topics={
            "predictions": {"max.message.bytes": "20000", "cleanup.policy": "compact"},
            "dead_letters": {"max.message.bytes": "100000"},
        },
        kafka={"delivery": delivery},
    )
    long_bad = b"bad" * 100_000
    values = [good(number) for number in range(3000)]
    keys: list[Any] = [b"%d" % number for number in range(3000)]
    keys[7] = None
    stream.feed([*values, long_bad], per_s=1e6, keys=[*keys, b"long"])
    stream.start("a")
    stream.wait(1.0, 60.0)
    books = stream.books()
    assert books.check(explained=False, duplicates=delivery != "exactly_once") == []
    assert len(by_key(books.predictions)) == 2999
    letters = by_key(books.letters)
    assert letters[None].body["reason"] == "no_key"
    assert letters[b"long"].body["payload"] is None
    assert "payload left at the source: 300000 bytes" in letters[b"long"].body["detail"]
    assert letters.keys() == {None, b"long"}

    assert main(["check", str(stream.settings)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"at most {20_000 - envelope_bytes:,} bytes" in said
    assert "a record without a key becomes a dead letter" in said


@pytest.mark.parametrize("delivery", ["exactly_once", "at_least_once"])
@pytest.mark.parametrize("properties", [{"max.message.bytes": "20000"}, {"cleanup.policy": "compact"}])
def test_topics_that_take_less_while_a_worker_runs_do_not_end_the_deployment(
    kafka: str, open_stream: Callable[..., Stream], delivery: str, properties: dict[str, str]
) -> None:
    stream = open_stream(kafka={"delivery": delivery})
    stream.feed([good(number) for number in range(100)], per_s=1e6)
    process = stream.start("a")
    stream.wait(1.0, 60.0)
    alter(AdminClient({"bootstrap.servers": kafka}), stream.outputs["predictions"], properties)
    keys: list[Any] = [b"%d" % number for number in range(3000)]
    keys[7] = None
    stream.feed([good(number) for number in range(3000)], per_s=1e6, keys=keys)
    stream.expected += 100
    stream.wait(1.0, 60.0)
    assert process.poll() is None
    books = stream.books()
    assert books.check(explained=False, duplicates=delivery != "exactly_once") == []
    assert "the next one goes by them" in stream.said()
    assert len(by_key(books.letters)) == ("cleanup.policy" in properties)


@pytest.mark.parametrize(
    ("properties", "words"),
    [
        ({"cleanup.policy": "compact"}, "is compacted"),
        ({"cleanup.policy": "compact,delete"}, "is compacted"),
        ({"max.message.bytes": "20000"}, "raise its max.message.bytes"),
    ],
)
def test_a_dead_letter_topic_that_loses_letters_is_refused_at_once(
    open_stream: Callable[..., Stream],
    properties: dict[str, str],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stream = open_stream(topics={"dead_letters": properties})
    assert main(["check", str(stream.settings)]) == 2
    assert words in " ".join(capsys.readouterr().out.split())
    assert stream.start("a").wait(60) == 2
    assert words in stream.said()
    assert "Traceback" not in stream.said()


def test_a_topic_that_stores_batches_unpacked_refuses_what_unpacks_to_more(
    kafka: str, new_topic: Callable[..., str]
) -> None:
    """What SECURITY.md says closes the hole."""
    refused: list[int] = []
    producer = Producer(
        {"bootstrap.servers": kafka, "message.max.bytes": 100_000_000, "compression.type": "zstd"}
    )
    for topic in (new_topic("packed"), new_topic("unpacked", **{"compression.type": "uncompressed"})):
        producer.produce(
            topic,
            bytes(30_000_000),
            on_delivery=lambda error, _: refused.append(error.code() if error else 0),
        )
        producer.flush(30)
    assert refused == [0, KafkaError.MSG_SIZE_TOO_LARGE]


def test_topic_settings_are_read(kafka: str, new_topic: Callable[..., str]) -> None:
    config = ClientConfig(bootstrap_servers=kafka, properties={"message.max.bytes": 5_000_000})
    plain, long = (
        new_topic("plain"),
        new_topic("long", **{"max.message.bytes": "7000000", "cleanup.policy": "delete,compact"}),
    )
    found = read_topic_settings(config, [plain, long, plain])
    assert (found[plain].batch_bytes_max, found[plain].compacted) == (broker_message_bytes_max, False)
    assert found[long].compacted
    assert found[long].message_bytes_max(config) == 5_000_000  # the client says less than the topic
    assert found[long].message_bytes_max(ClientConfig(bootstrap_servers=kafka)) == 1_000_000
    assert read_topic_settings(config, []) == {}
