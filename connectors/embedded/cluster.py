"""What an embedded cluster consists of: ports, ids, properties and the command lines of its nodes."""

import base64
import json
import os
import random
import socket
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

from penstock.connectors.embedded.secured import SecureFolder
from penstock.schemas.errors import ConfigError

Jvm = Literal["quick", "full"]
"""quick: starts in 1.3 s, never optimises far and has few threads for requests, for tests and the demo; full: what a server uses, for measurements."""

host: Final = "127.0.0.1"
words_file: Final = "format.words"
log_settings: Final = Path(__file__).with_name("kafka-log4j2.properties")
ports_first, ports_last = 10_000, 32_767
"""Ports are taken from here: above, Linux lends ports to outgoing connections, and one of those could sit on the port of a
node that is down for a moment."""

_flags: Final[Mapping[Jvm, tuple[str, ...]]] = {
    "quick": ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmn16m", "-Xmx512m"),
    "full": ("-XX:+UseG1GC", "-Xmx1g"),
}
_guarded: Final[Mapping[str, str]] = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:ANONYMOUS",  # who comes by the loopback listener without a password: the brokers, and this user
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """One broker and controller in a process of its own."""

    number: int
    port: int
    controller_port: int
    users_port: int  # the listener that asks for a name and a password, where there are users
    directory_id: str
    certificates_port: int = 0  # the listener that asks for a client's certificate, of a secured broker

    @property
    def name(self) -> str:
        return f"node-{self.number}"


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterPlan:
    """All nodes. It is kept beside the data, so that the next start finds the same cluster."""

    cluster_id: str
    nodes: tuple[Node, ...]

    @property
    def bootstrap_servers(self) -> str:
        return ",".join(f"{host}:{node.port}" for node in self.nodes)

    @property
    def users_bootstrap_servers(self) -> str:
        return ",".join(f"{host}:{node.users_port}" for node in self.nodes)

    @property
    def certificates_bootstrap_servers(self) -> str:
        return ",".join(f"{host}:{node.certificates_port}" for node in self.nodes)

    def write(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"

    @staticmethod
    def read(path: Path) -> "ClusterPlan":
        """Raises ConfigError for what `write` did not write."""
        try:
            tree = json.loads(path.read_text(encoding="utf-8"))
            nodes = tuple(Node(**node) for node in tree["nodes"])
            return ClusterPlan(cluster_id=tree["cluster_id"], nodes=nodes)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path} does not describe an embedded Kafka") from error


def plan_cluster(*, nodes: int, port: int | None) -> ClusterPlan:
    """A new cluster on free ports; with `port` its nodes listen there and on the ports after it.

    Raises ConfigError for a port that is taken.
    """
    wanted = [] if port is None else [port + index for index in range(nodes)]
    require_free(wanted)
    free = free_ports(4 * nodes - len(wanted), besides=wanted)
    controller_ports, users_ports, certificates_ports = (
        free[start * nodes : (start + 1) * nodes] for start in range(3)
    )
    ports = wanted or free[3 * nodes :]
    planned = tuple(
        Node(
            number=index + 1,
            port=ports[index],
            controller_port=controller_ports[index],
            users_port=users_ports[index],
            certificates_port=certificates_ports[index],
            directory_id=_kafka_uuid(),
        )
        for index in range(nodes)
    )
    return ClusterPlan(cluster_id=_kafka_uuid(), nodes=planned)


def require_free(ports: Collection[int], *, purpose: str = "for Kafka, so choose another one") -> None:
    """Raises ConfigError naming the first port that somebody listens on."""
    for port in ports:
        if not 0 < port < 1 << 16:
            raise ConfigError(f"{port} is not a port")
        if not _is_free(port):
            raise ConfigError(f"port {port} is not free {purpose}")


