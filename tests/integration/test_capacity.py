"""The capacity that a saturated worker reports, beside what it really finishes."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from penstock.connectors.kafka.client import ClientConfig
from penstock.connectors.kafka.reports import ReportReader
from penstock.connectors.kafka.simple import KafkaWriter
from penstock.engine.scaling.report_message import Report, decode_status
from tests.bundles import write_stump

asked = os.environ.get("PENSTOCK_TEST_CAPACITY_RECORDS")
pytestmark = [
    pytest.mark.kafka,
    pytest.mark.skipif(
        asked is None,
        reason="times a machine that must do nothing else: PENSTOCK_TEST_CAPACITY_RECORDS=4000000",
    ),
]
patience_s = 120.0
records = int(asked or 0)
kinds = [("exactly_once", "predict"), ("at_least_once", "explain"), ("at_least_once", "predict"), ("exactly_once", "explain")]  # fmt: skip


@pytest.fixture(scope="module")
def backlog(kafka: str) -> str:
    from penstock.connectors.kafka.admin.admin import KafkaAdmin

    topic = f"capacity-{os.getpid()}"
    KafkaAdmin(ClientConfig(bootstrap_servers=kafka), timeout_s=30.0).create_topics({topic: 4})
    writer = KafkaWriter(ClientConfig(bootstrap_servers=kafka), topic, linger_s=0.1)
    values = [b'{"a": 1.5, "b": 2.25, "c": 0.5}'] * 50_000
    for number in range(records // len(values)):
        writer.write(values, partition=number % 4)
    writer.flush(60)
    writer.close()
    return topic


@pytest.mark.parametrize(("delivery", "kind"), kinds)
def test_the_reported_capacity_is_what_is_really_finished(
    kafka: str, new_topic: Callable[..., str], backlog: str, tmp_path: Path, delivery: str, kind: str
) -> None:
    status, group = new_topic("status"), f"{backlog}-{delivery}-{kind}"
    write_stump(tmp_path / "model")
    (tmp_path / "penstock.yaml").write_text(
        f"""
kafka: {{bootstrap_servers: "{kafka}", group: {group}, delivery: {delivery}}}
input: {{topic: {backlog}, format: json}}
output: {{predictions: {new_topic("p", partitions=4)}, dead_letters: {new_topic("d")}, status: {status},
  explanations: {new_topic("x", partitions=4) if kind == "explain" else "null"}}}
model: {{path: model}}
http: {{port: 0}}
"""
    )
    positions: list[tuple[float, int]] = []
    # A busy group has an offset pending at nearly any time: read uncommitted, they are told all the same.
    consumer = Consumer(
        {
            "bootstrap.servers": kafka,
            "group.id": group,
            "enable.auto.commit": False,
            "isolation.level": "read_uncommitted",
        }
    )
    worker = subprocess.Popen(
        [sys.executable, "-P", "-m", "penstock", "run", str(tmp_path / "penstock.yaml")]
    )
    ratios: list[float] = []
    try:
        with closing(ReportReader(ClientConfig(bootstrap_servers=kafka), status)) as reader:
            end_s = time.monotonic() + patience_s
            while len(ratios) < 3 and time.monotonic() < end_s:
                places = consumer.committed([TopicPartition(backlog, p) for p in range(4)], timeout=10)
                done = sum(max(place.offset, 0) for place in places)
                positions.append((time.monotonic(), done))
                assert done < records or ratios, "too few records to saturate the worker for long enough"
                reports = [decode_status(value) for value in reader.read() if value]
                rates = [rate for report in reports if (rate := _rate(report, kind))]
                ratios += [rate / _finished(positions, seconds=10.0) for rate in rates]
                if done >= records:
                    break
                time.sleep(0.25)
    finally:
        worker.terminate()
        worker.wait(30)
        consumer.close()
    print(f"{delivery}, {kind}: reported over real {[round(ratio, 3) for ratio in ratios]}")
    assert ratios, "no report said that the capacity was measured"
    assert 0.85 <= sorted(ratios)[len(ratios) // 2] <= 1.15


def _rate(report: Report, kind: str) -> float:
    if not report.capacity_measured:
        return 0.0
    assert (report.explain_records_per_s > 0) == (kind == "explain")
    assert (report.predict_records_per_s > 0) == (kind == "predict")
    return report.capacity_records_per_s


def _finished(positions: list[tuple[float, int]], *, seconds: float) -> float:
    """Records per second over the last so many seconds, from the committed offsets."""
    end_s, last = positions[-1]
    begin_s, first = next(point for point in positions if point[0] >= end_s - seconds)
    return (last - first) / (end_s - begin_s)
