"""A whole worker on the broker in memory: the cache changes nothing but what the model is asked."""

import gc
import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import orjson
import pytest
from onnx import helper

from penstock.connectors.memory.broker import MemoryBroker
from penstock.engine.clock import SystemClock
from penstock.engine.codec.contracts import contract
from penstock.engine.models.bundle.bundle import Bundle, Golden
from penstock.engine.models.bundle.manifest import ModelOutput
from penstock.engine.pipeline.batcher import CloseReason
from penstock.engine.ports import AssignmentListener, Source
from penstock.engine.settings.model import parse_settings
from penstock.engine.telemetry.metrics import Metrics
from penstock.engine.telemetry.status import StatusBoard
from penstock.engine.worker.assembly import Link, event_log, make_worker, new_metrics
from penstock.engine.worker.startup.startup import Startup
from penstock.schemas.errors import ConfigError
from tests.bundles import graph_bytes, tensor, write_linear, write_stump

records = [{"a": float(i % 3), "b": 0.5, "c": float(i % 2)} for i in range(60)]  # 6 different ones


def run_worker(
    tmp_path: Path,
    *,
    collector: Callable[[], AbstractContextManager[None]] | None = None,
    tracing: dict[str, Any] | None = None,
    **model: Any,
) -> tuple[list[Any], Metrics]:
    """The outputs of all records in order, and the worker's metrics; `collector` goes around its loop."""
    clock = SystemClock()
    broker = MemoryBroker(clock)
    for topic in ("in", "out", "why", "dead"):
        broker.create_topic(topic, partitions=1)
    tree = {
        "kafka": {"bootstrap_servers": "memory", "group": "g"},
        "input": {"topic": "in", "format": "json"},
        "output": {"predictions": "out", "explanations": "why", "dead_letters": "dead"},
        "model": {"path": str(tmp_path / "bundle"), "device": "cpu", **model},
        "objective": {"batch_rows_max": 64},
        "tracing": tracing,
    }
    settings = parse_settings(tree, origin="test", folder=tmp_path)

    def open_source(listener: AssignmentListener) -> Source:
        return broker.source(group="g", topic="in", listener=listener)

    link = Link(
        open_source=open_source,
        ends=lambda _: {},
        report=lambda _: None,
    )
    metrics = new_metrics(settings)
    startup = Startup(
        settings=settings,
        clock=clock,
        metrics=metrics,
        name="w",
        cluster=broker.cluster_id,
        open_sink=lambda: broker.exactly_once_sink(group="g", topic="in", transactional_ids=("a", "b")),
    )
    worker = make_worker(
        startup,
        link,
        run_folder=tmp_path,
        board=StatusBoard(worker="w", group="g", topic="in", clock=clock, rows_max=64),
        events=event_log(metrics, clock),
    )
    writer, reader = broker.writer("in"), broker.reader("out")
    written = iter(range(0, len(records), 10))

    def done() -> bool:
        """Ten more records each time those before are through."""
        total = metrics.registry.get_sample_value("penstock_records_total", {"outcome": "predicted"}) or 0
        if total % 10 == 0 and total == 10 * sent[0]:
            start = next(written, None)
            if start is None:
                return True
            writer.write([orjson.dumps(record) for record in records[start : start + 10]])
            sent[0] += 1
        return False

    sent = [0]
    with collector() if collector else nullcontext():
        worker.run(until=done)
    schema = fastavro.parse_schema(contract("prediction"))
    payloads = [value for read in reader.read_to_end(5.0) for value in read.values if value is not None]
    read: list[Any] = [
        fastavro.schemaless_reader(io.BytesIO(payload[10:]), schema, None) for payload in payloads
    ]
    return [prediction["outputs"] for prediction in read], metrics


def value(metrics: Metrics, name: str, **labels: str) -> float:
    found = metrics.registry.get_sample_value(name, labels)
    assert found is not None
    return found


@pytest.mark.parametrize("runtime", ["onnxruntime", "native"])
def test_a_worker_with_a_cache_says_the_same_and_asks_less(runtime: str, tmp_path: Path) -> None:
    write_stump(tmp_path / "bundle")
    plain, without = run_worker(tmp_path, runtime=runtime)
    cached, metrics = run_worker(tmp_path, runtime=runtime, cache_rows=100)
    assert len(plain) == len(records)
    assert plain == cached
    assert value(metrics, "penstock_cache_rows_total", outcome="miss") == 6
    assert value(metrics, "penstock_cache_rows_total", outcome="hit") == len(records) - 6
    assert value(without, "penstock_cache_rows_total", outcome="miss") == 0
    assert metrics.registry.get_sample_value("penstock_records_total", {"outcome": "explained"}) == 60


def test_batches_say_why_they_were_closed(tmp_path: Path) -> None:
    write_stump(tmp_path / "bundle")
    _, metrics = run_worker(tmp_path)
    closed = {str(why): value(metrics, "penstock_batches_total", reason=str(why)) for why in CloseReason}
    assert sum(closed.values()) == closed["idle"] == 6  # at low load nobody waits for company


def test_batches_leave_nothing_for_the_collector(tmp_path: Path) -> None:
    """It hardly ever comes while a worker works: what is in a cycle stays, and a matrix in one is the whole batch's."""
    left: list[int] = []

    @contextmanager
    def collector() -> Iterator[None]:
        gc.collect()
        gc.disable()
        try:
            yield
            left.append(gc.collect())
        finally:
            gc.enable()

    write_stump(tmp_path / "bundle")
    run_worker(tmp_path, collector=collector)
    assert left == [0]


def test_a_cache_is_refused_where_scores_depend_on_the_batch(tmp_path: Path) -> None:
    model = graph_bytes(
        [
            helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0]),
            helper.make_node("Sub", ["x", "mean"], ["scores"]),
        ],
        [tensor("x", ["N", 3])],
        [tensor("scores", ["N", 3])],
    )
    rows = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    made = write_linear(tmp_path / "linear")
    outputs = {"scores": (rows - rows.mean(axis=0)).astype(np.float64)}
    manifest = replace(made.manifest, outputs=(ModelOutput(name="scores", width=3),), labels=None)
    golden = Golden(rows=rows, outputs=outputs, labels=None)
    Bundle.write(tmp_path / "bundle", manifest=manifest, model=model, golden=golden, background=rows)
    with pytest.raises(ConfigError, match=r"cache_rows: in a batch of 1 rows a row gets other scores"):
        run_worker(tmp_path, cache_rows=5)
