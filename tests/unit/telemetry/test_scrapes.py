"""What a scrape gets: two forms, one for all workers; buckets at the objective with what leads to the slow ones; not too many series."""

import socket

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from penstock.engine.telemetry.http_server import HttpServer, asks_for_openmetrics, openmetrics_path
from penstock.engine.telemetry.metric_declarations import render, render_openmetrics
from penstock.engine.telemetry.metrics import Metrics
from penstock.engine.telemetry.metrics_reference import all_declared, reference, series_max
from penstock.engine.telemetry.port_routes import SupervisorView, merge_expositions, worker_routes
from penstock.engine.telemetry.scaler_metrics import ScalerMetrics
from penstock.engine.telemetry.status import StatusBoard
from penstock.engine.telemetry.supervisor_metrics import SupervisorMetrics
from tests.clocks import HandClock

objective_s = 0.04


def ask(port: int, accept: str = "") -> tuple[str, str]:
    """Content type and body of /metrics."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(f"GET /metrics HTTP/1.1\r\nHost: x\r\n{accept}\r\n".encode())
        answer = b""
        while piece := connection.recv(1 << 20):
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    (kind,) = [line for line in head.decode().split("\r\n") if line.startswith("Content-Type: ")]
    return kind.removeprefix("Content-Type: "), body.decode()


def worker(slot: int, *, partitions: int = 1, features: int = 0) -> Metrics:
    metrics = Metrics(CollectorRegistry(), objective_s=objective_s)
    for partition in range(slot * partitions, (slot + 1) * partitions):
        for lag in (metrics.lag_records, metrics.lag_seconds):
            lag.labels(topic="transactions", partition=str(partition)).set(1)
    for feature in range(features):
        for values in (metrics.missing_values, metrics.unseen_values):
            values.labels(feature=f"feature {feature}").inc()
    for topic in ("predictions", "explanations", "dead-letters"):
        metrics.output_partitions.labels(topic=topic).set(64)
    for rows in (2**power for power in range(13)):
        for runtime in ("native", "onnxruntime"):
            metrics.model_batch_seconds.labels(runtime=runtime, rows=str(rows)).set(0.001)
    metrics.model_info.labels(name="m", version="1", digest="d", device="cpu", runtime="native").set(1)
    return metrics


class Supervised:
    """Two workers and their supervisor's port."""

    def __init__(self, *workers: Metrics) -> None:
        board = StatusBoard(worker="w", group="g", topic="t", clock=HandClock(), rows_max=8)
        self.servers = [
            HttpServer(worker_routes(metrics=each, board=board), host="127.0.0.1", port=0) for each in workers
        ]
        self.metrics = SupervisorMetrics(CollectorRegistry())
        ports = {str(slot): server.port for slot, server in enumerate(self.servers)}
        view = SupervisorView(metrics=self.metrics, ports=lambda: ports)
        self.servers.append(HttpServer(view.routes(), host="127.0.0.1", port=0))

    def __enter__(self) -> int:
        for server in self.servers:
            server.start()
        return self.servers[-1].port

    def __exit__(self, *_: object) -> None:
        for server in self.servers:
            server.close()


def test_both_forms_tell_the_same_of_all_workers() -> None:
    one, two = worker(0), worker(1)
    one.records.labels(outcome="predicted").inc(5)
    two.records.labels(outcome="predicted").inc(7)
    with Supervised(one, two) as port:
        plain_type, plain = ask(port)
        open_type, open_text = ask(
            port, "Accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.1\r\n"
        )
    assert plain_type.startswith("text/plain; version=0.0.4")
    assert open_type.startswith("application/openmetrics-text; version=1.0.0")
    assert open_text.endswith("# EOF\n")
    assert open_text.count("# EOF") == 1

    def told(families: object) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        moving = ("penstock_telemetry_seconds", "penstock_scrape_seconds", "process_")
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in families  # type: ignore[attr-defined]
            for sample in family.samples
            if not sample.name.startswith(moving)
        }

    found = told(read_text(plain))
    assert found == told(read_openmetrics(open_text))  # the reader of OpenMetrics is strict about the form
    assert found["penstock_records_total", (("outcome", "predicted"), ("worker", "1"))] == 7
    assert found["penstock_workers_running", ()] == 2


