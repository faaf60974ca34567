"""`penstock broker`: a real Apache Kafka for this machine, in the foreground."""

import argparse
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from penstock.engine.console.stop_signals import stop_signals
from penstock.engine.console.terminal import Terminal
from penstock.schemas.errors import ConfigError, UnavailableError
from penstock.schemas.whole_number import whole_number

if TYPE_CHECKING:
    from penstock.connectors.embedded.kafka import EmbeddedKafka

summary = (
    "Run a real Apache Kafka 4 (KRaft) on this machine until Ctrl-C. Without --data it leaves nothing behind."
)

example = "penstock broker --port 9092 --data ./kafka-data --topic transactions:6"

look_s = 0.5
partitions_default = 6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "--port",
        type=int,
        metavar="P",
        help="port for clients; further nodes take the ones after it; default: a free one, with --data the one it had",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="keep the data here for the next time; default: a temporary folder, removed at the end",
    )
    parser.add_argument("--nodes", type=int, default=1, metavar="N", help="how many nodes (default 1)")
    parser.add_argument(
        "--secure",
        type=Path,
        metavar="DIR",
        help="also listen with TLS, passwords (PLAIN, SCRAM), tokens and client certificates, under ACLs; certificates, users "
        "and settings to copy from are written to DIR",
    )
    parser.add_argument(
        "--topic",
        action="append",
        default=[],
        metavar="NAME[:PARTITIONS]",
        help="create this topic where it does not exist, with 6 partitions unless it says otherwise; may be repeated",
    )
    parser.add_argument(
        "--restart", action="store_true", help="start a node again that has ended, with the data that it had"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object when ready")


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Serve until SIGINT or SIGTERM. A node that ends is named with its cause; the others serve on.

    Raises UnavailableError when the last node has ended, ConfigError for a topic that is none.
    """
    from penstock.connectors.embedded.kafka import EmbeddedKafka  # late: --help needs no Kafka client
    from penstock.connectors.kafka.admin.admin import KafkaAdmin
    from penstock.connectors.kafka.client import ClientConfig

    topics = _topics(arguments.topic)
    asked_to_stop = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        asked_to_stop.set()

    kafka = EmbeddedKafka(
        nodes=arguments.nodes,
        data=arguments.data,
        port=arguments.port,
        jvm="full",
        secure=arguments.secure,
        announce=terminal.say,
    )
    terminal.say("starting Apache Kafka ...")
    with kafka:
        # Only now: until here both signals end the program at once, and the nodes with it.
        for wish in stop_signals():
            signal.signal(wish, stop)
        admin = KafkaAdmin(ClientConfig(bootstrap_servers=kafka.bootstrap_servers))
        there = admin.partition_counts(topics)
        missing = {name: count for name, count in topics.items() if there[name] is None}
        if missing:
            admin.create_topics(missing, exist_ok=True)
        for name, count in topics.items():
            terminal.say(
                f"topic {name}: {count} partitions"
                if name in missing
                else f"topic {name} exists already, with {there[name]} partitions"
            )
        terminal.say(f"Kafka is ready: {kafka.bootstrap_servers}   (Ctrl-C ends it)")
        secured = {}
        if kafka.secure is not None:
            written = kafka.secure.write_settings(
                users_servers=kafka.users_bootstrap_servers,
                certificates_servers=kafka.certificates_bootstrap_servers,
            )
            terminal.say(f"with a password or a token (SASL_SSL): {kafka.users_bootstrap_servers}")
            terminal.say(f"with a certificate (SSL): {kafka.certificates_bootstrap_servers}")
            terminal.say(f"settings to copy from: {', '.join(map(str, written))}")
            terminal.say(
                "no user may do anything yet: `penstock acl` prints what to allow; the first address has no password and may do "
                "everything, and only this machine reaches it"
            )
            secured = {
                "users_bootstrap_servers": kafka.users_bootstrap_servers,
                "certificates_bootstrap_servers": kafka.certificates_bootstrap_servers,
                "secure": str(kafka.secure.folder),
            }
        terminal.result(
            {
                "bootstrap_servers": kafka.bootstrap_servers,
                **secured,
                "nodes": [{"number": number, "pid": kafka.pid(number)} for number in kafka.node_numbers],
                "folder": str(kafka.folder),
            }
        )
        _watch(kafka, asked_to_stop, restart=arguments.restart, say=terminal.say)
    return 0


def _watch(
    kafka: "EmbeddedKafka", asked_to_stop: threading.Event, *, restart: bool, say: Callable[[str], None]
) -> None:
    down: set[int] = set()
    while not asked_to_stop.wait(look_s):
        for number in kafka.node_numbers:
            if kafka.pid(number) is not None or number in down:
                continue
            death = kafka.death(number)
            if restart:
                say(f"node {number} {death}; starting it again")
                kafka.start_node(number)
                say(f"node {number} is back")
                continue
            down.add(number)
            if len(down) == len(kafka.node_numbers):
                raise UnavailableError(f"node {number} {death}" + (", the last one" if len(down) > 1 else ""))
            say(f"node {number} {death}; the others serve on (--restart would start it again)")


def _topics(words: Sequence[str]) -> dict[str, int]:
    topics: dict[str, int] = {}
    for word in words:
        name, colon, count = word.partition(":")
        partitions = whole_number(count) if colon else partitions_default
        if not name or partitions is None or not 1 <= partitions <= 10_000:
            raise ConfigError(
                f"--topic {word[:50]} is not NAME or NAME:PARTITIONS, with 1 to 10,000 partitions"
            )
        topics[name] = partitions
    return topics