def few_threads(cores: int) -> dict[str, str]:
    """Settings of a node that shares so many cores with its clients: of the eight threads and three that Kafka starts for requests
    most only wake each other up there."""
    return {
        "num.io.threads": str(min(max(cores, 2), 8)),
        "num.network.threads": str(min(max(cores // 2, 1), 3)),
    }


def node_properties(
    plan: ClusterPlan,
    node: Node,
    *,
    folder: Path,
    users: Mapping[str, str],
    settings: Mapping[str, str],
    secure: SecureFolder | None = None,
) -> str:
    """The node's server.properties; `settings` go over everything else."""
    listeners = {"PLAINTEXT": node.port, "CONTROLLER": node.controller_port}
    protocols = {"PLAINTEXT": "PLAINTEXT", "CONTROLLER": "PLAINTEXT"}
    access: dict[str, str] = {}
    if secure is not None:
        if node.certificates_port == 0:
            raise ConfigError(
                "this cluster was made by a version that knew no secured broker; use another --data"
            )
        listeners |= {"USERS": node.users_port, "CERTIFICATES": node.certificates_port}
        protocols |= {"USERS": "SASL_SSL", "CERTIFICATES": "SSL"}
        access = dict(_guarded) | secure.properties()
    elif users:
        listeners["USERS"], protocols["USERS"] = node.users_port, "SASL_PLAINTEXT"
        logins = " ".join(f'user_{name}="{_quoted(password)}"' for name, password in users.items())
        access = {
            "listener.name.users.sasl.enabled.mechanisms": "PLAIN",
            "listener.name.users.plain.sasl.jaas.config": "org.apache.kafka.common.security.plain.PlainLoginModule required "
            f"{logins};",
            **_guarded,
        }
    replicas = min(len(plan.nodes), 3)
    in_sync_min = max(replicas - 1, 1)
    addresses = {name: f"{name}://{host}:{port}" for name, port in listeners.items()}
    properties = {
        "process.roles": "broker,controller",
        "node.id": node.number,
        "log.dirs": folder / "log",
        "listeners": ",".join(addresses.values()),
        "advertised.listeners": ",".join(
            address for name, address in addresses.items() if name != "CONTROLLER"
        ),
        "listener.security.protocol.map": ",".join(f"{name}:{kind}" for name, kind in protocols.items()),
        "inter.broker.listener.name": "PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.bootstrap.servers": ",".join(
            f"{host}:{peer.controller_port}" for peer in plan.nodes
        ),
        "auto.create.topics.enable": "false",
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync_min,
        "offsets.topic.replication.factor": replicas,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync_min,
        "transaction.state.log.num.partitions": 4,
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1000,
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": in_sync_min,
        "share.coordinator.state.topic.num.partitions": 4,
        "broker.heartbeat.interval.ms": 500,
        "broker.session.timeout.ms": 3000,  # a node that was killed comes back only when its former self is given up
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 1000,  # clients and groups may choose short ones, to test what happens then
        "group.consumer.min.session.timeout.ms": 1000,
        "group.consumer.min.heartbeat.interval.ms": 500,
        "log.cleaner.dedupe.buffer.size": 8 << 20,  # a default of 128 MB, held from the start
        **access,
        **settings,
    }
    return "".join(f"{name}={_escaped(str(value))}\n" for name, value in properties.items())


def format_command(plan: ClusterPlan, *, java: Path, jars: Path, folder: Path) -> list[str]:
    """The command that makes a node's storage: its words stand in a file, which the owner alone reads."""
    return [*_java(java, jars, folder, "quick"), f"@{folder / words_file}"]


def format_words(plan: ClusterPlan, *, folder: Path, options: Iterable[str] = ()) -> list[str]:
    """The main class that makes a node's storage, and its arguments."""
    if len(plan.nodes) == 1:
        founders = ["--standalone"]
    else:
        voters = (f"{n.number}@{host}:{n.controller_port}:{n.directory_id}" for n in plan.nodes)
        founders = ["--initial-controllers", ",".join(voters)]
    return [
        "kafka.tools.StorageTool", "format", "-t", plan.cluster_id, "-c", str(folder / "server.properties"), *founders, *options,
    ]  # fmt: skip


def words_text(words: Iterable[str]) -> str:
    """Words as java reads them from an @file: passwords would stand in the list of processes otherwise."""
    escaped = (word.replace("\\", "\\\\").replace('"', '\\"') for word in words)
    return "".join(f'"{word}"\n' for word in escaped)


def serve_command(*, java: Path, jars: Path, folder: Path, jvm: Jvm) -> list[str]:
    """The command that runs a node."""
    return [*_java(java, jars, folder, jvm), "kafka.Kafka", str(folder / "server.properties")]


def _java(java: Path, jars: Path, folder: Path, jvm: Jvm) -> list[str]:
    return [
        str(java), *_flags[jvm],
        "-XX:-UsePerfData",  # its file in the machine's temporary folder would outlive a kill -9;
        f"-Djava.io.tmpdir={folder}",  # so would the compression libraries, which are unpacked there
        f"-XX:ErrorFile={folder / 'crash.log'}",
        "-XX:+ExitOnOutOfMemoryError",
        "-Djava.awt.headless=true",
        f"-Dlog4j2.configurationFile={log_settings}",
        f"-Dpenstock.log.file={folder / 'server.log'}",
        "-cp", f"{jars}/*",
    ]  # fmt: skip


def free_ports(count: int, *, besides: Collection[int] = ()) -> list[int]:
    """Ports that nobody listens on. Raises ConfigError when there are not so many."""
    candidates = random.SystemRandom().sample(range(ports_first, ports_last), 4096)
    free: list[int] = []
    for port in candidates:
        if len(free) == count:
            return free
        if port not in besides and _is_free(port):
            free.append(port)
    raise ConfigError(f"there are no {count} free ports between {ports_first} and {ports_last}")


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # as Java does: old connections do not count
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def _kafka_uuid() -> str:
    """Sixteen random bytes as Kafka writes them; one that begins with a dash would read as an option."""
    while True:
        text = base64.urlsafe_b64encode(os.urandom(16)).decode().rstrip("=")
        if not text.startswith("-"):
            return text


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")
