"""Output topics that get partitions while a worker runs: noticed, said, and the stated rule holds from then on."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest
from confluent_kafka import Producer

from penstock.connectors.kafka.admin.admin import KafkaAdmin
from penstock.connectors.partitioner import partition_of
from tests.bundles import write_stump
from tests.stream import Place, Stream, event, event_schema, partitions

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(300)]
grown = partitions + 2
per_step = 120


@pytest.fixture(params=["exactly_once", "at_least_once"])
def stream(tmp_path: Path, kafka: str, request: pytest.FixtureRequest) -> Iterator[Stream]:
    write_stump(tmp_path / "model", input_schema=orjson.dumps(event_schema))
    made = Stream(
        tmp_path, kafka, f"grown-{time.time_ns()}", tmp_path / "model", explained=False,
        kafka={"delivery": request.param, "client": {"topic.metadata.refresh.interval.ms": 1000}},
    )  # fmt: skip
    yield made
    made.close()


def produce(stream: Stream, stem: str, among: int) -> None:
    """Keyed records, in turn to each of the first partitions."""
    producer = Producer({"bootstrap.servers": stream.servers})
    for number in range(per_step):
        producer.produce(stream.name, value=event(number), key=f"{stem}{number}", partition=number % among)
    assert producer.flush(30) == 0
    stream.expected += per_step


def await_said(stream: Stream, words: str) -> None:
    end_s = time.monotonic() + 60
    while words not in stream.said():
        assert time.monotonic() < end_s, stream.said()
        time.sleep(0.05)


def outputs(stream: Stream, stem: str) -> list[tuple[Place, int, bytes]]:
    """Where the input was, where the output is, and the key, of the records of one step."""
    predictions = stream.books().predictions
    return [
        (seen.place, partition, seen.key)
        for partition, rows in predictions.items()
        for seen in rows
        if seen.key is not None and seen.key.startswith(stem.encode())
    ]


def test_results_follow_the_rule_of_the_docs_also_after_topics_have_grown(
    stream: Stream, grow: Callable[[str, int], None]
) -> None:
    """As many partitions as the input: the record's number; another number: by the key."""
    stream.start("a")
    produce(stream, "equal-", partitions)
    stream.wait(1.0, 60)
    for name in (stream.outputs["predictions"], stream.outputs["dead_letters"]):
        grow(name, grown)
    await_said(
        stream, f"{stream.outputs['predictions']} has {grown} partitions now, {partitions} before: records go"
    )
    time.sleep(0.5)
    produce(stream, "other-", partitions)
    stream.wait(1.0, 60)
    grow(stream.name, grown)
    await_said(stream, f"the input topic has {grown} partitions now")
    await_said(stream, f"assigned partitions {partitions}, {partitions + 1}")
    produce(stream, "again-", grown)
    stream.wait(1.0, 60)
    for stem, rule in (("equal-", True), ("other-", False), ("again-", True)):
        found = outputs(stream, stem)
        assert len({place for place, _, _ in found}) == per_step, stream.said()
        wrong = [
            (place, partition)
            for place, partition, key in found
            if partition != (place[0] if rule else partition_of(key, grown))
        ]
        assert not wrong, f"{stem}: {wrong[:5]}\n{stream.said()}"


@pytest.fixture
def grow(stream: Stream) -> Callable[[str, int], None]:
    admin = KafkaAdmin(stream.config, timeout_s=30.0)
    return lambda topic, count: admin.add_partitions({topic: count})
