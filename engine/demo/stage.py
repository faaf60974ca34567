"""The demo's stage: a broker with its topics, and the worker on it, on Kafka or in memory."""

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx
import yaml
from prometheus_client import generate_latest

from penstock.engine.clock import Clock
from penstock.engine.demo.committed import Committed
from penstock.engine.settings.model import Settings, parse_settings
from penstock.schemas.errors import ConfigError, NotReadyError, PenstockError
from penstock.schemas.records import Records

partitions = 2
topics = ("departures", "departures.predictions", "departures.explanations", "departures.dead-letters")
stop_patience_s = 20.0
ready_patience_s = 60.0


class Writer(Protocol):
    """Produces to the input topic."""

    def write(self, values: Sequence[bytes | None], *, keys: Sequence[bytes | None] | None = None) -> None:
        """Queue records by key, waiting for room."""

    def flush(self, timeout_s: float) -> None:
        """Wait until all are acknowledged."""


class Reader(Protocol):
    """Follows an output topic from its beginning, committed messages only."""

    def read(self, records_max: int, timeout_s: float) -> Records | None:
        """The next records."""


class Offsets(Protocol):
    """The input topic's ends."""

    def read(self, topic: str) -> Sequence[Any]:
        """Every partition."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """What the show needs of a broker and its worker."""

    broker: str
    writer: Writer
    reader: Callable[[str], Reader]
    offsets: Offsets
    worker_failed: Callable[[], str | None]
    committed: Callable[[], Committed | None]
    """How long records took to the commit of their results, so far; None where the worker does not answer."""


def settings_tree(bootstrap_servers: str, bundle: Path) -> dict[str, Any]:
    """The demo's penstock.yaml."""
    return {
        "kafka": {
            "bootstrap_servers": bootstrap_servers,
            "group": "flight-delay",
            "delivery": "exactly_once",
        },
        "input": {"topic": topics[0]},
        "output": {"predictions": topics[1], "explanations": topics[2], "dead_letters": topics[3]},
        "model": {"path": str(bundle), "runtime": "native"},
        "explain": {"policy": "every", "output": "late"},
    }


@contextmanager
def kafka_stage(bundle: Path, folder: Path, clock: Clock, say: Callable[[str], None]) -> Iterator[Stage]:
    """A real Kafka as a child process, and `penstock run` as another."""
    from penstock.connectors.embedded.kafka import EmbeddedKafka
    from penstock.connectors.kafka.admin.admin import KafkaAdmin
    from penstock.connectors.kafka.admin.group_offsets import KafkaOffsets
    from penstock.connectors.kafka.client import ClientConfig
    from penstock.connectors.kafka.simple import KafkaReader, KafkaWriter

    with ExitStack() as held:
        try:
            broker = held.enter_context(EmbeddedKafka(announce=say))
        except ConfigError as error:
            raise ConfigError(f"{error}; or run the demo without it: --broker memory") from error
        config = ClientConfig(bootstrap_servers=broker.bootstrap_servers)
        KafkaAdmin(config).create_topics(dict.fromkeys(topics, partitions), exist_ok=True)
        file = folder / "penstock.yaml"
        tree = settings_tree(broker.bootstrap_servers, bundle) | {"http": {"port": _free_port()}}
        file.write_text(yaml.safe_dump(tree, sort_keys=False))
        log = held.enter_context((folder / "worker.log").open("wb"))
        worker = subprocess.Popen(
            [sys.executable, "-P", "-m", "penstock", "run", str(file)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        held.callback(_end, worker)
        # one client: each makes a TLS context of its own, 0.02 s of CPU beside a worker that starts
        http = held.enter_context(httpx.Client(timeout=2.0, trust_env=False))
        _await_ready(http, tree["http"]["port"], worker, clock)
        writer = KafkaWriter(config, topics[0])
        held.callback(writer.close)
        offsets = KafkaOffsets(config, "flight-delay")
        held.callback(offsets.close)

        def reader(topic: str) -> Reader:
            made = KafkaReader(config, topic, clock)
            held.callback(made.close)
            return made

        def worker_failed() -> str | None:
            if worker.poll() is None:
                return None
            lines = (folder / "worker.log").read_text(errors="replace").splitlines()
            return lines[-1] if lines else f"exit code {worker.returncode}"

        def committed() -> Committed | None:
            with contextlib.suppress(httpx.HTTPError):
                port = tree["http"]["port"]
                return Committed.of(http.get(f"http://127.0.0.1:{port}/metrics").text)
            return None

        yield Stage(
            broker=f"Apache Kafka at {broker.bootstrap_servers}",
            writer=writer,
            reader=reader,
            offsets=offsets,
            worker_failed=worker_failed,
            committed=committed,
        )


@contextmanager
def memory_stage(bundle: Path, folder: Path, clock: Clock) -> Iterator[Stage]:
    """Penstock's own broker in this process, and the worker on a thread of it."""
    from penstock.connectors.memory.broker import MemoryBroker
    from penstock.engine.ports import AssignmentListener, Source
    from penstock.engine.telemetry.status import StatusBoard
    from penstock.engine.worker.assembly import Link, event_log, make_worker, new_metrics
    from penstock.engine.worker.startup.startup import Startup

    broker = MemoryBroker(clock)
    for topic in topics:
        broker.create_topic(topic, partitions=partitions)
    settings: Settings = parse_settings(settings_tree("memory", bundle), origin="demo", folder=folder)
    group = settings.kafka.group

    def open_source(listener: AssignmentListener) -> Source:
        return broker.source(group=group, topic=topics[0], listener=listener)

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
        name="demo",
        cluster=broker.cluster_id,
        open_sink=lambda: broker.exactly_once_sink(
            group=group, topic=topics[0], transactional_ids=("a", "b")
        ),
    )
    worker = make_worker(
        startup,
        link,
        run_folder=folder,
        board=StatusBoard(worker="demo", group=group, topic=topics[0], clock=clock, rows_max=4096),
        events=event_log(metrics, clock),
    )
    failures: list[str] = []

    def work() -> None:
        try:
            worker.run()
        except PenstockError as error:
            failures.append(str(error))

    thread = threading.Thread(target=work, name="worker", daemon=True)
    thread.start()
    try:
        yield Stage(
            broker="the broker in memory",
            writer=broker.writer(topics[0]),
            reader=broker.reader,
            offsets=broker.offsets(group),
            worker_failed=lambda: failures[0] if failures else None,
            committed=lambda: Committed.of(generate_latest(metrics.registry).decode()),
        )
    finally:
        worker.pipeline.request_stop()
        thread.join(stop_patience_s)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _await_ready(http: httpx.Client, port: int, worker: subprocess.Popen[bytes], clock: Clock) -> None:
    """Wait until the worker is a member of the group; one that ended is noticed by the show."""
    deadline_s = clock.monotonic_s() + ready_patience_s
    while worker.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            if http.get(f"http://127.0.0.1:{port}/ready").status_code == 200:
                return
        if clock.monotonic_s() > deadline_s:
            raise NotReadyError(f"the worker was not ready within {ready_patience_s:g} s")
        clock.sleep(0.05)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(stop_patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
