"""Where a bench takes place: one broker, one model, and contestants that run one at a time."""

import json
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock.connectors.embedded.kafka import EmbeddedKafka
from penstock.connectors.embedded.process import KeptProcesses
from penstock.connectors.kafka.admin.admin import KafkaAdmin
from penstock.connectors.kafka.client import ClientConfig
from penstock.connectors.kafka.simple import KafkaWriter
from penstock.engine.clock import Clock
from penstock.engine.console.terminal import Terminal
from penstock.schemas.errors import NotReadyError
from penstock_bench.peers.contestants import Contestant, Entry
from penstock_bench.peers.records import fill, partitions, payloads, some_rows
from penstock_bench.peers.topics import StableEnds, probe_key
from penstock_bench.peers.workload import Workload, make_workload

probe_s: Final = 0.25
start_patience_s: Final = 90.0
stop_patience_s: Final = 30.0
_json_header: Final = (("mlserver-model", b"bench"),)


@dataclass(frozen=True, kw_only=True, slots=True)
class Running:
    """A contestant's process."""

    entry: Entry
    name: str
    pid: int
    began_s: float


class BenchEnvironment:
    """Made by `open_environment`."""

    def __init__(
        self, *, folder: Path, broker: EmbeddedKafka, workload: Workload, clock: Clock, terminal: Terminal
    ) -> None:
        self.clock = clock
        self.terminal = terminal
        self.config = ClientConfig(bootstrap_servers=broker.bootstrap_servers)
        self.ends = StableEnds(self.config)
        self.workload = workload
        self.folder = folder
        self._broker = broker
        self._admin = KafkaAdmin(self.config, timeout_s=30.0)
        self._filled: set[str] = set()
        self._runs = 0
        self._processes = KeptProcesses(root=folder / "kept", temporary=True, files={})

    @property
    def broker_pids(self) -> list[int]:
        """Kafka's JVM."""
        pid = self._broker.pid(1)
        return [] if pid is None else [pid]

    def input_topic(self, records: int, *, seed: int) -> str:
        """A topic that holds so many records, filled the first time."""
        topic = f"events-{records}-{seed}"
        if topic not in self._filled:
            self._admin.create_topics({topic: partitions})
            with self.terminal.progress(label=f"writing {records:,} records", total=records) as advance:
                for written in fill(self.config, topic, records, seed=seed):
                    advance(written)
            self._filled.add(topic)
        return topic

    def empty_topic(self, stem: str) -> str:
        """A new topic of a name that starts so."""
        self._runs += 1
        topic = f"{stem}-{self._runs}"
        self._admin.create_topics({topic: partitions})
        return topic

    @contextmanager
    def running(self, contestant: Contestant, input_topic: str) -> Iterator[Running]:
        """The contestant, in a new group with topics of its own; stopped, and its topics gone, in the end."""
        self._runs += 1
        name = f"{contestant.slug}-{self._runs}"
        folder = self.folder / name
        folder.mkdir()
        entry = Entry(
            servers=self.config.bootstrap_servers,
            group=name,
            input=input_topic,
            output=f"{name}-out",
            explanations=f"{name}-why",
            dead_letters=f"{name}-dead",
            folder=folder,
            workload=self.workload,
        )
        outputs = [entry.output, entry.explanations, entry.dead_letters]
        self._admin.create_topics(dict.fromkeys(outputs, partitions))
        with ExitStack() as held:
            held.callback(self._admin.delete_topics, outputs)
            command = contestant.start(entry, self.terminal.say)
            began_s = self.clock.monotonic_s()
            self._processes.start(name, command, output=folder / "log")
            held.callback(self._stop, name)
            running = Running(entry=entry, name=name, pid=self._processes.pid(name) or 0, began_s=began_s)
            self.require_alive(running)
            yield running

    @contextmanager
    def beside(self, name: str, command: list[str]) -> Iterator[int]:
        """Another process for a while, stopped in the end; its id."""
        self._processes.start(name, command, output=self.folder / f"{name}.log")
        try:
            yield self._processes.pid(name) or 0
        finally:
            self._stop(name)

    def require_alive(self, running: Running) -> None:
        """Raises NotReadyError with what the contestant said last, when it has ended."""
        code = self._processes.wait(running.name, 0.0)
        if code is not None:
            log = (running.entry.folder / "log").read_text(encoding="utf-8", errors="replace")
            lines = [line.strip() for line in log.splitlines() if line.strip()]
            faults = [line for line in lines if "error" in line.lower() or "Exception" in line]
            said = (faults or lines or ["it said nothing"])[-1]
            raise NotReadyError(f"it ended with exit code {code}: {said[:300]}")

    def send_probes(self, contestant: Contestant, running: Running) -> int:
        """Send records that count for nobody until one of their outputs is there; how many outputs there then are."""
        writer = KafkaWriter(self.config, running.entry.input)
        probes = write_json if contestant.asks_in_json else write_avro
        deadline_s = self.clock.monotonic_s() + start_patience_s
        try:
            while not self.ends.visible(running.entry.output):
                self.require_alive(running)
                if self.clock.monotonic_s() > deadline_s:
                    raise NotReadyError(f"it gave no output in {start_patience_s:g} s")
                probes(writer, some_rows(partitions, seed=1), [probe_key] * partitions)
                writer.flush(10.0)
                self.clock.sleep(probe_s)
            return self._settled(running)
        finally:
            writer.close()

    def warm_up(self, running: Running, records: int, *, seed: int) -> None:
        """Send so many records that count for nobody, and wait for their outputs."""
        wanted = self.ends.visible(running.entry.output) + records
        writer = KafkaWriter(self.config, running.entry.input)
        write_avro(writer, some_rows(records, seed=seed), [probe_key] * records)
        writer.flush(30.0)
        writer.close()
        deadline_s = self.clock.monotonic_s() + start_patience_s
        while self.ends.visible(running.entry.output) < wanted:
            self.require_alive(running)
            if self.clock.monotonic_s() > deadline_s:
                raise NotReadyError(f"it did not get through {records} records in {start_patience_s:g} s")
            self.clock.sleep(0.1)
        self._settled(running)

    def _settled(self, running: Running) -> int:
        """How much is visible when nothing more has come for a second."""
        before, now = -1, self.ends.visible(running.entry.output)
        while before != now:
            self.clock.sleep(1.0)
            before, now = now, self.ends.visible(running.entry.output)
        return now

    def close(self) -> None:
        """End what may still run."""
        self._processes.close()

    def _stop(self, name: str) -> None:
        self._processes.signal(name, signal.SIGTERM)
        if self._processes.wait(name, stop_patience_s) is None:
            self._processes.signal(name, signal.SIGKILL)
            self._processes.wait(name, stop_patience_s)


