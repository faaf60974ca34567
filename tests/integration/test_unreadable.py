"""Bytes change in the segment file of a running broker: nothing that can be read is passed over, in any delivery."""

import random
import time
from collections.abc import Callable, Sequence
from contextlib import closing

import pytest
from confluent_kafka import Producer

from penstock.connectors.embedded.kafka import EmbeddedKafka
from penstock.connectors.kafka.admin.admin import KafkaAdmin
from penstock.connectors.kafka.admin.group_offsets import KafkaOffsets
from penstock.connectors.kafka.client import ClientConfig
from penstock.connectors.kafka.reading import doubts as kafka_doubts
from penstock.connectors.kafka.reading import stalls
from penstock.connectors.kafka.reading.doubts import UnreadablePolicy
from penstock.connectors.kafka.reading.source import KafkaSource
from penstock.engine.clock import SystemClock
from penstock.schemas.errors import ConfigError
from penstock.schemas.records import Records

pytestmark = pytest.mark.kafka
patience_s = 40.0
records_count = 60
header_bytes = 61  # of a record batch: what stands before its first record


class Listener:
    """Holds whatever it is given."""

    def on_assigned(self, partitions: Sequence[int]) -> None: ...
    def on_revoked(self, partitions: Sequence[int]) -> None: ...
    def on_lost(self, partitions: Sequence[int]) -> None: ...


class Ground:
    """A broker whose files may be changed."""

    def __init__(self, kafka: EmbeddedKafka) -> None:
        self.config = ClientConfig(bootstrap_servers=kafka.bootstrap_servers)
        self._folder = kafka.folder
        self._admin = KafkaAdmin(self.config)
        self._topics = 0

    def topic(self, partitions: int = 1) -> str:
        self._topics += 1
        name = f"t{self._topics}"
        self._admin.create_topics({name: partitions})
        return name

    def write(self, topic: str, sizes: Sequence[int], *, batch: int = 1, partition: int = 0) -> None:
        """Records that begin with their number, `batch` of them in each batch of the log."""
        chance = random.Random(len(sizes))
        producer = Producer({"bootstrap.servers": self.config.bootstrap_servers, "linger.ms": 200})
        for first in range(0, len(sizes), batch):
            for number in range(first, min(first + batch, len(sizes))):
                producer.produce(topic, _mark(number) + chance.randbytes(sizes[number]), partition=partition)
            producer.flush(10)

    def change(self, topic: str, number: int, *, at: int) -> None:
        """Turn one byte over, `at` bytes behind the beginning of a record's value."""
        (segment,) = self._folder.glob(f"node-1/*/{topic}-0/*.log")
        stored = segment.read_bytes()
        place = stored.index(_mark(number)) + at
        with segment.open("r+b") as file:
            file.seek(place)
            file.write(bytes([stored[place] ^ 0xFF]))

    def source(self, topic: str, *, group: str, unreadable: UnreadablePolicy) -> KafkaSource:
        return KafkaSource(
            self.config,
            group=group,
            topic=topic,
            protocol="classic",
            start="earliest",
            listener=Listener(),
            exactly_once=False,
            max_poll_interval_s=60.0,
            memory_bytes_max=16 << 20,
            clock=SystemClock(),
            unreadable=unreadable,
        )


@pytest.fixture(scope="module")
def ground(start_kafka: Callable[..., EmbeddedKafka]) -> Ground:
    return Ground(start_kafka())


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_doubts, "unreadable_patience_s", 0.5)
    monkeypatch.setattr(kafka_doubts, "retry_s", 0.1)


def _mark(number: int) -> bytes:
    return b"<%08d>" % number


def _poll(source: KafkaSource, until: Callable[[list[Records]], bool]) -> list[Records]:
    polled: list[Records] = []
    deadline_s = time.monotonic() + patience_s
    while not until(polled):
        assert time.monotonic() < deadline_s, f"only {_offsets(polled)} in {patience_s:g} s"
        if (records := source.poll(1000, 0.1)) is not None:
            polled.append(records)
    return polled


def _offsets(polled: Sequence[Records]) -> list[int]:
    """Every offset accounted for, in order: read, or in a range set aside."""
    found: list[int] = []
    for records in polled:
        for row, offset in enumerate(records.offsets.tolist()):
            passed = records.unreadable.get(row)
            found += [offset] if passed is None else range(passed.first, passed.next)
    return found


def _ranges(polled: Sequence[Records]) -> list[tuple[int, int]]:
    return [(u.first, u.next) for records in polled for u in records.unreadable.values()]


