"""`penstock offsets` on a real broker: a dry run first, and never under a group that lives."""

import json
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.connectors.kafka.admin.group_offsets import KafkaOffsets
from penstock.connectors.kafka.client import ClientConfig
from penstock.connectors.kafka.reading.source import KafkaSource
from penstock.connectors.kafka.simple import KafkaWriter
from penstock.engine.cli.main import main
from penstock.engine.clock import SystemClock
from tests.integration.test_unreadable import Listener

pytestmark = pytest.mark.kafka


class Ground:
    def __init__(self, address: str, topic: str, folder: Path) -> None:
        self.config = ClientConfig(bootstrap_servers=address)
        self.topic = topic
        self.group = f"g-{uuid.uuid4().hex[:8]}"
        self.settings = folder / "penstock.yaml"
        self.settings.write_text(
            f"kafka: {{bootstrap_servers: '{address}', group: {self.group}}}\n"
            f"input: {{topic: {topic}}}\n"
            "output: {predictions: p, dead_letters: d}\nmodel: {path: m}\n"
        )

    def call(self, *words: str) -> int:
        return main(["offsets", words[0], str(self.settings), *words[1:]])

    def committed(self) -> list[int | None]:
        offsets = KafkaOffsets(self.config, self.group)
        try:
            return [found.committed for found in offsets.read(self.topic)]
        finally:
            offsets.close()


@pytest.fixture
def ground(kafka: str, new_topic: Callable[..., str], tmp_path: Path) -> Ground:
    made = Ground(kafka, new_topic("offsets", partitions=2), tmp_path)
    writer = KafkaWriter(made.config, made.topic)
    writer.write([b"%d" % n for n in range(10)], partition=0)
    writer.write([b"%d" % n for n in range(10)], partition=1, timestamp_ms=1_000)
    writer.flush(10.0)
    writer.close()
    return made


def test_reset_says_what_it_would_do_and_does_it_when_told(
    ground: Ground, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ground.call("reset", "--to-offset", "4", "--partition", "1") == 0
    said = capsys.readouterr().out
    assert "partition 1: none to 4; offsets 0 to 3 are skipped" in said
    assert "nothing was changed" in said
    assert ground.committed() == [None, None]
    assert ground.call("reset", "--to-offset", "4", "--partition", "1", "--apply") == 0
    assert ground.committed() == [None, 4]
    assert ground.call("reset", "--to-earliest", "--apply") == 0
    assert ground.committed() == [0, 0]
    assert ground.call("reset", "--to-latest", "--apply") == 0
    assert ground.committed() == [10, 10]
    assert ground.call("reset", "--to-time", "2020-01-01", "--apply") == 0
    assert ground.committed() == [0, 10]  # partition 1 is from 1970


def test_show_names_what_is_wrong(ground: Ground, capsys: pytest.CaptureFixture[str]) -> None:
    assert ground.call("reset", "--to-offset", "4", "--apply") == 0
    capsys.readouterr()
    assert ground.call("show", "--json") == 0
    first, second = json.loads(capsys.readouterr().out)["partitions"]
    assert (first["committed"], first["earliest"], first["high"], second["lag_records"]) == (4, 0, 10, 6)


def test_what_is_not_there_is_refused_in_a_sentence(
    ground: Ground, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ground.call("reset", "--to-offset", "11", "--apply") == 2
    assert "offset 11 is not in partition 0, which has 0 to 10" in capsys.readouterr().err
    assert ground.call("reset", "--to-earliest", "--partition", "7") == 2
    assert "no partition 7; it has 2" in capsys.readouterr().err
    assert ground.committed() == [None, None]


def test_a_group_that_lives_keeps_its_offsets(ground: Ground, capsys: pytest.CaptureFixture[str]) -> None:
    source = KafkaSource(
        ground.config,
        group=ground.group,
        topic=ground.topic,
        protocol="classic",
        start="earliest",
        listener=Listener(),
        exactly_once=False,
        max_poll_interval_s=60.0,
        memory_bytes_max=4 << 20,
        clock=SystemClock(),
    )
    end_s = time.monotonic() + 20.0
    while source.poll(100, 0.1) is None:
        assert time.monotonic() < end_s
    assert ground.call("reset", "--to-earliest", "--apply") == 2
    assert "is alive (penstock@" in capsys.readouterr().err
    source.close(5.0)
