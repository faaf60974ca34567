"""Dead letters on a real Kafka: read through, and put back exactly once."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from penstock.connectors.kafka.client import ClientConfig
from penstock.connectors.kafka.dead_letters import KafkaLog, ReplayWriter
from penstock.connectors.kafka.reading.one_record import OneRecord
from penstock.engine.cli.main import main
from penstock.engine.codec.contracts import contract
from penstock.engine.codec.framing import single_object_prefix
from penstock.engine.dead_letters.letters import LetterFilter, find_letter, summarise
from penstock.engine.dead_letters.message import DeadLetterEncoder, ModelIdentity
from penstock.engine.dead_letters.replay import Message, Replay, replay
from penstock.schemas.errors import ConfigError, FencedError
from penstock.schemas.reasons import Reason, Stage
from penstock.schemas.records import Records, Rejection

pytestmark = pytest.mark.kafka

record_bytes = 2500
letters_made = 30


trip = {"type": "record", "name": "Trip", "fields": [{"name": "id", "type": "string"}]}


Row = tuple[int, int, bytes | None, bytes | None, bytes | None]
"""Partition, the offset it came from, key, value, trace header."""


class World:
    """An input topic with records, a dead-letter topic with the letters of every third, as a worker leaves them."""

    def __init__(self, kafka: str, new_topic: Callable[..., str]) -> None:
        self.config = ClientConfig(bootstrap_servers=kafka)
        self.input, self.letters = new_topic("in", partitions=2), new_topic("dead", partitions=2)
        self.group = f"scorer-{self.input}"
        self.records: dict[tuple[int, int], tuple[bytes | None, bytes | None]] = {}
        self._send()

    def _send(self) -> None:
        producer = Producer({"bootstrap.servers": self.config.bootstrap_servers})
        count = letters_made // 2
        for partition in range(2):
            for offset in range(count):
                value: bytes | None = b"%d-%d " % (partition, offset) * (600 if offset == 5 else 1)
                value = {1: single_object_prefix(trip) + b"\6abc", 2: b'{"id": "abc"}', 4: None}.get(
                    offset, value
                )
                key = b"key-%d" % offset if offset % 2 else None
                producer.produce(
                    self.input, value=value, key=key, partition=partition, headers=[("trace", b"t")]
                )
                self.records[partition, offset] = (key, value)
        assert producer.flush(30) == 0
        encode = DeadLetterEncoder(
            prefix=single_object_prefix(contract("dead_letter")),
            cluster="c",
            model=ModelIdentity(name="m", version="1", digest="d"),
            worker="w",
            message_bytes_max=record_bytes,
        )
        sender = Producer(
            {"bootstrap.servers": self.config.bootstrap_servers, "transactional.id": f"t-{self.input}"}
        )
        sender.init_transactions(30)
        for partition in range(2):
            for offset in range(count):  # a transaction each: the log is full of markers
                key, value = self.records[partition, offset]
                one = Records(
                    topic=self.input,
                    partitions=np.array([partition], dtype=np.int32),
                    offsets=np.array([offset], dtype=np.int64),
                    timestamps_ms=np.array([0], dtype=np.int64),
                    keys=[key],
                    values=[value],
                    headers=lambda _: [("trace", b"t")],
                )
                reason = Reason.CORRUPT if offset % 3 else Reason.UNKNOWN_SCHEMA
                rejection = Rejection(
                    index=0, stage=Stage.DECODE, reason=reason, detail="as the test wants it"
                )
                sender.begin_transaction()
                sender.produce(
                    self.letters,
                    value=encode(one, [rejection], at_ms=offset)[0],
                    key=key,
                    partition=partition,
                )
                if offset == 7:
                    sender.produce(self.letters, value=b"not a letter", partition=partition)
                sender.commit_transaction(30)
        sender.begin_transaction()
        sender.produce(self.letters, value=b"never committed", partition=0)
        assert (
            sender.flush(30) == 0
        )  # in the log, and known to the coordinator: an abort before that fails now and then
        sender.abort_transaction(30)
        deadline_s = time.monotonic() + 20
        while self._committed_letters() < letters_made + 2 and time.monotonic() < deadline_s:
            pass  # until the markers of the last transactions are written

    def _committed_letters(self) -> int:
        log = KafkaLog(self.config, topic=self.letters, group="test")
        count = sum(1 for _ in log.read())
        log.close()
        return count

    def replay(self, wanted: LetterFilter, *, again: bool = False, dry_run: bool = False) -> Replay:
        log = KafkaLog(self.config, topic=self.letters, group=f"{self.group}-replay")
        source = OneRecord(self.config, topic=self.input, group=f"{self.group}-replay", call_s=15.0)
        returns = ReplayWriter(
            self.config, group=f"{self.group}-replay", letters_topic=self.letters, topic=self.input
        )
        try:
            return replay(log, source, returns, wanted, topic=self.input, again=again, dry_run=dry_run)
        finally:
            log.close()
            source.close()
            returns.close()

    def settings(self, folder: Path, format: str) -> str:
        """A settings file of the worker that left these letters."""
        (folder / "trip.avsc").write_text(json.dumps(trip))
        path = folder / f"penstock-{format}.yaml"
        path.write_text(f"""
            kafka: {{bootstrap_servers: "{self.config.bootstrap_servers}", group: {self.group}}}
            input: {{topic: {self.input}, format: {format}, schema: trip.avsc}}
            output: {{predictions: p, dead_letters: {self.letters}}}
            model: {{path: nowhere}}
        """)
        return str(path)

    def replayed(self, count: int = 0) -> list[Row]:
        """What was put back, in log order. Commit markers are written behind the commit: waits until `count` are to be seen."""
        deadline_s = time.monotonic() + 20
        while len(found := self._replayed()) < count and time.monotonic() < deadline_s:
            pass
        return found

    def _replayed(self) -> list[Row]:
        log = KafkaLog(self.config, topic=self.input, group="test")
        found = []
        for message in log.read():
            headers = dict(message.headers)
            if "penstock-replayed-from" in headers:
                topic, partition, offset = (headers["penstock-replayed-from"] or b"").decode().rsplit("/", 2)
                assert (topic, int(partition)) == (self.input, message.partition)
                found.append((message.partition, int(offset), message.key, message.value, headers["trace"]))
        log.close()
        return found

    def expected(self, offsets: list[int]) -> list[Row]:
        return [
            (partition, offset, *self.records[partition, offset], b"t")
            for partition in range(2)
            for offset in offsets
        ]


@pytest.fixture
def world(kafka: str, new_topic: Callable[..., str]) -> World:
    return World(kafka, new_topic)


def test_letters_are_counted_found_and_put_back_exactly_once(world: World) -> None:
    log = KafkaLog(world.config, topic=world.letters, group="test")
    summary = summarise(log, LetterFilter(), newest_max=2)
    assert (summary.letters, summary.unreadable) == (letters_made, 2)
    assert summary.by_reason == {("decode", "unknown_schema"): 10, ("decode", "corrupt"): 20}
    assert [letter.dead.at_ms for letter in summary.newest["decode", "corrupt"]] == [14, 14]
    letter = find_letter(log, partition=1, offset=3)
    assert letter is not None
    assert (letter.dead.payload, letter.key) == (b"1-3 ", b"key-3")
    assert find_letter(log, partition=1, offset=99) is None
    log.close()

    unknown = LetterFilter(reasons=frozenset({"unknown_schema"}))
    dry = world.replay(unknown, dry_run=True)
    assert (dry.replayed, world.replayed()) == (10, [])
    assert world.replay(unknown).replayed == 10
    assert world.replayed(10) == world.expected([0, 3, 6, 9, 12])

    second = world.replay(LetterFilter())
    assert (second.replayed, second.already, second.unreadable, second.gone) == (20, 10, 2, 0)
    found = world.replayed(letters_made)
    assert len(found) == letters_made
    assert sorted(found, key=str) == sorted(
        world.expected([*range(15)]), key=str
    )  # also the one too long for its letter

    third = world.replay(LetterFilter())
    assert (third.replayed, third.already) == (0, letters_made)
    assert world.replay(LetterFilter(partition=1, offset=4), again=True).replayed == 1
    assert len(world.replayed(letters_made + 1)) == letters_made + 1


def test_a_replay_under_way_is_fenced_by_a_second(world: World) -> None:
    first = ReplayWriter(
        world.config, group=f"{world.group}-replay", letters_topic=world.letters, topic=world.input
    )
    first.claim()
    assert world.replay(LetterFilter(partition=0, offset=1)).replayed == 1
    with pytest.raises(FencedError):
        first.put([Message(partition=0, key=None, value=b"x", headers=())], {0: (5, "")})
    first.close()
    assert [row[1] for row in world.replayed(1)] == [1]


def test_one_record_is_what_lies_at_its_place_now(world: World, new_topic: Callable[..., str]) -> None:
    """Also what came after the first look; never a neighbour of a place that holds none."""
    topic = new_topic(partitions=2)
    sender = Producer({"bootstrap.servers": world.config.bootstrap_servers, "transactional.id": topic})
    sender.init_transactions(30)

    def send(value: bytes, *, commit: bool) -> None:
        sender.begin_transaction()
        sender.produce(topic, value=value, key=b"k", partition=1, headers=[("h", b"1")])
        assert sender.flush(30) == 0
        sender.commit_transaction(30) if commit else sender.abort_transaction(30)

    one = OneRecord(world.config, topic=topic, group="test", call_s=15.0)

    def at(offset: int, partition: int = 1) -> bytes | None:
        """Both forms of it say the same."""
        stored, records = one.one(partition, offset), one.read(partition, offset)
        assert (stored is None) == (records is None)
        if stored is None or records is None:
            return None
        assert (stored.partition, stored.offset, stored.key) == (partition, offset, b"k")
        assert stored.headers == (("h", b"1"),)
        assert (records.partitions.tolist(), records.offsets.tolist()) == ([partition], [offset])
        assert records.values == [stored.value]
        return stored.value

    assert sorted(one.partitions()) == [0, 1]
    assert at(0) is None
    send(b"first", commit=True)
    send(b"aborted", commit=False)
    send(b"last", commit=True)  # each with a marker behind it
    deadline_s = time.monotonic() + 20  # the last marker may come later than the answer
    while at(4) is None:
        assert time.monotonic() < deadline_s
    assert [at(offset) for offset in range(8)] == [b"first", None, None, None, b"last", None, None, None]
    assert at(0, partition=0) is None
    assert at(0, partition=7) is None
    admin = AdminClient({"bootstrap.servers": world.config.bootstrap_servers})
    for deleted in admin.delete_records([TopicPartition(topic, 1, 3)]).values():
        deleted.result(30)
    assert [at(offset) for offset in (0, 4)] == [None, b"last"]
    one.close()


def test_a_topic_that_is_not_there_is_said_so(kafka: str) -> None:
    config = ClientConfig(bootstrap_servers=kafka)
    log = KafkaLog(config, topic="never-made", group="test")
    one = OneRecord(config, topic="never-made", group="test", call_s=15.0)
    for look in (lambda: list(log.read()), one.partitions, lambda: one.one(0, 0)):
        with pytest.raises(ConfigError, match="never-made"):
            look()
    log.close()
    one.close()


def test_the_log_needs_no_commit_and_no_membership(world: World) -> None:
    log = KafkaLog(world.config, topic=world.letters, group=world.group)
    list(log.read())
    log.close()
    consumer = Consumer({"bootstrap.servers": world.config.bootstrap_servers, "group.id": world.group})
    assert consumer.committed([TopicPartition(world.letters, 0)], timeout=10)[0].offset < 0
    consumer.close()


def test_the_commands_list_show_and_replay(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    as_json, as_avro = world.settings(tmp_path, "json"), world.settings(tmp_path, "avro")

    def answer(*words: str) -> Any:
        assert main(["dlq", *words, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    listed = answer("list", as_json, "--newest", "1")
    assert (listed["letters"], listed["unreadable"]) == (30, 2)
    assert [(kind["reason"], kind["letters"], len(kind["newest"])) for kind in listed["kinds"]] == [
        ("corrupt", 20, 1), ("unknown_schema", 10, 1),
    ]  # fmt: skip
    assert listed["partitions"] == {"0": 15, "1": 15}
    assert answer("list", as_json, "--reason", "null_value")["letters"] == 0

    shown = answer("show", as_json, "1:2")
    assert shown["payload"] == {"id": "abc"}
    assert shown["headers"] == [["trace", b"t".hex()]]
    assert answer("show", as_avro, "1:1")["payload"] == {"id": "abc"}
    assert answer("show", as_avro, "1:2")["payload"] is None
    assert answer("show", as_avro, "0:5")["payload_elsewhere"]["length"] == 2400
    assert main(["dlq", "show", as_avro, "1:2"]) == 0
    assert (
        "not decoded: the record does not begin with Avro's single-object header" in capsys.readouterr().out
    )

    assert answer("replay", as_json, "--partition", "0", "--dry-run")["to_replay"] == 15
    assert main(["dlq", "replay", as_json, "--partition", "0"]) == 2  # nobody is there to ask
    assert "--yes" in capsys.readouterr().err
    assert world.replayed() == []
    assert answer("replay", as_json, "--partition", "0", "--yes")["replayed"] == 15
    assert answer("replay", as_json, "--yes")["by_reason"] == {"corrupt": 10, "unknown_schema": 5}
    assert main(["dlq", "replay", as_json, "--yes"]) == 0
    assert "30 were put back before" in capsys.readouterr().out
    assert len(world.replayed(30)) == 30

    assert main(["dlq", "show", as_json, "7:7"]) == 1
    assert main(["dlq", "show", as_json, "seven"]) == 2
    assert main(["dlq", "list", as_json, "--offset", "3"]) == 2