@pytest.mark.parametrize(
    ("seed", "size", "at"),
    [(1, 50, 0), (2, 50, 20), (3, 300, 10), (4, 3000, 1500), (5, 5, 2), (6, 120, -header_bytes - 6 + 23)],
)
def test_one_changed_byte_costs_one_record(ground: Ground, seed: int, size: int, at: int) -> None:
    chance = random.Random(seed)
    topic = ground.topic()
    ground.write(topic, [chance.randrange(size // 2, size * 2) for _ in range(records_count)])
    bad = chance.randrange(5, records_count - 5)
    ground.change(topic, bad, at=at)
    source = ground.source(topic, group=f"g{seed}", unreadable="set_aside")
    polled = _poll(source, lambda polled: len(_offsets(polled)) >= records_count)
    assert _offsets(polled) == list(range(records_count))
    assert _ranges(polled) == [(bad, bad + 1)]
    source.close(5.0)


def test_several_batches_with_readable_ones_between_them(ground: Ground) -> None:
    """Batches of seven: 7 to 13, 14 to 20 and 28 to 34 are lost as a whole, and no record of another is."""
    topic = ground.topic()
    ground.write(topic, [100] * records_count, batch=7)
    for number in (9, 15, 30):
        ground.change(topic, number, at=12)
    source = ground.source(topic, group="several", unreadable="set_aside")
    polled = _poll(source, lambda polled: len(_offsets(polled)) >= records_count)
    assert _offsets(polled) == list(range(records_count))
    assert _ranges(polled) == [(7, 14), (14, 21), (28, 35)]
    source.close(5.0)


def test_the_last_batch(ground: Ground) -> None:
    topic = ground.topic()
    ground.write(topic, [100] * 10)
    ground.change(topic, 9, at=12)
    source = ground.source(topic, group="last", unreadable="set_aside")
    polled = _poll(source, lambda polled: len(_offsets(polled)) >= 10)
    assert _ranges(polled) == [(9, 10)]
    ground.write(topic, [20] * 3)
    assert _offsets(_poll(source, lambda polled: len(_offsets(polled)) >= 3)) == [10, 11, 12]
    source.close(5.0)


def test_stop_names_the_offset_and_takes_nothing_behind_it(ground: Ground) -> None:
    topic = ground.topic(partitions=2)
    ground.write(topic, [80] * records_count)
    ground.write(topic, [80] * records_count, partition=1)
    ground.change(topic, 20, at=15)
    source = ground.source(topic, group="stop", unreadable="stop")
    polled: list[Records] = []
    with pytest.raises(ConfigError, match=r"partition 0: what is stored at offset 20 cannot be read"):
        _poll(source, lambda found: bool(polled.extend(found)) or bool(found.clear()))
    read = {(p, o) for r in polled for p, o in zip(r.partitions.tolist(), r.offsets.tolist(), strict=True)}
    assert {offset for partition, offset in read if partition == 0} == set(range(20))
    assert {offset for partition, offset in read if partition == 1} == set(range(records_count))
    source.close(5.0)


def test_a_range_is_found_again_after_a_rewind(ground: Ground) -> None:
    topic = ground.topic()
    ground.write(topic, [100] * 30, batch=5)
    ground.change(topic, 11, at=12)
    source = ground.source(topic, group="rewind", unreadable="set_aside")
    _poll(source, lambda polled: len(_offsets(polled)) >= 30)
    source.seek({0: 10})
    polled = _poll(source, lambda polled: len(_offsets(polled)) >= 20)
    assert (_offsets(polled), _ranges(polled)) == (list(range(10, 30)), [(10, 15)])
    source.close(5.0)


def test_lag_shows_every_other_partition(ground: Ground) -> None:
    topic = ground.topic(partitions=2)
    ground.write(topic, [80] * 10)
    ground.write(topic, [80] * 7, partition=1)
    ground.change(topic, 0, at=15)
    with closing(KafkaOffsets(ground.config, "looks")) as offsets:
        bad, good = offsets.read(topic)
        assert "CRC" in bad.fault
        assert (good.fault, good.end, good.oldest_unfinished_timestamp_ms is not None) == ("", 7, True)


def test_an_open_transaction_shows_as_a_log_that_ends_further_than_may_be_read(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = ground.topic()
    ground.write(topic, [20] * 3)
    producer = Producer(
        {"bootstrap.servers": ground.config.bootstrap_servers, "transactional.id": f"{topic}-open"}
    )
    producer.init_transactions(10)
    producer.begin_transaction()
    for number in range(5):
        producer.produce(topic, b"%d" % number, partition=0)
    producer.flush(10)
    with closing(KafkaOffsets(ground.config, "looks")) as offsets:
        (found,) = offsets.read(topic)
        assert (found.end, found.high) == (3, 8)
    monkeypatch.setattr(stalls, "stalled_after_s", 0.5)
    monkeypatch.setattr(stalls, "ask_again_s", 0.2)
    source = ground.source(topic, group="waits", unreadable="stop")
    _poll(source, lambda polled: len(_offsets(polled)) >= 3)
    _poll(source, lambda _: source.reading().open_transactions == {0: 5})
    assert source.reading().stalled_s == {}
    producer.abort_transaction(10)
    _poll(source, lambda _: source.reading().open_transactions == {})
    source.close(5.0)
