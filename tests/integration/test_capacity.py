"""The capacity that a saturated worker reports, beside what a plain reader finds in its output topic."""

import itertools
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka import OFFSET_BEGINNING, TIMESTAMP_LOG_APPEND_TIME, Consumer, KafkaError, TopicPartition

from penstock.connectors.kafka.admin.admin import KafkaAdmin
from penstock.connectors.kafka.client import ClientConfig
from penstock.connectors.kafka.reports import ReportReader
from penstock.connectors.kafka.simple import KafkaWriter
from penstock.engine.scaling.report_message import Report, decode_status
from tests.bundles import write_stump
from tests.wire.proxy import Proxy

asked = os.environ.get("PENSTOCK_TEST_CAPACITY_RECORDS")
pytestmark = [
    pytest.mark.kafka,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        asked is None,
        reason="times a machine that does little else: PENSTOCK_TEST_CAPACITY_RECORDS=8000000",
    ),
]
patience_s = 180.0
records = int(asked or 0)
partitions = 4
window_s = 10.0
reports_min = 3
cases = list(itertools.product(("exactly_once", "at_least_once"), ("predict", "explain"), (0, 20)))


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What one worker said of itself, beside what it did in the same seconds; records a second."""

    delivery: str
    kind: str
    away_ms: int
    real: float
    ratios: list[float]


@pytest.fixture(scope="module")
def table() -> Iterator[list[Seen]]:
    """Rows; written where PENSTOCK_TEST_CAPACITY_TABLE says."""
    rows: list[Seen] = []
    yield rows
    where = os.environ.get("PENSTOCK_TEST_CAPACITY_TABLE")
    if where and len(rows) == len(cases):
        Path(where).write_text(page(rows))


@pytest.fixture(scope="module")
def backlog(kafka: str) -> str:
    topic = f"capacity-{os.getpid()}"
    KafkaAdmin(ClientConfig(bootstrap_servers=kafka), timeout_s=30.0).create_topics({topic: partitions})
    writer = KafkaWriter(ClientConfig(bootstrap_servers=kafka), topic, linger_s=0.1)
    values = [b'{"a": 1.5, "b": 2.25, "c": 0.5}'] * 50_000
    for number in range(records // len(values)):
        writer.write(values, partition=number % partitions)
    writer.flush(60)
    writer.close()
    return topic


@pytest.mark.parametrize(("delivery", "kind", "away_ms"), cases)
def test_the_reported_capacity_is_what_a_reader_finds_done(
    kafka: str,
    new_topic: Callable[..., str],
    backlog: str,
    tmp_path: Path,
    table: list[Seen],
    delivery: str,
    kind: str,
    away_ms: int,
) -> None:
    # The broker's own clock tells when a prediction was there: nothing of the worker's is in the truth.
    stamped = {"message.timestamp.type": "LogAppendTime"}
    status, predictions = new_topic("status"), new_topic("p", partitions=partitions, **stamped)
    with Proxy(kafka, delay_s=away_ms / 2000) as far:
        servers = far.bootstrap_servers if away_ms else kafka
        write_stump(tmp_path / "model")
        (tmp_path / "penstock.yaml").write_text(
            f"""
kafka: {{bootstrap_servers: "{servers}", group: {backlog}-{delivery}-{kind}-{away_ms}, delivery: {delivery}}}
input: {{topic: {backlog}, format: json}}
output: {{predictions: {predictions}, dead_letters: {new_topic("d")}, status: {status},
  explanations: {new_topic("x", partitions=partitions) if kind == "explain" else "null"}}}
