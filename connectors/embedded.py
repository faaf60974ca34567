"""A real Apache Kafka as a child process: KRaft, one node or several, free ports, nothing left behind."""

import base64
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from uuid import uuid4

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from connectors.kafka_jars import find_java, kafka_jars
from schemas.errors import ConfigError, NotReadyError

start_tries = 3
ready_timeout_s = 60.0
_internal_partitions = 4

_log4j = """\
status = error
appenders = console
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d %p %c{1} %m%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
"""


@dataclass(slots=True)
class _Node:
    number: int
    folder: Path
    client_port: int
    controller_port: int
    watcher: subprocess.Popen[bytes] | None = None


class EmbeddedKafka:
    """A Kafka cluster of this process's own; a context manager.

    Promises: it ends with this process, also when that is killed; a temporary data folder is removed then too; it takes no
    port that is in use. Nodes can be stopped, killed and started again on their data, for tests of trouble.
    """

    def __init__(
        self,
        *,
        nodes: int = 1,
        data: Path | None = None,
        port: int | None = None,
        tuned: bool = False,
        heap_mb: int = 512,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`data`: kept between runs (one node); a temporary folder when None. `tuned`: the full compiler, for benchmarks.

        Raises ConfigError: Java or Maven is missing, the port is taken, data of several nodes was asked to be kept.
        """
        if nodes < 1:
            raise ConfigError("a cluster has at least one node")
        if nodes > 1 and (port is not None or data is not None):
            raise ConfigError(
                "--port and --data are for one node; several take free ports and temporary data"
            )
        self._count = nodes
        self._keep = data
        self._port = port
        self._tuned = tuned
        self._heap_mb = heap_mb
        self._say = say
        self._nodes: list[_Node] = []
        self._folder = Path()
        self._trash = ""

    def __enter__(self) -> "EmbeddedKafka":
        java, jars = find_java(), kafka_jars(self._say)
        self._command = [java, *self._flags(), "-cp", f"{jars}/*"]
        for attempt in range(start_tries):
            try:
                self._start_all()
                return self
            except _PortTakenError:
                self.close()  # somebody was quicker between our look and the broker's bind
                if self._port is not None or attempt + 1 == start_tries:
                    raise
            except BaseException:
                self.close()
                raise
        raise AssertionError("unreachable")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def bootstrap_servers(self) -> str:
        """What a client is given."""
        return ",".join(f"127.0.0.1:{node.client_port}" for node in self._nodes)

    def stop_node(self, number: int) -> None:
        """Stop one node in order; nodes count from 1."""
        self._end(self._node(number), b"s")

    def kill_node(self, number: int) -> None:
        """End one node as kill -9 does."""
        self._end(self._node(number), b"k")

    def start_node(self, number: int) -> None:
        """Start a node again, on its old data and port, and wait until it answers."""
        node = self._node(number)
        self._launch(node)
        self._wait_until_ready([node])

    def close(self) -> None:
        """Stop all nodes and remove a temporary data folder. Idempotent."""
        for node in self._nodes:
            if node.watcher is not None and node.watcher.stdin is not None:
                if self._trash:
                    node.watcher.stdin.write(
                        b"k"
                    )  # its data goes as well, so there is nothing to stop in order for
                node.watcher.stdin.close()  # all at once: they end side by side
        for node in self._nodes:
            if node.watcher is not None:
                node.watcher.wait()
                node.watcher = None
        self._nodes = []
        if self._trash:
            shutil.rmtree(self._trash, ignore_errors=True)
            self._trash = ""

    def _flags(self) -> list[str]:
        flags = [f"-Xmx{self._heap_mb}m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]
        if self._tuned:
            flags = [f"-Xmx{max(self._heap_mb, 1024)}m", "-XX:+UseG1GC"]
        return [*flags, "-Djava.awt.headless=true"]

    def _start_all(self) -> None:
        if self._keep is None:
            self._folder = Path(tempfile.mkdtemp(prefix="penstock-kafka-"))
            self._trash = str(self._folder)
        else:
            self._folder = self._keep.absolute()
            self._folder.mkdir(parents=True, exist_ok=True)
        ports = _free_ports(2 * self._count, first=self._port)
        self._nodes = [
            _Node(number=n + 1, folder=self._folder / f"node-{n + 1}", client_port=ports[n], controller_port=ports[self._count + n])
            for n in range(self._count)
        ]  # fmt: skip
        self._format()
        for node in self._nodes:
            self._launch(node)
        self._wait_until_ready(self._nodes)

    def _format(self) -> None:
        """Give each node its configuration and, when its data is new, the cluster's identity."""
        controllers = ",".join(
            f"{n.number}@127.0.0.1:{n.controller_port}:{_directory_id()}" for n in self._nodes
        )
        cluster = _directory_id()
        voters = ["--standalone"] if self._count == 1 else ["--initial-controllers", controllers]
        running = []
        for node in self._nodes:
            node.folder.mkdir(exist_ok=True)
            (node.folder / "log4j2.properties").write_text(_log4j)
            config = node.folder / "server.properties"
            config.write_text(self._config(node))
            if (node.folder / "data" / "meta.properties").exists():
                continue
            command = [
                *self._command,
                "kafka.tools.StorageTool",
                "format",
                "-t",
                cluster,
                "-c",
                str(config),
                *voters,
            ]
            running.append(
                subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            )
        for process in running:
            said, _ = process.communicate(timeout=ready_timeout_s)
            if process.returncode != 0:
                raise ConfigError(f"Kafka's storage could not be formatted: {_useful(said.splitlines())}")

    def _config(self, node: _Node) -> str:
        voters = ",".join(f"127.0.0.1:{n.controller_port}" for n in self._nodes)
        copies = min(self._count, 3)
        settings = {
            "process.roles": "broker,controller",
            "node.id": node.number,
            "controller.quorum.bootstrap.servers": voters,
            "listeners": f"PLAINTEXT://127.0.0.1:{node.client_port},CONTROLLER://127.0.0.1:{node.controller_port}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{node.client_port},CONTROLLER://127.0.0.1:{node.controller_port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": node.folder / "data",
            "default.replication.factor": copies,
            "min.insync.replicas": max(copies - 1, 1),
            "offsets.topic.replication.factor": copies,
            "offsets.topic.num.partitions": _internal_partitions,
            "transaction.state.log.replication.factor": copies,
            "transaction.state.log.min.isr": max(copies - 1, 1),
            "transaction.state.log.num.partitions": _internal_partitions,
            "share.coordinator.state.topic.replication.factor": copies,
            "share.coordinator.state.topic.min.isr": max(copies - 1, 1),
            "share.coordinator.state.topic.num.partitions": _internal_partitions,
            "group.initial.rebalance.delay.ms": 0,
            "auto.create.topics.enable": "false",
            "broker.session.timeout.ms": 3000,
            "controlled.shutdown.enable": "true" if self._count > 1 else "false",
        }
        return "".join(f"{name}={value}\n" for name, value in settings.items())

    def _launch(self, node: _Node) -> None:
        log4j = f"-Dlog4j2.configurationFile={node.folder / 'log4j2.properties'}"
        java, *rest = self._command
        broker = [java, log4j, *rest, "kafka.Kafka", str(node.folder / "server.properties")]
        watcher = [
            sys.executable,
            "-m",
            "connectors.embedded_watch",
            str(node.folder / "broker.log"),
            self._trash,
            "--",
        ]
        node.watcher = subprocess.Popen([*watcher, *broker], stdin=subprocess.PIPE)

    def _wait_until_ready(self, nodes: Sequence[_Node]) -> None:
        deadline_s = time.monotonic() + ready_timeout_s
        for node in nodes:
            client = AdminClient(
                {
                    "bootstrap.servers": f"127.0.0.1:{node.client_port}",
                    "reconnect.backoff.ms": 20,
                    "reconnect.backoff.max.ms": 100,
                    "log_level": 0,
                }
            )
            while not self._answers(client):
                self._fail_if_gone(node)
                if time.monotonic() > deadline_s:
                    raise NotReadyError(f"Kafka was not ready within {ready_timeout_s:.0f} s")

    def _answers(self, client: AdminClient) -> bool:
        try:
            return len(client.list_topics(timeout=0.5).brokers) >= self._running()
        except KafkaException:
            return False

    def _running(self) -> int:
        return sum(node.watcher is not None and node.watcher.poll() is None for node in self._nodes)

    def _fail_if_gone(self, node: _Node) -> None:
        if node.watcher is None or node.watcher.poll() is None:
            return
        log = (node.folder / "broker.log").read_text(errors="replace").splitlines()
        if any("Address already in use" in line for line in log):
            raise _PortTakenError(f"port {node.client_port} was taken while Kafka started")
        raise ConfigError(f"Kafka did not start: {_useful(log)}")

    def _node(self, number: int) -> _Node:
        return self._nodes[number - 1]

    @staticmethod
    def _end(node: _Node, word: bytes) -> None:
        if node.watcher is None or node.watcher.stdin is None:
            return
        node.watcher.stdin.write(word)
        node.watcher.stdin.close()
        node.watcher.wait()
        node.watcher = None


class _PortTakenError(ConfigError):
    pass


def _free_ports(count: int, *, first: int | None) -> list[int]:
    """Ports nobody listens on; the first is the one asked for. All are held until all are chosen."""
    with ExitStack() as held:
        ports = []
        for place in range(count):
            wanted = first if place == 0 and first is not None else 0
            listener = held.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", wanted))
            except OSError as error:
                raise _PortTakenError(f"port {wanted} is taken; choose another with --port") from error
            ports.append(listener.getsockname()[1])
        return ports


def _directory_id() -> str:
    """A Kafka Uuid: 16 random bytes in URL-safe base64 without padding, not beginning with a dash."""
    while True:
        text = base64.urlsafe_b64encode(uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text


def _useful(log: Sequence[str]) -> str:
    """The line of a log that says most."""
    marked = [line for line in log if "ERROR" in line or "Exception" in line or "FATAL" in line]
    return (marked or list(log) or ["it said nothing"])[-1 if not marked else 0].strip()[:300]


if __name__ == "__main__":
    find_java()
    kafka_jars(lambda text: print(text, flush=True))  # noqa: T201
