"""Counts every record of a chaos run and compares every value. Shares no code with the engine or its connectors: what it
knows of the messages is written here, and what it reads, it reads with the plain client and fastavro."""

import io
import json
import re
import struct
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import fastavro
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

Place = tuple[int, int]
_schemas: Final = Path(__file__).parents[2] / "schemas"
_marker_bytes: Final = 10  # of Avro's single-object encoding: two bytes, and the schema's fingerprint
_range: Final = re.compile(r"offsets? (\d+)(?: to (\d+))?")
_faults_shown: Final = 20


@dataclass(frozen=True, kw_only=True)
class Message:
    """One record of a topic as it is stored."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None


@dataclass(kw_only=True)
class Audit:
    """What became of every input record."""

    inputs: int = 0
    predictions: int = 0
    explanations: int = 0
    letters: int = 0
    set_aside: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)
    reordered: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def faults(self) -> list[str]:
        """Everything that is amiss, in words."""
        kinds = {
            "lost": self.lost, "doubled": self.doubled, "torn": self.torn, "reordered": self.reordered, "wrong": self.wrong,
        }  # fmt: skip
        return [f"{len(found)} {kind}: {found[:_faults_shown]}" for kind, found in kinds.items() if found]

    def __str__(self) -> str:
        return (
            f"{self.inputs} records: {self.predictions} predicted, {self.explanations} explained, {self.letters} letters "
            f"({self.set_aside} offsets set aside), {len(self.lost)} lost, {len(self.doubled)} doubled, {len(self.torn)} torn, "
            f"{len(self.reordered)} reordered, {len(self.wrong)} wrong values"
        )


def value(number: int) -> tuple[float, float, float]:
    """What the fields a, b and c of record `number` say."""
    return (-1.0 if number % 2 else 1.0, float(number), 0.5)


def audit(servers: str, source: str, outputs: Mapping[str, str], fed: int) -> Audit:
    """Read all topics to their ends and compare them with what was fed: numbers 0 to `fed` - 1, each once.

    The model is the stump of tests/bundles.py: a at most 0 gives 1, else 2; its expectation is 1.6. Predictions and
    explanations carry the field b along, so that a value which belongs to another record is seen.
    """
    found = Audit()
    inputs: dict[Place, tuple[bytes | None, int]] = {}
    numbers: Counter[int] = Counter()
    for each in read(servers, source):
        assert each.value is not None
        a, b, c = struct.unpack("<3d", each.value[_marker_bytes:])
        inputs[each.partition, each.offset] = (each.key, int(b) if value(int(b)) == (a, b, c) else -1)
        numbers[int(b)] += 1
    found.inputs = len(inputs)
    letters = _decoded(servers, outputs["dead_letters"], "dead_letter")
    aside = {place for _, _, body in letters for place in _range_of(body)}
    found.letters, found.set_aside = len(letters), len(aside)
    for number in range(fed):
        if numbers[number] != 1 and not aside:
            found.wrong.append(f"the test wrote number {number} {numbers[number]} times")
    seen = {}
    for name, count in (("prediction", "predictions"), ("explanation", "explanations")):
        messages = _decoded(servers, outputs[count], name)
        setattr(found, count, len(messages))
        seen[name] = _walk(found, name, messages, inputs, aside)
    for place in inputs:
        if place in aside:
            continue
        predicted, explained = seen["prediction"][place], seen["explanation"][place]
        if predicted == 0:
            found.lost.append(f"{place}")
        elif explained == 0 or predicted != explained:
            found.torn.append(f"{place}: {predicted} predictions, {explained} explanations")
    return found


def read(servers: str, topic: str, timeout_s: float = 60.0) -> list[Message]:
    """Every committed record of a topic."""
    reader = Consumer(
        {
            "bootstrap.servers": servers, "group.id": "audit", "isolation.level": "read_committed", "log_level": 0,
            "enable.auto.commit": False, "enable.partition.eof": True, "auto.offset.reset": "error",
        }
    )  # fmt: skip
    try:
        left = _bounds(reader, topic, timeout_s)
        reader.assign([TopicPartition(topic, p, first) for p, (first, _) in left.items()])
        ends = {p: end for p, (first, end) in left.items() if end > first}
        found, end_s = [], time.monotonic() + timeout_s
        while ends:
            batch = reader.consume(10_000, 0.2)  # waits so long for the rest of them
            end_s = time.monotonic() + timeout_s if batch else end_s
            assert time.monotonic() < end_s, f"{topic}: nothing came in {timeout_s:g} s, before {ends}"
            for message in batch:
                partition, offset, error = message.partition(), message.offset(), message.error()
                assert partition is not None
                assert offset is not None
                if error is None:
                    found.append(
                        Message(partition=partition, offset=offset, key=message.key(), value=message.value())
                    )
                    offset += 1
                else:
                    assert error.code() == KafkaError._PARTITION_EOF, error
                if offset >= ends.get(partition, offset + 1):
                    del ends[partition]
        return found
    finally:
        reader.close()


def _bounds(reader: Consumer, topic: str, timeout_s: float) -> dict[int, tuple[int, int]]:
    """First offset and end of each partition, once all of them have a leader again."""
    end_s = time.monotonic() + timeout_s
    while True:
        try:
            partitions = reader.list_topics(topic, timeout=5.0).topics[topic].partitions
            return {
                p: reader.get_watermark_offsets(TopicPartition(topic, p), timeout=5.0) for p in partitions
            }
        except KafkaException:
            if time.monotonic() > end_s:
                raise
            time.sleep(0.2)


def _decoded(servers: str, topic: str, schema: str) -> list[tuple[Message, Place, dict[str, Any]]]:
    parsed = fastavro.parse_schema(json.loads((_schemas / f"{schema}.avsc").read_text()))
    found = []
    for each in read(servers, topic):
        assert each.value is not None
        body: Any = fastavro.schemaless_reader(io.BytesIO(each.value[_marker_bytes:]), parsed, None)
        found.append((each, (body["source"]["partition"], body["source"]["offset"]), body))
    return found


def _walk(
    found: Audit,
    name: str,
    messages: list[tuple[Message, Place, dict[str, Any]]],
    inputs: Mapping[Place, tuple[bytes | None, int]],
    aside: set[Place],
) -> Counter[Place]:
    """Compare each output message with the record it is about; how many there are about each."""
    counts: Counter[Place] = Counter()
    newest: dict[tuple[int, int], int] = {}  # by output and input partition
    for message, place, body in messages:
        counts[place] += 1
        if counts[place] > 1:
            found.doubled.append(f"{name} of {place}")
        if place not in inputs or place in aside:
            found.wrong.append(f"{name} of {place}, which is {'set aside' if place in aside else 'no input'}")
            continue
        key, number = inputs[place]
        way = (message.partition, place[0])
        if newest.get(way, -1) > place[1]:
            found.reordered.append(f"{name} of {place} behind {newest[way]}")
        newest[way] = place[1]
        wanted = 1.0 if value(number)[0] <= 0.0 else 2.0
        right = message.key == key and body["passed"] == {"b": _text(float(number))}
        if name == "prediction":
            right &= body["outputs"] == {"value": [wanted]}
        else:
            told = {each["feature"]: each["attribution"] for each in body["attributions"]}
            right &= abs(body["base_value"] - 1.6) < 1e-6
            right &= abs(told.get("a", 0.0) - (wanted - 1.6)) < 1e-6
            right &= not any(told.get(other) for other in "bc")
        if not right:
            found.wrong.append(f"{name} of {place}, number {number}: {message.key!r} {body}")
    return counts


def _range_of(letter: Mapping[str, Any]) -> set[Place]:
    """The offsets that a letter stands for."""
    partition, first = letter["source"]["partition"], letter["source"]["offset"]
    told = _range.search(letter["detail"]) if letter["reason"] == "unreadable" else None
    last = int(told.group(2) or told.group(1)) if told else first
    return {(partition, offset) for offset in range(first, last + 1)}


def _text(number: float) -> str:
    """A number as a passed field has it."""
    return repr(number)
