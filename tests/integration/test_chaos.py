"""Workers are killed, stopped, joined by others, and the broker goes away: every input comes out once, in order."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.connectors.embedded.kafka import EmbeddedKafka
from tests.bundles import write_stump
from tests.chaos.run import run_chaos
from tests.stream import Stream, children, event, event_schema, kill

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(600)]
patience_s = 240.0
drain_s_max = 10.0  # 5 on a quiet machine
readers_patience_s = 20.0  # less than the time-out that would end a transaction nobody cares for

OpenStream = Callable[..., Stream]


@pytest.fixture
def open_stream(kafka: str, tmp_path: Path) -> Iterator[OpenStream]:
    """Makes a stream on the shared broker, or on another one; its processes end with the test."""
    import orjson

    write_stump(tmp_path / "model", input_schema=orjson.dumps(event_schema))
    opened: list[Stream] = []

    def make(servers: str = kafka, **changes: Any) -> Stream:
        name = f"chaos-{time.time_ns()}"
        opened.append(Stream(tmp_path, servers, name, tmp_path / "model", **changes))
        return opened[-1]

    yield make
    for stream in opened:
        stream.close()


def settle(stream: Stream, *, duplicates: bool = False) -> None:
    """Let the stream come to its end; its books must balance."""
    stream.wait(1.0, patience_s)
    stream.await_readers(readers_patience_s)
    books = stream.books()
    faults = books.check(duplicates=duplicates)
    assert not faults, f"{len(faults)} faults: {faults[:10]}\n{stream.said()}"
    assert len(books.inputs) == stream.expected


def workers_of(supervisor: "subprocess.Popen[bytes]") -> list[int]:
    """At least one; those killed before may be on their way back."""
    end_s = time.monotonic() + patience_s
    while not (workers := children(supervisor)):
        assert time.monotonic() < end_s
        time.sleep(0.02)
    return workers


@pytest.mark.parametrize(("nodes", "protocol", "seed"), [(1, "classic", 11), (3, "consumer", 12)])
def test_faults_of_all_kinds(
    tmp_path: Path, start_kafka: Callable[..., EmbeddedKafka], nodes: int, protocol: str, seed: int
) -> None:
    """Workers, brokers, the wire, the log and the permissions are hurt, one after the other and together."""
    said: list[str] = []
    found = run_chaos(
        tmp_path, start=start_kafka, nodes=nodes, protocol=protocol, records=100_000, faults=20, seed=seed, tell=said.append
    )  # fmt: skip
    print(*said, found.audit, f"{found.took_s:.0f} s", sep="\n")
    assert not found.audit.faults, "\n".join([*said, *found.audit.faults])
    assert sum(found.faults.values()) == 20
    assert found.audit.predictions + found.audit.set_aside >= 100_000
    assert all(took_s < drain_s_max for took_s in found.drains_s), found.drains_s


def test_a_supervisor_is_killed_and_another_takes_over(open_stream: OpenStream) -> None:
    stream = open_stream(objective={"batch_rows_max": 512})
    stream.feed([event(number) for number in range(60_000)], per_s=8_000)
    first, second = stream.start("a"), stream.start("b")
    stream.wait(0.2, patience_s)
    for pid in (first.pid, *children(first)):
        kill(pid)
    first.wait()
    stream.wait(0.5, patience_s)
    stream.start("a")
    settle(stream)
    assert second.poll() is None


def test_workers_stopped_in_the_middle_lose_and_repeat_nothing(open_stream: OpenStream) -> None:
    stream = open_stream(objective={"batch_rows_max": 256})
    stream.feed([event(number) for number in range(40_000)], per_s=8_000)
    for share in (0.1, 0.4, 0.7):
        worker = stream.start("a")
        stream.wait(share, patience_s)
        worker.send_signal(signal.SIGTERM)
        began_s = time.monotonic()
        assert worker.wait(30) == 0, stream.said()
        assert time.monotonic() - began_s < 20.0
    stream.start("a")
    settle(stream)


@pytest.mark.parametrize("end", ["stop_node", "kill_node"])
def test_the_broker_is_restarted(
    open_stream: OpenStream, start_kafka: Callable[..., EmbeddedKafka], end: str
) -> None:
    broker = start_kafka()
    stream = open_stream(broker.bootstrap_servers, objective={"batch_rows_max": 256})
    stream.feed([event(number) for number in range(40_000)], per_s=8_000)
    stream.start("a")
    stream.wait(0.2, patience_s)
    getattr(broker, end)(1)
    time.sleep(1.0)
    broker.start_node(1)
    settle(stream)


def test_workers_join_and_leave(open_stream: OpenStream) -> None:
    stream = open_stream(objective={"batch_rows_max": 256})
    stream.feed([event(number) for number in range(60_000)], per_s=8_000)
    workers: dict[str, subprocess.Popen[bytes]] = {"a": stream.start("a")}
    for share, comes, goes in [(0.1, "b", None), (0.3, "c", "a"), (0.5, "a", "b"), (0.7, None, "c")]:
        stream.wait(share, patience_s)
        if comes:
            workers[comes] = stream.start(comes)
        if goes:
            workers[goes].terminate()
            assert workers[goes].wait(30) == 0, stream.said()
    settle(stream)


def test_at_least_once_loses_nothing_when_workers_are_killed(open_stream: OpenStream) -> None:
    stream = open_stream(workers=2, kafka={"delivery": "at_least_once"}, objective={"batch_rows_max": 256})
    stream.feed([event(number) for number in range(40_000)], per_s=8_000)
    supervisor = stream.start("a")
    for share in (0.2, 0.5):
        stream.wait(share, patience_s)
        for pid in children(supervisor):
            kill(pid)
    settle(stream, duplicates=True)
