"""The cluster goes away and comes back, a worker is killed or stopped: how long it takes, and what is said of it."""

import os
import re
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from penstock.connectors.embedded.kafka import EmbeddedKafka
from penstock.schemas.errors import PenstockError
from tests.bundles import write_stump
from tests.stream import Stream, children, event, event_schema, kill
from tests.wire.proxy import Hold, Proxy, Rule

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(600)]
outage_s = float(os.environ.get("PENSTOCK_TEST_OUTAGE_S", "12"))
"""The long run of the same test: 60 and more."""
as_by_default = {"session.timeout.ms": 8_000, "transaction.timeout.ms": 8_000}
per_s = 200
stopped_s_max = 8.0
"""5 on a quiet machine: 3 to drain, what closing a client whose broker is away may take, and the processes' own ends."""

OpenStream = Callable[..., Stream]


@pytest.fixture
def open_stream(tmp_path: Path) -> Iterator[OpenStream]:
    """Makes a stream with the time-outs of the settings' defaults."""
    write_stump(tmp_path / "model", input_schema=orjson.dumps(event_schema))
    opened: list[Stream] = []

    def make(servers: str, *, seconds: float, **kafka: Any) -> Stream:
        stream = Stream(
            tmp_path, servers, f"outage-{time.time_ns()}", tmp_path / "model", explained=False,
            kafka={"client": as_by_default, "drain_budget_s": 3.0, **kafka},
        )  # fmt: skip
        opened.append(stream)
        stream.feed([event(number) for number in range(round(per_s * seconds))], per_s=per_s)
        return stream

    yield make
    for stream in opened:
        stream.close()


def committed(stream: Stream) -> int:
    try:
        return stream.committed()
    except PenstockError:
        return -1


def until(met: Callable[[], bool], timeout_s: float) -> float:
    """Seconds it took."""
    began_s = time.monotonic()
    while not met():
        assert time.monotonic() - began_s < timeout_s
        time.sleep(0.05)
    return time.monotonic() - began_s


def ready(stream: Stream) -> int:
    port = re.findall(r"metrics and health on http://127\.0\.0\.1:(\d+)", stream.said())[-1]
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.parametrize("delivery", ["exactly_once", "at_least_once"])
def test_after_an_outage_the_worker_is_back_at_once_and_says_what_happened(
    open_stream: OpenStream, start_kafka: Callable[..., EmbeddedKafka], delivery: str
) -> None:
    broker = start_kafka()
    stream = open_stream(broker.bootstrap_servers, seconds=outage_s + 25, delivery=delivery)
    stream.start("a")
    until(lambda: committed(stream) > per_s, 60)
    assert ready(stream) == 200
    broker.kill_node(1)
    time.sleep(outage_s)
    assert ready(stream) == 503
    broker.start_node(1)
    up_s = time.monotonic()
    while (before := committed(stream)) < 0:
        time.sleep(0.05)
    served_s = time.monotonic()  # by the group's coordinator, which has read its log
    until(lambda: committed(stream) > before, 30)
    took_s = time.monotonic() - served_s
    print(
        f"{delivery}: {took_s:.1f} s after the group was served, {took_s + served_s - up_s:.1f} s after the node was up"
    )
    # Not the bar, which is 3 on a quiet machine: waiting for a session would be 10.
    assert took_s < 8.0, stream.said()
    stream.wait(1.0, 120)
    faults = stream.books().check(duplicates=delivery == "at_least_once", explained=False)
    assert not faults
    said = stream.said()
    assert len(re.findall("has not answered since", said)) == 1
    assert len(re.findall("answers again after", said)) == 1


@pytest.mark.parametrize("after_s", [1.0, 8.0])
def test_a_stop_while_the_cluster_is_away_takes_five_seconds(
    open_stream: OpenStream, start_kafka: Callable[..., EmbeddedKafka], after_s: float
) -> None:
    """Before the worker knows that it is away, and after."""
    broker = start_kafka()
    stream = open_stream(broker.bootstrap_servers, seconds=10)
    worker = stream.start("a")
    until(lambda: committed(stream) > per_s, 60)
    broker.kill_node(1)
    time.sleep(after_s)
    worker.send_signal(signal.SIGTERM)
    began_s = time.monotonic()
    assert worker.wait(30) == 0, stream.said()
    took_s = time.monotonic() - began_s
    print(f"stopped in {took_s:.1f} s")
    broker.start_node(1)  # for whoever still writes
    assert took_s < stopped_s_max, stream.said()


