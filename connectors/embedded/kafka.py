"""A real Apache Kafka on this machine, for the demo, the tests and the benchmarks.

`python -m penstock.connectors.embedded.kafka --fetch` gets its jars and does nothing more.
"""

import argparse
import contextlib
import logging
import os
import secrets
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from penstock.connectors.embedded.cluster import (
    ClusterPlan,
    Jvm,
    Node,
    few_threads,
    format_command,
    format_words,
    host,
    node_properties,
    plan_cluster,
    require_free,
    serve_command,
    words_file,
    words_text,
)
from penstock.connectors.embedded.jars import find_java, kafka_jars
from penstock.connectors.embedded.process import KeptProcesses
from penstock.connectors.embedded.secured import SecureFolder
from penstock.connectors.kafka.admin.admin import KafkaAdmin
from penstock.connectors.kafka.client import ClientConfig
from penstock.schemas.errors import (
    ConfigError,
    InvariantError,
    NotReadyError,
    PenstockError,
    UnavailableError,
)

logger = logging.getLogger("penstock.embedded")

start_timeout_s: Final = 120.0
stop_timeout_s: Final = 30.0
attempts_max: Final = 4
poll_s: Final = 0.02


class EmbeddedKafka:
    """Apache Kafka 4 nodes (KRaft, broker and controller in one), each in a JVM of its own, on 127.0.0.1.

    They end with this process however it ends, and without `data` nothing of them stays on the disk. With `data` the
    cluster is there again, on the same ports, when it is opened next. `users` (name to password) adds a second listener
    that asks for them (SASL_PLAINTEXT, PLAIN) and where nobody may do anything that an ACL does not allow. With `secure`, a
    folder for certificates and passwords, that listener is SASL_SSL with PLAIN, SCRAM and OAUTHBEARER, and a third one (SSL)
    asks for a client's certificate.
    """

    def __init__(
        self,
        *,
        nodes: int = 1,
        data: Path | None = None,
        port: int | None = None,
        jvm: Jvm = "quick",
        settings: Mapping[str, str] | None = None,
        users: Mapping[str, str] | None = None,
        secure: Path | None = None,
        announce: Callable[[str], None] = logger.info,
    ) -> None:
        """`settings` are Kafka's own, over ours; `announce` is called when jars must be downloaded. Nothing starts yet."""
        if not 1 <= nodes <= 9:
            raise ConfigError(f"an embedded Kafka has 1 to 9 nodes, not {nodes}")
        self._nodes = nodes
        self._data = data
        self._port = port
        self._jvm = jvm
        self._settings = {**(few_threads(os.cpu_count() or 1) if jvm == "quick" else {}), **(settings or {})}
        self._users = dict(users or {})
        self.secure = None if secure is None else SecureFolder(secure, users)
        self._announce = announce
        self._plan: ClusterPlan | None = None
        self._root = Path()
        self._processes: KeptProcesses | None = None

    def __enter__(self) -> "EmbeddedKafka":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def bootstrap_servers(self) -> str:
        """Where clients connect, without a password."""
        return self._running()[0].bootstrap_servers

    @property
    def users_bootstrap_servers(self) -> str:
        """Where the users connect."""
        return self._running()[0].users_bootstrap_servers

    @property
    def certificates_bootstrap_servers(self) -> str:
        """Where clients with a certificate connect, on a secured broker."""
        return self._running()[0].certificates_bootstrap_servers

    @property
    def folder(self) -> Path:
        """Where the data are."""
        self._running()
        return self._root

    @property
    def node_numbers(self) -> tuple[int, ...]:
        """What `stop_node` and its like take: 1 to the number of nodes."""
        return tuple(range(1, self._nodes + 1))

    def start(self) -> None:
        """Start all nodes, and wait until every one answers: 2 s for one, 6 s for three.

        Raises ConfigError (no Java, no jars, a port or the folder is taken) or NotReadyError with Kafka's own reason.
        """
        if self._processes is not None:
            raise InvariantError("the embedded Kafka runs already")
        java, jars = find_java(), kafka_jars(self._announce)
        for attempt in range(1, attempts_max + 1):
            with contextlib.ExitStack() as undo:
                undo.callback(self.close)
                try:
                    self._open(java, jars)
                    undo.pop_all()
                    return
                except _PortTakenError:
                    # Somebody took a port between our look and Kafka's: look again. A port that was asked for is then refused.
                    if attempt == attempts_max:
                        raise

    def stop_node(self, number: int) -> None:
        """Stop a node as an operator would, and wait until it has ended."""
        self._end_node(number, signal.SIGTERM)

    def kill_node(self, number: int) -> None:
        """kill -9 a node, and wait until it is gone."""
        self._end_node(number, signal.SIGKILL)

    def pause_node(self, number: int) -> None:
        """Let a node stand still: its connections stay open, and nobody answers. Waits until every thread of it has stopped, since on
        a busy machine one may still answer meanwhile.

        Raises NotReadyError when one goes on.
        """
        self._signal_node(number, signal.SIGSTOP)
        pid = self.pid(number)
        deadline_s = time.monotonic() + stop_timeout_s
        while pid is not None and not _stands_still(pid):
            if time.monotonic() > deadline_s:
                raise NotReadyError(f"node {number} did not stand still in {stop_timeout_s:g} s")
            time.sleep(0.001)

    def resume_node(self, number: int) -> None:
        """Let a paused node go on."""
        self._signal_node(number, signal.SIGCONT)

    def start_node(self, number: int) -> None:
        """Start a stopped or killed node on its data and port, and wait until it answers."""
        processes, node = self._running()[1], self._node(number)
        if processes.pid(node.name) is not None:
            raise InvariantError(f"node {number} runs already")
        self._serve(node, find_java(), kafka_jars(self._announce))
        self._await_ready([node])

    def pid(self, number: int) -> int | None:
        """The process id of a node's JVM while it runs."""
        return self._running()[1].pid(self._node(number).name)

    def log(self, number: int) -> str:
        """What a node has logged since it was last started."""
        return self._said(self._node(number), "console.log", "server.log")

    def fault(self, number: int) -> str:
        """The last line of a node's log that names a fault, for a sentence on why it ended."""
        return _worst_line(self.log(number))

    def death(self, number: int) -> str:
        """How a node that runs no longer has ended: by which signal, or with which exit code and the fault it logged."""
        code = self._running()[1].wait(self._node(number).name, 0.0)
        if code is None:
            return "runs"
        if code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        return f"ended with exit code {code}: {self.fault(number)}"

    def close(self) -> None:
        """End all nodes; without `data` all that they wrote goes, too. Idempotent."""
        if self._processes is not None:
            self._processes.close()
            self._processes = None

    def _open(self, java: Path, jars: Path) -> None:
        if self._data is None:
            self._root = Path(tempfile.gettempdir(), f"penstock-kafka-{secrets.token_hex(8)}")
            plan = plan_cluster(nodes=self._nodes, port=self._port)
        else:
            self._root = self._data.absolute()
            plan = self._kept_plan(self._root / "cluster.json")
        self._plan = plan
        if self.secure is not None:
            self.secure.make()
        files = {"cluster.json": plan.write()}
        for node in plan.nodes:
            files[f"{node.name}/server.properties"] = node_properties(
                plan,
                node,
                folder=self._folder(node),
                users=self._users,
                settings=self._settings,
                secure=self.secure,
            )
            options = () if self.secure is None else self.secure.format_options()
            files[f"{node.name}/{words_file}"] = words_text(
                format_words(plan, folder=self._folder(node), options=options)
            )
        self._processes = KeptProcesses(root=self._root, temporary=self._data is None, files=files)
        self._format(plan, java, jars)
        for node in plan.nodes:
            self._serve(node, java, jars)
        self._await_ready(plan.nodes)

    def _kept_plan(self, path: Path) -> ClusterPlan:
        if not path.exists():
            return plan_cluster(nodes=self._nodes, port=self._port)
        kept = ClusterPlan.read(path)
        if len(kept.nodes) != self._nodes:
            raise ConfigError(
                f"the cluster in {path.parent} was made with {len(kept.nodes)}, not {self._nodes} nodes"
            )
        if self._port is not None:
            moved = [replace(node, port=self._port + index) for index, node in enumerate(kept.nodes)]
            kept = replace(kept, nodes=tuple(moved))
        ports = [port for node in kept.nodes for port in (node.port, node.controller_port)]
        require_free(ports, purpose=f"for the cluster in {path.parent}, which may be running already")
        return kept

    def _format(self, plan: ClusterPlan, java: Path, jars: Path) -> None:
        _, processes = self._running()
        raw = [n for n in plan.nodes if not (self._folder(n) / "log" / "meta.properties").exists()]
        for node in raw:
            folder = self._folder(node)
            command = format_command(plan, java=java, jars=jars, folder=folder)
            processes.start(f"format-{node.number}", command, output=folder / "format.log")
        for node in raw:
            if processes.wait(f"format-{node.number}", start_timeout_s) != 0:
                raise _failure("Kafka could not make its storage", self._said(node, "format.log"))

    def _serve(self, node: Node, java: Path, jars: Path) -> None:
        folder = self._folder(node)
        command = serve_command(java=java, jars=jars, folder=folder, jvm=self._jvm)
        self._running()[1].start(node.name, command, output=folder / "console.log")

    def _signal_node(self, number: int, what: signal.Signals) -> None:
        self._running()[1].signal(self._node(number).name, what)

    def _end_node(self, number: int, how: signal.Signals) -> None:
        self._signal_node(number, how)
        processes, node = self._running()[1], self._node(number)
        if processes.wait(node.name, stop_timeout_s) is None:
            raise NotReadyError(f"node {number} did not stop in {stop_timeout_s:g} s")

    def _await_ready(self, nodes: Sequence[Node]) -> None:
        """Wait until each of these nodes accepts connections and knows that all of them are up."""
        deadline_s = time.monotonic() + start_timeout_s
        wanted = {node.number for node in nodes}
        for node in nodes:
            while not _accepts(node.port):
                self._require_alive(node, deadline_s)
                time.sleep(poll_s)
            admin = KafkaAdmin(
                ClientConfig(
                    bootstrap_servers=f"{host}:{node.port}", properties={"reconnect.backoff.max.ms": 100}
                ),
                timeout_s=5.0,
            )
            while not wanted <= _up(admin):
                self._require_alive(node, deadline_s)
                time.sleep(poll_s)

    def _require_alive(self, node: Node, deadline_s: float) -> None:
        if self._running()[1].wait(node.name, 0.0) is not None:
            raise _failure("Kafka did not start", self.log(node.number))
        if time.monotonic() > deadline_s:
            raise NotReadyError(f"Kafka is not ready after {start_timeout_s:g} s: {self.fault(node.number)}")

    def _said(self, node: Node, *names: str) -> str:
        files = [self._folder(node) / name for name in names]
        return "".join(file.read_text(encoding="utf-8", errors="replace") for file in files if file.is_file())

    def _folder(self, node: Node) -> Path:
        return self._root / node.name

    def _node(self, number: int) -> Node:
        if number not in self.node_numbers:
            raise ConfigError(f"there is no node {number}; there are {self._nodes}")
        return self._running()[0].nodes[number - 1]

    def _running(self) -> tuple[ClusterPlan, KeptProcesses]:
        if self._plan is None or self._processes is None:
            raise InvariantError("the embedded Kafka is not running")
        return self._plan, self._processes


