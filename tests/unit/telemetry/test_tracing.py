"""Traces: which batches have one, what it says to a collector, and that a collector can do nothing to predictions."""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from penstock.engine.pipeline.batcher import Batch, CloseReason, Poll
from penstock.engine.pipeline.compute import Finished
from penstock.engine.pipeline.ledger import Span
from penstock.engine.pipeline.scorer import Outcome
from penstock.engine.telemetry.tracing.keeping import (
    BatchTrace,
    Link,
    Tracing,
    links_max,
    looked_at_max,
    sampled_parent,
)
from penstock.engine.telemetry.tracing.sender import TraceSender, waiting_max
from penstock.schemas.reasons import Reason, Stage
from penstock.schemas.records import Headers, Records, Rejection
from tests.bundles import write_stump
from tests.clocks import HandClock
from tests.unit.pipeline.test_hot_path import records as streamed
from tests.unit.pipeline.test_hot_path import run_worker, value

stage_s = {"decode": 0.001, "infer": 0.004, "explain": 0.002, "encode": 0.001}


def parent(number: int, *, sampled: bool = True) -> Headers:
    return [
        ("other", None),
        ("traceparent", f"00-{number:032x}-{number + 1:016x}-{int(sampled):02x}".encode()),
    ]


def finished(
    *,
    headers: Sequence[Headers] | None = None,
    rows: int = 4,
    rejected: Sequence[int] = (),
    polled_at_s: float = 0.0,
) -> tuple[Finished, list[int]]:
    """A finished batch, and the places whose headers were asked for."""
    asked: list[int] = []

    def read(index: int) -> Headers:
        asked.append(index)
        return headers[index] if headers else ()

    records = Records(
        topic="in", partitions=np.zeros(rows, np.int32), offsets=np.arange(5, 5 + rows, dtype=np.int64),
        timestamps_ms=np.zeros(rows, np.int64), keys=[None] * rows, values=[b""] * rows, headers=read,
        any_headers=lambda: headers is not None,
    )  # fmt: skip
    span = Span(partition=0, epoch=1, first=5, next=5 + rows, oldest_timestamp_ms=0, records=rows)
    rejections = tuple(
        Rejection(index=index, stage=Stage.DECODE, reason=Reason.NOT_FINITE, detail="") for index in rejected
    )
    outcome = Outcome(
        outgoing=(), predicted=rows - len(rejected), explained=1, skipped=0, rejections=rejections,
        bad=np.zeros(rows, np.bool_), stage_s=stage_s,
    )  # fmt: skip
    poll = Poll(records=records, spans=(span,), polled_at_s=polled_at_s)
    batch = Batch(polls=(poll,), generation=0, reason=CloseReason.IDLE)
    return Finished(batch=batch, outcome=outcome, busy_s=0.01), asked


class TodayClock(HandClock):
    def wall_ms(self) -> int:
        return 1_700_000_000_000


class Chosen:
    """Batches as they are delivered, and the traces of those that were chosen."""

    def __init__(self, *, one_in: int) -> None:
        self.clock = TodayClock()
        self.clock.now_s = 1000.0
        self.traces: list[BatchTrace] = []
        self.room = True
        self.tracing = Tracing(one_in=one_in, slow_s=0.05, clock=self.clock, take=self.take)

    def take(self, make: Callable[[], BatchTrace]) -> None:
        if self.room:
            self.traces.append(make())

    def deliver(self, *, waited_s: float = 0.02, **made: Any) -> list[int]:
        done, asked = finished(polled_at_s=self.clock.now_s - waited_s, **made)
        self.tracing.delivered(done, took_s=0.005)
        return asked


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=50), st.integers(0, 7))
def test_every_slow_batch_and_every_one_with_rejected_records_is_traced_and_one_in_so_many(
    batches: list[tuple[bool, bool]], one_in: int
) -> None:
    chosen = Chosen(one_in=one_in)
    expected = []
    for number, (slow, rejected) in enumerate(batches, 1):
        asked = chosen.deliver(
            waited_s=0.051 if slow else 0.049, rejected=[0] if rejected else (), headers=[parent(3)] * 4
        )
        regular = bool(one_in) and number % one_in == 0
        assert bool(asked) == (slow or rejected or regular), "headers are looked at of a chosen batch alone"
        if slow or rejected or regular:
            expected.append("rejected" if rejected else "slow" if slow else "one_in")
    assert [str(trace.why) for trace in chosen.traces] == expected