def test_a_stop_while_transactions_are_waited_for_takes_five_seconds(
    open_stream: OpenStream, kafka: str
) -> None:
    """The cluster went away between the worker's first question and its producers: nothing is in hand yet, so nothing is waited for."""
    with Proxy(kafka) as proxy:
        for _ in range(8):
            proxy.add(Rule(api="InitProducerId", action=Hold(where="request", seconds_max=60.0)))
        stream = open_stream(kafka, seconds=0.0, bootstrap_servers=proxy.bootstrap_servers)
        worker = stream.start("a")
        until(lambda: "is verified and warm" in stream.said(), 60)
        time.sleep(1.0)
        worker.send_signal(signal.SIGTERM)
        began_s = time.monotonic()
        assert worker.wait(30) == 0, stream.said()
        assert time.monotonic() - began_s < stopped_s_max, stream.said()
        assert "it is killed" not in stream.said()


def test_a_stop_in_the_first_second_is_no_failure(open_stream: OpenStream, kafka: str) -> None:
    stream = open_stream(kafka, seconds=0.0)
    for wait_s in (0.0, 0.3, 0.7):
        worker = stream.start("a")
        time.sleep(wait_s)
        worker.send_signal(signal.SIGTERM)
        began_s = time.monotonic()
        assert worker.wait(30) == 0, stream.said()
        assert time.monotonic() - began_s < stopped_s_max


def test_the_partitions_of_a_killed_worker_go_on_after_a_session(open_stream: OpenStream, kafka: str) -> None:
    stream = open_stream(kafka, seconds=45)
    first = stream.start("a")
    until(lambda: committed(stream) > per_s, 60)
    stream.start("b")
    until(lambda: stream.said().count("assigned partitions") >= 2, 60)
    killed_s = time.monotonic()
    for pid in (first.pid, *children(first)):
        kill(pid)
    # What it committed itself in its last moment is not the survivor's: only what was written since counts.
    ends = stream.ends_by_partition()
    until(lambda: all(o > ends[p] for p, o in stream.committed_by_partition().items()), 60)
    took_s = time.monotonic() - killed_s
    print(f"every partition moved {took_s:.1f} s after the kill")
    assert took_s > 2.0, "nobody is taken for dead so soon: the test has seen something else"
    assert took_s < 10.0 + 3.0 + 3.0, (
        stream.said()
    )  # the session and three seconds; a slow machine gets three more
    stream.wait(1.0, 120)
    stream.await_readers(20)
    assert not stream.books().check(explained=False)


def test_a_cluster_that_is_away_at_the_start_is_waited_for_by_one_process(
    open_stream: OpenStream, start_kafka: Callable[..., EmbeddedKafka]
) -> None:
    """Nothing is loaded twice, the cause is named, and a stop meanwhile is no failure."""
    broker = start_kafka()
    stream = open_stream(broker.bootstrap_servers, seconds=1)
    stream.wait_fed()
    broker.kill_node(1)
    worker = stream.start("a")
    until(lambda: "waiting for it" in stream.said(), 60)
    (first,) = children(worker)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(10) == 0, stream.said()
    worker = stream.start("b")
    (first,) = children(worker)
    time.sleep(15)  # longer than any call to the cluster waits
    assert children(worker) == [first], stream.said()
    said = (stream.folder / f"{stream.name}-b.log").read_text()
    assert said.count("waiting for it") == 1
    assert "Connection refused" in said
    assert "no answer in time" not in said
    assert "asked to be started again" not in said
    assert ready(stream) == 503
    broker.start_node(1)
    stream.wait(1.0, 60)
    assert children(worker) == [first]
    assert re.search(r"Kafka at \S+ answers after \d+ s", stream.said())