model: {{path: model}}
http: {{port: 0}}
"""
        )
        log = (tmp_path / "worker.log").open("wb")
        worker = subprocess.Popen(
            [sys.executable, "-P", "-m", "penstock", "run", str(tmp_path / "penstock.yaml")],
            stdout=log,
            stderr=log,
        )
        try:
            reports = measured(kafka, status, kind)
        finally:
            worker.terminate()
            worker.wait(30)
            log.close()
    assert len(reports) >= reports_min, (
        f"only {len(reports)} reports said that the capacity was measured; too few records?\n"
        + (tmp_path / "worker.log").read_text(errors="replace")[-2000:]
    )
    done = appended(kafka, predictions)
    begin_ms, end_ms = reports[0].at_ms - 1000 * window_s, reports[-1].at_ms
    assert between(done, 0, end_ms) < records, "the worker was not saturated all the while: too few records"
    found = Seen(
        delivery=delivery, kind=kind, away_ms=away_ms, real=between(done, begin_ms, end_ms) / (end_ms - begin_ms) * 1000,
        ratios=[
            each.capacity_records_per_s / (between(done, each.at_ms - 1000 * window_s, each.at_ms) / window_s) for each in reports
        ],
    )  # fmt: skip
    table.append(found)
    print(f"{found}")
    assert 0.85 <= statistics.median(found.ratios) <= 1.15


def measured(kafka: str, status: str, kind: str) -> list[Report]:
    """The first reports that say that the capacity was measured; fewer than `reports_min` when time is up."""
    found: list[Report] = []
    end_s = time.monotonic() + patience_s
    with closing(ReportReader(ClientConfig(bootstrap_servers=kafka), status)) as reader:
        while len(found) < reports_min and time.monotonic() < end_s:
            for report in (decode_status(value) for value in reader.read() if value):
                if report.capacity_measured and report.state == "running":
                    assert (report.explain_records_per_s > 0) == (kind == "explain")
                    assert (report.predict_records_per_s > 0) == (kind == "predict")
                    found.append(report)
            time.sleep(0.25)
    return found


def appended(kafka: str, topic: str) -> Counter[int]:
    """Committed records by the tenth of a second, since 1970, in which the broker wrote them down."""
    reader = Consumer(
        {
            "bootstrap.servers": kafka, "group.id": "capacity-truth", "isolation.level": "read_committed",
            "enable.auto.commit": False, "enable.partition.eof": True,
        }
    )  # fmt: skip
    found: Counter[int] = Counter()
    try:
        reader.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in range(partitions)])
        ended: set[int | None] = set()
        while len(ended) < partitions:
            for message in reader.consume(50_000, 1.0):
                error = message.error()
                if error is not None:
                    assert error.code() == KafkaError._PARTITION_EOF, error
                    ended.add(message.partition())
                    continue
                kind, at_ms = message.timestamp()
                assert kind == TIMESTAMP_LOG_APPEND_TIME
                found[at_ms // 100] += 1
    finally:
        reader.close()
    return found


def between(done: Counter[int], begin_ms: float, end_ms: float) -> int:
    """Records of the tenths of a second that begin within the times."""
    return sum(count for tenth, count in done.items() if begin_ms <= tenth * 100 < end_ms)


def page(rows: list[Seen]) -> str:
    """docs/figures/capacity.md."""
    return "\n".join([
        "# Capacity as reported, over capacity as it is", "",
        f"One worker with more waiting than it can do ({records:,} records of three numbers, a model of one tree). What it reports of itself, over",
        f"the predictions that the broker wrote into the output topic in the {window_s:g} s before: counted afterwards by a plain consumer of committed",
        "records, by the broker's own time stamps. Away: the round trip of every request, through a proxy.", "",
        "| delivery | work | broker away | records/s, in truth | reported over it: median | least | most | reports |",
        "|---|---|---|---|---|---|---|---|",
        *(
            f"| {row.delivery.replace('_', ' ')} | {row.kind} | {row.away_ms} ms | {row.real:,.0f} | {statistics.median(row.ratios):.2f} "
            f"| {min(row.ratios):.2f} | {max(row.ratios):.2f} | {len(row.ratios)} |"
            for row in rows
        ),
        "",
        "Made by `PENSTOCK_TEST_CAPACITY_RECORDS=8000000 PENSTOCK_TEST_CAPACITY_TABLE=docs/figures/capacity.md make test ARGS=tests/integration/test_capacity.py`.",
        "",
    ])  # fmt: skip