class _PortTakenError(NotReadyError):
    """Somebody listens where a node was going to."""


def _failure(what: str, log: str) -> PenstockError:
    if "UnsupportedClassVersionError" in log:
        return ConfigError("the embedded Kafka needs Java 17 or newer: apt-get install default-jre-headless")
    sentence = f"{what}: {_worst_line(log)}"
    return _PortTakenError(sentence) if "Address already in use" in log else NotReadyError(sentence)


def _worst_line(log: str) -> str:
    """The last line that names a fault."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    faults = [line for line in lines if "Exception" in line or "ERROR" in line or "rror:" in line]
    spoken = [line for line in faults if not line.startswith("at ")]
    return (spoken or lines or ["it wrote no log"])[-1][:400]


def _accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1.0):
        return True
    return False


def _up(admin: KafkaAdmin) -> frozenset[int]:
    try:
        return admin.broker_ids()
    except UnavailableError:
        return frozenset()


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def main() -> int:
    """Fetch the jars, and say what is missing."""
    parser = argparse.ArgumentParser(
        prog="python -m penstock.connectors.embedded.kafka", description=main.__doc__
    )
    parser.add_argument("--fetch", action="store_true", required=True, help="get Kafka's jars")
    parser.parse_args()
    try:
        find_java()
        kafka_jars(announce=_say)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())


def _stands_still(pid: int) -> bool:
    """Whether every thread of a process has stopped; where the system does not tell, it is taken to have."""
    for thread in Path(f"/proc/{pid}/task").glob("*/stat"):
        try:
            state = thread.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            continue
        if state not in "TtZXx":
            return False
    return True