def test_stages_fill_the_time_from_poll_to_acknowledgement() -> None:
    chosen = Chosen(one_in=1)
    chosen.deliver(waited_s=0.02)
    (trace,) = chosen.traces
    assert [stage.name for stage in trace.stages] == ["wait", *stage_s, "deliver"]
    assert trace.end_ns - trace.start_ns == pytest.approx(20e6, abs=10)
    assert [a.end_ns for a in trace.stages[:-1]] == [b.start_ns for b in trace.stages[1:]]
    assert (trace.stages[0].start_ns, trace.stages[-1].end_ns) == (trace.start_ns, trace.end_ns)
    spent = {stage.name: (stage.end_ns - stage.start_ns) / 1e9 for stage in trace.stages}
    assert spent == pytest.approx({"wait": 0.007, "deliver": 0.005, **stage_s})
    assert trace.places == ("0:5-8",)


def test_links_lead_to_sampled_producers_alone_and_to_those_of_rejected_records_first() -> None:
    chosen = Chosen(one_in=1)
    many = [parent(number, sampled=number % 2 == 0) for number in range(1, 101)]
    chosen.deliver(rows=100, headers=many, rejected=[89, 99])
    (trace,) = chosen.traces
    numbers = [link.trace_id for link in trace.links]
    assert numbers[:2] == [90, 100]
    assert len(numbers) == links_max
    assert all(number % 2 == 0 for number in numbers)
    assert len(set(numbers)) == links_max


def test_of_a_large_batch_a_bounded_number_of_records_is_looked_at() -> None:
    chosen = Chosen(one_in=1)
    asked = chosen.deliver(rows=5000, headers=[parent(1, sampled=False)] * 5000, rejected=range(4000))
    assert len(asked) <= looked_at_max
    assert max(asked) > 4900
    assert not chosen.traces[0].links
    assert not chosen.deliver(rows=5000), "no record has any"
    chosen.room = False
    assert not chosen.deliver(headers=[parent(1)] * 4, rejected=[0]), "what is dropped costs nothing"


hexadecimal = st.text("0123456789abcdef")


@given(st.binary(max_size=80) | st.builds(lambda *parts: "-".join(parts).encode(), *[hexadecimal] * 4))
def test_no_header_ends_the_worker(raw: bytes) -> None:
    link = sampled_parent([("traceparent", raw)])
    assert link is None or (len(raw) == 55 and int(raw[53:55], 16) & 1)