def write_avro(writer: KafkaWriter, rows: NDArray[np.float64], keys: list[bytes]) -> None:
    """Rows (n, 30) as the bench's records."""
    writer.write(payloads(rows), keys=keys)


def write_json(writer: KafkaWriter, rows: NDArray[np.float64], keys: list[bytes]) -> None:
    """The same rows as requests of the Open Inference Protocol, one each."""
    values: list[bytes | None] = [
        json.dumps({
            "inputs": [{"name": "rows", "datatype": "FP64", "shape": [1, len(row)], "data": row.tolist()}]
        }).encode()
        for row in rows
    ]  # fmt: skip
    writer.write(values, keys=keys, headers=_json_header)


@contextmanager
def open_environment(terminal: Terminal, clock: Clock) -> Iterator[BenchEnvironment]:
    """A model, a Kafka with the full JVM, and a environment on them; all of it is gone in the end."""
    with ExitStack() as held:
        folder = Path(tempfile.mkdtemp(prefix="penstock-bench-"))
        held.callback(shutil.rmtree, folder, ignore_errors=True)
        terminal.say("training and packaging a model, starting Kafka ...")
        workload = make_workload(folder)
        broker = held.enter_context(EmbeddedKafka(jvm="full"))
        environment = BenchEnvironment(
            folder=folder, broker=broker, workload=workload, clock=clock, terminal=terminal
        )
        held.callback(environment.close)
        yield environment