@settings(max_examples=40, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
@example(
    "\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
)  # Python ends a line at each of these, and Prometheus at none
@example('"} 1\npenstock_ready 1')
def test_a_name_of_any_characters_is_one_series_of_its_worker(name: str) -> None:
    metrics = worker(0)
    metrics.missing_values.labels(feature=name).inc(3)
    plain = merge_expositions({"0": render(metrics.registry).decode()}).decode()
    strict = merge_expositions({"0": render_openmetrics(metrics.registry).decode()}).decode() + "# EOF\n"
    for families in (read_text(plain), read_openmetrics(strict)):
        found = [
            each
            for family in families
            for each in family.samples
            if each.name == "penstock_missing_values_total"
        ]
        assert [(each.labels, each.value) for each in found] == [({"worker": "0", "feature": name}, 3)]


@pytest.mark.parametrize(
    ("header", "asked"),
    [
        (b"Accept: application/openmetrics-text", True),
        (b"accept:text/plain;q=0.5, Application/OpenMetrics-Text; version=1.0.0; q=0.9", True),
        (b"Accept: application/openmetrics-text; q=0", False),
        (b"Accept: text/plain", False),
        (b"Accept: */*", False),
        (b"X-Accept: application/openmetrics-text", False),
        (b"Accept", False),
    ],
)
def test_the_form_is_the_one_that_is_asked_for(header: bytes, asked: bool) -> None:
    assert asks_for_openmetrics(b"GET /metrics HTTP/1.1\r\nHost: x\r\n" + header + b"\r\n\r\n") is asked


def test_the_objective_its_half_and_its_double_are_bounds() -> None:
    text = render(worker(0).registry).decode()
    for bound in ("0.02", "0.04", "0.08", "0.5", "300.0"):
        assert f'penstock_end_to_end_seconds_bucket{{le="{bound}"}}' in text


def exemplars(metrics: Metrics) -> dict[str, dict[str, str]]:
    with Supervised(metrics) as port:
        _, text = ask(port, "Accept: application/openmetrics-text\r\n")
    return {
        sample.labels["le"]: sample.exemplar.labels | {"value": str(sample.exemplar.value)}
        for family in read_openmetrics(text)
        for sample in family.samples
        if sample.exemplar is not None
    }


def test_a_slow_record_is_named_beside_its_bucket_and_a_fast_one_is_not() -> None:
    metrics, now_ms = worker(0), 1_000_000
    place = [(3, 810), (4, 911), (5, 12)]
    metrics.count_ages(np.array([now_ms - 10, now_ms - 40, -1]), now_ms=now_ms, place=place.__getitem__)
    assert exemplars(metrics) == {}
    metrics.count_ages(np.array([now_ms - 60, now_ms - 70, -1]), now_ms=now_ms, place=place.__getitem__)
    assert exemplars(metrics) == {"0.075": {"partition": "4", "offset": "911", "value": "0.07"}}
    assert 'offset="911"' not in render(metrics.registry).decode()


def test_what_telemetry_takes_is_told() -> None:
    with Supervised(worker(0)) as port:
        ask(port)
        _, text = ask(port)
    samples = {(s.name, s.labels.get("part")): s.value for f in read_text(text) for s in f.samples}
    assert samples["penstock_telemetry_seconds_total", "scrape"] > 0
    assert samples["penstock_scrape_seconds_total", None] > 0


def test_there_are_not_too_many_series() -> None:
    """Of 2 workers, 64 partitions, 30 features."""
    with Supervised(worker(0, partitions=32, features=30), worker(1, partitions=32, features=30)) as port:
        _, text = ask(port)
    series = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert len(series) <= series_max
    assert f"{series_max:,} series" in reference()


def test_the_reference_has_every_metric_that_is_exposed_and_no_other() -> None:
    exposed = set()
    for registry in (
        worker(0, features=1).registry,
        SupervisorMetrics(CollectorRegistry()).registry,
        ScalerMetrics(CollectorRegistry()).registry,
    ):
        exposed |= {
            family.name
            for family in read_text(render(registry).decode())
            if not family.name.startswith("process_")
        }
    declared = {one.name.removesuffix("_total") for process in all_declared().values() for one in process}
    assert exposed == declared
    assert openmetrics_path not in reference()  # an inner path