@pytest.mark.parametrize(
    ("raw", "good"),
    [
        (b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", True),
        (b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03", True),
        (b"cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-will-be", True),
        (b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", False),
        (b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", False),
        (b"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", False),
        (b"00-00000000000000000000000000000000-b7ad6b7169203331-01", False),
        (b"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", False),
        (b"00-0AF7651916CD43DD8448EB211C80319C-B7AD6B7169203331-01", False),
    ],
)
def test_the_header_is_read_as_the_standard_has_it(raw: bytes, good: bool) -> None:
    expected = Link(trace_id=0x0AF7651916CD43DD8448EB211C80319C, span_id=0xB7AD6B7169203331)
    assert sampled_parent([("traceparent", raw)]) == (expected if good else None)


@dataclass
class Collector:
    """A receiver of OTLP over HTTP."""

    requests: list[ExportTraceServiceRequest] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    status: int = 200
    endpoint: str = ""

    def spans(self) -> list[Any]:
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()

    class Receives(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if collector.status == 200:
                collector.requests.append(ExportTraceServiceRequest.FromString(body))
            collector.authorizations.append(self.headers["Authorization"])
            self.send_response(collector.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Receives)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    collector.endpoint = f"http://127.0.0.1:{server.server_port}/v1/traces"
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def never_answering() -> Iterator[tuple[str, socket.socket]]:
    """Takes connections, reads nothing, answers nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        listener.settimeout(10)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1/traces", listener


def attributes(holder: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in holder.attributes}


def test_a_batch_is_a_span_with_its_stages_as_children_and_links() -> None:
    chosen = Chosen(one_in=1)
    chosen.deliver(headers=[parent(number) for number in range(1, 5)], rejected=[2])
    counted: dict[str, int] = {}
    with collecting() as collector:
        sender = TraceSender(
            endpoint=collector.endpoint, timeout_s=5.0, resource={"service.instance.id": "w"}, token="secret",
            count=lambda outcome, batches: counted.update({outcome: batches}), every_s=0.01,
        )  # fmt: skip
        sender.take(lambda: chosen.traces[0])
        sender.close(timeout_s=5.0)
        spans = collector.spans()
        (root,) = [span for span in spans if not span.parent_span_id]
        assert collector.authorizations == ["Bearer secret"]
        resource = attributes(collector.requests[0].resource_spans[0].resource)
    assert counted == {"sent": 1}
    assert (resource["service.name"], resource["service.instance.id"]) == ("penstock", "w")
    said = attributes(root)
    assert (root.name, said["messaging.batch.message_count"], said["penstock.kept"]) == (
        "process in",
        4,
        "rejected",
    )
    assert said["penstock.rejected.not_finite"] == 1
    assert {int.from_bytes(link.trace_id, "big") for link in root.links} == {1, 2, 3, 4}
    children = [span for span in spans if span.parent_span_id == root.span_id]
    assert len(children) == len(spans) - 1
    assert {span.trace_id for span in spans} == {root.trace_id}
    times = {span.name: (span.start_time_unix_nano, span.end_time_unix_nano) for span in children}
    assert times == {stage.name: (stage.start_ns, stage.end_ns) for stage in chosen.traces[0].stages}


def test_a_collector_that_refuses_is_named_once_and_again_when_it_takes_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    chosen = Chosen(one_in=1)
    chosen.deliver()
    counts = {"sent": 0, "failed": 0, "dropped": 0}

    def count(outcome: str, batches: int) -> None:
        counts[outcome] += batches

    def until(outcome: str, number: int) -> None:
        deadline_s = time.monotonic() + 30
        while counts[outcome] < number and time.monotonic() < deadline_s:
            time.sleep(0.01)

    with collecting() as collector, caplog.at_level("INFO", "penstock.worker"):
        collector.status = 401
        sender = TraceSender(
            endpoint=collector.endpoint, timeout_s=5.0, resource={}, count=count, every_s=0.01
        )
        for number in range(1, 4):
            sender.take(lambda: chosen.traces[0])
            until("failed", number)
        collector.status = 200
        sender.take(lambda: chosen.traces[0])
        until("sent", 1)
        sender.close(timeout_s=5.0)
    assert counts == {"sent": 1, "failed": 3, "dropped": 0}
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("penstock")]
    assert len(lines) == 2
    assert "401" in lines[0]
    assert lines[1].endswith("takes traces again")
    assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]


def test_a_collector_that_never_answers_has_no_effect_on_predictions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_stump(tmp_path / "bundle")
    plain, _ = run_worker(tmp_path)
    at_once = partial(TraceSender, every_s=0.001)  # so that it hangs from the first batch on
    monkeypatch.setattr("penstock.engine.telemetry.tracing.sender.TraceSender", at_once)
    with never_answering() as (endpoint, listener):
        began_s = time.monotonic()
        traced, metrics = run_worker(tmp_path, tracing={"endpoint": endpoint, "one_in": 1, "timeout_s": 60.0})
        took_s = time.monotonic() - began_s
        listener.accept()[0].close()  # it was asked
    assert traced == plain
    assert len(traced) == len(streamed)
    assert took_s < 30, "half of what the first trace may wait for its answer"
    assert value(metrics, "penstock_traced_batches_total", outcome="sent") == 0
    assert 1 <= value(metrics, "penstock_traced_batches_total", outcome="dropped") <= 5, (
        "but what was in hand"
    )


def test_batches_beyond_what_is_sent_in_a_second_are_dropped_at_once_and_counted() -> None:
    chosen = Chosen(one_in=1)
    chosen.deliver()
    counts = {"sent": 0, "failed": 0, "dropped": 0}

    def count(outcome: str, batches: int) -> None:
        counts[outcome] += batches

    with never_answering() as (endpoint, _):
        sender = TraceSender(endpoint=endpoint, timeout_s=60.0, resource={}, count=count, every_s=60.0)
        began_s = time.monotonic()
        for _ in range(20_000):
            sender.take(lambda: chosen.traces[0])
        assert counts["dropped"] == 20_000 - waiting_max
        sender.close(timeout_s=0.1)
        assert time.monotonic() - began_s < 10, "a minute, if anything of it waited"
    assert counts["sent"] == 0


def test_a_worker_s_batches_reach_the_collector(tmp_path: Path) -> None:
    write_stump(tmp_path / "bundle")
    with collecting() as collector:
        run_worker(tmp_path, tracing={"endpoint": collector.endpoint, "one_in": 2, "slow_ms": 600_000})
        roots = [span for span in collector.spans() if not span.parent_span_id]
        assert len(roots) == 3  # of six batches
        assert {attributes(span)["penstock.kept"] for span in roots} == {"one_in"}
